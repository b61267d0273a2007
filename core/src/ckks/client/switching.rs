//! Making switching keys.

use super::guard::{Guarded, Scratch};
use super::secret::SecretKey;
use crate::accel::{Evaluations, Polynomial, Trusted, digits};
use crate::ckks::seeded::{digit_of, expand, object_of};
use crate::ckks::{Error, KeyId, KeyShape, ParameterField, SeededSwitchingKey, SwitchingKey, odd_inverse};
use crate::ring::{Basis, MAX_LIMBS, PublicSeed, Purpose, StreamId, sampling};

impl<A: Trusted> SecretKey<'_, A> {
    /// Limbs that making a relinearisation or Galois key at `level` takes on top of the key itself; a
    /// seeded key takes those of one a half, Q_level ∪ P, besides.
    pub fn switching_scratch_limbs(&self, level: usize) -> usize {
        self.parameters.key_basis(level).len() + level + 1
    }

    /// The key `id`, for every level up to `level`. `signed` is scratch of N
    /// words, `words` of N words or a multiple.
    ///
    /// # Errors
    /// [`Error::Level`], [`Error::Length`]; [`Error::MissingKey`] for an even
    /// or too large Galois element, for a key of bootstrapping without it, and
    /// for [`KeyId::DenseToSparse`] above level 0; [`Error::Parameter`]
    /// without special primes; out of limbs.
    pub fn switching_key(
        &self,
        id: KeyId,
        level: usize,
        signed: &mut [i64],
        words: &mut [A::Word],
    ) -> Result<SwitchingKey<A>, Error> {
        let mut pairs = heapless::Vec::new();
        self.each_digit(id, level, signed, words, |_, pair| {
            pairs.push(pair).map_err(|_| Error::Full { capacity: crate::accel::MAX_DIGITS })
        })?;
        SwitchingKey::from_digits(self.parameters, id, level, pairs)
    }

    /// The same key with a seed for its uniform halves, as it is stored.
    ///
    /// # Errors
    /// As [`SecretKey::switching_key`].
    pub fn seeded_switching_key(
        &self,
        id: KeyId,
        level: usize,
        signed: &mut [i64],
        words: &mut [A::Word],
    ) -> Result<SeededSwitchingKey<A>, Error> {
        let mut halves = heapless::Vec::new();
        let seed = self.each_digit(id, level, signed, words, |_, [b, _]| {
            halves.push(b).map_err(|_| Error::Full { capacity: crate::accel::MAX_DIGITS })
        })?;
        SeededSwitchingKey::from_parts(self.parameters, id, level, seed, halves)
    }

    /// Makes the key digit by digit and hands each (b, a) to `take`, for a host
    /// that writes keys larger than its memory. Returns the seed of the a halves.
    ///
    /// # Errors
    /// As [`SecretKey::switching_key`], or what `take` returns.
    pub fn each_digit(
        &self,
        id: KeyId,
        level: usize,
        signed: &mut [i64],
        words: &mut [A::Word],
        mut take: impl FnMut(usize, [Polynomial<A, Evaluations>; 2]) -> Result<(), Error>,
    ) -> Result<PublicSeed, Error> {
        self.check_key(id, level)?;
        let (accelerator, chain) = (self.accelerator, self.parameters.chain());
        if chain.special() == 0 {
            let field = ParameterField::SpecialPrimes;
            return Err(Error::Parameter { field, given: 0, min: 1, max: MAX_LIMBS as u32 });
        }
        let KeyShape { digit_size, basis, .. } = self.parameters.key_shape(id, level);
        let mut signed = Scratch::new(signed, self.parameters.degree())?;
        let target = self.target(id, basis, &mut signed)?;
        let source = self.source(id, Basis::level(level), &mut signed)?;
        let special = Basis::new(0, 0, basis.special());
        let seed = self.root.public(object_of(id));
        for (d, digit) in digits(Basis::level(level), digit_size).enumerate() {
            let a = expand(accelerator, &seed, digit_of(id, d), basis, words)?;
            let error = StreamId::new(Purpose::KeyError).object(object_of(id)).part(d as u8);
            signed.get().fill(0);
            sampling::add_binomial(&mut self.root.stream(error), signed.get());
            // b = −(a·s − e) + P·s' on the digit's primes; the distribution of e is symmetric.
            let mut b = Guarded::from_signed(accelerator, basis, signed.get())?;
            accelerator.multiply_add(basis, b.limbs_mut(), a.limbs(), target.limbs())?;
            accelerator.negate_assign(basis, b.limbs_mut())?;
            let factors: heapless::Vec<u64, MAX_LIMBS> =
                chain.of(digit).map(|q| chain.product_mod(special, q)).collect();
            let own = digit.start()..digit.start() + digit.len();
            accelerator.multiply_scalar_add(
                digit,
                &mut b.limbs_mut()[own.clone()],
                &source.limbs()[own],
                &factors,
            )?;
            take(d, [b.declassify()?, a])?;
        }
        Ok(seed)
    }

    /// That the key exists under these parameters.
    fn check_key(&self, id: KeyId, level: usize) -> Result<(), Error> {
        self.check_level(level)?;
        let exists = match id {
            KeyId::Relinearization => true,
            KeyId::Galois(g) => g % 2 == 1 && (g as usize) < 2 * self.parameters.degree(),
            KeyId::SparseToDense => self.parameters.bootstrap().is_some(),
            // Higher up the sparse secret could be found.
            KeyId::DenseToSparse => self.parameters.bootstrap().is_some() && level == 0,
            // Nor the small ring's, whose modulus goes no higher.
            KeyId::ToSmallRing | KeyId::FromSmallRing => level <= self.parameters.small_ring()?.top_level(),
            KeyId::Component { log_rank, index } => {
                let degree = self.parameters.degree();
                (log_rank as u32) < degree.trailing_zeros() && (index as usize) < 1 << log_rank
            }
        };
        if exists { Ok(()) } else { Err(Error::MissingKey { id, level }) }
    }

    // The secret switched to, over `basis`: s, σ_g^{−1}(s), or the ephemeral one.
    fn target(&self, id: KeyId, basis: Basis, signed: &mut Scratch<'_>) -> Result<Guarded<'_, A>, Error> {
        let degree = self.parameters.degree();
        let inverse = match id {
            KeyId::DenseToSparse => return self.ephemeral(basis, signed),
            KeyId::ToSmallRing => return self.spread_small(basis, signed),
            KeyId::Relinearization
            | KeyId::SparseToDense
            | KeyId::FromSmallRing
            | KeyId::Component { .. } => 1,
            KeyId::Galois(g) => odd_inverse(g as usize, 2 * degree),
        };
        let mut target = Guarded::allocate(self.accelerator, basis)?;
        let (ordinary, special) = target.limbs_mut().split_at_mut(basis.ordinary());
        let (secret, first) = (self.secret.limbs(), self.parameters.chain().ordinary());
        for (basis, limbs, secret) in [
            (basis.with_special(0), ordinary, &secret[..basis.ordinary()]),
            (Basis::new(0, 0, basis.special()), special, &secret[first..first + basis.special()]),
        ] {
            if inverse == 1 {
                self.accelerator.copy(limbs, secret)?;
            } else {
                self.accelerator.automorphism(basis, limbs, secret, inverse)?;
            }
        }
        Ok(target)
    }

    // The secret switched from, over Q_level: s², s, or the ephemeral one.
    fn source(&self, id: KeyId, basis: Basis, signed: &mut Scratch<'_>) -> Result<Guarded<'_, A>, Error> {
        match id {
            KeyId::SparseToDense => return self.ephemeral(basis, signed),
            KeyId::FromSmallRing => return self.spread_small(basis, signed),
            KeyId::Component { log_rank, index } => {
                return self.component(1 << log_rank, index as usize, basis, signed);
            }
            KeyId::Relinearization | KeyId::Galois(_) | KeyId::DenseToSparse | KeyId::ToSmallRing => {}
        }
        let secret = &self.secret.limbs()[..basis.len()];
        let mut source = Guarded::allocate(self.accelerator, basis)?;
        self.accelerator.copy(source.limbs_mut(), secret)?;
        if id == KeyId::Relinearization {
            self.accelerator.multiply_assign(basis, source.limbs_mut(), secret)?;
        }
        Ok(source)
    }

    // The secret of the small ring, which the same seed gives, as a polynomial in X^(N/N').
    fn spread_small(&self, basis: Basis, signed: &mut Scratch<'_>) -> Result<Guarded<'_, A>, Error> {
        let small = self.parameters.small_ring()?;
        let root = self.seed.bound_to(small.fingerprint());
        let (words, degree) = (signed.get(), small.degree());
        sampling::ternary(&mut root.stream(StreamId::new(Purpose::Secret)), &mut words[..degree]);
        spread(words, degree);
        Guarded::from_signed(self.accelerator, basis, signed.get())
    }

    // s_i(X^k), where s = Σ_i X^i·s_i(X^k).
    fn component(
        &self,
        rank: usize,
        index: usize,
        basis: Basis,
        signed: &mut Scratch<'_>,
    ) -> Result<Guarded<'_, A>, Error> {
        let words = signed.get();
        sampling::ternary(&mut self.root.stream(StreamId::new(Purpose::Secret)), words);
        for block in words.chunks_exact_mut(rank) {
            block.swap(0, index);
            block[1..].fill(0);
        }
        Guarded::from_signed(self.accelerator, basis, signed.get())
    }

    // The sparse secret that a ciphertext is under while it is raised.
    fn ephemeral(&self, basis: Basis, signed: &mut Scratch<'_>) -> Result<Guarded<'_, A>, Error> {
        let weight = self.parameters.bootstrap().map_or(0, |b| b.ephemeral_weight as usize);
        let stream = StreamId::new(Purpose::Secret).object(object_of(KeyId::DenseToSparse));
        sampling::fixed_weight(&mut self.root.stream(stream), weight, signed.get());
        Guarded::from_signed(self.accelerator, basis, signed.get())
    }
}

/// The first `count` words, spread over all of them at equal distances, zeros between.
fn spread(words: &mut [i64], count: usize) {
    let stride = words.len() / count;
    for i in (1..count).rev() {
        words.swap(i, i * stride);
    }
    words.iter_mut().enumerate().filter(|(i, _)| i % stride != 0).for_each(|(_, word)| *word = 0);
}
