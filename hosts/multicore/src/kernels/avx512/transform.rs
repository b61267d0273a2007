//! One tile of a transform: every step, then every sum, eight words at a time.
//!
//! The tiles of the steps keep the factor 2^−52 of their Montgomery step; the sums' own step makes that 2^−104,
//! and a single product takes it out. Multiply-accumulates for eight columns, d digits, B steps and G sums:
//! B·(4d + 6) for the steps (two for x, four to reduce), 4·B·G for the products and 10·G to reduce; the port does
//! two a cycle.

use core::arch::x86_64::*;

use super::super::automorphism::Automorphism;
use super::super::prime::Prime;
use super::super::transform::{Transform, TransformStep};
use super::super::vector::MAX_DIGITS;
use super::vector::montgomery;
use super::{Modulus, V, get, lift, load, product, reduce_once, set, splat, store};

/// The prime, and what takes powers of 2^52 in and out.
struct Constants<const MADD: bool> {
    c: Modulus<MADD>,
    inverse: V,
}

impl<const MADD: bool> Constants<MADD> {
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn new(prime: &Prime) -> Self {
        let inverse = _mm512_set1_epi64(prime.inverse52 as i64);
        Self { c: Modulus::new(prime.value()), inverse }
    }

    /// A sum of products times 2^−52, below q·2^[`excess`].
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn reduce(&self, low: V, high: V) -> V {
        lift(&self.c, montgomery(&self.c, self.inverse, low, high))
    }

    /// Below 2^(power + 1)·q to below 2^power·q.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn halve(&self, x: V, power: u32) -> V {
        reduce_once(x, _mm512_sll_epi64(self.c.q, _mm_cvtsi32_si128(power as i32)))
    }
}

/// Halvings that bring what the Montgomery step leaves of `terms` products below q: it leaves less than terms/4·q,
/// because the sum is below terms·q² and q below 2^50.
fn excess(terms: usize) -> u32 {
    terms.div_ceil(4).next_power_of_two().trailing_zeros()
}

/// The columns of `tiles` and `sums`, from `at` on. Lengths are checked by the caller.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(crate) fn tile<const MADD: bool>(
    transform: &Transform<'_>,
    at: usize,
    tiles: &mut [[&mut [u64]; 2]],
    sums: &mut [[&mut [u64]; 2]],
) {
    let length = tiles[0][0].len();
    for (b, (step, tiles)) in transform.steps.iter().zip(tiles.iter_mut()).enumerate() {
        match step {
            TransformStep::Identity(x, p) => identity::<MADD>(transform.prime, at, tiles, *x, *p),
            TransformStep::Switch { map, key } => {
                let rest = transform.steps[b + 1..].iter().map(|step| (step, at));
                let again = transform.steps[..=b].iter().map(|step| (step, at + length));
                let next = rest.chain(again).find_map(|(step, at)| source(step, at, length));
                switch::<MADD>(transform, map, key, at, next, tiles);
            }
        }
    }
    let count = tiles.len();
    for (sums, factors) in sums.chunks_mut(GROUP).zip(transform.factors.chunks(GROUP * count)) {
        match sums.len() {
            4 => products::<4, MADD>(transform, at, factors, tiles, sums),
            3 => products::<3, MADD>(transform, at, factors, tiles, sums),
            2 => products::<2, MADD>(transform, at, factors, tiles, sums),
            _ => products::<1, MADD>(transform, at, factors, tiles, sums),
        }
    }
}

/// Sums that share the loads of a tile: four accumulators each.
const GROUP: usize = 4;

/// P·x·2^−52.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn identity<const MADD: bool>(prime: &Prime, at: usize, tiles: &mut [&mut [u64]; 2], x: [&[u64]; 2], p: u64) {
    let c = Modulus::<MADD>::new(prime.value());
    let radix = prime.inverse(prime.reduce(1 << 52));
    let w = splat(prime.montgomery(prime.multiply(p, radix)));
    for (tile, x) in tiles.iter_mut().zip(x) {
        let x = &x[at..at + tile.len()];
        for (tile, x) in tile.as_chunks_mut::<8>().0.iter_mut().zip(x.as_chunks::<8>().0) {
            set(tile, lift(&c, product(&c, c.zero, get(x), w)));
        }
    }
}

