//! The server's half of the slot executor, for its bench. Nothing here can hold a secret.

use crate::exit::Failure;
pub(crate) use crate::keystore::KeyStore;
use crate::model::LoadedModel;
use veilformer::accel::Accelerator;
use veilformer::ckks::server::Evaluator;
use veilformer::ckks::server::bootstrap::Bootstrap;
use veilformer::ckks::{Ciphertext, Parameters};
use veilformer::transformer::forward;
use veilformer::transformer::slots::{EncryptedSlots, Scratch, SlotExecutor, SlotTensor};
use veilformer_engine::bootstrap_constants;

/// Memory of a server under one set of parameters.
pub(crate) struct Server<'a, A: Accelerator<Word = u64>> {
    accelerator: &'a A,
    parameters: &'a Parameters,
    pub(crate) keys: KeyStore<'a, A>,
}

impl<'a, A: Accelerator<Word = u64>> Server<'a, A> {
    pub(crate) fn new(accelerator: &'a A, parameters: &'a Parameters) -> Self {
        Self { accelerator, parameters, keys: KeyStore::new() }
    }

    /// Runs the model on a batch.
    pub(crate) fn infer(
        &self,
        model: &LoadedModel,
        tokens: Ciphertext<A>,
        mask: Ciphertext<A>,
    ) -> Result<Ciphertext<A>, Failure> {
        let degree = self.parameters.degree();
        let encoder = crate::client::encoder(degree)?;
        let (reals, integers) = Scratch::words_needed(degree);
        let (mut reals, mut integers) = (vec![0.0; reals], vec![0; integers]);
        let scratch = Scratch::new(degree, &mut reals, &mut integers)?;
        let evaluator = Evaluator::new(self.accelerator, self.parameters, &self.keys)?;
        let constants = match self.parameters.bootstrap() {
            Some(_) => Some(bootstrap_constants(self.accelerator, self.parameters, &encoder)?),
            None => None,
        };
        let mut slots = EncryptedSlots::new(evaluator, &encoder, scratch);
        if let Some(constants) = &constants {
            slots = slots.with_bootstrap(Bootstrap::new(evaluator, constants)?);
        }
        let view = model.view();
        let mut executor = SlotExecutor::new(slots, &view)?;
        let (tokens, mask) = (SlotTensor::tokens(tokens), SlotTensor::tokens(mask));
        let logits = forward(model.config(), &mut executor, tokens, &mask)
            .map_err(|error| self.keys.explain(error.into()))?;
        drop(mask);
        Ok(logits.vector().duplicate(self.accelerator)?)
    }
}
