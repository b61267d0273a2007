//! Veilformer on a host with an operating system: an accelerator that runs on
//! every core with the best instructions it finds, on pooled huge pages.
//!
//! Results are the same bit for bit on every path and any number of threads.
//! Unsafe code is confined to `kernels` and `memory`.

mod accelerator;
pub mod kernels;
mod memory;

pub use accelerator::{Multicore, SetupError};
pub use memory::Limb;
