//! Public evaluation keys, and the lists that say which are needed.

use super::{Error, KeyShape, Parameters};
use crate::accel::{Accelerator, Evaluations, KeyRow, MAX_DIGITS, Polynomial};
use core::ops::Deref;

/// Most keys in one list of requests.
pub const MAX_KEYS: usize = 512;

/// Which key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum KeyId {
    /// From s² to s, after a multiplication.
    Relinearization,
    /// For the automorphism X → X^g, g odd.
    Galois(u32),
    /// From the secret to the ephemeral sparse one, before a ciphertext is
    /// raised. Exists at level 0 only: a sparse secret is safe only there.
    DenseToSparse,
    /// From the ephemeral sparse secret back, after a ciphertext was raised.
    SparseToDense,
    /// From the secret to that of the small ring, s'(X^(N/N')). Its modulus is
    /// one that is safe in the small ring: that of [`Parameters::small_ring`].
    ToSmallRing,
    /// From the small ring's secret, s'(X^(N/N')), back.
    FromSmallRing,
    /// From s_i(X^k) to s, where s = Σ_i X^i·s_i(X^k): what packs samples of a
    /// module of rank k into one ciphertext.
    Component {
        /// log2 k.
        log_rank: u8,
        /// i, below k.
        index: u16,
    },
}

impl KeyId {
    /// The key of a rotation by `steps` slots (to the left when positive).
    pub fn rotation(parameters: &Parameters, steps: i64) -> Self {
        Self::Galois(galois_element(parameters.degree(), steps) as u32)
    }

    /// The key of complex conjugation.
    pub fn conjugation(parameters: &Parameters) -> Self {
        Self::Galois(2 * parameters.degree() as u32 - 1)
    }
}

/// 5^steps mod 2N: the automorphism that rotates slots left by `steps`, any sign.
pub fn galois_element(degree: usize, steps: i64) -> usize {
    let (slots, mask) = (degree as i64 / 2, 2 * degree - 1);
    let mut exponent = steps.rem_euclid(slots);
    let (mut base, mut g) = (5usize, 1usize);
    while exponent != 0 {
        if exponent & 1 == 1 {
            g = g.wrapping_mul(base) & mask;
        }
        base = base.wrapping_mul(base) & mask;
        exponent >>= 1;
    }
    g
}

/// g^{−1} modulo a power of two: g·g ≡ 1 (mod 8), and every step of Newton's
/// iteration doubles the bits.
pub(crate) fn odd_inverse(g: usize, modulus: usize) -> usize {
    let mut inverse = g;
    for _ in 0..4 {
        inverse = inverse.wrapping_mul(2usize.wrapping_sub(g.wrapping_mul(inverse)));
    }
    inverse & (modulus - 1)
}

/// One key at the highest level it is used at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct KeyRequest {
    /// Which key.
    pub id: KeyId,
    /// The highest level of use; the key works at every level up to this.
    pub level: usize,
}

/// Requests of a whole program, one per key.
#[derive(Clone, Debug, Default)]
pub struct KeyRequests {
    list: heapless::Vec<KeyRequest, MAX_KEYS>,
}

impl KeyRequests {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for `id` at `level`, or raises an earlier request to it. The
    /// identity needs no key and is left out.
    ///
    /// # Errors
    /// [`Error::Full`] beyond [`MAX_KEYS`] different keys.
    pub fn add(&mut self, id: KeyId, level: usize) -> Result<(), Error> {
        if id == KeyId::Galois(1) {
            return Ok(());
        }
        if let Some(request) = self.list.iter_mut().find(|r| r.id == id) {
            request.level = request.level.max(level);
            return Ok(());
        }
        self.list.push(KeyRequest { id, level }).map_err(|_| Error::Full { capacity: MAX_KEYS })
    }

    /// Adds all of `other`.
    ///
    /// # Errors
    /// As [`KeyRequests::add`].
    pub fn merge(&mut self, other: &Self) -> Result<(), Error> {
        other.list.iter().try_for_each(|r| self.add(r.id, r.level))
    }

    /// The requests.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &KeyRequest> {
        self.list.iter()
    }

    /// How many keys.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether none is asked for.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

/// A key that switches from one secret to another: per digit a pair (b, a)
/// over Q_level ∪ P with b = −a·s + e + P·g_d·s', where g_d is 1 modulo the
/// digit's primes and 0 modulo the others (Han and Ki, CT-RSA 2020).
///
/// For automorphism g the target secret is σ^{−1}(s), so that the automorphism
/// is applied after the switch, once, also when rotations are hoisted.
pub struct SwitchingKey<A: Accelerator> {
    id: KeyId,
    level: usize,
    digit_size: usize,
    digits: heapless::Vec<[Polynomial<A, Evaluations>; 2], MAX_DIGITS>,
}

