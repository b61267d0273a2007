//! How far a job of many encrypted operations came.

use crate::output::Output;
use indicatif::ProgressBar;
use veilformer_engine::{Moment, Operation};

/// A job of equal parts, on a bar.
pub(crate) struct Progress {
    bar: ProgressBar,
    /// Of a part.
    operations: u64,
}

impl Progress {
    /// Parts of so many operations each.
    pub(crate) fn new(output: Output, what: &'static str, operations: u64) -> Self {
        Self { bar: output.progress(what, operations), operations }
    }

    /// What counts operations.
    pub(crate) fn observer(&self) -> impl FnMut(Operation, Moment) + '_ {
        |operation, moment| {
            tracing::debug!(?operation, ?moment);
            if moment == Moment::End {
                self.bar.inc(1);
            }
        }
    }

    /// The first of so many parts begins; what came before does not count.
    pub(crate) fn begin(&self, parts: usize) {
        self.bar.set_length(self.operations * parts as u64);
        self.bar.reset();
    }

    /// So many parts are done.
    pub(crate) fn done(&self, parts: usize) {
        self.bar.set_position(self.operations * parts as u64);
    }

    /// Says something between parts.
    pub(crate) fn say(&self, output: Output, text: String) {
        self.bar.suspend(|| output.say(text));
    }

    /// The job is done.
    pub(crate) fn finish(self) {
        self.bar.finish_and_clear();
    }
}
