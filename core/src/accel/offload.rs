//! `Offload`: an accelerator that sends transforms to an [`NttEngine`] and believes none of the answers.
//!
//! Everything but the transforms goes to an inner accelerator, whose limbs these are. A call with enough limbs
//! is cut into batches, as many in flight as the engine takes; every limb that comes back is checked (see the
//! module `verify`) before it replaces the input. What fails is tried once more with a freshly loaded table,
//! and then transformed by the inner accelerator. So the result is right whatever the engine does, and
//! [`OffloadCounters`] accounts for every limb:
//!
//! `limbs = verified + fallbacks + declined`.
//!
//! The coarse kernels are the trait's own, built on *these* transforms; `tensor`, `inner_product` and
//! `hoisted_sums` hold no transform and go to the inner accelerator.
//!
//! The engine is shared by try-lock: while one thread has it, the others transform by themselves.
//!
//! An `Offload` is not [`Trusted`](super::Trusted), whatever it wraps: no secret limb reaches the engine.
//!
//! ```compile_fail,E0277
//! use veilformer::accel::{Accelerator, Offload, Trusted, engine::NttEngine};
//! fn takes_secrets<T: Trusted>() {}
//! fn leak<'m, E: NttEngine + Send, A: Trusted>() {
//!     takes_secrets::<Offload<'m, E, A>>();
//! }
//! ```

mod desk;
mod kernels;

use heapless::Vec;
use spin::Mutex;

use super::engine::{Direction, EngineCaps, EngineError, EngineErrorKind, NttEngine, Table};
use super::verify::{Check, CheckError};
use super::{Accelerator, Error, check};
use crate::memory::{Arena, OutOfMemory};
use crate::ring::{Basis, ModulusChain};
use desk::{Call, Desk, Slot, batch_size};

/// After this many calls in a row that ended in a fallback, the engine is left alone.
const PATIENCE: u32 = 8;

/// What an [`Offload`] has done. Limbs are counted once per call that transforms them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct OffloadCounters {
    /// Limbs that were to be transformed.
    pub limbs: u64,
    /// Limbs transformed by the engine, checked and accepted.
    pub verified: u64,
    /// Limbs given up by the engine after the retry and transformed by the inner accelerator.
    pub fallbacks: u64,
    /// Limbs never sent: unsupported, below the threshold, engine busy with another thread, or suspended.
    pub declined: u64,
    /// Batches sent, retries included.
    pub batches: u64,
    /// Answers that were wrong.
    pub mismatches: u64,
    /// Errors of the engine (deadlines, faults, transport).
    pub errors: u64,
    /// Limbs sent a second time.
    pub retries: u64,
    /// Polls that were not ready.
    pub not_ready: u64,
    /// Words sent in batches.
    pub words_sent: u64,
    /// Words received in batches.
    pub words_received: u64,
    /// Whether the engine is left alone, after too many fallbacks in a row.
    pub suspended: bool,
}

/// Why an [`Offload`] cannot be set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum OffloadError {
    /// The arena is too small.
    Memory(OutOfMemory),
    /// The inner accelerator failed.
    Accelerator(Error),
    /// The engine failed; [`EngineErrorKind::Unsupported`] if it can serve no prime of the chain.
    Engine(EngineErrorKind),
}

impl core::fmt::Display for OffloadError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Memory(e) => e.fmt(f),
            Self::Accelerator(e) => e.fmt(f),
            Self::Engine(EngineErrorKind::Unsupported) => {
                write!(f, "the engine supports neither this ring degree nor any of its primes")
            }
            Self::Engine(kind) => write!(f, "the engine failed while its tables were loaded: {kind:?}"),
        }
    }
}

impl core::error::Error for OffloadError {}

impl From<CheckError> for OffloadError {
    fn from(error: CheckError) -> Self {
        match error {
            CheckError::Memory(e) => Self::Memory(e),
            CheckError::Accelerator(e) => Self::Accelerator(e),
        }
    }
}

