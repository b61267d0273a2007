//! An accelerator without words: its limbs are numbers in a [`Meter`], its kernels what they weigh on a host.

use super::meter::{Kernel, Meter, Work};
use std::sync::Arc;
use veilformer::accel::{
    Accelerator, Error, Factors, KeyRow, RowSums, Step, check_block, check_blocks, check_powers,
    check_repeat, check_rows, check_sums, digits,
};
use veilformer::ring::{Basis, ModulusChain};

/// Below this many words a host's kernel stays on the calling thread.
pub(super) const PARALLEL_WORDS: usize = 1 << 15;
/// Most targets of a conversion that a host's thread takes together.
const MAX_GROUP: usize = 8;
/// Words of a tile in which a host rotates.
const TILE: usize = 512;

/// A limb that has no words.
pub struct CountedLimb(Arc<Meter>);

impl Drop for CountedLimb {
    fn drop(&mut self) {
        self.0.give();
    }
}

/// Carries nothing out and counts everything: what lies between the program and its kernels, key look-ups and refusals
/// included, is the code that runs on ciphertexts.
pub struct Counting {
    chain: ModulusChain,
    meter: Arc<Meter>,
}

use Kernel::{
    Combination, Hoisted, KeyTerm, MatrixTerm, Permutation, PowerTerm, Product, Scaling, Stream, Transform,
};

impl Counting {
    /// As if it had so many threads, and memory for so many limbs.
    pub fn new(chain: &ModulusChain, threads: usize, limbs: usize) -> Self {
        Self { chain: chain.clone(), meter: Arc::new(Meter::new(threads, limbs)) }
    }

    /// Limbs alive.
    pub fn live_limbs(&self) -> usize {
        self.meter.live()
    }

    /// The most limbs alive at once, what kernels take while they run included.
    pub fn peak_limbs(&self) -> usize {
        self.meter.peak()
    }

    /// All work so far.
    pub fn work(&self) -> Work {
        self.meter.total()
    }

    /// Work on so many limbs of a basis, spread over them.
    fn each(&self, basis: Basis, limbs: usize, units: &[(Kernel, f64)]) -> Result<(), Error> {
        self.fits(basis, limbs)?;
        let limbs_each = units.iter().map(|&(kernel, each)| (kernel, each * limbs as f64));
        self.add(limbs, limbs, &limbs_each.collect::<Vec<_>>());
        Ok(())
    }

    fn add(&self, items: usize, limbs: usize, units: &[(Kernel, f64)]) {
        self.meter.work(items, limbs * self.chain.degree(), units);
    }

    fn fits(&self, basis: Basis, have: usize) -> Result<(), Error> {
        check(basis.len(), have)?;
        if basis.fits(&self.chain) {
            Ok(())
        } else {
            Err(Error::Shape { have: self.chain.moduli().len(), need: basis.len() })
        }
    }

    fn scratch(&self, limbs: usize) -> Result<(), Error> {
        if self.meter.scratch(limbs) { Ok(()) } else { Err(self.full()) }
    }

    fn full(&self) -> Error {
        Error::OutOfLimbs { capacity: self.meter.capacity() }
    }

    /// Limbs that all threads take together for the targets they are at.
    fn targets(&self, count: usize) -> usize {
        let threads = self.meter.threads();
        let tasks = count.div_ceil(MAX_GROUP).next_multiple_of(threads);
        count.div_ceil(tasks).max(1) * threads
    }

    /// A conversion from so many limbs, scaled by the transform they come from, to so many, each transformed
    /// afterwards.
    fn raise(&self, from: usize, to: usize) -> [(Kernel, f64); 3] {
        let (from, to) = (from as f64, to as f64);
        [(Stream, from), (Combination, from * to), (Transform, to)]
    }

    /// A division by the primes of `drop`.
    fn divide(&self, keep: Basis, drop: Basis, x: usize, added: bool) -> Result<(), Error> {
        check(keep.len() + drop.len(), x)?;
        self.fits(keep, keep.len())?;
        self.fits(drop, drop.len())?;
        let added = f64::from(u8::from(added));
        self.each(drop, drop.len(), &[(Transform, 1.0)])?;
        self.scratch(1 + self.targets(keep.len()))?;
        let kept = keep.len() as f64;
        let [wraps, combination, transform] = self.raise(drop.len(), keep.len());
        let streams = (Stream, kept * (2.0 + added));
        let units = [wraps, combination, transform, streams, (Product, kept * (1.0 + added))];
        self.add(keep.len(), keep.len(), &units);
        Ok(())
    }
}

