//! The negacyclic transform: passes of radix 2, 4 or 8 over memory, then a tail on 64 contiguous words.
//!
//! Stages whose butterflies join whole vectors take scalar twiddles, packed per pass and group in the order of
//! use. Outer passes sweep the whole limb (in L2); once a block fits L1, all its remaining passes run before
//! the next block is touched. The tail ([`super::tail`]) does the last six stages in registers and needs only
//! 24 words of table per 64 coefficients: 3N bytes instead of the usual 16N. With thirty primes in play the
//! tables would otherwise cost more memory traffic than the data.
//!
//! Ranges between passes: forward `[0, 4q)`, or `[0, 16q)` for `q < 2^48`, where the first stage of a pass
//! brings half its inputs down and the others reduce nothing; inverse `[0, 2q)`. All below 2^52.

use core::arch::x86_64::*;
use core::ops::Range;

use super::super::KernelError;
use super::super::aligned::AlignedWords;
use super::super::prime::{Prime, bit_reverse};
use super::{
    Modulus, V, butterfly, get, load, product, reduce_once, set, splat, splat_pair, store,
    sum_and_difference, tail,
};

/// Words of a limb that seldom lies in a near cache before it is transformed.
const LARGE: usize = 1 << 16;
/// How many words before they are loaded the first pass of such a limb fetches its rows.
const NEAR: usize = 64;

/// Smallest log2 N: one block of the tail.
pub(crate) const MIN_LOG: u32 = 6;

/// Memory to fetch into the second-level cache while a block is transformed. Transforms compute for longer than it takes to
/// fetch twice their words, and what comes before and after them in a key switch does little else than wait for memory.
pub(super) struct Ahead {
    next: [*const u64; 2],
    anything: bool,
}

impl Ahead {
    /// A block of 2^12 words takes 192 steps: this many lines of each run at every step fetch as many words and an eighth more.
    const LINES: usize = 3;

    /// From these words on, as far as the steps reach; past the end of what can be read a fetch does nothing.
    pub(super) fn new(runs: Option<[*const u64; 2]>) -> Self {
        Self { next: runs.unwrap_or([core::ptr::null(); 2]), anything: runs.is_some() }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn step(&mut self) {
        if self.anything {
            for run in &mut self.next {
                for line in 0..Self::LINES {
                    _mm_prefetch::<_MM_HINT_T1>(run.wrapping_add(8 * line).cast());
                }
                *run = run.wrapping_add(8 * Self::LINES);
            }
        }
    }
}

/// One sweep: `log` stages at once, on `groups` groups of words.
#[derive(Clone, Copy, Debug)]
struct Pass {
    log: u32,
    groups: usize,
    /// First word of its twiddles; `2^(log + 1)` words per group.
    offset: usize,
}

/// Twiddles of one prime and degree in the order this transform reads them. Both directions share the table:
/// an inverse twiddle is minus the forward one at the mirrored group.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    log: u32,
    passes: Vec<Pass>,
    /// The passes that sweep the whole limb; the others stay within a block.
    outer: usize,
    twiddles: AlignedWords,
    tail: tail::Table,
}

/// How many stages each pass takes, and how many passes come before the blocks of at most 2^12 words (32 KiB),
/// which stay in L1 with their tables.
fn plan(log: u32) -> (&'static [u32], usize) {
    match log - MIN_LOG {
        0 => (&[], 0),
        1 => (&[1], 0),
        2 => (&[2], 0),
        3 => (&[3], 0),
        4 => (&[2, 2], 0),
        5 => (&[3, 2], 0),
        6 => (&[3, 3], 0),
        7 => (&[3, 2, 2], 1),
        8 => (&[2, 3, 3], 1),
        9 => (&[3, 3, 3], 1),
        10 => (&[2, 2, 3, 3], 2),
        _ => (&[3, 2, 3, 3], 2),
    }
}

impl Table {
    /// Lays out the twiddles of `prime` for degree `2^log`, `6 ≤ log ≤ 17`.
    pub(crate) fn new(prime: &Prime, log: u32) -> Result<Self, KernelError> {
        let psi = prime.root(1 << log)?;
        let (stages, outer) = plan(log);
        let mut words = Vec::new();
        let mut passes = Vec::with_capacity(stages.len());
        let mut depth = 0;
        for &stage_count in stages {
            let groups = 1usize << depth;
            passes.push(Pass { log: stage_count, groups, offset: words.len() });
            for group in 0..groups {
                let start = words.len();
                for stage in 0..stage_count {
                    let first = (groups + group) << stage;
                    for index in first..first + (1 << stage) {
                        let w = prime.power(psi, bit_reverse(index, log) as u64);
                        let (factor, quotient) = prime.montgomery(w);
                        words.extend([factor, quotient]);
                    }
                }
                words.resize(start + (2 << stage_count), 0);
            }
            depth += stage_count;
        }
        Ok(Self {
            log,
            passes,
            outer,
            twiddles: AlignedWords::new(&words),
            tail: tail::Table::new(prime, psi, log),
        })
    }

