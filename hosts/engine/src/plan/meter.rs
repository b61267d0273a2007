//! What a dry run of one ring adds up: limbs alive, and work by kind.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Kinds of work. A unit is one limb of N words unless said otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kernel {
    /// A number theoretic transform, either way.
    Transform,
    /// Words read or written.
    Stream,
    /// A product word by word, without its memory.
    Product,
    /// An automorphism.
    Permutation,
    /// A source of a basis conversion made ready.
    Scaling,
    /// A source of a basis conversion added to one target.
    Combination,
    /// A digit times one limb of a key, added up.
    KeyTerm,
    /// A term of the fused sums of a transform: a digit times a key, or what was rotated times a diagonal.
    Hoisted,
    /// A multiply-accumulate of a product with plaintext weights.
    MatrixTerm,
    /// A term of a sum over odd powers.
    PowerTerm,
}

impl Kernel {
    /// All of them, in the order of [`Work`].
    pub const ALL: [Self; 10] = [
        Self::Transform,
        Self::Stream,
        Self::Product,
        Self::Permutation,
        Self::Scaling,
        Self::Combination,
        Self::KeyTerm,
        Self::Hoisted,
        Self::MatrixTerm,
        Self::PowerTerm,
    ];
}

/// Work by kind: units that one thread does alone, and units that all threads share.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    alone: [f64; Kernel::ALL.len()],
    shared: [f64; Kernel::ALL.len()],
    /// Kernels that were called.
    pub calls: f64,
    /// Times that work was handed out to other threads.
    pub forks: f64,
}

impl Work {
    /// Units of a kind: alone, and shared.
    pub fn units(&self, kernel: Kernel) -> [f64; 2] {
        [self.alone[kernel as usize], self.shared[kernel as usize]]
    }

    /// The difference to an earlier state.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        self.combine(earlier, |x, y| x - y)
    }

    /// The sum of both.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        self.combine(other, |x, y| x + y)
    }

    fn combine(&self, other: &Self, f: impl Fn(f64, f64) -> f64) -> Self {
        let each = |x: &[f64; Kernel::ALL.len()], y: &[f64; Kernel::ALL.len()]| {
            core::array::from_fn(|i| f(x[i], y[i]))
        };
        Self {
            alone: each(&self.alone, &other.alone),
            shared: each(&self.shared, &other.shared),
            calls: f(self.calls, other.calls),
            forks: f(self.forks, other.forks),
        }
    }
}

/// Adds up limbs and work. Shared by all limbs of a ring, which give themselves back when dropped.
#[derive(Debug)]
pub(super) struct Meter {
    threads: usize,
    capacity: usize,
    live: AtomicUsize,
    peak: AtomicUsize,
    /// The most since the current item of a loop over independent items began.
    item: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    work: Work,
    /// In a loop over independent items: how much longer it takes than its work spread evenly.
    spread: Option<f64>,
}

impl Meter {
    /// For so many threads and limbs.
    pub(super) fn new(threads: usize, capacity: usize) -> Self {
        Self {
            threads: threads.max(1),
            capacity,
            live: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            item: AtomicUsize::new(0),
            state: Mutex::default(),
        }
    }

    pub(super) fn threads(&self) -> usize {
        self.threads
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(super) fn live(&self) -> usize {
        self.live.load(Relaxed)
    }

    pub(super) fn peak(&self) -> usize {
        self.peak.load(Relaxed)
    }

    /// A limb more, unless there is none left.
    pub(super) fn take(&self) -> bool {
        let live = self.live.fetch_add(1, Relaxed) + 1;
        if live > self.capacity {
            self.give();
            return false;
        }
        self.note(live);
        true
    }

    /// A limb less.
    pub(super) fn give(&self) {
        self.live.fetch_sub(1, Relaxed);
    }

    /// Limbs that a kernel takes while it runs; whether there are as many.
    pub(super) fn scratch(&self, limbs: usize) -> bool {
        let most = self.live() + limbs;
        self.note(most);
        most <= self.capacity
    }

    fn note(&self, live: usize) {
        self.peak.fetch_max(live, Relaxed);
        self.item.fetch_max(live, Relaxed);
    }

    /// Work on `items` of `words` words altogether that can be shared among threads.
    pub(super) fn work(&self, items: usize, words: usize, units: &[(Kernel, f64)]) {
        let Ok(mut state) = self.state.lock() else { return };
        state.work.calls += 1.0;
        let threads = self.threads;
        let uneven = |items: usize| (items.div_ceil(threads) * threads) as f64 / items.max(1) as f64;
        let factor = match state.spread {
            Some(factor) => Some(factor),
            None if threads > 1 && items > 1 && words >= super::counting::PARALLEL_WORDS => {
                state.work.forks += 1.0;
                Some(uneven(items))
            }
            None => None,
        };
        for &(kernel, units) in units {
            match factor {
                Some(factor) => state.work.shared[kernel as usize] += units * factor,
                None => state.work.alone[kernel as usize] += units,
            }
        }
    }

    /// All work so far.
    pub(super) fn total(&self) -> Work {
        self.state.lock().map_or_else(|_| Work::default(), |state| state.work)
    }

    /// Runs `f` on every item of a loop whose items are independent: one after the other here, on all threads there, so
    /// that as many items at once take what one takes besides what it leaves.
    pub(super) fn each<T, E>(
        &self,
        items: &mut [T],
        f: impl Fn(usize, &mut T) -> Result<(), E>,
    ) -> Result<(), E> {
        let (count, threads) = (items.len(), self.threads);
        let outermost =
            count > 1 && threads > 1 && self.enter((count.div_ceil(threads) * threads) as f64 / count as f64);
        let together = if outermost { threads.min(count) } else { 1 };
        let result = items.iter_mut().enumerate().try_for_each(|(i, item)| {
            let before = self.live();
            if outermost {
                self.item.store(before, Relaxed);
            }
            f(i, item)?;
            if outermost {
                let after = self.live().max(before);
                let besides = self.item.load(Relaxed).saturating_sub(after);
                self.peak.fetch_max(after + together * besides, Relaxed);
            }
            Ok(())
        });
        if outermost && let Ok(mut state) = self.state.lock() {
            state.spread = None;
        }
        result
    }

    fn enter(&self, factor: f64) -> bool {
        let Ok(mut state) = self.state.lock() else { return false };
        let outermost = state.spread.is_none();
        state.work.forks += f64::from(u8::from(outermost));
        state.spread.get_or_insert(factor);
        outermost
    }
}
