//! The client's half: keys, encryption, decryption.

use crate::exit::{Exit, Failure};
use chacha20::ChaCha20Rng;
use chacha20::rand_core::SeedableRng;
use veilformer::ckks::client::{PublicKey, ReleaseBudget, SecretKey};
use veilformer::ckks::encoding::{Complex, Encoder, plaintext, words_to_read};
use veilformer::ckks::{Ciphertext, KeyId, Parameters, Plaintext, SwitchingKey};
use veilformer::memory::Arena;
use veilformer::ring::{Basis, SecretSeed};
use veilformer::wire::{self, Codec, Sink};
use veilformer_multicore::Multicore;

/// Releases a new key allows unless told otherwise, and their strength.
pub(crate) const RELEASES: u32 = 16;
const RELEASE_BITS: u32 = 30;

/// A generator seeded by the system.
pub(crate) fn system_rng() -> Result<ChaCha20Rng, Failure> {
    ChaCha20Rng::try_from_rng(&mut rand::rngs::SysRng)
        .map_err(|error| Failure::new(Exit::Failure, format!("the system gives no randomness: {error}")))
}

/// An encoder that lives as long as the program, as do its twiddles: N words, once for each role.
pub(crate) fn encoder(degree: usize) -> Result<Encoder<'static>, Failure> {
    let twiddles = Box::leak(vec![0.0; Encoder::words_needed(degree)].into_boxed_slice());
    Ok(Encoder::new(degree, &mut Arena::new(twiddles)).map_err(veilformer::ckks::Error::from)?)
}

/// What going between slots and coefficients takes.
pub(crate) struct Slots {
    encoder: Encoder<'static>,
    coefficients: Vec<i64>,
    pub(crate) work: Vec<f64>,
    pub(crate) words: Vec<u64>,
}

/// Memory of a client under one set of parameters.
pub(crate) struct Client<'a> {
    pub(crate) accelerator: &'a Multicore,
    pub(crate) parameters: &'a Parameters,
    signed: Vec<i64>,
    words: Vec<u64>,
    codec: Vec<u64>,
    pub(crate) slots: Slots,
}

impl<'a> Client<'a> {
    /// Limbs a client needs at most: its key, the making of one digit of a
    /// switching key, the public key and one encryption.
    pub(crate) fn limbs(parameters: &Parameters) -> usize {
        8 * parameters.chain().moduli().len() + 16
    }

    pub(crate) fn new(accelerator: &'a Multicore, parameters: &'a Parameters) -> Result<Self, Failure> {
        let degree = parameters.degree();
        Ok(Self {
            accelerator,
            parameters,
            signed: vec![0; degree],
            words: vec![0; degree * accelerator.threads()],
            codec: vec![0; degree],
            slots: Slots {
                encoder: encoder(degree)?,
                coefficients: vec![0; degree],
                work: vec![0.0; degree],
                words: vec![0; words_to_read(degree, 1)],
            },
        })
    }

    /// A new secret key, from the system's randomness, and a budget of releases.
    pub(crate) fn generate(
        &mut self,
        releases: u32,
    ) -> Result<(SecretKey<'a, Multicore>, ReleaseBudget), Failure> {
        let seed = SecretSeed::draw(&mut system_rng()?);
        let key = SecretKey::generate(self.accelerator, self.parameters, seed, &mut self.signed)?;
        Ok((key, ReleaseBudget::new(releases, RELEASE_BITS)?))
    }

    pub(crate) fn read_secret<S: wire::Source>(
        &mut self,
        reader: &mut wire::Reader<S>,
    ) -> Result<(SecretKey<'a, Multicore>, ReleaseBudget), Failure> {
        Ok(wire::read_secret_key(reader, self.accelerator, self.parameters, None, &mut self.signed)?)
    }

    pub(crate) fn public_key(
        &mut self,
        secret: &SecretKey<'_, Multicore>,
    ) -> Result<PublicKey<Multicore>, Failure> {
        Ok(secret.public_key(&mut self.signed, &mut self.words)?)
    }

    pub(crate) fn write_public_key(
        &mut self,
        sink: &mut impl Sink,
        key: &PublicKey<Multicore>,
    ) -> Result<(), Failure> {
        Ok(Codec::new(self.accelerator, self.parameters, &mut self.codec)?.write_public_key(sink, key)?)
    }

    pub(crate) fn read_public_key<S: wire::Source>(
        &mut self,
        reader: &mut wire::Reader<S>,
    ) -> Result<PublicKey<Multicore>, Failure> {
        Ok(Codec::new(self.accelerator, self.parameters, &mut self.codec)?.read_public_key(reader, None)?)
    }

