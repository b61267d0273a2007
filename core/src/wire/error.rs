//! Why bytes were not accepted, or could not be written.

use super::{Fault, Kind};
use crate::accel;
use crate::ckks;
use crate::memory::OutOfMemory;

/// One cause each. Whatever the bytes are, reading them ends in an object or
/// in one of these.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Error {
    /// The first bytes are not those of any object of ours.
    NotOurs,
    /// Written in a format this build does not read.
    Version {
        /// Version of the object.
        have: u16,
        /// Version this build reads.
        supported: u16,
    },
    /// The bytes changed since they were written.
    Corrupt {
        /// Where.
        part: Part,
    },
    /// Another kind of object than the one asked for.
    Kind {
        /// Code of the object's kind.
        have: u16,
        /// The kind asked for; `None` when any known one would do.
        expected: Option<Kind>,
    },
    /// A secret where only public objects are read. Keep it on the client.
    SecretNotAllowed,
    /// Made under parameters without security, where secure ones are required
    /// or without the feature `insecure-toy`.
    InsecureMark,
    /// Made under other parameters. Both fingerprints, first eight bytes.
    OtherParameters {
        /// The object's.
        have: u64,
        /// The caller's.
        need: u64,
    },
    /// Belongs to another secret key. Both names, first eight bytes.
    OtherKey {
        /// The object's.
        have: u64,
        /// The caller's.
        need: u64,
    },
    /// Intact, but a field holds what no writer of ours puts there.
    Field {
        /// Which.
        field: Field,
        /// Its value.
        have: u64,
        /// The largest value allowed.
        max: u64,
    },
    /// Fewer bytes than the object needs.
    Truncated {
        /// Bytes there were, or that the object declares.
        have: u64,
        /// Bytes it needs.
        need: u64,
    },
    /// Declares more bytes than an object of its kind has.
    TooLarge {
        /// Bytes declared.
        have: u64,
        /// Bytes such an object has.
        max: u64,
    },
    /// Bytes after the last object.
    Trailing {
        /// How many, as far as the source can tell.
        bytes: u64,
    },
    /// Intact, but a residue is not below its prime: no writer of ours made it.
    ResidueOutOfRange {
        /// The first such limb, in the order of the payload.
        limb: usize,
    },
    /// The sink has too little room. Nothing was written, unless the sink
    /// could not tell ([`super::Sink::room`]) and ran full.
    NoRoom {
        /// Bytes left.
        have: u64,
        /// Bytes needed.
        need: u64,
    },
    /// More or fewer bytes were given to a writer than its header declares.
    Unbalanced {
        /// Bytes given.
        have: u64,
        /// Bytes declared.
        need: u64,
    },
    /// A prime does not fit the words of this back-end.
    WordTooNarrow {
        /// Bits of the prime.
        bits: u32,
        /// Bits that fit.
        max: u32,
    },
    /// The source or the sink failed.
    Stream(Fault),
    /// The parameters, the objects or the accelerator.
    Scheme(ckks::Error),
}

/// A part of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Part {
    /// The first [`super::HEADER_LEN`] bytes.
    Header,
    /// Everything after it.
    Payload,
}

/// A field of a header or of a small payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Field {
    /// Flags.
    Flags,
    /// Level.
    Level,
    /// The automorphism of a switching key.
    Galois,
    /// The name of a secret key, where there is none.
    Key,
    /// Bytes kept for later versions.
    Reserved,
    /// A field of parameters.
    Parameters,
    /// The releases used of those a key allows.
    Releases,
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NotOurs => write!(f, "not a Veilformer object: it starts with other bytes"),
            Self::Version { have, supported } => {
                write!(f, "format version {have}; this build reads version {supported}")
            }
            Self::Corrupt { part } => {
                write!(f, "the {part:?} was damaged after it was written: checksum differs")
            }
            Self::Kind { have, expected: Some(kind) } => {
                write!(f, "expected {kind:?}, got an object of ")?;
                match Kind::from_code(*have) {
                    Some(kind) => write!(f, "kind {kind:?}"),
                    None => write!(f, "unknown kind {have:#06x}"),
                }
            }
            Self::Kind { have, expected: None } => write!(f, "unknown or unsuitable kind {have:#06x}"),
            Self::SecretNotAllowed => {
                write!(f, "this is a secret key; it never leaves the client, and nothing here may read it")
            }
            Self::InsecureMark => {
                write!(f, "made under parameters without any security, where secure ones are required")
            }
            Self::OtherParameters { have, need } => {
                write!(f, "made under other parameters: fingerprint {have:016x}, expected {need:016x}")
            }
            Self::OtherKey { have, need } => {
                write!(f, "belongs to another secret key: {have:016x}, expected {need:016x}")
            }
            Self::Field { field, have, max } => {
                write!(f, "intact but malformed: {field:?} is {have}, at most {max} is allowed")
            }
            Self::Truncated { have, need } => write!(f, "cut short: {have} of {need} bytes"),
            Self::TooLarge { have, max } => write!(f, "declares {have} bytes where {max} are expected"),
            Self::Trailing { bytes } => write!(f, "at least {bytes} more bytes after the last object"),
            Self::ResidueOutOfRange { limb } => {
                write!(f, "intact but malformed: limb {limb} exceeds its prime")
            }
            Self::NoRoom { have, need } => write!(f, "{need} bytes to write and room for {have}"),
            Self::Unbalanced { have, need } => write!(f, "{have} bytes given for a payload of {need}"),
            Self::WordTooNarrow { bits, max } => {
                write!(f, "a prime of {bits} bits does not fit this back-end's words, which hold {max}")
            }
            Self::Stream(fault) => write!(f, "the stream failed with code {}", fault.code),
            Self::Scheme(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for Error {}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        Self::Stream(fault)
    }
}

impl From<ckks::Error> for Error {
    fn from(error: ckks::Error) -> Self {
        Self::Scheme(error)
    }
}

impl From<accel::Error> for Error {
    fn from(error: accel::Error) -> Self {
        Self::Scheme(error.into())
    }
}

impl From<OutOfMemory> for Error {
    fn from(error: OutOfMemory) -> Self {
        Self::Scheme(error.into())
    }
}
