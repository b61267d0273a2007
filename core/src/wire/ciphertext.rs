//! Ciphertexts: both polynomials, or for a fresh one the first and the seed
//! of the second.

use super::codec::{Codec, polynomial_len};
use super::frame::{ObjectWriter, Reader};
use super::header::{Header, Kind};
use super::{Error, Owner, Sink, Source, object_len};
use crate::accel::Accelerator;
use crate::ckks::{Ciphertext, Parameters};
use crate::ring::Basis;

/// Bytes of a ciphertext at `level`, which is taken as at most L.
pub fn ciphertext_len(parameters: &Parameters, level: usize) -> u64 {
    object_len(payload(parameters, level))
}

fn payload(parameters: &Parameters, level: usize) -> u64 {
    2 * polynomial_len(parameters, Basis::level(level.min(parameters.max_level())))
}

impl<A: Accelerator> Codec<'_, A> {
    /// Writes both polynomials, c0 first.
    ///
    /// # Errors
    /// [`Error::NoRoom`] before the first byte, if the sink knows its room;
    /// [`Error::Stream`]; [`Error::Scheme`] when the accelerator fails.
    pub fn write_ciphertext<S: Sink>(
        &mut self,
        sink: &mut S,
        owner: Owner,
        ciphertext: &Ciphertext<A>,
    ) -> Result<(), Error> {
        let level = ciphertext.level();
        let header = Header::new(Kind::Ciphertext, self.parameters, owner, payload(self.parameters, level));
        let mut writer = ObjectWriter::new(sink, &Header { level: level as u16, ..header })?;
        for part in ciphertext.parts() {
            self.write_polynomial(&mut writer, part)?;
        }
        writer.finish()
    }

    /// Reads a ciphertext of `owner`, or of any key when `None`.
    ///
    /// # Errors
    /// In this order: those of [`Reader::header`]; [`Error::Kind`];
    /// [`Error::InsecureMark`], [`Error::OtherParameters`]; [`Error::OtherKey`];
    /// [`Error::Field`], [`Error::TooLarge`], [`Error::Truncated`]; the
    /// accelerator is out of limbs; and only once the payload was read,
    /// [`Error::Corrupt`] and [`Error::ResidueOutOfRange`].
    pub fn read_ciphertext<S: Source>(
        &mut self,
        reader: &mut Reader<S>,
        owner: Option<Owner>,
    ) -> Result<Ciphertext<A>, Error> {
        let header = reader.expect(Kind::Ciphertext, &self.expected(owner))?;
        let basis = Basis::level(header.level as usize);
        let mut object = reader.payload(payload(self.parameters, header.level as usize))?;
        self.has_limbs(2 * basis.len())?;
        let c0 = self.read_polynomial(&mut object, basis)?;
        let c1 = self.read_polynomial(&mut object, basis)?;
        object.finish()?;
        Ok(Ciphertext::from_parts([c0, c1])?)
    }
}
