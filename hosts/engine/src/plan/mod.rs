//! Dry runs: the price of a job before any key exists.
//!
//! A dry run carries the program out on the algebra that ciphertexts use, over an accelerator whose limbs have no words
//! ([`Counting`]). Levels, scales, bounds, noise, look-ups of keys and every refusal are therefore those of the real
//! run, by construction, and so are the counts of everything; what is left to be modelled is how long a kernel takes
//! ([`Rates`]).
//!
//! # Where bootstraps stand
//! A function of entries needs slots with levels, and what comes out of the small ring has none: every tensor that such a
//! function reads is raised once, and one bootstrap raises N entries. So a job takes Σ ⌈entries/N⌉ bootstraps at least,
//! over the tensors that are read so, wherever they stand, and what is raised stays in slots for the backward pass. The
//! engine's [`Places`](crate::Places) come to that sum but for rows that are padded to whole pieces and sentences that are
//! not torn apart (12 pieces of 16 at width 768). A minimum cut has nothing to cut: between two functions there is one
//! tensor. What is left to choose is the batch, which the padding of small tensors is shared by.
//!
//! # Time
//! What a dry run does on the host (encoding known vectors, rounding weights, moving words between the rings) it does
//! like the real one: that part of the time is measured.

mod counting;
mod job;
mod keys;
mod located;
mod meter;
mod phases;
mod rates;
mod sample;

pub use counting::{CountedLimb, Counting};
pub use job::{Job, WEIGHTS, count, job_keys};
pub use keys::{CountedKeys, Used};
pub use meter::{Kernel, Work};
pub use phases::{Phase, Recorder, Refusal, Share, Stand};
pub use rates::Rates;

use crate::host::{Ring, with_constants};
use crate::{Encrypted, Error, Moment, Operation, Watched};
use veilformer::accel::Accelerator;
use veilformer::ckks::encoding::Encoder;
use veilformer::ckks::server::bootstrap::BootstrapPlan;
use veilformer::ckks::{self, KeyRequests, Parameters};

/// The algebra of a dry run.
pub type DryRun<'s> = Watched<Encrypted<'s, Counting, CountedKeys>, Box<dyn FnMut(Operation, Moment) + 's>>;

/// What a dry run is to be like.
pub struct Subject<'p> {
    /// Parameters of the big ring.
    pub parameters: &'p Parameters,
    /// Keys of both rings: nothing else is there.
    pub keys: &'p [KeyRequests; 2],
    /// Threads of the machine that will do the work.
    pub threads: usize,
    /// Limbs of both rings that it has memory for.
    pub limbs: [usize; 2],
}

/// What a dry run found.
#[derive(Clone, Debug)]
pub struct Count {
    /// Phases, in their order.
    pub phases: Vec<Phase>,
    /// The most limbs of both rings at once, keys and constants included.
    pub peak: [usize; 2],
    /// Limbs of both rings that keys take.
    pub key_limbs: [usize; 2],
    /// Keys of both rings that were used, and key switches.
    pub used: [Used; 2],
}

impl Count {
    /// Operations of all phases of one kind.
    pub fn operations(&self, operation: Operation) -> usize {
        self.phases.iter().filter_map(|phase| phase.shares.get(&operation)).map(|share| share.count).sum()
    }

    /// Seconds, by both rings' rates.
    pub fn seconds(&self, rates: &[Rates; 2]) -> f64 {
        self.phases.iter().map(|phase| phase.total().seconds(rates)).sum()
    }

    /// Key switches of both rings.
    pub fn key_switches(&self) -> usize {
        self.used.iter().flat_map(|used| used.switches.values()).sum()
    }
}

/// Runs `work` dry. It starts phases on the [`Recorder`]; what it does before the first belongs to no phase.
///
/// # Errors
/// Those of the real run.
pub fn dry_run<R, E: From<Error>>(
    subject: &Subject<'_>,
    work: impl for<'s> FnOnce(DryRun<'s>, &'s Recorder<'s>) -> Result<R, E>,
) -> Result<(R, Count), E> {
    let error = |error: ckks::Error| E::from(Error::from(error));
    let big = subject.parameters;
    let small = big.small_ring().map_err(error)?;
    let accelerators = [
        Counting::new(big.chain(), subject.threads, subject.limbs[0]),
        Counting::new(small.chain(), subject.threads, subject.limbs[1]),
    ];
    let keys = |i: usize, parameters| {
        CountedKeys::new(&accelerators[i], parameters, &subject.keys[i]).map_err(error)
    };
    let keys = [keys(0, big)?, keys(1, &small)?];
    let key_limbs = accelerators.each_ref().map(Counting::live_limbs);
    let recorder = Recorder::new(&accelerators);
    let rings = [
        Ring { accelerator: &accelerators[0], parameters: big, keys: &keys[0] },
        Ring { accelerator: &accelerators[1], parameters: &small, keys: &keys[1] },
    ];
    let result = with_constants(&rings[0], &rings[1], constants, |algebra| {
        let watched: DryRun<'_> =
            Watched::new(algebra, Box::new(|operation, moment| recorder.note(operation, moment)));
        work(watched, &recorder)
    })?;
    let count = Count {
        phases: recorder.finish(),
        peak: accelerators.each_ref().map(Counting::peak_limbs),
        key_limbs,
        used: keys.each_ref().map(CountedKeys::used),
    };
    Ok((result, count))
}

/// The constants of bootstrapping, without content.
fn constants(
    accelerator: &Counting,
    parameters: &Parameters,
    _: &Encoder<'_>,
) -> Result<Vec<CountedLimb>, ckks::Error> {
    let limbs = BootstrapPlan::new(parameters)?.limbs();
    Ok((0..limbs).map(|_| accelerator.allocate()).collect::<Result<_, _>>()?)
}
