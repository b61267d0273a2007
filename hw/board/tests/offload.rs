//! `Offload` over the driver over the model: right whatever the board does, and every limb accounted for.

mod common;

use common::Liar;
use proptest::prelude::*;
use veilformer::accel::engine::{EngineErrorKind, NttEngine};
use veilformer::accel::{Accelerator, Error, Limbs, Offload, OffloadCounters, OffloadError, Portable};
use veilformer::memory::{Arena, LimbPool, PoolLimb};
use veilformer::ring::{Basis, ModulusChain, RingTables, Word, primes_below};
use veilformer_board::{Board, BoardConfig, FaultKind, FaultPlan, SpiBoard};
use veilformer_fpga::{BoardDriver, RegisterBus, SpiBus};

const DEADLINE: u32 = 2048;
const ALWAYS: u32 = 1_000_000;
const ORDINARY: usize = 5;
const SPECIAL: usize = 3;

type Inner<'p, 'm, W> = Portable<'p, 'm, W, 64>;
type Subject<'p, 'm, B, W> = Offload<'m, BoardDriver<B>, Inner<'p, 'm, W>>;

/// Primes of several sizes, the special ones largest.
fn chain(log_degree: u32, bits: u32) -> ModulusChain {
    let step = 2 << log_degree;
    let mut primes: Vec<u64> = primes_below(1 << bits, step).take(SPECIAL).collect();
    let ordinary = ORDINARY - 2;
    let mut q: Vec<u64> = primes_below(1 << (bits - 1), step).take(ordinary).collect();
    q.extend(primes_below(1 << 26, step).take(ORDINARY - ordinary));
    q.append(&mut primes);
    ModulusChain::new(log_degree, &q[..ORDINARY], &q[ORDINARY..]).unwrap()
}

/// Sets everything up around one board and hands it to `test`, with the reference.
fn with_bus<B: RegisterBus + Send, W: Word>(
    bus: B,
    chain: &ModulusChain,
    min_limbs: usize,
    test: impl for<'p, 'm> FnOnce(&Subject<'p, 'm, B, W>, &Inner<'p, 'm, W>),
) where
    B::Error: Send,
{
    let n = chain.degree();
    let mut table_words = vec![W::from_u64(0); RingTables::<W>::words_needed(chain)];
    let tables = RingTables::new(chain, &mut Arena::new(&mut table_words)).unwrap();
    let mut pool_words = vec![W::from_u64(0); LimbPool::<W, 64>::words_needed(n, 40)];
    let mut scratch = vec![W::from_u64(0); n];
    let engine = BoardDriver::open(bus, DEADLINE).unwrap();
    let mut checks = vec![0; Subject::<B, W>::words_needed(chain, &engine.caps())];
    let pool = LimbPool::<W, 64>::new(&mut Arena::new(&mut pool_words), n, 40).unwrap();
    let inner = Portable::new(&tables, &pool).unwrap();
    let reference = Portable::new(&tables, &pool).unwrap();
    let mut arena = Arena::new(&mut checks);
    let offload = Offload::new(engine, inner, min_limbs, &[7; 32], &mut arena, &mut scratch).unwrap();
    assert_eq!(arena.remaining(), 0);
    test(&offload, &reference);
    let c = offload.counters();
    assert_eq!(c.limbs, c.verified + c.fallbacks + c.declined, "{c:?}");
}

fn with_board(
    config: BoardConfig,
    test: impl for<'p, 'm> FnOnce(&Subject<'p, 'm, Board, u64>, &Inner<'p, 'm, u64>),
) {
    with_bus(Board::new(config), &chain(10, 50), 1, test);
}

fn random<A: Accelerator>(accelerator: &A, basis: Basis, seed: u64) -> Limbs<A> {
    let chain = accelerator.chain();
    let mut state = seed;
    let mut words = vec![A::Word::from_u64(0); chain.degree()];
    let limbs = chain.of(basis).map(|m| {
        for word in &mut words {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *word = A::Word::from_u64((state >> 13) % m.value());
        }
        let mut limb = accelerator.allocate().unwrap();
        accelerator.write(&mut limb, &words).unwrap();
        limb
    });
    limbs.collect()
}

fn words<W: Word>(limbs: &[PoolLimb<'_, '_, W, 64>]) -> Vec<Vec<W>> {
    limbs.iter().map(|l| l.words().to_vec()).collect()
}

/// Both transforms of a random polynomial agree with the reference, whatever happens below.
fn agrees<B: RegisterBus + Send, W: Word>(
    offload: &Subject<'_, '_, B, W>,
    reference: &Inner<'_, '_, W>,
    basis: Basis,
    seed: u64,
) {
    let mut x = random(offload, basis, seed);
    let mut y = random(reference, basis, seed);
    let start = words(&x);
    offload.ntt_forward(basis, &mut x).unwrap();
    reference.ntt_forward(basis, &mut y).unwrap();
    assert_eq!(words(&x), words(&y));
    offload.ntt_inverse(basis, &mut x).unwrap();
    assert_eq!(words(&x), start);
}