    /// Natural order in, bit-reversed order out, canonical on both sides.
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(crate) fn forward<const MADD: bool>(&self, prime: &Prime, x: &mut [u64]) {
        assert_eq!(x.len(), 1 << self.log, "a limb has N words");
        self.forward_outer::<MADD>(prime, x);
        let block_words = x.len() / self.blocks();
        for (block, words) in x.chunks_exact_mut(block_words).enumerate() {
            self.forward_block::<MADD>(prime, words, block, None);
        }
    }

    /// The outer passes.
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(crate) fn forward_outer<const MADD: bool>(&self, prime: &Prime, x: &mut [u64]) {
        let c = Modulus::<MADD>::new(prime.value());
        for index in 0..self.outer {
            let (groups, mut ahead) = (0..self.passes[index].groups, Ahead::new(None));
            if prime.bits() <= 48 {
                self.forward_pass::<true, MADD>(&c, index, x, groups, &mut ahead);
            } else {
                self.forward_pass::<false, MADD>(&c, index, x, groups, &mut ahead);
            }
        }
    }

    /// What the outer passes leave to be done, on the `block`-th of the blocks, while as many words are fetched `ahead`.
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(crate) fn forward_block<const MADD: bool>(
        &self,
        prime: &Prime,
        words: &mut [u64],
        block: usize,
        ahead: Option<[*const u64; 2]>,
    ) {
        assert!(words.len() << self.blocks().trailing_zeros() == 1 << self.log && block < self.blocks());
        if prime.bits() <= 48 {
            self.forward_inner::<true, MADD>(prime, words, block, ahead);
        } else {
            self.forward_inner::<false, MADD>(prime, words, block, ahead);
        }
    }

    /// Bit-reversed order in (`values`, or `x`), natural order out, scaled by factor/N, canonical on both sides.
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(crate) fn inverse<const MADD: bool>(
        &self,
        prime: &Prime,
        values: Option<&[u64]>,
        x: &mut [u64],
        factor: u64,
    ) {
        assert!(x.len() == 1 << self.log && values.is_none_or(|v| v.len() == x.len()), "a limb has N words");
        let c = Modulus::<MADD>::new(prime.value());
        let (block_count, large) = (self.blocks(), x.len() >= LARGE);
        let block_words = x.len() / block_count;
        let twists = self.tail.inverse_twists(&c, prime, factor);
        for block in 0..block_count {
            let words = &mut x[block * block_words..][..block_words];
            let values = values.map(|values| &values[block * block_words..][..block_words]);
            let next = words.as_ptr_range().end;
            let runs = [next, values.map_or(next, |values| values.as_ptr_range().end)];
            let mut ahead = Ahead::new(large.then_some(runs));
            self.tail.inverse(&c, &twists, values, words, block, &mut ahead);
            for index in (self.outer..self.passes.len()).rev() {
                self.inverse_pass(&c, index, words, block, &mut ahead);
            }
        }
        for index in (0..self.outer).rev() {
            self.inverse_pass(&c, index, x, 0, &mut Ahead::new(None));
        }
        if self.passes.is_empty() {
            for line in x.as_chunks_mut::<8>().0 {
                // SAFETY: a line is eight words.
                unsafe { store(line.as_mut_ptr(), reduce_once(load(line.as_ptr()), c.q)) };
            }
        }
    }

    /// The stages that leave blocks of `block` words, whole vectors, one at a time; canonical on both sides.
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(crate) fn forward_to<const MADD: bool>(&self, prime: &Prime, x: &mut [u64], block: usize) {
        assert!(x.len() == 1 << self.log && block >= 8, "a limb has N words");
        let c = Modulus::<MADD>::new(prime.value());
        for depth in 0..self.log - block.trailing_zeros() {
            let half = x.len() >> (depth + 1);
            for (group, words) in x.chunks_exact_mut(2 * half).enumerate() {
                let w = splat(self.root(depth, group));
                let (low, high) = words.split_at_mut(half);
                for (a, b) in low.as_chunks_mut().0.iter_mut().zip(high.as_chunks_mut().0) {
                    let (u, v) = butterfly(&c, get(a), get(b), w);
                    set(a, u);
                    set(b, v);
                }
            }
        }
        for line in x.as_chunks_mut().0 {
            set(line, reduce_once(reduce_once(get(line), c.q2), c.q));
        }
    }

