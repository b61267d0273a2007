//! Every kernel but the transform in plain integers: the fallback, and the reference of the other paths.

use super::convert::ConvertTable;
use super::prime::{MASK52, Prime, reduce_once};

pub(crate) fn add_assign(prime: &Prime, x: &mut [u64], y: &[u64]) {
    for (x, &y) in x.iter_mut().zip(y) {
        *x = prime.add(*x, y);
    }
}

pub(crate) fn sub_assign(prime: &Prime, x: &mut [u64], y: &[u64]) {
    for (x, &y) in x.iter_mut().zip(y) {
        *x = prime.sub(*x, y);
    }
}

pub(crate) fn negate_assign(prime: &Prime, x: &mut [u64]) {
    for x in x {
        *x = prime.negate(*x);
    }
}

pub(crate) fn multiply(prime: &Prime, destination: &mut [u64], x: &[u64], y: &[u64]) {
    for (destination, (&x, &y)) in destination.iter_mut().zip(x.iter().zip(y)) {
        *destination = prime.multiply(x, y);
    }
}

pub(crate) fn multiply_assign(prime: &Prime, x: &mut [u64], y: &[u64]) {
    for (x, &y) in x.iter_mut().zip(y) {
        *x = prime.multiply(*x, y);
    }
}

pub(crate) fn multiply_add(prime: &Prime, sum: &mut [u64], x: &[u64], y: &[u64]) {
    for (sum, (&x, &y)) in sum.iter_mut().zip(x.iter().zip(y)) {
        *sum = prime.add(*sum, prime.multiply(x, y));
    }
}

pub(crate) fn multiply_scalar_assign(prime: &Prime, x: &mut [u64], s: u64) {
    for x in x {
        *x = prime.multiply(*x, s);
    }
}

pub(crate) fn multiply_scalar_add(prime: &Prime, sum: &mut [u64], x: &[u64], s: u64) {
    for (sum, &x) in sum.iter_mut().zip(x) {
        *sum = prime.add(*sum, prime.multiply(x, s));
    }
}

pub(crate) fn add_scalar_assign(prime: &Prime, x: &mut [u64], s: u64) {
    for x in x {
        *x = prime.add(*x, s);
    }
}

pub(crate) fn sub_multiply_scalar(prime: &Prime, x: &mut [u64], y: &[u64], s: u64) {
    for (x, &y) in x.iter_mut().zip(y) {
        *x = prime.multiply(prime.sub(*x, y), s);
    }
}

pub(crate) fn tensor(prime: &Prime, d: [&mut [u64]; 3], a: [&[u64]; 2], b: [&[u64]; 2]) {
    let [d0, d1, d2] = d;
    for (i, ((d0, d1), d2)) in d0.iter_mut().zip(d1).zip(d2).enumerate() {
        let (a0, a1, b0, b1) = (a[0][i], a[1][i], b[0][i], b[1][i]);
        *d0 = prime.multiply(a0, b0);
        *d1 = prime.reduce_product(wide(a0, b1) + wide(a1, b0));
        *d2 = prime.multiply(a1, b1);
    }
}

pub(crate) fn reduce_signed(prime: &Prime, destination: &mut [u64], source: &[i64]) {
    // Secrets pass here: no branch and no division may depend on a value.
    let q = prime.value();
    let one = ((1u128 << 64) / u128::from(q)) as u64;
    for (destination, &source) in destination.iter_mut().zip(source) {
        let magnitude = source.unsigned_abs();
        let quotient = ((u128::from(magnitude) * u128::from(one)) >> 64) as u64;
        let r = magnitude.wrapping_sub(quotient.wrapping_mul(q));
        let r = r.min(r.wrapping_sub(q));
        let (negated, sign) = ((q - r).min((q - r).wrapping_sub(q)), (source >> 63) as u64);
        *destination = (r & !sign) | (negated & sign);
    }
}

pub(crate) fn inner_product<const ADD: bool>(
    prime: &Prime,
    sums: [&mut [u64]; 2],
    digits: &[&[u64]],
    keys: [&[&[u64]]; 2],
) {
    for (sum, keys) in sums.into_iter().zip(keys) {
        for (i, sum) in sum.iter_mut().enumerate() {
            let start = if ADD { *sum } else { 0 };
            // Four products at a time stay below 4q².
            *sum = digits.chunks(4).zip(keys.chunks(4)).fold(start, |sum, (digits, keys)| {
                let products = digits.iter().zip(keys).map(|(digit, key)| wide(digit[i], key[i])).sum();
                prime.add(sum, prime.reduce_product(products))
            });
        }
    }
}

pub(crate) fn automorphism<const ADD: bool>(
    prime: &Prime,
    destination: &mut [u64],
    source: &[u64],
    index: &[u32],
    permutations: &[[u64; 8]; 8],
) {
    let source = source.as_chunks::<8>().0;
    for (destination, &index) in destination.as_chunks_mut::<8>().0.iter_mut().zip(index) {
        let line = &source[index as usize / 8];
        for (destination, &lane) in destination.iter_mut().zip(&permutations[index as usize % 8]) {
            let word = line[lane as usize];
            *destination = if ADD { prime.add(*destination, word) } else { word };
        }
    }
}

/// Source columns to scaled columns: `y_i = x_i·(D/q_i)^−1 mod q_i`.
pub(crate) fn scale_sources(table: &ConvertTable, x: &[&[u64]], y: &mut [&mut [u64]]) {
    for (i, source) in table.sources.iter().enumerate() {
        for (y, &x) in y[i].iter_mut().zip(x[i]) {
            *y = source.prime.multiply(x, source.factor);
        }
    }
}

/// The rounded number of times that the sum of the scaled columns wraps around D.
pub(crate) fn count_wraps(table: &ConvertTable, y: &[&[u64]], wraps: &mut [u64]) {
    for (column, wraps) in wraps.iter_mut().enumerate() {
        let parts =
            table.sources.iter().zip(y).map(|(source, y)| (wide(y[column], source.ratio) >> 52) as u64);
        *wraps = (parts.sum::<u64>() + (1 << (table.weight - 1))) >> table.weight;
    }
}

/// One target limb from the scaled columns.
pub(crate) fn combine(table: &ConvertTable, target: usize, y: &[&[u64]], wraps: &[u64], out: &mut [u64]) {
    let target = &table.targets[target];
    let p = target.prime.value();
    for (column, (out, &wraps)) in out.iter_mut().zip(wraps).enumerate() {
        // Sixteen products below 2^100 and one below 2^54, still below 2^104.
        let products = y.iter().zip(&target.factors).map(|(y, &factor)| wide(y[column], factor));
        let sum = products.sum::<u128>() + wide(wraps, target.minus_product);
        let quotient = (sum as u64).wrapping_mul(target.prime.inverse52) & MASK52;
        let t = ((sum >> 52) as u64).wrapping_sub((wide(quotient, p) >> 52) as u64);
        // At worst in (−p, 0), a huge word.
        let t = t.min(t.wrapping_add(p));
        *out = (0..target.halvings).rev().fold(t, |t, k| reduce_once(t, p << k));
    }
}

#[inline(always)]
fn wide(x: u64, y: u64) -> u128 {
    u128::from(x) * u128::from(y)
}
