//! Names of the places where a non-linear function is applied.

use super::{Config, Kernel, Loss};
use crate::approx::Function;

/// A place where a non-linear function is applied, and so an entry in the model's table of approximations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Site {
    /// 1/√x of the variance before a layer's attention.
    FirstNorm(usize),
    /// exp of the kernel's argument in a layer's attention: negative for the Gaussian, of any sign for softmax.
    Kernel(usize),
    /// 1/√x of the variance before a layer's feed-forward.
    SecondNorm(usize),
    /// ReLU in a layer's gate.
    Gate(usize),
    /// 1/√x of the variance after the last layer.
    FinalNorm,
    /// tanh in the head.
    Tanh,
    /// 1/x of the sum of a layer's attention weights (softmax only).
    Normaliser(usize),
    /// exp of the centred logits in the softmax of the loss.
    LossExp,
    /// 1/x of the sum of those exponentials.
    LossInverse,
    /// 1/√x of 1 + v̂/ε in the optimizer.
    Optimizer,
}

impl Site {
    /// How many entries the table of a model has, used or not.
    pub fn count(config: &Config) -> usize {
        5 * config.layers + 5
    }

    /// Position in the table: four per layer in the order of the program, the final norm and tanh, what training adds,
    /// and what softmax adds.
    pub fn index(self, config: &Config) -> usize {
        let layers = 4 * config.layers;
        match self {
            Self::FirstNorm(layer) => 4 * layer,
            Self::Kernel(layer) => 4 * layer + 1,
            Self::SecondNorm(layer) => 4 * layer + 2,
            Self::Gate(layer) => 4 * layer + 3,
            Self::FinalNorm => layers,
            Self::Tanh => layers + 1,
            Self::LossExp => layers + 2,
            Self::LossInverse => layers + 3,
            Self::Optimizer => layers + 4,
            Self::Normaliser(layer) => layers + 5 + layer,
        }
    }

    /// The function applied here.
    pub fn function(self) -> Function {
        match self {
            Self::FirstNorm(_) | Self::SecondNorm(_) | Self::FinalNorm | Self::Optimizer => {
                Function::InverseSqrt
            }
            Self::Kernel(_) | Self::LossExp => Function::Exp,
            Self::Normaliser(_) | Self::LossInverse => Function::Inverse,
            Self::Gate(_) => Function::Relu,
            Self::Tanh => Function::Tanh,
        }
    }

    /// The sites inference visits, in the program's order. Every model that answers under encryption has them all.
    pub fn all(config: &Config) -> impl Iterator<Item = Self> + use<> {
        let config = *config;
        (0..config.layers)
            .flat_map(move |l| {
                let normaliser = (config.kernel == Kernel::Softmax).then_some(Self::Normaliser(l));
                let first = config.has_first_norm(l).then_some(Self::FirstNorm(l));
                first
                    .into_iter()
                    .chain([Self::Kernel(l)])
                    .chain(normaliser)
                    .chain([Self::SecondNorm(l), Self::Gate(l)])
            })
            .chain([Self::FinalNorm, Self::Tanh])
    }

    /// The sites training visits besides: only a model that is trained under encryption needs them.
    pub fn training(config: &Config) -> impl Iterator<Item = Self> + use<> {
        let skipped = if config.loss == Loss::CrossEntropy { 0 } else { 2 };
        [Self::LossExp, Self::LossInverse, Self::Optimizer].into_iter().skip(skipped)
    }

    /// Whether it is one that [`Site::training`] gives.
    pub fn is_training(self) -> bool {
        matches!(self, Self::LossExp | Self::LossInverse | Self::Optimizer)
    }
}