/// Both halves of a key.
type Key<'a> = [Vec<&'a [u64]>; 2];

/// The key of a step, and where the source of the tile at `at` starts.
fn source<'t, 'a>(step: &'t TransformStep<'a>, at: usize, length: usize) -> Option<(&'t Key<'a>, usize)> {
    let TransformStep::Switch { map, key } = step else { return None };
    map.index.get(at / 8).map(|&index| (key, index as usize & !(length - 1)))
}

/// (Σ_d digit_d ⊙ key_d + P·x)·2^−52 under the automorphism: lines are fetched where the map says. That order is
/// none the processor would guess, so the source of the `next` tile is fetched while this one is computed.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn switch<const MADD: bool>(
    transform: &Transform<'_>,
    map: &Automorphism,
    key: &Key<'_>,
    at: usize,
    next: Option<(&Key<'_>, usize)>,
    tiles: &mut [&mut [u64]; 2],
) {
    let k = Constants::<MADD>::new(transform.prime);
    let c = &k.c;
    let count = transform.digits.len();
    let mut terms = [[core::ptr::null::<u64>(); 3]; MAX_DIGITS];
    for (d, term) in terms[..count].iter_mut().enumerate() {
        *term = [transform.digits[d], key[0][d], key[1][d]].map(<[u64]>::as_ptr);
    }
    let mut ahead = [core::ptr::null::<u64>(); 3 * MAX_DIGITS + 1];
    let mut streams = 0;
    if let Some((key, from)) = next {
        let x = transform.x.map(|(x, _)| x);
        for limb in key.iter().flatten().chain(&transform.digits).copied().chain(x) {
            ahead[streams] = limb[from..].as_ptr();
            streams += 1;
        }
    }
    let x = transform.x.map(|(x, p)| (x.as_ptr(), _mm512_set1_epi64(p as i64)));
    let halvings = excess(count + 1);
    let [tile0, tile1] = tiles.each_mut().map(|tile| tile.as_chunks_mut::<8>().0);
    let index = &map.index[at / 8..][..tile0.len()];
    for (i, ((tile0, tile1), &index)) in tile0.iter_mut().zip(tile1).zip(index).enumerate() {
        let line = index as usize & !7;
        let (mut low, mut high) = ([c.zero; 2], [c.zero; 2]);
        // SAFETY: the map's lines are those of a limb, and every limb has as many words as the map; fetching ahead
        // touches no memory.
        unsafe {
            for &limb in &ahead[..streams] {
                _mm_prefetch::<_MM_HINT_T0>(limb.wrapping_add(8 * i).cast());
            }
            if let Some((x, p)) = x {
                let x = load(x.add(line));
                low[0] = _mm512_madd52lo_epu64(low[0], x, p);
                high[0] = _mm512_madd52hi_epu64(high[0], x, p);
            }
            for term in &terms[..count] {
                let [digit, key0, key1] =
                    [load(term[0].add(line)), load(term[1].add(line)), load(term[2].add(line))];
                low[0] = _mm512_madd52lo_epu64(low[0], digit, key0);
                high[0] = _mm512_madd52hi_epu64(high[0], digit, key0);
                low[1] = _mm512_madd52lo_epu64(low[1], digit, key1);
                high[1] = _mm512_madd52hi_epu64(high[1], digit, key1);
            }
        }
        let permutation = get(&map.permutations[index as usize % 8]);
        for (half, tile) in [tile0, tile1].into_iter().enumerate() {
            let mut t = k.reduce(low[half], high[half]);
            for power in (0..halvings).rev() {
                t = k.halve(t, power);
            }
            set(tile, _mm512_permutexvar_epi64(permutation, t));
        }
    }
}

