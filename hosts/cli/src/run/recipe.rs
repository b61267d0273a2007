//! What a run was asked for. A run goes on only with the same recipe: its result must not depend on interruptions.

use crate::exit::{Exit, Failure, InFile};
use crate::work::Work;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use veilformer::ckks::Parameters;
use veilformer::ckks::client::KeyTag;
use veilformer::transformer::AdamWHe;
use xxhash_rust::xxh3::xxh3_64;

/// The form of the recipe's file.
const VERSION: u32 = 1;
/// Bytes at the front of a batch that tell it from others: ciphertexts of the same sentence are never the same.
const FRONT: usize = 1 << 12;

/// Everything that the result of a run follows from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Recipe {
    version: u32,
    /// For people.
    task: String,
    /// Of the model, its task, LoRA's rank and the seed.
    work: String,
    /// Of the parameters, and the owner of the keys.
    parameters: String,
    owner: String,
    pub(crate) steps: u32,
    learning_rate: f64,
    beta1: f64,
    beta2: f64,
    epsilon: f64,
    weight_decay: f64,
    /// In the order of the steps; after the last comes the first again.
    batches: Vec<Named>,
}

/// A batch, told from others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Named {
    name: String,
    bytes: u64,
    front: String,
}

/// What a command line asks for beside the batches.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) steps: u32,
    pub(crate) optimizer: AdamWHe,
}

impl Recipe {
    /// For batches in these files.
    pub(crate) fn new(
        work: &Work,
        parameters: &Parameters,
        owner: KeyTag,
        asked: &Asked,
        batches: &[impl AsRef<Path>],
    ) -> Result<Self, Failure> {
        let AdamWHe { learning_rate, beta1, beta2, epsilon, weight_decay } = asked.optimizer;
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        Ok(Self {
            version: VERSION,
            task: work.task.folder().to_owned(),
            work: format!("{:016x}", work.fingerprint),
            parameters: hex(parameters.fingerprint()),
            owner: hex(&owner.0),
            steps: asked.steps,
            learning_rate,
            beta1,
            beta2,
            epsilon,
            weight_decay,
            batches: batches.iter().map(|path| Named::of(path.as_ref())).collect::<Result<_, _>>()?,
        })
    }

    /// The constants of its optimizer.
    pub(crate) fn optimizer(&self) -> AdamWHe {
        let Self { learning_rate, beta1, beta2, epsilon, weight_decay, .. } = *self;
        AdamWHe { learning_rate, beta1, beta2, epsilon, weight_decay }
    }

    /// The number of the batch of a step, counted from 1.
    pub(crate) fn batch_of(&self, step: u32) -> usize {
        (step as usize - 1) % self.batches.len()
    }

    /// As it is written.
    pub(crate) fn text(&self) -> Result<String, Failure> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// That a run was begun with this recipe.
    ///
    /// # Errors
    /// Usage, naming what is different.
    pub(crate) fn check_same(&self, written: &str) -> Result<(), Failure> {
        let theirs: Self = serde_json::from_str(written)
            .map_err(|error| Failure::new(Exit::BadFile, format!("is no recipe of a run: {error}")))?;
        let [old, new] = [serde_json::to_value(&theirs)?, serde_json::to_value(self)?];
        let fields = old.as_object().into_iter().flatten();
        for (field, old) in fields {
            let new = &new[field];
            if old != new {
                let what = match field.as_str() {
                    "batches" => "other batches than are given now".to_owned(),
                    "work" => "another model, task, LoRA rank or seed".to_owned(),
                    "owner" => "keys of another secret key".to_owned(),
                    "parameters" => "other parameters".to_owned(),
                    _ => format!("{field} {old}, now it is {new}"),
                };
                let message =
                    format!("begun with {what}; repeat the command it was begun with, or name a new folder");
                return Err(Failure::new(Exit::Usage, message));
            }
        }
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn example() -> Self {
        let batch =
            |i: u32| Named { name: format!("batch-{i:05}.vfb"), bytes: 100, front: format!("{i:016x}") };
        Self {
            version: VERSION,
            task: "SST-2".into(),
            work: "0123".into(),
            parameters: "4567".into(),
            owner: "89ab".into(),
            steps: 5,
            learning_rate: 1e-3,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-5,
            weight_decay: 0.01,
            batches: vec![batch(0), batch(1)],
        }
    }
}

impl Named {
    fn of(path: &Path) -> Result<Self, Failure> {
        let file = File::open(path).in_file(path)?;
        let bytes = file.metadata().in_file(path)?.len();
        let mut front = Vec::with_capacity(FRONT);
        file.take(FRONT as u64).read_to_end(&mut front).in_file(path)?;
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Ok(Self { name, bytes, front: format!("{:016x}", xxh3_64(&front)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_come_round() {
        let recipe = Recipe::example();
        assert_eq!([1, 2, 3, 4].map(|step| recipe.batch_of(step)), [0, 1, 0, 1]);
    }

    #[test]
    fn a_recipe_is_the_same_when_read_again() {
        let recipe = Recipe { learning_rate: 0.1 + 0.2, ..Recipe::example() };
        recipe.check_same(&recipe.text().unwrap()).unwrap();
    }

    #[test]
    fn another_recipe_is_refused_by_name() {
        let recipe = Recipe::example();
        let refused = |other: Recipe| {
            let failure = recipe.check_same(&other.text().unwrap()).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage);
            failure.message
        };
        let rate = refused(Recipe { learning_rate: 0.5, ..Recipe::example() });
        assert!(rate.contains("learning_rate 0.5, now it is 0.001"), "{rate}");
        assert!(refused(Recipe { owner: "x".into(), ..Recipe::example() }).contains("another secret key"));
        let mut other = Recipe::example();
        other.batches[1].front = "x".into();
        assert!(refused(other).contains("other batches"));
        let broken = recipe.check_same("{}").unwrap_err();
        assert!(broken.exit == Exit::BadFile && broken.message.contains("version"));
    }
}
