//! Seconds for a unit of every kind of work, measured on the machine that will do it.
//!
//! Every kind is measured by its own kernel on more memory than the caches hold: once on one thread alone and once on all
//! threads, because they share memory and maybe cores. A job finds some of its operands in the caches, and its threads wait
//! for each other: what whole products take says by how much all of it is off ([`sample`]).

use super::counting::row_terms;
use super::{Counting, Kernel, Work, sample};
use std::time::Instant;
use veilformer::accel::{Accelerator, Error, Factors, KeyRow, RowSums, Step};
use veilformer::ring::Basis;

/// Words of memory that a thread measures on: 16 MiB.
const WORDS: usize = 1 << 21;
/// Repetitions in a row, of which the middle one counts: not what an interruption made of one.
const REPEATS: usize = 5;
/// Rounds over all kinds of work, of which the best counts for each: what else runs on a shared machine for half a second
/// slows a job of minutes down by little.
const ROUNDS: usize = 5;
/// Digits of the key switches that are measured.
const DIGITS: usize = 3;
/// Baby steps, and giant steps, of the transforms that are measured.
const STEPS: usize = 8;
/// Rows of a ciphertext in the products that are measured, at most.
const ROWS: usize = 64;

/// What a unit takes in one ring.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Seconds where one thread works alone, and where all of them do, in the order of [`Kernel::ALL`].
    pub unit_s: [[f64; 2]; Kernel::ALL.len()],
    /// What kernels take in an operation over what they take by themselves.
    pub together: f64,
    /// Seconds that it takes to hand work out to other threads.
    pub fork_s: f64,
    /// Seconds that a dry run takes to count a kernel.
    pub bookkeeping_s: f64,
}

/// Limbs of one thread.
type Lane<A> = Vec<<A as Accelerator>::Limb>;

impl Rates {
    /// Seconds of some work.
    pub fn seconds(&self, work: &Work) -> f64 {
        let kernels = Kernel::ALL.into_iter().zip(&self.unit_s).map(|(kernel, [alone_s, shared_s])| {
            let [alone, shared] = work.units(kernel);
            alone * alone_s + shared * shared_s
        });
        self.together * (kernels.sum::<f64>() + work.forks * self.fork_s)
    }

    /// Processor seconds of some work on so many threads.
    pub fn processor_seconds(&self, work: &Work, threads: usize) -> f64 {
        let kernels = Kernel::ALL.into_iter().zip(&self.unit_s).map(|(kernel, [alone_s, shared_s])| {
            let [alone, shared] = work.units(kernel);
            alone * alone_s + shared * shared_s * threads as f64
        });
        self.together * kernels.sum::<f64>()
    }

    /// Measures an accelerator of so many threads, on which this should run: about a second.
    ///
    /// # Errors
    /// Out of limbs: [`Rates::limbs`] are needed.
    pub fn measure<A: Accelerator>(accelerator: &A, threads: usize) -> Result<Self, Error> {
        let degree = accelerator.chain().degree();
        let lane =
            |_| (0..lane_limbs(degree)).map(|_| accelerator.allocate()).collect::<Result<Lane<A>, _>>();
        let mut lanes = (0..threads.max(1)).map(lane).collect::<Result<Vec<_>, _>>()?;
        for limb in lanes.iter_mut().flatten() {
            accelerator.clear(core::slice::from_mut(limb))?;
        }
        // By one thread, and by all.
        let mut best = [[f64::INFINITY; Kernel::ALL.len()]; 2];
        for _ in 0..ROUNDS {
            for (best, which) in best.iter_mut().zip([1, threads.max(1)]) {
                let round = one_round(accelerator, &mut lanes[..which])?;
                best.iter_mut().zip(round).for_each(|(best, seconds)| *best = best.min(seconds));
            }
        }
        let [alone, shared] = best.map(|seconds| by_themselves(seconds, most_converted(accelerator)));
        let unit_s = core::array::from_fn(|kernel| [alone[kernel], shared[kernel]]);
        let fork_s = median(|| accelerator.for_each(&mut vec![(); threads], |_, ()| Ok::<_, Error>(())))?;
        // Their limbs are needed once more.
        drop(lanes);
        let bookkeeping_s = bookkeeping(accelerator, threads)?;
        let by_themselves = Self { unit_s, together: 1.0, fork_s, bookkeeping_s };
        let together = sample::factor(accelerator, threads, &by_themselves)?;
        Ok(Self { together, ..by_themselves })
    }

