//! Memory for the algebra on ciphertexts.

use crate::{Encrypted, Error};
use veilformer::accel::Accelerator;
use veilformer::ckks::encoding::Encoder;
use veilformer::ckks::server::bootstrap::{Bootstrap, BootstrapPlan};
use veilformer::ckks::server::{Evaluator, FactorScratch};
use veilformer::ckks::{self, KeySource, Parameters};
use veilformer::matrix::SmallRing;
use veilformer::memory::Arena;
use veilformer::transformer::slots::{EncryptedSlots, Scratch};

/// One ring: its accelerator, its parameters, its keys.
pub struct Ring<'a, A: Accelerator, K: ?Sized> {
    /// The accelerator.
    pub accelerator: &'a A,
    /// The parameters.
    pub parameters: &'a Parameters,
    /// The keys.
    pub keys: &'a K,
}

/// Runs `work` with the algebra of a big ring and its small one: makes the constants of bootstrapping, checks that its
/// keys are there, and owns all scratch memory.
///
/// # Errors
/// Missing keys, by name; other chains than the accelerators'; out of limbs; those of `work`.
pub fn with_algebra<A, K, R, E>(
    big: &Ring<'_, A, K>,
    small: &Ring<'_, A, K>,
    work: impl for<'s> FnOnce(Encrypted<'s, A, K>) -> Result<R, E>,
) -> Result<R, E>
where
    A: Accelerator<Word = u64>,
    K: KeySource<A> + ?Sized,
    E: From<Error>,
{
    with_constants(big, small, bootstrap_constants, work)
}

/// The same with the constants of bootstrapping that `prepare` makes.
pub(crate) fn with_constants<A, K, R, E>(
    big: &Ring<'_, A, K>,
    small: &Ring<'_, A, K>,
    prepare: impl FnOnce(&A, &Parameters, &Encoder<'_>) -> Result<Vec<A::Limb>, ckks::Error>,
    work: impl for<'s> FnOnce(Encrypted<'s, A, K>) -> Result<R, E>,
) -> Result<R, E>
where
    A: Accelerator<Word = u64>,
    K: KeySource<A> + ?Sized,
    E: From<Error>,
{
    let error = |error: ckks::Error| E::from(Error::from(error));
    let degree = big.parameters.degree();
    let mut twiddles = vec![0.0; Encoder::words_needed(degree)];
    let none = |_| error(ckks::Error::Length { have: 0, need: degree });
    let encoder = Encoder::new(degree, &mut Arena::new(&mut twiddles)).map_err(none)?;
    let constants = prepare(big.accelerator, big.parameters, &encoder).map_err(error)?;
    let (reals, integers) = Scratch::words_needed(degree);
    let (mut reals, mut integers) = (vec![0.0; reals], vec![0; integers]);
    let scratch = Scratch::new(degree, &mut reals, &mut integers).map_err(error)?;
    let evaluator = Evaluator::new(big.accelerator, big.parameters, big.keys).map_err(error)?;
    let bootstrap = Bootstrap::new(evaluator, &constants).map_err(error)?;
    // Vectors that stay in slots, such as weights, are refreshed there.
    let refresh = Bootstrap::new(evaluator, &constants).map_err(error)?;
    let slots = EncryptedSlots::new(evaluator, &encoder, scratch).with_bootstrap(refresh);
    let evaluator = Evaluator::new(small.accelerator, small.parameters, small.keys).map_err(error)?;
    let ring = SmallRing::new(evaluator);
    work(Encrypted::new(slots, bootstrap, &ring)?)
}

/// The plaintexts of a bootstrap, in an accelerator's memory.
///
/// # Errors
/// Parameters without bootstrapping; out of limbs.
pub fn bootstrap_constants<A: Accelerator<Word = u64>>(
    accelerator: &A,
    parameters: &Parameters,
    encoder: &Encoder<'_>,
) -> Result<Vec<A::Limb>, ckks::Error> {
    let (plan, degree) = (BootstrapPlan::new(parameters)?, parameters.degree());
    let mut limbs = (0..plan.limbs()).map(|_| accelerator.allocate()).collect::<Result<Vec<_>, _>>()?;
    let (mut values, mut coefficients) = (vec![0.0; degree], vec![0; degree]);
    let (mut residues, mut gathered) = (vec![0; degree], vec![0; degree]);
    let scratch = FactorScratch {
        values: &mut values,
        coefficients: &mut coefficients,
        words: [&mut residues, &mut gathered],
    };
    plan.prepare(accelerator, parameters, encoder, scratch, &mut limbs)?;
    Ok(limbs)
}
