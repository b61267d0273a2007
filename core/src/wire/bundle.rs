//! A bundle announces how many objects follow it in the same file.
//!
//! Payload: tag, count, bytes of all the objects; 64 bits each. Each object
//! keeps its own header and trailer, so a bundle is written and read as a
//! stream, and a damaged object is known by its place.

use super::frame::{ObjectWriter, Reader, room_for};
use super::header::{Expected, Header, Kind};
use super::{Error, Sink, Source};
use crate::ckks::Parameters;
use crate::ckks::client::KeyTag;

pub(super) const PAYLOAD: u64 = 24;

/// What a bundle announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Bundle {
    /// What the objects are together; the application's to choose.
    pub tag: u64,
    /// How many objects follow.
    pub count: u64,
    /// How many bytes they are.
    pub bytes: u64,
}

/// Writes the announcement; the caller then writes `bundle.count` objects.
///
/// # Errors
/// [`Error::NoRoom`] also when the sink knows that the objects will not fit.
pub fn write_bundle<S: Sink>(
    sink: &mut S,
    parameters: &Parameters,
    key: KeyTag,
    bundle: &Bundle,
) -> Result<(), Error> {
    let header = Header::new(Kind::Bundle, parameters, key, PAYLOAD);
    let need = header.object_len().saturating_add(bundle.bytes);
    room_for(sink, need)?;
    let mut writer = ObjectWriter::new(sink, &header)?;
    for field in [bundle.tag, bundle.count, bundle.bytes] {
        writer.bytes(&field.to_le_bytes())?;
    }
    writer.finish()
}

/// Reads an announcement.
///
/// # Errors
/// As [`Reader::header`] and the checks of [`Expected`]; [`Error::Truncated`]
/// when the source knows that fewer bytes follow than announced.
pub fn read_bundle<S: Source>(
    reader: &mut Reader<S>,
    expected: &Expected<'_>,
) -> Result<(Header, Bundle), Error> {
    let header = reader.expect(Kind::Bundle, expected)?;
    let mut object = reader.payload(PAYLOAD)?;
    let mut fields = [0; 3];
    for field in &mut fields {
        let mut bytes = [0; 8];
        object.bytes(&mut bytes)?;
        *field = u64::from_le_bytes(bytes);
    }
    object.finish()?;
    let [tag, count, bytes] = fields;
    // Every object has a header and a trailer.
    let need = count.saturating_mul(super::object_len(0));
    if bytes < need {
        return Err(Error::Truncated { have: bytes, need });
    }
    match reader.remaining() {
        Some(have) if have < bytes => Err(Error::Truncated { have, need: bytes }),
        _ => Ok((header, Bundle { tag, count, bytes })),
    }
}