/// Terms of a product with weights: bodies are a dense product; masks are one by 2k points, with a transform of so many
/// stages.
pub(super) fn row_terms(rows: usize, inputs: usize, sums: usize, primes: usize) -> f64 {
    let (k, inputs) = (rows as f64, inputs as f64);
    let masks = (k * inputs).min(2.0 * inputs + 5.0 + 2.5 * (2.0 * k).log2());
    k * (inputs + masks) * (sums * primes) as f64
}

fn check(need: usize, have: usize) -> Result<(), Error> {
    if need == have { Ok(()) } else { Err(Error::Shape { have, need }) }
}

impl Accelerator for Counting {
    type Word = u64;
    type Limb = CountedLimb;

    fn chain(&self) -> &ModulusChain {
        &self.chain
    }

    fn allocate(&self) -> Result<CountedLimb, Error> {
        if self.meter.take() { Ok(CountedLimb(self.meter.clone())) } else { Err(self.full()) }
    }

    fn available(&self) -> usize {
        self.meter.capacity().saturating_sub(self.meter.live())
    }

    fn for_each<T: Send, E: Send>(
        &self,
        items: &mut [T],
        f: impl Fn(usize, &mut T) -> Result<(), E> + Sync,
    ) -> Result<(), E> {
        self.meter.each(items, f)
    }

    fn write(&self, _: &mut CountedLimb, source: &[u64]) -> Result<(), Error> {
        check(self.chain.degree(), source.len())?;
        self.add(1, 1, &[(Stream, 2.0)]);
        Ok(())
    }

    fn read(&self, _: &CountedLimb, destination: &mut [u64]) -> Result<(), Error> {
        check(self.chain.degree(), destination.len())?;
        self.add(1, 1, &[(Stream, 2.0)]);
        Ok(())
    }

    fn write_signed(&self, basis: Basis, limbs: &mut [CountedLimb], source: &[i64]) -> Result<(), Error> {
        check(self.chain.degree(), source.len())?;
        self.each(basis, limbs.len(), &[(Stream, 2.0), (Product, 1.0)])
    }

    fn copy(&self, destination: &mut [CountedLimb], source: &[CountedLimb]) -> Result<(), Error> {
        check(destination.len(), source.len())?;
        self.add(source.len(), source.len(), &[(Stream, 2.0 * source.len() as f64)]);
        Ok(())
    }

    fn clear(&self, limbs: &mut [CountedLimb]) -> Result<(), Error> {
        self.add(limbs.len(), limbs.len(), &[(Stream, limbs.len() as f64)]);
        Ok(())
    }

    fn ntt_forward(&self, basis: Basis, x: &mut [CountedLimb]) -> Result<(), Error> {
        self.each(basis, x.len(), &[(Transform, 1.0)])
    }

    fn ntt_inverse(&self, basis: Basis, x: &mut [CountedLimb]) -> Result<(), Error> {
        self.each(basis, x.len(), &[(Transform, 1.0)])
    }

    fn ntt_partial(&self, basis: Basis, x: &mut [CountedLimb], block: usize) -> Result<(), Error> {
        check_block(self.chain.degree(), block)?;
        let share = 1.0 - f64::from(block.ilog2()) / f64::from(self.chain.degree().ilog2());
        self.each(basis, x.len(), &[(Transform, share)])
    }

    fn add_assign(&self, basis: Basis, x: &mut [CountedLimb], y: &[CountedLimb]) -> Result<(), Error> {
        check(x.len(), y.len())?;
        self.each(basis, x.len(), &[(Stream, 3.0)])
    }

    fn sub_assign(&self, basis: Basis, x: &mut [CountedLimb], y: &[CountedLimb]) -> Result<(), Error> {
        self.add_assign(basis, x, y)
    }

    fn negate_assign(&self, basis: Basis, x: &mut [CountedLimb]) -> Result<(), Error> {
        self.each(basis, x.len(), &[(Stream, 2.0)])
    }

    fn multiply_assign(&self, basis: Basis, x: &mut [CountedLimb], y: &[CountedLimb]) -> Result<(), Error> {
        check(x.len(), y.len())?;
        self.each(basis, x.len(), &[(Stream, 3.0), (Product, 1.0)])
    }

    fn multiply_add(
        &self,
        basis: Basis,
        sum: &mut [CountedLimb],
        x: &[CountedLimb],
        y: &[CountedLimb],
    ) -> Result<(), Error> {
        check(sum.len(), x.len())?;
        check(sum.len(), y.len())?;
        self.each(basis, sum.len(), &[(Stream, 4.0), (Product, 1.0)])
    }

    fn multiply_scalar_assign(&self, basis: Basis, x: &mut [CountedLimb], s: &[u64]) -> Result<(), Error> {
        check(x.len(), s.len())?;
        self.each(basis, x.len(), &[(Stream, 2.0), (Product, 1.0)])
    }

