//! The engine's side of an [`Offload`](super::Offload): batches out, answers in, nothing believed.

use core::task::Poll;

use heapless::{Deque, Vec};

use super::super::engine::{Direction, EngineCaps, Limb, NttEngine, Table, Ticket};
use super::super::verify::{Check, Image, Side};
use super::super::{Accelerator, Error};
use super::OffloadCounters;
use crate::ring::{Basis, MAX_LIMBS, Word};

/// Most limbs sent in one batch, whatever the engine takes.
const MAX_BATCH: usize = 16;
/// Most batches in flight, whatever the engine takes.
const MAX_FLIGHTS: usize = 4;
/// The engine, and everything that only its present user touches.
pub(super) struct Desk<'m, E, W> {
    pub(super) engine: E,
    pub(super) caps: EngineCaps,
    pub(super) slots: Vec<Option<Slot<'m>>, MAX_LIMBS>,
    /// Room for one batch: inputs until they are submitted, then outputs.
    pub(super) staging: &'m mut [u64],
    /// One limb in the inner accelerator's words.
    pub(super) scratch: &'m mut [W],
    /// Calls in a row that ended in a fallback.
    pub(super) strikes: u32,
}

/// What the engine's table for a prime is, and how its answers are checked.
pub(super) struct Slot<'m> {
    pub(super) index: u16,
    pub(super) table: Table,
    pub(super) check: Check<'m>,
}

/// A batch in flight: which limbs, and what their answers must look like.
struct Flight {
    ticket: Ticket,
    limbs: Vec<(u8, Image), MAX_BATCH>,
}

/// One call: its limbs and where they live.
pub(super) struct Call<'c, A: Accelerator> {
    pub(super) inner: &'c A,
    pub(super) direction: Direction,
    pub(super) basis: Basis,
    pub(super) x: &'c mut [A::Limb],
}

/// Why a pass ended early.
enum Stop {
    Engine,
    Inner(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Inner(error)
    }
}

