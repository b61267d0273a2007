//! Encrypted matrices in a small ring.

pub mod lanes;
