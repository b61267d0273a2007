//! Where bytes come from and go to: slices here, files and sockets on a host,
//! a UART or a flash page on a device.
//!
//! ```
//! use veilformer::wire::{Fault, Source};
//!
//! /// A file, and what went wrong with it in full.
//! struct Input<R> {
//!     inner: R,
//!     error: Option<std::io::Error>,
//! }
//!
//! impl<R: std::io::Read> Source for Input<R> {
//!     fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Fault> {
//!         loop {
//!             match self.inner.read(bytes) {
//!                 Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
//!                 Err(error) => {
//!                     let code = error.raw_os_error().unwrap_or(0);
//!                     self.error = Some(error);
//!                     return Err(Fault { code });
//!                 }
//!                 Ok(count) => return Ok(count),
//!             }
//!         }
//!     }
//! }
//! ```

/// A stream's own failure. `code` is the platform's (`raw_os_error` on a
/// host); an adaptor keeps the full error for its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Fault {
    /// The platform's number.
    pub code: i32,
}

/// Bytes to read.
pub trait Source {
    /// Reads some bytes, at least one unless `bytes` is empty or the source
    /// has ended; returns how many.
    ///
    /// # Errors
    /// [`Fault`] when the stream fails.
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Fault>;

    /// Bytes left, when that is known: a cut object is then refused before
    /// anything is allocated for it.
    fn remaining(&self) -> Option<u64> {
        None
    }
}

/// A place to write bytes.
pub trait Sink {
    /// Writes some bytes, at least one unless `bytes` is empty or there is no
    /// more room; returns how many.
    ///
    /// # Errors
    /// [`Fault`] when the stream fails.
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Fault>;

    /// Room left, when that is known: an object that does not fit is then
    /// refused before its first byte is written.
    fn room(&self) -> Option<u64> {
        None
    }
}

/// Reads from the front and shrinks.
impl Source for &[u8] {
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Fault> {
        let count = bytes.len().min(self.len());
        let (taken, rest) = self.split_at(count);
        bytes[..count].copy_from_slice(taken);
        *self = rest;
        Ok(count)
    }

    fn remaining(&self) -> Option<u64> {
        Some(self.len() as u64)
    }
}

/// Fills the front and shrinks.
impl Sink for &mut [u8] {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        let count = bytes.len().min(self.len());
        let (taken, rest) = core::mem::take(self).split_at_mut(count);
        taken.copy_from_slice(&bytes[..count]);
        *self = rest;
        Ok(count)
    }

    fn room(&self) -> Option<u64> {
        Some(self.len() as u64)
    }
}

/// Appends.
impl<const CAP: usize> Sink for heapless::Vec<u8, CAP> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        let count = bytes.len().min(CAP - self.len());
        // Cannot overflow: `count` is what is left.
        let _ = self.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn room(&self) -> Option<u64> {
        Some((CAP - self.len()) as u64)
    }
}