impl<E: NttEngine, W: Word> Desk<'_, E, W> {
    /// Two passes: all that is offered, then what failed, with fresh tables. `done` collects the limbs that now
    /// hold verified results; all others hold their inputs.
    pub(super) fn offload<A: Accelerator<Word = W>>(
        &mut self,
        call: &mut Call<'_, A>,
        offered: u64,
        done: &mut u64,
        tally: &mut OffloadCounters,
    ) -> Result<(), Error> {
        self.pass(call, offered, done, tally)?;
        let failed = offered & !*done;
        if failed == 0 {
            return Ok(());
        }
        if !self.reload(call, failed) {
            self.recover(tally);
            return Ok(());
        }
        tally.retries += u64::from(failed.count_ones());
        self.pass(call, failed, done, tally)
    }

    fn pass<A: Accelerator<Word = W>>(
        &mut self,
        call: &mut Call<'_, A>,
        todo: u64,
        done: &mut u64,
        tally: &mut OffloadCounters,
    ) -> Result<(), Error> {
        match self.drive(call, todo, done, tally) {
            Ok(()) => Ok(()),
            Err(Stop::Engine) => {
                self.recover(tally);
                Ok(())
            }
            Err(Stop::Inner(error)) => {
                // Not the engine's fault, but its batches have nowhere to go.
                tally.errors += u64::from(self.engine.reset().is_err());
                Err(error)
            }
        }
    }

    /// Counts an error of the engine and leaves it as clean as it will be.
    fn recover(&mut self, tally: &mut OffloadCounters) {
        tally.errors += 1 + u64::from(self.engine.reset().is_err());
    }

    /// Keeps the engine full until every limb of `todo` has been answered.
    fn drive<A: Accelerator<Word = W>>(
        &mut self,
        call: &mut Call<'_, A>,
        mut todo: u64,
        done: &mut u64,
        tally: &mut OffloadCounters,
    ) -> Result<(), Stop> {
        let depth = usize::from(self.caps.in_flight).min(MAX_FLIGHTS);
        let mut flights: Deque<Flight, MAX_FLIGHTS> = Deque::new();
        loop {
            while todo != 0 && flights.len() < depth {
                let flight = self.launch(call, &mut todo, tally)?;
                // The loop's condition left room.
                let _ = flights.push_back(flight);
            }
            let Some(oldest) = flights.front() else { return Ok(()) };
            match self.engine.poll() {
                Poll::Pending => {
                    tally.not_ready += 1;
                    core::hint::spin_loop();
                }
                Poll::Ready(Ok(ticket)) if ticket == oldest.ticket => {
                    self.land(call, oldest, done, tally)?;
                    flights.pop_front();
                }
                Poll::Ready(_) => return Err(Stop::Engine),
            }
        }
    }

    /// Sends the next batch of `todo`, and takes it from there.
    fn launch<A: Accelerator<Word = W>>(
        &mut self,
        call: &Call<'_, A>,
        todo: &mut u64,
        tally: &mut OffloadCounters,
    ) -> Result<Flight, Stop> {
        let (chain, from) = (call.inner.chain(), sides(call.direction).0);
        let mut limbs: Vec<(u8, Image), MAX_BATCH> = Vec::new();
        let mut batch: Vec<Limb<'_>, MAX_BATCH> = Vec::new();
        for words in self.staging.chunks_exact_mut(chain.degree()) {
            let i = todo.trailing_zeros() as usize;
            let Some(limb) = call.x.get(i) else { break };
            let Some(slot) = &self.slots[call.basis.prime_index(chain, i)] else { return Err(Stop::Engine) };
            *todo &= !(1 << i);
            call.inner.read(limb, self.scratch)?;
            for (to, from) in words.iter_mut().zip(self.scratch.iter()) {
                *to = from.to_u64();
            }
            // The staging area is one batch long.
            let _ = limbs.push((i as u8, slot.check.image(from, words)));
            let _ = batch.push(Limb { table: slot.index, words });
        }
        tally.batches += 1;
        tally.words_sent += (batch.len() * chain.degree()) as u64;
        match self.engine.submit(call.direction, &batch) {
            Poll::Ready(Ok(ticket)) => Ok(Flight { ticket, limbs }),
            // Fewer batches are in flight than the engine said it takes: it may not refuse.
            Poll::Ready(Err(_)) | Poll::Pending => Err(Stop::Engine),
        }
    }

    /// Collects a batch and keeps what is right.
    fn land<A: Accelerator<Word = W>>(
        &mut self,
        call: &mut Call<'_, A>,
        flight: &Flight,
        done: &mut u64,
        tally: &mut OffloadCounters,
    ) -> Result<(), Stop> {
        let (chain, to) = (call.inner.chain(), sides(call.direction).1);
        let staged = self.staging.chunks_exact_mut(chain.degree());
        let mut out: Vec<&mut [u64], MAX_BATCH> = staged.take(flight.limbs.len()).collect();
        self.engine.collect(flight.ticket, &mut out).map_err(|_| Stop::Engine)?;
        for (words, (i, image)) in out.iter().zip(&flight.limbs) {
            tally.words_received += words.len() as u64;
            let i = usize::from(*i);
            let slot = &self.slots[call.basis.prime_index(chain, i)];
            if slot.as_ref().is_some_and(|slot| slot.check.accepts(image, to, words)) {
                for (to, from) in self.scratch.iter_mut().zip(words.iter()) {
                    *to = W::from_u64(*from);
                }
                call.inner.write(&mut call.x[i], self.scratch)?;
                *done |= 1 << i;
            } else {
                tally.mismatches += 1;
            }
        }
        Ok(())
    }

    /// Loads the tables of a set of limbs again: a wrong twiddle is not cured by asking twice.
    fn reload<A: Accelerator>(&mut self, call: &Call<'_, A>, mut set: u64) -> bool {
        while set != 0 {
            let prime = call.basis.prime_index(call.inner.chain(), set.trailing_zeros() as usize);
            if let Some(slot) = &self.slots[prime]
                && self.engine.load_table(slot.index, &slot.table).is_err()
            {
                return false;
            }
            set &= set - 1;
        }
        true
    }
}

pub(super) fn batch_size(caps: &EngineCaps) -> usize {
    usize::from(caps.max_batch).min(MAX_BATCH)
}

/// The forms of input and output.
fn sides(direction: Direction) -> (Side, Side) {
    match direction {
        Direction::Forward => (Side::Coefficients, Side::Evaluations),
        Direction::Inverse => (Side::Evaluations, Side::Coefficients),
    }
}
