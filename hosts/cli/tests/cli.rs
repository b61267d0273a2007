//! The program from the outside: both roles at toy size, and everything that
//! must be refused, by exit code.

mod common;

use common::{expect, json_lines, run, str_of, text};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use tempfile::TempDir;

const SENTENCE: &str = "a gorgeous , witty , seductive movie .";

/// Files of one key generation, one question, one answer.
struct Files {
    folder: TempDir,
}

impl Files {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn name(&self, name: &str) -> String {
        str_of(&self.path(name)).to_owned()
    }

    fn make() -> Self {
        let files = Self { folder: tempfile::tempdir().unwrap() };
        let keys = files.name("keys");
        expect(0, &["keygen", "--parameters", "insecure-toy-boot", "--out", &keys]);
        expect(0, &["encrypt", "--keys", &keys, "--text", SENTENCE, "--out", &files.name("x.ct")]);
        let evaluation = files.name("keys/evaluation.keys");
        let (x, y) = (files.name("x.ct"), files.name("y.ct"));
        expect(0, &["infer", "--keys", &evaluation, "--in", &x, "--out", &y]);
        files
    }
}

fn files() -> &'static Files {
    static FILES: OnceLock<Files> = OnceLock::new();
    FILES.get_or_init(Files::make)
}

fn others() -> &'static Files {
    static FILES: OnceLock<Files> = OnceLock::new();
    FILES.get_or_init(Files::make)
}

#[test]
fn logits_survive_encryption() {
    let f = files();
    let (secret, y) = (f.name("keys/secret.key"), f.name("y.ct"));
    let out = expect(0, &["decrypt", "--json", "--secret", &secret, "--in", &y, "--text", SENTENCE]);
    let lines = json_lines(&out);
    let (row, summary) = (&lines[0], &lines[1]);
    assert_eq!(row["predicted"], "positive");
    assert!(row["bits_polynomial"].as_f64().unwrap() > 10.0, "{row}");
    assert_eq!(summary["same_class"], 1.0);
}

#[test]
fn toy_parameters_are_marked_wherever_they_are_used() {
    let output =
        run(&["decrypt", "--secret", &files().name("keys/secret.key"), "--in", &files().name("y.ct")]);
    assert!(text(&output.stderr).contains("WITHOUT ANY SECURITY"));
    assert!(expect(0, &["inspect", &files().name("x.ct")]).contains("NO SECURITY"));
}

#[test]
fn a_faulty_board_changes_nothing_but_the_time() {
    let f = files();
    let (keys, x, out) = (f.name("keys/evaluation.keys"), f.name("x.ct"), f.name("board.ct"));
    let board = ["--accelerator", "board", "--faults", "7/0.01"];
    let args = ["infer", "--json", "--keys", &keys, "--in", &x, "--out", &out];
    let report = json_lines(&expect(0, &[&args[..], &board[..]].concat()));
    let offload = &report[0]["offload"];
    assert!(offload["verified"].as_u64().unwrap() > 1000, "{offload}");
    assert!(offload["mismatches"].as_u64().unwrap() > 0, "{offload}");
    assert_eq!(fs::read(f.path("y.ct")).unwrap(), fs::read(f.path("board.ct")).unwrap());
    expect(2, &["infer", "--keys", &keys, "--in", &x, "--out", &f.name("no.ct"), "--faults", "7/0.01"]);
}

#[test]
fn a_server_refuses_secret_keys() {
    let f = files();
    let (secret, x, out) = (f.name("keys/secret.key"), f.name("x.ct"), f.name("refused.ct"));
    for keys in [&secret, &f.name("keys")] {
        let message = expect(5, &["infer", "--keys", keys, "--in", &x, "--out", &out]);
        assert!(message.contains("never leaves the client"), "{message}");
    }
    expect(5, &["infer", "--keys", &f.name("keys/evaluation.keys"), "--in", &secret, "--out", &out]);
    expect(5, &["encrypt", "--keys", &secret, "--text", SENTENCE, "--out", &out]);
    assert!(!f.path("refused.ct").exists());
}

#[test]
fn keys_of_another_generation_are_named_as_such() {
    let (f, o) = (files(), others());
    let (x, out) = (f.name("x.ct"), f.name("foreign.ct"));
    let message = expect(4, &["infer", "--keys", &o.name("keys/evaluation.keys"), "--in", &x, "--out", &out]);
    assert!(message.contains("another secret key"), "{message}");
    expect(4, &["decrypt", "--secret", &o.name("keys/secret.key"), "--in", &f.name("y.ct")]);
}

#[test]
fn damaged_and_missing_files_are_bad_files() {
    let f = files();
    let (x, y) = (fs::read(f.path("x.ct")).unwrap(), fs::read(f.path("y.ct")).unwrap());
    let (keys, secret) = (f.name("keys/evaluation.keys"), f.name("keys/secret.key"));
    let bad = f.name("bad.ct");
    for cut in [0, 1, 100, 200, x.len() / 2, x.len() - 1] {
        fs::write(&bad, &x[..cut]).unwrap();
        expect(3, &["infer", "--keys", &keys, "--in", &bad, "--out", &f.name("none.ct")]);
    }
    let mut flipped = y.clone();
    flipped[y.len() / 2] ^= 1;
    fs::write(f.path("flipped.ct"), &flipped).unwrap();
    let message = expect(3, &["decrypt", "--secret", &secret, "--in", &f.name("flipped.ct")]);
    assert!(message.contains("damaged"), "{message}");
    fs::write(f.path("longer.ct"), [&y[..], b"more"].concat()).unwrap();
    expect(3, &["decrypt", "--secret", &secret, "--in", &f.name("longer.ct")]);
    expect(3, &["decrypt", "--secret", &secret, "--in", &f.name("x.ct")]);
    expect(3, &["decrypt", "--secret", &secret, "--in", &f.name("nowhere.ct")]);
    expect(3, &["inspect", &f.name("flipped.ct")]);
    let evaluation = fs::read(&keys).unwrap();
    fs::write(f.path("short.keys"), &evaluation[..evaluation.len() / 3]).unwrap();
    expect(
        3,
        &["infer", "--keys", &f.name("short.keys"), "--in", &f.name("x.ct"), "--out", &f.name("none.ct")],
    );
    assert!(!f.path("none.ct").exists());
}