/// `G` sums of one tile, with factors in the order of the sums.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn products<const G: usize, const MADD: bool>(
    transform: &Transform<'_>,
    at: usize,
    factors: &[&[u64]],
    tiles: &[[&mut [u64]; 2]],
    sums: &mut [[&mut [u64]; 2]],
) {
    match transform.repeat {
        1 => lines::<G, WHOLE, MADD>(transform, at, factors, tiles, sums),
        2 | 4 => lines::<G, SPREAD, MADD>(transform, at, factors, tiles, sums),
        _ => lines::<G, BROADCAST, MADD>(transform, at, factors, tiles, sums),
    }
}

/// Every word of a line is stored.
const WHOLE: u8 = 0;
/// Some words of a line are stored.
const SPREAD: u8 = 1;
/// One word serves a line, or several.
const BROADCAST: u8 = 2;

/// Words between what is used of a factor and what is fetched.
const AHEAD: usize = 64;

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn lines<const G: usize, const KIND: u8, const MADD: bool>(
    transform: &Transform<'_>,
    at: usize,
    factors: &[&[u64]],
    tiles: &[[&mut [u64]; 2]],
    sums: &mut [[&mut [u64]; 2]],
) {
    let k = Constants::<MADD>::new(transform.prime);
    let c = &k.c;
    let radix = splat(transform.prime.montgomery(transform.prime.reduce(1 << 104)));
    let shift = transform.repeat.trailing_zeros();
    let (steps, length) = (tiles.len(), tiles[0][0].len());
    assert!(sums.len() == G && factors.len() == G * steps);
    assert!(factors.iter().all(|factor| factor.len() >= (at + length) >> shift));
    assert!(tiles.iter().flatten().all(|tile| tile.len() == length));
    let halvings = excess(steps);
    let lanes = _mm512_srl_epi64(_mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7), _mm_cvtsi32_si128(shift as i32));
    let stored = 0xff_u8 >> (8 - (8 >> shift.min(3)));
    let mut out = [[core::ptr::null_mut::<u64>(); 2]; G];
    for (out, pair) in out.iter_mut().zip(sums) {
        assert!(pair.iter().all(|sum| sum.len() == length));
        *out = pair.each_mut().map(|sum| sum.as_mut_ptr());
    }
    for column in (0..length).step_by(8) {
        let mut low = [[c.zero; 2]; G];
        let mut high = [[c.zero; 2]; G];
        let word = (at + column) >> shift;
        for (b, tile) in tiles.iter().enumerate() {
            // SAFETY: a line of a tile.
            let r = [0, 1].map(|h| unsafe { load(tile[h].as_ptr().add(column)) });
            for g in 0..G {
                // SAFETY: there are G·steps factors, and each has the words of this line.
                let f = unsafe {
                    let factor = factors.get_unchecked(g * steps + b).as_ptr().add(word);
                    match KIND {
                        WHOLE => {
                            // More streams than the processor follows by itself.
                            _mm_prefetch::<_MM_HINT_T0>(factor.wrapping_add(AHEAD).cast());
                            load(factor)
                        }
                        SPREAD => {
                            let words = _mm512_maskz_loadu_epi64(stored, factor.cast());
                            _mm512_permutexvar_epi64(lanes, words)
                        }
                        _ => _mm512_set1_epi64(*factor as i64),
                    }
                };
                for h in 0..2 {
                    low[g][h] = _mm512_madd52lo_epu64(low[g][h], f, r[h]);
                    high[g][h] = _mm512_madd52hi_epu64(high[g][h], f, r[h]);
                }
            }
        }
        for g in 0..G {
            for h in 0..2 {
                let mut t = k.reduce(low[g][h], high[g][h]);
                // Below 4q a product takes it as it is.
                for power in (2..halvings).rev() {
                    t = k.halve(t, power);
                }
                let t = lift(c, product(c, c.zero, t, radix));
                // SAFETY: a line of a sum.
                unsafe { store(out[g][h].add(column), t) };
            }
        }
    }
}
