//! Seeded faults and their log.

/// A way for a board to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// One bit of one result word flips after a transform.
    BitFlip,
    /// A command never finishes.
    Stuck,
    /// One twiddle is stored wrong when a table is loaded.
    WrongTwiddle,
    /// A transform is retired without having been executed.
    Dropped,
    /// Every 64th word of a bank reads with one bit stuck at one.
    BadBank,
}

/// Which faults to inject: probabilities per command, in parts per million, and a bank that is broken for good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultPlan {
    /// [`FaultKind::BitFlip`] per transform.
    pub bit_flip: u32,
    /// [`FaultKind::Stuck`] per command.
    pub stuck: u32,
    /// [`FaultKind::WrongTwiddle`] per table load.
    pub wrong_twiddle: u32,
    /// [`FaultKind::Dropped`] per transform.
    pub dropped: u32,
    /// The bank with [`FaultKind::BadBank`].
    pub bad_bank: Option<u8>,
    /// At most this many random faults, then none; `None` is no limit.
    pub limit: Option<u32>,
}

/// One injected fault. A bad bank is logged at each read that it changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultEvent {
    /// Clock of the board.
    pub clock: u64,
    /// What happened.
    pub kind: FaultKind,
    /// The bank of the command.
    pub bank: u8,
    /// The word hit, where one was.
    pub word: usize,
}

/// Draws faults from a seed, and keeps the log.
pub(crate) struct Injector {
    plan: FaultPlan,
    state: u64,
    random: u32,
    pub(crate) log: Vec<FaultEvent>,
}

impl Injector {
    pub(crate) fn new(plan: FaultPlan, seed: u64) -> Self {
        Self { plan, state: seed, random: 0, log: Vec::new() }
    }

    pub(crate) fn plan_mut(&mut self) -> &mut FaultPlan {
        &mut self.plan
    }

    pub(crate) fn bad_bank(&self) -> Option<u8> {
        self.plan.bad_bank
    }

    /// SplitMix64.
    pub(crate) fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Whether this kind of fault strikes now.
    pub(crate) fn strikes(&mut self, kind: FaultKind) -> bool {
        let rate = match kind {
            FaultKind::BitFlip => self.plan.bit_flip,
            FaultKind::Stuck => self.plan.stuck,
            FaultKind::WrongTwiddle => self.plan.wrong_twiddle,
            FaultKind::Dropped => self.plan.dropped,
            FaultKind::BadBank => 0,
        };
        // Nothing is drawn for a rate of zero, so one kind's draws do not depend on whether others are off.
        let hit = rate > 0
            && self.plan.limit.is_none_or(|limit| self.random < limit)
            && self.draw() % 1_000_000 < u64::from(rate);
        self.random += u32::from(hit);
        hit
    }

    /// Flips a random bit, below `bits`, of a random word.
    pub(crate) fn flip(&mut self, words: &mut [u64], bits: u32) -> usize {
        let at = (self.draw() % words.len() as u64) as usize;
        words[at] ^= 1 << (self.draw() % u64::from(bits));
        at
    }
}
