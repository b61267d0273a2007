//! `NttEngine`: the small rung of the seam, for a board that only transforms.
//!
//! # The contract, on one page
//!
//! **What is computed.** For a prime `q ≡ 1 (mod 2N)` and a primitive `2N`-th root of unity `ψ` (both given by
//! the host in [`NttEngine::load_table`]; a root of the engine's own choosing is wrong):
//!
//! * [`Direction::Forward`]: natural order in, bit-reversed order out,
//!   `out[i] = Σ_j in[j] · ψ^((2·brv(i) + 1)·j) mod q`, where `brv` reverses `log2 N` bits. Nothing is scaled.
//! * [`Direction::Inverse`]: the exact inverse. Bit-reversed order in, natural order out. **The engine divides
//!   by N.**
//!
//! **Ranges.** Words are `u64`. Inputs are canonical, in `[0, q)`; so are outputs. Whatever happens in between
//! (lazy reduction, Montgomery form) is the engine's affair. Two engines given the same batch agree bit for bit.
//! Inputs out of range make the *values* of that limb unspecified, nothing else: no panic, no hang.
//!
//! **Ownership.** Host slices are touched only inside the call that takes them: [`NttEngine::submit`] has
//! copied every word when it returns, [`NttEngine::collect`] has written every word when it returns. No engine
//! keeps a reference to host memory, so a batch that is forgotten or abandoned can corrupt nothing.
//!
//! **Order.** Batches complete in the order of submission. [`NttEngine::poll`] speaks of the oldest batch in
//! flight and names it again until it is collected; up to [`EngineCaps::in_flight`] batches may be in flight,
//! so one can be written while another computes.
//!
//! **Not ready** is [`Poll::Pending`], and never an error: from `submit` it means "no room, nothing was taken,
//! poll and try again", from `poll` it means "still computing". An engine counts the polls that saw no progress
//! and reports [`EngineErrorKind::Deadline`] after its bound; it neither waits nor retries without end.
//!
//! **Errors** answer [`EngineError::kind`], in the manner of `embedded-hal`, so that a caller generic over
//! engines can act on them. An argument error ([`EngineErrorKind::Argument`], [`EngineErrorKind::Unsupported`])
//! changes nothing in the engine. After any other error from `submit`, `poll` or `collect` the batches in
//! flight are lost: call [`NttEngine::reset`], which abandons them and keeps the tables.
//!
//! **Proof.** [`conformance::run`] checks all of this on any engine.
//!
//! **Trust.** None is needed. The host checks every limb that comes back against a secret random linear
//! functional; an engine that errs is slow, never wrong. Secret-key limbs are never sent.

pub mod conformance;

use core::fmt::Debug;
use core::task::Poll;

/// Which way a batch is transformed; the [module documentation](self) has the formulae.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Direction {
    /// Coefficients (natural order) to evaluations (bit-reversed order), unscaled.
    Forward,
    /// Evaluations (bit-reversed order) to coefficients (natural order), divided by N.
    Inverse,
}

impl Direction {
    /// The other way.
    #[must_use]
    pub const fn reverse(self) -> Self {
        match self {
            Self::Forward => Self::Inverse,
            Self::Inverse => Self::Forward,
        }
    }
}

/// What an engine can do. Constant for the life of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct EngineCaps {
    /// Smallest supported `log2 N`.
    pub min_log_n: u8,
    /// Largest supported `log2 N`.
    pub max_log_n: u8,
    /// Moduli must be below `2^modulus_bits`.
    pub modulus_bits: u8,
    /// Width of a residue on the engine's side of the link, in bits: what a limb costs to move.
    pub word_bits: u8,
    /// Table slots: how many (modulus, root, degree) triples the engine holds at once.
    pub tables: u16,
    /// Most limbs in one batch.
    pub max_batch: u16,
    /// Most batches submitted and not yet collected.
    pub in_flight: u8,
}

impl EngineCaps {
    /// Whether a table for degree `2^log_n` modulo `q` fits.
    #[must_use]
    pub const fn supports(&self, log_n: u8, q: u64) -> bool {
        let fits = self.modulus_bits >= 64 || q >> self.modulus_bits == 0;
        fits && q & 1 == 1 && log_n >= self.min_log_n && log_n <= self.max_log_n
    }
}

/// The constants of one transform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Table {
    /// `log2` of the ring degree N.
    pub log_n: u8,
    /// The prime, `≡ 1 (mod 2N)`.
    pub q: u64,
    /// A primitive `2N`-th root of unity modulo `q`, canonical.
    pub psi: u64,
}

