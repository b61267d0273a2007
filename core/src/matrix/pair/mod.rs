//! Products of two packed matrices, such as those that projections leave: no lanes, no bootstrap in between.
//!
//! With Y = X^k, a ciphertext is Σ_i X^i·x_i(Y), row i with its T = N'/k columns as coefficients. Two steps make
//! outer products of rows with columns out of products of ciphertexts:
//!
//! - [`PairEvaluator::split`] gives every row a ciphertext of its own, x_i(Y);
//! - [`PairEvaluator::columns`] gives every column one, Σ_i X^(±i)·x_{i,t}: with W_h = Σ_i X^(±ih)·x_i and σ the
//!   inverse of X → X^h, σ(W_h) = Σ_i X^(±i)·x_i(Y^g) with g·h = 1, for h = 1, 3, … 2T − 1, and
//!   Σ_g Y^(−gt)·x_i(Y^g) = T·x_{i,t}.
//!
//! Then L·R is Σ_t (column t of L)·(row t of R), packed as its factors are and relinearised once for all terms
//! ([`SmallRing::scatter`]), and Lᵀ·R has (column t of L)·R as row t ([`PairEvaluator::row_products`]), once row 0 of
//! these is picked ([`PairEvaluator::pick`]); likewise the exponents of a Gaussian kernel ([`PairEvaluator::exponents`])
//! and the rows of a transpose ([`PairEvaluator::transpose`]). Two matrices side by side are no work where their rows
//! were put into halves of the same ciphertexts ([`super::Layout::interleaved`]).

mod gaussian;
mod product;
mod transpose;

use super::thin::projections;
use super::{EncryptedRow, EncryptedVector, Entries, Error, Side, SmallRing};
use crate::accel::{Accelerator, Evaluations, Polynomial};
use crate::ckks::{self, Ciphertext, KeyId, KeyRequests, KeySource, Parameters, odd_inverse};
use crate::ring::{Basis, bit_reverse};

/// Most rows or columns.
const MAX_ROWS: usize = 1 << 10;
/// log2 of the largest 2N'.
const MAX_POWERS: usize = 18;

/// Columns of a matrix, as [`PairEvaluator::columns`] leaves them.
type Columns<A> = [EncryptedVector<[Ciphertext<A>; 1]>];

type Pairs<'c, A> = heapless::Vec<(&'c mut Ciphertext<A>, &'c mut Ciphertext<A>), { MAX_ROWS / 2 }>;

/// [`SmallRing`] with the monomials that these products multiply by.
pub struct PairEvaluator<'r, 'a, A: Accelerator, K: KeySource<A> + ?Sized> {
    ring: &'r SmallRing<'a, A, K>,
    /// X^(2^i): every other monomial is an image of one.
    powers: heapless::Vec<Polynomial<A, Evaluations>, MAX_POWERS>,
}

impl<'r, 'a, A: Accelerator, K: KeySource<A> + ?Sized> PairEvaluator<'r, 'a, A, K> {
    /// For operands up to `level`. `signed` is scratch of N' words. Keeps (log2 N' + 1)·(level + 1) limbs.
    ///
    /// # Errors
    /// [`Error::Room`] for another length of scratch; out of limbs.
    pub fn new(ring: &'r SmallRing<'a, A, K>, level: usize, signed: &mut [i64]) -> Result<Self, Error> {
        let accelerator = ring.evaluator().accelerator();
        let (have, need) = (signed.len(), accelerator.chain().degree());
        if have != need {
            return Err(Error::Room { have, need });
        }
        let mut powers = heapless::Vec::new();
        for i in 0..=need.trailing_zeros() {
            signed.fill(0);
            // X^N' is −1.
            signed[(1 << i) % need] = if 1 << i == need { -1 } else { 1 };
            let power = Polynomial::from_signed(accelerator, Basis::level(level), signed)?;
            // Not full: a degree is 2^17 at most.
            let _ = powers.push(power.into_evaluations(accelerator)?);
        }
        Ok(Self { ring, powers })
    }

    /// The keys of all products of operands of rank 2^`log_rank` at `level`.
    ///
    /// # Errors
    /// [`ckks::Error::Full`].
    pub fn required_keys(
        parameters: &Parameters,
        log_rank: u32,
        level: usize,
        keys: &mut KeyRequests,
    ) -> Result<(), ckks::Error> {
        SmallRing::<A, K>::thin_keys(parameters, log_rank, level, keys)?;
        let degree = parameters.degree();
        let mut turns = (0..degree >> log_rank).map(|a| odd_inverse(2 * a + 1, 2 * degree));
        turns.try_for_each(|g| keys.add(KeyId::Galois(g as u32), level))
    }

