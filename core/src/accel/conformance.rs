//! The conformance suite of an [`Accelerator`]: every kernel, bit for bit against [`Portable`].
//!
//! A [`Kernel`] here is a small program: it makes its inputs from a seed, runs one kernel of the seam, and hands
//! back the limbs that kernel defines. [`Suite::run`] runs each program on the accelerator under test and on
//! the reference, over every shape of [`Basis`], on pseudo-random inputs and on the ends of the range, and
//! compares word by word. Then it misuses the accelerator and expects the errors the contract promises.
//!
//! Nothing is allocated, so the suite also runs on the device that carries the accelerator. On a host,
//! [`accelerator_conformance!`](crate::accelerator_conformance) writes the tests:
//!
//! ```ignore
//! veilformer::accelerator_conformance!(mine, |chain, limbs, suite| {
//!     let accelerator = Mine::new(chain, limbs);
//!     suite.run(&accelerator, &mut vec![0; chain.degree()])
//! });
//! ```

mod chains;
mod kernel;
mod misuse;

pub use chains::{Sizes, chain};
pub use kernel::{Bench, Fill, Kernel, Outputs};
pub use misuse::Misuse;

use super::{Accelerator, Error, Portable};
use crate::memory::{Arena, LimbPool, OutOfMemory};
use crate::ring::{Basis, MAX_SOURCES, ModulusChain, RingTables, Word};

/// Most limbs the reference works with.
const CAPACITY: usize = 768;

/// What a passing accelerator has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Report {
    /// Programs run.
    pub programs: u32,
    /// Limbs compared, word by word.
    pub limbs: u32,
    /// Misuses refused.
    pub refusals: u32,
}

/// The first thing that was not as the contract says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Failure {
    /// The suite has too little memory, in words.
    Memory(OutOfMemory),
    /// An error where none was due.
    Error {
        /// The program.
        kernel: Kernel,
        /// Its basis.
        basis: Basis,
        /// The error.
        error: Error,
    },
    /// Another number of output limbs than the reference.
    Count {
        /// The program.
        kernel: Kernel,
        /// Limbs found.
        found: usize,
        /// Limbs of the reference.
        expected: usize,
    },
    /// A wrong word.
    Word {
        /// The program.
        kernel: Kernel,
        /// Its basis.
        basis: Basis,
        /// Its inputs.
        fill: Fill,
        /// Which output limb.
        limb: usize,
        /// Which word of it.
        word: usize,
        /// What came back.
        found: u64,
        /// What should have.
        expected: u64,
    },
    /// A misuse that was not refused, or not with the right kind of error.
    Misuse {
        /// Which.
        misuse: Misuse,
        /// What came back.
        found: Result<(), Error>,
    },
    /// Limbs were lost or won: `available` before and after.
    Leak {
        /// Limbs available before.
        before: usize,
        /// Limbs available after.
        after: usize,
    },
    /// `for_each` missed an item, or did not return the error of the first item that failed.
    ForEach {
        /// The item.
        index: usize,
    },
}

impl core::fmt::Display for Failure {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "the accelerator does not conform: {self:?}")
    }
}

impl core::error::Error for Failure {}

impl From<OutOfMemory> for Failure {
    fn from(error: OutOfMemory) -> Self {
        Self::Memory(error)
    }
}

/// The suite and the memory of its reference.
pub struct Suite<'m> {
    words: &'m mut [u64],
    signed: &'m mut [i64],
}

impl<'m> Suite<'m> {
    /// Limbs that the accelerator under test must have for `chain`.
    #[must_use]
    pub fn limbs_needed(chain: &ModulusChain) -> usize {
        let digits = chain.ordinary().div_ceil(digit_size(chain));
        ((3 * digits + 16) * chain.moduli().len() + 2 * MAX_SOURCES).min(CAPACITY)
    }

    /// Words that the reference takes for `chain`.
    #[must_use]
    pub fn words_needed(chain: &ModulusChain) -> usize {
        let pool = LimbPool::<u64, CAPACITY>::words_needed(chain.degree(), Self::limbs_needed(chain));
        RingTables::<u64>::words_needed(chain) + pool + chain.degree()
    }

