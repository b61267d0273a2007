//! What leaves a machine: versioned, bounded, little-endian formats for
//! parameters, keys and ciphertexts.
//!
//! Every object is a header of [`HEADER_LEN`] bytes, a payload of exactly the
//! length that kind, level and parameters imply, and a trailer of
//! [`TRAILER_LEN`] bytes:
//!
//! ```text
//!  0  magic       8B 56 45 49 4C 0D 0A 1A       48  level         u16
//!  8  version     u16, 1                        50  reserved      u16, 0
//! 10  kind        u16, upper bit: secret        52  automorphism  u32 (Galois keys)
//! 12  flags       u32, bit 0: no security       56  payload       u64, bytes
//! 16  parameters  16 of 32 bytes of SHA-256     64  checksum      XXH3-64 of bytes 0..64
//! 32  key         16 bytes: its public name     72  payload, then XXH3-64 of it, seeded
//!                                                   with the header's checksum
//! ```
//!
//! A residue takes ⌈bits(q)/8⌉ bytes, a polynomial its limbs in the order of
//! its basis, in evaluation form as the accelerator contract defines it. That
//! does not depend on the word, so a sensor with 32-bit words and a server with
//! 64-bit words exchange the same bytes.
//!
//! Reading checks everything it can before it computes or allocates, in one
//! order: magic, version, header checksum, kind, security mark, parameters,
//! key, level and sizes, and then the payload: its checksum and that every
//! residue is below its prime. No input makes it panic, and an object exists
//! only if all of it was right. Checksums find accidents. They do not
//! authenticate: where an attacker can replace files, sign them.
//!
//! Files grow by kinds and versions. A version-1 object means the same forever.

mod bundle;
mod ciphertext;
mod codec;
mod error;
mod frame;
mod header;
mod keys;
mod parameters;
mod record;
mod secret;
mod stream;

pub use bundle::{Bundle, read_bundle, write_bundle};
pub use ciphertext::{ciphertext_len, seeded_ciphertext_len};
pub use codec::Codec;
pub use error::{Error, Field, Part};
pub use frame::{ObjectWriter, Reader, residue_len};
pub use header::{Expected, HEADER_LEN, Header, Kind};
pub use keys::{public_key_len, switching_key_len};
pub use parameters::{read_parameters, write_parameters};
pub use record::{read_record, record_len, write_record};
pub use secret::{read_secret_key, write_secret_key};
pub use stream::{Fault, Sink, Source};

/// How every object starts. Not text, and damaged by whatever treats it as text.
pub const MAGIC: [u8; 8] = *b"\x8bVEIL\r\n\x1a";

/// The format version written and read.
pub const VERSION: u16 = 2;

/// Bytes after every payload.
pub const TRAILER_LEN: u64 = 8;

/// Bytes of [`write_parameters`].
pub const PARAMETERS_LEN: u64 = object_len(parameters::PAYLOAD);

/// Bytes of [`write_secret_key`].
pub const SECRET_KEY_LEN: u64 = object_len(secret::PAYLOAD);

/// Bytes of [`write_bundle`], without the objects that follow.
pub const BUNDLE_LEN: u64 = object_len(bundle::PAYLOAD);

/// Bytes of an object with this payload.
const fn object_len(payload: u64) -> u64 {
    payload.saturating_add(HEADER_LEN as u64 + TRAILER_LEN)
}
