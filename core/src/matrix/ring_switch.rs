//! Between the big ring and the small one.
//!
//! ct(X) under s'(X^f), f = N/N', is Σ_i X^i·ct_i(X^f) with every ct_i a ciphertext of degree N' under s'
//! (Gentry, Halevi, Peikert, Smart, "Ring switching in BGV-style homomorphic encryption", 2012).

use super::Error;
use crate::accel::{Accelerator, Coefficients, Polynomial};
use crate::ckks::server::Evaluator;
use crate::ckks::{self, Ciphertext, KeyId, KeyRequests, KeySource, Parameters};
use crate::ring::{Basis, Word};

/// Moves ciphertexts between a ring and its [`Parameters::small_ring`].
pub struct RingSwitch<'a, A: Accelerator, K: KeySource<A> + ?Sized> {
    big: Evaluator<'a, A, K>,
    small: &'a A,
    level: usize,
}

impl<'a, A: Accelerator, K: KeySource<A> + ?Sized> RingSwitch<'a, A, K> {
    /// Between the ring of an evaluator and that of the accelerator `small`, set up with the chain of
    /// [`Parameters::small_ring`].
    ///
    /// # Errors
    /// [`ckks::Error::OtherChain`] when it was not; those of [`Parameters::small_ring`].
    pub fn new(big: Evaluator<'a, A, K>, small: &'a A) -> Result<Self, Error> {
        let parameters = big.parameters().small_ring()?;
        if small.chain() != parameters.chain() {
            return Err(ckks::Error::OtherChain.into());
        }
        Ok(Self { big, small, level: parameters.top_level() })
    }

    /// Small ciphertexts to a big one: N/N'.
    pub fn factor(&self) -> usize {
        self.big.parameters().degree() / self.small.chain().degree()
    }

    /// Words of scratch: N + N'.
    pub fn words_needed(&self) -> usize {
        self.big.parameters().degree() + self.small.chain().degree()
    }

    /// The keys of both directions, for results at `up` when they come back.
    ///
    /// # Errors
    /// Those of [`Parameters::small_ring`]; [`ckks::Error::Full`].
    pub fn required_keys(
        parameters: &Parameters,
        up: usize,
        keys: &mut KeyRequests,
    ) -> Result<(), ckks::Error> {
        keys.add(KeyId::ToSmallRing, parameters.small_ring()?.top_level())?;
        keys.add(KeyId::FromSmallRing, up)
    }

    /// Coefficient i + f·n of x becomes coefficient n of `out[i]`. Fewer than f places take the first ones.
    ///
    /// # Errors
    /// [`ckks::Error::Level`] above the small ring's level; [`ckks::Error::MissingKey`]; [`Error::Room`].
    pub fn to_small(
        &self,
        x: &Ciphertext<A>,
        words: &mut [A::Word],
        out: &mut [Option<Ciphertext<A>>],
    ) -> Result<(), Error> {
        let level = x.level();
        if level > self.level {
            return Err(ckks::Error::Level { have: level, need: self.level }.into());
        }
        let (whole, piece) = self.scratch(words)?;
        let [c0, c1] = x.parts();
        let sums = self.big.key_switch(KeyId::ToSmallRing, c1)?;
        let switched = self.big.divide_add(sums, Basis::level(level), [Some(c0), None])?;
        let (factor, basis) = (self.factor(), Basis::level(level));
        let count = factor.min(out.len());
        let mut pieces: heapless::Vec<[Polynomial<A, Coefficients>; 2], MAX_FACTOR> = heapless::Vec::new();
        for _ in 0..count {
            let limbs = || Polynomial::allocate(self.small, basis);
            let full = |_| ckks::Error::Full { capacity: MAX_FACTOR };
            pieces.push([limbs()?, limbs()?]).map_err(full)?;
        }
        for (half, part) in switched.parts.into_iter().enumerate() {
            let part = part.into_coefficients(self.big.accelerator())?;
            for (prime, limb) in part.limbs().iter().enumerate() {
                self.big.accelerator().read(limb, whole)?;
                for (i, pair) in pieces.iter_mut().enumerate() {
                    piece.iter_mut().zip(whole[i..].iter().step_by(factor)).for_each(|(x, y)| *x = *y);
                    self.small.write(&mut pair[half].limbs_mut()[prime], piece)?;
                }
            }
        }
        for (out, [c0, c1]) in out.iter_mut().zip(pieces) {
            let parts = [c0.into_evaluations(self.small)?, c1.into_evaluations(self.small)?];
            *out = Some(Ciphertext::from_parts(parts)?);
        }
        Ok(())
    }

    /// The inverse of [`RingSwitch::to_small`]; where there are fewer than f, the others are zero.
    ///
    /// # Errors
    /// [`Error::Room`] for none or more than f; [`ckks::Error::Level`] when their levels differ;
    /// [`ckks::Error::MissingKey`].
    pub fn to_big(&self, x: &[Ciphertext<A>], words: &mut [A::Word]) -> Result<Ciphertext<A>, Error> {
        let (first, factor) = (x.first().ok_or(Error::Room { have: 0, need: 1 })?, self.factor());
        if x.len() > factor {
            return Err(Error::Room { have: x.len(), need: factor });
        }
        let level = first.level();
        if let Some(other) = x.iter().find(|c| c.level() != level) {
            return Err(ckks::Error::Level { have: other.level(), need: level }.into());
        }
        let (whole, piece) = self.scratch(words)?;
        let (big, basis) = (self.big.accelerator(), Basis::level(level));
        let limbs = || Polynomial::<A, Coefficients>::allocate(big, basis);
        let mut parts = [limbs()?, limbs()?];
        for (half, part) in parts.iter_mut().enumerate() {
            for (prime, limb) in part.limbs_mut().iter_mut().enumerate() {
                whole.fill(A::Word::from_u64(0));
                for (i, ciphertext) in x.iter().enumerate() {
                    let mut source = [self.small.allocate()?];
                    let from = &ciphertext.parts()[half].limbs()[prime..prime + 1];
                    self.small.copy(&mut source, from)?;
                    self.small.ntt_inverse(Basis::new(prime, 1, 0), &mut source)?;
                    self.small.read(&source[0], piece)?;
                    whole[i..].iter_mut().step_by(factor).zip(&*piece).for_each(|(x, y)| *x = *y);
                }
                big.write(limb, whole)?;
            }
        }
        let [c0, c1] = parts;
        let (c0, c1) = (c0.into_evaluations(big)?, c1.into_evaluations(big)?);
        let sums = self.big.key_switch(KeyId::FromSmallRing, &c1)?;
        drop(c1);
        Ok(self.big.divide_add(sums, basis, [Some(&c0), None])?)
    }

    /// N words, then N'.
    fn scratch<'w>(&self, words: &'w mut [A::Word]) -> Result<Halves<'w, A::Word>, Error> {
        let (have, need) = (words.len(), self.words_needed());
        let words = words.get_mut(..need).ok_or(Error::Room { have, need })?;
        Ok(words.split_at_mut(self.big.parameters().degree()))
    }
}

type Halves<'w, W> = (&'w mut [W], &'w mut [W]);

/// Most small ciphertexts to a big one: degrees are 2^10 to 2^17.
const MAX_FACTOR: usize = 128;
