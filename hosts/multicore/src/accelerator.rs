//! The seam on this machine: every kernel spread over limbs or columns, the
//! coarse ones fused so that a limb is transformed while it is in the cache.

mod cache;
mod error;
mod fused;
mod matrix;
mod rows;
mod sums;
#[cfg(test)]
mod tests;
mod transform;

pub use error::SetupError;

use crate::kernels::{Automorphism, ConvertTable, KernelError, Kernels, NttTable, Prime};
use crate::memory::{Limb, Pool};
use cache::Cache;
use rayon::prelude::*;
use std::sync::Arc;
use veilformer::accel::{
    Accelerator, Error, Factors, KeyRow, MAX_DIGITS, RowSums, Step, Trusted, check_repeat,
};
use veilformer::ring::{Basis, ModulusChain};

/// Below this many words a kernel stays on the calling thread.
const PARALLEL_WORDS: usize = 1 << 15;

/// Runs kernels on the best instruction set of this processor, on any number of threads.
pub struct Multicore {
    chain: ModulusChain,
    tables: Vec<NttTable>,
    kernels: Kernels,
    pool: Arc<Pool>,
    threads: Arc<rayon::ThreadPool>,
    conversions: Cache<Basis, ConvertTable>,
    automorphisms: Cache<usize, Automorphism>,
}

impl Multicore {
    /// With the kernels of this processor (or of `VEILFORMER_KERNELS`),
    /// `threads` threads and at most `limbs` limbs of memory.
    ///
    /// # Errors
    /// [`SetupError`].
    pub fn new(chain: &ModulusChain, threads: usize, limbs: usize) -> Result<Self, SetupError> {
        Self::with_kernels(chain, Kernels::from_environment()?, threads, limbs)
    }

    /// The same with chosen kernels.
    ///
    /// # Errors
    /// [`SetupError`].
    pub fn with_kernels(
        chain: &ModulusChain,
        kernels: Kernels,
        threads: usize,
        limbs: usize,
    ) -> Result<Self, SetupError> {
        let threads = rayon::ThreadPoolBuilder::new()
            .num_threads(threads.max(1))
            .stack_size(8 << 20)
            .thread_name(|i| format!("veilformer-{i}"))
            .build()
            .map_err(SetupError::Threads)?;
        Self::on(Arc::new(threads), chain, kernels, limbs)
    }

    /// Another chain on the same threads, with as many limbs of its own: for a job that computes in two rings. Each
    /// with threads of its own would wake them whenever the job goes from one ring to the other.
    ///
    /// # Errors
    /// [`SetupError`].
    pub fn beside(&self, chain: &ModulusChain, limbs: usize) -> Result<Self, SetupError> {
        Self::on(Arc::clone(&self.threads), chain, self.kernels, limbs)
    }

    fn on(
        threads: Arc<rayon::ThreadPool>,
        chain: &ModulusChain,
        kernels: Kernels,
        limbs: usize,
    ) -> Result<Self, SetupError> {
        let degree = chain.degree();
        let table = |q: u64| NttTable::new(kernels, Prime::new(q)?, degree);
        let tables = threads.install(|| {
            chain.moduli().par_iter().map(|m| table(m.value())).collect::<Result<Vec<_>, KernelError>>()
        })?;
        let pool = Pool::new(degree, limbs);
        let (conversions, automorphisms) = (Cache::default(), Cache::default());
        Ok(Self { chain: chain.clone(), tables, kernels, pool, threads, conversions, automorphisms })
    }

