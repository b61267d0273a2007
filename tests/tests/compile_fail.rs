//! What the types forbid: the programs of `compile-fail/` fail, with the marked error on the marked line and
//! nowhere else.

use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

type Failures = BTreeSet<(String, u64, String)>;

/// `//~ E0277` at the end of a line.
fn marked(folder: &Path) -> Failures {
    let mut failures = Failures::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        for (line, text) in (1..).zip(std::fs::read_to_string(&path).unwrap().lines()) {
            if let Some((_, code)) = text.split_once("//~ ") {
                failures.insert((name.into(), line, code.trim().into()));
            }
        }
    }
    failures
}

fn reported(message: &Value) -> Option<(String, u64, String)> {
    let message = (message["reason"] == "compiler-message").then(|| &message["message"])?;
    let code = (message["level"] == "error").then(|| message["code"]["code"].as_str()).flatten()?;
    let span = message["spans"].as_array()?.iter().find(|span| span["is_primary"] == true)?;
    let file = span["file_name"].as_str()?.rsplit(['/', '\\']).next()?;
    Some((file.into(), span["line_start"].as_u64()?, code.into()))
}

#[test]
fn forbidden_programs_do_not_compile() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("compile-fail");
    let output = Command::new(env!("CARGO"))
        .args(["check", "--bins", "--keep-going", "--message-format=json", "--manifest-path"])
        .arg(root.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(Path::new(env!("CARGO_TARGET_TMPDIR")).join("compile-fail"))
        .output()
        .unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    let messages: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let found: Failures = messages.iter().filter_map(reported).collect();
    let expected = marked(&root.join("src/bin"));
    assert!(expected.len() >= 10);
    assert_eq!(found, expected, "{}", String::from_utf8_lossy(&output.stderr));
    // The control compiles, so the others fail for their own reasons.
    let built = |name: &str| {
        messages.iter().any(|m| m["reason"] == "compiler-artifact" && m["target"]["name"] == name)
    };
    assert!(built("control") && !built("secrets"));
}
