//! `BoardDriver`: an [`NttEngine`] over any [`RegisterBus`].
//!
//! The board's banks are split in two halves; a batch fills one half while the other computes. Commands are
//! posted as soon as their limb has arrived, as far as the queue has room; the rest follow from `poll`, which
//! costs one register read when nothing has changed.

use core::task::Poll;

use heapless::Deque;
use veilformer::accel::engine::{Direction, EngineCaps, Limb, NttEngine, Table, Ticket};

use crate::montgomery::{CHUNK, Twiddles};
use crate::regmap::{Field, cycles_hi, cycles_lo, tail, version};
use crate::regmap::{
    bank, command, control, device, fault, magic, opcode, params, queue, shape, status, stores,
};
use crate::{DriverError, RegisterBus};

/// Most limbs in a batch, however many banks the board has.
pub const MAX_BATCH: usize = 16;
/// Most tables used, however many the board has.
pub const MAX_TABLES: usize = 64;
/// Batches in flight: one in each half of the banks.
const HALVES: usize = 2;

/// What the board says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Info {
    /// Minor version of the register map; the major version is this crate's.
    pub minor: u16,
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
    /// Command slots.
    pub queue_depth: u8,
}

/// What has crossed the bus since the driver was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Traffic {
    /// 64-bit words sent to banks, twiddles included.
    pub words_written: u64,
    /// 64-bit words read from banks.
    pub words_read: u64,
    /// 32-bit registers written.
    pub registers_written: u64,
    /// 32-bit registers read.
    pub registers_read: u64,
    /// Commands posted.
    pub commands: u64,
}

/// A batch in flight.
struct Batch {
    ticket: Ticket,
    /// Which half of the banks it owns.
    half: usize,
    limbs: usize,
    log_n: [u8; MAX_BATCH],
    commands: [u32; MAX_BATCH],
    posted: usize,
    /// Value of `tail` after its last command, once that is posted.
    end: u16,
}

/// The driver of one board.
pub struct BoardDriver<B> {
    bus: B,
    info: Info,
    /// Polls without progress after which a batch is given up.
    deadline: u32,
    stalled: u32,
    /// Counters of the queue, as last seen (`head`) and as last written (`tail`).
    head: u16,
    tail: u16,
    batches: Deque<Batch, HALVES>,
    next_ticket: u32,
    /// `log2 N` of each loaded table.
    tables: [Option<u8>; MAX_TABLES],
    lost: bool,
    traffic: Traffic,
}

impl<B: RegisterBus> BoardDriver<B> {
    /// Opens a board: checks what it is, reads its limits and resets it. A batch is given up after `deadline`
    /// consecutive polls in which nothing was retired, so `deadline` polls must take longer than the longest
    /// command: on a board with one butterfly per clock, N/2·log2 N clocks at the largest N.
    ///
    /// # Errors
    /// [`DriverError::Magic`], [`DriverError::Version`], [`DriverError::Info`] for what is not such a board,
    /// [`DriverError::Bus`] if the link fails.
    pub fn open(mut bus: B, deadline: u32) -> Result<Self, DriverError<B::Error>> {
        let info = read_info(&mut bus)?;
        let mut driver = Self {
            bus,
            info,
            deadline: deadline.max(1),
            stalled: 0,
            head: 0,
            tail: 0,
            batches: Deque::new(),
            next_ticket: 0,
            tables: [None; MAX_TABLES],
            lost: false,
            traffic: Traffic::default(),
        };
        driver.reset()?;
        Ok(driver)
    }

    /// What the board says of itself.
    #[must_use]
    pub fn info(&self) -> Info {
        self.info
    }

    /// What has crossed the bus.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// Clocks the board has spent on commands since it started.
    ///
    /// # Errors
    /// [`DriverError::Bus`].
    pub fn cycles(&mut self) -> Result<u64, DriverError<B::Error>> {
        let low = self.read(cycles_lo::ADDRESS)?;
        let high = self.read(cycles_hi::ADDRESS)?;
        Ok(u64::from(high) << 32 | u64::from(low))
    }

    /// The bus, for whatever else hangs on it. Writing to the board behind the driver's back loses batches.
    pub fn bus(&mut self) -> &mut B {
        &mut self.bus
    }

    /// Gives the bus back; batches in flight are forgotten.
    #[must_use]
    pub fn release(self) -> B {
        self.bus
    }

    fn half_size(&self) -> usize {
        (usize::from(self.info.banks) / HALVES).clamp(1, MAX_BATCH)
    }

