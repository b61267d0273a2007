//! Arithmetic in Z_q\[X\]/(X^N + 1), one limb at a time.
//!
//! Words are `u64` (primes below 2^50) or `u32` (primes below 2^30): the
//! same code, the same results, half the memory on a 32-bit part. Residues
//! are canonical, in [0, q), at every function boundary.

mod basis;
mod chain;
mod convert;
mod modulus;
mod ntt;
mod prime;
pub mod sampling;
mod stream;
mod word;

pub use basis::Basis;
pub use chain::{ChainError, MAX_LIMBS, ModulusChain};
pub use convert::{Converter, MAX_SOURCES};
pub use modulus::Modulus;
pub use ntt::{NttTable, RingTables, automorphism_index, bit_reverse};
pub use prime::{is_prime, prime_near, primes_below};
pub use stream::{BLOCK_WORDS, Block, PublicSeed, Purpose, SecretSeed, Stream, StreamId};
pub use word::Word;