/// One limb to transform: the slot its table was loaded into, and its N words.
#[derive(Clone, Copy, Debug)]
pub struct Limb<'a> {
    /// Slot given to [`NttEngine::load_table`].
    pub table: u16,
    /// N canonical residues.
    pub words: &'a [u64],
}

/// Names a batch between `submit` and `collect`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Ticket(pub u32);

/// What went wrong, in terms every engine shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum EngineErrorKind {
    /// The link to the engine failed.
    Transport,
    /// What answers is not an engine this driver speaks to.
    Incompatible,
    /// Beyond the engine's capabilities. Nothing changed.
    Unsupported,
    /// A wrong length, slot, ticket, root or order of calls. Nothing changed.
    Argument,
    /// No progress within the engine's bound on polls.
    Deadline,
    /// The engine itself reported a fault.
    Fault,
    /// None of the above.
    Other,
}

/// An error of an engine; [`EngineError::kind`] is what generic callers see of it.
pub trait EngineError: Debug {
    /// The error in terms every engine shares.
    fn kind(&self) -> EngineErrorKind;
}

impl EngineError for EngineErrorKind {
    fn kind(&self) -> EngineErrorKind {
        *self
    }
}

impl EngineError for core::convert::Infallible {
    fn kind(&self) -> EngineErrorKind {
        match *self {}
    }
}

/// A device that transforms limbs. The [module documentation](self) is the contract.
pub trait NttEngine {
    /// What can go wrong.
    type Error: EngineError;

    /// What the engine can do.
    fn caps(&self) -> EngineCaps;

    /// Fills table `slot` (below [`EngineCaps::tables`]), replacing what was there. Nothing may be in flight.
    ///
    /// # Errors
    /// [`EngineErrorKind::Unsupported`] beyond the capabilities; [`EngineErrorKind::Argument`] if the slot does
    /// not exist, `psi` is not a primitive `2N`-th root of unity, or a batch is in flight.
    fn load_table(&mut self, slot: u16, table: &Table) -> Result<(), Self::Error>;

    /// Copies a batch of limbs to the engine and starts it. Limbs of one batch may use different tables.
    /// [`Poll::Pending`]: no room, nothing was taken.
    ///
    /// # Errors
    /// Inside `Ready`: [`EngineErrorKind::Argument`] for an empty batch, one above [`EngineCaps::max_batch`], a
    /// slot that holds no table, or a limb that is not N words long.
    fn submit(&mut self, direction: Direction, batch: &[Limb<'_>]) -> Poll<Result<Ticket, Self::Error>>;

    /// Drives the engine. `Ready(Ok(ticket))`: the oldest batch in flight is complete and may be collected.
    ///
    /// # Errors
    /// Inside `Ready`: [`EngineErrorKind::Argument`] if nothing is in flight, [`EngineErrorKind::Deadline`] or
    /// [`EngineErrorKind::Fault`] if the batches in flight are lost.
    fn poll(&mut self) -> Poll<Result<Ticket, Self::Error>>;

    /// Copies the results of a complete batch out, in the order of its limbs, and forgets the batch.
    ///
    /// # Errors
    /// [`EngineErrorKind::Argument`] unless `poll` has just named `ticket` and `out` has the batch's shape.
    fn collect(&mut self, ticket: Ticket, out: &mut [&mut [u64]]) -> Result<(), Self::Error>;

    /// Abandons every batch in flight and clears faults; tables stay loaded.
    ///
    /// # Errors
    /// Whatever the link can report.
    fn reset(&mut self) -> Result<(), Self::Error>;
}

impl<E: NttEngine + ?Sized> NttEngine for &mut E {
    type Error = E::Error;

    fn caps(&self) -> EngineCaps {
        (**self).caps()
    }

    fn load_table(&mut self, slot: u16, table: &Table) -> Result<(), Self::Error> {
        (**self).load_table(slot, table)
    }

    fn submit(&mut self, direction: Direction, batch: &[Limb<'_>]) -> Poll<Result<Ticket, Self::Error>> {
        (**self).submit(direction, batch)
    }

    fn poll(&mut self) -> Poll<Result<Ticket, Self::Error>> {
        (**self).poll()
    }

    fn collect(&mut self, ticket: Ticket, out: &mut [&mut [u64]]) -> Result<(), Self::Error> {
        (**self).collect(ticket, out)
    }

    fn reset(&mut self) -> Result<(), Self::Error> {
        (**self).reset()
    }
}
