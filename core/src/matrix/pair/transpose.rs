//! Transposes, and products with weights from the right: what contracts or exchanges columns.
//!
//! Column t for [`Side::Gather`] is Σ_i X^(−i)·x_{i,t}: times Σ_i X^i·Y^i it has Σ_i x_{i,t}·Y^i as row 0, which is
//! row t of the transpose. Column t for [`Side::Scatter`], times a row w_t(Y) of weights, has x_{i,t}·w_t as row i.
//! Neither needs a key beyond those of [`PairEvaluator::columns`] and [`PairEvaluator::pick`].

use super::super::{EncryptedMatrix, Entries, Error, Layout, Side};
use super::{Columns, PairEvaluator};
use crate::accel::{Accelerator, Evaluations, Polynomial};
use crate::ckks::{self, Ciphertext, KeySource};
use crate::ring::{Basis, MAX_LIMBS};

impl<A: Accelerator, K: KeySource<A> + ?Sized> PairEvaluator<'_, '_, A, K> {
    /// Xᵀ at the level and T times the scale of X, which is given by the columns (for [`Side::Gather`]) of its
    /// ciphertexts: `blocks[b][t]` is column t of the rows from b·k on. `out` has a place for every ciphertext of as many
    /// rows as there are columns, `work` is k ciphertexts whose content is lost.
    ///
    /// # Errors
    /// Those of [`PairEvaluator::transposed_rows`]; [`ckks::Error::MissingKey`].
    pub fn transpose(
        &self,
        blocks: &[&Columns<A>],
        work: &mut [Ciphertext<A>],
        out: &mut [Option<Ciphertext<A>>],
    ) -> Result<Entries, Error> {
        let layout = self.transposed_layout(blocks)?;
        let (have, need) = (out.len(), layout.ciphertexts());
        if have != need {
            return Err(Error::Room { have, need });
        }
        let (rows, rank) = (layout.rows(), layout.rank());
        if work.len() != rank {
            return Err(Error::Room { have: work.len(), need: rank });
        }
        let mut entries = *blocks[0][0].entries();
        for (i, out) in out.iter_mut().enumerate() {
            let work = &mut work[..rank.min(rows - i * rank)];
            entries = self.transposed_rows(blocks, i * rank, work)?;
            let packed = self.pick(&entries, work)?;
            entries = *packed.entries();
            let [packed] = packed.into_ciphertexts();
            *out = Some(packed);
        }
        Ok(Entries { layout, ..entries })
    }

    /// Row `first` + i of Xᵀ as row 0 of `out[i]`, whose other rows hold nothing of use: rows for
    /// [`PairEvaluator::pick`].
    ///
    /// # Errors
    /// [`Error::Room`] without blocks or columns, or where there are not as many; [`Error::Columns`] when X has more
    /// than T rows; [`Error::Side`], [`Error::Shape`]; [`ckks::Error::Level`].
    pub fn transposed_rows(
        &self,
        blocks: &[&Columns<A>],
        first: usize,
        out: &mut [Ciphertext<A>],
    ) -> Result<Entries, Error> {
        let (ev, layout) = (self.ring.evaluator(), self.transposed_layout(blocks)?);
        let (have, need) = (layout.rows(), first.saturating_add(out.len()));
        if have < need || out.is_empty() {
            return Err(Error::Room { have, need });
        }
        let (entries, rank) = (blocks[0][first].entries(), layout.rank());
        let level = blocks[0][first].only(Side::Gather, &entries.layout)?.level();
        let diagonal = self.geometric(rank + 1, rank, level)?;
        ev.accelerator().for_each(out, |i, row| -> Result<(), Error> {
            let mut sum: Option<Ciphertext<A>> = None;
            for (b, columns) in blocks.iter().enumerate() {
                let column = &columns[first + i];
                let mut term =
                    column.only(Side::Gather, &column.entries().layout)?.duplicate(ev.accelerator())?;
                self.shift(&mut term, b * rank * rank)?;
                match &mut sum {
                    Some(sum) => ev.add_assign(sum, &term)?,
                    None => sum = Some(term),
                }
            }
            let mut sum = sum.ok_or(Error::Room { have: 0, need: 1 })?;
            if sum.level() != level {
                return Err(ckks::Error::Level { have: sum.level(), need: level }.into());
            }
            for part in &mut sum.parts {
                part.multiply_assign(ev.accelerator(), &diagonal)?;
            }
            *row = sum;
            Ok(())
        })?;
        let noise = entries.noise * libm::sqrt((rank * blocks.len()) as f64);
        Ok(Entries { layout: layout.with_rows(out.len())?, noise, ..*entries })
    }

