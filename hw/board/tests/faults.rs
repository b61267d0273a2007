//! Every kind of fault is injected, logged, and visible where it should be; none is anywhere else.

mod common;

use common::{limb, reference, table, transform};
use veilformer::accel::engine::{Direction, Limb, NttEngine};
use veilformer_board::{Board, BoardConfig, FaultKind, FaultPlan};
use veilformer_fpga::BoardDriver;

const ALWAYS: u32 = 1_000_000;

fn run(faults: FaultPlan, limbs: usize) -> (Vec<bool>, BoardDriver<Board>) {
    let config = BoardConfig { faults, seed: 7, ..BoardConfig::default() };
    let mut engine = BoardDriver::open(Board::new(config), 4096).unwrap();
    let t = table(10, 50, 0);
    engine.load_table(0, &t).unwrap();
    let x = limb(&t, 3);
    let y = reference(&t, Direction::Forward, &x);
    let mut right = Vec::new();
    for _ in 0..limbs {
        let out = transform(&mut engine, Direction::Forward, &[Limb { table: 0, words: &x }]).unwrap();
        right.push(out[0] == y);
    }
    (right, engine)
}

#[test]
fn no_plan_no_fault() {
    let (right, mut engine) = run(FaultPlan::default(), 20);
    assert!(right.iter().all(|&r| r));
    assert!(engine.bus().fault_log().is_empty());
}

#[test]
fn faults_strike_where_the_log_says() {
    let plans = [
        (FaultKind::BitFlip, FaultPlan { bit_flip: ALWAYS, limit: Some(3), ..FaultPlan::default() }, 3),
        (FaultKind::Dropped, FaultPlan { dropped: ALWAYS, limit: Some(2), ..FaultPlan::default() }, 2),
        (
            FaultKind::WrongTwiddle,
            FaultPlan { wrong_twiddle: ALWAYS, limit: Some(1), ..FaultPlan::default() },
            6,
        ),
        (FaultKind::BadBank, FaultPlan { bad_bank: Some(0), ..FaultPlan::default() }, 6),
    ];
    for (kind, plan, wrong) in plans {
        let (right, mut engine) = run(plan, 6);
        assert_eq!(right.iter().position(|&r| r).unwrap_or(6), wrong, "{kind:?}");
        assert!(right[wrong..].iter().all(|&r| r));
        let log = engine.bus().fault_log();
        assert!(!log.is_empty() && log.iter().all(|e| e.kind == kind), "{log:?}");
    }
}

#[test]
fn a_rate_is_a_rate_and_a_seed_is_a_seed() {
    let plan = FaultPlan { bit_flip: 200_000, ..FaultPlan::default() };
    let (right, mut engine) = run(plan, 200);
    let wrong = right.iter().filter(|&&r| !r).count();
    assert_eq!(wrong, engine.bus().fault_log().len());
    assert!((20..=65).contains(&wrong), "{wrong} of 200 at 20 %");
    assert_eq!(run(plan, 200).0, right);
}

#[test]
fn a_bad_bank_spoils_only_its_own_limbs() {
    let faults = FaultPlan { bad_bank: Some(2), ..FaultPlan::default() };
    let mut engine =
        BoardDriver::open(Board::new(BoardConfig { faults, ..BoardConfig::default() }), 4096).unwrap();
    let t = table(11, 50, 0);
    engine.load_table(0, &t).unwrap();
    let x = limb(&t, 3);
    let y = reference(&t, Direction::Forward, &x);
    let out = transform(&mut engine, Direction::Forward, &[Limb { table: 0, words: &x }; 4]).unwrap();
    let right: Vec<bool> = out.iter().map(|o| *o == y).collect();
    assert_eq!(right, [true, true, false, true]);
}
