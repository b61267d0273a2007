//! The board: banks, tables, command queue, clock.

use veilformer_fpga::regmap::{
    bank, command, control, cycles_hi, cycles_lo, device, fault, magic, opcode, params, queue, shape, status,
    stores, tail, version,
};
use veilformer_fpga::{BusError, BusErrorKind, RegisterBus};

use crate::fault::{FaultEvent, FaultKind, FaultPlan, Injector};
use crate::math;

/// Clocks per thing. The link runs beside the pipeline: while words are moved, commands execute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Clocks that pass during one register access.
    pub access: u64,
    /// Clocks that pass while one word is moved.
    pub word: u64,
    /// Butterflies per clock.
    pub butterflies: u64,
    /// Clocks a stage of a transform takes beyond its N/2 butterflies: filling and draining the pipeline.
    pub stage_overhead: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self { access: 64, word: 1, butterflies: 1, stage_overhead: 9 }
    }
}

impl Timing {
    /// Clocks of one transform.
    #[must_use]
    pub fn transform(&self, log_n: u8) -> u64 {
        let stage = (1_u64 << log_n >> 1).div_ceil(self.butterflies.max(1));
        u64::from(log_n) * (stage + self.stage_overhead)
    }
}

/// What the board is built with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BoardConfig {
    /// Smallest `log2 N`.
    pub min_log_n: u8,
    /// Largest `log2 N`.
    pub max_log_n: u8,
    /// Moduli are below `2^modulus_bits`.
    pub modulus_bits: u8,
    /// Data banks.
    pub banks: u8,
    /// Twiddle tables.
    pub tables: u8,
    /// Command slots, a power of two.
    pub queue_depth: u8,
    /// Clocks per thing.
    pub timing: Timing,
    /// Faults to inject.
    pub faults: FaultPlan,
    /// Seed of the faults.
    pub seed: u64,
}

impl Default for BoardConfig {
    fn default() -> Self {
        Self {
            min_log_n: 10,
            max_log_n: 13,
            modulus_bits: 62,
            banks: 8,
            tables: 16,
            queue_depth: 8,
            timing: Timing::default(),
            faults: FaultPlan::default(),
            seed: 0,
        }
    }
}

/// What a driver did wrong. A real board would not say; a model should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoardError {
    /// Nothing at this address, or not this way.
    Unmapped {
        /// The address.
        address: u32,
    },
    /// Not aligned to the access.
    Unaligned {
        /// The address.
        address: u32,
    },
    /// A queued command works on this bank.
    BankInUse {
        /// The bank.
        bank: u8,
    },
}

impl BusError for BoardError {
    fn kind(&self) -> BusErrorKind {
        BusErrorKind::Address
    }
}

/// A loaded table: plain twiddles.
struct Table {
    q: u64,
    log_n: u8,
    twiddles: Vec<u64>,
}

/// What a command does, with the parameters it latched when it started.
#[derive(Clone, Copy)]
enum Work {
    Load { q: u64, log_n: u8 },
    Transform { forward: bool, log_n: u8 },
}

/// The command in the pipeline.
#[derive(Clone, Copy)]
struct Running {
    bank: usize,
    table: usize,
    work: Work,
    /// Clock of its end; `None`: never.
    end: Option<u64>,
    cost: u64,
    dropped: bool,
}

/// An NTT board. Time passes only while it is accessed.
pub struct Board {
    config: BoardConfig,
    clock: u64,
    /// When the pipeline became free.
    free_at: u64,
    cycles: u64,
    cycles_latch: u32,
    head: u16,
    tail: u16,
    fault: u32,
    slots: Vec<u32>,
    running: Option<Running>,
    params: Vec<[u32; (params::STRIDE / 4) as usize]>,
    tables: Vec<Option<Table>>,
    banks: Vec<Vec<u64>>,
    injector: Injector,
}

