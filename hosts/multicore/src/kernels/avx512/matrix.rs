//! Outer products, transforms and transposition of lines.
//!
//! An outer product of two lines is sixteen multiply-accumulates into as many registers, for one load and eight
//! broadcasts: the two ports that multiply are busy every cycle. What follows a sum of T terms, a Montgomery step,
//! is paid once for T.

use core::arch::x86_64::*;

use super::super::matrix::Line;
use super::super::prime::Prime;
use super::vector::montgomery;
use super::{Modulus, V, butterfly, get, lift, product, reduce_once, set, splat, sum_and_difference};

/// Terms whose low and high halves stay below 2^62 in every lane.
const TERMS: usize = 1 << 10;

/// The dispatcher has checked the lengths.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(crate) fn outer_products<const MADD: bool>(
    prime: &Prime,
    terms: usize,
    left: &[Line],
    right: &[Line],
    out: &mut [Line],
) {
    let c = Modulus::<MADD>::new(prime.value());
    let inverse = _mm512_set1_epi64(prime.inverse52 as i64);
    let tiles = right.len() / terms;
    // The Montgomery step leaves at most terms·q/2^52 + 1 times q.
    let multiple = (terms.min(TERMS) as u64 * (prime.value() >> 20)) >> 32;
    let halvings = (multiple + 1).next_power_of_two().trailing_zeros();
    for (tile, right) in right.chunks_exact(terms).enumerate() {
        let left = if left.len() == terms { left } else { &left[tile * terms..][..terms] };
        for (run, (left, right)) in left.chunks(TERMS).zip(right.chunks(TERMS)).enumerate() {
            let (mut low, mut high) = ([c.zero; 8], [c.zero; 8]);
            for (left, right) in left.iter().zip(right) {
                let right = get(right);
                for i in 0..8 {
                    let word = _mm512_set1_epi64(left[i] as i64);
                    low[i] = _mm512_madd52lo_epu64(low[i], word, right);
                    high[i] = _mm512_madd52hi_epu64(high[i], word, right);
                }
            }
            for i in 0..8 {
                let mut sum = lift(&c, montgomery(&c, inverse, low[i], high[i]));
                for power in (0..halvings).rev() {
                    sum = reduce_once(sum, _mm512_sll_epi64(c.q, _mm_cvtsi32_si128(power as i32)));
                }
                let line = &mut out[i * tiles + tile];
                if run > 0 {
                    sum = reduce_once(_mm512_add_epi64(sum, get(line)), c.q);
                }
                set(line, sum);
            }
        }
    }
}

/// The dispatcher has checked the lengths.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(crate) fn interleave(rows: &[Line], out: &mut [&mut [u64]], at: usize, stride: usize) {
    let count = rows.len() / 8;
    for (j, out) in out.iter_mut().enumerate() {
        put(core::array::from_fn(|i| get(&rows[i * count + j])), &mut out[at..], stride);
    }
}

/// Eight rows of a line to eight columns, `stride` words apart.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn put(rows: [V; 8], out: &mut [u64], stride: usize) {
    for (lane, line) in transpose(rows).into_iter().enumerate() {
        if let Some(out) = out[lane * stride..].first_chunk_mut() {
            set(out, line);
        }
    }
}

/// Rows to columns: pairs of words, then pairs of pairs, then halves.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn transpose(rows: [V; 8]) -> [V; 8] {
    let mut columns = rows;
    for odd in 0..2 {
        let pair = |i: usize| match odd {
            0 => _mm512_unpacklo_epi64(rows[i], rows[i + 1]),
            _ => _mm512_unpackhi_epi64(rows[i], rows[i + 1]),
        };
        let (a, b, c, d) = (pair(0), pair(2), pair(4), pair(6));
        let (top, bottom) = (_mm512_shuffle_i64x2::<0x88>(a, b), _mm512_shuffle_i64x2::<0x88>(c, d));
        columns[odd] = _mm512_shuffle_i64x2::<0x88>(top, bottom);
        columns[4 + odd] = _mm512_shuffle_i64x2::<0xdd>(top, bottom);
        let (top, bottom) = (_mm512_shuffle_i64x2::<0xdd>(a, b), _mm512_shuffle_i64x2::<0xdd>(c, d));
        columns[2 + odd] = _mm512_shuffle_i64x2::<0x88>(top, bottom);
        columns[6 + odd] = _mm512_shuffle_i64x2::<0xdd>(top, bottom);
    }
    columns
}

