//! Products: encrypted times encrypted, and weights times encrypted.

use super::permute::{Encoded, Shift, sum_of_shifts};
use super::{Axis, Error, Factor, Packing};
use crate::accel::Accelerator;
use crate::ckks::encoding::{Complex, Encoder, plaintext};
use crate::ckks::server::Evaluator;
use crate::ckks::{self, Ciphertext, KeySource, Plaintext};

/// Products of the matrices in slots: an evaluator, a packing, and memory for encoding masks and weights.
pub struct SlotMatrices<'a, A: Accelerator, K: KeySource<A> + ?Sized> {
    evaluator: Evaluator<'a, A, K>,
    packing: Packing,
    encoder: &'a Encoder<'a>,
    work: &'a mut [f64],
    coefficients: &'a mut [i64],
}

/// σ(A) of a left factor, for any number of products.
pub struct SkewedLeft<A: Accelerator>(Ciphertext<A>);

/// τ(B) of a right factor, for any number of products.
pub struct SkewedRight<A: Accelerator>(Ciphertext<A>);

/// Known weights, encoded shift by shift for products at one level.
pub struct Weights<'w, A: Accelerator> {
    factor: Factor,
    shifts: &'w [Option<Plaintext<A>>],
}

impl<A: Accelerator> SkewedLeft<A> {
    /// The level: one below the matrix's.
    pub fn level(&self) -> usize {
        self.0.level()
    }
}

impl<A: Accelerator> SkewedRight<A> {
    /// The level: one below the matrix's.
    pub fn level(&self) -> usize {
        self.0.level()
    }
}

impl<'a, A: Accelerator, K: KeySource<A> + ?Sized> SlotMatrices<'a, A, K> {
    /// `work` and `coefficients` have N entries, the encoder is for N, the packing for the evaluator's parameters.
    ///
    /// # Errors
    /// [`Error::Room`], [`ckks::Error::Length`] for another encoder.
    pub fn new(
        evaluator: Evaluator<'a, A, K>,
        packing: Packing,
        encoder: &'a Encoder<'a>,
        work: &'a mut [f64],
        coefficients: &'a mut [i64],
    ) -> Result<Self, Error> {
        let (slots, need) = (evaluator.parameters().slots(), evaluator.parameters().degree());
        if encoder.slots() != slots {
            return Err(ckks::Error::Length { have: encoder.slots(), need: slots }.into());
        }
        let packed = packing.lanes * packing.dimension * packing.dimension;
        if packed != slots {
            return Err(Error::Room { have: slots, need: packed });
        }
        let have = work.len().min(coefficients.len());
        let work = work.get_mut(..need).ok_or(Error::Room { have, need })?;
        let coefficients = coefficients.get_mut(..need).ok_or(Error::Room { have, need })?;
        Ok(Self { evaluator, packing, encoder, work, coefficients })
    }

    /// A·B of every lane, relinearised and rescaled once; three levels below a, two below b, or lower.
    ///
    /// # Errors
    /// [`ckks::Error::LevelsExhausted`] unless a is at level 3 and b at level 2 or above; [`ckks::Error::MissingKey`].
    pub fn multiply(&mut self, a: &Ciphertext<A>, b: &Ciphertext<A>) -> Result<Ciphertext<A>, Error> {
        // Nothing is done higher up than where the product will be.
        let result = above(a.level(), 3)?.min(above(b.level(), 2)?);
        let left = self.skew_left(&self.evaluator.drop_to(a, result + 3)?)?;
        let right = self.skew_right(&self.evaluator.drop_to(b, result + 2)?)?;
        self.multiply_skewed(&left, &right)
    }

    /// σ(x), one level down.
    ///
    /// # Errors
    /// [`ckks::Error::LevelsExhausted`], [`ckks::Error::MissingKey`].
    pub fn skew_left(&mut self, x: &Ciphertext<A>) -> Result<SkewedLeft<A>, Error> {
        Ok(SkewedLeft(self.skew(Axis::Columns, |k, row, _| row == k, x)?))
    }

    /// τ(x), one level down.
    ///
    /// # Errors
    /// As [`SlotMatrices::skew_left`].
    pub fn skew_right(&mut self, x: &Ciphertext<A>) -> Result<SkewedRight<A>, Error> {
        Ok(SkewedRight(self.skew(Axis::Rows, |k, _, column| column == k, x)?))
    }

    /// Takes the entry at (row, column) from shift k where `picks` says so.
    fn skew(
        &mut self,
        axis: Axis,
        picks: impl Fn(usize, usize, usize) -> bool,
        x: &Ciphertext<A>,
    ) -> Result<Ciphertext<A>, Error> {
        let (evaluator, packing) = (self.evaluator, self.packing);
        Ok(sum_of_shifts(&evaluator, packing, axis, x, |shift| {
            let weight = |_, row, column| f64::from(u8::from(picks(shift.k, row, column)));
            let encoded = self.encode(x.level(), |s| packing.shift_factor(axis, shift, s, weight))?;
            Ok(Encoded::Once(encoded))
        })?)
    }

