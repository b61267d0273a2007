//! Both roles on both rings at toy size: from keys to a data set's score, and everything that must be refused on the
//! way, by exit code.

use crate::common::files::{Files, write_sst2};
use crate::common::model::{TOY, sentences, write_encoder};
use crate::common::{json_lines, str_of};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use tempfile::TempDir;
use veilformer::transformer::{Config, Site};
use veilformer_plain::model::Model;
use veilformer_plain::sites::{Budget, Ranges};
use veilformer_plain::tiny;

/// Sentences of the data set: two batches of four, the last not full.
const SENTENCES: usize = 7;

/// A model, keys, a data set, its batches and their answers.
fn make() -> Files {
    let files = Files::new();
    write_sst2(&files.path("dev.tsv"), SENTENCES);
    files.expect(
        0,
        "encrypt --keys @/keys --model @/model --file @/dev.tsv --batch 4 --out @/x --weights @/w.vfw",
    );
    files.give_to_server();
    files.expect(0, "infer --keys @/server --model @/model --in @/x --out @/y");
    files
}

fn files() -> &'static Files {
    static FILES: OnceLock<Files> = OnceLock::new();
    FILES.get_or_init(make)
}

#[test]
fn a_data_set_is_answered_and_scored() {
    let f = files();
    let line = "evaluate --json --secret @/keys/secret.key --model @/model --in @/y --file @/dev.tsv";
    let report = json_lines(&f.expect(0, line)).remove(0);
    assert_eq!((&report["metric"], &report["answers"]), (&"accuracy".into(), &2.into()), "{report}");
    assert_eq!((&report["sentences"], &report["escaped"]), (&SENTENCES.into(), &0.into()));
    assert_eq!(report["same_class_polynomial"], 1.0, "{report}");
    assert_eq!(report["encrypted"], report["polynomial"]);
    assert!(report["against_polynomial"]["bits_min"].as_f64().unwrap() > 8.0, "{report}");
    // Not all of them, and the same ones twice.
    let one =
        "evaluate --secret @/keys/secret.key --model @/model --file @/dev.tsv --in @/y/answer-00000.vfa";
    assert!(f.expect(3, one).contains("4 sentences answered, 7 given"));
    let last = one.replace("00000", "00001");
    assert!(f.expect(3, &last).contains("starts at sentence 5"));
    let typed = line.replace("--file @/dev.tsv", "--text fine");
    assert!(f.expect(2, &typed).contains("without labels"));
}

#[test]
fn one_answer_is_shown_beside_the_model_in_the_clear() {
    let f = files();
    let line = "decrypt --json --secret @/keys/secret.key --model @/model --in @/y/answer-00001.vfa";
    let lines = json_lines(&f.expect(0, &format!("{line} --file @/dev.tsv")));
    assert_eq!(lines.len(), 3 + 2);
    assert_eq!(lines[0]["sentence"], sentences(SENTENCES)[4]);
    assert!(lines[0]["bits_polynomial"].as_f64().unwrap() > 8.0, "{}", lines[0]);
    let witness = &lines[4];
    assert_eq!(witness["escaped"], false);
    assert!(witness["stray"].as_f64().unwrap() < 1e-2, "{witness}");
    assert!(witness["reach"].as_f64().unwrap() > 1e-3, "{witness}");
    let unnamed = json_lines(&f.expect(0, line));
    assert!(unnamed[0]["sentence"].is_null() && unnamed[0]["exact"].is_null());
    assert_eq!(unnamed[0]["encrypted"], lines[0]["encrypted"]);
    let short = f.path("short.tsv");
    write_sst2(&short, 3);
    let message = f.expect(3, &format!("{line} --file @/short.tsv"));
    assert!(message.contains("answers sentences 5 to 7, 3 are given"), "{message}");
}

/// Writes the encoder with a gate that serves a twentieth of the arguments it meets.
fn write_narrow_encoder(folder: &Path, config: Config) {
    write_encoder(folder, config);
    let mut model = Model::load(folder).unwrap();
    let (low, high) = model.approximations.entry(Site::Gate(0)).unwrap().observed;
    let mut seen = Ranges::new(&config);
    seen.note(Site::Gate(0), low / 20.0);
    seen.note(Site::Gate(0), high / 20.0);
    let budget = |site| Budget { degree: 15, ..tiny::budget(&config, site) };
    model.approximations.fit([Site::Gate(0)], &seen, budget).unwrap();
    model.save(folder).unwrap();
}