    /// Limbs that measuring takes.
    pub fn limbs(degree: usize, threads: usize) -> usize {
        (lane_limbs(degree) * threads.max(1) + 64).max(sample::limbs(threads))
    }
}

/// Seconds for a unit of every kind, in the order of [`Kernel::ALL`], all lanes at the same time: of products with the streams
/// that they take, of a conversion to one prime and to several in the places of its two parts.
fn one_round<A: Accelerator>(
    accelerator: &A,
    lanes: &mut [Lane<A>],
) -> Result<[f64; Kernel::ALL.len()], Error> {
    let mut unit_s = [0.0; Kernel::ALL.len()];
    // Seconds a unit of what `f` does to a lane, which is so many units.
    let mut set = |kernel: Kernel, f: &(dyn Fn(&mut Lane<A>) -> Result<f64, Error> + Sync)| {
        time(accelerator, lanes, f).map(|seconds| unit_s[kernel as usize] = seconds)
    };
    set(Kernel::Stream, &|lane| stream(accelerator, lane))?;
    set(Kernel::Product, &|lane| products(accelerator, lane))?;
    set(Kernel::Transform, &|lane| transforms(accelerator, lane))?;
    set(Kernel::Permutation, &|lane| automorphisms(accelerator, lane))?;
    set(Kernel::KeyTerm, &|lane| key_terms(accelerator, lane))?;
    set(Kernel::PowerTerm, &|lane| powers(accelerator, lane))?;
    set(Kernel::MatrixTerm, &|lane| matrix_terms(accelerator, lane))?;
    set(Kernel::Hoisted, &|lane| hoisted(accelerator, lane))?;
    set(Kernel::Scaling, &|lane| conversions(accelerator, 1, lane))?;
    set(Kernel::Combination, &|lane| conversions(accelerator, most_converted(accelerator), lane))?;
    Ok(unit_s)
}

/// What [`one_round`] measures together, taken apart.
fn by_themselves(mut seconds: [f64; Kernel::ALL.len()], most: usize) -> [f64; Kernel::ALL.len()] {
    let [few, many] = [Kernel::Scaling, Kernel::Combination].map(|kernel| seconds[kernel as usize]);
    let combination = ((many - few) / (most - 1) as f64).max(0.0);
    let streams = 3.0 * seconds[Kernel::Stream as usize];
    seconds[Kernel::Product as usize] = (seconds[Kernel::Product as usize] - streams).max(0.0);
    seconds[Kernel::Combination as usize] = combination;
    seconds[Kernel::Scaling as usize] = (few - combination).max(0.0);
    seconds
}

/// Primes that a conversion is measured to, beside that to one.
fn most_converted<A: Accelerator>(accelerator: &A) -> usize {
    (accelerator.chain().moduli().len() - 2).min(4)
}

fn lane_limbs(degree: usize) -> usize {
    (WORDS / degree).max(40)
}

/// The seconds that `f` mostly takes.
pub(super) fn median<E>(mut f: impl FnMut() -> Result<(), E>) -> Result<f64, E> {
    let mut seconds = [0.0; REPEATS];
    for taken in &mut seconds {
        let start = Instant::now();
        f()?;
        *taken = start.elapsed().as_secs_f64();
    }
    seconds.sort_by(f64::total_cmp);
    Ok(seconds[REPEATS / 2])
}

