//! What a whole operation takes over what its kernels take by themselves: threads wait for each other, and a kernel finds
//! in the caches what another left, more of it on one machine than on another.

use super::rates::median;
use super::{Counting, Rates};
use veilformer::accel::{Accelerator, Error, KeyRow, digits};
use veilformer::ring::{Basis, ModulusChain};

/// Words of an operand from which on one operation keeps all threads busy; below, a job has several at a time.
const LARGE: usize = 1 << 18;
/// Most primes of an operand: products of a job have fewer, and more.
const MOST_PRIMES: usize = 12;
/// Rounds, of which the best counts.
const ROUNDS: usize = 3;

/// Products of ciphertexts, relinearised and rescaled: what most of a job is.
struct Sample<'a, A: Accelerator> {
    accelerator: &'a A,
    level: usize,
    /// For both halves the rows of all digits: limbs of the ordinary primes, then of the special ones.
    key: [Vec<Vec<A::Limb>>; 2],
    products: Vec<One<A>>,
}

struct One<A: Accelerator> {
    operands: [Vec<A::Limb>; 4],
    product: [Vec<A::Limb>; 3],
    sums: [Vec<A::Limb>; 2],
}

impl<'a, A: Accelerator> Sample<'a, A> {
    fn new(accelerator: &'a A, level: usize, count: usize) -> Result<Self, Error> {
        let special = accelerator.chain().special();
        let zeros = |count: usize| -> Result<Vec<A::Limb>, Error> {
            let mut limbs = (0..count).map(|_| accelerator.allocate()).collect::<Result<Vec<_>, _>>()?;
            accelerator.clear(&mut limbs)?;
            Ok(limbs)
        };
        let (plain, wide) = (|| zeros(level + 1), || zeros(level + 1 + special));
        let half = || digits(Basis::level(level), special).map(|_| wide()).collect::<Result<Vec<_>, _>>();
        let one = |_| {
            Ok(One {
                operands: [plain()?, plain()?, plain()?, plain()?],
                product: [plain()?, plain()?, plain()?],
                sums: [wide()?, wide()?],
            })
        };
        let products = (0..count).map(one).collect::<Result<_, Error>>()?;
        Ok(Self { accelerator, level, key: [half()?, half()?], products })
    }

    fn run(&mut self) -> Result<(), Error> {
        let (a, level, basis) = (self.accelerator, self.level, Basis::level(self.level));
        let special = a.chain().special();
        let rows = self.key.each_ref().map(|half| -> Vec<KeyRow<'_, A::Limb>> {
            let rows = half.iter().map(|limbs| limbs.split_at(basis.len()));
            rows.map(|(ordinary, special)| KeyRow { ordinary, special }).collect()
        });
        let (keep, drop) = (Basis::level(level - 1), Basis::new(level, 1, special));
        a.for_each(&mut self.products, |_, One { operands: [x0, x1, y0, y1], product, sums }| {
            let ([d0, d1, d2], [sum0, sum1]) = (product, sums);
            a.tensor(basis, [&mut *d0, &mut *d1, &mut *d2], [x0, x1], [y0, y1])?;
            a.key_switch(basis, special, d2, [&rows[0], &rows[1]], [&mut *sum0, &mut *sum1])?;
            a.mod_down_add(keep, drop, sum0, d0)?;
            a.mod_down_add(keep, drop, sum1, d1)
        })
    }
}

/// Primes of the operands, and how many products at a time; none where the chain cannot multiply.
fn shape(chain: &ModulusChain, threads: usize) -> Option<(usize, usize)> {
    let primes = chain.ordinary().min(MOST_PRIMES);
    let count = if primes * chain.degree() < LARGE { 2 * threads } else { 1 };
    (primes > 1 && chain.special() > 0).then_some((primes, count))
}

/// The factor by which products take longer, or shorter, than `rates` says.
///
/// # Errors
/// Out of limbs: [`limbs`] are needed.
pub(super) fn factor<A: Accelerator>(accelerator: &A, threads: usize, rates: &Rates) -> Result<f64, Error> {
    let Some((primes, count)) = shape(accelerator.chain(), threads) else { return Ok(1.0) };
    let counting = Counting::new(accelerator.chain(), threads, usize::MAX);
    let mut counted = Sample::new(&counting, primes - 1, count)?;
    let before = counting.work();
    counted.run()?;
    let predicted = rates.seconds(&counting.work().since(&before));
    let mut sample = Sample::new(accelerator, primes - 1, count)?;
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        best = best.min(median(|| sample.run())?);
    }
    Ok(best / predicted)
}

/// Limbs that measuring it takes, with what the kernels take while they run.
pub(super) fn limbs(threads: usize) -> usize {
    400 + 300 * threads.max(1)
}
