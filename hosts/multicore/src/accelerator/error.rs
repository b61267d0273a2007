//! Why there is no accelerator.

use crate::kernels::KernelError;

/// Why the accelerator could not be set up.
#[derive(Debug)]
#[non_exhaustive]
pub enum SetupError {
    /// The kernels or a prime.
    Kernel(KernelError),
    /// The threads.
    Threads(rayon::ThreadPoolBuildError),
}

impl std::fmt::Display for SetupError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Kernel(error) => error.fmt(f),
            Self::Threads(error) => write!(f, "cannot start worker threads: {error}"),
        }
    }
}

impl std::error::Error for SetupError {}

impl From<KernelError> for SetupError {
    fn from(error: KernelError) -> Self {
        Self::Kernel(error)
    }
}
