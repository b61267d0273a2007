//! The conformance suite of an [`NttEngine`]: runs anywhere, on a host or on the device that carries the board.
//!
//! For every ring degree both sides know and for primes of several sizes it sends edge cases and pseudo-random
//! limbs through every place of a batch, with as many batches in flight as the engine says, and compares bit for
//! bit with the reference transform. Then it misuses the engine and expects the answers the contract promises.

use core::task::Poll;

use heapless::Vec;

use super::{Direction, EngineCaps, EngineError, EngineErrorKind, Limb, NttEngine, Table, Ticket};
use crate::memory::{Arena, OutOfMemory};
use crate::ring::{Modulus, NttTable, Word, primes_below};

/// Most limbs of a batch the suite sends.
const MAX_BATCH: usize = 16;
/// Most batches the suite keeps in flight.
const MAX_FLIGHTS: usize = 4;
/// Degrees the core's rings have.
const DEGREES: core::ops::RangeInclusive<u8> = 10..=17;
/// Upper ends of the prime sizes tried.
const SIZES: [u32; 3] = [<u64 as Word>::MAX_MODULUS_BITS, 30, 21];

/// What a passing engine has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Report {
    /// Pairs of degree and prime.
    pub tables: u32,
    /// Batches sent.
    pub batches: u32,
    /// Limbs compared, bit for bit.
    pub limbs: u32,
    /// Polls that were not ready.
    pub not_ready: u32,
}

/// The first thing that was not as the contract says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Failure {
    /// The suite has too little memory, in words.
    Memory(OutOfMemory),
    /// The capabilities contradict themselves, or share no degree with the core.
    Caps(EngineCaps),
    /// An error where none was due.
    Error {
        /// Its kind.
        kind: EngineErrorKind,
    },
    /// `submit` refused a batch although fewer were in flight than promised.
    Refused {
        /// Batches in flight.
        in_flight: usize,
    },
    /// `poll` named another ticket than that of the oldest batch.
    Order {
        /// The oldest ticket.
        oldest: Ticket,
        /// The one named.
        found: Ticket,
    },
    /// A wrong word.
    Word {
        /// Which transform.
        direction: Direction,
        /// `log2 N`.
        log_n: u8,
        /// The modulus.
        q: u64,
        /// Place of the limb in the batch.
        limb: usize,
        /// Place of the word in the limb.
        word: usize,
        /// What came back.
        found: u64,
        /// What should have.
        expected: u64,
    },
    /// A misuse was accepted, or refused with another kind of error.
    Misuse {
        /// Which, in the order of the source.
        case: u8,
        /// What was reported.
        found: Option<EngineErrorKind>,
    },
}

impl From<OutOfMemory> for Failure {
    fn from(error: OutOfMemory) -> Self {
        Self::Memory(error)
    }
}

/// Words of memory the suite needs for this engine.
#[must_use]
pub fn words_needed(caps: &EngineCaps) -> usize {
    let degree = 1_usize << caps.max_log_n.min(*DEGREES.end());
    // Tables of the reference; an input and an output batch.
    SIZES.len() * NttTable::<u64>::words_needed(degree) + 2 * batch_size(caps) * degree
}

/// Runs the suite. Tables of the engine are overwritten.
///
/// # Errors
/// The first [`Failure`].
pub fn run<E: NttEngine>(engine: &mut E, memory: &mut [u64]) -> Result<Report, Failure> {
    let caps = engine.caps();
    let sane =
        caps.min_log_n <= caps.max_log_n && caps.tables > 0 && caps.max_batch > 0 && caps.in_flight > 0;
    let (low, high) = (caps.min_log_n.max(*DEGREES.start()), caps.max_log_n.min(*DEGREES.end()));
    if !sane || low > high {
        return Err(Failure::Caps(caps));
    }
    let mut report = Report::default();
    engine.reset().map_err(error)?;
    for log_n in low..=high {
        let mut ring = Ring::new(log_n, &caps, &mut Arena::new(memory))?;
        ring.load(engine)?;
        report.tables += ring.tables.len() as u32;
        for round in 0..PATTERNS {
            for direction in [Direction::Forward, Direction::Inverse] {
                ring.batches(engine, direction, round, &mut report)?;
            }
        }
        ring.misuse(engine)?;
    }
    Ok(report)
}

