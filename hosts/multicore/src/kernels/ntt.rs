//! The negacyclic number-theoretic transform of one limb.

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use super::float;
#[cfg(target_arch = "aarch64")]
use super::neon;
use super::{KernelError, Kernels, Path, Prime, scalar_ntt};
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};

/// From this log2 N on, a transform is divided for those who have something to do between its blocks: smaller limbs stay in
/// the second-level cache.
const DIVIDED_LOG: u32 = 15;
/// Smallest and largest log2 N.
const LOGS: core::ops::RangeInclusive<u32> = 4..=17;

/// Twiddles of one prime and ring degree, laid out for one path.
///
/// With ψ the prime's `2N`-th root ([`Prime::root`]), `forward` maps natural order to bit-reversed order,
/// `out[i] = Σ_j x[j]·ψ^((2·brv(i)+1)·j)`, and `inverse` is its exact inverse, 1/N included.
#[derive(Clone, Debug)]
pub struct NttTable {
    kernels: Kernels,
    prime: Prime,
    log: u32,
    layout: Layout,
}

#[derive(Clone, Debug)]
enum Layout {
    Scalar(scalar_ntt::Table),
    #[cfg(target_arch = "x86_64")]
    Avx2(float::ntt::Table),
    #[cfg(target_arch = "x86_64")]
    Avx512(avx512::ntt::Table),
    #[cfg(target_arch = "x86_64")]
    Avx512Madd(avx512::ntt::Table),
    #[cfg(target_arch = "aarch64")]
    Neon(float::ntt::Table),
}

impl NttTable {
    /// Builds the table of `prime` for the ring of `degree` coefficients.
    pub fn new(kernels: Kernels, prime: Prime, degree: usize) -> Result<Self, KernelError> {
        let log = degree.trailing_zeros();
        if !degree.is_power_of_two() || !LOGS.contains(&log) {
            return Err(KernelError::Degree { degree, modulus: prime.value() });
        }
        let layout = match kernels.path() {
            #[cfg(target_arch = "x86_64")]
            Path::Avx512 if log >= avx512::ntt::MIN_LOG => {
                Layout::Avx512(avx512::ntt::Table::new(&prime, log)?)
            }
            #[cfg(target_arch = "x86_64")]
            Path::Avx512Madd if log >= avx512::ntt::MIN_LOG => {
                Layout::Avx512Madd(avx512::ntt::Table::new(&prime, log)?)
            }
            #[cfg(target_arch = "x86_64")]
            Path::Avx2 => Layout::Avx2(float::ntt::Table::new(&prime, log)?),
            #[cfg(target_arch = "aarch64")]
            Path::Neon => Layout::Neon(float::ntt::Table::new(&prime, log)?),
            _ => Layout::Scalar(scalar_ntt::Table::new(&prime, log)?),
        };
        Ok(Self { kernels, prime, log, layout })
    }

    /// The modulus with its constants.
    pub const fn prime(&self) -> &Prime {
        &self.prime
    }

    /// N.
    pub const fn degree(&self) -> usize {
        1 << self.log
    }

