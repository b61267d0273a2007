//! Seeds, and the streams of random words drawn from them.
//!
//! One stream is ChaCha20 (64-bit counter, 64-bit nonce) under a 32-byte seed;
//! the nonce names what the words are for, so that every (purpose, object,
//! part, limb) has a stream of its own and results do not depend on the order
//! or the number of threads that draw them.
//!
//! Secret and public seeds are different types. A public seed made from a
//! secret one is a stretch of one of its streams, which tells nothing about
//! any other stream.

use chacha20::ChaCha20Rng;
use rand_core::{CryptoRng, Rng, SeedableRng};
use zeroize::Zeroize;

/// 64-bit words in one block of a stream.
pub const BLOCK_WORDS: usize = 32;

/// What a stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u8)]
pub enum Purpose {
    /// A secret key's coefficients.
    Secret = 1,
    /// The public name of a secret key.
    Tag = 2,
    /// The public seed of an object made with a secret seed.
    PublicSeed = 3,
    /// A secret seed derived from another.
    Child = 4,
    /// The error of an evaluation or public key.
    KeyError = 5,
    /// The ephemeral secret of one encryption.
    Ephemeral = 6,
    /// An error of one encryption.
    Error = 7,
    /// Noise added to a released decryption.
    Flood = 8,
    /// The uniform half of a ciphertext or key, from a public seed.
    Uniform = 9,
}

/// The nonce of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct StreamId {
    /// What the words are for.
    pub purpose: Purpose,
    /// Which object of that kind.
    pub object: u32,
    /// Which part of the object: a digit, an error.
    pub part: u8,
    /// Which prime of the chain.
    pub limb: u8,
}

impl StreamId {
    /// Object 0, part 0, limb 0 of `purpose`.
    pub const fn new(purpose: Purpose) -> Self {
        Self { purpose, object: 0, part: 0, limb: 0 }
    }

    /// The same for another object.
    pub const fn object(self, object: u32) -> Self {
        Self { object, ..self }
    }

    /// The same for another part.
    pub const fn part(self, part: u8) -> Self {
        Self { part, ..self }
    }

    /// The same for another limb.
    pub const fn limb(self, limb: u8) -> Self {
        Self { limb, ..self }
    }

    const fn nonce(self) -> u64 {
        (self.purpose as u64) << 56 | (self.part as u64) << 48 | (self.limb as u64) << 40 | self.object as u64
    }
}

/// 32 secret bytes. Neither cloned nor printed; wiped when dropped.
pub struct SecretSeed([u8; 32]);

impl Drop for SecretSeed {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl SecretSeed {
    /// Fresh, from the caller's generator.
    pub fn draw(rng: &mut impl CryptoRng) -> Self {
        let mut seed = Self([0; 32]);
        rng.fill_bytes(&mut seed.0);
        seed
    }

    /// From bytes kept elsewhere; the caller's copy is wiped.
    pub fn take(bytes: &mut [u8; 32]) -> Self {
        let seed = Self(*bytes);
        bytes.zeroize();
        seed
    }

    /// The bytes, to be kept where secrets are kept.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// The stream `id`.
    pub fn stream(&self, id: StreamId) -> Stream {
        Stream::new(&self.0, id.nonce())
    }

    /// A seed bound to `context`, for instance a fingerprint of parameters:
    /// the cascade of Bellare, Canetti and Krawczyk (FOCS 1996) over inputs of
    /// one length, with ChaCha20 as the function family.
    pub fn bound_to(&self, context: &[u8; 32]) -> Self {
        let mut seed = Self(self.0);
        // One nonce holds 56 bits of input below the purpose's byte.
        for part in context.chunks(7) {
            let input = part.iter().fold(0u64, |word, &byte| word << 8 | byte as u64);
            let nonce = (Purpose::Child as u64) << 56 | input;
            let mut next = Self([0; 32]);
            Stream::new(&seed.0, nonce).bytes(&mut next.0);
            seed = next;
        }
        seed
    }

