//! Centred basis conversion: the tables, and the walk over columns.
//!
//! For `x` modulo `D = Π q_i`, given as residues `x_i`, the target residue is
//! `Σ y_i·(D/q_i) − v·D mod p` with `y_i = x_i·(D/q_i)^−1 mod q_i`: exact, because `Σ y_i·(D/q_i) = x + v·D` for
//! some integer `v ≈ Σ y_i/q_i`. Rounding that sum makes the result the representative of `x` in about
//! `[−D/2, D/2)`. The sum is taken in fixed point with a normative rounding, so that all paths agree:
//! `w = min bits(q_i) − 1`, `r_i = ⌊2^(52+w)/q_i⌋`, `v = (Σ ⌊y_i·r_i/2^52⌋ + 2^(w−1)) >> w`.

use super::path::avx512_or;
use super::{KernelError, Kernels, Prime, scalar};

/// Most source primes of one conversion: sums of 16 products of 50-bit words stay below 2^104.
pub const MAX_SOURCES: usize = 16;

/// Scaled words per step, over all sources: they stay in L1 while every target reads them.
const SCRATCH: usize = 4096;

/// Most columns per step.
const COLUMNS: usize = 1024;

/// The constants of a conversion from one basis to another.
#[derive(Clone, Debug)]
pub struct ConvertTable {
    pub(crate) sources: Vec<Source>,
    pub(crate) targets: Vec<Target>,
    /// `w`: the fixed point of the quotient sum.
    pub(crate) weight: u32,
}

#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) prime: Prime,
    /// `(D/q_i)^−1 mod q_i`.
    pub(crate) factor: u64,
    /// The same as a Montgomery pair: too dear to work out for each block of columns.
    #[cfg(target_arch = "x86_64")]
    pub(crate) montgomery: (u64, u64),
    /// `r_i`, below 2^52.
    pub(crate) ratio: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) prime: Prime,
    /// `(D/q_i)·2^52 mod p` for each source: the Montgomery step of the reduction takes the factor out.
    pub(crate) factors: Vec<u64>,
    /// `−D·2^52 mod p`.
    pub(crate) minus_product: u64,
    /// That step leaves less than `p·2^halvings`.
    pub(crate) halvings: u32,
}

impl ConvertTable {
    /// Precomputes the conversion from `sources` (1 to 16 distinct primes) to each of `targets`.
    pub fn new(sources: &[Prime], targets: &[Prime]) -> Result<Self, KernelError> {
        if sources.is_empty() || sources.len() > MAX_SOURCES {
            return Err(KernelError::Count(sources.len()));
        }
        let others = |skip: usize, modulus: &Prime| {
            let primes = sources.iter().enumerate().filter(|&(j, _)| j != skip);
            primes.fold(1, |product, (_, q)| modulus.multiply(product, q.value() % modulus.value()))
        };
        let weight = sources.iter().map(Prime::bits).min().unwrap_or(0) - 1;
        let source = |(i, &prime): (usize, &Prime)| {
            let product = others(i, &prime);
            // A repeated prime has no inverse here.
            if product == 0 {
                return Err(KernelError::Modulus(prime.value()));
            }
            let ratio = (1u128 << (52 + weight)) / u128::from(prime.value());
            let factor = prime.inverse(product);
            Ok(Source {
                prime,
                factor,
                #[cfg(target_arch = "x86_64")]
                montgomery: prime.montgomery(factor),
                ratio: ratio as u64,
            })
        };
        let target = |&prime: &Prime| {
            let p = u128::from(prime.value());
            let scaled = |w: u64| prime.reduce(u128::from(w) << 52);
            let largest: u128 = sources.iter().map(|q| u128::from(q.value()) * p).sum();
            let left = ((largest + 17 * p) >> 52) + 1;
            Target {
                prime,
                factors: (0..sources.len()).map(|i| scaled(others(i, &prime))).collect(),
                minus_product: scaled(prime.negate(others(usize::MAX, &prime))),
                halvings: (0..).find(|&k| left <= p << k).unwrap_or(0),
            }
        };
        Ok(Self {
            sources: sources.iter().enumerate().map(source).collect::<Result<_, _>>()?,
            targets: targets.iter().map(target).collect(),
            weight,
        })
    }

    /// Number of source primes.
    pub fn sources(&self) -> usize {
        self.sources.len()
    }

    /// `(D/q_i)^−1 mod q_i`, by which source `i` is scaled.
    ///
    /// # Panics
    /// If there is no such source.
    pub fn factor(&self, source: usize) -> u64 {
        self.sources[source].factor
    }