    fn multiply_scalar_add(
        &self,
        basis: Basis,
        sum: &mut [CountedLimb],
        x: &[CountedLimb],
        s: &[u64],
    ) -> Result<(), Error> {
        check(sum.len(), x.len())?;
        check(sum.len(), s.len())?;
        self.each(basis, sum.len(), &[(Stream, 3.0), (Product, 1.0)])
    }

    fn multiply_scalars_add(
        &self,
        basis: Basis,
        sum: &mut [CountedLimb],
        terms: &[(&[CountedLimb], &[u64])],
    ) -> Result<(), Error> {
        for (x, s) in terms {
            check(sum.len(), x.len())?;
            check(sum.len(), s.len())?;
        }
        let count = terms.len() as f64;
        self.each(basis, sum.len(), &[(Stream, 2.0 + count), (Product, 0.5 + 0.5 * count)])
    }

    fn add_scalar_assign(&self, basis: Basis, x: &mut [CountedLimb], s: &[u64]) -> Result<(), Error> {
        check(x.len(), s.len())?;
        self.each(basis, x.len(), &[(Stream, 2.0)])
    }

    fn automorphism(
        &self,
        basis: Basis,
        destination: &mut [CountedLimb],
        source: &[CountedLimb],
        galois: usize,
    ) -> Result<(), Error> {
        check(destination.len(), source.len())?;
        if galois.is_multiple_of(2) || galois >= 2 * self.chain.degree() {
            return Err(Error::Range);
        }
        self.each(basis, source.len(), &[(Permutation, 1.0)])
    }

    fn automorphism_add(
        &self,
        basis: Basis,
        sum: &mut [CountedLimb],
        source: &[CountedLimb],
        galois: usize,
    ) -> Result<(), Error> {
        self.automorphism(basis, sum, source, galois)?;
        self.add(source.len(), source.len(), &[(Stream, source.len() as f64)]);
        Ok(())
    }

    fn repeat(
        &self,
        _: &mut CountedLimb,
        _: &CountedLimb,
        offset: usize,
        repeat: usize,
    ) -> Result<(), Error> {
        check_repeat(self.chain.degree(), offset, repeat)?;
        self.add(1, 1, &[(Stream, 2.0)]);
        Ok(())
    }

    fn convert(
        &self,
        from: Basis,
        source: &[CountedLimb],
        to: Basis,
        destination: &mut [CountedLimb],
    ) -> Result<(), Error> {
        self.fits(from, source.len())?;
        self.fits(to, destination.len())?;
        self.scratch(from.len() + 1)?;
        let [scaling, combination, _] = self.raise(from.len(), to.len());
        self.add(to.len(), to.len(), &[scaling, combination]);
        Ok(())
    }