    fn halves(&self) -> usize {
        if self.info.banks >= 2 { HALVES } else { 1 }
    }

    fn table_slots(&self) -> usize {
        usize::from(self.info.tables).min(MAX_TABLES)
    }

    fn table(&self, slot: u16) -> Option<u8> {
        self.tables.get(usize::from(slot)).copied().flatten()
    }

    fn read(&mut self, address: u32) -> Result<u32, DriverError<B::Error>> {
        self.traffic.registers_read += 1;
        self.bus.read32(address).map_err(DriverError::Bus)
    }

    fn write(&mut self, address: u32, value: u32) -> Result<(), DriverError<B::Error>> {
        self.traffic.registers_written += 1;
        self.bus.write32(address, value).map_err(DriverError::Bus)
    }

    fn write_words(&mut self, address: u32, words: &[u64]) -> Result<(), DriverError<B::Error>> {
        self.traffic.words_written += words.len() as u64;
        self.bus.write_words(address, words).map_err(DriverError::Bus)
    }

    /// Room in the command queue, by the last head seen.
    fn room(&self) -> usize {
        usize::from(self.info.queue_depth) - usize::from(self.tail.wrapping_sub(self.head))
    }

    /// Fills the next queue slot; `publish` makes it visible. The caller knows there is room.
    fn enqueue(&mut self, word: u32) -> Result<(), DriverError<B::Error>> {
        let slot = u32::from(self.tail) & (u32::from(self.info.queue_depth) - 1);
        self.write(queue::ADDRESS + slot * queue::STRIDE, word)?;
        self.tail = self.tail.wrapping_add(1);
        self.traffic.commands += 1;
        Ok(())
    }

    fn publish(&mut self) -> Result<(), DriverError<B::Error>> {
        self.write(tail::ADDRESS, u32::from(self.tail))
    }

    /// Posts commands of waiting batches, oldest first, while the queue has room.
    fn pump(&mut self) -> Result<(), DriverError<B::Error>> {
        let before = self.tail;
        for at in 0..HALVES {
            while self.room() > 0 {
                let Some(batch) = self.batches.iter_mut().nth(at).filter(|b| b.posted < b.limbs) else {
                    break;
                };
                let word = batch.commands[batch.posted];
                batch.posted += 1;
                batch.end = self.tail.wrapping_add(1);
                self.enqueue(word)?;
            }
        }
        if self.tail != before { self.publish() } else { Ok(()) }
    }

    /// Reads the status: whether the head moved.
    fn observe(&mut self) -> Result<bool, DriverError<B::Error>> {
        let now = self.read(status::ADDRESS)?;
        if status::FAULT.of(now) != 0 {
            let bits = self.read(fault::ADDRESS)?;
            return Err(DriverError::Fault { bits });
        }
        let head = status::HEAD.of(now) as u16;
        let moved = head.wrapping_sub(self.head);
        if moved > self.tail.wrapping_sub(self.head) {
            return Err(DriverError::Head { found: head, tail: self.tail });
        }
        self.head = head;
        if moved != 0 {
            self.stalled = 0;
            return Ok(true);
        }
        self.stalled += 1;
        if self.stalled >= self.deadline {
            Err(DriverError::Deadline { polls: self.stalled })
        } else {
            Ok(false)
        }
    }

    /// The ticket of the oldest batch, if its last command has retired.
    fn complete(&self) -> Option<Ticket> {
        let batch = self.batches.front()?;
        // Fewer commands than the queue's depth lie between the two counters, so the sign of the difference
        // survives their wrapping.
        let retired = self.head.wrapping_sub(batch.end) < 1 << 15;
        (batch.posted == batch.limbs && retired).then_some(batch.ticket)
    }

