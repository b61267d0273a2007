//! Running the program and reading what it says.

pub(crate) mod files;
pub(crate) mod model;

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

/// The program, about to be run.
pub(crate) fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_veilformer"))
}

pub(crate) fn run(args: &[&str]) -> Output {
    program().args(args).output().unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Runs, wants this exit code, returns what was printed.
pub(crate) fn expect(code: i32, args: &[&str]) -> String {
    let output = run(args);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{args:?}\n{out}\n{err}");
    if code == 0 { out } else { err }
}

pub(crate) fn str_of(path: &Path) -> &str {
    path.to_str().unwrap()
}

pub(crate) fn json_lines(out: &str) -> Vec<Value> {
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
