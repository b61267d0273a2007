//! Every accelerator of the project under the conformance suite of the core.

use veilformer::accel::conformance::{Failure, Report, Suite};
use veilformer::accel::engine::NttEngine;
use veilformer::accel::{Offload, Portable};
use veilformer::accelerator_conformance;
use veilformer::memory::{Arena, LimbPool};
use veilformer::ring::{ModulusChain, RingTables, Word};
use veilformer_board::{Board, BoardConfig, FaultPlan};
use veilformer_fpga::BoardDriver;

/// Room for the pool of the widest chain of the suite.
const CAPACITY: usize = 768;

fn portable<W: Word>(chain: &ModulusChain, limbs: usize, suite: Suite<'_>) -> Result<Report, Failure> {
    let zero = W::from_u64(0);
    let mut table_words = vec![zero; RingTables::<W>::words_needed(chain)];
    let tables = RingTables::new(chain, &mut Arena::new(&mut table_words)).unwrap();
    let mut pool_words = vec![zero; LimbPool::<W, CAPACITY>::words_needed(chain.degree(), limbs)];
    let pool = LimbPool::<W, CAPACITY>::new(&mut Arena::new(&mut pool_words), chain.degree(), limbs).unwrap();
    suite.run(&Portable::new(&tables, &pool).unwrap(), &mut vec![zero; chain.degree()])
}

accelerator_conformance!(portable_words_of_64_bits, portable::<u64>);
accelerator_conformance!(portable_words_of_32_bits, portable::<u32>, 30);

/// `Offload` over the driver over the model of the board.
fn offload(
    chain: &ModulusChain,
    limbs: usize,
    suite: Suite<'_>,
    faults: FaultPlan,
) -> Result<Report, Failure> {
    let n = chain.degree();
    let mut table_words = vec![0; RingTables::<u64>::words_needed(chain)];
    let tables = RingTables::new(chain, &mut Arena::new(&mut table_words)).unwrap();
    let mut pool_words = vec![0; LimbPool::<u64, CAPACITY>::words_needed(n, limbs)];
    let pool = LimbPool::<u64, CAPACITY>::new(&mut Arena::new(&mut pool_words), n, limbs).unwrap();
    let inner = Portable::new(&tables, &pool).unwrap();
    let board = Board::new(BoardConfig { faults, ..BoardConfig::default() });
    let engine = BoardDriver::open(board, 4096).unwrap();
    let mut checks = vec![0; Verified::words_needed(chain, &engine.caps())];
    let mut scratch = vec![0; n];
    let mut arena = Arena::new(&mut checks);
    let offload = Offload::new(engine, inner, 1, &[7; 32], &mut arena, &mut scratch).unwrap();
    let report = suite.run(&offload, &mut vec![0; n])?;
    let counters = offload.counters();
    assert_eq!(counters.limbs, counters.verified + counters.fallbacks + counters.declined);
    assert!(counters.verified > 0, "the board did nothing");
    // A faulty answer is either seen or was never given.
    let faulty = offload.with_engine(|engine| engine.bus().fault_log().len());
    assert_eq!(faulty > 0, counters.mismatches + counters.errors > 0, "{counters:?}");
    Ok(report)
}

type Verified<'m> = Offload<'m, BoardDriver<Board>, Portable<'m, 'm, u64, CAPACITY>>;

accelerator_conformance!(offload_to_a_good_board, |chain, limbs, suite| {
    offload(chain, limbs, suite, FaultPlan::default())
});

// Rates per million commands: most answers are right, every kind of fault happens.
accelerator_conformance!(offload_to_a_faulty_board, |chain, limbs, suite| {
    let faults =
        FaultPlan { bit_flip: 20_000, dropped: 20_000, wrong_twiddle: 2_000, ..FaultPlan::default() };
    offload(chain, limbs, suite, faults)
});
