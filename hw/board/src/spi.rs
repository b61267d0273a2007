//! The board's SPI front end: bytes in, register accesses out.

use embedded_hal::spi::{Error, ErrorKind, ErrorType, Operation, SpiDevice};
use veilformer_fpga::{RegisterBus, frame, regmap::bank};

use crate::{Board, BoardError};

/// A failed transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpiBoardError {
    /// Injected: the wire failed.
    Wire,
    /// The board refused the access.
    Board(BoardError),
}

impl Error for SpiBoardError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Other
    }
}

/// A [`Board`] behind an SPI device.
pub struct SpiBoard {
    board: Board,
    bytes: u64,
    transactions: u64,
    fail_after: Option<u64>,
}

/// One transaction as the board's shift register sees it.
struct Burst<'a> {
    board: &'a mut Board,
    /// Bytes since chip select.
    at: usize,
    operation: u8,
    address: u32,
    /// The register or word being shifted: what has arrived of a write, what is left of a read.
    shift: Vec<u8>,
}

impl SpiBoard {
    /// Puts a board behind SPI.
    #[must_use]
    pub fn new(board: Board) -> Self {
        Self { board, bytes: 0, transactions: 0, fail_after: None }
    }

    /// The board.
    pub fn board(&mut self) -> &mut Board {
        &mut self.board
    }

    /// Bytes clocked over the wire so far, headers included.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Transactions so far.
    #[must_use]
    pub fn transactions(&self) -> u64 {
        self.transactions
    }

    /// Seconds on the wire at this clock rate.
    #[must_use]
    pub fn seconds(&self, hertz: f64) -> f64 {
        8.0 * self.bytes as f64 / hertz
    }

    /// Lets the wire fail after this many more transactions; `None` mends it.
    pub fn fail_after(&mut self, transactions: Option<u64>) {
        self.fail_after = transactions;
    }
}

impl ErrorType for SpiBoard {
    type Error = SpiBoardError;
}

impl SpiDevice for SpiBoard {
    fn transaction(&mut self, operations: &mut [Operation<'_, u8>]) -> Result<(), SpiBoardError> {
        if let Some(left) = &mut self.fail_after {
            *left = left.checked_sub(1).ok_or(SpiBoardError::Wire)?;
        }
        self.transactions += 1;
        let board = &mut self.board;
        let mut burst = Burst { board, at: 0, operation: 0, address: 0, shift: Vec::new() };
        let mut clocked = 0;
        for operation in operations {
            clocked += match operation {
                Operation::Write(out) => burst.clock(out.iter().copied(), |_| {})?,
                Operation::Read(into) => {
                    let mut places = into.iter_mut();
                    burst.clock(core::iter::repeat_n(0, places.len()), |b| {
                        if let Some(place) = places.next() {
                            *place = b;
                        }
                    })?
                }
                Operation::Transfer(into, out) => {
                    let padded = out.iter().copied().chain(core::iter::repeat(0));
                    let count = into.len().max(out.len());
                    let mut places = into.iter_mut();
                    burst.clock(padded.take(count), |b| {
                        if let Some(place) = places.next() {
                            *place = b;
                        }
                    })?
                }
                Operation::TransferInPlace(bytes) => {
                    let sent = bytes.to_vec();
                    let mut places = bytes.iter_mut();
                    burst.clock(sent.into_iter(), |b| {
                        if let Some(place) = places.next() {
                            *place = b;
                        }
                    })?
                }
                Operation::DelayNs(_) => 0,
            };
        }
        self.bytes += clocked;
        Ok(())
    }
}

impl Burst<'_> {
    /// Shifts bytes in; `out` takes what is shifted out meanwhile.
    fn clock(
        &mut self,
        bytes: impl Iterator<Item = u8>,
        mut out: impl FnMut(u8),
    ) -> Result<u64, SpiBoardError> {
        let mut count = 0;
        for byte in bytes {
            out(self.byte(byte).map_err(SpiBoardError::Board)?);
            self.at += 1;
            count += 1;
        }
        Ok(count)
    }

    fn byte(&mut self, byte: u8) -> Result<u8, BoardError> {
        match self.at {
            0 => self.operation = byte,
            1..frame::HEADER => self.address = self.address << 8 | u32::from(byte),
            _ if self.operation == frame::WRITE => self.write(byte)?,
            at if self.operation == frame::READ && at >= frame::HEADER + frame::TURNAROUND => {
                return self.read();
            }
            _ => {}
        }
        Ok(0)
    }

    fn in_bank(&self) -> bool {
        self.address >= bank::ADDRESS
    }

    fn write(&mut self, byte: u8) -> Result<(), BoardError> {
        self.shift.push(byte);
        if self.in_bank() {
            if let Ok(word) = <[u8; 8]>::try_from(self.shift.as_slice()) {
                self.board.write_words(self.address, &[u64::from_le_bytes(word)])?;
                self.step(8);
            }
        } else if let Ok(register) = <[u8; 4]>::try_from(self.shift.as_slice()) {
            self.board.write32(self.address, u32::from_le_bytes(register))?;
            self.step(4);
        }
        Ok(())
    }

    fn read(&mut self) -> Result<u8, BoardError> {
        if self.shift.is_empty() {
            if self.in_bank() {
                let mut word = [0];
                self.board.read_words(self.address, &mut word)?;
                self.shift.extend(word[0].to_le_bytes().iter().rev());
                self.address += 8;
            } else {
                let register = self.board.read32(self.address)?;
                self.shift.extend(register.to_le_bytes().iter().rev());
                self.address += 4;
            }
        }
        Ok(self.shift.pop().unwrap_or(0))
    }

    fn step(&mut self, bytes: u32) {
        self.shift.clear();
        self.address += bytes;
    }
}
