//! Fine-tuning on both rings at toy size: that it learns what the model in the clear learns, and that nothing it can be
//! interrupted by changes what comes out.

use crate::common::files::{Files, write_sst2};
use crate::common::model::sentences;
use crate::common::{expect, json_lines, program};
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use veilformer::transformer::{AdamWHe, Trainable};
use veilformer_plain::data::{Row, Task};
use veilformer_plain::executor::Functions;
use veilformer_plain::finetune::{FineTuner, Recipe};
use veilformer_plain::model::Model;
use veilformer_plain::run::Example;
use veilformer_plain::tiny;

/// Two batches of four.
const SENTENCES: usize = 8;
/// The second batch is learnt from twice.
const STEPS: u32 = 3;
const RUN: &str = "finetune --json --keys @/server --model @/model --in @/x --steps 3 --run";

/// A run that nothing interrupted.
struct Whole {
    files: Files,
    time: Duration,
}

fn whole() -> &'static Whole {
    static WHOLE: OnceLock<Whole> = OnceLock::new();
    WHOLE.get_or_init(|| {
        let files = Files::new();
        write_sst2(&files.path("train.tsv"), SENTENCES);
        files.expect(0, "encrypt --keys @/keys --model @/model --file @/train.tsv --batch 4 --out @/x");
        files.give_to_server();
        let began = Instant::now();
        let lines = json_lines(&files.expect(0, &format!("{RUN} @/whole")));
        let time = began.elapsed();
        let steps: Vec<u64> = lines.iter().filter_map(|line| line["step"].as_u64()).collect();
        assert_eq!(steps, [1, 2, 3]);
        assert_eq!((&lines[3]["kept"], &lines[3]["steps"]), (&0.into(), &STEPS.into()));
        Whole { files, time }
    })
}

/// What a finished run holds beside its lock.
fn result(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for folder in [folder.to_owned(), folder.join("answers")] {
        for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap).filter(|e| e.path().is_file()) {
            let name = entry.file_name().into_string().unwrap();
            files.push((name, fs::read(entry.path()).unwrap()));
        }
    }
    files.sort();
    files
}

fn assert_same(folder: &Path, whole: &Whole) {
    let (found, expected) = (result(folder), result(&whole.files.path("whole")));
    let names = |files: &[(String, Vec<u8>)]| files.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&found), names(&expected));
    assert_eq!(
        names(&found),
        [
            ".lock",
            "answer-00000.vfa",
            "answer-00001.vfa",
            "answer-00002.vfa",
            "checkpoint-00003.vfw",
            "run.json"
        ]
    );
    for ((name, found), (_, expected)) in found.iter().zip(&expected) {
        assert!(found == expected, "{name} differs");
    }
}

/// SIGKILLs that runs survive: as many as are asked for, or what there is time for at every change.
fn kills_wanted() -> usize {
    std::env::var("VEILFORMER_KILLS").map_or(12, |count| count.parse().unwrap())
}

#[test]
fn killed_at_any_moment_and_resumed_the_ciphertexts_are_the_same() {
    let whole = whole();
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut below = |most: u64| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) % most
    };
    // Time enough for a step, hardly for all of them.
    let (micros, mut kills, mut run) = (whole.time.as_micros() as u64 * 2 / 3, 0, 0);
    while kills < kills_wanted() {
        let name = format!("killed-{run}");
        run += 1;
        loop {
            let line = whole.files.filled(&format!("{RUN} @/{name}"));
            let mut child =
                program().args(&line).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            std::thread::sleep(Duration::from_micros(below(micros)));
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success());
                break;
            }
            child.kill().unwrap();
            child.wait().unwrap();
            kills += 1;
        }
        assert_same(&whole.files.path(&name), whole);
    }
    // A run that is done has nothing left to do.
    let lines = json_lines(&whole.files.expect(0, &format!("{RUN} @/killed-0")));
    assert_eq!((lines.len(), &lines[0]["kept"]), (1, &STEPS.into()));
}

