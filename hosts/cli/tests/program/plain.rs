//! What a client does in the clear: an encoder from text, and its polynomials.

use crate::common::files::{Files, write_sst2};
use crate::common::json_lines;
use crate::common::model::{TOY, sentences};
use std::fs;
use veilformer_plain::model::{Model, Reached};
use veilformer_plain::tokenizer::SPECIAL;

const PRETRAIN: &str = "pretrain --json --text @/text --vocabulary @/full --pieces 30 --layers 1 --width 16 --heads 2 \
                        --length 16 --steps 30 --rehearsal 20 --run";

/// A text, and a vocabulary with words that it has and words that it has not.
fn files() -> Files {
    let files = Files::with_model(TOY);
    fs::write(files.path("text"), sentences(400).join("\n")).unwrap();
    let model = Model::load(&files.path("model")).unwrap();
    let words = model.tokenizer.vocabulary()[SPECIAL.len()..].join("\n");
    fs::write(files.path("full"), format!("{}\n[MASK]\nabsent\n{words}\n", SPECIAL.join("\n"))).unwrap();
    files
}

#[test]
fn text_becomes_an_encoder() {
    let f = files();
    let line = |run: &str| PRETRAIN.replace("--run", &format!("--run @/{run}"));
    let lines = json_lines(&f.expect(0, &line("run")));
    let (progress, report) = (&lines[0], lines.last().unwrap());
    assert_eq!((&progress["step"], &report["steps"]), (&30.into(), &30.into()));
    assert!(progress["loss"].as_f64().unwrap() < 4.0, "{progress}");
    let model = Model::load(&f.path("run/model")).unwrap();
    assert_eq!((model.config.width, model.config.feed_forward, model.config.layers), (16, 32, 1));
    assert!(model.tokenizer.piece("[MASK]").is_some() && model.tokenizer.piece("very").is_some());
    assert!(matches!(model.training.reached, Reached::Pretrained { steps: 30, .. }));

    // Stopped and taken up it is the same.
    f.expect(0, &line("two").replace("--steps 30", "--steps 30 --stop-after 11"));
    assert!(!f.path("two/model").exists());
    f.expect(0, &line("two"));
    for file in ["model.safetensors", "config.json"] {
        let [a, b] = ["run", "two"].map(|run| fs::read(f.path(&format!("{run}/model/{file}"))).unwrap());
        assert!(a == b, "{file}");
    }
    // With another text it is not the same run.
    fs::write(f.path("text"), "a fine film").unwrap();
    let message = f.expect(2, &line("run"));
    assert!(message.contains("begun with") && message.contains("--run"), "{message}");
    // What would end it after hours ends it at once.
    for (bad, code, says) in [("--margin 0.9", 2, "--margin is 0.9"), ("--glue @/nowhere", 3, "nowhere")] {
        let message = f.expect(code, &format!("{} {bad}", line("early")));
        assert!(message.contains(says) && !f.path("early").exists(), "{message}");
    }
    let message = f.expect(3, &line("short"));
    assert!(message.contains("give a text of at least"), "{message}");
    fs::write(f.path("full"), format!("{}\na\n", SPECIAL.join("\n"))).unwrap();
    let message = f.expect(3, &line("mute"));
    assert!(message.contains("[MASK]"), "{message}");
}

#[test]
fn calibration_serves_what_it_has_seen() {
    let f = files();
    write_sst2(&f.path("train.tsv"), 40);
    let line = "calibrate --json --model @/model --file @/train.tsv --text @/text --rehearsal 30 --out";
    let sites = |line: &str| {
        let rows = json_lines(&f.expect(0, line));
        let range = |row: &serde_json::Value, key: &str| [0, 1].map(|end| row[key][end].as_f64().unwrap());
        let row = |row: &serde_json::Value| {
            (row["site"].as_str().unwrap().to_owned(), range(row, "seen"), range(row, "interval"))
        };
        rows.iter().map(row).collect::<Vec<_>>()
    };
    let (narrow, wide) =
        (sites(&format!("{line} @/a --margin 1.1")), sites(&format!("{line} @/b --margin 2")));
    assert!(narrow.iter().any(|(site, ..)| site == "optimizer") && narrow.len() == wide.len());
    for ((site, seen, interval), (_, same, wider)) in narrow.iter().zip(&wide) {
        // Bounds of the optimizer take the margin twice.
        assert!(seen == same || site == "optimizer", "{site}");
        assert!(interval[0] <= seen[0] + 0.1 && seen[1] <= interval[1], "{site}: {seen:?} in {interval:?}");
        assert!(wider[1] - wider[0] >= interval[1] - interval[0], "{site}");
    }
    assert_eq!(
        Model::load(&f.path("a")).unwrap().parameters,
        Model::load(&f.path("model")).unwrap().parameters
    );
    let message = f.expect(2, &format!("{line} @/c --margin 0.5"));
    assert!(message.contains("--margin is 0.5"), "{message}");
    let shipped = "calibrate --json --file @/train.tsv --rehearsal 5 --out @/tiny";
    assert!(
        json_lines(&f.expect(0, shipped))
            .iter()
            .any(|row| row["site"] == "layer.1.gate" && row["degree"] == 63)
    );
    let message = f.expect(2, "calibrate --model @/model --out @/c");
    assert!(message.contains("--file, --glue or --text"), "{message}");
    assert!(!f.path("c").exists());
}