    /// The public seed of `object`.
    pub fn public(&self, object: u32) -> PublicSeed {
        let mut seed = PublicSeed([0; 32]);
        self.stream(StreamId::new(Purpose::PublicSeed).object(object)).bytes(&mut seed.0);
        seed
    }
}

/// 32 public bytes that stand for a uniform polynomial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct PublicSeed([u8; 32]);

impl PublicSeed {
    /// Fresh, from the caller's generator.
    pub fn draw(rng: &mut impl CryptoRng) -> Self {
        let mut seed = Self([0; 32]);
        rng.fill_bytes(&mut seed.0);
        seed
    }

    /// From a file or a message.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The stream `id`.
    pub fn stream(&self, id: StreamId) -> Stream {
        Stream::new(&self.0, id.nonce())
    }
}

/// A stream of words, wiped when dropped.
pub struct Stream {
    rng: ChaCha20Rng,
}

impl Stream {
    fn new(seed: &[u8; 32], nonce: u64) -> Self {
        let mut rng = ChaCha20Rng::from_seed(*seed);
        rng.set_stream(nonce);
        Self { rng }
    }

    /// The next bytes of the stream.
    pub fn bytes(&mut self, out: &mut [u8]) {
        self.rng.fill_bytes(out);
    }

    /// The next block of the stream.
    #[inline]
    pub fn block(&mut self) -> Block {
        let mut bytes = [0u8; 8 * BLOCK_WORDS];
        self.rng.fill_bytes(&mut bytes);
        let mut block = Block([0; BLOCK_WORDS]);
        for (word, chunk) in block.0.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*chunk);
        }
        block
    }

    /// The next block of a stream of secrets, handed to `use_words` and wiped.
    #[inline]
    pub(super) fn secret_block(&mut self, use_words: impl FnOnce(&[u64; BLOCK_WORDS])) {
        let mut block = self.block();
        use_words(&block.0);
        block.0.zeroize();
    }
}

/// Consecutive little-endian words of a stream.
pub struct Block(pub [u64; BLOCK_WORDS]);

#[cfg(test)]
mod tests {
    use super::*;

    fn head(mut stream: Stream) -> u64 {
        stream.block().0[0]
    }

    #[test]
    fn every_field_of_the_id_names_another_stream() {
        let seed = PublicSeed::from_bytes([7; 32]);
        let id = StreamId::new(Purpose::Uniform);
        let streams = [id, id.object(1), id.part(1), id.limb(1), StreamId::new(Purpose::Error)];
        for (i, a) in streams.iter().enumerate() {
            assert_eq!(head(seed.stream(*a)), head(seed.stream(*a)));
            for b in &streams[..i] {
                assert_ne!(head(seed.stream(*a)), head(seed.stream(*b)));
            }
        }
    }

    #[test]
    fn a_stream_is_chacha20_with_the_nonce() {
        // RFC 8439 counts blocks in 32 bits, so nonce 0 and block 0 agree with
        // its test vector 1 of appendix A.1: key 0, first word 76b8e0ada0f13d90.
        let mut stream = Stream::new(&[0; 32], 0);
        assert_eq!(stream.block().0[0], u64::from_le_bytes([0x76, 0xb8, 0xe0, 0xad, 0xa0, 0xf1, 0x3d, 0x90]));
    }

    #[test]
    fn binding_depends_on_every_byte_and_taking_wipes() {
        let mut bytes = [3; 32];
        let seed = SecretSeed::take(&mut bytes);
        assert_eq!(bytes, [0; 32]);
        let base = seed.bound_to(&[0; 32]);
        for i in 0..32 {
            let mut context = [0; 32];
            context[i] = 1;
            assert_ne!(base.expose(), seed.bound_to(&context).expose());
        }
        assert_eq!(base.expose(), seed.bound_to(&[0; 32]).expose());
    }
}
