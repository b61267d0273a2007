//! Products of small matrices over lines of eight words: what the matrix room is made of.
//!
//! A *line* is eight neighbours of one operand. One term of a sum is the outer product of two lines, sixty-four
//! products for sixteen words read: that is where a matrix product beats products entry by entry.

#[cfg(target_arch = "x86_64")]
use super::avx512;
use super::path::avx512_or;
use super::{Kernels, Path, Prime, scalar_matrix};

/// Eight words.
pub type Line = [u64; 8];

impl Kernels {
    /// What the right operand of [`Kernels::outer_products`] is multiplied by beforehand, modulo q: the radix that
    /// the reduction divides out, where it does.
    pub fn outer_factor(self, prime: &Prime) -> u64 {
        match self.path() {
            Path::Avx512 | Path::Avx512Madd => prime.reduce(1 << 52),
            _ => 1,
        }
    }

    /// Sums of outer products: with T = `terms` and t tiles,
    /// `out[i·t + tile][l] = Σ_r left[T·tile + r][i]·right[T·tile + r][l] / factor` for i and l below 8. A `left` of
    /// only T lines serves every tile. All words are canonical; the factor is [`Kernels::outer_factor`]'s.
    ///
    /// # Panics
    /// If `terms` is 0 or above 2^24, or the lengths do not match.
    pub fn outer_products(
        self,
        prime: &Prime,
        terms: usize,
        left: &[Line],
        right: &[Line],
        out: &mut [Line],
    ) {
        assert!((1..=1 << 24).contains(&terms) && right.len().is_multiple_of(terms), "{terms} terms");
        assert!(left.len() == terms || left.len() == right.len(), "left lines for one tile or for all");
        assert_eq!(out.len(), 8 * (right.len() / terms), "eight lines to a tile");
        avx512_or!(
            self,
            matrix::outer_products(prime, terms, left, right, out),
            scalar_matrix::outer_products(prime, terms, left, right, out)
        );
    }

    /// Eight rows of t lines each, interleaved: `out[j][at + stride·l + i] = rows[i·t + j][l]` for every `out[j]`.
    ///
    /// # Panics
    /// If there are not eight rows, `stride` or `at` is no multiple of 8, or an index is out of bounds.
    pub fn interleave(self, rows: &[Line], out: &mut [&mut [u64]], at: usize, stride: usize) {
        let count = rows.len() / 8;
        assert!(rows.len().is_multiple_of(8) && out.len() <= count, "{} of {count} lines", out.len());
        check_places(out, at, stride);
        match self.path() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: kernels exist only for a path the processor has.
            Path::Avx512 | Path::Avx512Madd => unsafe { avx512::matrix::interleave(rows, out, at, stride) },
            _ => scalar_matrix::interleave(rows, out, at, stride),
        }
    }
}

/// Panics unless eight whole lines, `stride` words apart from `at` on, lie in every limb.
pub(super) fn check_places(out: &[&mut [u64]], at: usize, stride: usize) {
    assert!(stride.is_multiple_of(8) && stride > 0 && at.is_multiple_of(8));
    assert!(out.iter().all(|out| at + 7 * stride + 8 <= out.len()), "words within the limbs");
}
