#![no_std]
#![forbid(unsafe_code)]
//! Veilformer core.

pub mod accel;
