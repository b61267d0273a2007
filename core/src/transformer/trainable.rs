//! Which weights a training run changes.

use super::{Config, Norm, Parameter};

/// A set of weights; the others are frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Trainable {
    /// Every weight, the client's embedding included: pre-training in the clear.
    Everything,
    /// The encoder and the head, so all the server has: full fine-tuning, the paper's baseline. The embedding is public
    /// to the client and stays.
    Server,
    /// Every matrix of the encoder and the head, without the gains and biases of the norms: what full fine-tuning changes
    /// under encryption.
    Matrices,
    /// LoRA's factors and the head's matrices: the paper's fine-tuning.
    Adapters,
}

impl Trainable {
    /// Whether a weight is one of them.
    pub fn includes(self, parameter: Parameter) -> bool {
        match parameter {
            Parameter::TokenEmbedding
            | Parameter::PositionScale
            | Parameter::Gain(Norm::Embedding)
            | Parameter::Bias(Norm::Embedding) => self == Self::Everything,
            Parameter::LoraDown(..)
            | Parameter::LoraUp(..)
            | Parameter::HeadDown
            | Parameter::HeadUp
            | Parameter::Classifier => true,
            Parameter::Gain(_) | Parameter::Bias(_) => matches!(self, Self::Everything | Self::Server),
            _ => self != Self::Adapters,
        }
    }

    /// The weights of a model that are trained, in the order of [`Parameter::all`].
    pub fn parameters(self, config: &Config) -> impl Iterator<Item = Parameter> + use<> {
        Parameter::all(config).filter(move |p| self.includes(*p))
    }

    /// Whether anything below the head is trained, so that gradients must go on into the encoder.
    pub fn reaches_encoder(self, config: &Config) -> bool {
        self.parameters(config)
            .any(|p| !matches!(p, Parameter::HeadDown | Parameter::HeadUp | Parameter::Classifier))
    }

    /// Whether the gradient by a layer's input is asked for: by the layers below, all of which have trained weights if
    /// one has, or by the embedding.
    pub fn reaches_input_of(self, layer: usize) -> bool {
        layer > 0 || self == Self::Everything
    }
}
