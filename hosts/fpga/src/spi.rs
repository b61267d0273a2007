//! A board behind SPI: [`RegisterBus`] over an `embedded-hal` `SpiDevice`.
//!
//! One transaction (chip select low) is one burst, most significant bit first:
//!
//! | bytes | write | read |
//! |---|---|---|
//! | 1 | [`frame::WRITE`] | [`frame::READ`] |
//! | 4 | byte address, big-endian | byte address, big-endian |
//! | 2 | – | turnaround: the board fetches its first word |
//! | any multiple of 4 | data, little-endian | data, little-endian |
//!
//! The address advances by four bytes for every four bytes of data; chip select ends the burst. The protocol
//! carries no checksum: a bit lost on the wire becomes a wrong result, a fault or a missed deadline, and the
//! first is what `Offload`'s verification is for.

use embedded_hal::spi::{Error as SpiError, ErrorKind, Operation, SpiDevice};

use crate::{BusError, BusErrorKind, RegisterBus};

/// The bytes of a burst.
pub mod frame {
    /// First byte of a write.
    pub const WRITE: u8 = 0x02;
    /// First byte of a read.
    pub const READ: u8 = 0x03;
    /// Bytes of operation and address.
    pub const HEADER: usize = 5;
    /// Idle bytes between the header of a read and its data.
    pub const TURNAROUND: usize = 2;
    /// Most data bytes in one burst of this driver; a board takes any length.
    pub const BURST: usize = 512;
}

/// A [`RegisterBus`] over SPI.
pub struct SpiBus<S> {
    spi: S,
}

/// An error of the SPI peripheral.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct SpiFault(pub ErrorKind);

impl BusError for SpiFault {
    fn kind(&self) -> BusErrorKind {
        BusErrorKind::Transport
    }
}

impl<S: SpiDevice> SpiBus<S> {
    /// A bus over a device whose chip select the `SpiDevice` owns. SPI mode 0.
    pub const fn new(spi: S) -> Self {
        Self { spi }
    }

    /// The device.
    pub fn device(&mut self) -> &mut S {
        &mut self.spi
    }

    /// Gives the device back.
    #[must_use]
    pub fn release(self) -> S {
        self.spi
    }

    fn send(&mut self, address: u32, data: &[u8]) -> Result<(), SpiFault> {
        let header = header(frame::WRITE, address);
        self.spi
            .transaction(&mut [Operation::Write(&header), Operation::Write(data)])
            .map_err(|e| SpiFault(e.kind()))
    }

    fn receive(&mut self, address: u32, data: &mut [u8]) -> Result<(), SpiFault> {
        let header = header(frame::READ, address);
        let idle = [0; frame::TURNAROUND];
        self.spi
            .transaction(&mut [Operation::Write(&header), Operation::Write(&idle), Operation::Read(data)])
            .map_err(|e| SpiFault(e.kind()))
    }
}

impl<S: SpiDevice> RegisterBus for SpiBus<S> {
    type Error = SpiFault;

    fn read32(&mut self, address: u32) -> Result<u32, SpiFault> {
        let mut data = [0; 4];
        self.receive(address, &mut data)?;
        Ok(u32::from_le_bytes(data))
    }

    fn write32(&mut self, address: u32, value: u32) -> Result<(), SpiFault> {
        self.send(address, &value.to_le_bytes())
    }

    fn read_words(&mut self, mut address: u32, words: &mut [u64]) -> Result<(), SpiFault> {
        let mut buffer = [0; frame::BURST];
        for chunk in words.chunks_mut(frame::BURST / 8) {
            let data = &mut buffer[..chunk.len() * 8];
            self.receive(address, data)?;
            for (word, bytes) in chunk.iter_mut().zip(data.as_chunks().0) {
                *word = u64::from_le_bytes(*bytes);
            }
            address = address.wrapping_add(data.len() as u32);
        }
        Ok(())
    }

    fn write_words(&mut self, mut address: u32, words: &[u64]) -> Result<(), SpiFault> {
        let mut buffer = [0; frame::BURST];
        for chunk in words.chunks(frame::BURST / 8) {
            let data = &mut buffer[..chunk.len() * 8];
            for (word, bytes) in chunk.iter().zip(data.as_chunks_mut().0) {
                *bytes = word.to_le_bytes();
            }
            self.send(address, data)?;
            address = address.wrapping_add(data.len() as u32);
        }
        Ok(())
    }
}

fn header(operation: u8, address: u32) -> [u8; frame::HEADER] {
    let [a, b, c, d] = address.to_be_bytes();
    [operation, a, b, c, d]
}
