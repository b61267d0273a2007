//! Plaintext side of Veilformer: f64 executors, trainer, polynomial calibration, planner.