/// Seconds for a unit, all lanes at the same time: each does what `f` says how many units it was. A lane looks at the
/// clock by itself: on a busy machine one of them may well be kept waiting.
fn time<A: Accelerator>(
    accelerator: &A,
    lanes: &mut [Lane<A>],
    f: &(dyn Fn(&mut Lane<A>) -> Result<f64, Error> + Sync),
) -> Result<f64, Error> {
    let count = lanes.len() as f64;
    let mut work: Vec<(&mut Lane<A>, f64)> = lanes.iter_mut().map(|lane| (lane, 0.0)).collect();
    accelerator.for_each(&mut work, |_, (lane, seconds)| {
        let mut units = 0.0;
        let middle = median(|| f(lane).map(|done| units = done))?;
        *seconds = middle / units;
        Ok(())
    })?;
    Ok(work.iter().map(|(_, seconds)| seconds).sum::<f64>() / (count * count))
}

/// Prime q_0, for kernels on single limbs.
const FIRST: Basis = Basis::level(0);

fn stream<A: Accelerator>(accelerator: &A, lane: &mut Lane<A>) -> Result<f64, Error> {
    let (to, from) = halves::<A>(lane);
    to.chunks_mut(1).zip(from.chunks(1)).try_for_each(|(to, from)| accelerator.copy(to, from))?;
    Ok(2.0 * to.len() as f64)
}

fn halves<A: Accelerator>(lane: &mut Lane<A>) -> (&mut [A::Limb], &mut [A::Limb]) {
    let half = lane.len() / 2;
    lane.split_at_mut(half)
}

fn products<A: Accelerator>(accelerator: &A, lane: &mut Lane<A>) -> Result<f64, Error> {
    let (x, y) = halves::<A>(lane);
    x.chunks_mut(1).zip(y.chunks(1)).try_for_each(|(x, y)| accelerator.multiply_assign(FIRST, x, y))?;
    Ok(x.len() as f64)
}

fn transforms<A: Accelerator>(accelerator: &A, lane: &mut Lane<A>) -> Result<f64, Error> {
    lane.chunks_mut(1).try_for_each(|limb| accelerator.ntt_forward(FIRST, limb))?;
    Ok(lane.len() as f64)
}

fn automorphisms<A: Accelerator>(accelerator: &A, lane: &mut Lane<A>) -> Result<f64, Error> {
    let (to, from) = halves::<A>(lane);
    to.chunks_mut(1)
        .zip(from.chunks(1))
        .try_for_each(|(to, from)| accelerator.automorphism(FIRST, to, from, 5))?;
    Ok(to.len() as f64)
}

/// From two primes to others.
fn conversions<A: Accelerator>(accelerator: &A, to: usize, lane: &mut Lane<A>) -> Result<f64, Error> {
    let (source, targets) = lane.split_at_mut(2);
    let ordinary = to.min(accelerator.chain().ordinary() - 2);
    let others = Basis::new(2, ordinary, to - ordinary);
    let mut units = 0.0;
    for targets in targets.chunks_exact_mut(others.len()) {
        accelerator.convert(Basis::level(1), source, others, targets)?;
        units += 2.0;
    }
    Ok(units)
}

fn key_terms<A: Accelerator>(accelerator: &A, lane: &mut Lane<A>) -> Result<f64, Error> {
    let (sums, keys) = lane.split_at_mut(2);
    let (digits, keys) = keys.split_at(DIGITS);
    let digits: Vec<&[A::Limb]> = digits.chunks(1).collect();
    let (sum0, sum1) = sums.split_at_mut(1);
    let mut units = 0.0;
    for keys in keys.chunks_exact(2 * DIGITS) {
        let rows = keys.chunks(1).map(|limb| KeyRow { ordinary: limb, special: &[] });
        let rows: Vec<KeyRow<'_, A::Limb>> = rows.collect();
        let (first, second) = rows.split_at(DIGITS);
        accelerator.inner_product(FIRST, [&mut *sum0, &mut *sum1], &digits, [first, second])?;
        units += 2.0 * DIGITS as f64;
    }
    Ok(units)
}

