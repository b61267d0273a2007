//! Products with encrypted vectors: the factors of LoRA, the head, their gradients.
//!
//! A vector has a scalar for every row of a matrix. Times X^(−i) at row i of its ciphertext (*gathering*), its
//! product with the matrix has Σ_i v_i·row_i as row 0; times X^i (*scattering*), its product with one row y(Y)
//! has v_i·y as row i. Products are summed up before they pay for one key switch.

use super::{EncryptedMatrix, Entries, Error, Layout, SmallRing};
use crate::accel::{Accelerator, digits};
use crate::ckks::server::MAX_TERMS;
use crate::ckks::{self, Ciphertext, KeyId, KeyRequests, KeySource, Parameters};
use crate::ring::Basis;
use crate::ring::sampling::ERROR_DEVIATION;

/// What a vector is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Side {
    /// To contract the rows of a matrix.
    Gather,
    /// To make rows from one row.
    Scatter,
}

impl core::fmt::Display for Side {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Gather => "gather",
            Self::Scatter => "scatter",
        })
    }
}

impl Side {
    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Gather => Self::Scatter,
            Self::Scatter => Self::Gather,
        }
    }

    /// Where the scalar of `row` lies: its ciphertext, its coefficient, and whether it is negated there.
    pub fn position(self, degree: usize, layout: &Layout, row: usize) -> (usize, usize, bool) {
        let (ciphertext, at) = layout.position(row, 0);
        match self {
            Self::Gather if at > 0 => (ciphertext, degree - at, true),
            Self::Gather | Self::Scatter => (ciphertext, at, false),
        }
    }
}

/// An encrypted vector of scalars, one for every row of a layout.
pub struct EncryptedVector<S> {
    side: Side,
    entries: Entries,
    ciphertexts: S,
}

impl<S> EncryptedVector<S> {
    /// From its ciphertexts; the layout of `entries` has the rows of the matrix it multiplies, whatever its columns,
    /// and `noise` is that of all coefficients, of use or not.
    ///
    /// # Errors
    /// [`Error::Room`] when there are not as many as the layout says.
    pub fn new<A: Accelerator>(side: Side, entries: Entries, ciphertexts: S) -> Result<Self, Error>
    where
        S: AsRef<[Ciphertext<A>]>,
    {
        let (have, need) = (ciphertexts.as_ref().len(), entries.layout.ciphertexts());
        if have == need { Ok(Self { side, entries, ciphertexts }) } else { Err(Error::Room { have, need }) }
    }

    /// A matrix of one column, for [`Side::Scatter`]: where its entries lie is where scalars do, so that this is no work.
    /// [`SmallRing::turn`] makes it one for the other side.
    ///
    /// # Errors
    /// [`Error::Shape`] for more columns.
    pub fn from_column<A: Accelerator>(x: EncryptedMatrix<S>) -> Result<Self, Error>
    where
        S: AsRef<[Ciphertext<A>]>,
    {
        let (entries, layout) = (*x.entries(), x.entries().layout);
        if layout.columns() != 1 {
            return Err(Error::Shape { have: layout.shape(), need: (layout.rows(), 1) });
        }
        Self::new(Side::Scatter, entries, x.into_ciphertexts())
    }

    /// What it is for.
    pub fn side(&self) -> Side {
        self.side
    }

    /// Layout, scale, bound and noise.
    pub fn entries(&self) -> &Entries {
        &self.entries
    }

    /// The ciphertexts.
    pub fn ciphertexts(&self) -> &S {
        &self.ciphertexts
    }

    pub(super) fn check<A: Accelerator>(&self, side: Side, layout: &Layout) -> Result<&[Ciphertext<A>], Error>
    where
        S: AsRef<[Ciphertext<A>]>,
    {
        if self.side != side {
            return Err(Error::Side { have: self.side, need: side });
        }
        let own = self.entries.layout;
        if (own.rows(), own.rank()) != (layout.rows(), layout.rank()) {
            return Err(Error::Shape { have: own.shape(), need: layout.shape() });
        }
        Ok(self.ciphertexts.as_ref())
    }
}