#[test]
fn an_argument_outside_its_interval_is_told() {
    let f = files();
    write_narrow_encoder(&f.path("narrow"), TOY);
    f.expect(0, "encrypt --keys @/keys --model @/narrow --file @/dev.tsv --batch 4 --out @/xn");
    f.expect(0, "infer --keys @/server --model @/narrow --in @/xn --out @/yn");
    for command in ["decrypt", "evaluate", "evaluate --by-step"] {
        let line =
            format!("{command} --secret @/keys/secret.key --model @/narrow --in @/yn --file @/dev.tsv");
        let message = f.expect(7, &line);
        assert!(message.contains("answer-00001.vfa: a value left its polynomial's interval"), "{message}");
    }
}

#[test]
fn encrypted_weights_answer_as_those_in_the_clear() {
    let f = files();
    let line = "infer --json --keys @/server --model @/model --in @/x --out @/yw --weights @/w.vfw";
    let report = json_lines(&f.expect(0, line)).remove(0);
    assert_eq!((&report["sentences"], &report["batches"]), (&SENTENCES.into(), &2.into()));
    let score = "evaluate --json --secret @/keys/secret.key --model @/model --in @/yw --file @/dev.tsv --weights @/w.vfw";
    let report = json_lines(&f.expect(0, score)).remove(0);
    assert_eq!(report["escaped"], 0);
    assert!(report["against_polynomial"]["bits_min"].as_f64().unwrap() > 6.0, "{report}");
    // Weights of another rank.
    let other =
        "encrypt --keys @/keys --model @/model --lora-rank 1 --file @/dev.tsv --out @/x1 --weights @/w1.vfw";
    f.expect(0, other);
    let message = f.expect(3, &line.replace("w.vfw", "w1.vfw").replace("/yw", "/no"));
    assert!(message.contains("--lora-rank"), "{message}");
    let message = f.expect(3, &line.replace("w.vfw", "x/batch-00000.vfb").replace("/yw", "/no"));
    assert!(message.contains("expected encrypted weights"), "{message}");
    assert!(!f.path("no").join("answer-00000.vfa").exists());
}

#[test]
fn a_faulty_board_changes_nothing_but_the_time() {
    let f = files();
    let line = "infer --json --keys @/server --model @/model --in @/x/batch-00001.vfb --out @/board.vfa";
    let report = json_lines(&f.expect(0, &format!("{line} --accelerator board --faults 7/0.001"))).remove(0);
    for ring in [0, 1] {
        let offload = &report["offload"][ring];
        assert!(offload["verified"].as_u64().unwrap() > 1000, "{offload}");
        assert!(offload["mismatches"].as_u64().unwrap() > 0, "{offload}");
    }
    assert_eq!(fs::read(f.path("board.vfa")).unwrap(), fs::read(f.path("y/answer-00001.vfa")).unwrap());
    let message = f.expect(2, &line.replace("board.vfa", "no.vfa --faults 7/0.01"));
    assert!(message.contains("--accelerator board"), "{message}");
}

#[test]
fn keys_on_disk_give_the_same_answer() {
    let f = files();
    let line = |memory: &str, name: &str| {
        format!(
            "infer --json --keys @/server --model @/model --in @/x/batch-00001.vfb --key-memory {memory} --out @/{name}"
        )
    };
    let all = json_lines(&f.expect(0, &line("4GiB", "all.vfa"))).remove(0);
    assert_eq!(all["keys"], all["key_loads"]);
    let least = f.expect(6, &line("1KiB", "no.vfa"));
    assert!(least.contains("--key-memory") && least.contains("small ring"), "{least}");
    let small = 1 + fs::metadata(f.path("server/evaluation-small.keys")).unwrap().len() / (1 << 20);
    let few = json_lines(&f.expect(0, &line(&format!("{}MiB", 3 * small + 60), "few.vfa"))).remove(0);
    assert!(few["key_loads"].as_u64() > few["keys"].as_u64(), "{few}");
    let answer = fs::read(f.path("y/answer-00001.vfa")).unwrap();
    for name in ["all.vfa", "few.vfa"] {
        assert!(fs::read(f.path(name)).unwrap() == answer, "{name}");
    }
}

