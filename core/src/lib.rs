//! Private fine-tuning and inference of transformers under CKKS, for machines
//! with and without an operating system.
//!
//! Rooms, each using only those to its right:
//!
//! ```text
//! transformer ─► matrix ─► ckks ─► accel ─► ring ─► memory        (approx and wire beside ckks)
//! ```
//!
//! The crate allocates nothing: every buffer comes from memory its caller
//! hands over, and every size can be read before that memory is bought.
#![no_std]
#![forbid(unsafe_code)]

pub mod accel;
pub mod approx;
pub mod ckks;
pub mod matrix;
pub mod memory;
pub mod ring;
pub mod transformer;
pub mod wire;
