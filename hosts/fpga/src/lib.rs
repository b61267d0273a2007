#![no_std]
#![forbid(unsafe_code)]
//! Drivers for NTT boards, for hosts with and without an operating system.
//!
//! ```text
//! veilformer::accel::Offload          verifies, retries, falls back, counts
//!         │ NttEngine
//!     BoardDriver                     banks, command queue, deadlines
//!         │ RegisterBus
//!     SpiBus · your link · device model (crate `veilformer-board`)
//! ```
//!
//! A board that follows `hw/regmap.toml` needs one trait to be implemented, [`RegisterBus`]: four ways to move
//! words. The constants in [`regmap`] are generated from that file when the crate is built, so the driver, the
//! device model and the RTL cannot disagree on an address.

mod bus;
mod driver;
mod error;
mod montgomery;
pub mod regmap;
mod spi;

pub use bus::{BusError, BusErrorKind, RegisterBus};
pub use driver::{BoardDriver, Info, MAX_BATCH, MAX_TABLES, Traffic};
pub use error::DriverError;
pub use spi::{SpiBus, frame};