    /// One evaluation key.
    pub(crate) fn switching_key(
        &mut self,
        secret: &SecretKey<'_, Multicore>,
        id: KeyId,
        level: usize,
    ) -> Result<SwitchingKey<Multicore>, Failure> {
        Ok(secret.switching_key(id, level, &mut self.signed, &mut self.words)?)
    }

    /// Encrypts real slots at a level.
    pub(crate) fn encrypt(
        &mut self,
        key: &PublicKey<Multicore>,
        values: &[f64],
        level: usize,
    ) -> Result<Ciphertext<Multicore>, Failure> {
        self.encode_coefficients(values, level)?;
        let mut rng = system_rng()?;
        let coefficients = &self.slots.coefficients;
        Ok(key.encrypt_coefficients(self.accelerator, level, coefficients, &mut rng, &mut self.signed)?)
    }

    /// Encrypts coefficients at a level.
    pub(crate) fn encrypt_coefficients(
        &mut self,
        key: &PublicKey<Multicore>,
        coefficients: &[i64],
        level: usize,
    ) -> Result<Ciphertext<Multicore>, Failure> {
        let mut rng = system_rng()?;
        Ok(key.encrypt_coefficients(self.accelerator, level, coefficients, &mut rng, &mut self.signed)?)
    }

    /// Encrypts complex slots at a level.
    pub(crate) fn encrypt_complex(
        &mut self,
        key: &PublicKey<Multicore>,
        values: &[Complex],
        level: usize,
    ) -> Result<Ciphertext<Multicore>, Failure> {
        let Slots { encoder, work, coefficients, .. } = &mut self.slots;
        encoder.encode(values, self.parameters.scale(level), work, coefficients)?;
        let mut rng = system_rng()?;
        Ok(key.encrypt_coefficients(self.accelerator, level, coefficients, &mut rng, &mut self.signed)?)
    }

    /// The complex slots behind a ciphertext, for the client's own eyes.
    pub(crate) fn decrypt_complex(
        &mut self,
        key: &SecretKey<'_, Multicore>,
        ciphertext: &Ciphertext<Multicore>,
    ) -> Result<Vec<Complex>, Failure> {
        let Slots { encoder, work, words, .. } = &mut self.slots;
        key.decrypt_coefficients(ciphertext, words, work)?;
        let mut values = vec![Complex::default(); self.parameters.slots()];
        encoder.decode(work, self.parameters.scale(ciphertext.level()), &mut values)?;
        Ok(values)
    }

    /// A plaintext at a level, in evaluation form.
    pub(crate) fn encode(&mut self, values: &[f64], level: usize) -> Result<Plaintext<Multicore>, Failure> {
        self.encode_coefficients(values, level)?;
        Ok(plaintext(self.accelerator, Basis::level(level), &self.slots.coefficients)?)
    }

    fn encode_coefficients(&mut self, values: &[f64], level: usize) -> Result<(), Failure> {
        let scale = self.parameters.scale(level);
        let Slots { encoder, work, coefficients, .. } = &mut self.slots;
        encoder.encode_real(values, scale, work, coefficients)?;
        Ok(())
    }

    /// The slots behind a ciphertext, for the client's own eyes.
    pub(crate) fn decrypt(
        &mut self,
        key: &SecretKey<'_, Multicore>,
        ciphertext: &Ciphertext<Multicore>,
    ) -> Result<Vec<f64>, Failure> {
        key.decrypt_coefficients(ciphertext, &mut self.slots.words, &mut self.slots.work)?;
        self.decode(ciphertext.level())
    }

    /// Slots from the coefficients in `slots.work`, which are overwritten.
    pub(crate) fn decode(&mut self, level: usize) -> Result<Vec<f64>, Failure> {
        let mut values = vec![0.0; self.parameters.slots()];
        let scale = self.parameters.scale(level);
        let Slots { encoder, work, .. } = &mut self.slots;
        encoder.decode_real(work, scale, &mut values)?;
        Ok(values)
    }

    /// The bytes of a ciphertext as it would travel.
    #[cfg(test)]
    pub(crate) fn message(
        &mut self,
        key: veilformer::ckks::client::KeyTag,
        ciphertext: &Ciphertext<Multicore>,
    ) -> Result<Vec<u8>, Failure> {
        let mut message = crate::files::Message::default();
        let mut codec = Codec::new(self.accelerator, self.parameters, &mut self.codec)?;
        codec.write_ciphertext(&mut message, key, ciphertext)?;
        Ok(message.0)
    }
}