/// An accelerator whose transforms run on an [`NttEngine`]; the module documentation says how far it trusts it.
pub struct Offload<'m, E, A: Accelerator> {
    inner: A,
    min_limbs: u32,
    /// Primes that have a table on the engine, by position in the chain.
    served: u64,
    desk: Mutex<Desk<'m, E, A::Word>>,
    counters: Mutex<OffloadCounters>,
}

impl<'m, E: NttEngine, A: Accelerator> Offload<'m, E, A> {
    /// Words taken from the arena for this chain and engine.
    #[must_use]
    pub fn words_needed(chain: &ModulusChain, caps: &EngineCaps) -> usize {
        let served = serve(chain, caps);
        let primes = chain.moduli().iter().enumerate().filter(|&(i, _)| served >> i & 1 == 1);
        let checks: usize = primes.map(|(_, m)| Check::words_needed(m, chain.degree())).sum();
        checks + batch_size(caps) * chain.degree()
    }

    /// Loads the engine's tables and draws the secret checks from `seed`, which nothing else may use.
    ///
    /// Calls with fewer than `min_limbs` limbs that the engine can take stay with `inner`. `scratch` is one limb
    /// of N words. If the engine has fewer tables than the chain has primes, the first ordinary ones are served.
    ///
    /// # Errors
    /// [`OffloadError`].
    pub fn new(
        mut engine: E,
        inner: A,
        min_limbs: usize,
        seed: &[u8; 32],
        arena: &mut Arena<'m, u64>,
        scratch: &'m mut [A::Word],
    ) -> Result<Self, OffloadError> {
        let (chain, caps) = (inner.chain(), engine.caps());
        check(chain.degree(), scratch.len()).map_err(OffloadError::Accelerator)?;
        let served = serve(chain, &caps);
        if served == 0 || batch_size(&caps) == 0 || caps.in_flight == 0 {
            return Err(OffloadError::Engine(EngineErrorKind::Unsupported));
        }
        let need = Self::words_needed(chain, &caps);
        if arena.remaining() < need {
            return Err(OffloadError::Memory(OutOfMemory { have: arena.remaining(), need }));
        }
        let staging = arena.take(batch_size(&caps) * chain.degree()).map_err(OffloadError::Memory)?;
        let mut slots = Vec::new();
        for (prime, modulus) in chain.moduli().iter().enumerate() {
            let slot = if served >> prime & 1 == 1 {
                let index = (served & ((1 << prime) - 1)).count_ones() as u16;
                let psi =
                    modulus.primitive_root(chain.degree()).ok_or(OffloadError::Accelerator(Error::Range))?;
                let table = Table { log_n: chain.log_degree() as u8, q: modulus.value(), psi };
                engine.load_table(index, &table).map_err(|e| OffloadError::Engine(e.kind()))?;
                Some(Slot { index, table, check: Check::new(&inner, prime, seed, arena, scratch)? })
            } else {
                None
            };
            // A chain has at most MAX_LIMBS primes.
            let _ = slots.push(slot);
        }
        let desk = Mutex::new(Desk { engine, caps, slots, staging, scratch, strikes: 0 });
        let min_limbs = min_limbs.max(1) as u32;
        Ok(Self { inner, min_limbs, served, desk, counters: Mutex::default() })
    }

    /// What has happened so far.
    #[must_use]
    pub fn counters(&self) -> OffloadCounters {
        *self.counters.lock()
    }

    /// Tries the engine again after it was suspended.
    pub fn resume(&self) {
        self.desk.lock().strikes = 0;
        self.counters.lock().suspended = false;
    }

    /// The inner accelerator.
    pub fn inner(&self) -> &A {
        &self.inner
    }

    /// Runs `f` on the engine between calls, to read its clocks and counters. What `f` changes on the device
    /// can cost time, not correctness.
    pub fn with_engine<R>(&self, f: impl FnOnce(&mut E) -> R) -> R {
        f(&mut self.desk.lock().engine)
    }