    fn row_products(
        &self,
        basis: Basis,
        rows: usize,
        weights: &[i16],
        x: &[[&[CountedLimb]; 2]],
        sums: &mut [RowSums<'_, CountedLimb>],
    ) -> Result<(), Error> {
        check_rows(&self.chain, basis, rows, weights, x, sums)?;
        let k = rows as f64;
        let terms = row_terms(rows, x.len(), sums.len(), basis.len());
        let streams = (k + 1.0) * (sums.len() * basis.len()) as f64;
        self.add(sums.len() * rows, sums.len() * (rows + 1), &[(MatrixTerm, terms), (Stream, streams)]);
        Ok(())
    }

    fn block_products(
        &self,
        basis: Basis,
        block: usize,
        left: &[&[CountedLimb]],
        right: &[&[CountedLimb]],
        destination: &mut [&mut [CountedLimb]],
    ) -> Result<(), Error> {
        check_blocks(&self.chain, basis, block, left, right, destination)?;
        let terms = (block * left.len() * basis.len()) as f64;
        self.add(destination.len(), destination.len() * basis.len(), &[(MatrixTerm, terms)]);
        Ok(())
    }

    fn odd_power_sums(
        &self,
        basis: Basis,
        x: &[CountedLimb],
        rows: &[&[CountedLimb]],
        sums: &mut [&mut [CountedLimb]],
    ) -> Result<(), Error> {
        check_powers(&self.chain, basis, x, rows, sums)?;
        let terms = (rows.len() * sums.len() * basis.len()) as f64;
        let streams = ((rows.len() + sums.len()) * basis.len()) as f64;
        self.add(sums.len(), sums.len() * basis.len(), &[(PowerTerm, terms), (Stream, streams)]);
        Ok(())
    }

    fn tensor(
        &self,
        basis: Basis,
        d: [&mut [CountedLimb]; 3],
        x: [&[CountedLimb]; 2],
        y: [&[CountedLimb]; 2],
    ) -> Result<(), Error> {
        for have in [d[1].len(), d[2].len(), x[0].len(), x[1].len(), y[0].len(), y[1].len()] {
            self.fits(basis, have)?;
        }
        self.each(basis, d[0].len(), &[(Stream, 7.0), (Product, 4.0)])
    }

    fn tensor_add(
        &self,
        basis: Basis,
        d: [&mut [CountedLimb]; 3],
        terms: &[[[&[CountedLimb]; 2]; 2]],
    ) -> Result<(), Error> {
        for have in d.iter().map(|d| d.len()).chain(terms.iter().flatten().flatten().map(|x| x.len())) {
            self.fits(basis, have)?;
        }
        let count = terms.len() as f64;
        self.each(basis, d[0].len(), &[(Stream, 6.0 + 4.0 * count), (Product, 3.0 * count)])
    }

    fn mod_up(
        &self,
        level: Basis,
        digit: Basis,
        x: &[CountedLimb],
        coefficients: &[CountedLimb],
        out: &mut [CountedLimb],
    ) -> Result<(), Error> {
        check(level.len(), x.len())?;
        check(digit.len(), coefficients.len())?;
        self.fits(level.with_special(out.len().saturating_sub(level.len())), out.len())?;
        if digit.start() + digit.len() > level.len() {
            return Err(Error::Shape { have: level.len(), need: digit.start() + digit.len() });
        }
        self.scratch(digit.len() + 1)?;
        let own = digit.len() as f64;
        let [_, combination, transform] = self.raise(digit.len(), out.len() - digit.len());
        let units = [(Scaling, own), combination, transform, (Stream, 2.0 * own)];
        self.add(out.len(), out.len(), &units);
        Ok(())
    }

    fn inner_product(
        &self,
        level: Basis,
        sums: [&mut [CountedLimb]; 2],
        digits: &[&[CountedLimb]],
        key: [&[KeyRow<'_, CountedLimb>]; 2],
    ) -> Result<(), Error> {
        let limbs = sums[0].len();
        let basis = level.with_special(limbs.saturating_sub(level.len()));
        digits.iter().try_for_each(|digit| check(limbs, digit.len()))?;
        key.iter().try_for_each(|half| check(digits.len(), half.len()))?;
        self.each(basis, limbs, &[(KeyTerm, 2.0 * digits.len() as f64), (Stream, 2.0)])
    }

    fn mod_down(&self, keep: Basis, drop: Basis, x: &mut [CountedLimb]) -> Result<(), Error> {
        self.divide(keep, drop, x.len(), false)
    }

    fn mod_down_add(
        &self,
        keep: Basis,
        drop: Basis,
        x: &mut [CountedLimb],
        addend: &[CountedLimb],
    ) -> Result<(), Error> {
        check(keep.len() + drop.ordinary(), addend.len())?;
        self.divide(keep, drop, x.len(), true)
    }

    fn key_switch(
        &self,
        level: Basis,
        digit_size: usize,
        x: &[CountedLimb],
        key: [&[KeyRow<'_, CountedLimb>]; 2],
        sums: [&mut [CountedLimb]; 2],
    ) -> Result<(), Error> {
        let (limbs, own) = (sums[0].len(), level.len());
        self.fits(level.with_special(limbs.saturating_sub(own)), limbs)?;
        let runs = digits(level, digit_size).count();
        key.iter().try_for_each(|half| check(runs, half.len()))?;
        self.each(level, x.len(), &[(Transform, 1.0), (Stream, 1.0)])?;
        self.scratch(own + runs + runs * self.targets(limbs))?;
        let mut units = vec![(KeyTerm, (2 * runs * limbs) as f64), (Stream, 2.0 * limbs as f64)];
        units.extend(digits(level, digit_size).flat_map(|run| self.raise(run.len(), limbs - run.len())));
        self.add(limbs, limbs, &units);
        Ok(())
    }

    fn hoisted_sums(
        &self,
        level: Basis,
        x: [&[CountedLimb]; 2],
        digits: &[&[CountedLimb]],
        steps: &[Step<'_, CountedLimb>],
        factors: &Factors<'_, CountedLimb>,
        sums: &mut [[&mut [CountedLimb]; 2]],
    ) -> Result<(), Error> {
        let basis = check_sums(&self.chain, level, x, digits, steps, factors, sums)?;
        let (limbs, threads) = (basis.len(), self.meter.threads());
        let switched = steps.iter().filter(|step| step.key.is_some()).count();
        let of_thread = (2 * steps.len() * TILE.min(self.chain.degree())).div_ceil(self.chain.degree());
        self.scratch(threads * of_thread)?;
        let all = |each: usize| (each * limbs) as f64;
        let units = [
            (Hoisted, all(2 * digits.len() * switched + 2 * sums.len() * steps.len())),
            (Stream, all(2 * sums.len())),
        ];
        self.add(4 * threads * limbs, limbs, &units);
        Ok(())
    }
}
