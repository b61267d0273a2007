//! The secret key: its seed and its release budget. Only the client calls
//! this; [`Reader`] refuses the kind everywhere else.
//!
//! Payload: the seed, 32 bytes; releases allowed, used, and their bits, 32
//! bits each. It passes through one buffer that is wiped, never through the
//! streaming checksum, which keeps what it was given. The bytes are not
//! encrypted: the sink must be a place for secrets, and it must not buffer.

use super::error::Field;
use super::frame::{Reader, checksum_of, drain, room_for};
use super::header::{Expected, Header, Kind, first};
use super::{Error, Sink, Source, TRAILER_LEN};
use crate::accel::Trusted;
use crate::ckks::Parameters;
use crate::ckks::client::{KeyTag, ReleaseBudget, SecretKey};
use crate::ring::SecretSeed;
use xxhash_rust::xxh3::xxh3_64_with_seed;
use zeroize::Zeroizing;

pub(super) const PAYLOAD: u64 = 44;

/// Payload and trailer.
const REST: usize = (PAYLOAD + TRAILER_LEN) as usize;

/// Writes the secret key and what is left of its budget. After every release
/// it must be written again, before the released values are shown.
///
/// # Errors
/// [`Error::NoRoom`], [`Error::Stream`].
pub fn write_secret_key<A: Trusted, S: Sink>(
    sink: &mut S,
    key: &SecretKey<'_, A>,
    budget: &ReleaseBudget,
) -> Result<(), Error> {
    let header = Header::new(Kind::SecretKey, key.parameters(), key.tag(), PAYLOAD);
    room_for(sink, header.object_len())?;
    let bytes = header.encode();
    let mut rest = Zeroizing::new([0; REST]);
    rest[..32].copy_from_slice(key.seed().expose());
    rest[32..36].copy_from_slice(&budget.allowed().to_le_bytes());
    rest[36..40].copy_from_slice(&budget.used().to_le_bytes());
    rest[40..44].copy_from_slice(&budget.bits().to_le_bytes());
    let checksum = xxh3_64_with_seed(&rest[..44], checksum_of(&bytes));
    rest[44..].copy_from_slice(&checksum.to_le_bytes());
    drain(sink, &bytes, header.object_len())?;
    drain(sink, &*rest, header.object_len())
}

/// Reads a secret key and makes it again from its seed. `signed` is scratch of N words.
///
/// # Errors
/// As [`super::Codec::read_ciphertext`]; [`Error::OtherKey`] also when the
/// seed makes another key than the header names; as [`SecretKey::generate`].
pub fn read_secret_key<'a, A: Trusted, S: Source>(
    reader: &mut Reader<S>,
    accelerator: &'a A,
    parameters: &'a Parameters,
    key: Option<KeyTag>,
    signed: &mut [i64],
) -> Result<(SecretKey<'a, A>, ReleaseBudget), Error> {
    let header = reader.expect(Kind::SecretKey, &Expected { parameters, key })?;
    let mut rest = Zeroizing::new([0; REST]);
    reader.secret_payload(PAYLOAD, &mut *rest)?;
    let field = |at: usize| rest[at..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
    let (allowed, used, bits) = (field(32), field(36), field(40));
    if used > allowed {
        return Err(Error::Field { field: Field::Releases, have: used as u64, max: allowed as u64 });
    }
    let budget = ReleaseBudget::resume(allowed, used, bits)?;
    let mut seed = Zeroizing::new([0; 32]);
    seed.copy_from_slice(&rest[..32]);
    let secret = SecretKey::generate(accelerator, parameters, SecretSeed::take(&mut seed), signed)?;
    if secret.tag() != header.key {
        return Err(Error::OtherKey { have: first(&header.key.0), need: first(&secret.tag().0) });
    }
    Ok((secret, budget))
}
