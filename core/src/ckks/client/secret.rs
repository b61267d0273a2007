//! The secret key: its making, symmetric encryption, decryption.

use super::guard::{Guarded, Scratch};
use crate::accel::Trusted;
use crate::ckks::encoding::{low_limbs, read_low};
use crate::ckks::seeded::{SINGLE, expand_limb};
use crate::ckks::{Ciphertext, Error, Parameters, Plaintext, SeededCiphertext};
use crate::ring::{Basis, PublicSeed, Purpose, SecretSeed, StreamId, sampling};
use core::slice;
use rand_core::CryptoRng;

/// The public name of a secret key, carried by everything made for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct KeyTag(pub [u8; 16]);

/// A uniform ternary secret s, in evaluation form over Q_L ∪ P.
///
/// Everything follows from the seed and the parameters, so the seed is all
/// that need be kept. Neither cloned nor printed; cleared when dropped.
pub struct SecretKey<'a, A: Trusted> {
    pub(super) accelerator: &'a A,
    pub(super) parameters: &'a Parameters,
    pub(super) secret: Guarded<'a, A>,
    pub(super) root: SecretSeed,
    pub(super) seed: SecretSeed,
    tag: KeyTag,
}

impl<'a, A: Trusted> SecretKey<'a, A> {
    /// The key of `seed` under `parameters`. `signed` is scratch of N words.
    ///
    /// # Errors
    /// [`Error::OtherChain`], [`Error::Length`], or out of limbs.
    pub fn generate(
        accelerator: &'a A,
        parameters: &'a Parameters,
        seed: SecretSeed,
        signed: &mut [i64],
    ) -> Result<Self, Error> {
        if accelerator.chain() != parameters.chain() {
            return Err(Error::OtherChain);
        }
        let root = seed.bound_to(parameters.fingerprint());
        let mut tag = KeyTag([0; 16]);
        root.stream(StreamId::new(Purpose::Tag)).bytes(&mut tag.0);
        let mut signed = Scratch::new(signed, parameters.degree())?;
        sampling::ternary(&mut root.stream(StreamId::new(Purpose::Secret)), signed.get());
        let basis = parameters.key_basis(parameters.top_level());
        let secret = Guarded::from_signed(accelerator, basis, signed.get())?;
        Ok(Self { accelerator, parameters, secret, root, seed, tag })
    }

