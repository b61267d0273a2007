//! What every test of the driver needs: a table, a reference transform, a blocking call.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::task::Poll;

use veilformer::accel::engine::{Direction, Limb, NttEngine, Table};
use veilformer_board::{Board, BoardError, math};
use veilformer_fpga::RegisterBus;

/// A table modulo the `index`-th prime below `2^bits`.
pub(crate) fn table(log_n: u8, bits: u32, index: usize) -> Table {
    let mut q = 1 << bits;
    for _ in 0..=index {
        q = math::ntt_prime(q, log_n).unwrap();
    }
    Table { log_n, q, psi: math::root(q, log_n) }
}

/// A pseudo-random limb.
pub(crate) fn limb(t: &Table, seed: u64) -> Vec<u64> {
    let mut state = seed;
    let step = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state ^ (state >> 29)) % t.q
    };
    (0..1_u64 << t.log_n).map(step).collect()
}

/// The model's own transform.
pub(crate) fn reference(t: &Table, direction: Direction, words: &[u64]) -> Vec<u64> {
    let exponent = |i| math::brv(i, t.log_n.into()) as u64;
    let twiddles: Vec<u64> = (0..1 << t.log_n).map(|i| math::pow(t.psi, exponent(i), t.q)).collect();
    let mut out = words.to_vec();
    match direction {
        Direction::Forward => math::forward(&mut out, &twiddles, t.q),
        Direction::Inverse => math::inverse(&mut out, &twiddles, t.q),
    }
    out
}

/// Submits one batch and waits for it.
pub(crate) fn transform<E: NttEngine>(
    engine: &mut E,
    direction: Direction,
    batch: &[Limb<'_>],
) -> Result<Vec<Vec<u64>>, E::Error> {
    let Poll::Ready(submitted) = engine.submit(direction, batch) else { panic!("no room for one batch") };
    let ticket = submitted?;
    let done = loop {
        if let Poll::Ready(done) = engine.poll() {
            break done?;
        }
    };
    assert_eq!(done, ticket);
    let mut out: Vec<Vec<u64>> = batch.iter().map(|l| vec![0; l.words.len()]).collect();
    let mut slices: Vec<&mut [u64]> = out.iter_mut().map(Vec::as_mut_slice).collect();
    engine.collect(ticket, &mut slices)?;
    Ok(out)
}

/// A link that lies: it loses writes, flips bits both ways, and fails, at a given rate per million accesses.
pub(crate) struct Liar {
    pub(crate) board: Board,
    pub(crate) rate: u64,
    pub(crate) state: u64,
}

enum Lie {
    None,
    Flip(u32),
    Lose,
    Fail,
}

impl Liar {
    fn lie(&mut self) -> Lie {
        self.state =
            self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let draw = self.state >> 20;
        if draw % 1_000_000 >= self.rate {
            return Lie::None;
        }
        match (self.state >> 60) % 4 {
            0 => Lie::Lose,
            1 => Lie::Fail,
            _ => Lie::Flip((self.state >> 52) as u32 % 32),
        }
    }
}

const FAILED: BoardError = BoardError::Unmapped { address: u32::MAX };

impl RegisterBus for Liar {
    type Error = BoardError;

    fn read32(&mut self, address: u32) -> Result<u32, BoardError> {
        match self.lie() {
            Lie::None => self.board.read32(address),
            Lie::Flip(bit) => Ok(self.board.read32(address)? ^ 1 << bit),
            Lie::Lose => Ok(0),
            Lie::Fail => Err(FAILED),
        }
    }

    fn write32(&mut self, address: u32, value: u32) -> Result<(), BoardError> {
        match self.lie() {
            Lie::None => self.board.write32(address, value),
            Lie::Flip(bit) => self.board.write32(address, value ^ 1 << bit),
            Lie::Lose => Ok(()),
            Lie::Fail => Err(FAILED),
        }
    }

    fn read_words(&mut self, address: u32, words: &mut [u64]) -> Result<(), BoardError> {
        let lie = self.lie();
        self.board.read_words(address, words)?;
        match lie {
            Lie::None => {}
            Lie::Flip(bit) => words[words.len() / 2] ^= 1 << bit,
            Lie::Lose => words.fill(u64::MAX),
            Lie::Fail => return Err(FAILED),
        }
        Ok(())
    }

    fn write_words(&mut self, address: u32, words: &[u64]) -> Result<(), BoardError> {
        match self.lie() {
            Lie::None => self.board.write_words(address, words),
            Lie::Flip(bit) => self.board.write_words(address ^ 8 << (bit % 8), words),
            Lie::Lose => Ok(()),
            Lie::Fail => Err(FAILED),
        }
    }
}
