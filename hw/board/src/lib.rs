//! Functional model of an NTT board behind its register map: what a driver sees of the hardware, its clock and
//! its faults.
//!
//! [`Board`] implements `RegisterBus`, so the driver that will run the hardware runs the model; [`SpiBoard`]
//! puts the same board behind a byte-level SPI device. The model is *functional*: banks, tables, queue and
//! faults behave as `hw/regmap.toml` says, and a transform takes as many clocks as the pipeline would
//! ([`Timing`]), but no gate is simulated.
//!
//! The arithmetic ([`math`]) shares nothing with the core: remainders of 128-bit products, checked against
//! evaluation by definition. So an error in the core's transform cannot hide here.

mod device;
mod fault;
pub mod math;
mod spi;

pub use device::{Board, BoardConfig, BoardError, Timing};
pub use fault::{FaultEvent, FaultKind, FaultPlan};
pub use spi::{SpiBoard, SpiBoardError};
