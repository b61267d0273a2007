//! The product of two matrices of lanes.
//!
//! Multiplying by the secret multiplies a row of coefficients by a matrix S, so
//! R = B₂ + A₂·S where R's rows are ciphertexts, and L = B₁ + Sᵀ·A₁ where L's
//! columns are. Then
//!
//! ```text
//! L·R = B₁·B₂ + B₁·A₂·S + Sᵀ·(A₁·B₂) + Sᵀ·(A₁·A₂)·S.
//! ```
//!
//! The four products are plain ones modulo q. Sᵀ·M is the transpose of the rows
//! (0, Mᵀ): of B₃ + A₃·S for M = A₁·B₂, and of B₄ + A₄·S for M = A₁·A₂. So
//! L·R = (B₁·B₂ + B₃) + (B₁·A₂ + A₃ + B₄)·S + A₄·S²: relinearised row by row.

use super::fourier::Direction;
use super::{LaneEvaluator, MAX_WIDTH, check_rows};
use crate::accel::{Accelerator, Evaluations, Polynomial};
use crate::ckks::{Ciphertext, Error, KeyId, KeySource};
use crate::ring::Basis;
use core::mem;

/// Most terms of an entry of a product.
pub const MAX_CONTRACTION: usize = 1024;

type Row<'r, A> = &'r mut Ciphertext<A>;