    /// Transforms the N coefficients in `x` to N values, in place.
    ///
    /// # Panics
    /// If `x` does not have N words.
    pub fn forward(&self, x: &mut [u64]) {
        match &self.layout {
            Layout::Scalar(table) => table.forward(&self.prime, x),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: this layout is built only from kernels whose path the processor has.
            Layout::Avx512(table) => unsafe { table.forward::<false>(&self.prime, x) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Layout::Avx512Madd(table) => unsafe { table.forward::<true>(&self.prime, x) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Layout::Avx2(table) => unsafe { avx2::forward(table, &self.prime, x) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            Layout::Neon(table) => unsafe { neon::forward(table, &self.prime, x) },
        }
    }

    /// The blocks that [`NttTable::forward_outer`] leaves: the first stages of [`NttTable::forward`] join words of several
    /// blocks, all others stay within one. 1 where the transform is not divided so.
    pub fn blocks(&self) -> usize {
        match &self.layout {
            #[cfg(target_arch = "x86_64")]
            Layout::Avx512(table) | Layout::Avx512Madd(table) if self.log >= DIVIDED_LOG => table.blocks(),
            _ => 1,
        }
    }

    /// Those first stages. What is left in `x` are no residues; [`NttTable::forward_block`] takes it.
    ///
    /// # Panics
    /// If `x` does not have N words.
    pub fn forward_outer(&self, x: &mut [u64]) {
        assert_eq!(x.len(), self.degree(), "a limb has N words");
        if self.blocks() == 1 {
            return;
        }
        match &self.layout {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: this layout is built only from kernels whose path the processor has.
            Layout::Avx512(table) => unsafe { table.forward_outer::<false>(&self.prime, x) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Layout::Avx512Madd(table) => unsafe { table.forward_outer::<true>(&self.prime, x) },
            _ => {}
        }
    }

    /// The other stages, on block `block`. Meanwhile these runs of words are fetched into the second-level cache, as far as
    /// a block's length.
    ///
    /// # Panics
    /// If there is no such block or `words` has another length.
    pub fn forward_block(&self, words: &mut [u64], block: usize, ahead: Option<[&[u64]; 2]>) {
        let blocks = self.blocks();
        assert!(block < blocks && words.len() == self.degree() / blocks, "a block of N/{blocks} words");
        if blocks == 1 {
            return self.forward(words);
        }
        #[cfg(target_arch = "x86_64")]
        let runs = ahead.map(|runs| runs.map(<[u64]>::as_ptr));
        match &self.layout {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: this layout is built only from kernels whose path the processor has.
            Layout::Avx512(table) => unsafe { table.forward_block::<false>(&self.prime, words, block, runs) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Layout::Avx512Madd(table) => unsafe {
                table.forward_block::<true>(&self.prime, words, block, runs)
            },
            _ => {}
        }
    }

    /// The stages of [`NttTable::forward`] that leave blocks of `block` words, a power of two from 8 to N. In place,
    /// canonical.
    ///
    /// # Panics
    /// If `x` does not have N words or there is no such block.
    pub fn forward_to(&self, x: &mut [u64], block: usize) {
        assert!(block.is_power_of_two() && (8..=self.degree()).contains(&block), "blocks of {block} words");
        assert_eq!(x.len(), self.degree(), "a limb has N words");
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
        let floating = |table: &float::ntt::Table, x: &mut [u64]| {
            scalar_ntt::forward_to(&self.prime, x, block, |k| {
                let root = table.root(&self.prime, k);
                (root, self.prime.shoup(root))
            });
        };
        match &self.layout {
            Layout::Scalar(table) => table.forward_to(&self.prime, x, block),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: this layout is built only from kernels whose path the processor has.
            Layout::Avx512(table) => unsafe { table.forward_to::<false>(&self.prime, x, block) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Layout::Avx512Madd(table) => unsafe { table.forward_to::<true>(&self.prime, x, block) },
            #[cfg(target_arch = "x86_64")]
            Layout::Avx2(table) => floating(table, x),
            #[cfg(target_arch = "aarch64")]
            Layout::Neon(table) => floating(table, x),
        }
    }

    /// Transforms the N values in `x` to N coefficients, in place.
    ///
    /// # Panics
    /// If `x` does not have N words.
    pub fn inverse(&self, x: &mut [u64]) {
        self.inverse_scaled(None, x, 1);
    }

    /// `factor` (canonical) times the N coefficients of `values`, or of those in `x`, to `x`. AVX-512 takes neither a
    /// copy nor a pass for the factor, which joins 1/N.
    ///
    /// # Panics
    /// If `x` or `values` does not have N words.
    pub fn inverse_scaled(&self, values: Option<&[u64]>, x: &mut [u64], factor: u64) {
        // Where the transform does neither by itself.
        let otherwise = |x: &mut [u64], inverse: &dyn Fn(&mut [u64])| {
            if let Some(values) = values {
                x.copy_from_slice(values);
            }
            inverse(x);
            if factor != 1 {
                self.kernels.multiply_scalar_assign(&self.prime, x, factor);
            }
        };
        match &self.layout {
            Layout::Scalar(table) => otherwise(x, &|x| table.inverse(&self.prime, x)),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: this layout is built only from kernels whose path the processor has.
            Layout::Avx512(table) => unsafe { table.inverse::<false>(&self.prime, values, x, factor) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Layout::Avx512Madd(table) => unsafe { table.inverse::<true>(&self.prime, values, x, factor) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Layout::Avx2(table) => otherwise(x, &|x| unsafe { avx2::inverse(table, &self.prime, x) }),
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            Layout::Neon(table) => otherwise(x, &|x| unsafe { neon::inverse(table, &self.prime, x) }),
        }
    }
}