    fn check(&self, batch: &[Limb<'_>]) -> Result<(), DriverError<B::Error>> {
        if batch.is_empty() || batch.len() > self.half_size() {
            return Err(DriverError::BatchSize { limbs: batch.len(), max: self.half_size() });
        }
        for (at, limb) in batch.iter().enumerate() {
            let log_n = self.table(limb.table).ok_or(DriverError::NoTable { slot: limb.table })?;
            check_length(at, limb.words.len(), log_n)?;
        }
        Ok(())
    }

    /// Writes the limbs of a checked batch and posts what the queue has room for.
    fn start(&mut self, direction: Direction, limbs: &[Limb<'_>]) -> Result<Ticket, DriverError<B::Error>> {
        let half = self.batches.front().map_or(0, |oldest| 1 - oldest.half);
        let ticket = Ticket(self.next_ticket);
        self.next_ticket = self.next_ticket.wrapping_add(1);
        let opcode = match direction {
            Direction::Forward => opcode::NTT_FORWARD,
            Direction::Inverse => opcode::NTT_INVERSE,
        };
        let (log_n, commands) = ([0; MAX_BATCH], [0; MAX_BATCH]);
        let batch = Batch { ticket, half, limbs: 0, log_n, commands, posted: 0, end: 0 };
        if self.batches.push_back(batch).is_err() {
            return Err(DriverError::InFlight { batches: HALVES as u8 });
        }
        for (at, limb) in limbs.iter().enumerate() {
            let bank = half * self.half_size() + at;
            let log_n = self.table(limb.table).ok_or(DriverError::NoTable { slot: limb.table })?;
            self.write_words(bank_address(bank), limb.words)?;
            if let Some(batch) = self.batches.back_mut() {
                batch.log_n[at] = log_n;
                batch.commands[at] = encode(opcode, bank, limb.table);
                batch.limbs = at + 1;
            }
            self.pump()?;
        }
        Ok(ticket)
    }

    fn drive(&mut self) -> Result<Poll<Ticket>, DriverError<B::Error>> {
        if let Some(ticket) = self.complete() {
            return Ok(Poll::Ready(ticket));
        }
        if self.observe()? {
            self.pump()?;
        }
        Ok(self.complete().map_or(Poll::Pending, Poll::Ready))
    }

    fn fill_table(
        &mut self,
        slot: u16,
        table: &Table,
        twiddles: &Twiddles,
    ) -> Result<(), DriverError<B::Error>> {
        let base = params::ADDRESS + u32::from(slot) * params::STRIDE;
        let halves = |x: u64| (x as u32, (x >> 32) as u32);
        let ((q_lo, q_hi), (inv_lo, inv_hi)) = (halves(table.q), halves(twiddles.neg_q_inv()));
        self.write(base + params::Q_LO, q_lo)?;
        self.write(base + params::Q_HI, q_hi)?;
        self.write(base + params::NEG_Q_INV_LO, inv_lo)?;
        self.write(base + params::NEG_Q_INV_HI, inv_hi)?;
        self.write(base + params::LOG_N, u32::from(table.log_n))?;
        let mut buffer = [0; CHUNK];
        for run in 0..twiddles.runs() {
            let words = twiddles.run(run, &mut buffer);
            self.write_words(bank_address(0) + run * (CHUNK as u32 * device::WORD_BYTES), words)?;
        }
        self.stalled = 0;
        self.enqueue(encode(opcode::LOAD_TABLE, 0, slot))?;
        self.publish()?;
        while self.head != self.tail {
            self.observe()?;
        }
        Ok(())
    }
}

impl<B: RegisterBus> NttEngine for BoardDriver<B> {
    type Error = DriverError<B::Error>;

    fn caps(&self) -> EngineCaps {
        EngineCaps {
            min_log_n: self.info.min_log_n,
            max_log_n: self.info.max_log_n,
            modulus_bits: self.info.modulus_bits,
            word_bits: (device::WORD_BYTES * 8) as u8,
            tables: self.table_slots() as u16,
            max_batch: self.half_size() as u16,
            in_flight: self.halves() as u8,
        }
    }

    fn load_table(&mut self, slot: u16, table: &Table) -> Result<(), Self::Error> {
        if self.lost {
            return Err(DriverError::Lost);
        }
        if !self.batches.is_empty() {
            return Err(DriverError::InFlight { batches: self.batches.len() as u8 });
        }
        if usize::from(slot) >= self.table_slots() {
            return Err(DriverError::Slot { slot });
        }
        if !self.caps().supports(table.log_n, table.q) {
            return Err(DriverError::Unsupported { log_n: table.log_n, q: table.q });
        }
        let root = DriverError::Root { q: table.q, psi: table.psi };
        let twiddles = Twiddles::new(table).ok_or(root)?;
        self.tables[usize::from(slot)] = None;
        let filled = self.fill_table(slot, table, &twiddles);
        self.lost = filled.is_err();
        filled?;
        self.tables[usize::from(slot)] = Some(table.log_n);
        Ok(())
    }

    fn submit(&mut self, direction: Direction, batch: &[Limb<'_>]) -> Poll<Result<Ticket, Self::Error>> {
        if self.lost {
            return Poll::Ready(Err(DriverError::Lost));
        }
        self.check(batch)?;
        if self.batches.len() >= self.halves() {
            return Poll::Pending;
        }
        if self.batches.is_empty() {
            self.stalled = 0;
        }
        let started = self.start(direction, batch);
        self.lost = started.is_err();
        Poll::Ready(started)
    }

    fn poll(&mut self) -> Poll<Result<Ticket, Self::Error>> {
        if self.lost {
            return Poll::Ready(Err(DriverError::Lost));
        }
        if self.batches.is_empty() {
            return Poll::Ready(Err(DriverError::Idle));
        }
        let driven = self.drive();
        self.lost = driven.is_err();
        driven?.map(Ok)
    }

    fn collect(&mut self, ticket: Ticket, out: &mut [&mut [u64]]) -> Result<(), Self::Error> {
        if self.lost {
            return Err(DriverError::Lost);
        }
        let batch = match self.batches.front() {
            Some(batch) if self.complete() == Some(ticket) => batch,
            _ => return Err(DriverError::Ticket { found: ticket.0 }),
        };
        if out.len() != batch.limbs {
            return Err(DriverError::BatchSize { limbs: out.len(), max: batch.limbs });
        }
        for (at, words) in out.iter().enumerate() {
            check_length(at, words.len(), batch.log_n[at])?;
        }
        let first = batch.half * self.half_size();
        for (at, words) in out.iter_mut().enumerate() {
            self.traffic.words_read += words.len() as u64;
            let read = self.bus.read_words(bank_address(first + at), words);
            self.lost = read.is_err();
            read.map_err(DriverError::Bus)?;
        }
        self.batches.pop_front();
        Ok(())
    }

    fn reset(&mut self) -> Result<(), Self::Error> {
        // If the write fails the queue is unknown, and stays lost.
        self.lost = true;
        self.batches.clear();
        self.write(control::ADDRESS, control::RESET.mask())?;
        (self.head, self.tail, self.stalled, self.lost) = (0, 0, 0, false);
        Ok(())
    }
}

fn check_length<E>(limb: usize, words: usize, log_n: u8) -> Result<(), DriverError<E>> {
    let expected = 1 << log_n;
    if words == expected { Ok(()) } else { Err(DriverError::Length { limb, words, expected }) }
}

const fn bank_address(index: usize) -> u32 {
    bank::ADDRESS + index as u32 * bank::STRIDE
}

const fn encode(op: u32, bank: usize, table: u16) -> u32 {
    command::OPCODE.with(op) | command::BANK.with(bank as u32) | command::TABLE.with(table as u32)
}

fn read_info<B: RegisterBus>(bus: &mut B) -> Result<Info, DriverError<B::Error>> {
    let mut read = |address| bus.read32(address).map_err(DriverError::Bus);
    let found = read(magic::ADDRESS)?;
    if found != device::MAGIC {
        return Err(DriverError::Magic { found });
    }
    let found = read(version::ADDRESS)?;
    let (major, minor) = (version::MAJOR.of(found), version::MINOR.of(found) as u16);
    if major != device::VERSION_MAJOR {
        return Err(DriverError::Version { major: major as u16, minor });
    }
    let field = |f: Field, register| f.of(register) as u8;
    let found = read(shape::ADDRESS)?;
    let (min_log_n, max_log_n) = (field(shape::MIN_LOG_N, found), field(shape::MAX_LOG_N, found));
    let modulus_bits = field(shape::MODULUS_BITS, found);
    let largest = (bank::STRIDE / device::WORD_BYTES).ilog2() as u8;
    let degrees = 1 <= min_log_n && min_log_n <= max_log_n && max_log_n <= largest;
    let words = shape::WORD_BYTES.of(found) == device::WORD_BYTES && (2..64).contains(&modulus_bits);
    if !degrees || !words {
        return Err(DriverError::Info { address: shape::ADDRESS, found });
    }
    let found = read(stores::ADDRESS)?;
    let (banks, tables) = (field(stores::BANKS, found), field(stores::TABLES, found));
    let queue_depth = field(stores::QUEUE_DEPTH, found);
    let room = u32::from(banks) <= bank::COUNT && u32::from(tables) <= params::COUNT;
    let depth = queue_depth.is_power_of_two() && u32::from(queue_depth) <= queue::COUNT;
    if banks == 0 || tables == 0 || !room || !depth {
        return Err(DriverError::Info { address: stores::ADDRESS, found });
    }
    Ok(Info { minor, min_log_n, max_log_n, modulus_bits, banks, tables, queue_depth })
}