/// Decimation in frequency: sums and twisted differences, the longest distance first, `[0, 2q)` between stages.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(crate) fn forward<const MADD: bool>(prime: &Prime, roots: &[(u64, u64)], x: &mut [Line]) {
    let c = Modulus::<MADD>::new(prime.value());
    let mut half = x.len() / 2;
    while half > 0 {
        for block in x.chunks_exact_mut(2 * half) {
            let (low, high) = block.split_at_mut(half);
            for ((low, high), &root) in low.iter_mut().zip(high).zip(&roots[half..]) {
                let (u, v) = (get(low), get(high));
                let difference = _mm512_sub_epi64(_mm512_add_epi64(u, c.q2), v);
                set(low, reduce_once(_mm512_add_epi64(u, v), c.q2));
                set(high, product(&c, c.q, difference, splat(root)));
            }
        }
        half /= 2;
    }
    for line in x {
        set(line, reduce_once(get(line), c.q));
    }
}

/// Decimation in time, the shortest distance first, in passes of three stages. The last stage makes sums only.
///
/// A product moves a word by less than q. So up to seven stages modulo a prime below 2^48 stay below 16q, which is 52
/// bits, and reduce once at the end; [`inverse_pass`] says where they begin. Others take Harvey's butterflies and keep
/// `[0, 4q)`.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(crate) fn inverse_half<const MADD: bool>(prime: &Prime, roots: &[(u64, u64)], x: &mut [Line]) {
    let c = Modulus::<MADD>::new(prime.value());
    if is_lazy(prime, x.len()) {
        inverse_stages::<true, MADD>(&c, roots, x);
        (0..x.len() / 2).for_each(|j| x[j] = line(last_stage::<true, MADD>(&c, roots, x, j)));
    } else {
        inverse_stages::<false, MADD>(&c, roots, x);
        (0..x.len() / 2).for_each(|j| x[j] = line(last_stage::<false, MADD>(&c, roots, x, j)));
    }
}

