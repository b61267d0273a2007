//! Parameters: the literal, and the fingerprint of what it must become.
//!
//! The primes are not stored. Whoever reads derives them again, and the
//! fingerprint over every prime shows whether they are the writer's.
//!
//! Payload: seven fields of the literal, the distribution of the secret, the
//! promise, and seven fields of bootstrapping (all zero for none), 32 bits each;
//! the fingerprint, 32 bytes.

use super::error::Field;
use super::frame::{ObjectWriter, Reader};
use super::header::{Header, Kind, first};
use super::{Error, Sink, Source};
use crate::ckks::client::KeyTag;
use crate::ckks::{BootstrapLiteral, Parameters, ParametersLiteral, SecretDistribution, Security};

const FIELDS: usize = 9 + BootstrapLiteral::FIELDS;
const NO_KEY: KeyTag = KeyTag([0; 16]);
pub(super) const PAYLOAD: u64 = 4 * FIELDS as u64 + 32;

/// Writes `parameters`.
///
/// # Errors
/// [`Error::NoRoom`], [`Error::Stream`].
pub fn write_parameters<S: Sink>(sink: &mut S, parameters: &Parameters) -> Result<(), Error> {
    let mut writer = ObjectWriter::new(sink, &Header::new(Kind::Parameters, parameters, NO_KEY, PAYLOAD))?;
    let literal = parameters.literal();
    let fields = [
        literal.log_degree,
        literal.base_bits,
        literal.scale_bits,
        literal.levels,
        literal.special_primes,
        literal.special_bits,
        literal.digit_size,
        match literal.secret {
            SecretDistribution::UniformTernary => 0,
        },
        match literal.security {
            Security::Classical128 => 1,
            #[cfg(feature = "insecure-toy")]
            Security::InsecureToy => 0,
        },
    ];
    let bootstrap = literal.bootstrap.map_or([0; BootstrapLiteral::FIELDS], |b| b.fields());
    for field in fields.into_iter().chain(bootstrap) {
        writer.bytes(&field.to_le_bytes())?;
    }
    writer.bytes(parameters.fingerprint())?;
    writer.finish()
}

/// Reads parameters and checks them as if they had been typed in.
///
/// # Errors
/// As [`Reader::header`]; then [`Error::Kind`]; [`Error::InsecureMark`] unless
/// `allow_insecure` and the feature `insecure-toy` is on; [`Error::Truncated`],
/// [`Error::TooLarge`], [`Error::Corrupt`]; [`Error::Field`] or [`Error::Scheme`]
/// when no writer of ours would have written them; [`Error::OtherParameters`]
/// when this build derives other primes.
pub fn read_parameters<S: Source>(reader: &mut Reader<S>, allow_insecure: bool) -> Result<Parameters, Error> {
    let header = reader.header()?;
    if header.kind != Kind::Parameters {
        return Err(Error::Kind { have: header.kind.code(), expected: Some(Kind::Parameters) });
    }
    if header.insecure && !(allow_insecure && cfg!(feature = "insecure-toy")) {
        return Err(Error::InsecureMark);
    }
    for (field, have) in [
        // Any byte of a name counts.
        (Field::Key, header.key.0.iter().fold(0, |any, &byte| any | byte as u64)),
        (Field::Level, header.level as u64),
        (Field::Galois, header.galois as u64),
    ] {
        if have != 0 {
            return Err(Error::Field { field, have, max: 0 });
        }
    }
    let mut object = reader.payload(PAYLOAD)?;
    let mut fields = [0u32; FIELDS];
    for field in &mut fields {
        let mut bytes = [0; 4];
        object.bytes(&mut bytes)?;
        *field = u32::from_le_bytes(bytes);
    }
    let mut fingerprint = [0; 32];
    object.bytes(&mut fingerprint)?;
    object.finish()?;

    let [
        log_degree,
        base_bits,
        scale_bits,
        levels,
        special_primes,
        special_bits,
        digit_size,
        secret,
        security,
        bootstrap @ ..,
    ] = fields;
    let outside = |have: u32, max: u64| Error::Field { field: Field::Parameters, have: have as u64, max };
    if bootstrap[BootstrapLiteral::FIELDS - 1] > 1 {
        return Err(outside(bootstrap[BootstrapLiteral::FIELDS - 1], 1));
    }
    let literal = ParametersLiteral {
        log_degree,
        base_bits,
        scale_bits,
        levels,
        special_primes,
        special_bits,
        digit_size,
        bootstrap: (bootstrap != [0; BootstrapLiteral::FIELDS])
            .then(|| BootstrapLiteral::from_fields(bootstrap)),
        secret: match secret {
            0 => SecretDistribution::UniformTernary,
            _ => return Err(outside(secret, 0)),
        },
        security: match security {
            1 => Security::Classical128,
            #[cfg(feature = "insecure-toy")]
            0 => Security::InsecureToy,
            #[cfg(not(feature = "insecure-toy"))]
            0 => return Err(Error::InsecureMark),
            _ => return Err(outside(security, 1)),
        },
    };
    if header.insecure != (security == 0) {
        return Err(Error::Field {
            field: Field::Flags,
            have: header.insecure as u64,
            max: (security == 0) as u64,
        });
    }
    let parameters = literal.check()?;
    let need = Header::new(Kind::Parameters, &parameters, NO_KEY, PAYLOAD).parameters;
    if fingerprint != *parameters.fingerprint() || header.parameters != need {
        return Err(Error::OtherParameters { have: first(&header.parameters), need: first(&need) });
    }
    Ok(parameters)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{HEADER_LEN, Reader};

    #[test]
    fn a_mark_of_no_security_is_refused_whoever_asks() {
        let parameters = ParametersLiteral::N12_EDGE.check().unwrap();
        let mut file = heapless::Vec::<u8, 256>::new();
        write_parameters(&mut file, &parameters).unwrap();
        let marked = Header { insecure: true, ..Header::new(Kind::Parameters, &parameters, NO_KEY, PAYLOAD) };
        file[..HEADER_LEN].copy_from_slice(&marked.encode());
        let read = |allow| read_parameters(&mut Reader::new(file.as_slice()), allow).err();
        assert_eq!(read(false), Some(Error::InsecureMark));
        // With the feature, the payload is reached; it was made for another header.
        let with_feature = Error::Corrupt { part: crate::wire::Part::Payload };
        let expected = if cfg!(feature = "insecure-toy") { with_feature } else { Error::InsecureMark };
        assert_eq!(read(true), Some(expected));
    }
}