fn batch_size(caps: &EngineCaps) -> usize {
    usize::from(caps.max_batch).min(MAX_BATCH)
}

fn error<E: EngineError>(error: E) -> Failure {
    Failure::Error { kind: error.kind() }
}

/// Rounds: zeros, all q − 1, single words, then pseudo-random limbs.
const PATTERNS: u32 = 6;

/// Fills a limb with pattern number `round`, seeded so that no two limbs of a run are alike.
fn fill(words: &mut [u64], q: u64, round: u32, seed: u64) {
    match round {
        0 => words.fill(0),
        1 => words.fill(q - 1),
        2 | 3 => {
            words.fill(0);
            let at = if round == 2 { words.len() - 1 } else { seed as usize % words.len() };
            words[at] = q - 1 - seed % 5;
        }
        _ => {
            let mut state = seed ^ q << 7;
            for word in words {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                *word = (state >> 11) % q;
            }
        }
    }
}

/// One degree: reference tables, and room for a batch and its answer.
struct Ring<'m> {
    log_n: u8,
    degree: usize,
    depth: usize,
    size: usize,
    tables: Vec<NttTable<'m, u64>, { SIZES.len() }>,
    input: &'m mut [u64],
    output: &'m mut [u64],
}

impl<'m> Ring<'m> {
    fn new(log_n: u8, caps: &EngineCaps, arena: &mut Arena<'m, u64>) -> Result<Self, Failure> {
        let (degree, size) = (1_usize << log_n, batch_size(caps));
        let mut tables = Vec::new();
        for bits in SIZES {
            let bound = 1 << bits.min(caps.modulus_bits.into());
            let prime = primes_below(bound, 2 * degree as u64).find_map(Modulus::new);
            let Some(modulus) = prime.filter(|m| caps.supports(log_n, m.value())) else { continue };
            if tables.len() < usize::from(caps.tables) {
                // One for each size.
                let _ = tables.push(NttTable::new(modulus, degree, arena)?);
            }
        }
        if tables.is_empty() {
            return Err(Failure::Caps(*caps));
        }
        let depth = usize::from(caps.in_flight).min(MAX_FLIGHTS);
        let (input, output) = (arena.take(size * degree)?, arena.take(size * degree)?);
        Ok(Self { log_n, degree, depth, size, tables, input, output })
    }

    fn table(&self, index: usize) -> Option<Table> {
        let modulus = self.tables.get(index)?.modulus();
        let psi = modulus.primitive_root(self.degree)?;
        Some(Table { log_n: self.log_n, q: modulus.value(), psi })
    }

    fn load<E: NttEngine>(&self, engine: &mut E) -> Result<(), Failure> {
        for slot in 0..self.tables.len() {
            if let Some(table) = self.table(slot) {
                engine.load_table(slot as u16, &table).map_err(error)?;
            }
        }
        Ok(())
    }

    /// Which table limb `limb` of batch `batch` uses: every place meets every prime.
    fn slot(&self, batch: u32, limb: usize) -> usize {
        (batch as usize + limb) % self.tables.len()
    }

    /// Makes batch number `batch` anew; the same number gives the same words.
    fn prepare(&mut self, batch: u32, count: usize, round: u32) {
        for limb in 0..count {
            let q = self.tables[self.slot(batch, limb)].modulus().value();
            let words = &mut self.input[limb * self.degree..][..self.degree];
            fill(words, q, round, u64::from(batch) << 8 | limb as u64);
        }
    }

