//! Objects whose uniform half is a public seed: half the memory, half the
//! disk, half the message. Expansion needs no secret.

use super::{Ciphertext, Error, KeyId, KeyShape, Parameters, SwitchingKey};
use crate::accel::{Accelerator, Evaluations, MAX_DIGITS, Polynomial};
use crate::ring::{Basis, MAX_LIMBS, PublicSeed, Purpose, StreamId, sampling};

/// Names the uniform polynomials of an object under one seed.
#[derive(Clone, Copy)]
pub(crate) struct UniformId {
    pub(crate) object: u32,
    pub(crate) part: u8,
}

/// The half of a ciphertext or public key that a seed stands for.
pub(crate) const SINGLE: UniformId = UniformId { object: 0, part: 0 };

/// Digit `digit` of a switching key.
pub(crate) fn digit_of(id: KeyId, digit: usize) -> UniformId {
    UniformId { object: object_of(id), part: digit as u8 }
}

/// Set in the numbers of [`KeyId::Component`], which are even.
const COMPONENT: u32 = 1 << 31;

/// The number of a key in stream ids and files; Galois elements are odd, and 2
/// is the public key's.
pub(crate) const fn object_of(id: KeyId) -> u32 {
    match id {
        KeyId::Relinearization => 0,
        KeyId::Galois(g) => g,
        KeyId::DenseToSparse => 4,
        KeyId::SparseToDense => 6,
        KeyId::ToSmallRing => 8,
        KeyId::FromSmallRing => 10,
        KeyId::Component { log_rank, index } => COMPONENT | (log_rank as u32) << 20 | (index as u32) << 1,
    }
}

/// The key with this number.
pub(crate) const fn key_of(object: u32) -> Option<KeyId> {
    match object {
        0 => Some(KeyId::Relinearization),
        4 => Some(KeyId::DenseToSparse),
        6 => Some(KeyId::SparseToDense),
        8 => Some(KeyId::ToSmallRing),
        10 => Some(KeyId::FromSmallRing),
        g if g % 2 == 1 => Some(KeyId::Galois(g)),
        c if c & COMPONENT != 0 => {
            let (log_rank, index) = (c >> 20 & 0xFF, c >> 1 & 0xFFFF);
            let id = KeyId::Component { log_rank: log_rank as u8, index: index as u16 };
            if object_of(id) == c { Some(id) } else { None }
        }
        _ => None,
    }
}

/// Writes limb `i` of `basis` of the uniform polynomial `id`.
pub(crate) fn expand_limb<A: Accelerator>(
    accelerator: &A,
    seed: &PublicSeed,
    id: UniformId,
    prime: usize,
    limb: &mut A::Limb,
    words: &mut [A::Word],
) -> Result<(), Error> {
    let stream = StreamId { purpose: Purpose::Uniform, object: id.object, part: id.part, limb: prime as u8 };
    sampling::uniform(&mut seed.stream(stream), &accelerator.chain().moduli()[prime], words);
    Ok(accelerator.write(limb, words)?)
}

/// The uniform polynomial `id` over `basis`. `words` is host memory for N
/// words or a multiple: as many limbs are sampled at a time.
pub(crate) fn expand<A: Accelerator>(
    accelerator: &A,
    seed: &PublicSeed,
    id: UniformId,
    basis: Basis,
    words: &mut [A::Word],
) -> Result<Polynomial<A, Evaluations>, Error> {
    let chain = accelerator.chain();
    let degree = chain.degree();
    let lanes = (words.len() / degree).min(basis.len());
    if lanes == 0 {
        return Err(Error::Length { have: words.len(), need: degree });
    }
    let mut uniform = Polynomial::allocate(accelerator, basis)?;
    let share = basis.len().div_ceil(lanes);
    let mut shares: heapless::Vec<_, MAX_LIMBS> =
        uniform.limbs_mut().chunks_mut(share).zip(words.chunks_exact_mut(degree)).collect();
    let result = accelerator.for_each(&mut shares, |s, (limbs, words)| {
        limbs.iter_mut().enumerate().try_for_each(|(i, limb)| {
            let prime = basis.prime_index(chain, s * share + i);
            expand_limb(accelerator, seed, id, prime, limb, words)
        })
    });
    drop(shares);
    result.map(|()| uniform)
}