impl<A: Accelerator, K: KeySource<A> + ?Sized> LaneEvaluator<'_, A, K> {
    /// D = L·R lane by lane, rescaled: row t of `out` is Σ_u X^u·D\[t, u\] with
    /// D\[t, u\] = Σ_f L\[t, f\]·R\[f, u\], one level below the operands, at that
    /// level's scale. left\[f\] holds *column* f of L, Σ_t X^t·L\[t, f\], and
    /// right\[f\] row f of R, for any f from 1 to [`MAX_CONTRACTION`] terms.
    ///
    /// What `out` (d rows) and `work` ([`Lanes::work_rows`](super::Lanes::work_rows)) held is
    /// lost. Working rows end at the operands' level, ready for the next product.
    ///
    /// # Errors
    /// [`Error::Length`] for a number of rows; [`Error::Level`],
    /// [`Error::LevelsExhausted`]; [`Error::MissingKey`] before any work.
    pub fn product(
        &self,
        left: &[Ciphertext<A>],
        right: &[Ciphertext<A>],
        work: &mut [Ciphertext<A>],
        out: &mut [Ciphertext<A>],
    ) -> Result<(), Error> {
        let (width, terms) = (self.lanes.width, left.len());
        check_rows(terms, right.len())?;
        if !(1..=MAX_CONTRACTION).contains(&terms) {
            return Err(Error::Length { have: terms, need: terms.clamp(1, MAX_CONTRACTION) });
        }
        check_rows(self.lanes.work_rows(terms), work.len())?;
        check_rows(width, out.len())?;
        let level = self.level_of(left.iter().chain(right))?;
        if level == 0 {
            return Err(Error::LevelsExhausted { have: 0, need: 1 });
        }
        self.check_keys(level)?;
        self.evaluator.check_key(KeyId::Relinearization, level)?;
        self.provide(work, level)?;
        self.provide(out, level)?;

        let (crossed, scratch) = work.split_at_mut(width);
        let split = &mut scratch[..terms];
        self.split(split, |f| [Some(&right[f].parts[0]), Some(&right[f].parts[1])])?;
        for part in [0, 1] {
            // Rows of (A₁·B₂)ᵀ and of (A₁·A₂)ᵀ.
            self.multiply(split, part, left, 1, crossed, part)?;
        }
        self.split(split, |f| [Some(&left[f].parts[0]), None])?;
        for part in [0, 1] {
            self.multiply(split, 0, right, part, out, part)?;
        }

        self.divide_by_width(crossed)?;
        self.transform(Direction::Forward, crossed, 2, width)?;
        let squares = &mut scratch[..width];
        self.conjugate_both(crossed, squares)?;
        self.transform(Direction::Inverse, crossed, 2, width)?;
        self.transform(Direction::Inverse, squares, 1, width)?;
        self.relinearise(out, crossed, squares, level)
    }

    /// Rows of `level`, whatever they hold.
    fn provide(&self, rows: &mut [Ciphertext<A>], level: usize) -> Result<(), Error> {
        for row in rows.iter_mut().filter(|row| row.level() != level) {
            let limbs = || Polynomial::allocate(self.evaluator.accelerator(), Basis::level(level));
            row.parts = [limbs()?, limbs()?];
        }
        Ok(())
    }

    /// Fills `rows` with the polynomials of `source`, modulo X^d − ζ_j in
    /// block j: the factors that [`Accelerator::block_products`] takes from the left.
    pub(super) fn split<'p>(
        &self,
        rows: &mut [Ciphertext<A>],
        source: impl Fn(usize) -> [Option<&'p Polynomial<A, Evaluations>>; 2] + Sync,
    ) -> Result<(), Error>
    where
        A: 'p,
    {
        let accelerator = self.evaluator.accelerator();
        accelerator.for_each(rows, |f, row| {
            for (part, source) in row.parts.iter_mut().zip(source(f)) {
                let Some(source) = source else { continue };
                let (basis, limbs) = (source.basis(), part.limbs_mut());
                accelerator.copy(limbs, source.limbs())?;
                accelerator.ntt_inverse(basis, limbs)?;
                accelerator.ntt_partial(basis, limbs, self.lanes.width)?;
            }
            Ok::<(), Error>(())
        })
    }

    /// Part `into` of row t of `out` is Σ_f L\[t, f\]·right\[f\], for L's columns in
    /// the split form and part `l` of `left`, and part `r` of `right`.
    pub(super) fn multiply(
        &self,
        left: &[Ciphertext<A>],
        l: usize,
        right: &[Ciphertext<A>],
        r: usize,
        out: &mut [Ciphertext<A>],
        into: usize,
    ) -> Result<(), Error> {
        let basis = left[0].parts[l].basis();
        let left: heapless::Vec<&[A::Limb], MAX_CONTRACTION> =
            left.iter().map(|row| row.parts[l].limbs()).collect();
        let right: heapless::Vec<&[A::Limb], MAX_CONTRACTION> =
            right.iter().map(|row| row.parts[r].limbs()).collect();
        let mut out: heapless::Vec<&mut [A::Limb], MAX_WIDTH> =
            out.iter_mut().map(|row| row.parts[into].limbs_mut()).collect();
        let accelerator = self.evaluator.accelerator();
        Ok(accelerator.block_products(basis, self.lanes.width, &left, &right, &mut out)?)
    }

    /// Switches σ_t of the rows (0, x₀) and (0, x₁) of `rows`. The first gives
    /// (u₀, u₁), the second, one power of the secret higher, (v₀, v₁): left in
    /// `rows` are (u₀, u₁ + v₀), in `squares` v₁.
    fn conjugate_both(&self, rows: &mut [Ciphertext<A>], squares: &mut [Ciphertext<A>]) -> Result<(), Error> {
        let accelerator = self.evaluator.accelerator();
        let mut pairs: heapless::Vec<(Row<'_, A>, Row<'_, A>), MAX_WIDTH> =
            rows.iter_mut().zip(squares).collect();
        accelerator.for_each(&mut pairs, |position, (row, square)| {
            let ([x0, x1], [v1, _]) = (&mut row.parts, &mut square.parts);
            let galois = self.lanes.galois(self.lanes.conjugate(position));
            if galois == 1 {
                mem::swap(v1, x1);
                mem::swap(x0, x1);
                return Ok(accelerator.clear(x0.limbs_mut())?);
            }
            let key = KeyId::Galois(galois as u32);
            let [first, mut middle] = self.evaluator.key_switch(key, x0)?;
            let [second, last] = self.evaluator.key_switch(key, x1)?;
            middle.add_assign(accelerator, &second)?;
            self.divide_and_map(x0, first, galois)?;
            self.divide_and_map(x1, middle, galois)?;
            self.divide_and_map(v1, last, galois)
        })
    }

    /// out + sums + squares·s², divided by P and q_level.
    fn relinearise(
        &self,
        out: &mut [Ciphertext<A>],
        sums: &[Ciphertext<A>],
        squares: &[Ciphertext<A>],
        level: usize,
    ) -> Result<(), Error> {
        let accelerator = self.evaluator.accelerator();
        accelerator.for_each(out, |t, row| {
            for (part, sum) in row.parts.iter_mut().zip(&sums[t].parts) {
                part.add_assign(accelerator, sum)?;
            }
            let switched = self.evaluator.key_switch(KeyId::Relinearization, &squares[t].parts[0])?;
            let [d0, d1] = &row.parts;
            *row = self.evaluator.divide_add(switched, Basis::level(level - 1), [Some(d0), Some(d1)])?;
            Ok::<(), Error>(())
        })
    }
}
