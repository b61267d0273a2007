//! The driver against the model: bits, batches, order, limits, misuse.

mod common;

use std::task::Poll;

use common::{limb, reference, table, transform};
use proptest::prelude::*;
use veilformer::accel::engine::{Direction, EngineError, EngineErrorKind, Limb, NttEngine, Table, Ticket};
use veilformer_board::{Board, BoardConfig, FaultPlan, Timing, math};
use veilformer_fpga::regmap::{self, device};
use veilformer_fpga::{BoardDriver, DriverError, RegisterBus};

const DEADLINE: u32 = 4096;

fn driver(config: BoardConfig) -> BoardDriver<Board> {
    BoardDriver::open(Board::new(config), DEADLINE).unwrap()
}

#[test]
fn every_degree_bit_exact_both_ways() {
    let mut engine = driver(BoardConfig::default());
    for log_n in 10..=13 {
        for (slot, bits) in [(0, 30), (1, 50), (2, 62)] {
            let t = table(log_n, bits, 0);
            engine.load_table(slot, &t).unwrap();
            let x = limb(&t, u64::from(log_n));
            let y = transform(&mut engine, Direction::Forward, &[Limb { table: slot, words: &x }]).unwrap();
            assert_eq!(y[0], reference(&t, Direction::Forward, &x));
            for i in [0, 1, 2, 77, y[0].len() - 1] {
                assert_eq!(
                    y[0][i],
                    math::evaluate(&x, t.psi, t.q, i),
                    "log N {log_n}, {bits} bits, place {i}"
                );
            }
            let z =
                transform(&mut engine, Direction::Inverse, &[Limb { table: slot, words: &y[0] }]).unwrap();
            assert_eq!(z[0], x);
        }
    }
}

#[test]
fn edge_limbs() {
    let mut engine = driver(BoardConfig::default());
    let t = table(10, 50, 0);
    engine.load_table(3, &t).unwrap();
    let n = 1 << 10;
    let mut delta = vec![0; n];
    delta[n - 1] = t.q - 1;
    for x in [vec![0; n], vec![t.q - 1; n], delta] {
        let y = transform(&mut engine, Direction::Forward, &[Limb { table: 3, words: &x }]).unwrap();
        assert_eq!(y[0], reference(&t, Direction::Forward, &x));
        let z = transform(&mut engine, Direction::Inverse, &[Limb { table: 3, words: &y[0] }]).unwrap();
        assert_eq!(z[0], x);
    }
}

#[test]
fn two_batches_in_flight_then_not_ready() {
    let mut engine = driver(BoardConfig::default());
    let t = table(10, 50, 0);
    engine.load_table(0, &t).unwrap();
    assert_eq!((engine.caps().in_flight, engine.caps().max_batch), (2, 4));
    let inputs: Vec<_> = (0..3).map(|i| limb(&t, i)).collect();
    let batch = |i: usize| [Limb { table: 0, words: inputs[i].as_slice() }; 4];
    let submit = |engine: &mut BoardDriver<Board>, i| match engine.submit(Direction::Forward, &batch(i)) {
        Poll::Ready(ticket) => Some(ticket.unwrap()),
        Poll::Pending => None,
    };
    let first = submit(&mut engine, 0).unwrap();
    let second = submit(&mut engine, 1).unwrap();
    assert_eq!(submit(&mut engine, 2), None);
    let mut pending = 0;
    while engine.poll().is_pending() {
        pending += 1;
    }
    assert!(pending > 0);
    assert_eq!(engine.poll(), Poll::Ready(Ok(first)));
    let mut out = vec![vec![0; 1024]; 4];
    let mut slices: Vec<&mut [u64]> = out.iter_mut().map(Vec::as_mut_slice).collect();
    assert_eq!(engine.collect(second, &mut slices), Err(DriverError::Ticket { found: second.0 }));
    engine.collect(first, &mut slices).unwrap();
    assert!(out.iter().all(|y| *y == reference(&t, Direction::Forward, &inputs[0])));
    let third = submit(&mut engine, 2).unwrap();
    for (ticket, i) in [(second, 1), (third, 2)] {
        while engine.poll().is_pending() {}
        let mut slices: Vec<&mut [u64]> = out.iter_mut().map(Vec::as_mut_slice).collect();
        engine.collect(ticket, &mut slices).unwrap();
        assert!(out.iter().all(|y| *y == reference(&t, Direction::Forward, &inputs[i])));
    }
    assert_eq!(engine.poll(), Poll::Ready(Err(DriverError::Idle)));
}