    /// Runs `work` on the accelerator's threads: a long job does well to, as
    /// every kernel then starts without waking a thread up.
    pub fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.threads.install(work)
    }

    /// Threads.
    pub fn threads(&self) -> usize {
        self.threads.current_num_threads()
    }

    /// The name of the kernels in use.
    pub fn kernels(&self) -> &'static str {
        self.kernels.path().name()
    }

    /// The most limbs ever in use at once.
    pub fn peak_limbs(&self) -> usize {
        self.pool.peak()
    }

    fn table(&self, basis: Basis, i: usize) -> &NttTable {
        &self.tables[basis.prime_index(&self.chain, i)]
    }

    fn prime(&self, basis: Basis, i: usize) -> &Prime {
        self.table(basis, i).prime()
    }

    fn fits(&self, basis: Basis, have: usize) -> Result<(), Error> {
        check(basis.len(), have)?;
        if basis.fits(&self.chain) {
            Ok(())
        } else {
            Err(Error::Shape { have: self.chain.moduli().len(), need: basis.len() })
        }
    }

    /// Runs `f` on independent items, in parallel when there is enough of them.
    fn spread<T: Send, E: Send>(
        &self,
        items: &mut [T],
        words: usize,
        f: impl Fn(usize, &mut T) -> Result<(), E> + Sync,
    ) -> Result<(), E> {
        if items.len() < 2 || self.threads() == 1 || words < PARALLEL_WORDS {
            return items.iter_mut().enumerate().try_for_each(|(i, item)| f(i, item));
        }
        self.threads
            .install(|| items.par_iter_mut().enumerate().with_max_len(1).try_for_each(|(i, item)| f(i, item)))
    }

    fn each(&self, basis: Basis, x: &mut [Limb], f: impl Fn(usize, &mut [u64]) + Sync) -> Result<(), Error> {
        self.fits(basis, x.len())?;
        let words = x.len() * self.pool.degree();
        self.spread(x, words, |i, limb| {
            f(i, limb);
            Ok(())
        })
    }

    fn limbs(&self, count: usize) -> Result<Vec<Limb>, Error> {
        (0..count).map(|_| self.allocate()).collect()
    }
}

/// Whether limb `i` belongs to a run of ordinary primes.
fn contains(run: Basis, i: usize) -> bool {
    (run.start()..run.start() + run.len()).contains(&i)
}

fn check(need: usize, have: usize) -> Result<(), Error> {
    if need == have { Ok(()) } else { Err(Error::Shape { have, need }) }
}

impl Accelerator for Multicore {
    type Word = u64;
    type Limb = Limb;

    fn chain(&self) -> &ModulusChain {
        &self.chain
    }

    fn allocate(&self) -> Result<Limb, Error> {
        self.pool.take().ok_or(Error::OutOfLimbs { capacity: self.pool.capacity() })
    }

    fn available(&self) -> usize {
        self.pool.available()
    }

    fn for_each<T: Send, E: Send>(
        &self,
        items: &mut [T],
        f: impl Fn(usize, &mut T) -> Result<(), E> + Sync,
    ) -> Result<(), E> {
        self.spread(items, usize::MAX, f)
    }

    fn write(&self, limb: &mut Limb, source: &[u64]) -> Result<(), Error> {
        check(limb.len(), source.len())?;
        limb.copy_from_slice(source);
        Ok(())
    }

    fn read(&self, limb: &Limb, destination: &mut [u64]) -> Result<(), Error> {
        check(limb.len(), destination.len())?;
        destination.copy_from_slice(limb);
        Ok(())
    }

    fn write_signed(&self, basis: Basis, limbs: &mut [Limb], source: &[i64]) -> Result<(), Error> {
        check(self.pool.degree(), source.len())?;
        if source.iter().fold(0, |bits, x| bits | x.unsigned_abs()) >> 62 != 0 {
            return Err(Error::Range);
        }
        self.each(basis, limbs, |i, words| {
            self.kernels.reduce_signed(self.prime(basis, i), words, source);
        })
    }

    fn copy(&self, destination: &mut [Limb], source: &[Limb]) -> Result<(), Error> {
        check(destination.len(), source.len())?;
        let words = source.len() * self.pool.degree();
        self.spread(destination, words, |i, limb| {
            limb.copy_from_slice(&source[i]);
            Ok(())
        })
    }

    fn clear(&self, limbs: &mut [Limb]) -> Result<(), Error> {
        let words = limbs.len() * self.pool.degree();
        self.spread(limbs, words, |_, limb| {
            limb.fill(0);
            Ok(())
        })
    }

    fn ntt_forward(&self, basis: Basis, x: &mut [Limb]) -> Result<(), Error> {
        self.each(basis, x, |i, words| self.table(basis, i).forward(words))
    }

    fn ntt_inverse(&self, basis: Basis, x: &mut [Limb]) -> Result<(), Error> {
        self.each(basis, x, |i, words| self.table(basis, i).inverse(words))
    }

    fn add_assign(&self, basis: Basis, x: &mut [Limb], y: &[Limb]) -> Result<(), Error> {
        check(x.len(), y.len())?;
        self.each(basis, x, |i, words| self.kernels.add_assign(self.prime(basis, i), words, &y[i]))
    }

