//! What the executor's tensors are.

use crate::Places;
use crate::algebra::{Algebra, Halves, Matrix};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use veilformer::ckks;
use veilformer::transformer::slots::SlotArithmetic;
use veilformer::transformer::{Norm, Projection};

/// Vectors of slots: lower and upper halves of the ciphertexts of a tensor; slots hold `factor` times the entries.
pub struct Slots<V> {
    pub(crate) factor: f64,
    pub(crate) halves: Vec<Halves<V>>,
}

/// The lower or the upper vector.
pub(crate) fn half_of<V>(halves: &Halves<V>, upper: bool) -> Option<&V> {
    if upper { halves.1.as_ref() } else { Some(&halves.0) }
}

/// The vector at `level`, or as it is where it is lower.
pub(crate) fn at_most<S: SlotArithmetic>(
    slots: &mut S,
    x: &S::Vector,
    level: usize,
) -> Result<S::Vector, ckks::Error> {
    if slots.level(x) > level { slots.scale(x, 1.0, level) } else { slots.duplicate(x) }
}

/// What a function of the forward pass leaves for the backward pass.
pub(crate) enum Kept<V> {
    /// 1/√ of the variances, for each sentence's ciphertexts.
    Norm {
        /// One for all ciphertexts of a sentence.
        roots: Rc<Vec<Halves<V>>>,
    },
    /// Of a gate a ⊙ ReLU(b).
    Gate {
        /// ReLU(b).
        relu: Slots<V>,
        /// a times the slope at b.
        sloped: Slots<V>,
    },
    /// Of a softmax.
    Softmax {
        /// The exponentials of the keys that count.
        scores: Slots<V>,
        /// One over their sums, each at one key only.
        inverses: Slots<V>,
    },
}

/// Which tokens of the sentences are none: 1 where a key's value counts, 0 where not, in the places of the scores.
pub struct Mask<V> {
    /// One vector for each ciphertext of the scores; both halves are alike.
    pub vectors: Vec<V>,
}

/// Slots and matrices of the same entries.
pub(crate) type Masked<G> = (Slots<<G as Algebra>::Vector>, Vec<Matrix<<G as Algebra>::Piece>>);

/// The rows of every sentence, each by itself.
pub(crate) type RowsOf<G> = Rc<Vec<Vec<<G as Algebra>::Row>>>;

/// Few rows that wait for a bootstrap, which they share with others.
pub(crate) struct Waiting<G: Algebra> {
    /// Those of all sentences.
    pub(crate) whole: Matrix<G::Piece>,
    /// Rows of a sentence.
    pub(crate) count: usize,
    /// What is known of the result's entries.
    pub(crate) bound: f64,
    /// What the result's slots are to hold the entries times, before they are lowered.
    pub(crate) factor: f64,
    /// Columns that hold anything.
    pub(crate) used: usize,
    /// The result.
    pub(crate) rows: RefCell<Option<RowsOf<G>>>,
}

/// What a norm was about to multiply: its gain is left to the weights that follow, and 1/√ to their product.
pub(crate) struct Unscaled<V> {
    /// Which norm.
    pub(crate) norm: Norm,
    /// What it normalises.
    pub(crate) x: Rc<Slots<V>>,
    /// 1/√ of the variances.
    pub(crate) roots: Rc<Vec<Halves<V>>>,
}

/// A matrix for every sentence.
pub struct Tensor<G: Algebra> {
    pub(crate) places: Places,
    /// In the small ring, sentence by sentence.
    pub(crate) packed: Vec<Matrix<G::Piece>>,
    /// A second matrix for every sentence: the gated half of a hidden layer.
    pub(crate) gated: Vec<Matrix<G::Piece>>,
    /// The gated half and the other, where products with weights were done in slots; the gate, which is all that asks for
    /// them, leaves nothing.
    pub(crate) halves: RefCell<Option<[Slots<G::Vector>; 2]>>,
    /// Instead of all others: a norm that is not carried out before the product with a hidden layer's weights, which is all
    /// that takes it.
    pub(crate) unscaled: Option<Unscaled<G::Vector>>,
    /// In slots, once it was needed there.
    pub(crate) slots: RefCell<Option<Rc<Slots<G::Vector>>>>,
    /// Of scores: without what the mask takes out.
    pub(crate) masked: RefCell<Option<Rc<Masked<G>>>>,
    /// The rows of every sentence, of a tensor that has few.
    pub(crate) rows: RefCell<Option<RowsOf<G>>>,
    /// They may still be on their way.
    pub(crate) waiting: Option<Rc<Waiting<G>>>,
    /// This times LoRA's A of projections that have not been asked for yet.
    pub(crate) adapters: RefCell<HashMap<Projection, Vec<Matrix<G::Piece>>>>,
    /// What a product of scores with this takes in.
    pub(crate) mask: Option<Rc<Mask<G::Vector>>>,
    /// Whether it has one row of tokens for all sentences: the first token of each.
    pub(crate) first: bool,
}

impl<G: Algebra> Tensor<G> {
    pub(crate) fn packed(places: Places, packed: Vec<Matrix<G::Piece>>, first: bool) -> Self {
        Self {
            places,
            packed,
            gated: Vec::new(),
            halves: RefCell::new(None),
            unscaled: None,
            slots: RefCell::new(None),
            masked: RefCell::new(None),
            rows: RefCell::new(None),
            waiting: None,
            adapters: RefCell::default(),
            mask: None,
            first,
        }
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
