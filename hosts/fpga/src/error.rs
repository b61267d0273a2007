//! What a driver reports.

use veilformer::accel::engine::{EngineError, EngineErrorKind};

use crate::BusError;

/// An error of [`BoardDriver`](crate::BoardDriver) over a bus whose errors are `E`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum DriverError<E> {
    /// The bus failed.
    Bus(E),
    /// The magic register read something else: no board, wrong address, wrong byte order.
    Magic {
        /// What was read.
        found: u32,
    },
    /// The board's register map has another major version.
    Version {
        /// Major version read.
        major: u16,
        /// Minor version read.
        minor: u16,
    },
    /// An information register reads nonsense (no banks, degrees out of order, a queue that is no power of two).
    Info {
        /// Address of the register.
        address: u32,
        /// What was read.
        found: u32,
    },
    /// The board cannot hold this degree or modulus.
    Unsupported {
        /// `log2 N` asked for.
        log_n: u8,
        /// Modulus asked for.
        q: u64,
    },
    /// No such table slot.
    Slot {
        /// The slot asked for.
        slot: u16,
    },
    /// Nothing was loaded into this table slot.
    NoTable {
        /// The slot asked for.
        slot: u16,
    },
    /// `psi` is not a primitive `2N`-th root of unity modulo `q`.
    Root {
        /// The modulus.
        q: u64,
        /// The root that is none.
        psi: u64,
    },
    /// An empty batch, or more limbs than the board takes.
    BatchSize {
        /// Limbs given.
        limbs: usize,
        /// The limit.
        max: usize,
    },
    /// A limb of the wrong length.
    Length {
        /// Its place in the batch.
        limb: usize,
        /// Its length.
        words: usize,
        /// N.
        expected: usize,
    },
    /// This ticket is not the oldest complete batch.
    Ticket {
        /// The ticket given.
        found: u32,
    },
    /// Tables are loaded while nothing is in flight.
    InFlight {
        /// Batches in flight.
        batches: u8,
    },
    /// Nothing is in flight.
    Idle,
    /// An earlier error lost the batches in flight; call `reset`.
    Lost,
    /// The board retired nothing for this many polls.
    Deadline {
        /// Polls without progress.
        polls: u32,
    },
    /// The board stopped: bits of its fault register.
    Fault {
        /// See `regmap::fault`.
        bits: u32,
    },
    /// The board claims to have retired commands it was never given.
    Head {
        /// Commands retired, as claimed.
        found: u16,
        /// Commands posted.
        tail: u16,
    },
}

impl<E: core::fmt::Debug> core::fmt::Display for DriverError<E> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Bus(e) => write!(f, "the link to the board failed: {e:?}"),
            Self::Magic { found } => {
                write!(f, "no NTT board answers: the magic register reads {found:#010x}")
            }
            Self::Version { major, minor } => {
                write!(
                    f,
                    "the board's register map is version {major}.{minor}, which this driver does not speak"
                )
            }
            Self::Info { address, found } => {
                write!(
                    f,
                    "the board's information register {address:#x} reads {found:#010x}, which makes no sense"
                )
            }
            Self::Unsupported { log_n, q } => {
                write!(f, "the board has no room for N = 2^{log_n} or for the modulus {q}")
            }
            Self::Slot { slot } => write!(f, "the board has no table {slot}"),
            Self::NoTable { slot } => write!(f, "nothing was loaded into table {slot}"),
            Self::Root { q, psi } => write!(f, "{psi} is no primitive 2N-th root of unity modulo {q}"),
            Self::BatchSize { limbs, max } => write!(f, "a batch has 1 to {max} limbs, got {limbs}"),
            Self::Length { limb, words, expected } => {
                write!(f, "limb {limb} of the batch has {words} words instead of {expected}")
            }
            Self::Ticket { found } => write!(f, "batch {found} is not the oldest complete one"),
            Self::InFlight { batches } => {
                write!(f, "{batches} batches are in flight; collect them or reset the board first")
            }
            Self::Idle => write!(f, "no batch is in flight"),
            Self::Lost => write!(f, "an earlier error lost the batches in flight; reset the board"),
            Self::Deadline { polls } => write!(f, "the board retired nothing during {polls} polls"),
            Self::Fault { bits } => write!(f, "the board stopped; its fault register reads {bits:#x}"),
            Self::Head { found, tail } => {
                write!(f, "the board claims {found} commands done where {tail} were posted")
            }
        }
    }
}

impl<E: core::fmt::Debug> core::error::Error for DriverError<E> {}

impl<E: BusError> EngineError for DriverError<E> {
    fn kind(&self) -> EngineErrorKind {
        match self {
            Self::Bus(_) => EngineErrorKind::Transport,
            Self::Magic { .. } | Self::Version { .. } | Self::Info { .. } => EngineErrorKind::Incompatible,
            Self::Unsupported { .. } => EngineErrorKind::Unsupported,
            Self::Slot { .. }
            | Self::NoTable { .. }
            | Self::Root { .. }
            | Self::BatchSize { .. }
            | Self::Length { .. }
            | Self::Ticket { .. }
            | Self::InFlight { .. }
            | Self::Idle => EngineErrorKind::Argument,
            Self::Deadline { .. } => EngineErrorKind::Deadline,
            Self::Fault { .. } | Self::Head { .. } | Self::Lost => EngineErrorKind::Fault,
        }
    }
}
