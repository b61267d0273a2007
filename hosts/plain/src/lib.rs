//! Plaintext side of Veilformer: what needs a heap but no secret.
//!
//! * [`executor`], [`gradient`]: the program of `veilformer::transformer` on matrices of f32 or f64, exact or with the
//!   shipped polynomials, forward and backward. The reference for every encrypted run.
//! * [`sites`], [`remez`]: calibration: the ranges seen at every non-linear site, and the polynomials fitted to them.
//! * [`finetune`], [`noise`]: fine-tuning as it is done under encryption, and the noise it would see there.
//! * [`train`], [`optimizer`], [`recipe`]: the trainer, and how the shipped model is made.
//! * [`slots`]: the slot program on exact slots.
//! * [`pretrain`], [`tiny`]: masked language modelling, and how `veil-tiny` is made.
//! * [`data`], [`metrics`], [`tokenizer`], [`model`], [`run`]: GLUE files and scores, word pieces, model folders, evaluation.
//! * [`tensor`], [`parameters`], [`scalar`], [`random`]: what the rest is made of.
pub mod data;
pub mod executor;
pub mod finetune;
pub mod gradient;
pub mod metrics;
pub mod model;
pub mod noise;
pub mod optimizer;
pub mod parameters;
pub mod pretrain;
pub mod random;
pub mod recipe;
pub mod remez;
pub mod run;
pub mod scalar;
pub mod sites;
pub mod slots;
pub mod tensor;
pub mod tiny;
pub mod tokenizer;
pub mod train;
