//! CKKS.