fn powers<A: Accelerator>(accelerator: &A, lane: &mut Lane<A>) -> Result<f64, Error> {
    let (x, rest) = lane.split_at_mut(1);
    let (rows, sums) = rest.split_at_mut((rest.len() / 2).min(ROWS));
    let count = sums.len().min(rows.len());
    let rows: Vec<&[A::Limb]> = rows.chunks(1).collect();
    let mut sums: Vec<&mut [A::Limb]> = sums.chunks_mut(1).take(count).collect();
    accelerator.odd_power_sums(FIRST, x, &rows, &mut sums)?;
    Ok((rows.len() * count) as f64)
}

/// A product of four ciphertexts of rows with weights for one, as a job's.
fn matrix_terms<A: Accelerator>(accelerator: &A, lane: &mut Lane<A>) -> Result<f64, Error> {
    const INPUTS: usize = 4;
    let mut rows = ROWS.min(accelerator.chain().degree() / 8);
    while 2 * INPUTS + rows + 1 > lane.len() {
        rows /= 2;
    }
    let weights = vec![1; rows * rows * INPUTS];
    let (x, sums) = lane.split_at_mut(2 * INPUTS);
    let pairs: Vec<[&[A::Limb]; 2]> = x.chunks_exact(2).map(|pair| [&pair[..1], &pair[1..]]).collect();
    let (body, masks) = sums[..=rows].split_at_mut(1);
    let mut sums = [RowSums { body, masks }];
    accelerator.row_products(FIRST, rows, &weights, &pairs, &mut sums)?;
    Ok(row_terms(rows, INPUTS, 1, 1))
}

/// The sums of a transform with eight baby and four giant steps modulo one prime.
fn hoisted<A: Accelerator>(accelerator: &A, lane: &mut Lane<A>) -> Result<f64, Error> {
    const GIANTS: usize = 4;
    let (sums, rest) = lane.split_at_mut(2 * GIANTS);
    let (fixed, keys) = rest.split_at(2 + DIGITS + 1);
    let digits: Vec<&[A::Limb]> = fixed[2..2 + DIGITS].chunks(1).collect();
    let row = |i: usize| KeyRow { ordinary: core::slice::from_ref(&keys[i % keys.len()]), special: &[] };
    let rows: Vec<[Vec<KeyRow<'_, A::Limb>>; 2]> = (0..STEPS)
        .map(|b| [0, 1].map(|half| (0..DIGITS).map(|d| row((2 * b + half) * DIGITS + d)).collect()))
        .collect();
    let steps: Vec<Step<'_, A::Limb>> = rows
        .iter()
        .enumerate()
        .map(|(b, [first, second])| Step { galois: 4 * b + 5, key: Some([first, second]) })
        .collect();
    let repeat = GIANTS * STEPS;
    let factors = Factors { repeat, count: GIANTS * STEPS, limbs: &fixed[2 + DIGITS..] };
    let mut sums: Vec<[&mut [A::Limb]; 2]> = sums
        .chunks_exact_mut(2)
        .map(|pair| {
            let (first, second) = pair.split_at_mut(1);
            [first, second]
        })
        .collect();
    let x = [&fixed[..1], &fixed[1..2]];
    accelerator.hoisted_sums(FIRST, x, &digits, &steps, &factors, &mut sums)?;
    Ok((2 * STEPS * (DIGITS + GIANTS)) as f64)
}

/// Seconds to count a kernel and a limb.
fn bookkeeping<A: Accelerator>(accelerator: &A, threads: usize) -> Result<f64, Error> {
    const CALLS: usize = 10_000;
    let counting = Counting::new(accelerator.chain(), threads, usize::MAX);
    let mut limbs = [counting.allocate()?];
    let seconds = median(|| {
        (0..CALLS).try_for_each(|_| {
            drop(counting.allocate()?);
            counting.ntt_forward(FIRST, &mut limbs)
        })
    })?;
    Ok(seconds / CALLS as f64)
}
