//! Softmax attention, the baseline: products in the small ring, exponentials and their quotients in slots.
//!
//! No maximum is subtracted and no domain extended, as softmax under encryption usually has to do (the paper's does): the
//! exponents stay in a calibrated interval, as the Gaussian kernel's do, and exp is one polynomial. What softmax costs more
//! than that kernel is the sums over the keys and their inverses. Keys are rows, so that a sum is a few rotations; it is
//! valid at one key. Every vector of slots has its sums at another key, all of them meet in one vector, and one bootstrap
//! serves a whole batch.

use crate::algebra::Algebra;
use crate::attention::SCORES_LEVEL;
use crate::executor::Engine;
use crate::tensor::{Kept, Slots, half_of};
use crate::{Error, Places, Tensor};
use std::rc::Rc;
use veilformer::matrix::Entries;
use veilformer::transformer::Site;
use veilformer::transformer::slots::{Model, SlotArithmetic};

/// Where the sums over the keys of every head are.
struct Keys {
    places: Places,
    /// Tokens of a sequence, a power of two.
    length: usize,
    /// Whether columns are sentences, of which only a sentence's own counts.
    first: bool,
    turns: Vec<usize>,
}

impl Keys {
    fn new(places: Places, length: usize, first: bool) -> Self {
        Self { places, length, first, turns: places.row_turns(length) }
    }

    /// The key at which a vector's sums are, and the number of the shared vector they go to.
    fn of(&self, ciphertext: usize, upper: bool) -> (usize, usize) {
        let vector =
            if self.places.has_upper_half() { 2 * ciphertext + usize::from(upper) } else { ciphertext };
        (vector % self.length, vector / self.length)
    }

    /// The key in a slot, where a query of its own sentence meets it.
    fn at(&self, ciphertext: usize, upper: bool, slot: usize) -> Option<usize> {
        let (sentence, row, column) = self.places.at(ciphertext, upper, slot)?;
        (!self.first || sentence == column).then_some(row % self.length)
    }

    /// The sum over all keys, at one of them.
    fn sum<S: SlotArithmetic>(&self, slots: &mut S, x: &S::Vector, key: usize) -> Result<S::Vector, Error> {
        let mut sum = slots.duplicate(x)?;
        for (bit, &turn) in self.turns.iter().enumerate() {
            let turn = if key >> bit & 1 == 0 { turn as i64 } else { -(turn as i64) };
            let turned = slots.rotate(&sum, turn)?;
            slots.add_assign(&mut sum, &turned)?;
        }
        Ok(sum)
    }

    /// What is at one key and nowhere else, at all keys.
    fn spread<S: SlotArithmetic>(
        &self,
        slots: &mut S,
        x: &S::Vector,
        key: usize,
    ) -> Result<S::Vector, Error> {
        let mut copies = slots.duplicate(x)?;
        for (bit, &turn) in self.turns.iter().enumerate() {
            let turn = if key >> bit & 1 == 0 { -(turn as i64) } else { turn as i64 };
            let turned = slots.rotate(&copies, turn)?;
            slots.add_assign(&mut copies, &turned)?;
        }
        Ok(copies)
    }
}