/// A fresh ciphertext as c0 and the seed of c1.
pub struct SeededCiphertext<A: Accelerator> {
    pub(crate) seed: PublicSeed,
    pub(crate) body: Polynomial<A, Evaluations>,
}

impl<A: Accelerator> SeededCiphertext<A> {
    /// From its parts, as read from a message.
    ///
    /// # Errors
    /// [`Error::Length`] unless `body` is over some Q_level.
    pub fn from_parts(seed: PublicSeed, body: Polynomial<A, Evaluations>) -> Result<Self, Error> {
        let basis = body.basis();
        if basis.is_empty() || basis != Basis::level(basis.len() - 1) {
            return Err(Error::Length { have: basis.len(), need: basis.ordinary() });
        }
        Ok(Self { seed, body })
    }

    /// The seed of c1.
    pub fn seed(&self) -> &PublicSeed {
        &self.seed
    }

    /// c0.
    pub fn body(&self) -> &Polynomial<A, Evaluations> {
        &self.body
    }

    /// The level.
    pub fn level(&self) -> usize {
        self.body.basis().len() - 1
    }

    /// The whole ciphertext. `words` holds N words or a multiple: as many
    /// limbs are expanded at a time.
    ///
    /// # Errors
    /// [`Error::Length`] for fewer words; the accelerator's.
    pub fn expand(self, accelerator: &A, words: &mut [A::Word]) -> Result<Ciphertext<A>, Error> {
        let mask = expand(accelerator, &self.seed, SINGLE, self.body.basis(), words)?;
        Ciphertext::from_parts([self.body, mask])
    }
}

/// A switching key as its b halves and the seed of the a halves. A key
/// trimmed to a lower level is a part of the full one, limb by limb.
pub struct SeededSwitchingKey<A: Accelerator> {
    pub(crate) id: KeyId,
    pub(crate) level: usize,
    pub(crate) seed: PublicSeed,
    pub(crate) digits: heapless::Vec<Polynomial<A, Evaluations>, MAX_DIGITS>,
}

impl<A: Accelerator> SeededSwitchingKey<A> {
    /// From its parts, as read from a file.
    ///
    /// # Errors
    /// [`Error::Length`] when the digits do not match the parameters.
    pub fn from_parts(
        parameters: &Parameters,
        id: KeyId,
        level: usize,
        seed: PublicSeed,
        digits: heapless::Vec<Polynomial<A, Evaluations>, MAX_DIGITS>,
    ) -> Result<Self, Error> {
        let KeyShape { digits: need, basis, .. } = parameters.key_shape(id, level);
        let fitting = digits.iter().filter(|b| b.basis() == basis).count();
        if fitting != need || digits.len() != need {
            return Err(Error::Length { have: fitting, need });
        }
        Ok(Self { id, level, seed, digits })
    }

    /// Which key.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// The highest level it works at.
    pub fn level(&self) -> usize {
        self.level
    }

    /// The seed of the a halves.
    pub fn seed(&self) -> &PublicSeed {
        &self.seed
    }

    /// The b half of every digit.
    pub fn digits(&self) -> &[Polynomial<A, Evaluations>] {
        &self.digits
    }

    /// The whole key. `words` holds N words or a multiple: as many limbs are
    /// expanded at a time.
    ///
    /// # Errors
    /// [`Error::Length`] for fewer words; the accelerator's.
    pub fn expand(
        self,
        accelerator: &A,
        parameters: &Parameters,
        words: &mut [A::Word],
    ) -> Result<SwitchingKey<A>, Error> {
        let Self { id, level, seed, digits } = self;
        let mut pairs = heapless::Vec::new();
        for (d, b) in digits.into_iter().enumerate() {
            let a = expand(accelerator, &seed, digit_of(id, d), b.basis(), words)?;
            // Cannot overflow: the digits came out of a list of the same capacity.
            let _ = pairs.push([b, a]);
        }
        SwitchingKey::from_digits(parameters, id, level, pairs)
    }
}