    fn transform(&self, direction: Direction, basis: Basis, x: &mut [A::Limb]) -> Result<(), Error> {
        let chain = self.inner.chain();
        check(basis.len(), x.len())?;
        if !basis.fits(chain) {
            return Err(Error::Shape { have: chain.moduli().len(), need: basis.len() });
        }
        let all = (0..x.len()).fold(0_u64, |set, i| set | 1 << i);
        let served = (0..x.len()).filter(|&i| self.served >> basis.prime_index(chain, i) & 1 == 1);
        let offered = served.fold(0_u64, |set, i| set | 1 << i);
        let mut tally = OffloadCounters { limbs: x.len() as u64, ..OffloadCounters::default() };
        let mut done = 0;
        let mut declined = all;
        let mut outcome = Ok(());
        if offered.count_ones() >= self.min_limbs
            && let Some(mut desk) = self.desk.try_lock().filter(|desk| desk.strikes < PATIENCE)
        {
            declined = all & !offered;
            let mut call = Call { inner: &self.inner, direction, basis, x: &mut *x };
            outcome = desk.offload(&mut call, offered, &mut done, &mut tally);
            tally.fallbacks = (offered & !done).count_ones().into();
            desk.strikes = if tally.fallbacks == 0 { 0 } else { desk.strikes + 1 };
            tally.suspended = desk.strikes >= PATIENCE;
        }
        tally.verified = done.count_ones().into();
        tally.declined = declined.count_ones().into();
        self.counters.lock().add(&tally);
        outcome?;
        self.on_host(direction, basis, x, all & !done)
    }

    /// Transforms the limbs of a set by the inner accelerator.
    fn on_host(&self, direction: Direction, basis: Basis, x: &mut [A::Limb], set: u64) -> Result<(), Error> {
        let ordinary = basis.ordinary();
        let (runs, specials) = x.split_at_mut(ordinary);
        let mut first = 0;
        while first < ordinary {
            let run = ((set >> first).trailing_ones() as usize).min(ordinary - first);
            if run > 0 {
                let part = Basis::new(basis.start() + first, run, 0);
                apply(&self.inner, direction, part, &mut runs[first..first + run])?;
            }
            first += run.max(1);
        }
        // A basis names special primes from the first one on, so only prefixes can be transformed: limb j gets
        // what all prefixes longer than j add up to, a transform (1) if it is in the set and none (0) if not.
        let wanted = |j: usize| j < basis.special() && set >> (ordinary + j) & 1 == 1;
        for length in (1..=basis.special()).rev() {
            let direction = match (wanted(length - 1), wanted(length)) {
                (true, false) => direction,
                (false, true) => direction.reverse(),
                _ => continue,
            };
            apply(&self.inner, direction, Basis::new(0, 0, length), &mut specials[..length])?;
        }
        Ok(())
    }
}

impl OffloadCounters {
    fn add(&mut self, more: &Self) {
        self.limbs += more.limbs;
        self.verified += more.verified;
        self.fallbacks += more.fallbacks;
        self.declined += more.declined;
        self.batches += more.batches;
        self.mismatches += more.mismatches;
        self.errors += more.errors;
        self.retries += more.retries;
        self.not_ready += more.not_ready;
        self.words_sent += more.words_sent;
        self.words_received += more.words_received;
        self.suspended |= more.suspended;
    }
}

/// Which primes of a chain get a table: ordinary ones first; the special ones all or none, because the inner
/// accelerator can transform only runs that start with the first of them.
fn serve(chain: &ModulusChain, caps: &EngineCaps) -> u64 {
    let log_n = chain.log_degree() as u8;
    let (ordinary, special) = chain.moduli().split_at(chain.ordinary());
    let mut left = u32::from(caps.tables);
    let mut set = 0;
    for (i, m) in ordinary.iter().enumerate() {
        if left > 0 && caps.supports(log_n, m.value()) {
            set |= 1 << i;
            left -= 1;
        }
    }
    if special.len() <= left as usize && special.iter().all(|m| caps.supports(log_n, m.value())) {
        set = (0..special.len()).fold(set, |set, i| set | 1 << (ordinary.len() + i));
    }
    set
}

fn apply<A: Accelerator>(
    inner: &A,
    direction: Direction,
    basis: Basis,
    x: &mut [A::Limb],
) -> Result<(), Error> {
    match direction {
        Direction::Forward => inner.ntt_forward(basis, x),
        Direction::Inverse => inner.ntt_inverse(basis, x),
    }
}
