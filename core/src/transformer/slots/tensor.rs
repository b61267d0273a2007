//! What the executor keeps in the slots, and what may go wrong there.

use super::LayoutError;
use crate::ckks::Error;
use crate::transformer::{Norm, Site};

/// Most vectors of one tensor: the scores of a sentence of T tokens are T / (features of a head) of them.
pub(super) const MAX_PARTS: usize = 4;

/// The vectors of a tensor.
pub(super) type Parts<V> = heapless::Vec<V, MAX_PARTS>;

/// Why the encrypted program cannot go on.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum SlotError {
    /// The model does not fit the slots.
    Layout(LayoutError),
    /// The scheme refused.
    Scheme(Error),
    /// The model has no approximation for a site.
    NoApproximation(Site),
    /// A tensor came in a form the operation cannot use.
    Form,
}

impl core::fmt::Display for SlotError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Layout(error) => error.fmt(f),
            Self::Scheme(error) => error.fmt(f),
            Self::NoApproximation(site) => {
                write!(f, "the model has no approximation for {site:?}; calibrate it first")
            }
            Self::Form => write!(f, "a tensor came in a form this operation cannot use on slots"),
        }
    }
}

impl core::error::Error for SlotError {}

impl From<Error> for SlotError {
    fn from(error: Error) -> Self {
        Self::Scheme(error)
    }
}

impl From<LayoutError> for SlotError {
    fn from(error: LayoutError) -> Self {
        Self::Layout(error)
    }
}

/// Which lanes of a tensor mean something, and what the others hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lanes {
    /// Every token.
    All,
    /// The first lanes only, the others are zero.
    Clean,
    /// Lane 0 only, the others hold anything.
    Dirty,
    /// Scores of every query: lanes are tokens, places are shifts from query to key.
    Shifts,
}

/// A matrix in the slots: meaning = factor·slots, then the gain and bias of a
/// pending norm, which the next linear map takes in.
pub struct SlotTensor<V> {
    /// The first, or only, vector.
    pub(super) vector: V,
    /// The second half of a gate's input, or the scores of further shifts.
    pub(super) more: Parts<V>,
    pub(super) factor: f64,
    pub(super) lanes: Lanes,
    pub(super) pending: Option<Norm>,
}

impl<V> SlotTensor<V> {
    /// A matrix with one row per token, as the client encrypts it.
    pub fn tokens(vector: V) -> Self {
        Self::derived(vector, 1.0, Lanes::All)
    }

    /// The slots; the result of a whole forward pass has factor 1.
    pub fn vector(&self) -> &V {
        &self.vector
    }

    pub(super) fn derived(vector: V, factor: f64, lanes: Lanes) -> Self {
        Self { vector, more: Parts::new(), factor, lanes, pending: None }
    }

    /// Other slots that mean the same.
    pub(super) fn with(&self, vector: V) -> Self {
        Self { pending: self.pending, ..Self::derived(vector, self.factor, self.lanes) }
    }
}