#[cfg(unix)]
#[test]
fn interrupted_it_says_where_it_stands_and_goes_on() {
    let whole = whole();
    let line = whole.files.filled(&format!("{RUN} @/interrupted"));
    let child = program().args(&line).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(whole.time / 2);
    let interrupt =
        std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(interrupt.success());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(8), "{said}");
    assert!(said.contains("is kept: repeat the command to go on"), "{said}");
    whole.files.expect(0, &format!("{RUN} @/interrupted"));
    assert_same(&whole.files.path("interrupted"), whole);
}

#[test]
fn it_learns_what_the_model_in_the_clear_learns() {
    let f = &whole().files;
    let model = Model::load(&f.path("model")).unwrap();
    let (config, start) = tiny::adapted(&model, Task::Sst2, 2, 1);
    let (learning_rate, epsilon) = tiny::constants(Task::Sst2);
    let recipe = Recipe {
        trained: Trainable::Adapters,
        optimizer: AdamWHe::paper(learning_rate, epsilon),
        steps: STEPS,
        functions: Functions::Polynomial(&model.approximations),
        noise: None,
    };
    let mut plain = FineTuner::new(&config, start.convert::<f64>(), recipe);
    let example = |row: Row| {
        let sequence = model.tokenizer.encode(&row.sentence, None, config.length).unwrap();
        Example { sequence, label: row.label }
    };
    let rows = Task::Sst2.read(&f.path("train.tsv")).unwrap();
    let examples: Vec<Example> = rows.into_iter().map(example).collect();
    let line =
        "evaluate --json --secret @/keys/secret.key --model @/model --in @/whole/answers --file @/train.tsv";
    let steps = json_lines(&f.expect(0, &format!("{line} --by-step")));
    assert_eq!(steps.len(), STEPS as usize);
    for (step, batch) in steps.iter().zip(examples.chunks(4).cycle()) {
        let (found, expected) = (step["loss"].as_f64().unwrap(), plain.step(batch).unwrap());
        println!("{step}, {expected} in the clear");
        assert!((found - expected).abs() < 1e-3 * expected, "{step}, {expected} in the clear");
    }
    // The first batch comes again after two steps.
    assert_eq!(steps[0]["first"], steps[2]["first"]);
    assert!(f.expect(3, line).contains("each once"));
    // The weights that were learnt answer, and read like those in the clear.
    let weights = "--weights @/whole/checkpoint-00003.vfw";
    f.expect(0, &format!("infer --keys @/server --model @/model --in @/x --out @/after {weights}"));
    let line = "evaluate --json --secret @/keys/secret.key --model @/model --in @/after --file @/train.tsv";
    let report = json_lines(&f.expect(0, &format!("{line} {weights}"))).remove(0);
    assert!(report["against_polynomial"]["bits_min"].as_f64().unwrap() > 6.0, "{report}");
}

#[test]
fn a_rehearsal_scores_what_the_server_trained() {
    let f = &whole().files;
    let line =
        "rehearse --json --model @/model --file @/train.tsv --dev @/train.tsv --batch 4 --steps 3 --bits 30";
    let before = json_lines(&f.expect(0, line));
    let weights = "--secret @/keys/secret.key --weights @/whole/checkpoint-00003.vfw";
    let rows = json_lines(&f.expect(0, &format!("{line} {weights}")));
    let names: Vec<&str> = rows.iter().map(|row| row["run"].as_str().unwrap()).collect();
    assert_eq!(names, ["before", "exact functions", "polynomials", "polynomials, with noise", "encrypted"]);
    assert_eq!(before, rows[..4]);
    let bits = |row: usize, of: &str| rows[row][of]["bits_min"].as_f64().unwrap();
    // Three steps change weights and logits; noise and encryption change them much less.
    for row in [3, 4] {
        for of in ["weights", "logits"] {
            println!("{of} {:.1} bits, {:.1} before", bits(row, of), bits(0, of));
            assert!(bits(row, of) > bits(0, of) + 2.0 && bits(row, of) > 7.0, "{}", rows[row]);
        }
        assert_eq!(rows[row]["score"], rows[2]["score"]);
    }
    // Batches of four have larger gradients than those the model is calibrated for, and the rehearsal says so.
    assert_eq!(rows[2]["escaped"], "Optimizer");
    assert!(rows[4]["loss"].is_null() && rows[3]["loss"].is_f64());
    let message = f.expect(2, &format!("{line} --weights @/whole/checkpoint-00003.vfw"));
    assert!(message.contains("--secret"), "{message}");
}