#[test]
fn a_server_refuses_secret_keys() {
    let f = files();
    let infer = "infer --keys @/server --model @/model --in @/x --out @/refused";
    for keys in ["@/keys", "@/keys/secret.key"] {
        let message = f.expect(5, &infer.replace("@/server", keys));
        assert!(message.contains("never leaves the client"), "{message}");
    }
    f.expect(5, &infer.replace("@/x", "@/keys/secret.key"));
    f.expect(5, &format!("{infer} --weights @/keys/secret.key"));
    f.expect(5, "encrypt --keys @/keys/secret.key --model @/model --text fine --out @/refused");
    assert!(!f.path("refused/answer-00000.vfa").exists() && !f.path("refused/batch-00000.vfb").exists());
}

#[test]
fn files_of_others_are_named_as_such() {
    let (f, o) = (files(), Files::new());
    // Keys of another generation: of both rings, and of the small one alone.
    let infer = "infer --keys @/keys/evaluation.keys --model @/model --out @/foreign --in";
    let message = o.expect(4, &format!("{infer} {}", f.name("x")));
    assert!(message.contains("another secret key"), "{message}");
    let decrypt = "decrypt --secret @/keys/secret.key --model @/model --in";
    assert!(o.expect(4, &format!("{decrypt} {}", f.name("y"))).contains("another secret key"));
    fs::create_dir(o.path("mixed")).unwrap();
    fs::copy(o.path("keys/evaluation.keys"), o.path("mixed/evaluation.keys")).unwrap();
    fs::copy(f.path("keys/evaluation-small.keys"), o.path("mixed/evaluation-small.keys")).unwrap();
    let message = o.expect(4, "infer --keys @/mixed --model @/model --out @/foreign --in @/nothing");
    assert!(message.contains("another secret key"), "{message}");
    fs::copy(o.path("keys/evaluation.keys"), o.path("mixed/evaluation-small.keys")).unwrap();
    let message = o.expect(3, "infer --keys @/mixed --model @/model --out @/foreign --in @/nothing");
    assert!(message.contains("expected evaluation keys of this ring"), "{message}");
    // Another task, seed or model.
    for other in ["--task cola", "--seed 2", "--lora-rank 3"] {
        let message =
            f.expect(3, &format!("infer --keys @/server --model @/model --in @/x --out @/foreign {other}"));
        assert!(message.contains("--task, --lora-rank and --seed"), "{message}");
        let line = format!("decrypt --secret @/keys/secret.key --model @/model --in @/y {other}");
        assert!(f.expect(3, &line).contains("--task, --lora-rank and --seed"));
    }
    write_encoder(&o.path("wide"), Config { feed_forward: 16, ..TOY });
    let line =
        format!("infer --keys {} --model @/wide --in {} --out @/foreign", f.name("server"), f.name("x"));
    assert!(o.expect(3, &line).contains("client and server must use the same --model"));
}

#[test]
fn a_model_that_is_not_whole_is_refused() {
    let (f, o) = (files(), tempfile::tempdir().unwrap());
    let line = format!("encrypt --keys @/keys --text fine --out @/never --model {}", str_of(o.path()));
    let copy = |name: &str, text: &[u8]| {
        for file in ["config.json", "model.safetensors", "vocab.txt"] {
            fs::copy(f.path("model").join(file), o.path().join(file)).unwrap();
        }
        fs::write(o.path().join(name), text).unwrap();
    };
    let vocabulary = fs::read_to_string(f.path("model/vocab.txt")).unwrap();
    copy("vocab.txt", (vocabulary.clone() + "extra\n").as_bytes());
    assert!(f.expect(3, &line).contains("the files are not one model's"));
    copy("vocab.txt", vocabulary.replace("[CLS]", "[CSL]").as_bytes());
    assert!(f.expect(3, &line).contains("use the vocab.txt that came with the model"));
    copy("model.safetensors", b"no");
    f.expect(3, &line);
    // The keys are not enough for a model of more tokens.
    write_encoder(o.path(), Config { length: 32, ..TOY });
    let line = format!("infer --keys @/server --in @/x --out @/never --model {}", str_of(o.path()));
    let message = f.expect(4, &line);
    assert!(message.contains("missing evaluation key"), "{message}");
    let line = "keygen --model @/model --parameters n16/boot --out @/never";
    assert!(f.expect(2, line).contains("n16/matrix"));
    let message = f.expect(2, &line.replace("n16/boot", "n16/matrix"));
    assert!(message.contains("a model of 16 tokens") && message.contains("are 64 at least"), "{message}");
}