/// [`inverse_half`] of eight rows, whose last stage goes straight to its place: the stores, far apart, then overlap
/// with arithmetic. The dispatcher has checked the lengths.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(crate) fn inverse_interleave<const MADD: bool>(
    prime: &Prime,
    roots: &[(u64, u64)],
    rows: &mut [Line],
    out: &mut [&mut [u64]],
    at: usize,
    stride: usize,
) {
    if is_lazy(prime, roots.len()) {
        inverse_places::<true, MADD>(prime, roots, rows, out, at, stride);
    } else {
        inverse_places::<false, MADD>(prime, roots, rows, out, at, stride);
    }
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn inverse_places<const LAZY: bool, const MADD: bool>(
    prime: &Prime,
    roots: &[(u64, u64)],
    rows: &mut [Line],
    out: &mut [&mut [u64]],
    at: usize,
    stride: usize,
) {
    let c = Modulus::<MADD>::new(prime.value());
    let count = roots.len();
    for row in rows.chunks_exact_mut(count) {
        inverse_stages::<LAZY, MADD>(&c, roots, row);
    }
    for (j, out) in out.iter_mut().enumerate() {
        let mut lines = [c.zero; 8];
        for (line, row) in lines.iter_mut().zip(rows.chunks_exact(count)) {
            *line = last_stage::<LAZY, MADD>(&c, roots, row, j);
        }
        put(lines, &mut out[at..], stride);
    }
}

fn is_lazy(prime: &Prime, length: usize) -> bool {
    prime.bits() <= 48 && length <= 1 << 7
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn line(v: V) -> Line {
    let mut line = [0; 8];
    set(&mut line, v);
    line
}

/// All stages but the last.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn inverse_stages<const LAZY: bool, const MADD: bool>(
    c: &Modulus<MADD>,
    roots: &[(u64, u64)],
    x: &mut [Line],
) {
    let last = x.len() / 2;
    let mut half = 1;
    while half < last {
        half *= match ((last / half).trailing_zeros() % 3, half) {
            (1, 1) => inverse_pass::<LAZY, true, 2, MADD>(c, roots, x, half),
            (2, 1) => inverse_pass::<LAZY, true, 4, MADD>(c, roots, x, half),
            (_, 1) => inverse_pass::<LAZY, true, 8, MADD>(c, roots, x, half),
            _ => inverse_pass::<LAZY, false, 8, MADD>(c, roots, x, half),
        };
    }
}

/// Line j of the first half after the last stage, canonical; it takes (q, 15q), or `[0, 4q)`.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn last_stage<const LAZY: bool, const MADD: bool>(
    c: &Modulus<MADD>,
    roots: &[(u64, u64)],
    x: &[Line],
    j: usize,
) -> V {
    let last = x.len() / 2;
    let mut sum = product(c, _mm512_add_epi64(get(&x[j]), c.q), get(&x[last + j]), splat(roots[last + j]));
    if LAZY {
        sum = reduce_once(sum, c.q8);
    }
    sum = reduce_once(reduce_once(sum, c.q4), c.q2);
    reduce_once(sum, c.q)
}

/// log2 R stages from distance `half` on; R. The `FIRST` pass has distance 1 and takes canonical words.
///
/// The roots of its stages begin with 1, so the first pair of each needs no product: the range of a sum doubles
/// instead, to `[0, 8q)` after three stages, and 3q are added at the end.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn inverse_pass<const LAZY: bool, const FIRST: bool, const R: usize, const MADD: bool>(
    c: &Modulus<MADD>,
    roots: &[(u64, u64)],
    x: &mut [Line],
    half: usize,
) -> usize {
    let multiples = [c.q, c.q2, c.q4];
    let q3 = _mm512_add_epi64(c.q, c.q2);
    for j in 0..half {
        // Stage s joins lines at distance half·2^s: 2^s roots, of which entry m belongs to distance m·half + j.
        let w: [[V; 2]; 7] = core::array::from_fn(|k| {
            let k = k.min(R - 2);
            let first = 1 << (k + 1).ilog2();
            splat(roots[first * half + (k + 1 - first) * half + j])
        });
        for block in x.chunks_exact_mut(R * half) {
            let mut v: [V; R] = core::array::from_fn(|m| get(&block[m * half + j]));
            for stage in 0..R.ilog2() {
                let distance = 1 << stage;
                for pair in 0..R >> (stage + 1) {
                    for m in 0..distance {
                        let at = 2 * distance * pair + m;
                        let (x, y) = (v[at], v[at + distance]);
                        (v[at], v[at + distance]) = if LAZY && FIRST && m == 0 {
                            let lifted = _mm512_add_epi64(x, multiples[stage as usize]);
                            (_mm512_add_epi64(x, y), _mm512_sub_epi64(lifted, y))
                        } else if LAZY {
                            let x = if FIRST { _mm512_add_epi64(x, c.q) } else { x };
                            sum_and_difference(c, x, y, w[distance - 1 + m])
                        } else {
                            butterfly(c, x, y, w[distance - 1 + m])
                        };
                    }
                }
            }
            for (m, v) in v.into_iter().enumerate() {
                let v = if LAZY && FIRST { _mm512_add_epi64(v, q3) } else { v };
                set(&mut block[m * half + j], v);
            }
        }
    }
    R
}