impl<A: Accelerator> SwitchingKey<A> {
    /// From its digits, (b, a) each over Q_level ∪ P.
    ///
    /// # Errors
    /// [`Error::Length`] when the digits do not match the parameters.
    pub fn from_digits(
        parameters: &Parameters,
        id: KeyId,
        level: usize,
        digits: heapless::Vec<[Polynomial<A, Evaluations>; 2], MAX_DIGITS>,
    ) -> Result<Self, Error> {
        let KeyShape { digit_size, digits: need, basis } = parameters.key_shape(id, level);
        let fitting = digits.iter().filter(|pair| pair.iter().all(|p| p.basis() == basis)).count();
        if fitting != need || digits.len() != need {
            return Err(Error::Length { have: fitting, need });
        }
        Ok(Self { id, level, digit_size, digits })
    }

    /// Which key.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// The highest level it works at.
    pub fn level(&self) -> usize {
        self.level
    }

    /// Ordinary primes to a digit.
    pub(crate) fn digit_size(&self) -> usize {
        self.digit_size
    }

    /// Special primes.
    pub(crate) fn special(&self) -> usize {
        self.digits.first().map_or(0, |[b, _]| b.basis().special())
    }

    /// The digits, (b, a) each.
    pub fn digits(&self) -> &[[Polynomial<A, Evaluations>; 2]] {
        &self.digits
    }

    /// The rows of both halves, trimmed to `level`.
    pub(crate) fn rows(&self, level: usize) -> [heapless::Vec<KeyRow<'_, A::Limb>, MAX_DIGITS>; 2] {
        [0, 1].map(|half| {
            let needed = self.digits.len().min((level + 1).div_ceil(self.digit_size));
            self.digits[..needed]
                .iter()
                .map(|pair| {
                    let (limbs, ordinary) = (pair[half].limbs(), pair[half].basis().ordinary());
                    KeyRow { ordinary: &limbs[..=level], special: &limbs[ordinary..] }
                })
                .collect()
        })
    }

    /// Limbs that a relinearisation or Galois key at `level` takes in memory;
    /// the others take less.
    pub fn limbs_needed(parameters: &Parameters, level: usize) -> usize {
        2 * parameters.digits(level) * parameters.key_basis(level).len()
    }
}

/// Where an evaluator finds keys: a fixed list, a map on a host, a cache over files.
pub trait KeySource<A: Accelerator>: Sync {
    /// Holds on to a key while it is used: a reference, or a share of what a cache keeps.
    type Held<'k>: Deref<Target = SwitchingKey<A>>
    where
        Self: 'k;

    /// The key `id` that works at `level`.
    ///
    /// # Errors
    /// [`Error::MissingKey`]; [`Error::UnreadableKey`] from a source that has it elsewhere.
    fn key(&self, id: KeyId, level: usize) -> Result<Self::Held<'_>, Error>;

    /// That the key is there, for programs that look before they work. A
    /// source that has to load its keys does not load this one.
    ///
    /// # Errors
    /// [`Error::MissingKey`].
    fn check(&self, id: KeyId, level: usize) -> Result<(), Error> {
        self.key(id, level).map(drop)
    }
}

impl<A: Accelerator> KeySource<A> for [SwitchingKey<A>]
where
    A::Limb: Sync,
{
    type Held<'k>
        = &'k SwitchingKey<A>
    where
        A: 'k;

    fn key(&self, id: KeyId, level: usize) -> Result<&SwitchingKey<A>, Error> {
        self.iter().find(|k| k.id == id && k.level >= level).ok_or(Error::MissingKey { id, level })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_merge_to_the_highest_level() {
        let mut requests = KeyRequests::new();
        requests.add(KeyId::Relinearization, 3).unwrap();
        requests.add(KeyId::Relinearization, 7).unwrap();
        requests.add(KeyId::Relinearization, 5).unwrap();
        requests.add(KeyId::Galois(1), 5).unwrap();
        assert_eq!(requests.iter().copied().collect::<heapless::Vec<_, 2>>()[0].level, 7);
        assert_eq!(requests.len(), 1);
    }

    #[test]
    fn rotations_wrap_and_invert() {
        let n = 1 << 10;
        assert_eq!(galois_element(n, 0), 1);
        assert_eq!(galois_element(n, 512), 1);
        assert_eq!(galois_element(n, -1) * galois_element(n, 1) % (2 * n), 1);
    }
}
