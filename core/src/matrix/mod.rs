//! Encrypted matrices in a small ring.
//!
//! The big ring is for bootstrapping and for functions of slots. Between
//! SlotToCoeff and ModRaise a ciphertext is a vector of coefficients at a few
//! limbs, and there linear algebra is cheap:
//!
//! ```text
//! coefficients, N ──to_small──► N/N' ciphertexts of N' coefficients ──multiply_plain──► … ──to_big──► coefficients, N
//! ```
//!
//! - A ciphertext of the small ring holds k rows of a matrix ([`Layout`]): with Y = X^k it is Σ_i X^i·row_i(Y).
//!   Row i is a sample of a module of rank k over Z_q\[Y\], by re-indexing alone, so that rows can be added up with
//!   integer weights without a key (Bae, Cheon, Hanrot, Park, Stehlé, CRYPTO 2024, ePrint 2024/1284).
//! - The samples that share a ciphertext have masks that are shifts of one polynomial. A product is then no
//!   dense product of N' columns but a correlation, 2k times cheaper: [`crate::accel::Accelerator::row_products`].
//! - k rows become one ciphertext again by k key switches that share one division ([`SmallRing::multiply_plain`]).
//! - Two packed matrices multiply as sums of outer products ([`PairEvaluator`]), with chains of products in mind; in
//!   [`lanes`], many small matrices at once, where their rows come that way.

pub mod lanes;
mod layout;
mod pair;
mod plain;
mod product;
mod ring_switch;
pub mod slots;
#[cfg(all(test, feature = "insecure-toy"))]
mod tests;
mod thin;

pub use layout::{EncryptedMatrix, Entries, Layout};
pub use pair::PairEvaluator;
pub use plain::PlainMatrix;
pub use product::SmallRing;
pub use ring_switch::RingSwitch;
pub use thin::{EncryptedRow, EncryptedVector, Side};

use crate::{accel, ckks};

/// Why a matrix operation was refused: numbers, no strings.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Error {
    /// A matrix has another shape than the operation needs: rows, columns.
    Shape {
        /// Shape given.
        have: (usize, usize),
        /// Shape needed.
        need: (usize, usize),
    },
    /// A ring of degree N' cannot hold a row of so many columns.
    Columns {
        /// Columns asked for.
        have: usize,
        /// Most that fit: N'.
        max: usize,
    },
    /// Too little working memory or too few places for results.
    Room {
        /// Given.
        have: usize,
        /// Needed.
        need: usize,
    },
    /// Two operands have different scales.
    Scale {
        /// Scale given.
        have: f64,
        /// Scale needed.
        need: f64,
    },
    /// A vector was encoded for the other kind of product.
    Side {
        /// What it was encoded for.
        have: Side,
        /// What is asked of it.
        need: Side,
    },
    /// A matrix has no entry that is not zero, or one that is not finite.
    Weights,
    /// Entries as large as this, at this scale, would wrap around the modulus: log2 of both.
    Overflow {
        /// log2 of the largest entry times the scale, rounded up.
        bits: u32,
        /// log2 of half the modulus, rounded down.
        max: u32,
    },
    /// From the scheme.
    Scheme(ckks::Error),
}

impl From<ckks::Error> for Error {
    fn from(error: ckks::Error) -> Self {
        Self::Scheme(error)
    }
}

impl From<accel::Error> for Error {
    fn from(error: accel::Error) -> Self {
        Self::Scheme(error.into())
    }
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Shape { have: (rows, columns), need } => {
                write!(f, "expected a matrix of {} × {}, got {rows} × {columns}", need.0, need.1)
            }
            Self::Columns { have, max } => write!(f, "a row has 1 to {max} columns in this ring, not {have}"),
            Self::Room { have, need } => write!(f, "expected room for {need}, got {have}"),
            Self::Scale { have, need } => write!(f, "expected a scale of {need}, got {have}"),
            Self::Side { have, need } => write!(f, "the vector was encoded to {have}, not to {need}"),
            Self::Weights => write!(f, "the weights must be finite, and not all of them zero"),
            Self::Overflow { bits, max } => write!(
                f,
                "entries of {bits} bits at their scale do not fit a modulus of {max} bits and a sign: lower the scale, or work at a higher level"
            ),
            Self::Scheme(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for Error {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Scheme(error) => Some(error),
            _ => None,
        }
    }
}
