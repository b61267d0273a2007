//! AVX2 and FMA: the double-precision path on four lanes of 256 bits.

use core::arch::x86_64::*;

use super::float::{self, Lanes, ntt::Table};
use super::prime::Prime;

/// Proof that the processor has AVX2 and FMA.
#[derive(Clone, Copy)]
struct Avx2(());

/// Integers below 2^52 are the low bits of numbers between 2^52 and 2^53.
const MAGIC: f64 = 4_503_599_627_370_496.0;

/// Wraps each body in the block that the witness justifies.
macro_rules! lanes {
    ($(fn $name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)? $body:block)*) => {
        $(#[inline(always)]
        fn $name(self, $($argument: $type),*) $(-> $result)? {
            // SAFETY: a value of Avx2 exists only where the processor has the instructions; references to four
            // words are valid for 32 bytes.
            unsafe { $body }
        })*
    };
}

impl Lanes for Avx2 {
    type F = __m256d;

    lanes! {
        fn splat(x: f64) -> __m256d { _mm256_set1_pd(x) }
        fn load(x: &[f64; 4]) -> __m256d { _mm256_loadu_pd(x.as_ptr()) }
        fn get(x: &[u64; 4]) -> __m256d { _mm256_loadu_pd(x.as_ptr().cast()) }
        fn set(x: &mut [u64; 4], v: __m256d) { _mm256_storeu_pd(x.as_mut_ptr().cast(), v) }
        fn read_words(x: &[u64; 4]) -> __m256d {
            let magic = _mm256_set1_pd(MAGIC);
            _mm256_sub_pd(_mm256_or_pd(_mm256_loadu_pd(x.as_ptr().cast()), magic), magic)
        }
        fn write_words(x: &mut [u64; 4], v: __m256d) {
            let magic = _mm256_set1_pd(MAGIC);
            _mm256_storeu_pd(x.as_mut_ptr().cast(), _mm256_xor_pd(_mm256_add_pd(v, magic), magic))
        }
        fn add(x: __m256d, y: __m256d) -> __m256d { _mm256_add_pd(x, y) }
        fn sub(x: __m256d, y: __m256d) -> __m256d { _mm256_sub_pd(x, y) }
        fn mul(x: __m256d, y: __m256d) -> __m256d { _mm256_mul_pd(x, y) }
        fn mul_sub(x: __m256d, y: __m256d, z: __m256d) -> __m256d { _mm256_fmsub_pd(x, y, z) }
        fn neg_mul_add(x: __m256d, y: __m256d, z: __m256d) -> __m256d { _mm256_fnmadd_pd(x, y, z) }
        fn round(x: __m256d) -> __m256d {
            _mm256_round_pd::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x)
        }
        fn add_if_negative(x: __m256d, m: __m256d) -> __m256d {
            let negative = _mm256_cmp_pd::<_CMP_LT_OQ>(x, _mm256_setzero_pd());
            _mm256_add_pd(x, _mm256_and_pd(negative, m))
        }
        fn transpose(x: [__m256d; 4]) -> [__m256d; 4] {
            let (a, b) = (_mm256_unpacklo_pd(x[0], x[1]), _mm256_unpackhi_pd(x[0], x[1]));
            let (c, d) = (_mm256_unpacklo_pd(x[2], x[3]), _mm256_unpackhi_pd(x[2], x[3]));
            [
                _mm256_permute2f128_pd::<0x20>(a, c),
                _mm256_permute2f128_pd::<0x20>(b, d),
                _mm256_permute2f128_pd::<0x31>(a, c),
                _mm256_permute2f128_pd::<0x31>(b, d),
            ]
        }
    }
}

/// Entry points: each is compiled with the instructions, and so may claim the witness.
macro_rules! entries {
    ($($(#[$meta:meta])* fn $name:ident $(<const $flag:ident: bool>)? ($($argument:ident: $type:ty),*) = $call:expr;)*) => {
        $(#[target_feature(enable = "avx2,fma")]
        pub(super) fn $name$(<const $flag: bool>)?($($argument: $type),*) {
            $call
        })*
    };
}

entries! {
    fn forward(table: &Table, prime: &Prime, x: &mut [u64]) = table.forward(Avx2(()), prime, x);
    fn inverse(table: &Table, prime: &Prime, x: &mut [u64]) = table.inverse(Avx2(()), prime, x);
    fn multiply(prime: &Prime, destination: &mut [u64], x: &[u64], y: &[u64]) =
        float::vector::multiply(Avx2(()), prime, destination, x, y);
    fn multiply_assign(prime: &Prime, x: &mut [u64], y: &[u64]) =
        float::vector::multiply_assign(Avx2(()), prime, x, y);
    fn multiply_add(prime: &Prime, sum: &mut [u64], x: &[u64], y: &[u64]) =
        float::vector::multiply_add(Avx2(()), prime, sum, x, y);
    fn multiply_scalar_assign(prime: &Prime, x: &mut [u64], s: u64) =
        float::vector::multiply_scalar_assign(Avx2(()), prime, x, s);
    fn multiply_scalar_add(prime: &Prime, sum: &mut [u64], x: &[u64], s: u64) =
        float::vector::multiply_scalar_add(Avx2(()), prime, sum, x, s);
    fn sub_multiply_scalar(prime: &Prime, x: &mut [u64], y: &[u64], s: u64) =
        float::vector::sub_multiply_scalar(Avx2(()), prime, x, y, s);
    fn tensor(prime: &Prime, d: [&mut [u64]; 3], a: [&[u64]; 2], b: [&[u64]; 2]) =
        float::vector::tensor(Avx2(()), prime, d, a, b);
    fn inner_product<const ADD: bool>(prime: &Prime, sums: [&mut [u64]; 2], digits: &[&[u64]], keys: [&[&[u64]]; 2]) =
        float::vector::inner_product::<_, ADD>(Avx2(()), prime, sums, digits, keys);
}