#[test]
fn scores_are_learnt_too() {
    let f = &whole().files;
    let head = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n";
    let row = |(i, text): (usize, &String)| {
        format!("{i}\tx\tx\tx\tx\tx\tx\t{text}\tgood film\t{:.1}\n", (i * 7 % 11) as f64 / 2.2)
    };
    // The second batch is not full: its sentences come again.
    let rows: String = sentences(SENTENCES - 1).iter().enumerate().map(row).collect();
    fs::write(f.path("scores.tsv"), head.to_owned() + &rows).unwrap();
    let fit = "--degree 7 --rehearsal 40 --out @/scored";
    f.expect(0, &format!("calibrate --model @/model --task sts-b --file @/scores.tsv {fit}"));
    let model = "--model @/scored --task sts-b";
    f.expect(0, &format!("encrypt --keys @/keys {model} --file @/scores.tsv --batch 4 --out @/xs"));
    f.expect(0, &format!("finetune --keys @/server {model} --in @/xs --steps 3 --run @/scores"));
    let twin = format!("rehearse --json {model} --file @/scores.tsv --dev @/scores.tsv --batch 4 --steps 3");
    let weights = "--secret @/keys/secret.key --weights @/scores/checkpoint-00003.vfw";
    let rows = json_lines(&f.expect(0, &format!("{twin} {weights}")));
    for of in ["weights", "logits"] {
        assert!(rows[4][of]["bits_min"].as_f64().unwrap() > 6.0, "{}", rows[4]);
    }
    assert!(rows[4]["same_class"].is_null() && rows[4]["escaped"].is_null());
    let line =
        "evaluate --json --by-step --secret @/keys/secret.key --in @/scores/answers --file @/scores.tsv";
    let steps = json_lines(&f.expect(0, &format!("{line} {model}")));
    // The last tenth of three steps is the third, on the first batch again.
    let (found, plain) = (steps[2]["loss"].as_f64().unwrap(), rows[2]["loss"].as_f64().unwrap());
    assert!((found - plain).abs() < 1e-2 * plain, "{found}, {plain} in the clear");
}

#[test]
fn what_cannot_be_trained_is_refused_before_any_work() {
    let f = &whole().files;
    f.expect(
        0,
        "encrypt --keys @/keys --model @/model --file @/train.tsv --batch 4 --out @/bare --unlabelled",
    );
    let refused = |code: i32, line: &str, says: &str| {
        let message = f.expect(code, line);
        assert!(message.contains(says), "{line}\n{message}");
    };
    refused(3, &RUN.replace("@/x", "@/bare").replace("--run", "--run @/no"), "without --unlabelled");
    refused(2, &format!("{RUN} @/no --learning-rate nan"), "learning rate");
    refused(2, &format!("{RUN} @/no --epsilon 0"), "ε");
    refused(2, &format!("{RUN} @/whole --learning-rate 0.5"), "learning_rate");
    refused(2, &format!("{} @/whole", RUN.replace("--steps 3", "--steps 4")), "steps 3, now it is 4");
    refused(5, &format!("{} @/no", RUN.replace("@/server", "@/keys")), "secret key");
    refused(3, &format!("{} @/no", RUN.replace("@/x", "@/model")), "no files called batch-");
    refused(3, &format!("{RUN} @/no --task sts-b"), "STS-B asks for scores");
    assert!(!f.path("no").exists());
    // A damaged checkpoint is no state to go on from.
    f.expect(0, &format!("{RUN} @/damaged"));
    let checkpoint = f.path("damaged/checkpoint-00003.vfw");
    let mut bytes = fs::read(&checkpoint).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(f.path("damaged/checkpoint-00002.vfw"), &bytes).unwrap();
    fs::remove_file(&checkpoint).unwrap();
    let message =
        expect(3, &f.filled(&format!("{RUN} @/damaged")).iter().map(String::as_str).collect::<Vec<_>>());
    assert!(message.contains("checkpoint-00002"), "{message}");
}
