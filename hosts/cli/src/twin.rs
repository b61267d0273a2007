//! Fine-tuning in the clear by the very steps that `finetune` takes under encryption: what an encrypted run is held against.

use crate::exit::Failure;
use crate::run::Asked;
use crate::sentences::Sentence;
use crate::work::Work;
use veilformer::transformer::Trainable;
use veilformer_plain::executor::Functions;
use veilformer_plain::finetune::{FineTuner, Recipe};
use veilformer_plain::noise::Noise;
use veilformer_plain::parameters::Parameters as Weights;
use veilformer_plain::run::Example;
use veilformer_plain::sites::Ranges;

/// The steps.
pub(crate) struct Twin<'w> {
    pub(crate) work: &'w Work,
    pub(crate) asked: Asked,
    /// Every batch, in the order of the steps; after the last comes the first again.
    pub(crate) batches: Vec<Vec<Example>>,
}

/// What the steps came to.
pub(crate) struct Trained {
    pub(crate) weights: Weights<f64>,
    /// Mean loss of the batch of every step, before it.
    pub(crate) losses: Vec<f64>,
    /// Arguments that functions met.
    pub(crate) ranges: Ranges,
}

impl<'w> Twin<'w> {
    /// On sentences as `encrypt` puts them into batches: one that is not full has its sentences again.
    pub(crate) fn new(work: &'w Work, asked: Asked, sentences: &[Sentence], batch: usize) -> Self {
        let examples =
            |some: &[Sentence]| some.iter().cycle().take(batch).map(|s| s.example.clone()).collect();
        Self { work, asked, batches: sentences.chunks(batch).map(examples).collect() }
    }

    /// All steps, from the weights of the work. Tells of every one.
    pub(crate) fn train(
        &self,
        functions: Functions<'_>,
        noise: Option<Noise>,
        mut told: impl FnMut(),
    ) -> Result<Trained, Failure> {
        let Asked { steps, optimizer } = self.asked;
        let recipe = Recipe { trained: Trainable::Adapters, optimizer, steps, functions, noise };
        let mut tuner = FineTuner::new(&self.work.config, self.work.weights.clone(), recipe);
        let mut losses = Vec::with_capacity(steps as usize);
        for batch in self.batches.iter().cycle().take(steps as usize) {
            losses.push(tuner.step(batch)?);
            told();
        }
        Ok(Trained { weights: tuner.parameters().clone(), losses, ranges: tuner.ranges().clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::ModelArgs;
    use veilformer::transformer::AdamWHe;
    use veilformer_plain::tokenizer::Sequence;

    #[test]
    fn a_batch_that_is_not_full_has_its_sentences_again() {
        let work = Work::load(&ModelArgs::shipped()).unwrap();
        let sentence = |label: u8| {
            let sequence = Sequence { tokens: vec![2; work.config.length], used: 1, truncated: false };
            let example = Example { sequence, label: label.into() };
            Sentence { text: String::new(), second: None, label: None, example }
        };
        let sentences: Vec<Sentence> = (0..7).map(sentence).collect();
        let asked = Asked { steps: 1, optimizer: AdamWHe::paper(1e-2, 1e-2) };
        let twin = Twin::new(&work, asked, &sentences, 4);
        let labels: Vec<Vec<f32>> =
            twin.batches.iter().map(|batch| batch.iter().map(|example| example.label).collect()).collect();
        assert_eq!(labels, [[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 4.0]]);
    }
}
