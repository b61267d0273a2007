//! The program from the outside: what every command has in common.

use crate::common::model::{TOY, write_encoder};
use crate::common::{expect, json_lines, run, str_of, text};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;
use tempfile::TempDir;

/// A folder of keys.
fn keys() -> &'static TempDir {
    static KEYS: OnceLock<TempDir> = OnceLock::new();
    KEYS.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let (model, keys) = (folder.path().join("model"), folder.path().join("keys"));
        write_encoder(&model, TOY);
        let toy = ["keygen", "--parameters", "insecure-toy-matrix", "--inference", "--model"];
        expect(0, &[&toy[..], &[str_of(&model), "--out", str_of(&keys)]].concat());
        folder
    })
}

fn key(name: &str) -> PathBuf {
    keys().path().join("keys").join(name)
}

#[test]
fn toy_parameters_are_marked_wherever_they_are_used() {
    let model = keys().path().join("model");
    let x = keys().path().join("x.vfb");
    let public = key("public.key");
    let output = run(&[
        "encrypt",
        "--keys",
        str_of(&public),
        "--model",
        str_of(&model),
        "--text",
        "fine",
        "--out",
        str_of(&x),
    ]);
    assert!(text(&output.stderr).contains("WITHOUT ANY SECURITY"));
    assert!(expect(0, &["inspect", str_of(&x)]).contains("NO SECURITY"));
}

#[cfg(unix)]
#[test]
fn the_secret_key_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(key("secret.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn inspecting_shows_what_a_file_is_and_nothing_secret() {
    for name in ["evaluation.keys", "evaluation-small.keys"] {
        let lines = json_lines(&expect(0, &["inspect", "--json", str_of(&key(name))]));
        let kinds = (&lines[0]["kind"], &lines[1]["kind"]);
        assert_eq!(kinds, (&Value::from("parameters"), &Value::from("bundle")));
        assert!(lines.len() > 10 && lines[2..].iter().all(|line| line["kind"] == "switching key"));
    }
    let output = run(&["-vv", "inspect", str_of(&key("secret.key"))]);
    let shown = text(&output.stdout) + &text(&output.stderr);
    assert!(shown.contains("SECRET KEY"));
    // The seed follows the parameters and the header of the key.
    let bytes = fs::read(key("secret.key")).unwrap();
    let seed = &bytes[bytes.len() - 52..bytes.len() - 20];
    for part in seed.chunks(4) {
        let hex: String = part.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(!shown.contains(&hex));
    }
}

#[test]
fn a_model_that_does_not_fit_is_a_usage_error_with_the_way_out() {
    let message = expect(2, &["plan", "--product", "128x768"]);
    assert!(message.contains("128x768x768"), "{message}");
    let message = expect(2, &["plan", "--parameters", "n16/boot", "--product", "128x768x768"]);
    assert!(message.contains("n16/matrix"), "{message}");
    let message = expect(2, &["plan", "--parameters", "n13/3"]);
    assert!(message.contains("deeper parameters"), "{message}");
    assert!(expect(2, &["plan", "--parameters", "n99"]).contains("n16/leveled"));
    expect(2, &["nonsense"]);
}

#[test]
fn jobs_of_every_kind_are_planned_at_full_parameters() {
    let plan = |rest: &str| {
        let line = format!("plan --json --threads 2 {rest}");
        json_lines(&expect(0, &line.split(' ').collect::<Vec<_>>())).remove(0)
    };
    // A step at BERT's width: nothing of it overflows.
    let large = plan("--config layers=2,width=768,heads=12,length=128 --train");
    assert_eq!((&large["job"], &large["encrypted"]), (&"step".into(), &"LoRA and the head".into()));
    let small = "--config layers=1,width=64,heads=1,length=64";
    let bootstraps = |plan: &Value| plan["bootstraps"].as_u64().unwrap();
    let inference = plan(&format!("{small} --batch 4"));
    assert_eq!((&inference["job"], &inference["encrypted"]), (&"inference".into(), &"none".into()));
    let full = plan(&format!("{small},softmax=1 --batch 4 --train --full"));
    assert_eq!((&full["job"], &full["encrypted"]), (&"step".into(), &"all matrices".into()));
    assert!(bootstraps(&large) > bootstraps(&full) && bootstraps(&full) > bootstraps(&inference));
    expect(2, &["plan", "--full", "--lora-rank", "2"]);
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