/// The queue's counters wrap at 2^16 and its ring much sooner.
#[test]
fn counters_wrap() {
    let timing = Timing { access: 1 << 20, ..Timing::default() };
    let config = BoardConfig { min_log_n: 2, max_log_n: 4, queue_depth: 2, timing, ..BoardConfig::default() };
    let mut engine = driver(config);
    let t = table(3, 20, 0);
    engine.load_table(0, &t).unwrap();
    let x = limb(&t, 1);
    let y = reference(&t, Direction::Forward, &x);
    for _ in 0..(1 << 16) / 4 + 10 {
        let out = transform(&mut engine, Direction::Forward, &[Limb { table: 0, words: &x }; 4]).unwrap();
        assert!(out.iter().all(|o| *o == y));
    }
    assert!(engine.traffic().commands > 1 << 16);
}

#[test]
fn one_bank_and_one_slot_suffice() {
    let config = BoardConfig { banks: 1, tables: 1, queue_depth: 1, ..BoardConfig::default() };
    let mut engine = driver(config);
    let caps = engine.caps();
    assert_eq!((caps.in_flight, caps.max_batch, caps.tables), (1, 1, 1));
    let t = table(11, 50, 0);
    engine.load_table(0, &t).unwrap();
    let x = limb(&t, 5);
    let y = transform(&mut engine, Direction::Forward, &[Limb { table: 0, words: &x }]).unwrap();
    assert_eq!(y[0], reference(&t, Direction::Forward, &x));
}

#[test]
fn cycles_and_words_are_counted() {
    let mut engine = driver(BoardConfig::default());
    let t = table(12, 50, 0);
    engine.load_table(0, &t).unwrap();
    let x = limb(&t, 5);
    let (before, traffic) = (engine.cycles().unwrap(), engine.traffic());
    transform(&mut engine, Direction::Forward, &[Limb { table: 0, words: &x }; 3]).unwrap();
    assert_eq!(engine.cycles().unwrap() - before, 3 * 24_684);
    let moved = engine.traffic();
    assert_eq!(moved.words_written - traffic.words_written, 3 << 12);
    assert_eq!(moved.words_read - traffic.words_read, 3 << 12);
    assert_eq!(moved.commands - traffic.commands, 3);
}

/// Two halves of banks: transfer hides behind compute. In steady state a limb costs the longer of the two.
#[test]
fn double_buffering_hides_the_transfer() {
    const BATCHES: u64 = 12;
    let clocks = |banks: u8, in_flight: usize| {
        let timing = Timing { word: 3, ..Timing::default() };
        let mut engine = driver(BoardConfig { banks, timing, ..BoardConfig::default() });
        let t = table(12, 50, 0);
        engine.load_table(0, &t).unwrap();
        let x = limb(&t, 5);
        let y = reference(&t, Direction::Forward, &x);
        let start = engine.bus().clock();
        let (mut sent, mut received) = (0, 0);
        let mut out = vec![vec![0; 1 << 12]; 4];
        while received < BATCHES {
            while sent < BATCHES && sent - received < in_flight as u64 {
                let Poll::Ready(ticket) =
                    engine.submit(Direction::Forward, &[Limb { table: 0, words: &x }; 4])
                else {
                    panic!("refused")
                };
                ticket.unwrap();
                sent += 1;
            }
            if let Poll::Ready(ticket) = engine.poll() {
                let mut slices: Vec<&mut [u64]> = out.iter_mut().map(Vec::as_mut_slice).collect();
                engine.collect(ticket.unwrap(), &mut slices).unwrap();
                assert!(out.iter().all(|o| *o == y));
                received += 1;
            }
        }
        engine.bus().clock() - start
    };
    let (compute, transfer) = (BATCHES * 4 * 24_684, BATCHES * 4 * 2 * 3 * 4096);
    let (serial, pipelined) = (clocks(8, 1), clocks(8, 2));
    println!("compute {compute}, transfer {transfer}, one batch at a time {serial}, two {pipelined}");
    assert!(pipelined < compute.max(transfer) * 11 / 10);
    assert!(serial > pipelined * 13 / 10);
}

