//! A folder of one fine-tuning run: what was asked for, where it stands, and what it answered.
//!
//! ```text
//! RUN/run.json                  the recipe, written once
//! RUN/checkpoint-00012.vfw      θ, m̂ and v̂ after step 12; only the newest is kept
//! RUN/answers/answer-00011.vfa  the outputs of step 12, before it
//! ```
//!
//! A process may be killed at any moment. A checkpoint gets its name when it is on disk as a whole, and the one before it
//! goes after that; an answer is there before its step's checkpoint. So what is found is always some step's, and going on
//! from it repeats, bit for bit, what a run without interruption does.

mod checkpoint;
mod recipe;

pub(crate) use recipe::{Asked, Recipe};

use crate::answer;
use crate::exit::{Exit, Failure, InFile};
use crate::files::{Claim, NewFile, Readers, sweep, sync_folder};
use std::fs;
use std::path::{Path, PathBuf};
use veilformer::wire::Sink;

/// The recipe's file.
const RECIPE: &str = "run.json";
/// The folder of answers.
const ANSWERS: &str = "answers";
/// How names of checkpoints begin and end.
const CHECKPOINT: (&str, &str) = ("checkpoint-", ".vfw");

/// A run's folder, which this process alone may change.
pub(crate) struct RunFolder {
    path: PathBuf,
    _claim: Claim,
}

impl RunFolder {
    /// Begins a run, or goes on with the one that is there.
    ///
    /// # Errors
    /// Usage when another process is at it, when it was begun with another recipe, or when the folder holds something else.
    pub(crate) fn open(path: &Path, recipe: &Recipe) -> Result<Self, Failure> {
        let of_run = path.join(RECIPE);
        if path.is_dir() && !of_run.exists() {
            let strange = |entry: &fs::DirEntry| {
                let name = entry.file_name();
                let name = name.to_string_lossy();
                name != ANSWERS && !name.starts_with('.')
            };
            let mut entries = fs::read_dir(path).in_file(path)?.filter_map(Result::ok);
            if let Some(entry) = entries.find(strange) {
                let message = format!(
                    "holds {} and no run; name a new folder or an empty one",
                    entry.file_name().to_string_lossy()
                );
                return Err(Failure::new(Exit::Usage, message).during(path.display()));
            }
        }
        fs::create_dir_all(path.join(ANSWERS)).in_file(path)?;
        let folder = Self { path: path.to_owned(), _claim: Claim::take(path, "fine-tuning")? };
        for name in [RECIPE, CHECKPOINT.0] {
            sweep(path, name)?;
        }
        sweep(&path.join(ANSWERS), "")?;
        if of_run.exists() {
            recipe.check_same(&fs::read_to_string(&of_run).in_file(&of_run)?).in_file(&of_run)?;
        } else {
            let mut file = NewFile::create(&of_run, Readers::Anyone, false)?;
            file.write(recipe.text()?.as_bytes()).map_err(veilformer::wire::Error::from).in_file(&of_run)?;
            file.commit()?;
            sync_folder(path)?;
        }
        Ok(folder)
    }

    /// The newest checkpoint, and the step it was written after.
    pub(crate) fn newest(&self) -> Result<Option<(u32, PathBuf)>, Failure> {
        Ok(self.checkpoints()?.into_iter().max())
    }

    fn checkpoints(&self) -> Result<Vec<(u32, PathBuf)>, Failure> {
        let entries = fs::read_dir(&self.path).in_file(&self.path)?;
        let names =
            entries.map(|entry| Ok(entry.in_file(&self.path)?.file_name().to_string_lossy().into_owned()));
        let names = names.collect::<Result<Vec<_>, Failure>>()?;
        let step = |name: &str| name.strip_prefix(CHECKPOINT.0)?.strip_suffix(CHECKPOINT.1)?.parse().ok();
        Ok(names.iter().filter_map(|name| Some((step(name)?, self.path.join(name)))).collect())
    }

