//! NEON: the double-precision path on two registers of two lanes. Every AArch64 processor has these instructions.

use core::arch::aarch64::*;

use super::float::{self, Lanes, ntt::Table};
use super::prime::Prime;

/// Proof that the processor has NEON.
#[derive(Clone, Copy)]
struct Neon(());

/// Four lanes.
type Pair = [float64x2_t; 2];

/// Wraps each body in the block that the witness justifies.
macro_rules! lanes {
    ($(fn $name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)? $body:block)*) => {
        $(#[inline(always)]
        fn $name(self, $($argument: $type),*) $(-> $result)? {
            // SAFETY: a value of Neon exists only where the processor has the instructions; references to four
            // words are valid for 32 bytes.
            unsafe { $body }
        })*
    };
}

impl Lanes for Neon {
    type F = Pair;

    lanes! {
        fn splat(x: f64) -> Pair { [vdupq_n_f64(x); 2] }
        fn load(x: &[f64; 4]) -> Pair { [vld1q_f64(x.as_ptr()), vld1q_f64(x.as_ptr().add(2))] }
        fn get(x: &[u64; 4]) -> Pair {
            [vld1q_f64(x.as_ptr().cast()), vld1q_f64(x.as_ptr().cast::<f64>().add(2))]
        }
        fn set(x: &mut [u64; 4], v: Pair) {
            vst1q_f64(x.as_mut_ptr().cast(), v[0]);
            vst1q_f64(x.as_mut_ptr().cast::<f64>().add(2), v[1]);
        }
        fn read_words(x: &[u64; 4]) -> Pair {
            [vcvtq_f64_u64(vld1q_u64(x.as_ptr())), vcvtq_f64_u64(vld1q_u64(x.as_ptr().add(2)))]
        }
        fn write_words(x: &mut [u64; 4], v: Pair) {
            vst1q_u64(x.as_mut_ptr(), vcvtq_u64_f64(v[0]));
            vst1q_u64(x.as_mut_ptr().add(2), vcvtq_u64_f64(v[1]));
        }
        fn add(x: Pair, y: Pair) -> Pair { [vaddq_f64(x[0], y[0]), vaddq_f64(x[1], y[1])] }
        fn sub(x: Pair, y: Pair) -> Pair { [vsubq_f64(x[0], y[0]), vsubq_f64(x[1], y[1])] }
        fn mul(x: Pair, y: Pair) -> Pair { [vmulq_f64(x[0], y[0]), vmulq_f64(x[1], y[1])] }
        fn mul_sub(x: Pair, y: Pair, z: Pair) -> Pair {
            [vfmaq_f64(vnegq_f64(z[0]), x[0], y[0]), vfmaq_f64(vnegq_f64(z[1]), x[1], y[1])]
        }
        fn neg_mul_add(x: Pair, y: Pair, z: Pair) -> Pair {
            [vfmsq_f64(z[0], x[0], y[0]), vfmsq_f64(z[1], x[1], y[1])]
        }
        fn round(x: Pair) -> Pair { [vrndnq_f64(x[0]), vrndnq_f64(x[1])] }
        fn add_if_negative(x: Pair, m: Pair) -> Pair {
            let half = |x, m| {
                let bits = vandq_u64(vcltzq_f64(x), vreinterpretq_u64_f64(m));
                vaddq_f64(x, vreinterpretq_f64_u64(bits))
            };
            [half(x[0], m[0]), half(x[1], m[1])]
        }
        fn transpose(x: [Pair; 4]) -> [Pair; 4] {
            let even = |k: usize, half: usize| vzip1q_f64(x[k][half], x[k + 1][half]);
            let odd = |k: usize, half: usize| vzip2q_f64(x[k][half], x[k + 1][half]);
            [[even(0, 0), even(2, 0)], [odd(0, 0), odd(2, 0)], [even(0, 1), even(2, 1)], [odd(0, 1), odd(2, 1)]]
        }
    }
}

/// Entry points: each is compiled with the instructions, and so may claim the witness.
macro_rules! entries {
    ($($(#[$meta:meta])* fn $name:ident $(<const $flag:ident: bool>)? ($($argument:ident: $type:ty),*) = $call:expr;)*) => {
        $(#[target_feature(enable = "neon")]
        pub(super) fn $name$(<const $flag: bool>)?($($argument: $type),*) {
            $call
        })*
    };
}

entries! {
    fn forward(table: &Table, prime: &Prime, x: &mut [u64]) = table.forward(Neon(()), prime, x);
    fn inverse(table: &Table, prime: &Prime, x: &mut [u64]) = table.inverse(Neon(()), prime, x);
    fn multiply(prime: &Prime, destination: &mut [u64], x: &[u64], y: &[u64]) =
        float::vector::multiply(Neon(()), prime, destination, x, y);
    fn multiply_assign(prime: &Prime, x: &mut [u64], y: &[u64]) =
        float::vector::multiply_assign(Neon(()), prime, x, y);
    fn multiply_add(prime: &Prime, sum: &mut [u64], x: &[u64], y: &[u64]) =
        float::vector::multiply_add(Neon(()), prime, sum, x, y);
    fn multiply_scalar_assign(prime: &Prime, x: &mut [u64], s: u64) =
        float::vector::multiply_scalar_assign(Neon(()), prime, x, s);
    fn multiply_scalar_add(prime: &Prime, sum: &mut [u64], x: &[u64], s: u64) =
        float::vector::multiply_scalar_add(Neon(()), prime, sum, x, s);
    fn sub_multiply_scalar(prime: &Prime, x: &mut [u64], y: &[u64], s: u64) =
        float::vector::sub_multiply_scalar(Neon(()), prime, x, y, s);
    fn tensor(prime: &Prime, d: [&mut [u64]; 3], a: [&[u64]; 2], b: [&[u64]; 2]) =
        float::vector::tensor(Neon(()), prime, d, a, b);
    fn inner_product<const ADD: bool>(prime: &Prime, sums: [&mut [u64]; 2], digits: &[&[u64]], keys: [&[&[u64]]; 2]) =
        float::vector::inner_product::<_, ADD>(Neon(()), prime, sums, digits, keys);
}