    /// The first rows of one ciphertext, each in a ciphertext of its own, as many as `out` has places, at most k: k − 1 key
    /// switches for all of them, for fewer only those that lead to one.
    ///
    /// # Errors
    /// [`Error::Room`]; [`ckks::Error::MissingKey`].
    pub fn split(
        &self,
        x: &Ciphertext<A>,
        entries: &Entries,
        out: &mut [Option<EncryptedRow<A>>],
    ) -> Result<(), Error> {
        self.split_every(1, x, entries, out)
    }

    /// Only rows 0, `stride`, 2·`stride` … of one ciphertext: log2 `stride` key switches more, to erase what lies between.
    /// `stride` is a power of two, `out` has at most k/`stride` places.
    ///
    /// # Errors
    /// As [`PairEvaluator::split`].
    pub fn split_every(
        &self,
        stride: usize,
        x: &Ciphertext<A>,
        entries: &Entries,
        out: &mut [Option<EncryptedRow<A>>],
    ) -> Result<(), Error> {
        let (ev, log_rank, rank) = (self.ring.evaluator(), entries.layout.log_rank(), entries.layout.rank());
        let (have, need) = (out.len(), rank.checked_div(stride).unwrap_or(0).min(MAX_ROWS));
        if have == 0 || have > need || !stride.is_power_of_two() {
            return Err(Error::Room { have, need });
        }
        let mut first = x.duplicate(ev.accelerator())?;
        ev.divide_exactly(&mut first, rank)?;
        let (skipped, noise) = (stride.trailing_zeros() as usize, self.noise(entries, x.level()));
        for galois in projections(self.degree(), log_rank).take(skipped) {
            let image = ev.automorphism(&first, galois)?;
            ev.add_assign(&mut first, &image)?;
        }
        let row = Entries { layout: entries.layout.with_rows(1)?, noise, ..*entries };
        out[0] = Some(EncryptedRow::new(row, first));
        for (s, galois) in projections(self.degree(), log_rank).enumerate().skip(skipped) {
            let (even, odd) = out.split_at_mut(have.min(1 << (s - skipped)));
            let mut odd = odd.iter_mut();
            let mut nodes: heapless::Vec<_, MAX_ROWS> =
                even.iter_mut().map(|even| (even, odd.next())).collect();
            ev.accelerator().for_each(&mut nodes, |_, (even, odd)| -> Result<(), Error> {
                let Some(even) = even else { return Ok(()) };
                let image = ev.automorphism(even.ciphertext(), galois)?;
                if let Some(odd) = odd {
                    let mut rest = even.ciphertext().duplicate(ev.accelerator())?;
                    ev.sub_assign(&mut rest, &image)?;
                    self.shift(&mut rest, 2 * self.degree() - (1 << s))?;
                    **odd = Some(EncryptedRow::new(row, rest));
                }
                ev.add_assign(even.ciphertext_mut(), &image)?;
                Ok(())
            })?;
        }
        Ok(())
    }

    /// The columns of `rows`, which are as [`PairEvaluator::split`] leaves them, at most k: one vector for each,
    /// for what `side` says, at T times the scale: on the rows' own noise, which is no polynomial in Y, the map is no
    /// multiple of T that could be divided by first. T key switches. `out` has T places. The noise it is said to have
    /// is that of all coefficients: those of no use meet what the vector is multiplied by as well.
    ///
    /// # Errors
    /// [`Error::Room`], [`Error::Overflow`]; [`ckks::Error::Level`], [`ckks::Error::MissingKey`].
    pub fn columns(
        &self,
        rows: &[EncryptedRow<A>],
        side: Side,
        out: &mut [Option<EncryptedVector<[Ciphertext<A>; 1]>>],
    ) -> Result<(), Error> {
        let ev = self.ring.evaluator();
        let first = rows.first().ok_or(Error::Room { have: 0, need: 1 })?;
        let (layout, level, degree) = (first.entries().layout, first.ciphertext().level(), self.degree());
        let columns = degree / layout.rank();
        if rows.len() > layout.rank() || out.len() != columns || columns > MAX_ROWS {
            return Err(Error::Room { have: out.len(), need: columns.min(MAX_ROWS) });
        }
        let (count, terms) = (columns as f64, (columns * rows.len()) as f64 / layout.rank() as f64);
        let entries = Entries {
            layout: layout.with_rows(rows.len())?,
            scale: first.entries().scale * count,
            noise: libm::hypot(
                first.entries().noise * libm::sqrt(terms),
                self.ring.switch_noise(level) * libm::sqrt(count),
            ),
            ..*first.entries()
        };
        entries.check(ev.parameters(), level)?;
        if let Some(row) = rows.iter().find(|row| row.ciphertext().level() != level) {
            return Err(ckks::Error::Level { have: row.ciphertext().level(), need: level }.into());
        }
        for out in &mut *out {
            *out = Some(EncryptedVector::new(side, entries, [Ciphertext::zero(ev.accelerator(), level)?])?);
        }
        let base = self.monomial(if side == Side::Gather { 2 * degree - 1 } else { 1 }, level)?;
        for half in 0..2 {
            // Not full: as many as there are rows, or columns.
            let parts = rows.iter().map(|row| row.ciphertext().parts()[half].limbs());
            let parts: heapless::Vec<&[A::Limb], MAX_ROWS> = parts.collect();
            let sums = out.iter_mut().flatten().map(|out| out.only_mut().parts[half].limbs_mut());
            let mut sums: heapless::Vec<&mut [A::Limb], MAX_ROWS> = sums.collect();
            ev.accelerator().odd_power_sums(Basis::level(level), base.limbs(), &parts, &mut sums)?;
        }
        let mut list: heapless::Vec<&mut Ciphertext<A>, MAX_ROWS> =
            out.iter_mut().flatten().map(EncryptedVector::only_mut).collect();
        ev.accelerator().for_each(&mut list, |a, x| -> Result<(), Error> {
            **x = ev.automorphism(x, odd_inverse(2 * a + 1, 2 * degree))?;
            Ok(())
        })?;
        drop(list);
        for a in 0..columns {
            // In place p of the transform that follows is the image under Y → Y^(2p + 1).
            let p = odd_inverse(2 * a + 1, 2 * columns) / 2;
            if a < p {
                out.swap(a, p);
            }
        }
        let mut list: heapless::Vec<&mut Ciphertext<A>, MAX_ROWS> =
            out.iter_mut().flatten().map(EncryptedVector::only_mut).collect();
        // Σ_p Y^(−(2p + 1)·t)·(place p).
        self.transform(&mut list, 2 * degree - 2 * layout.rank())?;
        ev.accelerator().for_each(&mut list, |t, x| self.shift(x, 2 * degree - layout.rank() * t))
    }

