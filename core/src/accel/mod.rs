//! The seam for accelerators.

pub mod engine;
