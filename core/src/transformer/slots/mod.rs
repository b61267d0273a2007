//! The encoder in the slots of one ring: leveled where one layer fits the
//! levels, with bootstraps where the arithmetic has them.
//!
//! One ciphertext carries a whole batch. Feature f of token t of sentence b
//! sits in slot f·T·B + t·B + b, so that turning the slots by T·B turns the
//! features cyclically and exactly: a sum over all features, or over the
//! features of a head (which are interleaved), is log2 rotations and no mask.
//! Of the last layer only token 0 is ever read, so after its attention the
//! other tokens' places ("lanes") are free, and in a model of one layer they
//! hold the rest of a wide hidden layer.
//!
//! Constants cost no level here: the interval of every polynomial, 1/√n, 1/d,
//! the gains and biases of a norm and its projection to mean zero are folded
//! into the nearest plaintext matrix. A [`SlotTensor`] therefore carries the
//! factor between what is in the slots and what the model means.

mod arithmetic;
mod attention;
mod encrypted;
mod executor;
mod layout;
mod linear;
mod plan;
mod tensor;

pub use arithmetic::SlotArithmetic;
pub use encrypted::{EncryptedSlots, Scratch};
pub use executor::SlotExecutor;
pub use layout::{Layout, LayoutError};
pub use plan::{Plan, PlanSlots, Planned, Refresh};
pub use tensor::{SlotError, SlotTensor};

use super::{Config, Parameter, Site};
use crate::approx::Approximation;

/// A model's weights and approximations, wherever they are kept.
pub trait Model: Sync {
    /// The sizes.
    fn config(&self) -> &Config;

    /// One entry of a parameter; 0 where the model has none.
    fn weight(&self, parameter: Parameter, row: usize, column: usize) -> f64;

    /// The approximation at a site.
    fn approximation(&self, site: Site) -> Option<Approximation<'_>>;

    /// The largest |gradient| of one sentence's loss by what the function at a site leads to (a norm's output, the gate's
    /// product, all scores, tanh), and at [`Site::Optimizer`] by a weight, averaged over a batch; with calibration's
    /// margin. `None` where the model is not calibrated for training.
    fn gradient_bound(&self, _site: Site) -> Option<f64> {
        None
    }

    /// The largest |gradient| of one sentence's loss by what a layer's LoRA matrices A give, with calibration's margin.
    fn adapter_gradient_bound(&self, _layer: usize) -> Option<f64> {
        None
    }
}
