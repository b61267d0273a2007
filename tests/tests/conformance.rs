//! Every accelerator of the project under the conformance suite of the core.

use veilformer::accel::Portable;
use veilformer::accel::conformance::{Failure, Report, Suite};
use veilformer::accelerator_conformance;
use veilformer::memory::{Arena, LimbPool};
use veilformer::ring::{ModulusChain, RingTables, Word};

/// Room for the pool of the widest chain of the suite.
const CAPACITY: usize = 512;

fn portable<W: Word>(chain: &ModulusChain, limbs: usize, suite: Suite<'_>) -> Result<Report, Failure> {
    let zero = W::from_u64(0);
    let mut table_words = vec![zero; RingTables::<W>::words_needed(chain)];
    let tables = RingTables::new(chain, &mut Arena::new(&mut table_words)).unwrap();
    let mut pool_words = vec![zero; LimbPool::<W, CAPACITY>::words_needed(chain.degree(), limbs)];
    let pool =
        LimbPool::<W, CAPACITY>::new(&mut Arena::new(&mut pool_words), chain.degree(), limbs).unwrap();
    suite.run(&Portable::new(&tables, &pool).unwrap(), &mut vec![zero; chain.degree()])
}

accelerator_conformance!(portable_words_of_64_bits, portable::<u64>);
accelerator_conformance!(portable_words_of_32_bits, portable::<u32>, 30);
