//! Why a job cannot go on.

use veilformer::transformer::{Parameter, Site, Trainable};
use veilformer::{accel, ckks, matrix};

/// Why the encrypted program cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Matrix algebra refused.
    #[error(transparent)]
    Matrix(#[from] matrix::Error),
    /// The scheme refused.
    #[error(transparent)]
    Scheme(#[from] ckks::Error),
    /// The model has no approximation for a site.
    #[error("the model has no approximation for {0:?}; calibrate it first")]
    NoApproximation(Site),
    /// The model has no bound for gradients at a site.
    #[error("the model has no bound on gradients for {0:?}; calibrate it for training first")]
    NoGradientBound(Site),
    /// The model has no bound for gradients by what a layer's LoRA matrices give.
    #[error("the model has no bound on the gradients of LoRA in layer {0}; calibrate it for training first")]
    NoAdapterBound(usize),
    /// Softmax adds keys up by rotations: a sequence must have a power of two of them, in one ciphertext.
    #[error(
        "softmax attention needs sequences of a power of two tokens, at most {max}; this model's have {length}"
    )]
    Keys {
        /// Tokens of a sequence.
        length: usize,
        /// The most.
        max: usize,
    },
    /// Sequences that do not fill the columns of a packed matrix.
    #[error(
        "a model of {length} tokens: the columns of a packed matrix are {least} at least; take a model of so many \
         tokens, or parameters with a smaller ring"
    )]
    Tokens {
        /// Tokens of a sequence.
        length: usize,
        /// Columns that there are.
        least: usize,
    },
    /// Sizes that the packing cannot hold.
    #[error("{what} is {given}, at most {max} fits the small ring; use fewer, or a larger ring")]
    Size {
        /// Which size.
        what: &'static str,
        /// Given.
        given: usize,
        /// The largest.
        max: usize,
    },
    /// A tensor came in a form that the operation cannot use.
    #[error("a tensor came to {operation} in a form it cannot use")]
    Form {
        /// The operation.
        operation: &'static str,
    },
    /// Somebody asked to stop.
    #[error("stopped as asked")]
    Stopped,
    /// A set of weights that this executor does not train.
    #[error("{0:?} includes weights that are not trained under encryption; choose Adapters or Matrices")]
    Trainable(Trainable),
    /// An encrypted weight is missing.
    #[error("no encrypted weights for {0:?}; expected the trained parameters of this model")]
    MissingWeights(Parameter),
}

impl From<accel::Error> for Error {
    fn from(error: accel::Error) -> Self {
        Self::Scheme(error.into())
    }
}