#[test]
fn sentences_are_checked_before_anything_is_written() {
    let f = files();
    let encrypt = |rows: &str, more: &str| {
        fs::write(f.path("bad.tsv"), rows).unwrap();
        format!("encrypt --keys @/keys --model @/model --file @/bad.tsv --out @/bad{more}")
    };
    for (rows, expected) in [
        ("sentence\tlabel\nfine film\t2\n", "line 2: label \"2\"; expected 0 or 1"),
        ("sentence\tlabel\nfine film\n", "line 2: 1 columns"),
        ("fine film\t1\n", "the first line is"),
        ("sentence\tlabel\n", "has no rows"),
    ] {
        let message = f.expect(3, &encrypt(rows, ""));
        assert!(message.contains(expected), "{message}");
    }
    let fine = "sentence\tlabel\nfine film\t1\ndull\t0\n";
    assert!(f.expect(2, &encrypt(fine, " --batch 17")).contains("1 to 16 fit"));
    assert!(f.expect(2, &encrypt(fine, ".vfb --batch 1")).contains("name a folder"));
    let two = "encrypt --keys @/keys --model @/model --task mrpc --text fine --out @/bad";
    assert!(f.expect(2, two).contains("one for every --text"));
    let none = "encrypt --keys @/keys --model @/model --task rte --out @/bad";
    assert!(f.expect(2, none).contains("pass --file or --text"));
    f.expect(2, "encrypt --keys @/keys --model @/model --task mnli --out @/bad");
    assert!(!f.path("bad/batch-00000.vfb").exists() && !f.path("bad.vfb").exists());
}

#[test]
fn nothing_is_overwritten_unasked() {
    let f = files();
    let line = "encrypt --keys @/keys --model @/model --text fine --out @/again";
    f.expect(0, line);
    assert!(f.expect(2, line).contains("--force"));
    f.expect(0, &format!("{line} --force"));
    let before = fs::read(f.path("y/answer-00000.vfa")).unwrap();
    let line = "infer --keys @/server --model @/model --in @/x --out @/y";
    assert!(f.expect(2, line).contains("--force"));
    assert_eq!(fs::read(f.path("y/answer-00000.vfa")).unwrap(), before);
    let secret = fs::read(f.path("keys/secret.key")).unwrap();
    let line = "keygen --model @/model --parameters insecure-toy-matrix --out @/keys";
    assert!(f.expect(2, line).contains("--force"));
    assert_eq!(fs::read(f.path("keys/secret.key")).unwrap(), secret);
}

/// A folder with one file, a damaged copy of another.
fn damaged(f: &Files, from: &str, damage: impl Fn(&mut Vec<u8>)) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(Path::new(from).file_name().unwrap());
    let mut bytes = fs::read(f.path(from)).unwrap();
    damage(&mut bytes);
    fs::write(&path, bytes).unwrap();
    (folder, path)
}

