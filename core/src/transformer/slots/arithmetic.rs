//! What the executor needs of a vector of encrypted slots.

use crate::ckks::Error;
use crate::ckks::server::BabyGiant;

/// Arithmetic on vectors of N/2 real slots with levels: carried out on
/// ciphertexts, or only counted ([`super::PlanSlots`]).
///
/// A binary operation takes the lower level of its operands; the scale is a
/// function of the level and none of the caller's business.
pub trait SlotArithmetic {
    /// A vector.
    type Vector;

    /// A known vector, made ready for products at one level.
    type Known;

    /// Number of slots.
    fn slots(&self) -> usize;

    /// The level of a vector.
    fn level(&self, x: &Self::Vector) -> usize;

    /// A copy.
    fn duplicate(&mut self, x: &Self::Vector) -> Result<Self::Vector, Error>;

    /// x += y; the same level.
    fn add_assign(&mut self, x: &mut Self::Vector, y: &Self::Vector) -> Result<(), Error>;

    /// x −= y; the same level.
    fn subtract_assign(&mut self, x: &mut Self::Vector, y: &Self::Vector) -> Result<(), Error>;

    /// x = −x.
    fn negate_assign(&mut self, x: &mut Self::Vector) -> Result<(), Error>;

    /// x += a known vector, given slot by slot.
    fn add_known_assign(&mut self, x: &mut Self::Vector, known: &dyn Fn(usize) -> f64) -> Result<(), Error>;

    /// Σ x ⊙ y over the pairs, of which there is at least one; one level below
    /// the lowest of them, and one key switch for the whole sum.
    fn products(&mut self, pairs: &[(&Self::Vector, &Self::Vector)]) -> Result<Self::Vector, Error>;

    /// x ⊙ y; one level below the lower of the two.
    fn multiply(&mut self, x: &Self::Vector, y: &Self::Vector) -> Result<Self::Vector, Error> {
        self.products(&[(x, y)])
    }

    /// A known vector, given slot by slot, for [`SlotArithmetic::weigh`] at `level`.
    fn prepare(&mut self, known: &dyn Fn(usize) -> f64, level: usize) -> Result<Self::Known, Error>;

    /// Σ x ⊙ known over the pairs, of which there is at least one, all at one
    /// level; one level below.
    fn weigh(&mut self, pairs: &[(&Self::Vector, &Self::Known)]) -> Result<Self::Vector, Error>;

    /// x ⊙ a known vector, delivered at `level`, below the level of x.
    fn multiply_known(
        &mut self,
        x: &Self::Vector,
        known: &dyn Fn(usize) -> f64,
        level: usize,
    ) -> Result<Self::Vector, Error>;

    /// factor·x, delivered at `level`, below the level of x.
    fn scale(&mut self, x: &Self::Vector, factor: f64, level: usize) -> Result<Self::Vector, Error>;

    /// The slots turned left by `steps`.
    fn rotate(&mut self, x: &Self::Vector, steps: i64) -> Result<Self::Vector, Error>;

    /// Σ c_i·T_i(x), ⌈log2(degree + 1)⌉ levels below.
    fn chebyshev(&mut self, x: &Self::Vector, coefficients: &[f64]) -> Result<Self::Vector, Error>;

    /// A linear transform, one level below. `diagonal(giant, baby, values)`
    /// fills the factor of that pair, or returns `false` when it is zero.
    fn transform(
        &mut self,
        x: &Self::Vector,
        rotations: BabyGiant<'_>,
        diagonal: &(dyn Fn(usize, usize, &mut [f64]) -> bool + Sync),
    ) -> Result<Self::Vector, Error>;

    /// The lowest level from which a vector can be refreshed; 0 when none can.
    fn floor(&self) -> usize {
        0
    }

    /// The same slots at the level a bootstrap leaves. |x| ≤ 1 in every slot, x at [`SlotArithmetic::floor`] or above.
    fn refresh(&mut self, x: &Self::Vector) -> Result<Self::Vector, Error>;

    /// The same for two vectors, the real and the imaginary half of one bootstrap.
    fn refresh_pair(
        &mut self,
        x: &Self::Vector,
        y: &Self::Vector,
    ) -> Result<(Self::Vector, Self::Vector), Error>;
}
