//! Basis conversion, eight columns at a time: two multiply-accumulates per source and target, then one
//! Montgomery step whose factor is already in the table.

use core::arch::x86_64::*;

use super::super::convert::{ConvertTable, Target};
use super::vector::montgomery;
use super::{Modulus, V, get, lift, load, product, reduce_once, set, splat};

/// `y_i = x_i·(D/q_i)^−1 mod q_i`. Lengths are checked by the caller.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(crate) fn scale_sources<const MADD: bool>(table: &ConvertTable, x: &[&[u64]], y: &mut [&mut [u64]]) {
    for ((source, x), y) in table.sources.iter().zip(x).zip(y) {
        let c = Modulus::<MADD>::new(source.prime.value());
        let w = splat(source.montgomery);
        for (x, y) in x.as_chunks::<8>().0.iter().zip(y.as_chunks_mut::<8>().0) {
            set(y, lift(&c, product(&c, c.zero, get(x), w)));
        }
    }
}

/// How often the sum of the `y_i` wraps around D. Lengths are checked by the caller.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(crate) fn count_wraps<const MADD: bool>(table: &ConvertTable, y: &[&[u64]], wraps: &mut [u64]) {
    let half = _mm512_set1_epi64(1 << (table.weight - 1));
    let weight = _mm_cvtsi64_si128(i64::from(table.weight));
    for (line, wraps) in wraps.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let mut sum = half;
        for (source, y) in table.sources.iter().zip(y) {
            let ratio = _mm512_set1_epi64(source.ratio as i64);
            sum = _mm512_madd52hi_epu64(sum, get(&y.as_chunks::<8>().0[line]), ratio);
        }
        set(wraps, _mm512_srl_epi64(sum, weight));
    }
}

/// One target limb. Lengths are checked by the caller.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(crate) fn combine<const MADD: bool>(
    table: &ConvertTable,
    target: usize,
    y: &[&[u64]],
    wraps: &[u64],
    out: &mut [u64],
    ahead: [&[u64]; 2],
) {
    let target = &table.targets[target];
    /// The smallest unrolled length that holds the sources.
    macro_rules! unrolled {
        ($($count:literal)*) => {
            match y.len() {
                $($count => combine_unrolled::<$count, MADD>(target, y, wraps, out, ahead),)*
                count => unreachable!("a table has 1 to 16 sources, not {count}"),
            }
        };
    }
    unrolled!(1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16);
}

/// [`combine`] for `K` sources, so that the factors stay in registers.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn combine_unrolled<const K: usize, const MADD: bool>(
    target: &Target,
    y: &[&[u64]],
    wraps: &[u64],
    out: &mut [u64],
    ahead: [&[u64]; 2],
) {
    let c = Modulus::<MADD>::new(target.prime.value());
    let inverse = _mm512_set1_epi64(target.prime.inverse52 as i64);
    let minus_product = _mm512_set1_epi64(target.minus_product as i64);
    let mut columns = [core::ptr::null::<u64>(); K];
    let mut factors = [c.zero; K];
    let ahead = ahead.map(|run| if run.is_empty() { out.as_ptr() } else { run.as_ptr() });
    for k in 0..K {
        assert_eq!(y[k].len(), out.len());
        columns[k] = y[k].as_ptr();
        factors[k] = _mm512_set1_epi64(target.factors[k] as i64);
    }
    for (line, (out, wraps)) in
        out.as_chunks_mut::<8>().0.iter_mut().zip(wraps.as_chunks::<8>().0).enumerate()
    {
        let wraps = get(wraps);
        for run in ahead {
            _mm_prefetch::<_MM_HINT_T1>(run.wrapping_add(8 * line).cast());
        }
        // At most 16 wraps of 50 bits: the low sum has room for all of them, but multiply-accumulate cuts at 52.
        let (mut low, mut high) = if MADD {
            (c.low(wraps, minus_product), _mm512_madd52hi_epu64(c.zero, wraps, minus_product))
        } else {
            (_mm512_mullo_epi64(wraps, minus_product), c.zero)
        };
        // Two chains of each, half as long.
        let mut others = (c.zero, c.zero);
        for k in 0..K {
            // SAFETY: every limb has as many words as the output, and this is one of their lines.
            let y: V = unsafe { load(columns[k].add(8 * line)) };
            let (low, high) = if k % 2 == 0 { (&mut low, &mut high) } else { (&mut others.0, &mut others.1) };
            *low = _mm512_madd52lo_epu64(*low, y, factors[k]);
            *high = _mm512_madd52hi_epu64(*high, y, factors[k]);
        }
        low = _mm512_add_epi64(low, others.0);
        high = _mm512_add_epi64(high, others.1);
        let mut t = lift(&c, montgomery(&c, inverse, low, high));
        if target.halvings > 2 {
            t = reduce_once(t, c.q4);
        }
        if target.halvings > 1 {
            t = reduce_once(t, c.q2);
        }
        if target.halvings > 0 {
            t = reduce_once(t, c.q);
        }
        set(out, t);
    }
}
