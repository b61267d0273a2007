//! A folder in which both roles work, and the program run in it.

use crate::common::model::{TOY, sentences, write_encoder};
use crate::common::{expect, str_of};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use veilformer::transformer::Config;

/// Writes sentences with labels as SST-2 has them.
pub(crate) fn write_sst2(path: &Path, count: usize) {
    let rows = sentences(count);
    let rows = rows.iter().enumerate().map(|(i, text)| format!("{text}\t{}\n", i % 3 % 2));
    fs::write(path, "sentence\tlabel\n".to_owned() + &rows.collect::<String>()).unwrap();
}

/// A model, its keys, and whatever is made with them.
pub(crate) struct Files {
    folder: TempDir,
}

impl Files {
    /// A model and keys of it: for training, so that they serve encrypted weights too.
    pub(crate) fn new() -> Self {
        let files = Self::with_model(TOY);
        files.expect(0, "keygen --model @/model --parameters insecure-toy-matrix --out @/keys");
        files
    }

    /// A model of these sizes, and no keys.
    pub(crate) fn with_model(config: Config) -> Self {
        // What a test keeps to its end in a static is never dropped: it goes where `cargo clean` finds it.
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let files = Self { folder };
        write_encoder(&files.path("model"), config);
        files
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The name of a file for another folder's commands.
    pub(crate) fn name(&self, name: &str) -> String {
        str_of(&self.path(name)).to_owned()
    }

    /// The arguments of a line, with the folder in place of `@`.
    pub(crate) fn filled(&self, line: &str) -> Vec<String> {
        let folder = str_of(self.folder.path());
        line.split(' ').map(|arg| arg.replace('@', folder)).collect()
    }

    /// Runs a line, wants this exit code, returns what was printed.
    pub(crate) fn expect(&self, code: i32, line: &str) -> String {
        expect(code, &self.filled(line).iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Copies the evaluation keys to where no secret is.
    pub(crate) fn give_to_server(&self) {
        fs::create_dir(self.path("server")).unwrap();
        for name in ["evaluation.keys", "evaluation-small.keys"] {
            fs::copy(self.path("keys").join(name), self.path("server").join(name)).unwrap();
        }
    }
}