    /// Number of target primes.
    pub fn targets(&self) -> usize {
        self.targets.len()
    }
}

impl Kernels {
    /// Converts limbs in coefficient form: `targets[j]` becomes the centred value modulo target prime `j`.
    ///
    /// # Panics
    /// If the numbers of limbs are not the table's, or their lengths differ or are no multiple of 8.
    pub fn convert(self, table: &ConvertTable, sources: &[&[u64]], targets: &mut [&mut [u64]]) {
        assert_eq!((sources.len(), targets.len()), (table.sources(), table.targets()), "limbs of the table");
        let degree = sources[0].len();
        assert!(sources.iter().all(|limb| limb.len() == degree), "limbs of one length");
        assert!(targets.iter().all(|limb| limb.len() == degree), "limbs of one length");
        let step = COLUMNS.min(SCRATCH / sources.len().next_power_of_two());
        let mut scratch = [0; SCRATCH];
        let mut wraps = [0; COLUMNS];
        for start in (0..degree).step_by(step) {
            let columns = start..degree.min(start + step);
            let wraps = &mut wraps[..columns.len()];
            let mut x: [&[u64]; MAX_SOURCES] = [&[]; MAX_SOURCES];
            let mut y: [&mut [u64]; MAX_SOURCES] = core::array::from_fn(|_| Default::default());
            let slices = x.iter_mut().zip(&mut y).zip(scratch.chunks_exact_mut(step));
            for (((x, y), scratch), source) in slices.zip(sources) {
                *x = &source[columns.clone()];
                *y = &mut scratch[..columns.len()];
            }
            self.scale_sources(table, &x[..sources.len()], &mut y[..sources.len()], wraps);
            let y = y.each_ref().map(|y| &**y);
            for (j, target) in targets.iter_mut().enumerate() {
                self.combine(table, j, &y[..sources.len()], wraps, &mut target[columns.clone()], [&[]; 2]);
            }
        }
    }

    /// The half of a conversion that no target takes part in: scaled limbs `y` and the wrap counts.
    /// Run [`Kernels::combine`] on them, target by target, to transform each limb while it is in cache.
    ///
    /// # Panics
    /// If the numbers of limbs are not the table's, or their lengths differ or are no multiple of 8.
    pub fn scale_sources(self, table: &ConvertTable, x: &[&[u64]], y: &mut [&mut [u64]], wraps: &mut [u64]) {
        let degree = wraps.len();
        assert_eq!((x.len(), y.len()), (table.sources(), table.sources()), "limbs of the table");
        assert!(degree.is_multiple_of(8) && x.iter().all(|x| x.len() == degree));
        assert!(y.iter().all(|y| y.len() == degree));
        avx512_or!(self, convert::scale_sources(table, x, y), scalar::scale_sources(table, x, y));
        let mut scaled: [&[u64]; MAX_SOURCES] = [&[]; MAX_SOURCES];
        scaled.iter_mut().zip(&*y).for_each(|(scaled, y)| *scaled = y);
        self.count_wraps(table, &scaled[..y.len()], wraps);
    }

    /// The wrap counts alone, for limbs that have been scaled: source i by [`ConvertTable::factor`], which a
    /// transform takes in at no cost ([`NttTable::inverse_scaled`](super::NttTable::inverse_scaled)).
    ///
    /// # Panics
    /// As [`Kernels::scale_sources`].
    pub fn count_wraps(self, table: &ConvertTable, y: &[&[u64]], wraps: &mut [u64]) {
        let degree = wraps.len();
        assert_eq!(y.len(), table.sources(), "limbs of the table");
        assert!(degree.is_multiple_of(8) && y.iter().all(|y| y.len() == degree));
        avx512_or!(self, convert::count_wraps(table, y, wraps), scalar::count_wraps(table, y, wraps));
    }

    /// The limb of target prime `target` from the scaled limbs. Meanwhile as many words of these runs are fetched into the
    /// second-level cache.
    ///
    /// # Panics
    /// If there is no such target, the number of limbs is not the table's, or lengths differ or are no multiple of 8.
    pub fn combine(
        self,
        table: &ConvertTable,
        target: usize,
        y: &[&[u64]],
        wraps: &[u64],
        out: &mut [u64],
        ahead: [&[u64]; 2],
    ) {
        let degree = out.len();
        assert_eq!(y.len(), table.sources(), "limbs of the table");
        assert!(degree.is_multiple_of(8) && wraps.len() == degree && y.iter().all(|y| y.len() == degree));
        avx512_or!(
            self,
            convert::combine(table, target, y, wraps, out, ahead),
            scalar::combine(table, target, y, wraps, out)
        );
    }
}
