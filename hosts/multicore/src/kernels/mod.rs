//! Modular kernels on limbs of 64-bit words, chosen once at run time.
//!
//! A *limb* is one residue polynomial of N words modulo one prime `2^20 < q < 2^50`. Every kernel takes and
//! returns canonical residues, whatever lazy range it uses inside, so all paths agree bit for bit with
//! [`Path::Scalar`]. Unsafe code lives only in the leaves, one per instruction set, behind [`Kernels`], which can
//! only be built for a path that this processor has.

mod aligned;
mod automorphism;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod convert;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod float;
mod lanes;
mod matrix;
#[cfg(target_arch = "aarch64")]
mod neon;
mod ntt;
mod path;
mod powers;
mod prime;
mod scalar;
mod scalar_matrix;
mod scalar_ntt;
#[cfg(test)]
mod tests;
mod transform;
mod vector;

pub(crate) use aligned::AlignedWords;
pub use automorphism::Automorphism;
pub use convert::{ConvertTable, MAX_SOURCES};
pub use lanes::{LaneTable, MAX_LOG};
pub use matrix::Line;
pub use ntt::NttTable;
pub use path::{Kernels, OVERRIDE, Path};
pub use prime::{MAX_BITS, MIN_BITS, Prime};
pub use transform::{MAX_STEPS, MAX_TILE, Transform, TransformStep};
pub use vector::MAX_DIGITS;

/// Why a kernel or a table cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelError {
    /// The modulus is even, composite, or outside `(2^20, 2^50)`.
    Modulus(u64),
    /// The degree is no power of two in `[2^4, 2^17]`, or `2N` does not divide `q − 1`.
    Degree {
        /// The ring degree asked for.
        degree: usize,
        /// The modulus asked for.
        modulus: u64,
    },
    /// `VEILFORMER_KERNELS` names no known path.
    UnknownPath,
    /// This processor lacks the instructions of the path.
    UnavailablePath(Path),
    /// Too many or too few limbs for the kernel.
    Count(usize),
    /// A ring degree that is no power of two from 2^4 to 2^17.
    Length(usize),
    /// An automorphism's exponent must be odd.
    EvenExponent(usize),
}

impl core::fmt::Display for KernelError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::Modulus(q) => write!(f, "modulus {q} is not an odd prime between 2^20 and 2^50"),
            Self::Degree { degree, modulus } => {
                write!(f, "no negacyclic transform of length {degree} modulo {modulus}")
            }
            Self::UnknownPath => {
                write!(f, "VEILFORMER_KERNELS must be scalar, avx2, avx512, avx512-madd or neon")
            }
            Self::UnavailablePath(path) => write!(f, "this processor cannot run the {path} kernels"),
            Self::Count(count) => write!(f, "{count} limbs are outside what the kernel takes"),
            Self::Length(degree) => write!(f, "{degree} is no ring degree from 2^4 to 2^17"),
            Self::EvenExponent(exponent) => write!(f, "automorphism exponent {exponent} is even"),
        }
    }
}

impl core::error::Error for KernelError {}
