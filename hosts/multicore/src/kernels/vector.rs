//! Element-wise kernels on limbs, dispatched as a whole. All residues are canonical on both sides.

#[cfg(target_arch = "x86_64")]
use super::avx2;
#[cfg(target_arch = "aarch64")]
use super::neon;
use super::path::avx512_or;
use super::{Kernels, Path, Prime, scalar};

/// Most products one inner product takes: their sum stays below 2^104.
pub const MAX_DIGITS: usize = 16;

/// Words of a sum that stay in the first-level cache while its terms pass.
const BLOCK: usize = 1 << 11;

/// Calls the kernel of this name on the chosen path; `product` kernels also exist in double precision.
macro_rules! dispatch {
    ($self:ident, $name:ident ($($argument:expr),*)) => {
        avx512_or!($self, vector::$name($($argument),*), scalar::$name($($argument),*))
    };
    ($self:ident, product $name:ident $(::<$flag:ident>)? ($($argument:expr),*)) => {
        avx512_or!($self, vector::$name$(::<$flag>)?($($argument),*), match $self.path() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: kernels exist only for a path the processor has.
            Path::Avx2 => unsafe { avx2::$name$(::<$flag>)?($($argument),*) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            Path::Neon => unsafe { neon::$name$(::<$flag>)?($($argument),*) },
            _ => scalar::$name$(::<$flag>)?($($argument),*),
        })
    };
}

/// Panics unless all limbs have one length, a multiple of a line.
fn check(length: usize, others: &[usize]) {
    assert!(
        length.is_multiple_of(8) && others.iter().all(|&other| other == length),
        "limbs of one length, a multiple of 8 words, not {length} and {others:?}"
    );
}

/// Every method panics if its limbs differ in length or are no multiple of 8 words long.
impl Kernels {
    /// `x += y`.
    pub fn add_assign(self, prime: &Prime, x: &mut [u64], y: &[u64]) {
        check(x.len(), &[y.len()]);
        dispatch!(self, add_assign(prime, x, y));
    }

    /// `x −= y`.
    pub fn sub_assign(self, prime: &Prime, x: &mut [u64], y: &[u64]) {
        check(x.len(), &[y.len()]);
        dispatch!(self, sub_assign(prime, x, y));
    }

    /// `x = −x`.
    pub fn negate_assign(self, prime: &Prime, x: &mut [u64]) {
        check(x.len(), &[]);
        dispatch!(self, negate_assign(prime, x));
    }

    /// `destination = x ⊙ y`.
    pub fn multiply(self, prime: &Prime, destination: &mut [u64], x: &[u64], y: &[u64]) {
        check(destination.len(), &[x.len(), y.len()]);
        dispatch!(self, product multiply(prime, destination, x, y));
    }

    /// `x = x ⊙ y`.
    pub fn multiply_assign(self, prime: &Prime, x: &mut [u64], y: &[u64]) {
        check(x.len(), &[y.len()]);
        dispatch!(self, product multiply_assign(prime, x, y));
    }

    /// `sum += x ⊙ y`.
    pub fn multiply_add(self, prime: &Prime, sum: &mut [u64], x: &[u64], y: &[u64]) {
        check(sum.len(), &[x.len(), y.len()]);
        dispatch!(self, product multiply_add(prime, sum, x, y));
    }

    /// `x = s·x` for a canonical `s`.
    pub fn multiply_scalar_assign(self, prime: &Prime, x: &mut [u64], s: u64) {
        check(x.len(), &[]);
        dispatch!(self, product multiply_scalar_assign(prime, x, s));
    }

    /// `sum += s·x` for a canonical `s`.
    pub fn multiply_scalar_add(self, prime: &Prime, sum: &mut [u64], x: &[u64], s: u64) {
        check(sum.len(), &[x.len()]);
        dispatch!(self, product multiply_scalar_add(prime, sum, x, s));
    }

    /// `x += s` in every word, for a canonical `s`.
    pub fn add_scalar_assign(self, prime: &Prime, x: &mut [u64], s: u64) {
        check(x.len(), &[]);
        dispatch!(self, add_scalar_assign(prime, x, s));
    }

