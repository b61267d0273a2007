//! Ciphertexts. Payload: the limbs of c0, then those of c1; or, for a fresh
//! one, the seed that c1 is expanded from.

use super::codec::{Codec, SEED_LEN, polynomial_len, read_seed};
use super::frame::{ObjectWriter, Reader};
use super::header::{Header, Kind};
use super::{Error, Sink, Source, object_len};
use crate::accel::Accelerator;
use crate::ckks::client::KeyTag;
use crate::ckks::{self, Ciphertext, Parameters, SeededCiphertext};
use crate::ring::Basis;

/// Bytes of a ciphertext at `level`, which is taken as at most L.
pub fn ciphertext_len(parameters: &Parameters, level: usize) -> u64 {
    object_len(payload(parameters, Kind::Ciphertext, level))
}

/// Bytes of a fresh ciphertext at `level`, which is taken as at most L.
pub fn seeded_ciphertext_len(parameters: &Parameters, level: usize) -> u64 {
    object_len(payload(parameters, Kind::SeededCiphertext, level))
}

fn payload(parameters: &Parameters, kind: Kind, level: usize) -> u64 {
    let polynomial = polynomial_len(parameters, Basis::level(level.min(parameters.max_level())));
    polynomial + if kind == Kind::Ciphertext { polynomial } else { SEED_LEN }
}

impl<A: Accelerator> Codec<'_, A> {
    fn ciphertext_header(&self, kind: Kind, key: KeyTag, level: usize) -> Result<Header, Error> {
        if level > self.parameters.max_level() {
            return Err(ckks::Error::OtherChain.into());
        }
        let payload = payload(self.parameters, kind, level);
        Ok(Header { level: level as u16, ..Header::new(kind, self.parameters, key, payload) })
    }

    /// Writes both polynomials.
    ///
    /// # Errors
    /// [`Error::NoRoom`] before the first byte, if the sink knows its room;
    /// [`Error::Stream`]; [`Error::Scheme`] when the accelerator fails.
    pub fn write_ciphertext<S: Sink>(
        &mut self,
        sink: &mut S,
        key: KeyTag,
        ciphertext: &Ciphertext<A>,
    ) -> Result<(), Error> {
        let header = self.ciphertext_header(Kind::Ciphertext, key, ciphertext.level())?;
        let mut writer = ObjectWriter::new(sink, &header)?;
        for part in ciphertext.parts() {
            self.write_polynomial(&mut writer, part)?;
        }
        writer.finish()
    }

    /// Writes a fresh ciphertext in half the space.
    ///
    /// # Errors
    /// As [`Self::write_ciphertext`].
    pub fn write_seeded_ciphertext<S: Sink>(
        &mut self,
        sink: &mut S,
        key: KeyTag,
        ciphertext: &SeededCiphertext<A>,
    ) -> Result<(), Error> {
        let header = self.ciphertext_header(Kind::SeededCiphertext, key, ciphertext.level())?;
        let mut writer = ObjectWriter::new(sink, &header)?;
        self.write_polynomial(&mut writer, ciphertext.body())?;
        writer.bytes(ciphertext.seed().as_bytes())?;
        writer.finish()
    }

    /// Reads a ciphertext, fresh or not, of `key` or of any key when `None`.
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
        key: Option<KeyTag>,
    ) -> Result<Ciphertext<A>, Error> {
        if reader.header()?.kind == Kind::SeededCiphertext {
            let fresh = self.read_seeded_ciphertext(reader, key)?;
            return Ok(fresh.expand(self.accelerator, self.scratch)?);
        }
        let header = reader.expect(Kind::Ciphertext, &self.expected(key))?;
        let (level, basis) = (header.level as usize, Basis::level(header.level as usize));
        let mut object = reader.payload(payload(self.parameters, Kind::Ciphertext, level))?;
        self.has_limbs(2 * basis.len())?;
        let c0 = self.read_polynomial(&mut object, basis)?;
        let c1 = self.read_polynomial(&mut object, basis)?;
        object.finish()?;
        Ok(Ciphertext::from_parts([c0, c1])?)
    }

    /// Reads a fresh ciphertext without expanding it.
    ///
    /// # Errors
    /// As [`Self::read_ciphertext`].
    pub fn read_seeded_ciphertext<S: Source>(
        &mut self,
        reader: &mut Reader<S>,
        key: Option<KeyTag>,
    ) -> Result<SeededCiphertext<A>, Error> {
        let header = reader.expect(Kind::SeededCiphertext, &self.expected(key))?;
        let (level, basis) = (header.level as usize, Basis::level(header.level as usize));
        let mut object = reader.payload(payload(self.parameters, Kind::SeededCiphertext, level))?;
        self.has_limbs(basis.len())?;
        let body = self.read_polynomial(&mut object, basis)?;
        let seed = read_seed(&mut object)?;
        object.finish()?;
        Ok(SeededCiphertext::from_parts(seed, body)?)
    }
}