impl Board {
    /// A board with zeroed banks and no tables.
    #[must_use]
    pub fn new(config: BoardConfig) -> Self {
        Self {
            config,
            clock: 0,
            free_at: 0,
            cycles: 0,
            cycles_latch: 0,
            head: 0,
            tail: 0,
            fault: 0,
            slots: vec![0; config.queue_depth.into()],
            running: None,
            params: vec![[0; (params::STRIDE / 4) as usize]; config.tables.into()],
            tables: (0..config.tables).map(|_| None).collect(),
            banks: vec![vec![0; 1 << config.max_log_n]; config.banks.into()],
            injector: Injector::new(config.faults, config.seed),
        }
    }

    /// Clocks since power on.
    #[must_use]
    pub fn clock(&self) -> u64 {
        self.clock
    }

    /// Lets time pass, as a host does that looks elsewhere.
    pub fn idle(&mut self, clocks: u64) {
        self.clock += clocks;
        self.advance();
    }

    /// Every fault injected so far.
    #[must_use]
    pub fn fault_log(&self) -> &[FaultEvent] {
        &self.injector.log
    }

    /// The faults to inject from now on.
    pub fn faults(&mut self) -> &mut FaultPlan {
        self.injector.plan_mut()
    }

    /// Runs the queue up to the present clock.
    fn advance(&mut self) {
        while self.fault == 0 {
            let Some(running) = self.running else {
                if self.head == self.tail {
                    self.free_at = self.clock;
                    return;
                }
                self.launch();
                continue;
            };
            match running.end {
                Some(end) if end <= self.clock => self.retire(running, end),
                _ => return,
            }
        }
    }

    fn word_at(&self, index: u16) -> u32 {
        self.slots[usize::from(index) % self.slots.len()]
    }

    fn log(&mut self, kind: FaultKind, bank: u8, word: usize) {
        self.injector.log.push(FaultEvent { clock: self.clock, kind, bank, word });
    }

    /// Starts the command at the head, or stops with a fault.
    fn launch(&mut self) {
        let word = self.word_at(self.head);
        let (bank, table) = (command::BANK.of(word) as usize, command::TABLE.of(word) as usize);
        let work = match self.decode(command::OPCODE.of(word), bank, table) {
            Ok(work) => work,
            Err(fault) => {
                self.fault = fault;
                return;
            }
        };
        let cost = match work {
            Work::Load { log_n, .. } => 1 << log_n,
            Work::Transform { log_n, .. } => self.config.timing.transform(log_n),
        };
        let stuck = self.injector.strikes(FaultKind::Stuck);
        if stuck {
            self.log(FaultKind::Stuck, bank as u8, 0);
        }
        let transforms = matches!(work, Work::Transform { .. });
        let dropped = transforms && !stuck && self.injector.strikes(FaultKind::Dropped);
        if dropped {
            self.log(FaultKind::Dropped, bank as u8, 0);
        }
        let end = (!stuck).then_some(self.free_at + cost);
        self.running = Some(Running { bank, table, work, end, cost, dropped });
    }

    /// What a command asks for, or bits of the fault register.
    fn decode(&self, op: u32, bank: usize, table: usize) -> Result<Work, u32> {
        let no_table = fault::TABLE.mask();
        let work = match op {
            opcode::LOAD_TABLE => self
                .params
                .get(table)
                .ok_or(no_table)
                .and_then(|p| self.checked(p).ok_or(fault::PARAMS.mask())),
            opcode::NTT_FORWARD | opcode::NTT_INVERSE => {
                let loaded = self.tables.get(table).and_then(Option::as_ref).ok_or(no_table);
                loaded.map(|t| Work::Transform { forward: op == opcode::NTT_FORWARD, log_n: t.log_n })
            }
            _ => Err(fault::OPCODE.mask()),
        };
        if bank < self.banks.len() { work } else { Err(fault::BANK.mask() | work.err().unwrap_or(0)) }
    }

    fn checked(&self, params: &[u32; 8]) -> Option<Work> {
        let (q, neg_q_inv, log_n) = unpack(params);
        let c = &self.config;
        let good = q & 1 == 1
            && q >> c.modulus_bits == 0
            && q.wrapping_mul(neg_q_inv) == u64::MAX
            && (u32::from(c.min_log_n)..=u32::from(c.max_log_n)).contains(&log_n);
        good.then_some(Work::Load { q, log_n: log_n as u8 })
    }