    /// `x = (x − y)·s` for a canonical `s`: the end of a rescale or a mod-down.
    pub fn sub_multiply_scalar(self, prime: &Prime, x: &mut [u64], y: &[u64], s: u64) {
        check(x.len(), &[y.len()]);
        dispatch!(self, product sub_multiply_scalar(prime, x, y, s));
    }

    /// `sum += Σ_k s_k·x_k` for terms `(x_k, s_k)`, canonical `s_k`: one pass, one reduction for sixteen terms.
    pub fn multiply_scalars_add(self, prime: &Prime, sum: &mut [u64], terms: &[(&[u64], u64)]) {
        for (x, _) in terms {
            check(sum.len(), &[x.len()]);
        }
        for terms in terms.chunks(MAX_DIGITS) {
            avx512_or!(self, vector::multiply_scalars_add(prime, sum, terms), {
                for (start, sum) in (0..).step_by(BLOCK).zip(sum.chunks_mut(BLOCK)) {
                    for (x, s) in terms {
                        self.multiply_scalar_add(prime, sum, &x[start..start + sum.len()], *s);
                    }
                }
            });
        }
    }

    /// `d = (a0·b0, a0·b1 + a1·b0, a1·b1)`: a product of two ciphertexts before relinearisation.
    pub fn tensor(self, prime: &Prime, d: [&mut [u64]; 3], a: [&[u64]; 2], b: [&[u64]; 2]) {
        check(d[0].len(), &[d[1].len(), d[2].len(), a[0].len(), a[1].len(), b[0].len(), b[1].len()]);
        dispatch!(self, product tensor(prime, d, a, b));
    }

    /// `d += Σ_k a_k ⊗ b_k` for terms `[a_k, b_k]`, each as [`Kernels::tensor`] multiplies them: one pass over `d`.
    pub fn tensor_add(self, prime: &Prime, d: [&mut [u64]; 3], terms: &[[[&[u64]; 2]; 2]]) {
        check(d[0].len(), &[d[1].len(), d[2].len()]);
        for limb in terms.iter().flatten().flatten() {
            check(d[0].len(), &[limb.len()]);
        }
        avx512_or!(self, vector::tensor_add(prime, d, terms), {
            let [d0, d1, d2] = d;
            for [[a0, a1], [b0, b1]] in terms {
                self.multiply_add(prime, d0, a0, b0);
                self.multiply_add(prime, d1, a0, b1);
                self.multiply_add(prime, d1, a1, b0);
                self.multiply_add(prime, d2, a1, b1);
            }
        });
    }

    /// Canonical residues of signed words of magnitude below 2^62.
    pub fn reduce_signed(self, prime: &Prime, destination: &mut [u64], source: &[i64]) {
        check(destination.len(), &[source.len()]);
        dispatch!(self, reduce_signed(prime, destination, source));
    }

    /// `sums[h] = Σ_d digits[d] ⊙ keys[h][d]` for both halves of a key, at most 16 digits, one reduction.
    ///
    /// # Panics
    /// Also if there are more than 16 digits, or not as many key limbs.
    pub fn inner_product(
        self,
        prime: &Prime,
        sums: [&mut [u64]; 2],
        digits: &[&[u64]],
        keys: [&[&[u64]]; 2],
    ) {
        self.sum_products::<false>(prime, sums, digits, keys);
    }

    /// `sums[h] += Σ_d digits[d] ⊙ keys[h][d]`.
    ///
    /// # Panics
    /// Also if there are more than 16 digits, or not as many key limbs.
    pub fn inner_product_add(
        self,
        prime: &Prime,
        sums: [&mut [u64]; 2],
        digits: &[&[u64]],
        keys: [&[&[u64]]; 2],
    ) {
        self.sum_products::<true>(prime, sums, digits, keys);
    }

    fn sum_products<const ADD: bool>(
        self,
        prime: &Prime,
        sums: [&mut [u64]; 2],
        digits: &[&[u64]],
        keys: [&[&[u64]]; 2],
    ) {
        let count = digits.len();
        assert!(
            count <= MAX_DIGITS && keys.iter().all(|key| key.len() == count),
            "at most 16 digits, as many keys"
        );
        check(sums[0].len(), &[sums[1].len()]);
        for limb in digits.iter().chain(keys[0]).chain(keys[1]) {
            check(sums[0].len(), &[limb.len()]);
        }
        dispatch!(self, product inner_product::<ADD>(prime, sums, digits, keys));
    }
}
