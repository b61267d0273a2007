//! Parameters: a literal anyone may write, and the checked form everything uses.

use super::{Error, ParameterField, max_log_qp};
use crate::ring::{Basis, MAX_LIMBS, ModulusChain, prime_near, primes_below};
use sha2::{Digest, Sha256};

/// Distribution of the main secret key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum SecretDistribution {
    /// Every coefficient uniform in {−1, 0, 1}.
    UniformTernary,
}

/// What the parameters promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Security {
    /// log2 QP within [`super::SECURITY_TABLE`].
    Classical128,
    /// None: for quick tests only. Marked in every fingerprint and file.
    #[cfg(feature = "insecure-toy")]
    InsecureToy,
}

/// A choice of parameters, not yet checked.
///
/// ```
/// # fn main() -> Result<(), veilformer::ckks::Error> {
/// let parameters = veilformer::ckks::ParametersLiteral::N13_3.check()?;
/// assert_eq!(parameters.max_level(), 2);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ParametersLiteral {
    /// log2 N, 10 to 17.
    pub log_degree: u32,
    /// Bits of q_0: decides how large a decrypted value may be over the scale.
    pub base_bits: u32,
    /// log2 of the scale Δ; also the size of the other ordinary primes.
    pub scale_bits: u32,
    /// L, the multiplicative depth: L + 1 ordinary primes.
    pub levels: u32,
    /// Special primes for key switching; 0 when none is ever needed.
    pub special_primes: u32,
    /// Bits of a special prime.
    pub special_bits: u32,
    /// Ordinary primes to a key-switching digit, at most `special_primes`.
    pub digit_size: u32,
    /// Distribution of the secret.
    pub secret: SecretDistribution,
    /// Promise.
    pub security: Security,
}

const SECURE: ParametersLiteral = ParametersLiteral {
    log_degree: 16,
    base_bits: 50,
    scale_bits: 47,
    levels: 23,
    special_primes: 8,
    special_bits: 50,
    digit_size: 8,
    secret: SecretDistribution::UniformTernary,
    security: Security::Classical128,
};

impl ParametersLiteral {
    /// N = 2^16, 24 limbs, three digits: the comparison set of `benches/`.
    pub const N16_24: Self = SECURE;
    /// N = 2^16, 12 limbs, three digits of four.
    pub const N16_12: Self = Self { levels: 11, special_primes: 4, digit_size: 4, ..SECURE };
    /// N = 2^16, 36 limbs at 38 bits, four digits: the leveled transformer.
    pub const N16_LEVELED: Self =
        Self { base_bits: 46, scale_bits: 38, levels: 35, special_primes: 7, digit_size: 9, ..SECURE };
    /// N = 2^15, 12 limbs.
    pub const N15_12: Self =
        Self { log_degree: 15, scale_bits: 45, levels: 11, special_primes: 4, digit_size: 4, ..SECURE };
    /// N = 2^13, 3 limbs, one special prime.
    pub const N13_3: Self =
        Self { log_degree: 13, scale_bits: 45, levels: 2, special_primes: 1, digit_size: 1, ..SECURE };
    /// N = 2^12 without key switching, primes that fit 32-bit words: a sensor that only encrypts.
    pub const N12_EDGE: Self = Self {
        log_degree: 12,
        base_bits: 30,
        scale_bits: 27,
        levels: 2,
        special_primes: 0,
        special_bits: 30,
        digit_size: 1,
        ..SECURE
    };
    /// N = 2^10 with no security at all: quick tests.
    #[cfg(feature = "insecure-toy")]
    pub const INSECURE_TOY: Self = Self {
        log_degree: 10,
        base_bits: 50,
        scale_bits: 40,
        levels: 7,
        special_primes: 3,
        special_bits: 50,
        digit_size: 3,
        security: Security::InsecureToy,
        ..SECURE
    };
    /// As [`Self::INSECURE_TOY`], primes that fit 32-bit words.
    #[cfg(feature = "insecure-toy")]
    pub const INSECURE_TOY_32: Self =
        Self { base_bits: 30, scale_bits: 28, special_bits: 30, ..Self::INSECURE_TOY };
    /// N = 2^11 with no security at all, deep enough for a leveled transformer.
    #[cfg(feature = "insecure-toy")]
    pub const INSECURE_TOY_DEEP: Self = Self {
        log_degree: 11,
        levels: 34,
        scale_bits: 40,
        special_primes: 7,
        digit_size: 7,
        ..Self::INSECURE_TOY
    };