    /// The key of the small ring, which follows from the same seed. `parameters` are those of
    /// [`Parameters::small_ring`], `accelerator` is set up with their chain, `signed` is scratch of N' words.
    ///
    /// # Errors
    /// [`Error::OtherChain`] for other parameters or another accelerator; [`Error::NoBootstrap`],
    /// [`Error::Length`], or out of limbs.
    pub fn small_ring<'s>(
        &self,
        accelerator: &'s A,
        parameters: &'s Parameters,
        signed: &mut [i64],
    ) -> Result<SecretKey<'s, A>, Error> {
        if self.parameters.small_ring()?.fingerprint() != parameters.fingerprint() {
            return Err(Error::OtherChain);
        }
        let seed = SecretSeed::take(&mut self.seed.expose().clone());
        SecretKey::generate(accelerator, parameters, seed, signed)
    }

    /// Limbs that the key holds while it lives.
    pub fn limbs_needed(parameters: &Parameters) -> usize {
        parameters.chain().moduli().len()
    }

    /// The seed, to be kept where secrets are kept.
    pub fn seed(&self) -> &SecretSeed {
        &self.seed
    }

    /// The public name of the key.
    pub fn tag(&self) -> KeyTag {
        self.tag
    }

    /// The parameters it was made for.
    pub fn parameters(&self) -> &'a Parameters {
        self.parameters
    }

    /// Encrypts N encoded coefficients at `level`: c0 = −a·s + m + e, a from a
    /// fresh public seed. The coefficients are wiped, so that a small device
    /// needs no second copy. `words` is scratch of N words.
    ///
    /// # Errors
    /// [`Error::Level`], [`Error::Length`]; [`Error::Accelerator`] when a
    /// coefficient is 2^62 − 21 or more, or limbs run out.
    pub fn encrypt_seeded(
        &self,
        level: usize,
        coefficients: &mut [i64],
        rng: &mut impl CryptoRng,
        words: &mut [A::Word],
    ) -> Result<SeededCiphertext<A>, Error> {
        self.check_level(level)?;
        self.check_length(coefficients.len())?;
        let (accelerator, degree) = (self.accelerator, self.parameters.degree());
        let have = words.len();
        let words = words.get_mut(..degree).ok_or(Error::Length { have, need: degree })?;
        let mut message = Scratch::new(coefficients, degree)?;
        let fresh = SecretSeed::draw(rng);
        let seed = PublicSeed::draw(rng);
        sampling::add_binomial(&mut fresh.stream(StreamId::new(Purpose::Error)), message.get());
        let basis = Basis::level(level);
        let mut body = Guarded::from_signed(accelerator, basis, message.get())?;
        let mut mask = Guarded::allocate(accelerator, Basis::level(0))?;
        for (i, (limb, secret)) in body.limbs_mut().iter_mut().zip(self.secret.limbs()).enumerate() {
            let prime = Basis::new(i, 1, 0);
            expand_limb(accelerator, &seed, SINGLE, i, &mut mask.limbs_mut()[0], words)?;
            accelerator.multiply_assign(prime, mask.limbs_mut(), slice::from_ref(secret))?;
            accelerator.sub_assign(prime, slice::from_mut(limb), mask.limbs())?;
        }
        SeededCiphertext::from_parts(seed, body.declassify()?)
    }

    /// c0 + c1·s at the ciphertext's level, noise included. Keep it: whoever
    /// sees such a plaintext learns about the key ([`SecretKey::release`]). Its
    /// limbs go back to the pool uncleared.
    ///
    /// # Errors
    /// [`Error::Level`], or out of limbs.
    pub fn decrypt(&self, ciphertext: &Ciphertext<A>) -> Result<Plaintext<A>, Error> {
        self.check_level(ciphertext.level())?;
        let message = self.phase(ciphertext, ciphertext.level() + 1)?;
        Ok(Plaintext::from_polynomial(message.declassify()?))
    }

    /// As [`SecretKey::decrypt`], but only the coefficients, from the limbs
    /// that decide them: N values times the scale, for
    /// [`Encoder::decode`](crate::ckks::encoding::Encoder::decode). `words` is
    /// scratch of [`words_to_read`](crate::ckks::encoding::words_to_read); the
    /// message's residues stay in it.
    ///
    /// # Errors
    /// [`Error::Level`], [`Error::Length`], or out of limbs.
    pub fn decrypt_coefficients(
        &self,
        ciphertext: &Ciphertext<A>,
        words: &mut [A::Word],
        coefficients: &mut [f64],
    ) -> Result<(), Error> {
        self.check_length(coefficients.len())?;
        self.decrypt_with(ciphertext, words, |k, x| coefficients[k] = x as f64)
    }

    /// As [`SecretKey::decrypt_coefficients`], as integers, for
    /// [`FixedEncoder`](crate::ckks::encoding::FixedEncoder).
    ///
    /// # Errors
    /// As there; [`Error::NotEncodable`] with the first coefficient of 2^63 or
    /// more, which no valid ciphertext has.
    pub fn decrypt_integers(
        &self,
        ciphertext: &Ciphertext<A>,
        words: &mut [A::Word],
        coefficients: &mut [i64],
    ) -> Result<(), Error> {
        self.check_length(coefficients.len())?;
        let mut too_large = None;
        self.decrypt_with(ciphertext, words, |k, x| {
            coefficients[k] = i64::try_from(x).unwrap_or_else(|_| {
                too_large.get_or_insert(k);
                0
            });
        })?;
        too_large.map_or(Ok(()), |index| Err(Error::NotEncodable { index }))
    }

    pub(super) fn decrypt_with(
        &self,
        ciphertext: &Ciphertext<A>,
        words: &mut [A::Word],
        sink: impl FnMut(usize, i128),
    ) -> Result<(), Error> {
        self.check_level(ciphertext.level())?;
        let mut message = self.phase(ciphertext, low_limbs(ciphertext.level()))?;
        let basis = message.basis();
        self.accelerator.ntt_inverse(basis, message.limbs_mut())?;
        read_low(self.accelerator, message.limbs(), words, sink)
    }

    // The first `count` limbs of c0 + c1·s.
    fn phase(&self, ciphertext: &Ciphertext<A>, count: usize) -> Result<Guarded<'a, A>, Error> {
        let basis = Basis::new(0, count, 0);
        let [c0, c1] = ciphertext.parts();
        let mut phase = Guarded::allocate(self.accelerator, basis)?;
        self.accelerator.copy(phase.limbs_mut(), &c0.limbs()[..count])?;
        let secret = &self.secret.limbs()[..count];
        self.accelerator.multiply_add(basis, phase.limbs_mut(), &c1.limbs()[..count], secret)?;
        Ok(phase)
    }

    pub(super) fn check_level(&self, level: usize) -> Result<(), Error> {
        let need = self.parameters.top_level();
        if level <= need { Ok(()) } else { Err(Error::Level { have: level, need }) }
    }

    pub(super) fn check_length(&self, have: usize) -> Result<(), Error> {
        let need = self.parameters.degree();
        if have == need { Ok(()) } else { Err(Error::Length { have, need }) }
    }
}