    /// Place p becomes Σ_i X^(exponent·i·p)·(place i), with X^exponent a root of unity of as many as there are places.
    fn transform(&self, places: &mut [&mut Ciphertext<A>], exponent: usize) -> Result<(), Error> {
        let (ev, count, order) = (self.ring.evaluator(), places.len(), 2 * self.degree());
        let mut span = count;
        while span > 1 {
            let half = span / 2;
            let mut pairs: Pairs<'_, A> = heapless::Vec::new();
            for block in places.chunks_exact_mut(span) {
                let (upper, lower) = block.split_at_mut(half);
                // Not full: half as many as there are places.
                pairs.extend(upper.iter_mut().zip(lower).map(|(u, v)| (&mut **u, &mut **v)));
            }
            ev.accelerator().for_each(&mut pairs, |i, (u, v)| -> Result<(), Error> {
                let mut difference = u.duplicate(ev.accelerator())?;
                ev.sub_assign(&mut difference, v)?;
                ev.add_assign(u, v)?;
                self.shift(&mut difference, exponent * (count / span) % order * (i % half) % order)?;
                **v = difference;
                Ok(())
            })?;
            span = half;
        }
        let bits = count.trailing_zeros();
        for i in 0..count {
            let j = bit_reverse(i, bits);
            if i < j {
                let (front, back) = places.split_at_mut(j);
                core::mem::swap(&mut *front[i], &mut *back[0]);
            }
        }
        Ok(())
    }

    /// x·X^exponent.
    fn shift(&self, x: &mut Ciphertext<A>, exponent: usize) -> Result<(), Error> {
        let exponent = exponent % (2 * self.degree());
        if exponent == 0 {
            return Ok(());
        }
        let factor = self.monomial(exponent, x.level())?;
        for part in &mut x.parts {
            part.multiply_assign(self.ring.evaluator().accelerator(), &factor)?;
        }
        Ok(())
    }

    /// X^exponent, not X^0: the image of X^(2^i) under X → X^odd.
    fn monomial(&self, exponent: usize, level: usize) -> Result<Polynomial<A, Evaluations>, Error> {
        let accelerator = self.ring.evaluator().accelerator();
        let i = exponent.trailing_zeros();
        let have = self.powers[0].basis().len() - 1;
        let power = self.powers.get(i as usize).ok_or(ckks::Error::Level { have, need: level })?;
        let (basis, misfit) = (Basis::level(level), ckks::Error::Level { have, need: level });
        let mut image = Polynomial::allocate(accelerator, basis)?;
        let base = power.limbs().get(..basis.len()).ok_or(misfit)?;
        accelerator.automorphism(basis, image.limbs_mut(), base, exponent >> i)?;
        Ok(image)
    }

    /// After the switches of a split, or before those of packing: what the first adds is doubled in all the others.
    fn noise(&self, x: &Entries, level: usize) -> f64 {
        libm::hypot(x.noise, self.ring.switch_noise(level) * x.layout.rank() as f64)
    }

    fn degree(&self) -> usize {
        self.ring.evaluator().parameters().degree()
    }
}
