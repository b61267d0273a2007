//! How far a job of many encrypted operations came.

use crate::output::Output;
use indicatif::ProgressBar;
use std::cell::Cell;
use veilformer_engine::{Moment, Operation};

/// A job of equal parts, on a bar. The first part tells how many operations the others will take.
pub(crate) struct Progress {
    bar: ProgressBar,
    /// Of the part that is under way.
    operations: Cell<u64>,
}

impl Progress {
    pub(crate) fn new(output: Output, what: &'static str) -> Self {
        Self { bar: output.progress(what, 0), operations: Cell::new(0) }
    }

    /// What counts operations.
    pub(crate) fn observer(&self) -> impl FnMut(Operation, Moment) + '_ {
        |operation, moment| {
            tracing::debug!(?operation, ?moment);
            if moment == Moment::End {
                self.operations.set(self.operations.get() + 1);
                self.bar.inc(1);
            }
        }
    }

    /// A part begins.
    pub(crate) fn begin(&self) {
        self.operations.set(0);
    }

    /// A part has ended: so many are done, of so many.
    pub(crate) fn end(&self, done: usize, parts: usize) {
        let each = self.operations.get();
        self.bar.set_length(each * parts as u64);
        self.bar.set_position(each * done as u64);
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
