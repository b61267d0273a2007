//! Seconds for a unit of every kind of work, measured on the machine that will do it.

use super::{Kernel, Work};

/// What a unit takes in one ring.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Seconds where one thread works alone, and where all of them do, in the order of [`Kernel::ALL`].
    pub unit_s: [[f64; 2]; Kernel::ALL.len()],
    /// Seconds that the call of a kernel takes besides.
    pub call_s: f64,
    /// Seconds that a dry run takes to count a kernel.
    pub bookkeeping_s: f64,
}

impl Rates {
    /// Seconds of some work.
    pub fn seconds(&self, work: &Work) -> f64 {
        let kernels = Kernel::ALL.into_iter().zip(&self.unit_s).map(|(kernel, [alone_s, shared_s])| {
            let [alone, shared] = work.units(kernel);
            alone * alone_s + shared * shared_s
        });
        kernels.sum::<f64>() + work.calls * self.call_s
    }
}
