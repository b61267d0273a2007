//! Will a board pay?
//!
//! ```text
//! cargo run --release -p veilformer-board --example pays -- [clock MHz] [link MB/s] [butterflies per clock]
//! ```
//!
//! Runs the driver on the model with a link of the given speed, and this machine's portable transform beside it.

use std::task::Poll;
use std::time::Instant;

use veilformer::accel::engine::{Direction, Limb, NttEngine, Table};
use veilformer::memory::Arena;
use veilformer::ring::{Modulus, NttTable, primes_below};
use veilformer_board::{Board, BoardConfig, Timing};
use veilformer_fpga::BoardDriver;

/// Limbs sent for one figure.
const LIMBS: usize = 48;

fn main() {
    let mut arguments = std::env::args().skip(1).map(|a| a.parse::<f64>().expect("a number"));
    let (clock, link) = (arguments.next().unwrap_or(200.0), arguments.next().unwrap_or(800.0));
    let butterflies = arguments.next().unwrap_or(1.0) as u64;
    // The board's side of the link takes at most a word per clock.
    let clocks_per_word = (8.0 * clock / link).ceil() as u64;
    let link = 8.0 * clock / clocks_per_word as f64;
    println!(
        "{butterflies} butterflies per clock at {clock} MHz, one link of {link} MB/s; microseconds per limb"
    );
    println!("log N  compute  transfer  board, pipelined  check  portable host");
    for log_n in 10..=16 {
        let n = 1_usize << log_n;
        let modulus = primes_below(1 << 50, 2 * n as u64).find_map(Modulus::new).expect("such primes exist");
        let psi = modulus.primitive_root(n).expect("q is 1 modulo 2N");
        let x: Vec<u64> =
            (1..=n as u64).map(|i| i.wrapping_mul(0x9E37_79B9_7F4A_7C15) % modulus.value()).collect();

        let timing = Timing { word: clocks_per_word, butterflies, ..Timing::default() };
        let config = BoardConfig { max_log_n: log_n, timing, ..BoardConfig::default() };
        let mut engine = BoardDriver::open(Board::new(config), u32::MAX).expect("the model opens");
        engine.load_table(0, &Table { log_n, q: modulus.value(), psi }).expect("the model loads");
        let (start, busy) = (engine.bus().clock(), engine.cycles().expect("the model counts"));
        stream(&mut engine, &x);
        let busy = engine.cycles().expect("the model counts") - busy;
        let elapsed = engine.bus().clock() - start;
        let micros = |clocks: u64| clocks as f64 / clock / LIMBS as f64;
        let transfer = micros(2 * clocks_per_word * (n * LIMBS) as u64);

        let mut words = vec![0; NttTable::<u64>::words_needed(n)];
        let table = NttTable::new(modulus, n, &mut Arena::new(&mut words)).expect("sized by words_needed");
        let mut y = x.clone();
        let host = time(|| table.forward(&mut y));
        let check = 2.0
            * time(|| {
                let sum = x.iter().zip(&y).fold(0_u128, |sum, (&a, &b)| sum + u128::from(a) * u128::from(b));
                std::hint::black_box(sum);
            });
        let board = micros(elapsed);
        println!(
            "{log_n:5} {:8.1} {transfer:9.1} {board:17.1} {check:6.1} {host:14.1}   {}",
            micros(busy),
            if board + check < host { "pays" } else { "does not pay" }
        );
    }
}

/// Sends `LIMBS` limbs with as many batches in flight as the engine takes.
fn stream<E: NttEngine>(engine: &mut E, x: &[u64]) {
    let caps = engine.caps();
    let size = usize::from(caps.max_batch);
    let mut out = vec![vec![0; x.len()]; size];
    let (mut sent, mut received) = (0, 0);
    while received < LIMBS {
        while sent < LIMBS && sent - received < size * usize::from(caps.in_flight) {
            let batch = vec![Limb { table: 0, words: x }; size.min(LIMBS - sent)];
            let Poll::Ready(ticket) = engine.submit(Direction::Forward, &batch) else { break };
            ticket.expect("the model takes a batch");
            sent += batch.len();
        }
        if let Poll::Ready(ticket) = engine.poll() {
            let count = size.min(LIMBS - received);
            let mut slices: Vec<&mut [u64]> = out.iter_mut().take(count).map(Vec::as_mut_slice).collect();
            let ticket = ticket.expect("the model finishes");
            engine.collect(ticket, &mut slices).expect("the model answers");
            received += count;
        }
    }
}

/// Microseconds of the fastest of a few runs.
fn time(mut f: impl FnMut()) -> f64 {
    let run = |_| {
        let start = Instant::now();
        f();
        start.elapsed().as_secs_f64() * 1e6
    };
    (0..20).map(run).fold(f64::INFINITY, f64::min)
}