const FULL: Basis = Basis::new(0, ORDINARY, SPECIAL);
const LIMBS: u64 = (ORDINARY + SPECIAL) as u64;

#[test]
fn a_good_board_does_everything() {
    for log_n in 10..=13 {
        with_bus::<_, u64>(Board::new(BoardConfig::default()), &chain(log_n, 50), 1, |offload, reference| {
            for (seed, basis) in
                [FULL, Basis::level(0), Basis::new(2, 3, 1), Basis::new(0, 0, 2)].iter().enumerate()
            {
                agrees(offload, reference, *basis, seed as u64);
            }
            let c = offload.counters();
            let limbs = 2 * (LIMBS + 1 + 4 + 2);
            let expected = OffloadCounters {
                limbs,
                verified: limbs,
                batches: 2 * (2 + 1 + 1 + 1),
                not_ready: c.not_ready,
                words_sent: limbs << log_n,
                words_received: limbs << log_n,
                ..OffloadCounters::default()
            };
            assert_eq!(c, expected);
            assert!(c.not_ready > 0);
        });
    }
}

#[test]
fn narrow_words_and_spi() {
    let spi = SpiBoard::new(Board::new(BoardConfig::default()));
    with_bus::<_, u32>(SpiBus::new(spi), &chain(10, 30), 1, |offload, reference| {
        agrees(offload, reference, FULL, 1);
        assert_eq!(offload.counters().verified, 2 * LIMBS);
    });
}

#[test]
fn flips_and_drops_are_caught_and_retried() {
    let plans = [
        (FaultKind::BitFlip, FaultPlan { bit_flip: ALWAYS, limit: Some(2), ..FaultPlan::default() }),
        (FaultKind::Dropped, FaultPlan { dropped: ALWAYS, limit: Some(2), ..FaultPlan::default() }),
    ];
    for (kind, faults) in plans {
        with_board(BoardConfig { faults, ..BoardConfig::default() }, |offload, reference| {
            agrees(offload, reference, FULL, 2);
            let c = offload.counters();
            assert_eq!((c.mismatches, c.retries, c.fallbacks, c.errors), (2, 2, 0, 0), "{kind:?}");
            assert_eq!(c.verified, 2 * LIMBS);
            assert_eq!(offload.with_engine(|e| e.bus().fault_log().len()), 2);
        });
    }
}

#[test]
fn every_answer_wrong_still_right_until_the_engine_is_suspended() {
    let faults = FaultPlan { bit_flip: ALWAYS, ..FaultPlan::default() };
    with_board(BoardConfig { faults, ..BoardConfig::default() }, |offload, reference| {
        for seed in 0..6 {
            agrees(offload, reference, FULL, seed);
        }
        let c = offload.counters();
        let given_up = 8 * LIMBS;
        assert_eq!((c.mismatches, c.retries, c.fallbacks), (2 * given_up, given_up, given_up));
        assert_eq!((c.verified, c.declined, c.suspended), (0, 4 * LIMBS, true));
        assert_eq!(c.mismatches, offload.with_engine(|e| e.bus().fault_log().len()) as u64);

        offload.with_engine(|e| *e.bus().faults() = FaultPlan::default());
        offload.resume();
        agrees(offload, reference, FULL, 9);
        let c = offload.counters();
        assert_eq!((c.verified, c.suspended), (2 * LIMBS, false));
    });
}

#[test]
fn a_wrong_twiddle_is_cured_by_loading_the_table_again() {
    let faults = FaultPlan { wrong_twiddle: ALWAYS, limit: Some(3), ..FaultPlan::default() };
    with_board(BoardConfig { faults, ..BoardConfig::default() }, |offload, reference| {
        agrees(offload, reference, FULL, 3);
        let c = offload.counters();
        assert_eq!((c.mismatches, c.retries, c.fallbacks, c.verified), (3, 3, 0, 2 * LIMBS));
    });
}

#[test]
fn a_stuck_command_is_retried_after_a_reset() {
    with_board(BoardConfig::default(), |offload, reference| {
        offload.with_engine(|e| {
            *e.bus().faults() = FaultPlan { stuck: ALWAYS, limit: Some(1), ..FaultPlan::default() };
        });
        agrees(offload, reference, FULL, 4);
        let c = offload.counters();
        // Two batches of four were in flight; both are lost with the first command.
        assert_eq!((c.errors, c.retries, c.fallbacks, c.verified), (1, LIMBS, 0, 2 * LIMBS));
        assert!(c.not_ready >= u64::from(DEADLINE) - 1);
    });
}