    /// With [`Suite::words_needed`] words and N signed integers.
    #[must_use]
    pub fn new(words: &'m mut [u64], signed: &'m mut [i64]) -> Self {
        Self { words, signed }
    }

    /// Runs everything. `row` is one limb of N words.
    ///
    /// # Errors
    /// The first [`Failure`].
    pub fn run<A: Accelerator>(self, accelerator: &A, row: &mut [A::Word]) -> Result<Report, Failure> {
        let chain = accelerator.chain();
        let mut arena = Arena::new(self.words);
        let tables = RingTables::new(chain, &mut arena)?;
        let reference_row = arena.take(chain.degree())?;
        let pool = LimbPool::<u64, CAPACITY>::new(&mut arena, chain.degree(), Self::limbs_needed(chain))?;
        let reference = Portable::new(&tables, &pool)
            .map_err(|_| OutOfMemory { have: pool.degree(), need: chain.degree() })?;
        if row.len() != chain.degree() || self.signed.len() != chain.degree() {
            let have = row.len().min(self.signed.len());
            return Err(OutOfMemory { have, need: chain.degree() }.into());
        }
        let mut report = Report::default();
        let before = accelerator.available();
        for (seed, fill) in Fill::ALL.into_iter().enumerate() {
            for basis in bases(chain) {
                for kernel in Kernel::ALL {
                    if !kernel.applies(basis) {
                        continue;
                    }
                    let failed = |error| Failure::Error { kernel, basis, error };
                    let seed = seed as u64;
                    let expected = Bench::new(&reference, reference_row, self.signed, fill, seed)
                        .run(kernel, basis, digit_size(chain))
                        .map_err(failed)?;
                    let found = Bench::new(accelerator, row, self.signed, fill, seed)
                        .run(kernel, basis, digit_size(chain))
                        .map_err(failed)?;
                    if found.len() != expected.len() {
                        let (found, expected) = (found.len(), expected.len());
                        return Err(Failure::Count { kernel, found, expected });
                    }
                    for (limb, (found, expected)) in found.iter().zip(&expected).enumerate() {
                        accelerator.read(found, row).map_err(failed)?;
                        let pairs = row.iter().map(|w| w.to_u64()).zip(expected.words().iter().copied());
                        let wrong = pairs.enumerate().find(|(_, (found, expected))| found != expected);
                        if let Some((word, (found, expected))) = wrong {
                            return Err(Failure::Word { kernel, basis, fill, limb, word, found, expected });
                        }
                    }
                    report.programs += 1;
                    report.limbs += found.len() as u32;
                }
            }
        }
        concurrent(accelerator, &reference, row, reference_row)?;
        report.refusals = misuse::run(accelerator, row, self.signed)?;
        match accelerator.available() {
            after if after == before => Ok(report),
            after => Err(Failure::Leak { before, after }),
        }
    }
}

/// Ordinary primes to a digit: as many as there are special primes.
fn digit_size(chain: &ModulusChain) -> usize {
    chain.special().clamp(1, MAX_SOURCES)
}

/// Every shape a basis takes: levels, runs, special primes alone and after both, all of them and fewer.
fn bases(chain: &ModulusChain) -> impl Iterator<Item = Basis> + use<> {
    let (ordinary, special) = (chain.ordinary(), chain.special());
    [
        Basis::level(0),
        Basis::level(ordinary / 2),
        Basis::level(ordinary - 1),
        Basis::level(ordinary / 2).with_special(special),
        Basis::level(ordinary - 1).with_special(special),
        Basis::level(ordinary / 2).with_special(special.saturating_sub(1)),
        Basis::level(ordinary - 1).with_special(1),
        Basis::new(1, ordinary - 1, special),
        Basis::new(ordinary / 2, 1, 0),
        Basis::new(0, 0, special),
    ]
    .into_iter()
    .filter(move |basis| !basis.is_empty())
    .filter(move |basis| basis.start() + basis.ordinary() <= ordinary && basis.special() <= special)
}

