//! The encrypted executor: the transformer on packed matrices and bootstrapped slots.
//!
//! ```text
//! packed (small ring, levels 3 … 0) ──raise: bootstrap──► slots (big ring, ten levels) ──lower──► packed ──► …
//!   projections, LoRA, products of two encrypted            norms, kernel, gate, tanh
//!   matrices, residual sums: no bootstrap in between        element by element
//! ```
//!
//! A bootstrap stands before every non-linear function and nowhere else. What a function returns is lowered to the
//! small ring at once, three levels above its bottom: enough for a projection, a product of what was projected, and
//! another projection. One product with weights is done in slots, where that saves bootstraps: that of a hidden layer, much
//! wider than the stream it is made of (`expand.rs`).
//!
//! The paper's baselines are executed by the same means: softmax attention, and full fine-tuning, where every matrix of the
//! encoder is encrypted.
//!
//! It lives outside the core because it needs a heap: a training step owns hundreds of ciphertexts. All arithmetic it
//! calls is the core's, on any accelerator.

mod adapters;
pub mod algebra;
mod attention;
pub mod client;
mod encrypted;
mod error;
mod executor;
mod expand;
mod functions;
mod gradient;
mod host;
mod keys;
mod linear;
mod norm;
mod optimizer;
mod places;
pub mod plan;
mod scores;
mod softmax;
mod spans;
mod step;
mod tensor;
mod trained;
mod training;
mod watched;
mod whole;

pub use algebra::{Algebra, Halves, Matrix, Rings};
pub use encrypted::Encrypted;
pub use error::Error;
pub use executor::{Engine, stream_bound};
pub use host::{Ring, bootstrap_constants, with_algebra};
pub use keys::required_keys;
pub use optimizer::least_epsilon;
pub use places::{Degrees, Place, Places, RowSum};
pub use spans::{Span, TrainedPlaces};
pub use step::Batch;
pub use tensor::{Mask, Slots, Tensor};
pub use trained::Trained;
pub use watched::{Moment, Operation, Watched};