#[test]
fn a_board_that_stays_stuck_is_replaced() {
    with_board(BoardConfig::default(), |offload, reference| {
        offload.with_engine(|e| *e.bus().faults() = FaultPlan { stuck: ALWAYS, ..FaultPlan::default() });
        agrees(offload, reference, FULL, 4);
        let c = offload.counters();
        // The retry begins with a table, which is stuck already.
        assert_eq!((c.errors, c.retries, c.fallbacks, c.verified), (4, 0, 2 * LIMBS, 0));
    });
}

#[test]
fn a_bad_bank_costs_its_limbs_one_retry_or_a_fallback() {
    let faults = FaultPlan { bad_bank: Some(1), ..FaultPlan::default() };
    with_board(BoardConfig { faults, ..BoardConfig::default() }, |offload, reference| {
        agrees(offload, reference, FULL, 5);
        let c = offload.counters();
        // One limb per call lands in bank 1 and is retried in bank 0.
        assert_eq!((c.mismatches, c.retries, c.fallbacks, c.verified), (2, 2, 0, 2 * LIMBS));
    });
    let faults = FaultPlan { bad_bank: Some(0), ..FaultPlan::default() };
    with_board(BoardConfig { faults, ..BoardConfig::default() }, |offload, reference| {
        agrees(offload, reference, FULL, 5);
        let c = offload.counters();
        assert_eq!((c.mismatches, c.retries, c.fallbacks), (4, 2, 2));
    });
}

#[test]
fn a_broken_wire_falls_back_at_once() {
    let spi = SpiBoard::new(Board::new(BoardConfig::default()));
    with_bus::<_, u64>(SpiBus::new(spi), &chain(10, 50), 1, |offload, reference| {
        agrees(offload, reference, FULL, 6);
        assert_eq!(offload.counters().fallbacks, 0);
        offload.with_engine(|e| e.bus().device().fail_after(Some(20)));
        agrees(offload, reference, FULL, 6);
        let c = offload.counters();
        assert_eq!((c.fallbacks, c.verified), (2 * LIMBS, 2 * LIMBS));
        assert!(c.errors >= 4);
    });
}

#[test]
fn small_calls_and_unsupported_primes_stay_at_home() {
    with_bus::<_, u64>(Board::new(BoardConfig::default()), &chain(10, 50), 4, |offload, reference| {
        agrees(offload, reference, Basis::level(2), 1);
        let c = offload.counters();
        assert_eq!((c.declined, c.batches), (6, 0));
        agrees(offload, reference, Basis::level(3), 1);
        assert_eq!(offload.counters().verified, 8);
    });
    // The two small primes in the middle of the chain are all a 32-bit board can take.
    let config = BoardConfig { modulus_bits: 30, ..BoardConfig::default() };
    with_bus::<_, u64>(Board::new(config), &chain(10, 50), 1, |offload, reference| {
        agrees(offload, reference, FULL, 1);
        let c = offload.counters();
        assert_eq!((c.verified, c.declined, c.fallbacks), (4, 2 * LIMBS - 4, 0));
    });
    let config = BoardConfig { tables: 6, ..BoardConfig::default() };
    with_bus::<_, u64>(Board::new(config), &chain(10, 50), 1, |offload, reference| {
        agrees(offload, reference, FULL, 1);
        assert_eq!(offload.counters().verified, 2 * ORDINARY as u64);
    });
}

#[test]
fn setup_errors_are_typed() {
    let chain = chain(10, 50);
    let mut table_words = vec![0; RingTables::<u64>::words_needed(&chain)];
    let tables = RingTables::new(&chain, &mut Arena::new(&mut table_words)).unwrap();
    let mut pool_words = vec![0; 8 << 10];
    let pool = LimbPool::<u64, 64>::new(&mut Arena::new(&mut pool_words), 1 << 10, 8).unwrap();
    let attempt = |config: BoardConfig, short: usize, scratch: usize| {
        let engine = BoardDriver::open(Board::new(config), DEADLINE).unwrap();
        let need = Subject::<Board, u64>::words_needed(&chain, &engine.caps());
        let mut checks = vec![0; need - short];
        let mut scratch = vec![0; scratch];
        let inner = Portable::new(&tables, &pool).unwrap();
        let made = Offload::new(engine, inner, 1, &[0; 32], &mut Arena::new(&mut checks), &mut scratch);
        (need, made.map(|_| ()))
    };
    let good = BoardConfig::default();
    assert_eq!(attempt(good, 0, 1024).1, Ok(()));
    let (need, short) = attempt(good, 1, 1024);
    assert!(
        matches!(short, Err(OffloadError::Memory(e)) if (e.have, e.need) == (need - 1, need)),
        "{short:?}"
    );
    let scratch = attempt(good, 0, 1023).1;
    assert_eq!(scratch, Err(OffloadError::Accelerator(Error::Shape { have: 1023, need: 1024 })));
    let unsupported = Err(OffloadError::Engine(EngineErrorKind::Unsupported));
    assert_eq!(attempt(BoardConfig { min_log_n: 11, ..good }, 0, 1024).1, unsupported);
    assert_eq!(attempt(BoardConfig { modulus_bits: 20, ..good }, 0, 1024).1, unsupported);
    let stuck = FaultPlan { stuck: ALWAYS, ..FaultPlan::default() };
    let dead = attempt(BoardConfig { faults: stuck, ..good }, 0, 1024).1;
    assert_eq!(dead, Err(OffloadError::Engine(EngineErrorKind::Deadline)));
}

