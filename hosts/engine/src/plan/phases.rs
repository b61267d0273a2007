//! What a dry run's operations weigh, phase by phase.

use super::{Counting, Rates, Work};
use crate::{Moment, Operation};
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
        let calls: f64 = self.work.iter().map(|work| work.calls).sum();
        let host = (self.host_s - calls * rates[1].bookkeeping_s).max(0.0);
        host + self.work.iter().zip(rates).map(|(work, rates)| rates.seconds(work)).sum::<f64>()
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
}

impl Phase {
    fn new(name: &'static str) -> Self {
        Self { name, shares: BTreeMap::new(), between: Share::default() }
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
    since: Instant,
    work: [Work; 2],
}

impl<'c> Recorder<'c> {
    pub(super) fn new(accelerators: &'c [Counting; 2]) -> Self {
        let state = State { phases: Vec::new(), since: Instant::now(), work: Default::default() };
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
        self.state.borrow_mut().phases.push(Phase::new(name));
    }

    /// What an algebra tells.
    pub(super) fn note(&self, operation: Operation, moment: Moment) {
        self.end((moment == Moment::End).then_some(operation));
    }

    /// Books what has been done since the last call to an operation, or to what lies between.
    fn end(&self, operation: Option<Operation>) {
        let mut state = self.state.borrow_mut();
        let (now, work) = (Instant::now(), [0, 1].map(|i: usize| self.accelerators[i].work()));
        let share = Share {
            count: usize::from(operation.is_some()),
            work: [0, 1].map(|i: usize| work[i].since(&state.work[i])),
            host_s: now.duration_since(state.since).as_secs_f64(),
        };
        if let Some(phase) = state.phases.last_mut() {
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
