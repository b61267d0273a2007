//! Lᵀ·R: a row for every column of L, and the rows packed.

use super::super::thin::projections;
use super::super::{EncryptedMatrix, Entries, Error, Side};
use super::{Columns, MAX_ROWS, PairEvaluator};
use crate::accel::Accelerator;
use crate::ckks::{Ciphertext, KeySource};

/// Two ciphertexts that become one; where the second is missing, it is zero.
type Merge<'c, A> = (&'c mut Ciphertext<A>, Option<&'c mut Ciphertext<A>>);

impl<A: Accelerator, K: KeySource<A> + ?Sized> PairEvaluator<'_, '_, A, K> {
    /// Lᵀ·R of packed matrices with the same rows, L given by its columns (for [`Side::Gather`]): row t is
    /// (column t of L)·R, one level below and within `bound`. Columns beyond those that L has are zero. `out` has a
    /// place for every ciphertext of as many rows as there are columns, `work` is k ciphertexts whose content is lost.
    ///
    /// # Errors
    /// Those of [`PairEvaluator::row_products`]; [`crate::ckks::Error::MissingKey`].
    pub fn multiply_transposed<S: AsRef<[Ciphertext<A>]>>(
        &self,
        left: &Columns<A>,
        right: &EncryptedMatrix<S>,
        bound: f64,
        work: &mut [Ciphertext<A>],
        out: &mut [Option<Ciphertext<A>>],
    ) -> Result<Entries, Error> {
        let layout = right.entries().layout;
        let (result, rank) = (layout.with_rows(left.len().max(1))?, layout.rank());
        let (have, need) = (out.len(), result.ciphertexts());
        if have != need || left.is_empty() {
            return Err(Error::Room { have, need });
        }
        if work.len() != rank {
            return Err(Error::Room { have: work.len(), need: rank });
        }
        let mut entries = *right.entries();
        for (group, out) in left.chunks(rank).zip(out) {
            let rows = &mut work[..group.len()];
            entries = self.row_products(group, right, bound, rows)?;
            let packed = self.pick(&entries, rows)?;
            entries = *packed.entries();
            let [packed] = packed.into_ciphertexts();
            *out = Some(packed);
        }
        Ok(Entries { layout: result, ..entries })
    }

    /// (column t of L)·R as row 0 of `out[t]`, whose other rows hold nothing of use, one level below and within
    /// `bound`: rows that [`PairEvaluator::pick`] packs, also with those of other products. R is one ciphertext.
    ///
    /// # Errors
    /// [`Error::Side`], [`Error::Shape`], [`Error::Room`], [`Error::Overflow`]; [`crate::ckks::Error::Level`],
    /// [`crate::ckks::Error::LevelsExhausted`], [`crate::ckks::Error::MissingKey`].
    pub fn row_products<S: AsRef<[Ciphertext<A>]>>(
        &self,
        left: &Columns<A>,
        right: &EncryptedMatrix<S>,
        bound: f64,
        out: &mut [Ciphertext<A>],
    ) -> Result<Entries, Error> {
        let (ev, layout) = (self.ring.evaluator(), right.entries().layout);
        let [right_one] = right.ciphertexts().as_ref() else {
            return Err(Error::Shape { have: layout.shape(), need: (layout.rank(), layout.columns()) });
        };
        let first = left.first().ok_or(Error::Room { have: 0, need: 1 })?;
        if out.len() != left.len() {
            return Err(Error::Room { have: out.len(), need: left.len() });
        }
        let entries = self.predict_rows(first.entries(), right.entries(), right_one.level(), bound)?;
        ev.accelerator().for_each(out, |t, row| -> Result<(), Error> {
            let x = left[t].only(Side::Gather, &layout)?;
            *row = ev.rescale(ev.multiply(x, right_one)?)?;
            Ok(())
        })?;
        Ok(Entries { layout: layout.with_rows(left.len())?, ..entries })
    }

    /// What is known of the rows of a product: every coefficient of R meets the noise of a column.
    pub(super) fn predict_rows(
        &self,
        left: &Entries,
        right: &Entries,
        level: usize,
        bound: f64,
    ) -> Result<Entries, Error> {
        let (rows, columns) = (right.layout.rows() as f64, right.layout.columns() as f64);
        self.ring.predict_product(left, right, level, [rows * columns, rows], bound)
    }

    /// Row 0 of `rows[i]` as row i of one ciphertext, i below k: rows beyond those given are zero. `entries` is what is
    /// known of all of them. k − 1 key switches, or fewer for up to k/4 rows. The content of `rows` is lost.
    ///
    /// The inverse of [`PairEvaluator::split`]: with σ the projection that keeps multiples of 2^(s+1) and turns the sign
    /// of other multiples of 2^s, a + X^(2^s)·b + σ(a − X^(2^s)·b) has twice the former from a and twice the latter
    /// from X^(2^s)·b (Chen, Dai, Kim, Song, ACNS 2021, ePrint 2020/015). The powers of two are divided by first.
    ///
    /// # Errors
    /// [`Error::Room`] for no rows or more than k; [`crate::ckks::Error::Level`], [`crate::ckks::Error::MissingKey`].
    pub fn pick(
        &self,
        entries: &Entries,
        rows: &mut [Ciphertext<A>],
    ) -> Result<EncryptedMatrix<[Ciphertext<A>; 1]>, Error> {
        let (ev, degree, layout) = (self.ring.evaluator(), self.degree(), entries.layout);
        let (have, need) = (rows.len(), layout.rank());
        if have == 0 || have > need {
            return Err(Error::Room { have, need });
        }
        ev.accelerator().for_each(rows, |_, row| ev.divide_exactly(row, need))?;
        let mut left = rows.len();
        for (s, galois) in projections(degree, layout.log_rank()).enumerate().rev() {
            let half = left.min(1 << s);
            let (first, second) = rows[..left].split_at_mut(half);
            let mut second = second.iter_mut();
            let mut merges: heapless::Vec<Merge<'_, A>, { MAX_ROWS / 2 }> =
                first.iter_mut().map(|a| (a, second.next())).collect();
            ev.accelerator().for_each(&mut merges, |_, (a, b)| -> Result<(), Error> {
                let mut difference = a.duplicate(ev.accelerator())?;
                if let Some(b) = b {
                    self.shift(b, 1 << s)?;
                    ev.sub_assign(&mut difference, b)?;
                    ev.add_assign(a, b)?;
                }
                ev.add_assign(a, &ev.automorphism(&difference, galois)?)?;
                Ok(())
            })?;
            left = half;
        }
        let noise = self.noise(entries, rows[0].level());
        let entries = Entries { layout: layout.with_rows(have)?, noise, ..*entries };
        EncryptedMatrix::new(entries, [rows[0].duplicate(ev.accelerator())?])
    }
}
