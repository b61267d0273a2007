//! The fixed header of every object.

use super::error::{Field, Part};
use super::{Error, MAGIC, VERSION};
use crate::ckks::client::KeyTag;
use crate::ckks::seeded::key_of;
use crate::ckks::{KeyId, Parameters};
use xxhash_rust::xxh3::xxh3_64;

/// Bytes of a header.
pub const HEADER_LEN: usize = 72;

/// Set in the code of every kind that is secret, so that even a kind this
/// build does not know is refused by readers of public objects.
const SECRET: u16 = 0x8000;

/// Flag: made under parameters without security.
const INSECURE: u32 = 1;

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
#[repr(u16)]
pub enum Kind {
    /// A parameters literal.
    Parameters = 1,
    /// A public encryption key, seeded.
    PublicKey = 2,
    /// A relinearisation or Galois key, seeded, trimmed to its level.
    SwitchingKey = 3,
    /// A ciphertext, both polynomials.
    Ciphertext = 4,
    /// A fresh ciphertext, one polynomial and a seed.
    SeededCiphertext = 5,
    /// Announces how many objects follow.
    Bundle = 6,
    /// Numbers that describe the objects after it.
    Record = 7,
    /// A secret key.
    SecretKey = SECRET | 1,
}

impl Kind {
    /// Its number in a header.
    pub const fn code(self) -> u16 {
        self as u16
    }

    /// The kind with this number.
    pub const fn from_code(code: u16) -> Option<Self> {
        Some(match code {
            1 => Self::Parameters,
            2 => Self::PublicKey,
            3 => Self::SwitchingKey,
            4 => Self::Ciphertext,
            5 => Self::SeededCiphertext,
            6 => Self::Bundle,
            7 => Self::Record,
            0x8001 => Self::SecretKey,
            _ => return None,
        })
    }

    /// Whether it must not leave the client.
    pub const fn is_secret(self) -> bool {
        self.code() & SECRET != 0
    }
}

/// The header, checked for itself; what it must agree with is checked by whoever reads on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Header {
    /// What follows.
    pub kind: Kind,
    /// Made under parameters without security.
    pub insecure: bool,
    /// First half of the parameters' fingerprint.
    pub parameters: [u8; 16],
    /// The name of the secret key it belongs to; all zero for none.
    pub key: KeyTag,
    /// Level of a ciphertext or key, else 0.
    pub level: u16,
    /// Which switching key: the automorphism of a Galois key, which is odd, 4
    /// and 6 to and from the ephemeral secret, else 0.
    pub galois: u32,
    /// Bytes between header and trailer.
    pub payload: u64,
}

impl Header {
    /// For an object of `kind` under `parameters`; level and automorphism 0.
    pub fn new(kind: Kind, parameters: &Parameters, key: KeyTag, payload: u64) -> Self {
        let insecure = parameters.is_insecure();
        Self { kind, insecure, parameters: short(parameters), key, level: 0, galois: 0, payload }
    }

    /// Bytes of the whole object.
    pub const fn object_len(&self) -> u64 {
        super::object_len(self.payload)
    }

    /// Which key, if it is a switching key: what an index of a file of keys needs.
    pub fn key_id(&self) -> Option<KeyId> {
        if self.kind == Kind::SwitchingKey { key_of(self.galois) } else { None }
    }

