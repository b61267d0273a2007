//! What can go wrong below the seam.

/// Coarse kinds, in the manner of embedded-hal, for callers that react to a
/// class of failure rather than to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum ErrorKind {
    /// A fixed pool is empty: hand over more memory.
    Memory,
    /// The caller's slices, bases or parameters do not fit together.
    Shape,
    /// The device failed or answered wrongly.
    Device,
    /// The device cannot do this at all.
    Unsupported,
    /// None of the above.
    Other,
}

/// An accelerator's error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Error {
    /// Every limb of the pool is out.
    OutOfLimbs {
        /// Limbs in the pool.
        capacity: usize,
    },
    /// A slice has the wrong length, or a basis does not fit the chain.
    Shape {
        /// Length given.
        have: usize,
        /// Length expected.
        need: usize,
    },
    /// A value is outside the range a kernel accepts.
    Range,
    /// The device failed.
    Device {
        /// The class of failure.
        kind: ErrorKind,
    },
}

impl Error {
    /// The class of this error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::OutOfLimbs { .. } => ErrorKind::Memory,
            Self::Shape { .. } | Self::Range => ErrorKind::Shape,
            Self::Device { kind } => *kind,
        }
    }
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::OutOfLimbs { capacity } => {
                write!(f, "all {capacity} limbs of the pool are in use; set it up with more")
            }
            Self::Shape { have, need } => write!(f, "wrong shape: {need} expected, {have} given"),
            Self::Range => write!(f, "a value is outside the range the kernel accepts"),
            Self::Device { kind } => write!(f, "the accelerator failed: {kind:?}"),
        }
    }
}

impl core::error::Error for Error {}
