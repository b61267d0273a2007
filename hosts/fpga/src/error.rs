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