    /// The file of the answer of a step, counted from 1.
    pub(crate) fn answer(&self, step: u32) -> PathBuf {
        answer::file_of(&self.path.join(ANSWERS), step as usize - 1)
    }

    /// Keeps what `write` writes as the state after `step`; older ones go.
    ///
    /// # Errors
    /// Those of the file system; what was kept before is then still there.
    pub(crate) fn keep(
        &self,
        step: u32,
        write: impl FnOnce(&mut NewFile) -> Result<(), Failure>,
    ) -> Result<u64, Failure> {
        let path = self.path.join(format!("{}{step:05}{}", CHECKPOINT.0, CHECKPOINT.1));
        let mut file = NewFile::create(&path, Readers::Anyone, true)?;
        write(&mut file).in_file(&path)?;
        let bytes = file.commit()?;
        sync_folder(&self.path)?;
        for (older, path) in self.checkpoints()?.into_iter().filter(|(other, _)| *other < step) {
            tracing::debug!(older, "checkpoint removed");
            fs::remove_file(&path).in_file(&path)?;
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(folder: &RunFolder, step: u32, text: &str) -> Result<u64, Failure> {
        folder.keep(step, |file| {
            Ok(file.write(text.as_bytes()).map(drop).map_err(veilformer::wire::Error::from)?)
        })
    }

    fn newest(folder: &RunFolder) -> (u32, String) {
        let (step, path) = folder.newest().unwrap().unwrap();
        (step, fs::read_to_string(path).unwrap())
    }

    #[test]
    fn only_the_newest_checkpoint_is_kept_and_a_failed_one_harms_nothing() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("run");
        let folder = RunFolder::open(&path, &Recipe::example()).unwrap();
        assert!(folder.newest().unwrap().is_none());
        put(&folder, 0, "zero").unwrap();
        put(&folder, 10, "ten").unwrap();
        assert_eq!(newest(&folder), (10, "ten".into()));
        assert_eq!(folder.checkpoints().unwrap().len(), 1);
        let full = folder.keep(11, |file| {
            file.write(b"half of it").map_err(veilformer::wire::Error::from)?;
            Err(std::io::Error::from(std::io::ErrorKind::StorageFull).into())
        });
        assert_eq!(full.unwrap_err().exit, Exit::Resources);
        assert_eq!(newest(&folder), (10, "ten".into()));
        drop(folder);
        // What a killed process left is swept away.
        fs::write(path.join(".checkpoint-00011.vfw.1.part"), "x").unwrap();
        let folder = RunFolder::open(&path, &Recipe::example()).unwrap();
        assert_eq!(newest(&folder), (10, "ten".into()));
        assert!(!path.join(".checkpoint-00011.vfw.1.part").exists());
    }

    #[test]
    fn a_vanished_folder_is_an_error() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("run");
        let folder = RunFolder::open(&path, &Recipe::example()).unwrap();
        fs::remove_dir_all(&path).unwrap();
        let failure = put(&folder, 1, "one").unwrap_err();
        assert!(failure.exit == Exit::BadFile && failure.message.contains("checkpoint-00001"));
    }

    #[test]
    fn one_process_at_a_time() {
        let place = tempfile::tempdir().unwrap();
        let folder = RunFolder::open(place.path(), &Recipe::example()).unwrap();
        let failure = RunFolder::open(place.path(), &Recipe::example()).err().unwrap();
        assert!(failure.exit == Exit::Usage && failure.message.contains("fine-tuning"));
        drop(folder);
        RunFolder::open(place.path(), &Recipe::example()).unwrap();
    }

    #[test]
    fn a_folder_of_something_else_is_left_alone() {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("thesis.tex"), "x").unwrap();
        let failure = RunFolder::open(place.path(), &Recipe::example()).err().unwrap();
        assert!(failure.exit == Exit::Usage && failure.message.contains("thesis.tex"));
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
    }
}