    /// The twiddle of group `group` of the stage that comes after `depth` others, if its butterflies join whole
    /// vectors.
    fn root(&self, depth: u32, group: usize) -> (u64, u64) {
        let place = |stage: u32| (group >> stage, (1 << stage) - 1 + (group & ((1 << stage) - 1)));
        let pass = self.passes.iter().rfind(|pass| pass.groups <= 1 << depth && depth < self.log - MIN_LOG);
        let Some(pass) = pass else {
            let (block, pair) = place(depth - (self.log - MIN_LOG));
            return self.tail.root(block, pair);
        };
        let (entry, pair) = place(depth - pass.groups.trailing_zeros());
        let at = pass.offset + (entry << (pass.log + 1)) + 2 * pair;
        let table = self.twiddles.lines().as_flattened();
        (table[at], table[at + 1])
    }

    /// The outer passes join words of this many blocks; what comes after them stays within each.
    pub(crate) fn blocks(&self) -> usize {
        if self.outer == 0 { 1 } else { self.passes.get(self.outer).map_or(1, |pass| pass.groups) }
    }

    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn forward_inner<const LAZY: bool, const MADD: bool>(
        &self,
        prime: &Prime,
        words: &mut [u64],
        block: usize,
        ahead: Option<[*const u64; 2]>,
    ) {
        let mut ahead = Ahead::new(ahead);
        let c = Modulus::<MADD>::new(prime.value());
        let inverse52 = _mm512_set1_epi64(prime.inverse52 as i64);
        for index in self.outer..self.passes.len() {
            let count = self.passes[index].groups / self.blocks();
            self.forward_pass::<LAZY, MADD>(&c, index, words, block * count..(block + 1) * count, &mut ahead);
        }
        self.tail.forward::<LAZY, MADD>(&c, inverse52, words, block, &mut ahead);
    }

