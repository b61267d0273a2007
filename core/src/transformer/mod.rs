//! The encoder of the paper (PAPER.md; §5.1 and figures 2–3) and its fine-tuning, written once: [`forward`], [`backward`]
//! and the optimizer's [`adamw_he`].
//!
//! The program is a sequence of whole-tensor operations of an [`Executor`]. What a tensor *is* belongs to the executor:
//! a matrix of f64 (exact, or with the shipped polynomials in place of the functions), a handful of ciphertexts, or the
//! entry of a plan. The same code runs on all of them, so a difference between two runs is a bug with an address.
//!
//! ```text
//! embed (client, in the clear) ─► x ─┬─► LN ─► Q, K, V ─► exp(−‖q−k‖²/2√n)·V ─► W_O ─► + ─┬─► LN ─► a ⊙ ReLU(b) ─► + ─► … LN ─► head
//!                                    └────────────────────────────────────────────────────┘
//! ```
//!
//! What is trained is a [`Trainable`] set: LoRA's factors and the head, as in the paper, or all there is. One step is
//! [`forward_recorded`], [`loss_gradient`] and [`backward`] for every sequence of a batch, which sum the gradients, and
//! [`adamw_he`] for every trained weight.
//!
//! Three facts about this model make it cheap, and the program uses all three:
//! * the head reads token 0 only, so in the **last layer** queries, residual and feed-forward are token 0's alone;
//! * padding enters as an encrypted 0/1 per token that multiplies the *values* V. A masked key then adds exactly nothing,
//!   which is what a score of exp(−∞) would do, at no level on the critical path and with every kernel argument bounded;
//! * every non-linear call names its [`Site`], under which the model keeps one calibrated approximation.

mod attention;
mod backward;
mod config;
mod embedding;
mod executor;
mod forward;
mod optimizer;
mod parameters;
mod site;
pub mod slots;
mod trainable;

pub use attention::AttentionTape;
pub use backward::{backward, loss_gradient};
pub use config::{Config, ConfigError, Kernel, Loss, MAX_LAYERS, Targets};
pub use embedding::{EmbeddingNorm, embed_token, position};
pub use executor::{Executor, TrainingExecutor};
pub use forward::{
    Discard, HeadTape, Keep, LayerTape, ProjectionTape, Record, Tape, forward, forward_layer,
    forward_recorded,
};
pub use optimizer::{AdamWHe, Moments, OptimizerError, OptimizerExecutor, Step, adamw_he};
pub use parameters::{Norm, Parameter, Projection, Shape};
pub use site::Site;
pub use trainable::Trainable;

#[cfg(test)]
mod tests;