    /// A·B from σ(A) and τ(B): two levels below the first, one below the second, or lower.
    ///
    /// # Errors
    /// [`ckks::Error::LevelsExhausted`] unless a is at level 2 and b at level 1 or above; [`ckks::Error::MissingKey`].
    pub fn multiply_skewed(&mut self, a: &SkewedLeft<A>, b: &SkewedRight<A>) -> Result<Ciphertext<A>, Error> {
        let (evaluator, packing) = (self.evaluator, self.packing);
        let (rows, babies) = (packing.rows, packing.babies());
        let level = 1 + above(a.level(), 2)?.min(above(b.level(), 1)?);
        let [column, row] = [Axis::Columns, Axis::Rows].map(|axis| packing.unit(axis));
        let a = evaluator.drop_to(&a.0, level + 1)?;
        let b = evaluator.drop_to(&b.0, level)?;
        let (a, b) = (evaluator.hoist(&a)?, evaluator.hoist(&b)?);
        let one = self.encode(level + 1, |_| 1.0)?;
        let mut sum = evaluator.product(level)?;
        for first in (0..rows).step_by(babies) {
            let left = evaluator.rotate_hoisted(&a, first as i64 * column)?;
            let right = evaluator.rotate_hoisted(&b, first as i64 * row)?;
            let left_digits = evaluator.hoist(&left)?;
            // φ^k(x) = turn_k(x) + mask ⊙ turn_k(x one row back − x): one mask for each k.
            let mut back = evaluator.rotate_hoisted(&left_digits, packing.wrap())?;
            evaluator.sub_assign(&mut back, &left)?;
            let (back, right) = (evaluator.hoist(&back)?, evaluator.hoist(&right)?);
            for k in first..rows.min(first + babies) {
                let baby = (k - first) as i64;
                let mut x = evaluator.extended_product(level + 1)?;
                let straight = evaluator.rotate_extended(&left_digits, baby * column)?;
                evaluator.extended_multiply_add(&mut x, &straight, &one)?;
                drop(straight);
                if k > 0 {
                    let past_the_end = |s| packing.entry(s).2 + k >= packing.dimension;
                    let mask = self.encode(level + 1, |s| f64::from(u8::from(past_the_end(s))))?;
                    let back = evaluator.rotate_extended(&back, baby * column)?;
                    evaluator.extended_multiply_add(&mut x, &back, &mask)?;
                }
                let x = evaluator.rescale_extended(x)?;
                let y = evaluator.rotate_hoisted(&right, baby * row)?;
                evaluator.multiply_add(&mut sum, &x, &y)?;
            }
        }
        let mut product = evaluator.rescale(sum)?;
        // With a short left factor, block t of the rows has the terms of l·t and what follows.
        let mut block = rows;
        while block < packing.dimension {
            let turned = evaluator.rotate(&product, block as i64 * row)?;
            evaluator.add_assign(&mut product, &turned)?;
            block *= 2;
        }
        Ok(product)
    }

    /// Encodes weights that will be `factor` of products at `level`: the d × d matrix with `weight`(lane, row,
    /// column). `store` has [`Packing::plaintexts_needed`] places.
    ///
    /// # Errors
    /// [`Error::Room`], [`ckks::Error::NotEncodable`].
    pub fn prepare<'w>(
        &mut self,
        factor: Factor,
        level: usize,
        weight: impl Fn(usize, usize, usize) -> f64,
        store: &'w mut [Option<Plaintext<A>>],
    ) -> Result<Weights<'w, A>, Error> {
        let (packing, axis) = (self.packing, Axis::against(factor));
        let (have, need) = (store.len(), packing.plaintexts_needed(factor));
        let store = store.get_mut(..need).ok_or(Error::Room { have, need })?;
        for (place, shift) in store.iter_mut().zip(packing.shifts(axis)) {
            let at = |lane, row, column| match factor {
                Factor::Left => weight(lane, row, (row + shift.k) % packing.dimension),
                Factor::Right => weight(lane, (column + shift.k) % packing.dimension, column),
            };
            *place = Some(self.encode(level, |s| packing.shift_factor(axis, shift, s, at))?);
        }
        Ok(Weights { factor, shifts: store })
    }

    /// W·X or X·W of every lane; one level below that of the weights.
    ///
    /// # Errors
    /// [`ckks::Error::Level`] when x is below the weights, [`ckks::Error::LevelsExhausted`] at level 0,
    /// [`ckks::Error::MissingKey`].
    pub fn multiply_plain(
        &self,
        weights: &Weights<'_, A>,
        x: &Ciphertext<A>,
    ) -> Result<Ciphertext<A>, Error> {
        let (packing, axis) = (self.packing, Axis::against(weights.factor));
        let (have, need) = (weights.shifts.len(), packing.plaintexts_needed(weights.factor));
        let kept = |shift: Shift| {
            let place = packing.shift_index(shift).and_then(|index| weights.shifts.get(index)?.as_ref());
            place.ok_or(ckks::Error::Length { have, need })
        };
        let level = kept(Shift { k: 0, wrapped: false })?.level();
        let x = self.evaluator.drop_to(x, level)?;
        Ok(sum_of_shifts(&self.evaluator, packing, axis, &x, |shift| Ok(Encoded::Kept(kept(shift)?)))?)
    }

    /// Over Q_level ∪ P, for products of raised turns.
    fn encode(&mut self, level: usize, slot: impl Fn(usize) -> f64) -> Result<Plaintext<A>, ckks::Error> {
        let parameters = self.evaluator.parameters();
        let real = |s| Complex::new(slot(s), 0.0);
        self.encoder.encode_with(real, parameters.scale(level), self.work, self.coefficients)?;
        plaintext(self.evaluator.accelerator(), parameters.key_basis(level), self.coefficients)
    }
}

/// Levels that are left of `have` when `need` are taken.
fn above(have: usize, need: usize) -> Result<usize, ckks::Error> {
    have.checked_sub(need).ok_or(ckks::Error::LevelsExhausted { have, need })
}
