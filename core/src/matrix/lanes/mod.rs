//! Products of two encrypted matrices, many at once: one in every lane.
//!
//! With N = d·k and Z = X^d, a polynomial is Σ_t X^t·m_t(Z), t < d, with
//! coefficients in ℤ\[Z\]/(Z^k + 1). That ring has k/2 complex *lanes*, the
//! values at Z = exp(iπ(2h + 1)/k), h < k/2: each carries a head or a sequence
//! of its own, here as a real number. A *row* is a ciphertext that holds the d
//! entries of one row of a matrix, for all lanes at once ([`Lanes`]).
//!
//! [`LaneEvaluator::transpose`] exchanges rows and columns, and
//! [`LaneEvaluator::product`] multiplies two matrices (Park, EUROCRYPT 2025;
//! in lanes: ePrint 2025/1957). Both rest on the automorphisms
//! σ_t: X → X^(2kt+1), t < d, which fix Z and map X to X·ζ^t, where ζ = X^(2k)
//! is of order d, if d divides 2k. A transpose takes d − 1 key switches, a
//! product 2(d − 1) and d relinearisations.

mod encode;
mod fourier;
mod product;
#[cfg(all(test, feature = "insecure-toy"))]
mod tests;
mod transpose;

pub use product::MAX_CONTRACTION;

use crate::accel::{Accelerator, Evaluations, Polynomial};
use crate::ckks::server::Evaluator;
use crate::ckks::{Ciphertext, Error, KeyId, KeyRequests, KeySource, ParameterField};
use crate::ring::{Basis, bit_reverse};

/// Most entries of a row.
pub const MAX_WIDTH: usize = 256;
const MIN_WIDTH: usize = 8;

/// How N coefficients are d columns of k/2 lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Lanes {
    degree: usize,
    width: usize,
}

impl Lanes {
    /// Rows of `width` = d entries in a ring of degree `degree` = N, both powers of two.
    ///
    /// # Errors
    /// [`Error::Parameter`] unless N is 2^10 to 2^17, 8 ≤ d ≤ [`MAX_WIDTH`] and d² ≤ 2N.
    pub fn new(degree: usize, width: usize) -> Result<Self, Error> {
        let field = |field, given: usize, min, max: usize, fits: bool| {
            let error = Error::Parameter { field, given: given as u32, min, max: max as u32 };
            if fits { Ok(()) } else { Err(error) }
        };
        let (log_degree, log_width) = (degree.max(1).ilog2(), width.max(1).ilog2());
        let fits = degree.is_power_of_two() && (10..=17).contains(&log_degree);
        field(ParameterField::LogDegree, log_degree as usize, 10, 17, fits)?;
        let max = MAX_WIDTH.min(1 << log_degree.div_ceil(2));
        let fits = width.is_power_of_two() && (MIN_WIDTH..=max).contains(&(1 << log_width));
        field(ParameterField::LaneWidth, width, MIN_WIDTH as u32, max, fits)?;
        Ok(Self { degree, width })
    }

    /// N.
    pub fn degree(&self) -> usize {
        self.degree
    }

    /// d: entries of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// k/2: lanes of an entry.
    pub fn count(&self) -> usize {
        self.degree / self.width / 2
    }

    /// Working rows that a product over `contraction` = F terms takes: d + max(d, F).
    pub fn work_rows(&self, contraction: usize) -> usize {
        self.width + self.width.max(contraction)
    }

    /// 2kt + 1: the automorphism σ_t, t taken modulo d.
    fn galois(&self, t: usize) -> usize {
        2 * (self.degree / self.width) * (t % self.width) + 1
    }

    /// The t whose conjugate is in place `position` of a transformed matrix.
    fn conjugate(&self, position: usize) -> usize {
        bit_reverse(position, self.width.ilog2())
    }

    /// Asks for the keys of a transpose at `level`: of the d − 1 automorphisms
    /// that fix Z. A product needs [`KeyId::Relinearization`] besides.
    ///
    /// # Errors
    /// [`Error::Full`].
    pub fn required_keys(&self, level: usize, requests: &mut KeyRequests) -> Result<(), Error> {
        self.key_ids().try_for_each(|id| requests.add(id, level))
    }

    fn key_ids(self) -> impl Iterator<Item = KeyId> {
        (1..self.width).map(move |t| KeyId::Galois(self.galois(t) as u32))
    }
}

/// An [`Evaluator`] of rows of lanes. Its two operations work on rows at one
/// level, the caller's own or lent by the caller: d rows are up to hundreds of
/// ciphertexts, which do not belong on a stack.
pub struct LaneEvaluator<'e, A: Accelerator, K: KeySource<A> + ?Sized> {
    evaluator: Evaluator<'e, A, K>,
    lanes: Lanes,
    // X^(2^i) for 2^i below d, at the highest level of use.
    powers: heapless::Vec<Polynomial<A, Evaluations>, { MAX_WIDTH.ilog2() as usize }>,
}

impl<'e, A: Accelerator, K: KeySource<A> + ?Sized> LaneEvaluator<'e, A, K> {
    /// For rows up to `level`. `signed` is scratch of N words. Keeps
    /// log2(d)·(level + 1) limbs.
    ///
    /// # Errors
    /// [`Error::Length`] when the scratch or the lanes are of another ring;
    /// [`Error::Level`] above the parameters' top, or out of limbs.
    pub fn new(
        evaluator: Evaluator<'e, A, K>,
        lanes: Lanes,
        level: usize,
        signed: &mut [i64],
    ) -> Result<Self, Error> {
        let (degree, top) = (evaluator.parameters().degree(), evaluator.parameters().top_level());
        if lanes.degree != degree || signed.len() != degree {
            let have = if lanes.degree == degree { signed.len() } else { lanes.degree };
            return Err(Error::Length { have, need: degree });
        }
        if level > top {
            return Err(Error::Level { have: level, need: top });
        }
        let mut powers = heapless::Vec::new();
        for i in 0..lanes.width.ilog2() {
            signed.fill(0);
            signed[1 << i] = 1;
            let power = Polynomial::from_signed(evaluator.accelerator(), Basis::level(level), signed)?;
            // Cannot overflow: the width is at most MAX_WIDTH.
            let _ = powers.push(power.into_evaluations(evaluator.accelerator())?);
        }
        Ok(Self { evaluator, lanes, powers })
    }

    /// The shape of its rows.
    pub fn lanes(&self) -> Lanes {
        self.lanes
    }

    /// The highest level of its rows.
    pub fn level(&self) -> usize {
        self.powers[0].basis().len() - 1
    }

    /// The level of all of `rows`, one that this evaluator works at.
    fn level_of<'r>(&self, mut rows: impl Iterator<Item = &'r Ciphertext<A>>) -> Result<usize, Error>
    where
        A: 'r,
    {
        let level = rows.next().map_or(0, Ciphertext::level);
        if level > self.level() {
            return Err(Error::Level { have: level, need: self.level() });
        }
        match rows.find(|row| row.level() != level) {
            Some(row) => Err(Error::Level { have: row.level(), need: level }),
            None => Ok(level),
        }
    }

    fn check_keys(&self, level: usize) -> Result<(), Error> {
        self.lanes.key_ids().try_for_each(|id| self.evaluator.check_key(id, level))
    }
}

/// `Ok` when a number of rows is as expected.
fn check_rows(need: usize, have: usize) -> Result<(), Error> {
    if need == have { Ok(()) } else { Err(Error::Length { have, need }) }
}
