//! Horner's rule for all points of a few lines at once: the rows of these lines stay in the first-level cache, and the
//! chains of eight lines hide each other's latency. A step is one Montgomery product, whose offset is the row.

use core::arch::x86_64::*;

use super::super::aligned::AlignedWords;
use super::super::matrix::Line;
use super::super::prime::Prime;
use super::{Modulus, V, get, lift, product, reduce_once, set, splat};

/// Lines that are worked on together.
const LINES: usize = 8;

/// The dispatcher has checked the lengths.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(crate) fn odd_power_sums<const MADD: bool>(
    prime: &Prime,
    x: &[u64],
    rows: &[&[u64]],
    sums: &mut [&mut [u64]],
) {
    let mut lifted = AlignedWords::zeroed(LINES * rows.len());
    let lines = x.len() / 8;
    for from in (0..lines / LINES * LINES).step_by(LINES) {
        run::<LINES, MADD>(prime, x, rows, sums, from, lifted.lines_mut());
    }
    for from in lines / LINES * LINES..lines {
        run::<1, MADD>(prime, x, rows, sums, from, lifted.lines_mut());
    }
}

/// L lines from line `from` on. `lifted` is room for as many lines of every row.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn run<const L: usize, const MADD: bool>(
    prime: &Prime,
    x: &[u64],
    rows: &[&[u64]],
    sums: &mut [&mut [u64]],
    from: usize,
    lifted: &mut [Line],
) {
    let c = Modulus::<MADD>::new(prime.value());
    let inverse = _mm512_set1_epi64(prime.inverse52 as i64);
    let lifted = &mut lifted[..L * rows.len()];
    // Row + q: a product moves it by less than q, so that sums stay between 0 and 3q.
    for (lifted, row) in lifted.chunks_exact_mut(L).zip(rows) {
        for (lifted, line) in lifted.iter_mut().zip(&row.as_chunks::<8>().0[from..]) {
            set(lifted, _mm512_add_epi64(get(line), c.q));
        }
    }
    let radix = splat(prime.montgomery(prime.negate(prime.reduce(1 << 52))));
    let pair = |factor: V| [factor, c.low(factor, inverse)];
    let (mut power, mut square) = ([[c.zero; 2]; L], [[c.zero; 2]; L]);
    for (l, line) in x.as_chunks::<8>().0[from..from + L].iter().enumerate() {
        // −x·2^52 is the factor of x, and what it makes of itself that of x².
        power[l] = pair(lift(&c, product(&c, c.zero, get(line), radix)));
        square[l] = pair(lift(&c, product(&c, c.zero, power[l][0], power[l])));
    }
    for sum in sums {
        let mut total = [c.zero; L];
        for row in lifted.chunks_exact(L).rev() {
            for l in 0..L {
                total[l] = product(&c, get(&row[l]), total[l], power[l]);
            }
        }
        for (l, line) in sum.as_chunks_mut::<8>().0[from..from + L].iter_mut().enumerate() {
            set(line, reduce_once(reduce_once(total[l], c.q2), c.q));
            power[l] = pair(lift(&c, product(&c, c.zero, power[l][0], square[l])));
        }
    }
}
