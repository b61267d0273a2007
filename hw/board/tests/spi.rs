//! The same driver over SPI, byte by byte.

mod common;

use common::{limb, reference, table, transform};
use embedded_hal::spi::{Operation, SpiDevice};
use veilformer::accel::engine::{Direction, EngineError, EngineErrorKind, Limb, NttEngine};
use veilformer_board::{Board, BoardConfig, SpiBoard};
use veilformer_fpga::regmap::{bank, magic};
use veilformer_fpga::{BoardDriver, RegisterBus, SpiBus, frame};

#[test]
fn bit_exact_over_spi() {
    let spi = SpiBoard::new(Board::new(BoardConfig::default()));
    let mut engine = BoardDriver::open(SpiBus::new(spi), 4096).unwrap();
    for log_n in 10..=13 {
        let t = table(log_n, 50, 0);
        engine.load_table(0, &t).unwrap();
        let x = limb(&t, 1);
        let batch = [Limb { table: 0, words: &x }; 2];
        let y = transform(&mut engine, Direction::Forward, &batch).unwrap();
        assert_eq!(y[1], reference(&t, Direction::Forward, &x));
        let z = transform(&mut engine, Direction::Inverse, &[Limb { table: 0, words: &y[0] }]).unwrap();
        assert_eq!(z[0], x);
    }
}

#[test]
fn wire_overhead_is_small_and_counted() {
    let mut spi = SpiBoard::new(Board::new(BoardConfig::default()));
    let mut bus = SpiBus::new(&mut spi);
    let words: Vec<u64> = (0..1024_u64).map(|i| i.wrapping_mul(0x9E37_79B9_7F4A_7C15)).collect();
    bus.write_words(bank::ADDRESS + bank::STRIDE, &words).unwrap();
    let mut back = vec![0; 1024];
    bus.read_words(bank::ADDRESS + bank::STRIDE, &mut back).unwrap();
    assert_eq!(back, words);
    let bursts = 8192 / frame::BURST as u64;
    assert_eq!(spi.transactions(), 2 * bursts);
    assert_eq!(spi.bytes(), 2 * 8192 + bursts * (2 * frame::HEADER + frame::TURNAROUND) as u64);
}

/// The frame, spelled out: what the RTL's shift register must do.
#[test]
fn the_frame_is_what_the_documentation_says() {
    let mut spi = SpiBoard::new(Board::new(BoardConfig::default()));
    let mut data = [0; 4];
    let [a, b, c, d] = magic::ADDRESS.to_be_bytes();
    spi.transaction(&mut [Operation::Write(&[0x03, a, b, c, d, 0, 0]), Operation::Read(&mut data)]).unwrap();
    assert_eq!(&data, b"TNFV");
    let mut whole = [0x03, a, b, c, d, 0, 0, 0, 0, 0, 0];
    spi.transaction(&mut [Operation::TransferInPlace(&mut whole)]).unwrap();
    assert_eq!(&whole[7..], b"TNFV");
}

#[test]
fn a_broken_wire_is_a_transport_error() {
    let spi = SpiBoard::new(Board::new(BoardConfig::default()));
    let mut engine = BoardDriver::open(SpiBus::new(spi), 4096).unwrap();
    let t = table(10, 50, 0);
    engine.load_table(0, &t).unwrap();
    let x = limb(&t, 1);
    let batch = [Limb { table: 0, words: &x }];
    let mut failures = 0;
    for after in 0.. {
        let mut spi = engine.release().release();
        spi.fail_after(None);
        let mut fresh = BoardDriver::open(SpiBus::new(spi), 4096).unwrap();
        fresh.load_table(0, &t).unwrap();
        let mut spi = fresh.release().release();
        spi.fail_after(Some(4 + 1 + after));
        engine = match BoardDriver::open(SpiBus::new(spi), 4096) {
            Ok(engine) => engine,
            Err(error) => panic!("opened with {error:?}"),
        };
        match engine.load_table(0, &t).and_then(|()| transform(&mut engine, Direction::Forward, &batch)) {
            Ok(out) => {
                assert_eq!(out[0], reference(&t, Direction::Forward, &x));
                break;
            }
            Err(error) => assert_eq!(error.kind(), EngineErrorKind::Transport),
        }
        failures += 1;
    }
    assert!(failures > 40, "{failures}");
}