    /// X·W for one ciphertext of X, given by its columns (for [`Side::Scatter`]), and weights w(t, u) for as many rows as
    /// there are columns and for `outputs` columns: one level below, at a scale close to `scale` and within `bound`, packed
    /// as X is. No key is needed. `signed` is scratch of N' words.
    ///
    /// # Errors
    /// [`Error::Weights`]; [`Error::Columns`] beyond T; [`Error::Side`], [`Error::Room`], [`Error::Overflow`];
    /// [`ckks::Error::LevelsExhausted`], [`ckks::Error::Level`].
    pub fn multiply_right(
        &self,
        columns: &Columns<A>,
        outputs: usize,
        w: impl Fn(usize, usize) -> f64,
        scale: f64,
        bound: f64,
        signed: &mut [i64],
    ) -> Result<EncryptedMatrix<[Ciphertext<A>; 1]>, Error> {
        let (ev, degree) = (self.ring.evaluator(), self.degree());
        let entries = columns.first().ok_or(Error::Room { have: 0, need: 1 })?.entries();
        let layout = entries.layout.with_shape(degree, entries.layout.rows(), outputs)?;
        let (have, need) = (signed.len(), degree);
        if have != need {
            return Err(Error::Room { have, need });
        }
        let level = columns[0].only(Side::Scatter, &entries.layout)?.level();
        let mut sum = ev.product(level)?;
        let parameters = ev.parameters();
        let q = parameters.chain().moduli()[level].value() as f64;
        let weight_scale = scale * q / entries.scale;
        let (mut squares, basis) = (0.0, Basis::level(level));
        for (t, column) in columns.iter().enumerate() {
            let column = column.only(Side::Scatter, &entries.layout)?;
            signed.fill(0);
            for (u, at) in signed.iter_mut().step_by(layout.rank()).take(outputs).enumerate() {
                let weight = w(t, u) * weight_scale;
                if weight.is_nan() || weight.abs() >= MAX_WEIGHT {
                    return Err(Error::Weights);
                }
                squares += weight * weight;
                *at = libm::round(weight) as i64;
            }
            let row = Polynomial::from_signed(ev.accelerator(), basis, signed)?;
            let row = row.into_evaluations(ev.accelerator())?;
            for (sum, part) in sum.parts.iter_mut().zip(column.parts()) {
                sum.multiply_add(ev.accelerator(), part, &row)?;
            }
        }
        let noise = entries.noise * libm::sqrt(squares);
        let product = Entries { layout, scale: entries.scale * weight_scale, bound, noise };
        product.check(parameters, level)?;
        // Weights are rounded to integers; the rescaling rounds mask and body.
        let weights = entries.scale * entries.bound * libm::sqrt(columns.len() as f64 / 12.0) / q;
        let own = libm::hypot(weights, libm::sqrt(degree as f64 / 18.0));
        let result = Entries { scale: product.scale / q, noise: libm::hypot(noise / q, own), ..product };
        result.check(parameters, level - 1)?;
        EncryptedMatrix::new(result, [ev.rescale(sum)?])
    }

    /// The layout of the transpose.
    fn transposed_layout(&self, blocks: &[&Columns<A>]) -> Result<Layout, Error> {
        let empty = Error::Room { have: 0, need: 1 };
        let (first, last) = (blocks.first().ok_or(empty)?, blocks.last().ok_or(empty)?);
        if let Some(other) = blocks.iter().find(|b| b.len() != first.len()) {
            return Err(Error::Room { have: other.len(), need: first.len() });
        }
        let layout = last.first().ok_or(empty)?.entries().layout;
        layout.with_shape(self.degree(), first.len(), (blocks.len() - 1) * layout.rank() + layout.rows())
    }

    /// Σ X^(step·i), i below `count`, a power of two: the product of 1 + X^(step·2^j).
    pub(super) fn geometric(
        &self,
        step: usize,
        count: usize,
        level: usize,
    ) -> Result<Polynomial<A, Evaluations>, Error> {
        let (accelerator, basis) = (self.ring.evaluator().accelerator(), Basis::level(level));
        let mut sum = Polynomial::zero(accelerator, basis)?;
        accelerator.add_scalar_assign(basis, sum.limbs_mut(), &[1; MAX_LIMBS][..basis.len()])?;
        for j in 0..count.trailing_zeros() {
            let mut shifted = self.monomial((step << j) % (2 * self.degree()), level)?;
            shifted.multiply_assign(accelerator, &sum)?;
            sum.add_assign(accelerator, &shifted)?;
        }
        Ok(sum)
    }
}

/// Integers stay below this in magnitude.
const MAX_WEIGHT: f64 = (1u64 << 62) as f64;
