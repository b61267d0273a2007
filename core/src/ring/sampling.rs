//! Samplers: from a stream into a caller's slice.
//!
//! What a stream yields is part of the format of keys and ciphertexts: seeds
//! travel, and both sides must expand them to the same words. Secret samplers
//! take the same time and touch the same addresses whatever they draw.

use super::{Modulus, Stream, Word};

/// η of the centred binomial distribution: variance 21/2, σ = 3.24.
pub const BINOMIAL_ETA: u32 = 21;

/// Standard deviation of [`add_binomial`].
pub const ERROR_DEVIATION: f64 = 3.240_370_349_203_93;

/// Uniform residues modulo q, for public polynomials: time depends on the values.
///
/// A 64-bit draw x gives ⌊x·q/2^64⌋ unless x·q mod 2^64 < 2^64 mod q (Lemire,
/// ACM TOMACS 29(1), 2019). For q < 2^32 the draws are 32-bit halves, lower
/// half first. The outcome depends on q, never on the word type.
pub fn uniform<W: Word>(stream: &mut Stream, modulus: &Modulus, out: &mut [W]) {
    let q = modulus.value();
    let mut filled = 0;
    if modulus.bits() <= 32 {
        let threshold = (1u64 << 32) % q;
        while filled < out.len() {
            for word in stream.block().0 {
                for half in [word as u32, (word >> 32) as u32] {
                    let Some(slot) = out.get_mut(filled) else { return };
                    let product = half as u64 * q;
                    *slot = W::from_u64(product >> 32);
                    filled += (product as u32 as u64 >= threshold) as usize;
                }
            }
        }
    } else {
        let threshold = q.wrapping_neg() % q;
        while filled < out.len() {
            for word in stream.block().0 {
                let Some(slot) = out.get_mut(filled) else { return };
                let product = word as u128 * q as u128;
                *slot = W::from_u64((product >> 64) as u64);
                filled += (product as u64 >= threshold) as usize;
            }
        }
    }
}

fn visit_secret(stream: &mut Stream, values: &mut [i64], visit: impl Fn(&mut i64, u64)) {
    for chunk in values.chunks_mut(super::stream::BLOCK_WORDS) {
        stream
            .secret_block(|words| chunk.iter_mut().zip(words).for_each(|(value, &word)| visit(value, word)));
    }
}

/// Uniform in {−1, 0, 1}, within 2^−63 of it, in constant time: the upper
/// word of three times a draw.
pub fn ternary(stream: &mut Stream, out: &mut [i64]) {
    visit_secret(stream, out, |value, word| *value = ((word as u128 * 3) >> 64) as i64 - 1);
}

/// Adds a centred binomial sample with η = [`BINOMIAL_ETA`] to every entry: the
/// difference of the weights of two 21-bit fields, in constant time. Sums
/// beyond a word stay at its bounds.
pub fn add_binomial(stream: &mut Stream, values: &mut [i64]) {
    const FIELD: u64 = (1 << BINOMIAL_ETA) - 1;
    visit_secret(stream, values, |value, word| {
        let (plus, minus) = (word & FIELD, (word >> BINOMIAL_ETA) & FIELD);
        *value = value.saturating_add(plus.count_ones() as i64 - minus.count_ones() as i64);
    });
}

/// Exactly `weight` entries ±1 (all of them when `weight` is larger than the
/// slice), uniform among such vectors within 2^−64·len, in constant time:
/// one pass keeps entry i with probability (left to place)/(left to visit)
/// (selection sampling, Knuth, TAOCP 2, 3.4.2, Algorithm S).
pub fn fixed_weight(stream: &mut Stream, weight: usize, out: &mut [i64]) {
    let mut unvisited = out.len() as u64;
    let mut unplaced = (weight as u64).min(unvisited);
    for chunk in out.chunks_mut(super::stream::BLOCK_WORDS / 2) {
        stream.secret_block(|words| {
            for (value, pair) in chunk.iter_mut().zip(words.as_chunks::<2>().0) {
                let position = ((pair[0] as u128 * unvisited as u128) >> 64) as u64;
                // The borrow of position − unplaced: both are far below 2^63.
                let chosen = position.wrapping_sub(unplaced) >> 63;
                *value = chosen as i64 * (1 - 2 * (pair[1] & 1) as i64);
                unplaced -= chosen;
                unvisited -= 1;
            }
        });
    }
}