    /// The bytes, checksum included.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
        bytes[10..12].copy_from_slice(&self.kind.code().to_le_bytes());
        bytes[12..16].copy_from_slice(&(self.insecure as u32 * INSECURE).to_le_bytes());
        bytes[16..32].copy_from_slice(&self.parameters);
        bytes[32..48].copy_from_slice(&self.key.0);
        bytes[48..50].copy_from_slice(&self.level.to_le_bytes());
        // 50..52 reserved
        bytes[52..56].copy_from_slice(&self.galois.to_le_bytes());
        bytes[56..64].copy_from_slice(&self.payload.to_le_bytes());
        let checksum = xxh3_64(&bytes[..64]);
        bytes[64..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Checks, in this order: magic, version, checksum, kind, flags, reserved
    /// bytes. `bytes` may be what there was of a cut header: what can be said
    /// of it is said before [`Error::Truncated`].
    pub(super) fn decode(bytes: &[u8], secrets: Secrets) -> Result<Self, Error> {
        let have = bytes.len().min(MAGIC.len());
        if bytes[..have] != MAGIC[..have] {
            return Err(Error::NotOurs);
        }
        let mut at = MAGIC.len();
        let cut = Error::Truncated { have: bytes.len() as u64, need: HEADER_LEN as u64 };
        let version = u16::from_le_bytes(*take(bytes, &mut at).ok_or(cut)?);
        if version != VERSION {
            return Err(Error::Version { have: version, supported: VERSION });
        }
        let (covered, checksum) = match bytes.split_at_checked(HEADER_LEN - 8) {
            Some((covered, rest)) => (covered, rest.first_chunk().ok_or(cut)?),
            None => return Err(cut),
        };
        if xxh3_64(covered) != u64::from_le_bytes(*checksum) {
            return Err(Error::Corrupt { part: Part::Header });
        }
        let code = u16::from_le_bytes(*take(bytes, &mut at).ok_or(cut)?);
        let kind = match Kind::from_code(code) {
            _ if code & SECRET != 0 && secrets == Secrets::Refuse => return Err(Error::SecretNotAllowed),
            Some(kind) => kind,
            None => return Err(Error::Kind { have: code, expected: None }),
        };
        let flags = u32::from_le_bytes(*take(bytes, &mut at).ok_or(cut)?);
        if flags > INSECURE {
            return Err(Error::Field { field: Field::Flags, have: flags as u64, max: INSECURE as u64 });
        }
        let parameters = *take(bytes, &mut at).ok_or(cut)?;
        let key = KeyTag(*take(bytes, &mut at).ok_or(cut)?);
        let level = u16::from_le_bytes(*take(bytes, &mut at).ok_or(cut)?);
        let reserved = u16::from_le_bytes(*take(bytes, &mut at).ok_or(cut)?);
        if reserved != 0 {
            return Err(Error::Field { field: Field::Reserved, have: reserved as u64, max: 0 });
        }
        let galois = u32::from_le_bytes(*take(bytes, &mut at).ok_or(cut)?);
        let payload = u64::from_le_bytes(*take(bytes, &mut at).ok_or(cut)?);
        Ok(Self { kind, insecure: flags == INSECURE, parameters, key, level, galois, payload })
    }

    /// Checks, in this order: kind, security mark, parameters, key, fields
    /// that the kind does not use. Level and payload are checked by
    /// [`Self::expect_payload`], once the level is known to be the caller's.
    pub(super) fn expect(&self, kind: Kind, expected: &Expected<'_>) -> Result<(), Error> {
        if self.kind != kind {
            return Err(Error::Kind { have: self.kind.code(), expected: Some(kind) });
        }
        if self.insecure && !expected.parameters.is_insecure() {
            return Err(Error::InsecureMark);
        }
        let parameters = short(expected.parameters);
        if self.parameters != parameters {
            return Err(Error::OtherParameters { have: first(&self.parameters), need: first(&parameters) });
        }
        if self.insecure != expected.parameters.is_insecure() {
            return Err(Error::Field { field: Field::Flags, have: 0, max: INSECURE as u64 });
        }
        match expected.key {
            Some(key) if key != self.key => {
                return Err(Error::OtherKey { have: first(&self.key.0), need: first(&key.0) });
            }
            _ => {}
        }
        let max = match kind {
            // Bootstrapping needs keys above the level of any ciphertext that travels.
            Kind::SwitchingKey => expected.parameters.top_level() as u64,
            Kind::Ciphertext | Kind::SeededCiphertext => expected.parameters.max_level() as u64,
            _ => 0,
        };
        if self.level as u64 > max {
            return Err(Error::Field { field: Field::Level, have: self.level as u64, max });
        }
        if kind != Kind::SwitchingKey && self.galois != 0 {
            return Err(Error::Field { field: Field::Galois, have: self.galois as u64, max: 0 });
        }
        Ok(())
    }

    /// The payload is exactly as long as the kind, the level and the parameters make it.
    pub(super) fn expect_payload(&self, need: u64) -> Result<(), Error> {
        match self.payload {
            have if have > need => Err(Error::TooLarge { have, max: need }),
            have if have < need => Err(Error::Truncated { have, need }),
            _ => Ok(()),
        }
    }
}

/// Whether secret kinds may be read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Secrets {
    Refuse,
    Accept,
}

/// What an object must agree with.
#[derive(Clone, Copy)]
pub struct Expected<'a> {
    /// The parameters it must be made under.
    pub parameters: &'a Parameters,
    /// The secret key it must belong to; `None` accepts any.
    pub key: Option<KeyTag>,
}

fn take<'b, const COUNT: usize>(bytes: &'b [u8], at: &mut usize) -> Option<&'b [u8; COUNT]> {
    let taken = bytes.get(*at..)?.first_chunk()?;
    *at += COUNT;
    Some(taken)
}

/// The half of a fingerprint that a header carries.
fn short(parameters: &Parameters) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&parameters.fingerprint()[..16]);
    half
}

/// The first eight bytes, as a number that prints in the order of the bytes.
pub(super) fn first(bytes: &[u8; 16]) -> u64 {
    bytes[..8].iter().fold(0, |number, &byte| number << 8 | byte as u64)
}
