//! Encryption by whoever has the public key.

use super::guard::{Guarded, Scratch};
use super::secret::{KeyTag, SecretKey};
use crate::accel::{Accelerator, Evaluations, Polynomial, Trusted};
use crate::ckks::seeded::{SINGLE, expand};
use crate::ckks::{Ciphertext, Error, Parameters, Plaintext};
use crate::ring::{Basis, PublicSeed, Purpose, SecretSeed, StreamId, sampling};
use rand_core::CryptoRng;

/// Object number of the public key in stream ids: even and not 0, so no
/// switching key's.
const PUBLIC_KEY: u32 = 2;

/// (b, a) over Q_L with b = −a·s + e and a from a public seed.
pub struct PublicKey<A: Accelerator> {
    seed: PublicSeed,
    tag: KeyTag,
    b: Polynomial<A, Evaluations>,
    a: Polynomial<A, Evaluations>,
}

impl<A: Accelerator> PublicKey<A> {
    /// From what a file holds. `words` is scratch for expanding a: N words or
    /// a multiple.
    ///
    /// # Errors
    /// [`Error::OtherChain`]; [`Error::Length`] unless `b` is over Q_L; the accelerator's.
    pub fn from_parts(
        accelerator: &A,
        parameters: &Parameters,
        tag: KeyTag,
        seed: PublicSeed,
        b: Polynomial<A, Evaluations>,
        words: &mut [A::Word],
    ) -> Result<Self, Error> {
        if accelerator.chain() != parameters.chain() {
            return Err(Error::OtherChain);
        }
        let basis = Basis::level(parameters.max_level());
        if b.basis() != basis {
            return Err(Error::Length { have: b.basis().len(), need: basis.len() });
        }
        Ok(Self { seed, tag, a: expand(accelerator, &seed, SINGLE, basis, words)?, b })
    }

    /// The seed of a.
    pub fn seed(&self) -> &PublicSeed {
        &self.seed
    }

    /// The name of the secret key it belongs to.
    pub fn tag(&self) -> KeyTag {
        self.tag
    }

    /// b.
    pub fn body(&self) -> &Polynomial<A, Evaluations> {
        &self.b
    }

    /// The level of what it encrypts at most: L.
    pub fn level(&self) -> usize {
        self.b.basis().len() - 1
    }
}

/// Standard deviation of a coefficient's noise after encryption with the
/// public key: v·e + e0 + e1·s with v and s uniform ternary.
pub fn public_key_noise(degree: usize) -> f64 {
    sampling::ERROR_DEVIATION * libm::sqrt(4.0 * degree as f64 / 3.0 + 1.0)
}

/// The same after encryption with the secret key.
pub const SECRET_KEY_NOISE: f64 = sampling::ERROR_DEVIATION;

impl<A: Trusted> PublicKey<A> {
    /// Encrypts an encoded message at its level. `signed` is scratch of N words.
    ///
    /// # Errors
    /// [`Error::Level`], [`Error::Length`], or out of limbs.
    pub fn encrypt(
        &self,
        accelerator: &A,
        message: &Plaintext<A>,
        rng: &mut impl CryptoRng,
        signed: &mut [i64],
    ) -> Result<Ciphertext<A>, Error> {
        let polynomial = message.polynomial();
        if polynomial.basis() != Basis::level(message.level()) {
            return Err(Error::Length { have: polynomial.basis().len(), need: message.level() + 1 });
        }
        let [mut c0, c1] = self.pair(accelerator, message.level(), None, rng, signed)?;
        c0.add_assign(accelerator, polynomial)?;
        Ciphertext::from_parts([c0, c1])
    }

    /// Encrypts N encoded coefficients at `level`; cheaper than
    /// [`PublicKey::encrypt`], since error and message are transformed together.
    ///
    /// # Errors
    /// As there; [`Error::Accelerator`] also when a coefficient is 2^62 − 21 or more.
    pub fn encrypt_coefficients(
        &self,
        accelerator: &A,
        level: usize,
        coefficients: &[i64],
        rng: &mut impl CryptoRng,
        signed: &mut [i64],
    ) -> Result<Ciphertext<A>, Error> {
        Ciphertext::from_parts(self.pair(accelerator, level, Some(coefficients), rng, signed)?)
    }

    // (b·v + e0 + m, a·v + e1) with v uniform ternary.
    fn pair(
        &self,
        accelerator: &A,
        level: usize,
        message: Option<&[i64]>,
        rng: &mut impl CryptoRng,
        signed: &mut [i64],
    ) -> Result<[Polynomial<A, Evaluations>; 2], Error> {
        if level > self.level() {
            return Err(Error::Level { have: level, need: self.level() });
        }
        let (basis, degree) = (Basis::level(level), accelerator.chain().degree());
        if let Some(have) = message.map(<[i64]>::len).filter(|&have| have != degree) {
            return Err(Error::Length { have, need: degree });
        }
        let mut signed = Scratch::new(signed, degree)?;
        let fresh = SecretSeed::draw(rng);
        sampling::ternary(&mut fresh.stream(StreamId::new(Purpose::Ephemeral)), signed.get());
        let v = Guarded::from_signed(accelerator, basis, signed.get())?;
        let mut half = |part: u8, message: Option<&[i64]>, key: &Polynomial<A, Evaluations>| {
            match message {
                Some(message) => signed.get().copy_from_slice(message),
                None => signed.get().fill(0),
            }
            let error = StreamId::new(Purpose::Error).part(part);
            sampling::add_binomial(&mut fresh.stream(error), signed.get());
            let mut sum = Guarded::from_signed(accelerator, basis, signed.get())?;
            accelerator.multiply_add(basis, sum.limbs_mut(), &key.limbs()[..basis.len()], v.limbs())?;
            sum.declassify()
        };
        Ok([half(0, message, &self.b)?, half(1, None, &self.a)?])
    }
}

impl<A: Trusted> SecretKey<'_, A> {
    /// The public key. `signed` is scratch of N words, `words` of N words or a
    /// multiple: as many limbs are expanded at a time.
    ///
    /// # Errors
    /// [`Error::Length`], or out of limbs.
    pub fn public_key(&self, signed: &mut [i64], words: &mut [A::Word]) -> Result<PublicKey<A>, Error> {
        let (accelerator, basis) = (self.accelerator, Basis::level(self.parameters.max_level()));
        let seed = self.root.public(PUBLIC_KEY);
        let a = expand(accelerator, &seed, SINGLE, basis, words)?;
        let mut signed = Scratch::new(signed, self.parameters.degree())?;
        let id = StreamId::new(Purpose::KeyError).object(PUBLIC_KEY);
        signed.get().fill(0);
        sampling::add_binomial(&mut self.root.stream(id), signed.get());
        // b = −(a·s − e); the distribution of e is symmetric.
        let mut b = Guarded::from_signed(accelerator, basis, signed.get())?;
        accelerator.multiply_add(basis, b.limbs_mut(), a.limbs(), &self.secret.limbs()[..basis.len()])?;
        accelerator.negate_assign(basis, b.limbs_mut())?;
        Ok(PublicKey { seed, tag: self.tag(), b: b.declassify()?, a })
    }
}