#[test]
fn damaged_files_are_bad_files() {
    let f = files();
    let length = fs::metadata(f.path("x/batch-00000.vfb")).unwrap().len() as usize;
    let infer = "infer --keys @/server --model @/model --out @/damaged --in";
    for cut in [0, 1, 100, 300, length / 2, length - 1] {
        let (_folder, path) = damaged(f, "x/batch-00000.vfb", |bytes| bytes.truncate(cut));
        f.expect(3, &format!("{infer} {}", str_of(&path)));
    }
    for (flipped, more) in [(length / 2, ""), (length - 1, ""), (250, ""), (0, "more")] {
        let (_folder, path) = damaged(f, "x/batch-00000.vfb", |bytes| {
            bytes[flipped] ^= u8::from(flipped > 0);
            bytes.extend_from_slice(more.as_bytes());
        });
        f.expect(3, &format!("{infer} {}", str_of(&path)));
    }
    let decrypt = "decrypt --secret @/keys/secret.key --model @/model --in";
    let length = fs::metadata(f.path("y/answer-00000.vfa")).unwrap().len() as usize;
    for flipped in [250, 500, length - 1] {
        let (_folder, path) = damaged(f, "y/answer-00000.vfa", |bytes| bytes[flipped] ^= 4);
        f.expect(3, &format!("{decrypt} {}", str_of(&path)));
    }
    assert!(f.expect(3, &format!("{decrypt} @/x/batch-00000.vfb")).contains("expected an answer"));
    assert!(f.expect(3, &format!("{infer} @/y/answer-00000.vfa")).contains("expected sentences"));
    assert!(f.expect(3, &format!("{infer} @/server")).contains("no files called batch-"));
    f.expect(3, &format!("{decrypt} @/nowhere"));
    let (_folder, path) = damaged(f, "w.vfw", |bytes| bytes.truncate(5000));
    f.expect(3, &format!("{infer} @/x --weights {}", str_of(&path)));
    assert!(!f.path("damaged/answer-00000.vfa").exists());
}

#[test]
fn inspecting_tells_what_travels() {
    let f = files();
    let batch = f.expect(0, "inspect @/x/batch-00001.vfb");
    assert!(batch.contains("batch of 3 in 4 places, from sentence 5, labelled"), "{batch}");
    assert!(batch.contains("NO SECURITY"));
    let answer = f.expect(0, "inspect @/y/answer-00000.vfa");
    assert!(answer.contains("logits of 4 from sentence 1"), "{answer}");
    assert!(f.expect(0, "inspect @/w.vfw").contains("weights of work"));
    let folder = f.expect(0, "inspect @/keys");
    for what in ["SECRET KEY", "public key", "evaluation keys of the small ring"] {
        assert!(folder.contains(what), "{what}");
    }
}

#[test]
fn releases_are_flooded_and_counted() {
    let f = Files::new();
    let o = files();
    let secret = f.path("secret.key");
    fs::copy(o.path("keys/secret.key"), &secret).unwrap();
    let line = format!(
        "decrypt --json --secret @/secret.key --model {} --in {} --release",
        o.name("model"),
        o.name("y/answer-00000.vfa")
    );
    assert!(f.expect(5, &line).contains("drowns"));
    let anyway = format!("{line} --drowned");
    let left = |out: &str| json_lines(out)[0]["releases_left"].as_u64().unwrap();
    let first = left(&f.expect(0, &anyway));
    for spent in 1..=first {
        assert_eq!(left(&f.expect(0, &anyway)), first - spent);
    }
    assert!(f.expect(5, &anyway).contains("releases allowed"));
}

#[test]
fn secure_one_batch_from_keys_to_a_score() {
    let f = Files::with_model(Config { length: 64, ..TOY });
    write_sst2(&f.path("dev.tsv"), SENTENCES);
    f.expect(0, "keygen --model @/model --inference --out @/keys");
    f.expect(0, "encrypt --keys @/keys --model @/model --file @/dev.tsv --batch 8 --out @/x --unlabelled");
    f.expect(0, "infer --keys @/keys/evaluation.keys --model @/model --in @/x --out @/y");
    let line = "evaluate --json --secret @/keys/secret.key --model @/model --in @/y --file @/dev.tsv";
    let report = json_lines(&f.expect(0, line)).remove(0);
    assert_eq!((&report["escaped"], &report["same_class_polynomial"]), (&0.into(), &1.0.into()), "{report}");
    assert!(report["against_polynomial"]["bits_min"].as_f64().unwrap() > 7.0, "{report}");
    let shown = f.expect(0, "inspect @/y/answer-00000.vfa");
    assert!(shown.contains("128-bit security"), "{shown}");
}
