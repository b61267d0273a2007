//! Plaintext side of Veilformer: f64 executors, trainer, polynomial calibration, planner.
pub mod data;
pub mod executor;
pub mod gradient;
pub mod model;
pub mod optimizer;
pub mod parameters;
pub mod random;
pub mod remez;
pub mod scalar;
pub mod sites;
pub mod tensor;
pub mod tokenizer;
pub mod train;