#[test]
fn misuse_is_an_argument_error_and_changes_nothing() {
    let mut engine = driver(BoardConfig::default());
    let t = table(10, 50, 0);
    engine.load_table(1, &t).unwrap();
    let x = limb(&t, 9);
    let good = Limb { table: 1, words: &x };
    let errors = [
        engine.load_table(16, &t).unwrap_err(),
        engine.load_table(0, &Table { psi: t.psi + 1, ..t }).unwrap_err(),
        engine.load_table(0, &Table { psi: t.q + t.psi, ..t }).unwrap_err(),
        transform(&mut engine, Direction::Forward, &[]).unwrap_err(),
        transform(&mut engine, Direction::Forward, &[good; 5]).unwrap_err(),
        transform(&mut engine, Direction::Forward, &[good, Limb { table: 0, ..good }]).unwrap_err(),
        transform(&mut engine, Direction::Forward, &[good, Limb { table: 999, ..good }]).unwrap_err(),
        transform(&mut engine, Direction::Inverse, &[Limb { table: 1, words: &x[1..] }]).unwrap_err(),
        engine.collect(Ticket(0), &mut []).unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), EngineErrorKind::Argument, "{error:?}");
    }
    for (log_n, q) in [(9, t.q), (14, t.q), (10, t.q - 1), (10, 1 << 62 | 1)] {
        let error = engine.load_table(0, &Table { log_n, q, psi: t.psi }).unwrap_err();
        assert_eq!(error, DriverError::Unsupported { log_n, q });
    }
    let Poll::Ready(Ok(ticket)) = engine.submit(Direction::Forward, &[good]) else { panic!() };
    assert_eq!(engine.load_table(1, &t), Err(DriverError::InFlight { batches: 1 }));
    let mut out = vec![0; 1024];
    assert_eq!(engine.collect(ticket, &mut [&mut out]), Err(DriverError::Ticket { found: ticket.0 }));
    while engine.poll().is_pending() {}
    let short = engine.collect(ticket, &mut [&mut out[1..]]);
    assert_eq!(short, Err(DriverError::Length { limb: 0, words: 1023, expected: 1024 }));
    engine.collect(ticket, &mut [&mut out]).unwrap();
    assert_eq!(out, reference(&t, Direction::Forward, &x));
}

/// A board whose information registers can be forged.
struct Forged {
    board: Board,
    address: u32,
    value: u32,
}

impl RegisterBus for Forged {
    type Error = veilformer_board::BoardError;

    fn read32(&mut self, address: u32) -> Result<u32, Self::Error> {
        if address == self.address { Ok(self.value) } else { self.board.read32(address) }
    }
    fn write32(&mut self, address: u32, value: u32) -> Result<(), Self::Error> {
        self.board.write32(address, value)
    }
    fn read_words(&mut self, address: u32, words: &mut [u64]) -> Result<(), Self::Error> {
        self.board.read_words(address, words)
    }
    fn write_words(&mut self, address: u32, words: &[u64]) -> Result<(), Self::Error> {
        self.board.write_words(address, words)
    }
}

