//! Public keys. Payload: the limbs of b, digit by digit, then the seed that
//! the a halves are expanded from. The seed comes last so that a key can be
//! written while it is made, in the memory of one digit.

use super::codec::{Codec, SEED_LEN, polynomial_len, read_seed};
use super::error::Field;
use super::frame::{ObjectWriter, Reader};
use super::header::{Header, Kind};
use super::{Error, Sink, Source, object_len};
use crate::accel::{Accelerator, MAX_DIGITS, Trusted};
use crate::ckks::client::{KeyTag, PublicKey, SecretKey};
use crate::ckks::seeded::object_of;
use crate::ckks::{self, KeyId, KeyRequest, KeyShape, ParameterField, Parameters, SeededSwitchingKey};
use crate::ring::{Basis, MAX_LIMBS};

/// Bytes of a public encryption key.
pub fn public_key_len(parameters: &Parameters) -> u64 {
    object_len(public_payload(parameters))
}

/// Bytes of a switching key, its level taken as at most that of all ordinary primes.
pub fn switching_key_len(parameters: &Parameters, request: KeyRequest) -> u64 {
    let level = request.level.min(parameters.top_level());
    object_len(switching_payload(parameters, KeyRequest { level, ..request }))
}

fn public_payload(parameters: &Parameters) -> u64 {
    polynomial_len(parameters, Basis::level(parameters.max_level())) + SEED_LEN
}

fn switching_payload(parameters: &Parameters, request: KeyRequest) -> u64 {
    let KeyShape { digits, basis, .. } = parameters.key_shape(request.id, request.level);
    digits as u64 * polynomial_len(parameters, basis) + SEED_LEN
}