    /// Sends one batch more than may be in flight, of growing sizes, and compares all answers.
    fn batches<E: NttEngine>(
        &mut self,
        engine: &mut E,
        direction: Direction,
        round: u32,
        report: &mut Report,
    ) -> Result<(), Failure> {
        let first = report.batches;
        let end = first + self.depth as u32 + 1;
        let size = self.size;
        let count = |batch: u32| if batch + 1 == end { 1 } else { size };
        let mut flights: heapless::Deque<(Ticket, u32), MAX_FLIGHTS> = heapless::Deque::new();
        while report.batches < end || !flights.is_empty() {
            while report.batches < end && flights.len() < self.depth {
                let batch = report.batches;
                self.prepare(batch, count(batch), round);
                let limbs = self.input.chunks_exact(self.degree).take(count(batch)).enumerate();
                let limbs: Vec<Limb<'_>, MAX_BATCH> =
                    limbs.map(|(at, words)| Limb { table: self.slot(batch, at) as u16, words }).collect();
                let Poll::Ready(ticket) = engine.submit(direction, &limbs) else {
                    return Err(Failure::Refused { in_flight: flights.len() });
                };
                // The loop's condition left room.
                let _ = flights.push_back((ticket.map_err(error)?, batch));
                report.batches += 1;
            }
            let Some(&(oldest, batch)) = flights.front() else { break };
            match engine.poll() {
                Poll::Pending => report.not_ready += 1,
                Poll::Ready(found) => {
                    let found = found.map_err(error)?;
                    if found != oldest {
                        return Err(Failure::Order { oldest, found });
                    }
                    let chunks = self.output.chunks_exact_mut(self.degree);
                    let mut out: Vec<&mut [u64], MAX_BATCH> = chunks.take(count(batch)).collect();
                    engine.collect(oldest, &mut out).map_err(error)?;
                    drop(out);
                    flights.pop_front();
                    self.compare(direction, batch, count(batch), round)?;
                    report.limbs += count(batch) as u32;
                }
            }
        }
        Ok(())
    }

    fn compare(&mut self, direction: Direction, batch: u32, count: usize, round: u32) -> Result<(), Failure> {
        self.prepare(batch, count, round);
        for limb in 0..count {
            let table = &self.tables[self.slot(batch, limb)];
            let span = limb * self.degree..(limb + 1) * self.degree;
            let (expected, found) = (&mut self.input[span.clone()], &self.output[span]);
            match direction {
                Direction::Forward => table.forward(expected),
                Direction::Inverse => table.inverse(expected),
            }
            if let Some(word) = (0..self.degree).find(|&i| expected[i] != found[i]) {
                let (log_n, q) = (self.log_n, table.modulus().value());
                let (found, expected) = (found[word], expected[word]);
                return Err(Failure::Word { direction, log_n, q, limb, word, found, expected });
            }
        }
        Ok(())
    }

    /// Calls the contract forbids, and what it promises for each; the engine works as before afterwards.
    fn misuse<E: NttEngine>(&mut self, engine: &mut E) -> Result<(), Failure> {
        use EngineErrorKind::{Argument, Unsupported};
        let caps = engine.caps();
        let Some(table) = self.table(0) else { return Ok(()) };
        let words = &self.input[..self.degree];
        let good = Limb { table: 0, words };
        let submit = |engine: &mut E, batch: &[Limb<'_>]| match engine.submit(Direction::Forward, batch) {
            Poll::Ready(result) => result.err().map(|e| e.kind()),
            Poll::Pending => None,
        };
        let load = |engine: &mut E, slot, table| engine.load_table(slot, &table).err().map(|e| e.kind());
        let idle = |engine: &mut E| match engine.poll() {
            Poll::Ready(result) => result.err().map(|e| e.kind()),
            Poll::Pending => None,
        };
        let cases = [
            (submit(engine, &[]), Argument),
            (submit(engine, &[Limb { words: &words[1..], ..good }]), Argument),
            (submit(engine, &[Limb { table: caps.tables, words }]), Argument),
            (load(engine, caps.tables, table), Argument),
            (load(engine, 0, Table { psi: 1, ..table }), Argument),
            (load(engine, 0, Table { psi: table.psi + table.q, ..table }), Argument),
            (load(engine, 0, Table { log_n: caps.max_log_n + 1, ..table }), Unsupported),
            (load(engine, 0, Table { q: table.q - 1, ..table }), Unsupported),
            (idle(engine), Argument),
            (engine.collect(Ticket(0), &mut []).err().map(|e| e.kind()), Argument),
        ];
        for (case, (found, promised)) in (0..).zip(cases) {
            if found != Some(promised) {
                return Err(Failure::Misuse { case, found });
            }
        }
        // None of that may have touched the tables; nor may a reset.
        engine.reset().map_err(error)?;
        self.batches(engine, Direction::Forward, PATTERNS - 1, &mut Report::default())
    }
}
