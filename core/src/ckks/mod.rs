//! RNS-CKKS: parameters, the objects that travel, and the two roles.

mod ciphertext;
pub mod client;
pub mod encoding;
mod error;
mod keys;
mod literal;
mod parameters;
mod precision;
mod security;
pub(crate) mod seeded;
pub mod server;

pub use ciphertext::{Ciphertext, Plaintext, Product};
pub use error::{Error, ParameterField};
pub(crate) use keys::odd_inverse;
pub use keys::{KeyId, KeyRequest, KeyRequests, KeySource, MAX_KEYS, SwitchingKey, galois_element};
pub use literal::{BootstrapLiteral, MAX_EPHEMERAL_WEIGHT, ParametersLiteral, SecretDistribution, Security};
pub use parameters::{KeyShape, Parameters};
pub use precision::PrecisionStats;
pub use security::{SECURITY_TABLE, SPARSE_SECURITY_TABLE, max_log_q_sparse, max_log_qp};
pub use seeded::{SeededCiphertext, SeededSwitchingKey};