impl<A: Accelerator> Codec<'_, A> {
    /// Writes a public encryption key.
    ///
    /// # Errors
    /// As [`Codec::write_ciphertext`].
    pub fn write_public_key<S: Sink>(&mut self, sink: &mut S, key: &PublicKey<A>) -> Result<(), Error> {
        if key.level() != self.parameters.max_level() {
            return Err(ckks::Error::OtherChain.into());
        }
        let payload = public_payload(self.parameters);
        let header = Header::new(Kind::PublicKey, self.parameters, key.tag(), payload);
        let mut writer = ObjectWriter::new(sink, &header)?;
        self.write_polynomial(&mut writer, key.body())?;
        writer.bytes(key.seed().as_bytes())?;
        writer.finish()
    }

    /// Reads a public encryption key.
    ///
    /// # Errors
    /// As [`Codec::read_ciphertext`].
    pub fn read_public_key<S: Source>(
        &mut self,
        reader: &mut Reader<S>,
        key: Option<KeyTag>,
    ) -> Result<PublicKey<A>, Error> {
        let header = reader.expect(Kind::PublicKey, &self.expected(key))?;
        let mut object = reader.payload(public_payload(self.parameters))?;
        let basis = Basis::level(self.parameters.max_level());
        self.has_limbs(2 * basis.len())?;
        let b = self.read_polynomial(&mut object, basis)?;
        let seed = read_seed(&mut object)?;
        object.finish()?;
        Ok(PublicKey::from_parts(self.accelerator, self.parameters, header.key, seed, b, self.scratch)?)
    }

    /// Writes a switching key of `key`.
    ///
    /// # Errors
    /// As [`Codec::write_ciphertext`]; [`Error::Field`] when it is for no automorphism.
    pub fn write_switching_key<S: Sink>(
        &mut self,
        sink: &mut S,
        key: KeyTag,
        switching: &SeededSwitchingKey<A>,
    ) -> Result<(), Error> {
        let request = KeyRequest { id: switching.id(), level: switching.level() };
        let header = self.switching_header(key, request)?;
        let shape = self.parameters.key_shape(request.id, request.level);
        let digits = switching.digits();
        if digits.len() != shape.digits || digits.iter().any(|b| b.basis() != shape.basis) {
            return Err(ckks::Error::OtherChain.into());
        }
        let mut writer = ObjectWriter::new(sink, &header)?;
        for b in digits {
            self.write_polynomial(&mut writer, b)?;
        }
        writer.bytes(switching.seed().as_bytes())?;
        writer.finish()
    }

    /// Makes the key `request` of `secret` and writes it digit by digit, so
    /// that only one digit is ever in memory. `signed` is scratch of N words,
    /// `words` of N words or a multiple.
    ///
    /// # Errors
    /// As [`Self::write_switching_key`] and [`SecretKey::each_digit`].
    pub fn make_switching_key<S: Sink>(
        &mut self,
        sink: &mut S,
        secret: &SecretKey<'_, A>,
        request: KeyRequest,
        signed: &mut [i64],
        words: &mut [A::Word],
    ) -> Result<(), Error>
    where
        A: Trusted,
    {
        if secret.parameters() != self.parameters {
            return Err(ckks::Error::OtherChain.into());
        }
        let mut writer = ObjectWriter::new(sink, &self.switching_header(secret.tag(), request)?)?;
        let mut failed = None;
        let seed = secret.each_digit(request.id, request.level, signed, words, |_, [b, _]| {
            self.write_polynomial(&mut writer, &b).map_err(|error| {
                failed = Some(error);
                // Ends the making of the key; the cause is reported below.
                ckks::Error::Full { capacity: 0 }
            })
        });
        if let Some(error) = failed {
            return Err(error);
        }
        writer.bytes(seed?.as_bytes())?;
        writer.finish()
    }

    /// Reads a switching key; [`Reader::header`] tells which before it is read.
    ///
    /// # Errors
    /// As [`Codec::read_ciphertext`].
    pub fn read_switching_key<S: Source>(
        &mut self,
        reader: &mut Reader<S>,
        key: Option<KeyTag>,
    ) -> Result<SeededSwitchingKey<A>, Error> {
        let header = reader.expect(Kind::SwitchingKey, &self.expected(key))?;
        let (level, parameters) = (header.level as usize, self.parameters);
        let misfit = Error::Field { field: Field::Galois, have: header.galois as u64, max: 0 };
        let id = header.key_id().ok_or(misfit)?;
        let request = KeyRequest { id, level };
        self.check_switching(request)?;
        let mut object = reader.payload(switching_payload(parameters, request))?;
        let KeyShape { digits: count, basis, .. } = parameters.key_shape(id, level);
        self.has_limbs(count * basis.len())?;
        let mut digits = heapless::Vec::new();
        for _ in 0..count {
            let b = self.read_polynomial(&mut object, basis)?;
            digits.push(b).map_err(|_| ckks::Error::Full { capacity: MAX_DIGITS })?;
        }
        let seed = read_seed(&mut object)?;
        object.finish()?;
        Ok(SeededSwitchingKey::from_parts(parameters, id, level, seed, digits)?)
    }

    fn switching_header(&self, key: KeyTag, request: KeyRequest) -> Result<Header, Error> {
        let galois = self.check_switching(request)?;
        let payload = switching_payload(self.parameters, request);
        let header = Header::new(Kind::SwitchingKey, self.parameters, key, payload);
        Ok(Header { level: request.level as u16, galois, ..header })
    }

    /// The number of the key as the header has it.
    fn check_switching(&self, request: KeyRequest) -> Result<u32, Error> {
        if self.parameters.chain().special() == 0 {
            let field = ParameterField::SpecialPrimes;
            return Err(ckks::Error::Parameter { field, given: 0, min: 1, max: MAX_LIMBS as u32 }.into());
        }
        let bootstrapped = self.parameters.bootstrap().is_some();
        let small_ring = self.parameters.small_ring();
        let max = match request.id {
            KeyId::DenseToSparse => 0,
            KeyId::ToSmallRing | KeyId::FromSmallRing => small_ring.as_ref().map_or(0, Parameters::top_level),
            _ => self.parameters.top_level(),
        };
        if request.level > max {
            return Err(Error::Field { field: Field::Level, have: request.level as u64, max: max as u64 });
        }
        let max = 2 * self.parameters.degree() as u32 - 1;
        let object = object_of(request.id);
        let exists = match request.id {
            KeyId::Relinearization => true,
            KeyId::Galois(g) => g % 2 == 1 && g > 1 && g <= max,
            KeyId::DenseToSparse | KeyId::SparseToDense => bootstrapped,
            KeyId::ToSmallRing | KeyId::FromSmallRing => small_ring.is_ok(),
            KeyId::Component { log_rank, index } => {
                (log_rank as u32) < self.parameters.degree().trailing_zeros() && index >> log_rank == 0
            }
        };
        let misfit = Error::Field { field: Field::Galois, have: object as u64, max: max as u64 };
        if exists { Ok(object) } else { Err(misfit) }
    }
}