#[test]
fn only_a_board_opens() {
    use regmap::{magic, shape, stores, version};
    let shape = |min: u32, max: u32, bits: u32, bytes: u32| min | max << 8 | bits << 16 | bytes << 24;
    let stores = |banks: u32, tables: u32, depth: u32| banks | tables << 8 | depth << 16;
    let forgeries = [
        (magic::ADDRESS, 0),
        (magic::ADDRESS, u32::MAX),
        (magic::ADDRESS, device::MAGIC.swap_bytes()),
        (version::ADDRESS, (device::VERSION_MAJOR + 1) << 16),
        (shape::ADDRESS, shape(13, 10, 62, 8)),
        (shape::ADDRESS, shape(0, 10, 62, 8)),
        (shape::ADDRESS, shape(10, 18, 62, 8)),
        (shape::ADDRESS, shape(10, 13, 64, 8)),
        (shape::ADDRESS, shape(10, 13, 0, 8)),
        (shape::ADDRESS, shape(10, 13, 30, 4)),
        (stores::ADDRESS, stores(0, 1, 4)),
        (stores::ADDRESS, stores(2, 0, 4)),
        (stores::ADDRESS, stores(2, 1, 0)),
        (stores::ADDRESS, stores(2, 1, 3)),
        (stores::ADDRESS, stores(2, 1, 128)),
        (stores::ADDRESS, stores(129, 1, 4)),
        (stores::ADDRESS, stores(2, 129, 4)),
    ];
    for (address, value) in forgeries {
        let forged = Forged { board: Board::new(BoardConfig::default()), address, value };
        let error = BoardDriver::open(forged, DEADLINE).err().unwrap();
        assert_eq!(error.kind(), EngineErrorKind::Incompatible, "{address:#x} = {value:#x}: {error:?}");
    }
    let minor = version::MAJOR.with(device::VERSION_MAJOR) | version::MINOR.with(9);
    let forged =
        Forged { board: Board::new(BoardConfig::default()), address: version::ADDRESS, value: minor };
    assert_eq!(BoardDriver::open(forged, DEADLINE).ok().unwrap().info().minor, 9);
}

#[test]
fn a_head_beyond_the_tail_is_not_believed() {
    let board = Board::new(BoardConfig::default());
    let forged = Forged { board, address: u32::MAX, value: 0 };
    let mut engine = BoardDriver::open(forged, DEADLINE).unwrap();
    let t = table(10, 50, 0);
    engine.load_table(0, &t).unwrap();
    let x = limb(&t, 2);
    let Poll::Ready(Ok(_)) = engine.submit(Direction::Forward, &[Limb { table: 0, words: &x }]) else {
        panic!()
    };
    (engine.bus().address, engine.bus().value) = (regmap::status::ADDRESS, 77);
    assert_eq!(engine.poll(), Poll::Ready(Err(DriverError::Head { found: 77, tail: 2 })));
    assert_eq!(engine.poll(), Poll::Ready(Err(DriverError::Lost)));
}

#[test]
fn a_stuck_board_meets_the_deadline_and_reset_revives_it() {
    let mut engine = driver(BoardConfig::default());
    let t = table(10, 50, 0);
    engine.load_table(0, &t).unwrap();
    let x = limb(&t, 2);
    let batch = [Limb { table: 0, words: &x }; 2];
    *engine.bus().faults() = FaultPlan { stuck: 1_000_000, limit: Some(1), ..FaultPlan::default() };
    let polls = engine.traffic().registers_read;
    let error = transform(&mut engine, Direction::Forward, &batch).unwrap_err();
    assert_eq!(error, DriverError::Deadline { polls: DEADLINE });
    assert_eq!(engine.traffic().registers_read - polls, u64::from(DEADLINE));
    assert_eq!(error.kind(), EngineErrorKind::Deadline);
    assert_eq!(transform(&mut engine, Direction::Forward, &batch), Err(DriverError::Lost));
    assert_eq!(engine.load_table(0, &t), Err(DriverError::Lost));
    engine.reset().unwrap();
    // Tables survive a reset.
    let out = transform(&mut engine, Direction::Forward, &batch).unwrap();
    assert_eq!(out[1], reference(&t, Direction::Forward, &x));
}

