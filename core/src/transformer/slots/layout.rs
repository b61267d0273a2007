//! Where a feature of a token of a sentence sits.

use crate::transformer::Config;

/// Slot = feature·(T·B) + token·B + sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Layout {
    width: usize,
    length: usize,
    batch: usize,
}

/// Why a model does not fit the slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum LayoutError {
    /// Width, length and heads must be powers of two.
    PowerOfTwo {
        /// The offending size.
        given: usize,
    },
    /// Width times length exceeds the slots.
    TooLarge {
        /// Slots needed for one sentence.
        need: usize,
        /// Slots there are.
        have: usize,
    },
    /// A hidden width exceeds the model's, or in a single layer, where it may
    /// spread over the tokens' lanes, all of them.
    Hidden {
        /// Its width.
        given: usize,
        /// The most that fits.
        max: usize,
    },
    /// LoRA factors must be merged into the weights, and the embedding be centred, first.
    NotFolded,
}

impl core::fmt::Display for LayoutError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::PowerOfTwo { given } => {
                write!(f, "width, length and heads must be powers of two in slots, got {given}")
            }
            Self::TooLarge { need, have } => {
                write!(f, "one sentence needs {need} slots and there are {have}; use a larger ring")
            }
            Self::Hidden { given, max } => write!(f, "a hidden width of {given} exceeds {max}"),
            Self::NotFolded => {
                write!(f, "merge LoRA into the weights and train without an affine embedding norm")
            }
        }
    }
}

impl core::error::Error for LayoutError {}

impl Layout {
    /// The layout of as many sentences as fit into `slots`.
    ///
    /// # Errors
    /// [`LayoutError`] names the size that does not fit.
    pub fn new(config: &Config, slots: usize) -> Result<Self, LayoutError> {
        let &Config { layers, width, heads, length, feed_forward, head_hidden, head_rank, .. } = config;
        if let Some(given) = [width, heads, length].into_iter().find(|n| !n.is_power_of_two()) {
            return Err(LayoutError::PowerOfTwo { given });
        }
        if config.lora_rank != 0 || config.embedding_affine {
            return Err(LayoutError::NotFolded);
        }
        let max = width * length;
        // Only where token 0 alone matters are the other tokens' lanes free.
        let hidden = if layers == 1 { max } else { width };
        for (given, max) in [(feed_forward, hidden), (head_hidden, width), (head_rank, width)] {
            if given > max {
                return Err(LayoutError::Hidden { given, max });
            }
        }
        if max > slots {
            return Err(LayoutError::TooLarge { need: max, have: slots });
        }
        Ok(Self { width, length, batch: slots / max })
    }

    /// Sentences in one ciphertext.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Features of a token.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Tokens of a sentence.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Slots from one feature to the next: T·B.
    pub fn feature_stride(&self) -> usize {
        self.length * self.batch
    }

    /// The slot of a feature of a token of a sentence.
    pub fn slot(&self, feature: usize, token: usize, sentence: usize) -> usize {
        feature * self.feature_stride() + token * self.batch + sentence
    }

    /// (feature, token or lane) of a slot.
    pub fn place(&self, slot: usize) -> (usize, usize) {
        (slot / self.feature_stride(), slot / self.batch % self.length)
    }
}
