//! What a job of the encrypted executor spends its time on.

use super::Figure;
use crate::output::cpu_seconds;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Instant;
use veilformer_engine::{Moment, Operation};

/// All operations of one kind, in one run.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Share {
    count: usize,
    seconds: f64,
    cpu_s: f64,
}

/// One kind by name.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    operation: String,
    #[serde(flatten)]
    share: Share,
}

/// Watches an algebra run after run.
pub(super) struct Tally {
    shares: BTreeMap<Operation, Share>,
    run: (Instant, f64),
    began: (Instant, f64),
    cpu: f64,
}

fn now() -> (Instant, f64) {
    (Instant::now(), cpu_seconds().unwrap_or(f64::NAN))
}

impl Default for Tally {
    fn default() -> Self {
        Self { shares: BTreeMap::new(), run: now(), began: now(), cpu: f64::INFINITY }
    }
}

impl Tally {
    /// A run begins.
    pub(super) fn start(&mut self) {
        self.shares.clear();
        self.run = now();
    }

    /// Ends a run: its seconds.
    pub(super) fn stop(&mut self) -> f64 {
        self.cpu = self.cpu.min(now().1 - self.run.1);
        self.run.0.elapsed().as_secs_f64()
    }

    /// What an algebra tells.
    pub(super) fn note(&mut self, operation: Operation, moment: Moment) {
        match moment {
            Moment::Begin => self.began = now(),
            Moment::End => {
                let share = self.shares.entry(operation).or_default();
                share.count += 1;
                share.seconds += self.began.0.elapsed().as_secs_f64();
                share.cpu_s += now().1 - self.began.1;
            }
        }
    }

    fn count(&self, operation: Operation) -> usize {
        self.shares.get(&operation).map_or(0, |share| share.count)
    }

    /// Adds processor time, bootstraps and the last run's operations, longest first.
    pub(super) fn complete(&self, figure: Figure) -> Figure {
        let mut lines: Vec<Line> = self
            .shares
            .iter()
            .map(|(operation, share)| Line { operation: format!("{operation:?}"), share: *share })
            .collect();
        lines.sort_by(|a, b| b.share.seconds.total_cmp(&a.share.seconds));
        for Line { operation, share } in &lines {
            tracing::info!(operation, share.count, share.seconds, share.cpu_s, "{}", figure.name);
        }
        let bootstraps = self.count(Operation::Bootstrap) + self.count(Operation::HalfBootstrap);
        Figure { bootstraps: Some(bootstraps), operations: lines, ..figure.cpu(self.cpu) }
    }
}