#[test]
fn a_table_that_never_loads_meets_the_deadline() {
    let faults = FaultPlan { stuck: 1_000_000, limit: Some(1), ..FaultPlan::default() };
    let mut engine = driver(BoardConfig { faults, ..BoardConfig::default() });
    let t = table(10, 50, 0);
    assert_eq!(engine.load_table(0, &t), Err(DriverError::Deadline { polls: DEADLINE }));
    engine.reset().unwrap();
    let x = limb(&t, 2);
    let error = transform(&mut engine, Direction::Forward, &[Limb { table: 0, words: &x }]).unwrap_err();
    assert_eq!(error, DriverError::NoTable { slot: 0 });
    engine.load_table(0, &t).unwrap();
}

#[test]
fn the_board_stops_on_a_bad_command() {
    let post = |word: u32| {
        let mut board = Board::new(BoardConfig::default());
        board.write32(regmap::queue::ADDRESS, word).unwrap();
        board.write32(regmap::tail::ADDRESS, 1).unwrap();
        board.read32(regmap::fault::ADDRESS).unwrap()
    };
    let command = |op: u32, bank: u32, table: u32| op | bank << 8 | table << 16;
    assert_eq!(post(command(9, 0, 0)), regmap::fault::OPCODE.mask());
    assert_eq!(post(command(regmap::opcode::NTT_FORWARD, 0, 0)), regmap::fault::TABLE.mask());
    assert_eq!(post(command(regmap::opcode::LOAD_TABLE, 0, 99)), regmap::fault::TABLE.mask());
    assert_eq!(post(command(regmap::opcode::LOAD_TABLE, 0, 0)), regmap::fault::PARAMS.mask());
    let both = regmap::fault::PARAMS.mask() | regmap::fault::BANK.mask();
    assert_eq!(post(command(regmap::opcode::LOAD_TABLE, 8, 0)), both);
    let mut board = Board::new(BoardConfig::default());
    board.write32(regmap::tail::ADDRESS, 9).unwrap();
    assert_eq!(board.read32(regmap::fault::ADDRESS), Ok(regmap::fault::OVERFLOW.mask()));
    board.write32(regmap::control::ADDRESS, regmap::control::RESET.mask()).unwrap();
    assert_eq!(board.read32(regmap::fault::ADDRESS), Ok(0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Any board shape, any mix of degrees and moduli in a batch, any queue depth.
    #[test]
    fn mixed_batches(
        banks in 1_u8..12,
        depth in 0_u32..4,
        access in 1_u64..5000,
        seed: u64,
        jobs in prop::collection::vec((3_u8..9, 20_u32..62, any::<bool>()), 1..20),
    ) {
        let timing = Timing { access, ..Timing::default() };
        let queue_depth = 1 << depth;
        let config = BoardConfig { min_log_n: 3, max_log_n: 8, banks, queue_depth, timing, ..BoardConfig::default() };
        let mut engine = driver(config);
        let tables: Vec<Table> = jobs.iter().take(8).map(|&(log_n, bits, _)| table(log_n, bits, 0)).collect();
        for (slot, t) in tables.iter().enumerate() {
            engine.load_table(slot as u16, t).unwrap();
        }
        let of = |i: usize| i % tables.len();
        let inputs: Vec<_> = (0..jobs.len()).map(|i| limb(&tables[of(i)], seed ^ i as u64)).collect();
        let limbs: Vec<_> = inputs.iter().enumerate().map(|(i, x)| Limb { table: of(i) as u16, words: x }).collect();
        let mut at = 0;
        for batch in limbs.chunks(engine.caps().max_batch.into()) {
            let direction = if jobs[at].2 { Direction::Forward } else { Direction::Inverse };
            let out = transform(&mut engine, direction, batch).unwrap();
            for (y, x) in out.iter().zip(batch) {
                prop_assert_eq!(y, &reference(&tables[usize::from(x.table)], direction, x.words));
            }
            at += batch.len();
        }
    }
}
