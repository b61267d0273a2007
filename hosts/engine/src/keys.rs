//! Which keys a server needs.

use crate::expand::{either_way, row_turns};
use crate::trained::SPREAD_LEVELS;
use crate::{Degrees, Error, Places};
use veilformer::accel::Accelerator;
use veilformer::ckks::server::bootstrap::BootstrapPlan;
use veilformer::ckks::{KeyId, KeyRequests, KeySource, Parameters};
use veilformer::matrix::{PairEvaluator, RingSwitch, SmallRing};
use veilformer::transformer::{Config, Kernel};

/// The keys of both rings that a model needs, for batches of any size: turns follow from where one sentence's entries are.
///
/// `trained` adds those of encrypted weights.
///
/// # Errors
/// More keys than a list holds; parameters without bootstrapping; those of [`Places::new`].
pub fn required_keys<A: Accelerator, K: KeySource<A> + ?Sized>(
    parameters: &Parameters,
    config: &Config,
    trained: bool,
) -> Result<[KeyRequests; 2], Error> {
    let small = parameters.small_ring()?;
    let degrees = Degrees { big: parameters.degree(), small: small.degree() };
    let plan = BootstrapPlan::new(parameters)?;
    let (mut big_keys, mut small_keys) = (KeyRequests::new(), KeyRequests::new());
    plan.required_keys(parameters, &mut big_keys)?;
    RingSwitch::<A, K>::required_keys(parameters, 0, &mut big_keys)?;
    // A product comes before the first sum of rows.
    let level = plan.output();
    big_keys.add(KeyId::Relinearization, level)?;
    for places in summed_places(config, degrees)? {
        let sum = places.rows_in_slots();
        for &turn in sum.cyclic.iter().chain(&sum.bounded) {
            big_keys.add(KeyId::rotation(parameters, turn as i64), level - 1)?;
        }
        for &turn in &sum.bounded {
            big_keys.add(KeyId::rotation(parameters, -(turn as i64)), level - 2)?;
        }
        if trained {
            let spread = plan.floor() + SPREAD_LEVELS;
            for &turn in &places.spread_turns() {
                big_keys.add(KeyId::rotation(parameters, turn as i64), spread)?;
                big_keys.add(KeyId::rotation(parameters, -(turn as i64)), spread)?;
            }
            for &turn in &sum.cyclic {
                big_keys.add(KeyId::rotation(parameters, -(turn as i64)), spread)?;
            }
        }
        let (log_rank, top) = (places.layout().log_rank(), small.top_level());
        SmallRing::<A, K>::packing_keys(log_rank, top - 1, &mut small_keys)?;
        PairEvaluator::<A, K>::required_keys(&small, log_rank, top - usize::from(!trained), &mut small_keys)?;
        SmallRing::<A, K>::thin_keys(&small, log_rank, top, &mut small_keys)?;
    }
    softmax_keys(parameters, config, degrees, &mut big_keys)?;
    expand_keys(parameters, config, degrees, &mut big_keys)?;
    Ok([big_keys, small_keys])
}

/// The places of tensors whose rows are added up: those of the stream, and of the outputs.
fn summed_places(config: &Config, degrees: Degrees) -> Result<[Places; 2], Error> {
    let stream = Places::new(degrees, 1, config.width, config.length)?;
    Ok([stream, stream.with_rows(config.classes)?])
}

/// Adds the keys of products with weights in slots, where there are such.
fn expand_keys(
    parameters: &Parameters,
    config: &Config,
    degrees: Degrees,
    big_keys: &mut KeyRequests,
) -> Result<(), Error> {
    // The last layer's are of first tokens only.
    let places = Places::new(degrees, 1, config.width, config.length)?;
    if let (Some(turns), true) = (row_turns(&places)?, config.layers > 1) {
        let level = BootstrapPlan::new(parameters)?.output();
        turns.required_keys(parameters, level, big_keys)?;
        for bit in 0..turns.count() {
            for turn in either_way(&turns, bit) {
                big_keys.add(KeyId::rotation(parameters, turn), level - 1)?;
            }
        }
    }
    Ok(())
}

/// Adds the keys of sums over the keys of a sequence, which the Gaussian kernel does not need.
fn softmax_keys(
    parameters: &Parameters,
    config: &Config,
    degrees: Degrees,
    big_keys: &mut KeyRequests,
) -> Result<(), Error> {
    if config.kernel == Kernel::Softmax {
        let places = Places::new(degrees, 1, config.heads * config.length, config.length)?;
        // Behind a mask, a function, and another mask.
        let level = BootstrapPlan::new(parameters)?.output().saturating_sub(3);
        for turn in places.row_turns(config.length) {
            big_keys.add(KeyId::rotation(parameters, turn as i64), level)?;
            big_keys.add(KeyId::rotation(parameters, -(turn as i64)), level)?;
        }
    }
    Ok(())
}