    fn sub_assign(&self, basis: Basis, x: &mut [Limb], y: &[Limb]) -> Result<(), Error> {
        check(x.len(), y.len())?;
        self.each(basis, x, |i, words| self.kernels.sub_assign(self.prime(basis, i), words, &y[i]))
    }

    fn negate_assign(&self, basis: Basis, x: &mut [Limb]) -> Result<(), Error> {
        self.each(basis, x, |i, words| self.kernels.negate_assign(self.prime(basis, i), words))
    }

    fn multiply_assign(&self, basis: Basis, x: &mut [Limb], y: &[Limb]) -> Result<(), Error> {
        check(x.len(), y.len())?;
        self.each(basis, x, |i, words| self.kernels.multiply_assign(self.prime(basis, i), words, &y[i]))
    }

    fn multiply_add(&self, basis: Basis, sum: &mut [Limb], x: &[Limb], y: &[Limb]) -> Result<(), Error> {
        check(sum.len(), x.len())?;
        check(sum.len(), y.len())?;
        self.each(basis, sum, |i, words| {
            self.kernels.multiply_add(self.prime(basis, i), words, &x[i], &y[i]);
        })
    }

    fn multiply_scalar_assign(&self, basis: Basis, x: &mut [Limb], s: &[u64]) -> Result<(), Error> {
        check(x.len(), s.len())?;
        self.each(basis, x, |i, words| {
            self.kernels.multiply_scalar_assign(self.prime(basis, i), words, s[i]);
        })
    }

    fn multiply_scalar_add(
        &self,
        basis: Basis,
        sum: &mut [Limb],
        x: &[Limb],
        s: &[u64],
    ) -> Result<(), Error> {
        check(sum.len(), x.len())?;
        check(sum.len(), s.len())?;
        self.each(basis, sum, |i, words| {
            self.kernels.multiply_scalar_add(self.prime(basis, i), words, &x[i], s[i]);
        })
    }

    fn multiply_scalars_add(
        &self,
        basis: Basis,
        sum: &mut [Limb],
        terms: &[(&[Limb], &[u64])],
    ) -> Result<(), Error> {
        self.scalar_sums(basis, sum, terms)
    }

    fn add_scalar_assign(&self, basis: Basis, x: &mut [Limb], s: &[u64]) -> Result<(), Error> {
        check(x.len(), s.len())?;
        self.each(basis, x, |i, words| self.kernels.add_scalar_assign(self.prime(basis, i), words, s[i]))
    }

    fn automorphism(
        &self,
        basis: Basis,
        destination: &mut [Limb],
        source: &[Limb],
        galois: usize,
    ) -> Result<(), Error> {
        check(destination.len(), source.len())?;
        let map = self.automorphisms.get(galois, || Automorphism::new(self.pool.degree(), galois))?;
        self.each(basis, destination, |i, words| {
            self.kernels.automorphism(&map, self.prime(basis, i), words, &source[i]);
        })
    }

    fn automorphism_add(
        &self,
        basis: Basis,
        sum: &mut [Limb],
        source: &[Limb],
        galois: usize,
    ) -> Result<(), Error> {
        check(sum.len(), source.len())?;
        let map = self.automorphisms.get(galois, || Automorphism::new(self.pool.degree(), galois))?;
        self.each(basis, sum, |i, words| {
            self.kernels.automorphism_add(&map, self.prime(basis, i), words, &source[i]);
        })
    }

    fn repeat(
        &self,
        destination: &mut Limb,
        source: &Limb,
        offset: usize,
        repeat: usize,
    ) -> Result<(), Error> {
        check_repeat(self.pool.degree(), offset, repeat)?;
        for (run, word) in destination.chunks_exact_mut(repeat).zip(&source[offset..]) {
            run.fill(*word);
        }
        Ok(())
    }

    fn ntt_partial(&self, basis: Basis, x: &mut [Limb], block: usize) -> Result<(), Error> {
        self.partial(basis, x, block)
    }