    /// Ends the running command at clock `end`: its effects appear.
    fn retire(&mut self, running: Running, end: u64) {
        match running.work {
            Work::Load { q, log_n } => self.load(running.bank, running.table, q, log_n),
            Work::Transform { .. } if running.dropped => {}
            Work::Transform { forward, .. } => self.transform(running.bank, running.table, forward),
        }
        self.cycles += running.cost;
        self.free_at = end;
        self.running = None;
        self.head = self.head.wrapping_add(1);
    }

    fn load(&mut self, at: usize, slot: usize, q: u64, log_n: u8) {
        // The pipeline multiplies by w and divides by 2^64; the model undoes the form once.
        let r_inv = math::pow(math::pow(2, 64, q), q - 2, q);
        let mut twiddles: Vec<u64> =
            self.banks[at][..1 << log_n].iter().map(|&w| math::mul(w, r_inv, q)).collect();
        if self.injector.strikes(FaultKind::WrongTwiddle) {
            // Word 0 is never used by a butterfly.
            let word = 1 + self.injector.flip(&mut twiddles[1..], u64::BITS - q.leading_zeros() - 1);
            self.log(FaultKind::WrongTwiddle, at as u8, word);
        }
        self.tables[slot] = Some(Table { q, log_n, twiddles });
    }

    fn transform(&mut self, at: usize, slot: usize, forward: bool) {
        let Some(table) = &self.tables[slot] else { return };
        let words = &mut self.banks[at][..1 << table.log_n];
        for word in words.iter_mut() {
            *word %= table.q;
        }
        if forward {
            math::forward(words, &table.twiddles, table.q);
        } else {
            math::inverse(words, &table.twiddles, table.q);
        }
        if self.injector.strikes(FaultKind::BitFlip) {
            let word = self.injector.flip(words, u64::BITS);
            self.log(FaultKind::BitFlip, at as u8, word);
        }
    }

    fn write_tail(&mut self, value: u32) {
        let posted = value as u16;
        let ahead = posted.wrapping_sub(self.head);
        if usize::from(ahead) > self.slots.len() || ahead < self.tail.wrapping_sub(self.head) {
            self.fault |= fault::OVERFLOW.mask();
        } else {
            self.tail = posted;
        }
    }

    fn write_control(&mut self, value: u32) {
        if control::RESET.of(value) != 0 {
            (self.head, self.tail, self.fault) = (0, 0, 0);
            self.running = None;
            self.free_at = self.clock;
        }
        if control::CLEAR_COUNTERS.of(value) != 0 {
            self.cycles = 0;
        }
    }

    fn status(&self) -> u32 {
        status::HEAD.with(self.head.into())
            | status::BUSY.with(self.running.is_some().into())
            | status::FAULT.with((self.fault != 0).into())
    }

    /// Bank and first word of a run of `words` words, if it lies inside one bank no command is using.
    fn span(&self, address: u32, words: usize) -> Result<(usize, usize), BoardError> {
        if !address.is_multiple_of(8) {
            return Err(BoardError::Unaligned { address });
        }
        let offset = address.checked_sub(bank::ADDRESS).ok_or(BoardError::Unmapped { address })?;
        let (at, word) = ((offset / bank::STRIDE) as usize, (offset % bank::STRIDE / 8) as usize);
        if at >= self.banks.len() || word + words > self.banks[at].len() {
            return Err(BoardError::Unmapped { address });
        }
        let pending = self.tail.wrapping_sub(self.head);
        let uses = |i| command::BANK.of(self.word_at(self.head.wrapping_add(i))) as usize == at;
        if (0..pending).any(uses) {
            return Err(BoardError::BankInUse { bank: at as u8 });
        }
        Ok((at, word))
    }

    /// Place of an address inside a window of 32-bit words: entry and word of the entry.
    fn place(address: u32, base: u32, stride: u32, count: usize) -> Option<(usize, usize)> {
        let offset = address.checked_sub(base)?;
        let entry = (offset / stride) as usize;
        (entry < count).then_some((entry, (offset % stride / 4) as usize))
    }

