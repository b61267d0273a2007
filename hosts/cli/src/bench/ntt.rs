//! The transform of one limb, a prime just below 2^50.

use super::{Figure, Setting};
use crate::exit::{Exit, Failure};
use veilformer::accel::Accelerator;
use veilformer::ring::{Basis, ModulusChain, primes_below};
use veilformer_multicore::Multicore;

/// One limb to a thread, so that with one thread it stays in the cache.
pub(super) fn measure(setting: &Setting, name: &str) -> Result<Figure, Failure> {
    let unknown = || Failure::new(Exit::Failure, format!("{name} is no transform"));
    let (direction, degree) = name.split_once('/').ok_or_else(unknown)?;
    let degree: usize = degree.parse().map_err(|_| unknown())?;
    let count = setting.threads;
    let primes: Vec<u64> = primes_below(1 << 50, 2 * degree as u64).take(count).collect();
    let chain = ModulusChain::new(degree.ilog2(), &primes, &[]).map_err(veilformer::ckks::Error::from)?;
    let accelerator = Multicore::new(&chain, setting.threads, count)?;
    let basis = Basis::level(count - 1);
    let mut limbs = (0..count).map(|_| accelerator.allocate()).collect::<Result<Vec<_>, _>>()?;
    let values: Vec<i64> = (0..degree as i64).map(|i| i * i % 65_537).collect();
    accelerator.write_signed(basis, &mut limbs, &values)?;
    let forward = direction == "ntt_forward";
    accelerator.run(|| {
        setting.measure(
            name,
            "50-bit prime",
            count,
            || Ok(()),
            |()| {
                if forward {
                    accelerator.ntt_forward(basis, &mut limbs)?;
                } else {
                    accelerator.ntt_inverse(basis, &mut limbs)?;
                }
                Ok(())
            },
        )
    })
}
