//! The kernels on lines in plain integers.

use super::matrix::Line;
use super::prime::{Prime, reduce_once};
use super::scalar_ntt::multiply_lazy;

pub(crate) fn outer_products(prime: &Prime, terms: usize, left: &[Line], right: &[Line], out: &mut [Line]) {
    let tiles = right.len() / terms;
    for (tile, right) in right.chunks_exact(terms).enumerate() {
        let left = if left.len() == terms { left } else { &left[tile * terms..][..terms] };
        for i in 0..8 {
            let mut sums = [0u128; 8];
            for (left, right) in left.iter().zip(right) {
                for (sum, &word) in sums.iter_mut().zip(right) {
                    *sum += u128::from(left[i]) * u128::from(word);
                }
            }
            out[i * tiles + tile] = sums.map(|sum| prime.reduce(sum));
        }
    }
}

pub(crate) fn interleave(rows: &[Line], out: &mut [&mut [u64]], at: usize, stride: usize) {
    let count = rows.len() / 8;
    for (j, out) in out.iter_mut().enumerate() {
        for lane in 0..8 {
            for (i, word) in out[at + stride * lane..][..8].iter_mut().enumerate() {
                *word = rows[i * count + j][lane];
            }
        }
    }
}

/// Decimation in frequency: sums and twisted differences, the longest distance first.
pub(crate) fn forward(prime: &Prime, roots: &[(u64, u64)], x: &mut [Line]) {
    let q = prime.value();
    let mut half = x.len() / 2;
    while half > 0 {
        for block in x.chunks_exact_mut(2 * half) {
            let (low, high) = block.split_at_mut(half);
            for ((low, high), &root) in low.iter_mut().zip(high).zip(&roots[half..]) {
                for (u, v) in low.iter_mut().zip(high) {
                    let difference = *u + q - *v;
                    *u = prime.add(*u, *v);
                    *v = reduce_once(multiply_lazy(q, difference, root), q);
                }
            }
        }
        half /= 2;
    }
}

/// Decimation in time, the shortest distance first. The last stage makes sums only.
pub(crate) fn inverse_half(prime: &Prime, roots: &[(u64, u64)], x: &mut [Line]) {
    let q = prime.value();
    let mut half = 1;
    while half < x.len() {
        for block in x.chunks_exact_mut(2 * half) {
            let (low, high) = block.split_at_mut(half);
            for ((low, high), &root) in low.iter_mut().zip(high).zip(&roots[half..]) {
                for (u, v) in low.iter_mut().zip(high) {
                    let twisted = reduce_once(multiply_lazy(q, *v, root), q);
                    (*u, *v) = (prime.add(*u, twisted), prime.sub(*u, twisted));
                }
            }
        }
        half *= 2;
    }
}