    fn params_at(&mut self, address: u32) -> Option<&mut u32> {
        let count = self.params.len();
        let (entry, word) = Self::place(address, params::ADDRESS, params::STRIDE, count)?;
        self.params[entry].get_mut(word)
    }
}

impl RegisterBus for Board {
    type Error = BoardError;

    fn read32(&mut self, address: u32) -> Result<u32, BoardError> {
        self.idle(self.config.timing.access);
        let c = self.config;
        Ok(match address {
            magic::ADDRESS => device::MAGIC,
            version::ADDRESS => {
                version::MAJOR.with(device::VERSION_MAJOR) | version::MINOR.with(device::VERSION_MINOR)
            }
            shape::ADDRESS => {
                shape::MIN_LOG_N.with(c.min_log_n.into())
                    | shape::MAX_LOG_N.with(c.max_log_n.into())
                    | shape::MODULUS_BITS.with(c.modulus_bits.into())
                    | shape::WORD_BYTES.with(device::WORD_BYTES)
            }
            stores::ADDRESS => {
                stores::BANKS.with(c.banks.into())
                    | stores::TABLES.with(c.tables.into())
                    | stores::QUEUE_DEPTH.with(c.queue_depth.into())
            }
            status::ADDRESS => self.status(),
            tail::ADDRESS => self.tail.into(),
            fault::ADDRESS => self.fault,
            cycles_lo::ADDRESS => {
                self.cycles_latch = (self.cycles >> 32) as u32;
                self.cycles as u32
            }
            cycles_hi::ADDRESS => self.cycles_latch,
            _ if !address.is_multiple_of(4) => return Err(BoardError::Unaligned { address }),
            _ => *self.params_at(address).ok_or(BoardError::Unmapped { address })?,
        })
    }

    fn write32(&mut self, address: u32, value: u32) -> Result<(), BoardError> {
        self.idle(self.config.timing.access);
        match address {
            control::ADDRESS => self.write_control(value),
            tail::ADDRESS => self.write_tail(value),
            _ if !address.is_multiple_of(4) => return Err(BoardError::Unaligned { address }),
            _ => match Self::place(address, queue::ADDRESS, queue::STRIDE, self.slots.len()) {
                Some((entry, _)) => self.slots[entry] = value,
                None => *self.params_at(address).ok_or(BoardError::Unmapped { address })? = value,
            },
        }
        self.advance();
        Ok(())
    }

    fn read_words(&mut self, address: u32, words: &mut [u64]) -> Result<(), BoardError> {
        let (at, first) = self.span(address, words.len())?;
        words.copy_from_slice(&self.banks[at][first..first + words.len()]);
        if self.injector.bad_bank() == Some(at as u8) {
            const STUCK: u64 = 1 << 7;
            for (i, word) in words.iter_mut().enumerate() {
                if (first + i) % 64 == 5 && *word & STUCK == 0 {
                    *word |= STUCK;
                    self.log(FaultKind::BadBank, at as u8, first + i);
                }
            }
        }
        self.idle(self.config.timing.word * words.len() as u64);
        Ok(())
    }

    fn write_words(&mut self, address: u32, words: &[u64]) -> Result<(), BoardError> {
        let (at, first) = self.span(address, words.len())?;
        self.banks[at][first..first + words.len()].copy_from_slice(words);
        self.idle(self.config.timing.word * words.len() as u64);
        Ok(())
    }
}

/// Modulus, `-1/q mod 2^64` and `log2 N` of a table's parameters.
fn unpack(p: &[u32; 8]) -> (u64, u64, u32) {
    let at = |offset: u32| p[(offset / 4) as usize];
    let wide = |lo, hi| u64::from(at(lo)) | u64::from(at(hi)) << 32;
    let q = wide(params::Q_LO, params::Q_HI);
    (q, wide(params::NEG_Q_INV_LO, params::NEG_Q_INV_HI), at(params::LOG_N))
}