    /// Runs pass `index` on `words`, which are these of its groups.
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn forward_pass<const LAZY: bool, const MADD: bool>(
        &self,
        c: &Modulus<MADD>,
        index: usize,
        words: &mut [u64],
        groups: Range<usize>,
        ahead: &mut Ahead,
    ) {
        let pass = self.passes[index];
        let table = self.twiddles.lines().as_flattened();
        let group_words = words.len() / groups.len();
        for (group, words) in groups.zip(words.chunks_exact_mut(group_words)) {
            let twiddles = &table[pass.offset + (group << (pass.log + 1))..];
            match pass.log {
                1 => forward_group::<LAZY, 2, MADD>(c, words, twiddles, ahead),
                2 => forward_group::<LAZY, 4, MADD>(c, words, twiddles, ahead),
                _ => forward_group::<LAZY, 8, MADD>(c, words, twiddles, ahead),
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn inverse_pass<const MADD: bool>(
        &self,
        c: &Modulus<MADD>,
        index: usize,
        words: &mut [u64],
        block: usize,
        ahead: &mut Ahead,
    ) {
        let pass = self.passes[index];
        let group_words = (1usize << self.log) / pass.groups;
        let table = self.twiddles.lines().as_flattened();
        let first = block * (words.len() / group_words);
        for (group, words) in words.chunks_exact_mut(group_words).enumerate() {
            let mirrored = pass.groups - 1 - first - group;
            let twiddles = &table[pass.offset + (mirrored << (pass.log + 1))..];
            match (pass.log, index) {
                (1, 0) => inverse_group::<true, 2, MADD>(c, words, twiddles, ahead),
                (2, 0) => inverse_group::<true, 4, MADD>(c, words, twiddles, ahead),
                (_, 0) => inverse_group::<true, 8, MADD>(c, words, twiddles, ahead),
                (1, _) => inverse_group::<false, 2, MADD>(c, words, twiddles, ahead),
                (2, _) => inverse_group::<false, 4, MADD>(c, words, twiddles, ahead),
                (_, _) => inverse_group::<false, 8, MADD>(c, words, twiddles, ahead),
            }
        }
    }
}

/// The butterflies of one forward stage on the `R` vectors `v`; stage 0 comes first. A macro, because the compiler
/// must not pass `v` through memory.
macro_rules! forward_stage {
    ($c:expr, $v:expr, $w:expr, $radix:expr, $lazy:expr, $stage:expr) => {
        if $lazy && $stage == 0 {
            // [0, 16q) → [4q, 12q): three stages of ±q stay within [0, 16q).
            for x in &mut $v[..$radix / 2] {
                *x = _mm512_add_epi64(reduce_once(*x, $c.q8), $c.q4);
            }
        }
        let half = $radix >> ($stage + 1);
        for group in 0..1 << $stage {
            let w = $w[(1 << $stage) - 1 + group];
            for a in 2 * half * group..2 * half * group + half {
                let (x, y) = ($v[a], $v[a + half]);
                ($v[a], $v[a + half]) =
                    if $lazy { sum_and_difference($c, x, y, w) } else { butterfly($c, x, y, w) };
            }
        }
    };
}
pub(super) use forward_stage;

/// The butterflies of `log2 R` inverse stages on the `R` vectors `v`, `[0, 2q)` in and out. `w` is the forward table
/// of the mirrored group: read backwards and with the difference turned round, it is the inverse table.
macro_rules! inverse_stages {
    ($c:expr, $v:expr, $w:expr, $radix:expr) => {
        for stage in (0..usize::ilog2($radix)).rev() {
            let half = $radix >> (stage + 1);
            for group in 0..1 << stage {
                let w = $w[2 * ((1 << stage) - 1) - group];
                for a in 2 * half * group..2 * half * group + half {
                    let (x, y) = ($v[a], $v[a + half]);
                    let difference = _mm512_sub_epi64(_mm512_add_epi64(y, $c.q2), x);
                    $v[a] = reduce_once(_mm512_add_epi64(x, y), $c.q2);
                    $v[a + half] = product($c, $c.q, difference, w);
                }
            }
        }
    };
}
pub(super) use inverse_stages;

/// `log2 R` stages on one group of `8·R·k` words; every word in and out as the module says.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn forward_group<const LAZY: bool, const R: usize, const MADD: bool>(
    c: &Modulus<MADD>,
    words: &mut [u64],
    twiddles: &[u64],
    ahead: &mut Ahead,
) {
    let stride = words.len() / R;
    assert!(stride.is_multiple_of(8) && twiddles.len() >= 2 * (R - 1));
    // SAFETY: the assertion covers R − 1 pairs.
    let w: [[V; 2]; 7] =
        core::array::from_fn(|k| unsafe { splat_pair(twiddles.as_ptr().add(2 * k.min(R - 2))) });
    let base = words.as_mut_ptr();
    for column in (0..stride).step_by(8) {
        ahead.step();
        // SAFETY: k·stride + column + 8 ≤ R·stride ≤ words.len().
        let mut v: [V; R] = core::array::from_fn(|k| unsafe { load(base.add(k * stride + column)) });
        if stride >= LARGE / 8 {
            for k in 0..R {
                _mm_prefetch::<_MM_HINT_T0>(
                    base.wrapping_add(k * stride + column + NEAR).cast_const().cast(),
                );
            }
        }
        for stage in 0..R.ilog2() {
            forward_stage!(c, v, w, R, LAZY, stage);
        }
        for (k, v) in v.into_iter().enumerate() {
            // SAFETY: as above.
            unsafe { store(base.add(k * stride + column), v) };
        }
    }
}

/// The mirror image of [`forward_group`]; `LAST` makes the result canonical.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn inverse_group<const LAST: bool, const R: usize, const MADD: bool>(
    c: &Modulus<MADD>,
    words: &mut [u64],
    twiddles: &[u64],
    ahead: &mut Ahead,
) {
    let stride = words.len() / R;
    assert!(stride.is_multiple_of(8) && twiddles.len() >= 2 * (R - 1));
    // SAFETY: the assertion covers R − 1 pairs.
    let w: [[V; 2]; 7] =
        core::array::from_fn(|k| unsafe { splat_pair(twiddles.as_ptr().add(2 * k.min(R - 2))) });
    let base = words.as_mut_ptr();
    for column in (0..stride).step_by(8) {
        ahead.step();
        // SAFETY: k·stride + column + 8 ≤ R·stride ≤ words.len().
        let mut v: [V; R] = core::array::from_fn(|k| unsafe { load(base.add(k * stride + column)) });
        inverse_stages!(c, v, w, R);
        for (k, v) in v.into_iter().enumerate() {
            let v = if LAST { reduce_once(v, c.q) } else { v };
            // SAFETY: as above.
            unsafe { store(base.add(k * stride + column), v) };
        }
    }
}