impl<G: Algebra, M: Model> Engine<'_, G, M> {
    /// m_j·exp(q_i·k_j/√n) over its sum over the keys j, in the places of the scores of the Gaussian kernel.
    pub(crate) fn softmax(
        &mut self,
        query: &Tensor<G>,
        key: &Tensor<G>,
        mask: &Tensor<G>,
        layer: usize,
    ) -> Result<Tensor<G>, Error> {
        let form = Error::Form { operation: "softmax" };
        let constant = 2.0 * self.config().kernel_scale();
        let at_scores = |x: &Tensor<G>| {
            let packed = x.packed.iter().map(|matrix| matrix.at_most(SCORES_LEVEL)).collect();
            Tensor::packed(x.places, packed, x.first)
        };
        let reach = self.kernel_reach(layer)? / constant;
        let mut products = self.products_of_heads(&at_scores(query), &at_scores(key), Some(reach))?;
        for matrix in &mut products.packed {
            matrix.entries = Entries { scale: matrix.entries.scale / constant, ..matrix.entries };
        }
        let exponents = self.raise(&products.places, &products.packed)?;
        let keys = Keys::new(products.places, self.config().length, query.first);
        let mask = mask.mask.clone().ok_or(form)?;
        let scores = self.exponentials(&exponents, &keys, layer)?;
        drop(exponents);
        let scores = self.each(&scores, |slots, ciphertext, _, x| {
            Ok(slots.multiply(x, mask.vectors.get(ciphertext).ok_or(form)?)?)
        })?;
        let inverses = self.inverse_sums(&scores, &keys, layer)?;
        let everywhere = self.each(&inverses, |slots, ciphertext, upper, x| {
            keys.spread(slots, x, keys.of(ciphertext, upper).0)
        })?;
        let weights = Slots { factor: 1.0, ..self.products(&scores, &everywhere)? };
        let packed = self.lower(&keys.places, &weights, 1.0)?;
        if self.is_recording() {
            self.keep(Site::Normaliser(layer), Kept::Softmax { scores, inverses });
        }
        let masked = Some(Rc::new((weights, packed))).into();
        Ok(Tensor { masked, ..Tensor::packed(keys.places, Vec::new(), query.first) })
    }

    /// exp of the exponents that count, over the largest there can be; 0 where a query meets another sentence's key.
    fn exponentials(
        &mut self,
        exponents: &Slots<G::Vector>,
        keys: &Keys,
        layer: usize,
    ) -> Result<Slots<G::Vector>, Error> {
        let approximation = self.approximation(Site::Kernel(layer))?;
        let (interval, squarings) = (approximation.interval(), approximation.squarings());
        let (half, middle) = (0.5 * interval.width(), 0.5 * (interval.low() + interval.high()));
        let largest = interval.high().exp();
        let unit = largest.powf(0.5f64.powi(squarings as i32));
        let coefficients: Vec<f64> = approximation.coefficients().iter().map(|c| c / unit).collect();
        let elsewhere = approximation.evaluate(middle) / largest;
        let factor = 1.0 / (exponents.factor * half);
        let scores = self.each(exponents, |slots, ciphertext, upper, x| {
            let only = |slot: usize, value: f64| keys.at(ciphertext, upper, slot).map_or(0.0, |_| value);
            let level = slots.level(x).saturating_sub(1);
            let mut x = slots.multiply_known(x, &|slot| only(slot, factor), level)?;
            slots.add_known_assign(&mut x, &|slot| only(slot, -middle / half))?;
            let mut y = slots.chebyshev(&x, &coefficients)?;
            for _ in 0..squarings {
                y = slots.multiply(&y, &y)?;
            }
            if keys.first {
                slots.add_known_assign(&mut y, &|slot| only(slot, elsewhere) - elsewhere)?;
            }
            Ok(y)
        })?;
        Ok(Slots { factor: 1.0 / largest, ..scores })
    }

    /// One over the sums over the keys, at the key of every vector and nowhere else; times `scores` that is softmax.
    fn inverse_sums(
        &mut self,
        scores: &Slots<G::Vector>,
        keys: &Keys,
        layer: usize,
    ) -> Result<Slots<G::Vector>, Error> {
        let approximation = self.approximation(Site::Normaliser(layer))?;
        let interval = approximation.interval();
        let (half, middle) = (0.5 * interval.width(), 0.5 * (interval.low() + interval.high()));
        let constant = 1.0 / (scores.factor * half);
        let mut together: Vec<G::Vector> = Vec::new();
        let alone = self.each(scores, |slots, ciphertext, upper, x| {
            let (key, _) = keys.of(ciphertext, upper);
            let sum = keys.sum(slots, x, key)?;
            let here = |slot: usize| keys.at(ciphertext, upper, slot) == Some(key);
            let level = slots.level(&sum).saturating_sub(1);
            let mut sum =
                slots.multiply_known(&sum, &|slot| if here(slot) { constant } else { 0.0 }, level)?;
            slots.add_known_assign(&mut sum, &|slot| if here(slot) { -middle / half } else { 0.0 })?;
            Ok(sum)
        })?;
        for (ciphertext, halves) in alone.halves.into_iter().enumerate() {
            for (upper, sum) in [Some(halves.0), halves.1].into_iter().enumerate() {
                let Some(sum) = sum else { continue };
                match together.get_mut(keys.of(ciphertext, upper == 1).1) {
                    Some(sums) => self.algebra.slots().add_assign(sums, &sum)?,
                    None => together.push(sum),
                }
            }
        }
        let slots = self.algebra.slots();
        let inverses = together
            .iter()
            .map(|sums| {
                let sums = slots.refresh(sums)?;
                Ok(slots.chebyshev(&sums, approximation.coefficients())?)
            })
            .collect::<Result<Vec<_>, Error>>()?;
        let factor = 1.0 / scores.factor;
        let inverses = self.each(scores, |slots, ciphertext, upper, _| {
            let (key, shared) = keys.of(ciphertext, upper);
            let here = |slot: usize| match keys.at(ciphertext, upper, slot) {
                Some(at) if at == key => factor,
                _ => 0.0,
            };
            let level = slots.level(&inverses[shared]).saturating_sub(1);
            Ok(slots.multiply_known(&inverses[shared], &here, level)?)
        })?;
        Ok(Slots { factor, ..inverses })
    }

    /// dS → S ⊙ (dS − (sums over the keys of dS ⊙ S)). S is the lowest of all; the sums take the exponentials instead and
    /// their inverses, which are also the mask of the key where the sums are valid.
    pub(crate) fn softmax_backward(
        &mut self,
        scores: &Tensor<G>,
        d_scores: &Tensor<G>,
        layer: usize,
    ) -> Result<Tensor<G>, Error> {
        let form = Error::Form { operation: "softmax's gradient" };
        let kept = self.kept(Site::Normaliser(layer));
        let Some(Kept::Softmax { scores: exponentials, inverses }) = kept.as_deref() else {
            return Err(form);
        };
        let weights = scores.masked.borrow().clone().ok_or(form)?;
        let keys = Keys::new(scores.places, self.config().length, scores.first);
        let d = self.slots_of(d_scores)?;
        let along = self.products(&d, exponentials)?;
        let shared = self.each(&along, |slots, ciphertext, upper, x| {
            let (key, _) = keys.of(ciphertext, upper);
            let sum = keys.sum(slots, x, key)?;
            let inverse = inverses.halves.get(ciphertext).and_then(|halves| half_of(halves, upper));
            let sum = slots.multiply(&sum, inverse.ok_or(form)?)?;
            keys.spread(slots, &sum, key)
        })?;
        let rest = self.each(&d, |slots, ciphertext, upper, x| {
            let shared =
                shared.halves.get(ciphertext).and_then(|halves| half_of(halves, upper)).ok_or(form)?;
            let mut rest = slots.scale(x, 1.0, slots.level(shared))?;
            slots.subtract_assign(&mut rest, shared)?;
            Ok(rest)
        })?;
        let product = self.products(&rest, &weights.0)?;
        let packed = self.lower(&scores.places, &product, 1.0 / product.factor)?;
        Ok(Tensor::packed(scores.places, packed, scores.first))
    }
}
