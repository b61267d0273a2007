//! Cyclic transforms of short sequences of lines, every lane by itself.

use super::matrix::{self, Line};
use super::path::avx512_or;
use super::{KernelError, Kernels, Prime, scalar_matrix};

/// Most stages of a transform: its lines then still fit the ranges of every path.
pub const MAX_LOG: u32 = 16;

/// The roots of a cyclic transform of length L = 2^log modulo one prime.
///
/// With ω of order L, entry h + j of `forward` belongs to ω^(j·L/2h), j < h, and of `inverse` to its inverse: first
/// and second word are what the path multiplies by. Entry 0 is unused.
#[derive(Clone, Debug)]
pub struct LaneTable {
    kernels: Kernels,
    prime: Prime,
    forward: Box<[(u64, u64)]>,
    inverse: Box<[(u64, u64)]>,
}

impl LaneTable {
    /// For length 2^log, 1 ≤ log ≤ [`MAX_LOG`].
    ///
    /// # Errors
    /// [`KernelError::Degree`] when there is no such root.
    pub fn new(kernels: Kernels, prime: Prime, log: u32) -> Result<Self, KernelError> {
        let degree = 1 << log;
        if !(1..=MAX_LOG).contains(&log) {
            return Err(KernelError::Degree { degree, modulus: prime.value() });
        }
        let root = prime.root(degree / 2)?;
        let table = |root: u64| {
            let mut entries = vec![(0, 0); degree].into_boxed_slice();
            for stage in 0..log {
                let half = 1 << stage;
                let step = prime.power(root, (degree / (2 * half)) as u64);
                let mut w = 1;
                for entry in &mut entries[half..2 * half] {
                    *entry = match kernels.path() {
                        #[cfg(target_arch = "x86_64")]
                        super::Path::Avx512 | super::Path::Avx512Madd => prime.montgomery(w),
                        _ => (w, prime.shoup(w)),
                    };
                    w = prime.multiply(w, step);
                }
            }
            entries
        };
        Ok(Self { kernels, prime, forward: table(root), inverse: table(prime.inverse(root)) })
    }

    /// Natural order in, bit-reversed order out: `out[brv(m)] = Σ_s x[s]·ω^(m·s)`, canonical on both sides.
    ///
    /// # Panics
    /// If there are not L lines.
    pub fn forward(&self, x: &mut [Line]) {
        assert_eq!(x.len(), self.forward.len(), "lines of a transform");
        avx512_or!(
            self.kernels,
            matrix::forward(&self.prime, &self.forward, x),
            scalar_matrix::forward(&self.prime, &self.forward, x)
        );
    }

    /// The inverse of [`LaneTable::forward`] times L, of which only the first L/2 lines are made; the others are
    /// unspecified.
    ///
    /// # Panics
    /// If there are not L lines.
    pub fn inverse_half(&self, x: &mut [Line]) {
        assert_eq!(x.len(), self.inverse.len(), "lines of a transform");
        avx512_or!(
            self.kernels,
            matrix::inverse_half(&self.prime, &self.inverse, x),
            scalar_matrix::inverse_half(&self.prime, &self.inverse, x)
        );
    }

    /// [`LaneTable::inverse_half`] of eight rows of L lines, then [`Kernels::interleave`] of their first halves.
    ///
    /// # Panics
    /// If there are not eight rows, or as [`Kernels::interleave`] does.
    pub fn inverse_interleave(&self, rows: &mut [Line], out: &mut [&mut [u64]], at: usize, stride: usize) {
        let length = self.inverse.len();
        assert!(rows.len() == 8 * length && out.len() <= length / 2, "eight rows of {length} lines");
        matrix::check_places(out, at, stride);
        avx512_or!(
            self.kernels,
            matrix::inverse_interleave(&self.prime, &self.inverse, rows, out, at, stride),
            {
                rows.chunks_exact_mut(length).for_each(|row| self.inverse_half(row));
                self.kernels.interleave(rows, out, at, stride);
            }
        );
    }
}