    /// The named sets, smallest first, with their names.
    pub const NAMED: &'static [(&'static str, Self)] = &[
        #[cfg(feature = "insecure-toy")]
        ("insecure-toy", Self::INSECURE_TOY),
        #[cfg(feature = "insecure-toy")]
        ("insecure-toy-32", Self::INSECURE_TOY_32),
        #[cfg(feature = "insecure-toy")]
        ("insecure-toy-deep", Self::INSECURE_TOY_DEEP),
        ("n12/edge", Self::N12_EDGE),
        ("n13/3", Self::N13_3),
        ("n15/12", Self::N15_12),
        ("n16/12", Self::N16_12),
        ("n16/24", Self::N16_24),
        ("n16/leveled", Self::N16_LEVELED),
    ];

    /// Checks every field and finds the primes.
    ///
    /// # Errors
    /// [`Error::Parameter`], [`Error::NoPrime`] or [`Error::Insecure`], each with the limits.
    pub fn check(&self) -> Result<Parameters, Error> {
        let within = |field, given, min, max| {
            if (min..=max).contains(&given) {
                Ok(())
            } else {
                Err(Error::Parameter { field, given, min, max })
            }
        };
        within(ParameterField::LogDegree, self.log_degree, 10, 17)?;
        within(ParameterField::BaseBits, self.base_bits, 25, 50)?;
        within(ParameterField::ScaleBits, self.scale_bits, 20, 49)?;
        within(ParameterField::Levels, self.levels, 0, MAX_LIMBS as u32 - 1)?;
        within(ParameterField::SpecialPrimes, self.special_primes, 0, MAX_LIMBS as u32 - 1 - self.levels)?;
        within(ParameterField::SpecialBits, self.special_bits, 25, 50)?;
        within(ParameterField::DigitSize, self.digit_size, 1, crate::ring::MAX_SOURCES as u32)?;
        if self.special_primes > 0 {
            // The noise of a switch is divided by P: a digit's product must not exceed P.
            let special = self.special_primes * self.special_bits;
            let digit = self.base_bits + (self.digit_size - 1).min(self.levels) * self.scale_bits;
            within(ParameterField::DigitSize, digit, 1, special)?;
            let digits = (self.levels + 1).div_ceil(self.digit_size);
            within(ParameterField::DigitSize, digits, 1, crate::accel::MAX_DIGITS as u32)?;
            within(
                ParameterField::SpecialPrimes,
                self.special_primes,
                1,
                crate::ring::MAX_SOURCES as u32 - 1,
            )?;
        }
        Parameters::new(*self)
    }
}

/// Checked parameters: the primes, the scale of every level, the fingerprint.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameters {
    literal: ParametersLiteral,
    chain: ModulusChain,
    scales: heapless::Vec<f64, MAX_LIMBS>,
    fingerprint: [u8; 32],
}

impl Parameters {
    fn new(literal: ParametersLiteral) -> Result<Self, Error> {
        let step = 2u64 << literal.log_degree;
        let none = |bits| Error::NoPrime { bits, log_degree: literal.log_degree };
        let mut used: heapless::Vec<u64, MAX_LIMBS> = heapless::Vec::new();
        let full = |_| Error::Full { capacity: MAX_LIMBS };
        let q0 = primes_below(1 << literal.base_bits, step).next().ok_or(none(literal.base_bits))?;
        used.push(q0).map_err(full)?;
        for p in primes_below(1 << literal.special_bits, step)
            .filter(|&p| p != q0)
            .take(literal.special_primes as usize)
        {
            if p >> (literal.special_bits - 1) == 0 {
                return Err(none(literal.special_bits));
            }
            used.push(p).map_err(full)?;
        }
        if used.len() != 1 + literal.special_primes as usize {
            return Err(none(literal.special_bits));
        }
        // From the top level down, the prime nearest to S_l²/Δ steers the next
        // scale back to Δ: S_{l−1} = S_l²/q_l stays within a prime gap of it.
        let delta = (1u64 << literal.scale_bits) as f64;
        let bound = 1u64 << if literal.base_bits <= 30 && literal.special_bits <= 30 { 30 } else { 50 };
        let levels = literal.levels as usize;
        let (mut scales, mut ordinary) = ([delta; MAX_LIMBS], [q0; MAX_LIMBS]);
        for level in (1..=levels).rev() {
            let target = scales[level] * scales[level] / delta;
            let q = prime_near(target as u64, step, bound, |q| !used.contains(&q))
                .ok_or(none(literal.scale_bits))?;
            used.push(q).map_err(full)?;
            ordinary[level] = q;
            scales[level - 1] = scales[level] * scales[level] / q as f64;
        }
        let special = used.get(1..1 + literal.special_primes as usize).unwrap_or(&[]);
        let chain = ModulusChain::new(literal.log_degree, &ordinary[..=levels], special)?;
        let log_qp = libm::ceil(chain.log2_product()) as u32;
        match literal.security {
            Security::Classical128 => {
                let cap = max_log_qp(literal.log_degree).unwrap_or(0);
                if log_qp > cap {
                    return Err(Error::Insecure { log_degree: literal.log_degree, log_qp, cap });
                }
            }
            #[cfg(feature = "insecure-toy")]
            Security::InsecureToy => {}
        }
        let scales = scales[..=levels].iter().copied().collect();
        let fingerprint = fingerprint(&literal, &chain);
        Ok(Self { literal, chain, scales, fingerprint })
    }

