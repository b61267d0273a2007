//! The primes of one ring: ordinary q_0 … q_L, then special p_0 … p_{k−1}.

use super::{Basis, Modulus, is_prime};

/// Most primes in one chain, ordinary and special together. At N = 2^16 the
/// security cap of 1747 bits holds 58 primes of 30 bits.
pub const MAX_LIMBS: usize = 64;

/// Why a list of primes is not a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum ChainError {
    /// N must be 2^10 … 2^17.
    LogDegree {
        /// log2 N as given.
        given: u32,
    },
    /// A chain has 1 … [`MAX_LIMBS`] primes, at least one ordinary.
    Count {
        /// Ordinary primes given.
        ordinary: usize,
        /// Special primes given.
        special: usize,
    },
    /// Not an odd prime below 2^50 with q ≡ 1 (mod 2N), or repeated.
    Prime {
        /// The value.
        value: u64,
    },
}

impl core::fmt::Display for ChainError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::LogDegree { given } => write!(f, "log2 N must be 10 to 17, got {given}"),
            Self::Count { ordinary, special } => {
                write!(f, "expected 1 to {MAX_LIMBS} primes, got {ordinary} ordinary and {special} special")
            }
            Self::Prime { value } => {
                write!(f, "{value} is not an unused prime below 2^50 that is 1 modulo 2N")
            }
        }
    }
}

impl core::error::Error for ChainError {}

/// N and the primes, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModulusChain {
    log_degree: u32,
    ordinary: usize,
    moduli: heapless::Vec<Modulus, MAX_LIMBS>,
}

impl ModulusChain {
    /// Checks `ordinary` and `special` and joins them.
    ///
    /// # Errors
    /// [`ChainError`] names the first value that does not fit.
    pub fn new(log_degree: u32, ordinary: &[u64], special: &[u64]) -> Result<Self, ChainError> {
        if !(10..=17).contains(&log_degree) {
            return Err(ChainError::LogDegree { given: log_degree });
        }
        if ordinary.is_empty() || ordinary.len() + special.len() > MAX_LIMBS {
            return Err(ChainError::Count { ordinary: ordinary.len(), special: special.len() });
        }
        let mut moduli: heapless::Vec<Modulus, MAX_LIMBS> = heapless::Vec::new();
        for &value in ordinary.iter().chain(special) {
            let repeated = moduli.iter().any(|m| m.value() == value);
            let friendly = value % (2 << log_degree) == 1 && is_prime(value);
            match Modulus::new(value) {
                Some(m) if friendly && !repeated => {
                    // Cannot overflow: the count was checked above.
                    let _ = moduli.push(m);
                }
                _ => return Err(ChainError::Prime { value }),
            }
        }
        Ok(Self { log_degree, ordinary: ordinary.len(), moduli })
    }

    /// log2 N.
    pub fn log_degree(&self) -> u32 {
        self.log_degree
    }

    /// N.
    pub fn degree(&self) -> usize {
        1 << self.log_degree
    }

    /// How many ordinary primes: L + 1.
    pub fn ordinary(&self) -> usize {
        self.ordinary
    }

    /// How many special primes.
    pub fn special(&self) -> usize {
        self.moduli.len() - self.ordinary
    }

    /// All primes: ordinary, then special.
    pub fn moduli(&self) -> &[Modulus] {
        &self.moduli
    }

    /// The primes of `basis`, in limb order. The basis must fit the chain.
    pub fn of(&self, basis: Basis) -> impl ExactSizeIterator<Item = &Modulus> + Clone {
        (0..basis.len()).map(move |i| &self.moduli[basis.prime_index(self, i)])
    }

    /// log2 of the product of all primes.
    pub fn log2_product(&self) -> f64 {
        self.moduli.iter().map(|m| libm::log2(m.value() as f64)).sum()
    }

    /// Product of `basis` reduced modulo `target`.
    pub fn product_mod(&self, basis: Basis, target: &Modulus) -> u64 {
        self.of(basis).fold(1, |product, m| target.multiply(product, target.reduce(m.value())))
    }
}
