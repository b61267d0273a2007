//! What the executor's tensors are.

use crate::Places;
use crate::algebra::{Algebra, Halves, Matrix};
use std::cell::RefCell;
use std::rc::Rc;

/// Vectors of slots: lower and upper halves of the ciphertexts of a tensor; slots hold `factor` times the entries.
pub(crate) struct Slots<V> {
    pub(crate) factor: f64,
    pub(crate) halves: Vec<Halves<V>>,
}

/// Which tokens of the sentences are none: 1 where a key's value counts, 0 where not, in the places of the scores.
pub struct Mask<V> {
    /// One vector for each ciphertext of the scores; both halves are alike.
    pub vectors: Vec<V>,
}

/// A matrix for every sentence.
pub struct Tensor<G: Algebra> {
    pub(crate) places: Places,
    /// In the small ring, sentence by sentence.
    pub(crate) packed: Vec<Matrix<G::Piece>>,
    /// A second matrix for every sentence: the gated half of a hidden layer.
    pub(crate) gated: Vec<Matrix<G::Piece>>,
    /// In slots, once it was needed there.
    pub(crate) slots: RefCell<Option<Rc<Slots<G::Vector>>>>,
    /// What a product of scores with this takes in.
    pub(crate) mask: Option<Rc<Mask<G::Vector>>>,
    /// Whether it has one row of tokens for all sentences: the first token of each.
    pub(crate) first: bool,
}

impl<G: Algebra> Tensor<G> {
    pub(crate) fn packed(places: Places, packed: Vec<Matrix<G::Piece>>, first: bool) -> Self {
        Self { places, packed, gated: Vec::new(), slots: RefCell::new(None), mask: None, first }
    }

    /// A client's tensor.
    pub fn input(places: Places, matrices: Vec<Matrix<G::Piece>>) -> Self {
        Self::packed(places, matrices, false)
    }

    /// The mask of a batch.
    pub fn mask(places: Places, vectors: Vec<G::Vector>) -> Self {
        Self { mask: Some(Rc::new(Mask { vectors })), ..Self::packed(places, Vec::new(), false) }
    }

    /// Its places.
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// The matrices, sentence by sentence.
    pub fn matrices(&self) -> &[Matrix<G::Piece>] {
        &self.packed
    }
}