    fn row_products(
        &self,
        basis: Basis,
        rows: usize,
        weights: &[i16],
        x: &[[&[Limb]; 2]],
        sums: &mut [RowSums<'_, Limb>],
    ) -> Result<(), Error> {
        self.rows(basis, rows, weights, x, sums)
    }

    fn block_products(
        &self,
        basis: Basis,
        block: usize,
        left: &[&[Limb]],
        right: &[&[Limb]],
        destination: &mut [&mut [Limb]],
    ) -> Result<(), Error> {
        self.blocks(basis, block, left, right, destination)
    }

    fn odd_power_sums(
        &self,
        basis: Basis,
        x: &[Limb],
        rows: &[&[Limb]],
        sums: &mut [&mut [Limb]],
    ) -> Result<(), Error> {
        self.powers(basis, x, rows, sums)
    }

    fn convert(
        &self,
        from: Basis,
        source: &[Limb],
        to: Basis,
        destination: &mut [Limb],
    ) -> Result<(), Error> {
        self.change_basis(from, source, to, destination)
    }

    fn tensor(
        &self,
        basis: Basis,
        d: [&mut [Limb]; 3],
        x: [&[Limb]; 2],
        y: [&[Limb]; 2],
    ) -> Result<(), Error> {
        for have in [d[0].len(), d[1].len(), d[2].len(), x[0].len(), x[1].len(), y[0].len(), y[1].len()] {
            self.fits(basis, have)?;
        }
        let [d0, d1, d2] = d;
        let mut rows: Vec<_> = d0.iter_mut().zip(d1).zip(d2).collect();
        self.spread(&mut rows, basis.len() * self.pool.degree(), |i, ((d0, d1), d2)| {
            let (x, y) = ([&x[0][i][..], &x[1][i]], [&y[0][i][..], &y[1][i]]);
            self.kernels.tensor(self.prime(basis, i), [d0, d1, d2], x, y);
            Ok(())
        })
    }

    fn tensor_add(
        &self,
        basis: Basis,
        d: [&mut [Limb]; 3],
        terms: &[[[&[Limb]; 2]; 2]],
    ) -> Result<(), Error> {
        self.tensor_sums(basis, d, terms)
    }

    fn mod_up(
        &self,
        level: Basis,
        digit: Basis,
        x: &[Limb],
        coefficients: &[Limb],
        out: &mut [Limb],
    ) -> Result<(), Error> {
        self.raise_digit(level, digit, x, coefficients, out)
    }

    fn inner_product(
        &self,
        level: Basis,
        sums: [&mut [Limb]; 2],
        digits: &[&[Limb]],
        key: [&[KeyRow<'_, Limb>]; 2],
    ) -> Result<(), Error> {
        self.key_products(level, sums, digits, key)
    }

    fn mod_down(&self, keep: Basis, drop: Basis, x: &mut [Limb]) -> Result<(), Error> {
        self.leave(keep, drop, x, None)
    }

    fn mod_down_add(&self, keep: Basis, drop: Basis, x: &mut [Limb], addend: &[Limb]) -> Result<(), Error> {
        check(keep.len() + drop.ordinary(), addend.len())?;
        self.leave(keep, drop, x, Some(addend))
    }

    fn key_switch(
        &self,
        level: Basis,
        digit_size: usize,
        x: &[Limb],
        key: [&[KeyRow<'_, Limb>]; 2],
        sums: [&mut [Limb]; 2],
    ) -> Result<(), Error> {
        self.switch(level, digit_size, x, key, sums)
    }

    fn hoisted_sums(
        &self,
        level: Basis,
        x: [&[Limb]; 2],
        digits: &[&[Limb]],
        steps: &[Step<'_, Limb>],
        factors: &Factors<'_, Limb>,
        sums: &mut [[&mut [Limb]; 2]],
    ) -> Result<(), Error> {
        self.sums(level, x, digits, steps, factors, sums)
    }
}

impl Trusted for Multicore {}

fn check_rows(digits: usize, limbs: usize, key: [&[KeyRow<'_, Limb>]; 2]) -> Result<(), Error> {
    check(digits.min(MAX_DIGITS), digits)?;
    for half in key {
        check(digits, half.len())?;
        half.iter().try_for_each(|row| check(limbs, row.ordinary.len() + row.special.len()))?;
    }
    Ok(())
}

fn key_limbs<'k>(half: &[KeyRow<'k, Limb>], i: usize) -> Vec<&'k [u64]> {
    half.iter().filter_map(|row| row.limb(i)).map(|limb| &limb[..]).collect()
}
