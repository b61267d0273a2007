//! What a dry run's operations weigh, phase by phase.

use super::{Counting, Rates, Work};
use crate::{Error, Moment, Operation};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Instant;
use veilformer::ckks::{self, Ciphertext};

/// All operations of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Share {
    /// How many.
    pub count: usize,
    /// Work in both rings.
    pub work: [Work; 2],
    /// Seconds that the host took for what a dry run does like a real one.
    pub host_s: f64,
}

impl Share {
    /// Seconds, by both rings' rates.
    pub fn seconds(&self, rates: &[Rates; 2]) -> f64 {
        let kernels = self.work.iter().zip(rates).map(|(work, rates)| rates.seconds(work));
        self.host_seconds(rates) + kernels.sum::<f64>()
    }

    /// Processor seconds on so many threads, by both rings' rates.
    pub fn processor_seconds(&self, rates: &[Rates; 2], threads: usize) -> f64 {
        let kernels = self.work.iter().zip(rates).map(|(work, rates)| rates.processor_seconds(work, threads));
        self.host_seconds(rates) + kernels.sum::<f64>()
    }

    /// Seconds on the host besides kernels.
    fn host_seconds(&self, rates: &[Rates; 2]) -> f64 {
        let calls: f64 = self.work.iter().map(|work| work.calls).sum();
        (self.host_s - calls * rates[1].bookkeeping_s).max(0.0)
    }

    fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.host_s += other.host_s;
        self.work.iter_mut().zip(&other.work).for_each(|(x, y)| *x = x.plus(y));
    }
}

/// A part of a job.
#[derive(Clone, Debug)]
pub struct Phase {
    /// Its name.
    pub name: &'static str,
    /// By operation.
    pub shares: BTreeMap<Operation, Share>,
    /// What the program does between operations.
    pub between: Share,
    /// Bootstraps, in the order of the program.
    pub bootstraps: Vec<Stand>,
}

/// Why a job cannot work, and where in the program.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// The phase, if one had begun.
    pub phase: Option<&'static str>,
    /// The operation of the program.
    pub operation: String,
    /// What is wrong.
    pub error: Error,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self { phase: None, operation: String::new(), error }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.phase {
            Some(phase) if phase == self.operation => write!(f, "{phase}: {}", self.error),
            Some(phase) => write!(f, "{phase}, {}: {}", self.operation, self.error),
            None => self.error.fmt(f),
        }
    }
}

impl std::error::Error for Refusal {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

/// Bootstraps before one operation of the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stand {
    /// The operation.
    pub operation: String,
    /// Of all slots.
    pub full: usize,
    /// Of half of them.
    pub half: usize,
}

impl Phase {
    fn new(name: &'static str) -> Self {
        Self { name, shares: BTreeMap::new(), between: Share::default(), bootstraps: Vec::new() }
    }

    fn bootstrapped(&mut self, operation: &str, full: bool) {
        if self.bootstraps.last().is_none_or(|stand| stand.operation != operation) {
            self.bootstraps.push(Stand { operation: operation.to_owned(), full: 0, half: 0 });
        }
        if let Some(stand) = self.bootstraps.last_mut() {
            *(if full { &mut stand.full } else { &mut stand.half }) += 1;
        }
    }

    /// All of it.
    pub fn total(&self) -> Share {
        let mut total = self.between;
        self.shares.values().for_each(|share| total.add(share));
        total
    }
}

/// Keeps a dry run's books.
pub struct Recorder<'c> {
    accelerators: &'c [Counting; 2],
    state: RefCell<State>,
}

struct State {
    phases: Vec<Phase>,
    operation: String,
    since: Instant,
    work: [Work; 2],
}

impl<'c> Recorder<'c> {
    pub(super) fn new(accelerators: &'c [Counting; 2]) -> Self {
        let state = State {
            phases: Vec::new(),
            operation: String::new(),
            since: Instant::now(),
            work: Default::default(),
        };
        Self { accelerators, state: state.into() }
    }

    /// What a client sends: a ciphertext of the big ring.
    ///
    /// # Errors
    /// Out of limbs; no such level.
    pub fn sent(&self, level: usize) -> Result<Ciphertext<Counting>, ckks::Error> {
        Ciphertext::zero(&self.accelerators[0], level)
    }

    /// A phase begins, and the last one ends.
    pub fn phase(&self, name: &'static str) {
        self.end(None);
        let mut state = self.state.borrow_mut();
        state.phases.push(Phase::new(name));
        state.operation = name.to_owned();
    }

    /// An operation of the program begins.
    pub(super) fn at(&self, operation: String) {
        self.state.borrow_mut().operation = operation;
    }

    /// Where an error came up.
    pub(super) fn refusal(&self, error: Error) -> Refusal {
        let state = self.state.borrow();
        let phase = state.phases.last().map(|phase| phase.name);
        Refusal { phase, operation: state.operation.clone(), error }
    }

    /// What an algebra tells.
    pub(super) fn note(&self, operation: Operation, moment: Moment) {
        self.end((moment == Moment::End).then_some(operation));
    }

    /// Books what has been done since the last call to an operation, or to what lies between.
    fn end(&self, operation: Option<Operation>) {
        let state = &mut *self.state.borrow_mut();
        let (now, work) = (Instant::now(), [0, 1].map(|i: usize| self.accelerators[i].work()));
        let share = Share {
            count: usize::from(operation.is_some()),
            work: [0, 1].map(|i: usize| work[i].since(&state.work[i])),
            host_s: now.duration_since(state.since).as_secs_f64(),
        };
        if let Some(phase) = state.phases.last_mut() {
            if let Some(Operation::Bootstrap | Operation::HalfBootstrap) = operation {
                phase.bootstrapped(&state.operation, operation == Some(Operation::Bootstrap));
            }
            match operation {
                Some(operation) => phase.shares.entry(operation).or_default().add(&share),
                None => phase.between.add(&share),
            }
        }
        (state.since, state.work) = (Instant::now(), work);
    }

    pub(super) fn finish(&self) -> Vec<Phase> {
        self.end(None);
        std::mem::take(&mut self.state.borrow_mut().phases)
    }
}