#[test]
fn shapes_are_checked() {
    with_board(BoardConfig::default(), |offload, _| {
        let mut x = random(offload, Basis::level(1), 0);
        assert_eq!(offload.ntt_forward(Basis::level(2), &mut x), Err(Error::Shape { have: 2, need: 3 }));
        assert!(offload.ntt_forward(Basis::new(ORDINARY - 1, 2, 0), &mut x).is_err());
        assert_eq!(offload.ntt_forward(Basis::new(0, 0, 0), &mut []), Ok(()));
    });
}

/// Whoever finds the engine taken works at home; nobody waits, nothing is lost.
#[test]
fn threads_share_the_engine() {
    with_board(BoardConfig::default(), |offload, reference| {
        std::thread::scope(|scope| {
            for thread in 0..3 {
                scope.spawn(move || {
                    (0..40).for_each(|i| agrees(offload, reference, Basis::new(0, 4, 0), thread << 8 | i))
                });
            }
        });
        let c = offload.counters();
        assert_eq!((c.limbs, c.fallbacks, c.mismatches, c.errors), (3 * 40 * 8, 0, 0, 0));
        assert!(c.verified > 0);
    });
}

/// The coarse kernels run on the engine too: they are made of *these* transforms.
#[test]
fn coarse_kernels_use_the_engine() {
    with_board(BoardConfig::default(), |offload, reference| {
        let level = Basis::level(ORDINARY - 1);
        let (mut x, mut y) = (random(offload, FULL, 1), random(reference, FULL, 1));
        offload.mod_down(level, Basis::new(0, 0, SPECIAL), &mut x).unwrap();
        reference.mod_down(level, Basis::new(0, 0, SPECIAL), &mut y).unwrap();
        assert_eq!(words(&x[..ORDINARY]), words(&y[..ORDINARY]));
        assert_eq!(offload.counters().verified, LIMBS);
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Any mixture of faults at any rates on any shape of board: the answer is right and the books balance.
    #[test]
    fn right_whatever_the_board_does(
        bit_flip in 0..400_000_u32, dropped in 0..200_000_u32, stuck in 0..60_000_u32,
        bad_bank in prop::option::of(0..8_u8),
        banks in 1..9_u8, tables in 1..10_u8, modulus_bits in prop::sample::select(vec![30_u8, 49, 50, 62]),
        depth in 0..4_u32, seed: u64,
        bases in prop::collection::vec((0..ORDINARY, 0..=ORDINARY, 0..=SPECIAL), 1..6),
    ) {
        let config = BoardConfig { banks, tables, modulus_bits, queue_depth: 1 << depth, seed, ..BoardConfig::default() };
        let chain = if modulus_bits == 30 { chain(10, 30) } else { chain(10, 50) };
        with_bus::<_, u64>(Board::new(config), &chain, 1, |offload, reference| {
            let faults = FaultPlan { bit_flip, dropped, stuck, bad_bank, ..FaultPlan::default() };
            offload.with_engine(|e| *e.bus().faults() = faults);
            for &(start, len, special) in &bases {
                let basis = Basis::new(start, len.min(ORDINARY - start), special);
                agrees(offload, reference, basis, seed);
            }
        });
    }

    /// A link that loses, flips and fails in every register and word: still right, still finite.
    #[test]
    fn right_whatever_the_link_does(rate in prop::sample::select(vec![300_u64, 3_000, 30_000, 300_000]), seed: u64) {
        let board = Board::new(BoardConfig::default());
        with_bus::<_, u64>(Liar { board, rate: 0, state: seed }, &chain(10, 50), 1, |offload, reference| {
            offload.with_engine(|e| e.bus().rate = rate);
            for round in 0..5 {
                agrees(offload, reference, FULL, round);
            }
        });
    }
}
