//! Between slots and polynomials: the canonical embedding.
//!
//! Slot j of a polynomial m is m(ζ^{5^j})/scale with ζ = e^{iπ/N}, j < N/2, so
//! the automorphism X → X^{5^r} rotates slots left by r and X → X^{−1}
//! conjugates them. [`Encoder`] works in double precision; [`FixedEncoder`]
//! does the same in 64-bit fixed point for parts without a floating-point unit.

mod compose;
mod embedding;
mod fixed;
mod float;

pub(crate) use compose::{low_limbs, read_low};
pub use compose::{plaintext, plaintext_coefficients, words_to_read};
pub use fixed::{FixedEncoder, Scale, SlotValue};
pub use float::{Complex, Encoder};

#[cfg(test)]
mod tests;
