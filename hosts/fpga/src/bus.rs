//! The one trait a link to a board implements.

use core::fmt::Debug;

/// What went wrong on a bus, in terms every link shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum BusErrorKind {
    /// The link itself: a transfer that did not complete.
    Transport,
    /// An address that is not mapped, not aligned, or may not be accessed this way now.
    Address,
    /// None of the above.
    Other,
}

/// An error of a bus.
pub trait BusError: Debug {
    /// The error in terms every link shares.
    fn kind(&self) -> BusErrorKind;
}

impl BusError for core::convert::Infallible {
    fn kind(&self) -> BusErrorKind {
        match *self {}
    }
}

/// 32-bit registers and 64-bit words at byte addresses of the [register map](crate::regmap).
///
/// Accesses take effect in program order and are complete when the call returns. Registers are aligned to four
/// bytes, words to eight; a word travels low half first.
pub trait RegisterBus {
    /// What can go wrong.
    type Error: BusError;

    /// Reads one register.
    ///
    /// # Errors
    /// Whatever the link reports.
    fn read32(&mut self, address: u32) -> Result<u32, Self::Error>;

    /// Writes one register.
    ///
    /// # Errors
    /// Whatever the link reports.
    fn write32(&mut self, address: u32, value: u32) -> Result<(), Self::Error>;

    /// Reads consecutive words of a bank.
    ///
    /// # Errors
    /// Whatever the link reports; `words` may be partly written.
    fn read_words(&mut self, address: u32, words: &mut [u64]) -> Result<(), Self::Error>;

    /// Writes consecutive words of a bank.
    ///
    /// # Errors
    /// Whatever the link reports; the bank may be partly written.
    fn write_words(&mut self, address: u32, words: &[u64]) -> Result<(), Self::Error>;
}

impl<B: RegisterBus + ?Sized> RegisterBus for &mut B {
    type Error = B::Error;

    fn read32(&mut self, address: u32) -> Result<u32, Self::Error> {
        (**self).read32(address)
    }

    fn write32(&mut self, address: u32, value: u32) -> Result<(), Self::Error> {
        (**self).write32(address, value)
    }

    fn read_words(&mut self, address: u32, words: &mut [u64]) -> Result<(), Self::Error> {
        (**self).read_words(address, words)
    }

    fn write_words(&mut self, address: u32, words: &[u64]) -> Result<(), Self::Error> {
        (**self).write_words(address, words)
    }
}