#[test]
fn another_model_is_refused() {
    let f = files();
    let folder = f.path("another");
    fs::create_dir_all(&folder).unwrap();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/veil-mini");
    for name in ["config.json", "model.safetensors", "vocab.txt"] {
        fs::copy(shipped.join(name), folder.join(name)).unwrap();
    }
    let config = fs::read_to_string(folder.join("config.json")).unwrap();
    fs::write(folder.join("config.json"), config + "\n").unwrap();
    let (keys, x, model) = (f.name("keys/evaluation.keys"), f.name("x.ct"), f.name("another"));
    let out = f.name("wrong.ct");
    let message = expect(3, &["infer", "--keys", &keys, "--model", &model, "--in", &x, "--out", &out]);
    assert!(message.contains("another model"), "{message}");
    fs::write(folder.join("model.safetensors"), b"no").unwrap();
    expect(3, &["plan", "--model", &model]);
    expect(3, &["plan", "--model", &f.name("nothing")]);
}

#[test]
fn nothing_is_overwritten_unasked() {
    let f = files();
    let before = fs::read(f.path("keys/secret.key")).unwrap();
    let keygen = ["keygen", "--parameters", "insecure-toy-boot", "--out", &f.name("keys")];
    assert!(expect(2, &keygen).contains("--force"));
    assert_eq!(fs::read(f.path("keys/secret.key")).unwrap(), before);
    let encrypt = ["encrypt", "--keys", &f.name("keys"), "--text", "fine", "--out", &f.name("again.ct")];
    expect(0, &encrypt);
    expect(2, &encrypt);
    expect(0, &[&encrypt[..], &["--force"]].concat());
}

#[cfg(unix)]
#[test]
fn the_secret_key_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(files().path("keys/secret.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn inspecting_shows_what_a_file_is_and_nothing_secret() {
    let f = files();
    let out = expect(0, &["inspect", "--json", &f.name("keys/evaluation.keys")]);
    let lines = json_lines(&out);
    assert_eq!((&lines[0]["kind"], &lines[1]["kind"]), (&Value::from("parameters"), &Value::from("bundle")));
    assert!(lines.len() > 10 && lines[2..].iter().all(|line| line["kind"] == "switching key"));
    let output = run(&["-vv", "inspect", &f.name("keys/secret.key")]);
    let shown = text(&output.stdout) + &text(&output.stderr);
    assert!(shown.contains("SECRET KEY"));
    // The seed follows the parameters and the header of the key.
    let bytes = fs::read(f.path("keys/secret.key")).unwrap();
    let seed = &bytes[bytes.len() - 52..bytes.len() - 20];
    for part in seed.chunks(4) {
        let hex: String = part.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(!shown.contains(&hex));
    }
}

#[test]
fn releases_are_flooded_and_counted() {
    let f = Files::make();
    let (secret, y) = (f.name("keys/secret.key"), f.name("y.ct"));
    let release = ["decrypt", "--json", "--secret", &secret, "--in", &y, "--text", SENTENCE, "--release"];
    assert!(expect(5, &release).contains("drowns"));
    let anyway = [&release[..], &["--drowned"]].concat();
    let left = |out: &str| json_lines(out)[0]["releases_left"].as_u64().unwrap();
    let first = left(&expect(0, &anyway));
    for spent in 1..=first {
        assert_eq!(left(&expect(0, &anyway)), first - spent);
    }
    assert!(expect(5, &anyway).contains("releases allowed"));
    let raw = ["decrypt", "--json", "--secret", &secret, "--in", &y, "--text", SENTENCE];
    assert!(json_lines(&expect(0, &raw))[0]["bits_polynomial"].as_f64().unwrap() > 10.0);
}

#[test]
fn a_model_that_does_not_fit_is_a_usage_error_with_the_way_out() {
    let message = expect(2, &["plan", "--product", "128x768"]);
    assert!(message.contains("128x768x768"), "{message}");
    let message = expect(2, &["plan", "--product", "128x768x768"]);
    assert!(message.contains("n16/matrix"), "{message}");
    let message = expect(2, &["plan", "--parameters", "n13/3"]);
    assert!(message.contains("deeper parameters"), "{message}");
    assert!(expect(2, &["plan", "--parameters", "n99"]).contains("n16/leveled"));
    expect(2, &["nonsense"]);
}

#[test]
fn benches_report_under_their_names() {
    let out = expect(0, &["bench", "--json", "--runs", "3", "--filter", "ntt_forward/4096,rotate/n13/3"]);
    let lines = json_lines(&out);
    assert_eq!(lines.len(), 2);
    for (line, name) in lines.iter().zip(["ntt_forward/4096", "rotate/n13/3"]) {
        assert_eq!((&line["name"], &line["threads"], &line["runs"]), (&name.into(), &1.into(), &3.into()));
        assert!(line["min_s"].as_f64().unwrap() <= line["median_s"].as_f64().unwrap());
    }
    assert!(lines[1]["bits_min"].as_f64().unwrap() > 20.0, "{}", lines[1]);
    expect(2, &["bench", "--filter", "nothing-like-this"]);
}
