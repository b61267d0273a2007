//! A step of fine-tuning: forward, backward, optimizer.

use crate::algebra::Algebra;
use crate::executor::Engine;
use crate::gradient::Gradients;
use crate::{Error, Tensor};
use veilformer::transformer::slots::Model;
use veilformer::transformer::{AdamWHe, backward, forward, forward_recorded, loss_gradient};

/// What a client sends of a batch: ciphertexts of the big ring.
pub struct Batch<V> {
    /// Embeddings, in [`Engine::input_places`].
    pub input: Vec<V>,
    /// Which tokens count, in [`Engine::score_places`].
    pub mask: Vec<V>,
    /// What the outputs should be, in [`Engine::target_places`]; empty where nothing is to be learnt.
    pub target: Vec<V>,
}

impl<G: Algebra, M: Model> Engine<'_, G, M> {
    /// The outputs for a batch.
    ///
    /// # Errors
    /// From the scheme.
    pub fn infer(&mut self, batch: Batch<G::Vector>) -> Result<Tensor<G>, Error> {
        let (x, mask) = (self.input(&batch.input)?, self.mask(batch.mask)?);
        forward(self.config(), self, x, &mask)
    }

    /// Step `step` of `steps`, counted from 1, on a batch; returns the outputs before it. After an error weights and moments
    /// are what they were.
    ///
    /// # Errors
    /// From the scheme; [`Error::Form`] for a batch without targets; [`Error::MissingWeights`] where none are trained.
    pub fn train(
        &mut self,
        batch: Batch<G::Vector>,
        optimizer: &AdamWHe,
        step: u32,
        steps: u32,
    ) -> Result<Tensor<G>, Error> {
        self.gradients = Gradients::default();
        self.waiting.clear();
        self.record(true);
        let outputs = self.differentiate(batch);
        self.record(false);
        let (outputs, unit) = (outputs?, self.gradient_unit()?);
        self.optimize(&optimizer.step(step, steps, unit))?;
        Ok(outputs)
    }

    /// Adds up the gradients of a batch; returns its outputs.
    fn differentiate(&mut self, batch: Batch<G::Vector>) -> Result<Tensor<G>, Error> {
        if batch.target.is_empty() {
            return Err(Error::Form { operation: "learning from a batch without targets" });
        }
        let (x, mask) = (self.input(&batch.input)?, self.mask(batch.mask)?);
        let (outputs, tape) = forward_recorded(self.config(), self, x, &mask)?;
        let target = self.target(&batch.target)?;
        let d_outputs = loss_gradient(self.config(), self, &outputs, &target)?;
        backward(self.config(), self, tape, &d_outputs, &mask)?;
        Ok(outputs)
    }
}