/// Rounded Gaussian of standard deviation `sigma`, for flooding: hands each
/// index and value to `sink`. Values are below 2^62 for `sigma` ≤ 2^58.
///
/// Box and Muller's transform of 53-bit uniforms, so the tail ends at 8.6 σ;
/// rounding adds 1/12 to the variance. Meant for σ of at least 2^10, where
/// both are negligible. Not constant time: the values hide a secret error and
/// are not kept.
pub fn gaussian(stream: &mut Stream, sigma: f64, count: usize, mut sink: impl FnMut(usize, i64)) {
    const UNIT: f64 = 1.0 / (1u64 << 53) as f64;
    let mut index = 0;
    while index < count {
        stream.secret_block(|words| {
            for pair in words.as_chunks::<2>().0 {
                let radius = sigma * libm::sqrt(-2.0 * libm::log(((pair[0] >> 11) + 1) as f64 * UNIT));
                let (sine, cosine) = libm::sincos(core::f64::consts::TAU * ((pair[1] >> 11) as f64 * UNIT));
                for value in [radius * cosine, radius * sine] {
                    if index < count {
                        sink(index, libm::round(value) as i64);
                        index += 1;
                    }
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::ring::{PublicSeed, Purpose, StreamId, primes_below};
    use std::{vec, vec::Vec};

    const COUNT: usize = 1 << 16;

    fn stream(object: u32) -> Stream {
        PublicSeed::from_bytes([42; 32]).stream(StreamId::new(Purpose::Error).object(object))
    }

    fn moments(values: &[i64]) -> (f64, f64) {
        let n = values.len() as f64;
        let mean = values.iter().sum::<i64>() as f64 / n;
        (mean, values.iter().map(|&x| (x as f64 - mean).powi(2)).sum::<f64>() / n)
    }

    fn chi_square(counts: &[f64], expected: &[f64]) -> f64 {
        counts.iter().zip(expected).map(|(c, e)| (c - e).powi(2) / e).sum()
    }

    #[test]
    fn uniform_is_uniform_in_range_and_the_same_on_both_words() {
        for bound in [1u64 << 25, (1 << 29) + (1 << 20), 1 << 30, (1 << 47) + (1 << 30), 1 << 50] {
            let m = Modulus::new(primes_below(bound, 1 << 17).next().unwrap()).unwrap();
            let mut x = vec![0u64; COUNT];
            uniform(&mut stream(1), &m, &mut x);
            let mut counts = [0.0; 64];
            for &v in &x {
                assert!(v < m.value());
                counts[(v as u128 * 64 / m.value() as u128) as usize] += 1.0;
            }
            // 63 degrees of freedom: mean 63, deviation 11.2.
            let chi = chi_square(&counts, &[COUNT as f64 / 64.0; 64]);
            assert!((20.0..120.0).contains(&chi), "{chi}");
            let parity = x.iter().filter(|v| *v & 1 == 1).count() as f64;
            assert!((parity - COUNT as f64 / 2.0).abs() < 5.0 * (COUNT as f64 / 4.0).sqrt());
            if m.bits() <= 30 {
                let mut y = vec![0u32; COUNT];
                uniform(&mut stream(1), &m, &mut y);
                assert!(x.iter().zip(&y).all(|(a, b)| *a == *b as u64));
            }
        }
    }

    #[test]
    fn ternary_has_three_equal_parts() {
        let mut x = vec![0; COUNT];
        ternary(&mut stream(2), &mut x);
        let counts: Vec<f64> = (-1..=1).map(|v| x.iter().filter(|&&y| y == v).count() as f64).collect();
        assert_eq!(counts.iter().sum::<f64>(), COUNT as f64);
        // Two degrees of freedom: 13.8 is passed once in a thousand.
        assert!(chi_square(&counts, &[COUNT as f64 / 3.0; 3]) < 13.8);
    }

    #[test]
    fn binomial_has_its_moments_and_shape() {
        let mut x = vec![0; COUNT];
        add_binomial(&mut stream(3), &mut x);
        let (mean, variance) = moments(&x);
        let expected = BINOMIAL_ETA as f64 / 2.0;
        assert!((ERROR_DEVIATION - expected.sqrt()).abs() < 1e-12);
        assert!(mean.abs() < 5.0 * (expected / COUNT as f64).sqrt(), "{mean}");
        assert!((variance / expected - 1.0).abs() < 5.0 * (2.0 / COUNT as f64).sqrt(), "{variance}");
        // P(k) = C(42, 21 + k) / 2^42.
        let mut probability = [0.0; 15];
        for (slot, k) in probability.iter_mut().zip(14..=28) {
            *slot = (0..k).fold(COUNT as f64, |p, i| p * (42 - i) as f64 / (i + 1) as f64) / 2f64.powi(42);
        }
        let counts: Vec<f64> = (-7..=7).map(|v| x.iter().filter(|&&y| y == v).count() as f64).collect();
        let chi = chi_square(&counts, &probability);
        assert!((2.0..40.0).contains(&chi), "{chi}");
    }

    #[test]
    fn fixed_weight_is_exact_and_spread_out() {
        let mut x = vec![0; 1 << 12];
        let mut upper = 0;
        let mut positive = 0;
        for object in 0..64 {
            fixed_weight(&mut stream(100 + object), 32, &mut x);
            assert_eq!(x.iter().filter(|v| v.abs() == 1).count(), 32);
            assert_eq!(x.iter().filter(|v| **v == 0).count(), x.len() - 32);
            upper += x[x.len() / 2..].iter().filter(|v| **v != 0).count();
            positive += x.iter().filter(|v| **v == 1).count();
        }
        for count in [upper, positive] {
            assert!(count.abs_diff(1024) < 120, "{count}");
        }
        fixed_weight(&mut stream(99), usize::MAX, &mut x);
        assert!(x.iter().all(|v| v.abs() == 1));
    }

    #[test]
    fn gaussian_has_its_moments() {
        let sigma = 2f64.powi(40);
        let mut x = vec![0; COUNT - 1];
        gaussian(&mut stream(4), sigma, COUNT - 1, |i, value| x[i] = value);
        let (mean, variance) = moments(&x);
        assert!(mean.abs() < 5.0 * sigma / (COUNT as f64).sqrt());
        assert!((variance / (sigma * sigma) - 1.0).abs() < 5.0 * (2.0 / COUNT as f64).sqrt());
        let within = x.iter().filter(|v| (v.abs() as f64) < sigma).count() as f64 / COUNT as f64;
        assert!((within - 0.6827).abs() < 0.01);
    }
}