/// `for_each` visits every item, kernels inside it take effect, and the first error comes back.
fn concurrent<A: Accelerator>(
    accelerator: &A,
    reference: &Portable<'_, '_, u64, CAPACITY>,
    row: &mut [A::Word],
    reference_row: &mut [u64],
) -> Result<(), Failure> {
    const ITEMS: usize = 6;
    let basis = Basis::level(accelerator.chain().ordinary() - 1);
    let kernel = Kernel::NttForward;
    let failed = |error| Failure::Error { kernel, basis, error };
    let mut items: heapless::Vec<_, ITEMS> = heapless::Vec::new();
    for seed in 0..ITEMS as u64 {
        let x = Bench::new(accelerator, row, &mut [], Fill::Random, seed).polynomial(basis, 0);
        // Exactly ITEMS are pushed.
        let _ = items.push(x.map_err(failed)?);
    }
    accelerator.for_each(&mut items, |_, x| accelerator.ntt_forward(basis, x)).map_err(failed)?;
    for (index, item) in items.iter().enumerate() {
        let mut x = Bench::new(reference, reference_row, &mut [], Fill::Random, index as u64)
            .polynomial(basis, 0)
            .map_err(failed)?;
        reference.ntt_forward(basis, &mut x).map_err(failed)?;
        for (found, expected) in item.iter().zip(&x) {
            accelerator.read(found, row).map_err(failed)?;
            if row.iter().zip(expected.words()).any(|(found, expected)| found.to_u64() != *expected) {
                return Err(Failure::ForEach { index });
            }
        }
    }
    let mut marks = [0usize; 64];
    let outcome = accelerator.for_each(&mut marks, |i, mark| {
        *mark = i + 1;
        if i == 40 || i == 50 { Err(i) } else { Ok(()) }
    });
    if outcome != Err(40) {
        return Err(Failure::ForEach { index: 40 });
    }
    let mut marks = [0usize; 64];
    let _: Result<(), ()> = accelerator.for_each(&mut marks, |i, mark| {
        *mark += i + 1;
        Ok(())
    });
    match marks.iter().enumerate().find(|&(i, &mark)| mark != i + 1) {
        Some((index, _)) => Err(Failure::ForEach { index }),
        None => Ok(()),
    }
}

/// Writes the conformance tests of an accelerator as a module `$name`.
///
/// The constructor is called with a chain, the number of limbs the accelerator must have, and the
/// [`Suite`](crate::accel::conformance::Suite) to run on it; see [`crate::accel::conformance`]. A third argument
/// bounds the primes: `30` for accelerators of 32-bit words, 50 when left out.
#[macro_export]
macro_rules! accelerator_conformance {
    ($name:ident, $constructor:expr) => {
        $crate::accelerator_conformance!($name, $constructor, 50);
    };
    ($name:ident, $constructor:expr, $bits:literal) => {
        mod $name {
            #[allow(unused_imports, reason = "the constructor may use all of it")]
            use super::*;
            use $crate::accel::conformance::{Failure, Report, Sizes, Suite, chain};

            fn check(
                log_degree: u32,
                sizes: Sizes,
                constructor: impl FnOnce(
                    &$crate::ring::ModulusChain,
                    usize,
                    Suite<'_>,
                ) -> Result<Report, Failure>,
            ) {
                let chain = chain(log_degree, sizes, $bits).expect("there are such primes");
                let mut words = ::std::vec![0; Suite::words_needed(&chain)];
                let mut signed = ::std::vec![0; chain.degree()];
                let suite = Suite::new(&mut words, &mut signed);
                match constructor(&chain, Suite::limbs_needed(&chain), suite) {
                    Ok(report) => ::std::println!("{report:?}"),
                    Err(failure) => panic!("N = 2^{log_degree}, {sizes:?}: {failure:?}"),
                }
            }

            #[test]
            fn large_primes() {
                check(10, Sizes::Large, $constructor);
            }

            #[test]
            fn middle_primes() {
                check(11, Sizes::Middle, $constructor);
            }

            #[test]
            fn small_primes() {
                check(10, Sizes::Small, $constructor);
            }

            #[test]
            fn mixed_primes() {
                check(12, Sizes::Mixed, $constructor);
            }

            #[test]
            fn many_primes() {
                check(10, Sizes::Many, $constructor);
            }

            #[test]
            fn one_prime() {
                check(11, Sizes::One, $constructor);
            }

            #[test]
            fn larger_rings() {
                check(13, Sizes::Mixed, $constructor);
            }
        }
    };
}
