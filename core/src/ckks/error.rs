//! Errors of the scheme: numbers, no strings, nothing secret.

use super::KeyId;
use crate::accel;
use crate::memory::OutOfMemory;
use crate::ring::ChainError;

/// What went wrong, and what was expected.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Error {
    /// Parameters ask for more modulus than 128-bit security allows.
    Insecure {
        /// log2 N.
        log_degree: u32,
        /// log2 QP, rounded up.
        log_qp: u32,
        /// The cap at this degree.
        cap: u32,
    },
    /// A field of the literal is outside its range.
    Parameter {
        /// Which field.
        field: ParameterField,
        /// Value given.
        given: u32,
        /// Smallest allowed.
        min: u32,
        /// Largest allowed.
        max: u32,
    },
    /// There are not enough primes of this size for this degree.
    NoPrime {
        /// Bits asked for.
        bits: u32,
        /// log2 N.
        log_degree: u32,
    },
    /// The primes do not form a chain.
    Chain(ChainError),
    /// The accelerator was set up with another chain than the parameters'.
    OtherChain,
    /// An operand is at another level than required.
    Level {
        /// Level of the operand.
        have: usize,
        /// Level required.
        need: usize,
    },
    /// No level is left for an operation that consumes some.
    LevelsExhausted {
        /// Level of the operand.
        have: usize,
        /// Levels the operation consumes.
        need: usize,
    },
    /// A key that the operation needs was not supplied, or only below this level.
    MissingKey {
        /// Which key.
        id: KeyId,
        /// The level it is needed at.
        level: usize,
    },
    /// A source of keys has this one but could not load it; the source knows why.
    UnreadableKey {
        /// Which key.
        id: KeyId,
    },
    /// The parameters have no bootstrapping.
    NoBootstrap,
    /// A fixed list is full.
    Full {
        /// Its capacity.
        capacity: usize,
    },
    /// A slice has another length than expected.
    Length {
        /// Length given.
        have: usize,
        /// Length expected.
        need: usize,
    },
    /// A value to be encoded is not finite or too large for the scale.
    NotEncodable {
        /// Index of the first such value.
        index: usize,
    },
    /// The releases allowed for a key are used up.
    ReleasesExhausted {
        /// How many were allowed.
        allowed: u32,
    },
    /// Too little memory.
    Memory(OutOfMemory),
    /// The accelerator failed.
    Accelerator(accel::Error),
}

/// Fields of a [`super::ParametersLiteral`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum ParameterField {
    /// log2 N.
    LogDegree,
    /// Bits of q_0.
    BaseBits,
    /// Bits of the scale.
    ScaleBits,
    /// Multiplicative levels.
    Levels,
    /// Number of special primes.
    SpecialPrimes,
    /// Bits of a special prime.
    SpecialBits,
    /// Ordinary primes to a digit.
    DigitSize,
    /// Bits of the primes that bootstrapping consumes.
    WorkingBits,
    /// Levels of CoeffToSlot.
    CoeffToSlot,
    /// Levels of SlotToCoeff.
    SlotToCoeff,
    /// The level at which SlotToCoeff ends.
    CoefficientLevel,
    /// log2 of q_0 over the message's scale when it is raised.
    RatioBits,
    /// Weight of the ephemeral secret.
    EphemeralWeight,
    /// log2 of the range of slots to be bootstrapped.
    RangeBits,
    /// Bits of security of a released decryption.
    ReleaseBits,
    /// Columns of a row of lanes, a power of two.
    LaneWidth,
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Insecure { log_degree, log_qp, cap } => write!(
                f,
                "log2 QP is {log_qp} but 128-bit security at N = 2^{log_degree} allows {cap}; \
                 use fewer levels, smaller primes or a larger degree"
            ),
            Self::Parameter { field, given, min, max } => {
                write!(f, "{field:?} must be {min} to {max}, got {given}")
            }
            Self::NoPrime { bits, log_degree } => {
                write!(f, "not enough {bits}-bit primes that are 1 modulo 2^{}", log_degree + 1)
            }
            Self::Chain(error) => error.fmt(f),
            Self::OtherChain => write!(f, "the accelerator was set up for other parameters"),
            Self::Level { have, need } => write!(f, "operand at level {have}, level {need} required"),
            Self::LevelsExhausted { have, need } => {
                write!(f, "the operation consumes {need} levels and only {have} are left")
            }
            Self::MissingKey { id, level } => {
                write!(
                    f,
                    "missing evaluation key {id:?} at level {level}; request it when keys are generated"
                )
            }
            Self::UnreadableKey { id } => write!(f, "evaluation key {id:?} could not be loaded"),
            Self::NoBootstrap => {
                write!(f, "these parameters have no bootstrapping; choose a set that has, such as n16/boot")
            }
            Self::Full { capacity } => write!(f, "a fixed list of {capacity} entries is full"),
            Self::Length { have, need } => write!(f, "expected {need} values, got {have}"),
            Self::NotEncodable { index } => {
                write!(f, "value {index} is not finite or too large for the scale")
            }
            Self::ReleasesExhausted { allowed } => {
                write!(f, "all {allowed} releases allowed for this key are used")
            }
            Self::Memory(error) => error.fmt(f),
            Self::Accelerator(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for Error {}

impl From<accel::Error> for Error {
    fn from(error: accel::Error) -> Self {
        Self::Accelerator(error)
    }
}

impl From<OutOfMemory> for Error {
    fn from(error: OutOfMemory) -> Self {
        Self::Memory(error)
    }
}

impl From<ChainError> for Error {
    fn from(error: ChainError) -> Self {
        Self::Chain(error)
    }
}
