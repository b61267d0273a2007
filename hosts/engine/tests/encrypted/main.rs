//! Encrypted transformers against the same polynomials in f64, on toy parameters, which are insecure.

mod forward;
mod plan;
mod training;
mod watched;
mod world;