/// One row y(Y), and nothing else in its ciphertext.
pub struct EncryptedRow<A: Accelerator> {
    entries: Entries,
    ciphertext: Ciphertext<A>,
}

impl<A: Accelerator> EncryptedVector<[Ciphertext<A>; 1]> {
    pub(super) fn only(&self, side: Side, layout: &Layout) -> Result<&Ciphertext<A>, Error> {
        self.check(side, layout)?;
        Ok(&self.ciphertexts[0])
    }

    pub(super) fn only_mut(&mut self) -> &mut Ciphertext<A> {
        let [ciphertext] = &mut self.ciphertexts;
        ciphertext
    }
}

impl<A: Accelerator> EncryptedRow<A> {
    pub(super) fn new(entries: Entries, ciphertext: Ciphertext<A>) -> Self {
        Self { entries, ciphertext }
    }

    pub(super) fn ciphertext_mut(&mut self) -> &mut Ciphertext<A> {
        &mut self.ciphertext
    }

    /// From a matrix of one row, whose ciphertext has nothing else in it.
    ///
    /// # Errors
    /// [`Error::Shape`] for more rows.
    pub fn from_row(x: EncryptedMatrix<[Ciphertext<A>; 1]>) -> Result<Self, Error> {
        let (entries, have) = (*x.entries(), x.entries().layout.shape());
        if have.0 != 1 {
            return Err(Error::Shape { have, need: (1, have.1) });
        }
        let [ciphertext] = x.into_ciphertexts();
        Ok(Self { entries, ciphertext })
    }

    /// Layout (of one row), scale, bound and noise.
    pub fn entries(&self) -> &Entries {
        &self.entries
    }

    /// The ciphertext.
    pub fn ciphertext(&self) -> &Ciphertext<A> {
        &self.ciphertext
    }
}