    /// The literal they were checked from.
    pub fn literal(&self) -> &ParametersLiteral {
        &self.literal
    }

    /// N and the primes.
    pub fn chain(&self) -> &ModulusChain {
        &self.chain
    }

    /// N.
    pub fn degree(&self) -> usize {
        self.chain.degree()
    }

    /// Complex slots: N/2.
    pub fn slots(&self) -> usize {
        self.degree() / 2
    }

    /// L: the level of a fresh ciphertext.
    pub fn max_level(&self) -> usize {
        self.chain.ordinary() - 1
    }

    /// The scale of every ciphertext and plaintext at `level` ≤ L.
    pub fn scale(&self, level: usize) -> f64 {
        self.scales[level.min(self.max_level())]
    }

    /// Ordinary primes to a key-switching digit.
    pub fn digit_size(&self) -> usize {
        self.literal.digit_size as usize
    }

    /// Q_level ∪ P.
    pub fn key_basis(&self, level: usize) -> Basis {
        Basis::level(level).with_special(self.chain.special())
    }

    /// Digits of a key at `level`.
    pub fn digits(&self, level: usize) -> usize {
        (level + 1).div_ceil(self.digit_size())
    }

    /// Whether the parameters promise no security.
    pub fn is_insecure(&self) -> bool {
        self.literal.security != Security::Classical128
    }

    /// log2 QP.
    pub fn log_qp(&self) -> f64 {
        self.chain.log2_product()
    }

    /// SHA-256 over every field and prime.
    pub fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }

    /// The name of the set, if it is a named one.
    pub fn name(&self) -> Option<&'static str> {
        ParametersLiteral::NAMED.iter().find(|(_, literal)| *literal == self.literal).map(|(name, _)| *name)
    }
}

fn fingerprint(literal: &ParametersLiteral, chain: &ModulusChain) -> [u8; 32] {
    let secure = literal.security == Security::Classical128;
    let mut hash = Sha256::new();
    hash.update(b"veilformer parameters 1");
    for field in [
        literal.log_degree,
        literal.base_bits,
        literal.scale_bits,
        literal.levels,
        literal.special_primes,
        literal.special_bits,
        literal.digit_size,
        literal.secret as u32,
        secure as u32,
    ] {
        hash.update(field.to_le_bytes());
    }
    for modulus in chain.moduli() {
        hash.update(modulus.value().to_le_bytes());
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_sets_are_within_the_table_and_scales_hold_still() {
        for (name, literal) in ParametersLiteral::NAMED {
            let p = literal.check().unwrap_or_else(|e| panic!("{name}: {e}"));
            let delta = (1u64 << literal.scale_bits) as f64;
            for level in 0..=p.max_level() {
                let drift = (p.scale(level) / delta - 1.0).abs();
                assert!(drift < 0.02, "{name}: level {level} drifts by {drift}");
            }
        }
    }

    #[test]
    fn too_much_modulus_is_refused_with_the_cap() {
        let literal = ParametersLiteral { levels: 31, ..ParametersLiteral::N16_24 };
        assert!(matches!(literal.check(), Err(Error::Insecure { log_degree: 16, cap: 1747, .. })));
    }

    #[test]
    fn every_field_is_checked() {
        for literal in [
            ParametersLiteral { log_degree: 9, ..ParametersLiteral::N16_24 },
            ParametersLiteral { base_bits: 51, ..ParametersLiteral::N16_24 },
            ParametersLiteral { scale_bits: 50, ..ParametersLiteral::N16_24 },
            ParametersLiteral { levels: 64, ..ParametersLiteral::N16_24 },
            ParametersLiteral { special_primes: 60, ..ParametersLiteral::N16_24 },
            ParametersLiteral { digit_size: 9, ..ParametersLiteral::N16_24 },
        ] {
            assert!(matches!(literal.check(), Err(Error::Parameter { .. })), "{literal:?}");
        }
    }
}
