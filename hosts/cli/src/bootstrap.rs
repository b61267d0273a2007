//! What a host adds to bootstrapping: memory for its constants.

use crate::exit::Failure;
use veilformer::accel::Accelerator;
use veilformer::ckks::server::bootstrap::{BootstrapPlan, ConstantScratch};
use veilformer::ckks::{KeyRequests, Parameters};

/// The plaintexts of a bootstrap, in an accelerator's memory.
pub(crate) struct Constants<A: Accelerator> {
    limbs: Vec<A::Limb>,
}

impl<A: Accelerator<Word = u64>> Constants<A> {
    pub(crate) fn new(accelerator: &A, parameters: &Parameters) -> Result<Self, Failure> {
        let (plan, degree) = (BootstrapPlan::new(parameters)?, parameters.degree());
        let limbs = (0..plan.limbs()).map(|_| accelerator.allocate()).collect::<Result<Vec<_>, _>>();
        let mut limbs = limbs.map_err(veilformer::ckks::Error::from)?;
        let (mut values, mut coefficients) = (vec![0.0; degree], vec![0; degree]);
        let (mut residues, mut gathered) = (vec![0; degree], vec![0; degree]);
        let scratch = ConstantScratch {
            values: &mut values,
            coefficients: &mut coefficients,
            words: [&mut residues, &mut gathered],
        };
        let encoder = crate::client::encoder(degree)?;
        plan.prepare(accelerator, parameters, &encoder, scratch, &mut limbs)?;
        Ok(Self { limbs })
    }

    pub(crate) fn limbs(&self) -> &[A::Limb] {
        &self.limbs
    }
}

/// The keys of a bootstrap.
pub(crate) fn refreshing_keys(parameters: &Parameters) -> Result<KeyRequests, Failure> {
    let mut keys = KeyRequests::new();
    BootstrapPlan::new(parameters)?.required_keys(parameters, &mut keys)?;
    Ok(keys)
}
