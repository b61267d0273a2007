//! The suite passes on the model, over both links, and fails on a faulty one.

use veilformer::accel::engine::conformance::{self, Failure};
use veilformer::accel::engine::{EngineErrorKind, NttEngine};
use veilformer_board::{Board, BoardConfig, FaultPlan, SpiBoard};
use veilformer_fpga::{BoardDriver, RegisterBus, SpiBus};

fn suite<B: RegisterBus>(bus: B) -> Result<conformance::Report, Failure> {
    // At the largest degree a transform takes 1.1 M clocks, and a poll 64.
    let mut engine = BoardDriver::open(bus, 1 << 15).unwrap();
    let mut memory = vec![0; conformance::words_needed(&engine.caps())];
    conformance::run(&mut engine, &mut memory)
}

#[test]
fn the_model_conforms() {
    let report = suite(Board::new(BoardConfig::default())).unwrap();
    assert_eq!(report.tables, 4 * 3);
    assert_eq!(report.limbs, 4 * 6 * 2 * (4 + 4 + 1));
    assert!(report.not_ready > 0);
}

#[test]
fn small_and_narrow_boards_conform() {
    let good = BoardConfig { max_log_n: 11, ..BoardConfig::default() };
    suite(Board::new(BoardConfig { banks: 1, tables: 1, queue_depth: 1, ..good })).unwrap();
    suite(Board::new(BoardConfig { modulus_bits: 30, min_log_n: 2, ..good })).unwrap();
    suite(Board::new(BoardConfig { banks: 64, queue_depth: 64, ..good })).unwrap();
    suite(SpiBus::new(SpiBoard::new(Board::new(good)))).unwrap();
}

/// The largest ring the core has: 2^17.
#[test]
fn the_largest_degree_conforms() {
    let config = BoardConfig { min_log_n: 17, max_log_n: 17, banks: 2, ..BoardConfig::default() };
    suite(Board::new(config)).unwrap();
}

#[test]
fn faults_fail_the_suite() {
    let run = |faults| suite(Board::new(BoardConfig { faults, ..BoardConfig::default() }));
    let one = FaultPlan { limit: Some(1), ..FaultPlan::default() };
    for faults in [
        FaultPlan { bit_flip: 1_000_000, ..one },
        FaultPlan { dropped: 20_000, ..one },
        FaultPlan { wrong_twiddle: 1_000_000, ..one },
        FaultPlan { bad_bank: Some(3), ..one },
    ] {
        assert!(matches!(run(faults), Err(Failure::Word { .. })), "{faults:?}");
    }
    let stuck = run(FaultPlan { stuck: 100_000, ..one });
    assert_eq!(stuck, Err(Failure::Error { kind: EngineErrorKind::Deadline }));
    let mut engine = BoardDriver::open(Board::new(BoardConfig::default()), 4096).unwrap();
    let need = conformance::words_needed(&engine.caps());
    let short = conformance::run(&mut engine, &mut vec![0; need - 1]);
    assert!(matches!(short, Err(Failure::Memory(_))), "{short:?}");
}
