//! Fixed memory: an arena for tables that live as long as the program, and a
//! pool of equal limbs for everything that comes and goes.
//!
//! Both work on a caller's `&mut [W]`. Running out is a typed error that
//! carries both numbers (what is there, what was needed), never a panic.

mod arena;
mod pool;

pub use arena::{Arena, OutOfMemory};
pub use pool::{LimbPool, PoolLimb};