impl<A: Accelerator, K: KeySource<A> + ?Sized> SmallRing<'_, A, K> {
    /// The keys of [`SmallRing::gather`], [`SmallRing::scatter`] and [`SmallRing::outer`] on operands at `level`.
    ///
    /// # Errors
    /// [`ckks::Error::Full`].
    pub fn thin_keys(
        parameters: &Parameters,
        log_rank: u32,
        level: usize,
        keys: &mut KeyRequests,
    ) -> Result<(), ckks::Error> {
        keys.add(KeyId::Relinearization, level)?;
        keys.add(KeyId::conjugation(parameters), level)?;
        let degree = parameters.degree();
        projections(degree, log_rank).try_for_each(|g| keys.add(KeyId::Galois(g as u32), level))
    }

    /// Σ_i v_i·(row i of x), one level below. `bound` is the largest entry that the result can have, as calibration
    /// knows it: the worst case is far from it.
    ///
    /// # Errors
    /// [`Error::Side`], [`Error::Shape`], [`Error::Overflow`]; [`ckks::Error::Level`], [`ckks::Error::LevelsExhausted`],
    /// [`ckks::Error::MissingKey`].
    pub fn gather<S, V>(
        &self,
        v: &EncryptedVector<V>,
        x: &EncryptedMatrix<S>,
        bound: f64,
    ) -> Result<EncryptedRow<A>, Error>
    where
        S: AsRef<[Ciphertext<A>]>,
        V: AsRef<[Ciphertext<A>]>,
    {
        let layout = x.entries().layout;
        let pairs = v.check(Side::Gather, &layout)?.iter().zip(x.ciphertexts().as_ref());
        let (sum, level) = self.sum_of_products(pairs)?;
        let (rows, columns) = (layout.rows() as f64, layout.columns() as f64);
        let entries = self.predict_product(&v.entries, x.entries(), level, [rows * columns, rows], bound)?;
        let ciphertext = self.first_row(sum, layout.log_rank())?;
        // Of the switches of the projection the first is doubled most often.
        let noise = libm::hypot(entries.noise, self.switch_noise(level - 1) * layout.rank() as f64);
        Ok(EncryptedRow { entries: Entries { layout: layout.with_rows(1)?, noise, ..entries }, ciphertext })
    }

    /// Σ_r v_r ⊗ y_r: row i is Σ_r (v_r)_i·y_r, one level below and within `bound`. `out` has a place for every ciphertext.
    ///
    /// # Errors
    /// As [`SmallRing::gather`]; [`Error::Room`].
    pub fn scatter<V: AsRef<[Ciphertext<A>]> + Sync>(
        &self,
        terms: &[(&EncryptedVector<V>, &EncryptedRow<A>)],
        bound: f64,
        out: &mut [Option<Ciphertext<A>>],
    ) -> Result<Entries, Error> {
        let (first, row) = terms.first().ok_or(Error::Room { have: 0, need: 1 })?;
        let layout = row.entries.layout.with_rows(first.entries.layout.rows())?;
        let (have, need) = (out.len(), layout.ciphertexts());
        let out = out.get_mut(..need).ok_or(Error::Room { have, need })?;
        for (vector, other) in terms {
            vector.check(Side::Scatter, &layout)?;
            if other.entries.layout != row.entries.layout {
                return Err(Error::Shape { have: other.entries.layout.shape(), need: (1, layout.columns()) });
            }
        }
        let level = row.ciphertext.level();
        let (count, columns) = (terms.len() as f64, layout.columns() as f64);
        let meets = [count * columns, count];
        let entries = self.predict_product(&first.entries, &row.entries, level, meets, bound)?;
        self.evaluator().accelerator().for_each(out, |c, out| -> Result<(), Error> {
            let pairs = terms.iter().map(|(v, y)| (&v.ciphertexts.as_ref()[c], &y.ciphertext));
            *out = Some(self.sum_of_products(pairs)?.0);
            Ok(())
        })?;
        Ok(Entries { layout, ..entries })
    }

    /// x·yᵀ, the contraction over the columns of both: scalar i at the place that [`Side::Scatter`] says, one
    /// level below and within `bound`. The other coefficients hold nothing of use, and are as large. `out` has a place for every ciphertext.
    ///
    /// # Errors
    /// As [`SmallRing::scatter`].
    pub fn outer<S: AsRef<[Ciphertext<A>]> + Sync>(
        &self,
        x: &EncryptedMatrix<S>,
        y: &EncryptedRow<A>,
        bound: f64,
        out: &mut [Option<Ciphertext<A>>],
    ) -> Result<Entries, Error> {
        let (ev, layout) = (self.evaluator(), x.entries().layout);
        if y.entries.layout != layout.with_rows(1)? {
            return Err(Error::Shape { have: y.entries.layout.shape(), need: (1, layout.columns()) });
        }
        let (have, need) = (out.len(), layout.ciphertexts());
        let out = out.get_mut(..need).ok_or(Error::Room { have, need })?;
        // y(1/Y): the products of equal powers meet at Y⁰.
        let turned = ev.conjugate(&y.ciphertext)?;
        let level = turned.level();
        let columns = layout.columns() as f64;
        let entries = self.predict_product(x.entries(), &y.entries, level, [columns; 2], bound)?;
        let ciphertexts = x.ciphertexts().as_ref();
        ev.accelerator().for_each(out, |c, out| -> Result<(), Error> {
            *out = Some(self.sum_of_products([(&ciphertexts[c], &turned)].into_iter())?.0);
            Ok(())
        })?;
        Ok(entries)
    }

    /// The ciphertexts of the same vector for the [`Side::other`] side, by X → 1/X: a key switch for each, and a place for
    /// each in `out`.
    ///
    /// # Errors
    /// [`Error::Room`]; [`ckks::Error::MissingKey`].
    pub fn turn<V: AsRef<[Ciphertext<A>]> + Sync>(
        &self,
        v: &EncryptedVector<V>,
        out: &mut [Option<Ciphertext<A>>],
    ) -> Result<Entries, Error> {
        let (ev, ciphertexts) = (self.evaluator(), v.ciphertexts.as_ref());
        if out.len() != ciphertexts.len() {
            return Err(Error::Room { have: out.len(), need: ciphertexts.len() });
        }
        ev.accelerator().for_each(out, |c, out| -> Result<(), Error> {
            *out = Some(ev.conjugate(&ciphertexts[c])?);
            Ok(())
        })?;
        let level = ciphertexts.iter().map(Ciphertext::level).max().unwrap_or(0);
        Ok(Entries { noise: libm::hypot(v.entries.noise, self.switch_noise(level)), ..v.entries })
    }

    /// Σ x·y, relinearised and rescaled once, and the level of the operands.
    fn sum_of_products<'c>(
        &self,
        mut pairs: impl Iterator<Item = (&'c Ciphertext<A>, &'c Ciphertext<A>)>,
    ) -> Result<(Ciphertext<A>, usize), Error>
    where
        A: 'c,
    {
        let ev = self.evaluator();
        let (x, y) = pairs.next().ok_or(Error::Room { have: 0, need: 1 })?;
        let mut sum = ev.multiply(x, y)?;
        loop {
            let together: heapless::Vec<_, MAX_TERMS> = pairs.by_ref().take(MAX_TERMS).collect();
            if together.is_empty() {
                break;
            }
            ev.multiply_pairs_add(&mut sum, &together)?;
        }
        let level = sum.level();
        Ok((ev.rescale(sum)?, level))
    }

    /// Row 0, the others erased: the trace down to polynomials in Y, times 1/k. The factor goes in first, modulo q,
    /// so that it touches no noise but that of the key switches.
    fn first_row(&self, mut x: Ciphertext<A>, log_rank: u32) -> Result<Ciphertext<A>, Error> {
        let ev = self.evaluator();
        ev.divide_exactly(&mut x, 1 << log_rank)?;
        for galois in projections(ev.parameters().degree(), log_rank) {
            let image = ev.automorphism(&x, galois)?;
            ev.add_assign(&mut x, &image)?;
        }
        Ok(x)
    }

    /// Standard deviation of what a key switch at `level` adds: the errors of the key times the digits, over P, and
    /// the rounding of that division.
    pub(super) fn switch_noise(&self, level: usize) -> f64 {
        let parameters = self.evaluator().parameters();
        let n = parameters.degree() as f64;
        let product = |basis| parameters.chain().of(basis).map(|m| m.value() as f64).product::<f64>();
        let special = product(Basis::new(0, 0, parameters.chain().special()));
        let squares =
            digits(Basis::level(level), parameters.digit_size()).map(|digit| product(digit) / special);
        let squares: f64 = squares.map(|ratio| ratio * ratio).sum();
        libm::sqrt(ERROR_DEVIATION * ERROR_DEVIATION * n * squares / 12.0 + n / 18.0)
    }

    /// Scale, bound and noise of a sum of products of entries at `level`, rescaled: `meets` is how many entries of y
    /// meet the noise of x in a coefficient of the sum, and how many of x that of y.
    pub(super) fn predict_product(
        &self,
        x: &Entries,
        y: &Entries,
        level: usize,
        meets: [f64; 2],
        bound: f64,
    ) -> Result<Entries, Error> {
        let parameters = self.evaluator().parameters();
        if level == 0 {
            return Err(ckks::Error::LevelsExhausted { have: 0, need: 1 }.into());
        }
        let q = parameters.chain().moduli()[level].value() as f64;
        let noise = libm::hypot(
            x.noise * y.scale * y.bound * libm::sqrt(meets[0]),
            y.noise * x.scale * x.bound * libm::sqrt(meets[1]),
        );
        let product = Entries { scale: x.scale * y.scale, bound, noise, ..*x };
        product.check(parameters, level)?;
        let rounding = libm::sqrt(parameters.degree() as f64 / 18.0);
        let result = Entries { scale: product.scale / q, noise: libm::hypot(noise / q, rounding), ..product };
        result.check(parameters, level - 1)?;
        Ok(result)
    }
}

/// X → X^(N/2^s + 1), s below `log_rank`: each keeps the exponents that are multiples of 2^(s+1), and turns the sign
/// of the other multiples of 2^s.
pub(super) fn projections(
    degree: usize,
    log_rank: u32,
) -> impl DoubleEndedIterator<Item = usize> + ExactSizeIterator {
    (0..log_rank as usize).map(move |s| (degree >> s) + 1)
}
