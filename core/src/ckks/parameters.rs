//! Checked parameters: the form everything uses.

use super::{BootstrapLiteral, Error, KeyId, ParametersLiteral, Security, max_log_q_sparse, max_log_qp};
use crate::ring::{Basis, MAX_LIMBS, ModulusChain, prime_near, primes_below};
use sha2::{Digest, Sha256};

/// Checked parameters: the primes, the scale of every level, the fingerprint.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameters {
    literal: ParametersLiteral,
    chain: ModulusChain,
    scales: heapless::Vec<f64, MAX_LIMBS>,
    fingerprint: [u8; 32],
}

impl Parameters {
    pub(super) fn new(literal: ParametersLiteral) -> Result<Self, Error> {
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
        // Bootstrapping works at a scale of its own, and ends at Δ.
        let bound = 1u64 << if literal.base_bits <= 30 && literal.special_bits <= 30 { 30 } else { 50 };
        let top = (literal.levels + literal.bootstrap_levels()) as usize;
        let (mut scales, mut ordinary) = ([0.0; MAX_LIMBS], [q0; MAX_LIMBS]);
        for level in (0..=top).rev() {
            let bits = literal.ordinary_bits(level.max(1) as u32);
            let delta = (1u64 << bits) as f64;
            let fresh = level == top || delta != (1u64 << literal.ordinary_bits(level as u32 + 1)) as f64;
            scales[level] = if fresh {
                delta
            } else {
                scales[level + 1] * scales[level + 1] / ordinary[level + 1] as f64
            };
            if level > 0 {
                let target = scales[level] * scales[level] / delta;
                let q = prime_near(target as u64, step, bound, |q| !used.contains(&q)).ok_or(none(bits))?;
                used.push(q).map_err(full)?;
                ordinary[level] = q;
            }
        }
        let special = used.get(1..1 + literal.special_primes as usize).unwrap_or(&[]);
        let chain = ModulusChain::new(literal.log_degree, &ordinary[..=top], special)?;
        let log_qp = libm::ceil(chain.log2_product()) as u32;
        match literal.security {
            Security::Classical128 => {
                let cap = max_log_qp(literal.log_degree).unwrap_or(0);
                if log_qp > cap {
                    return Err(Error::Insecure { log_degree: literal.log_degree, log_qp, cap });
                }
                if let Some(bootstrap) = literal.bootstrap {
                    check_ephemeral(&literal, &bootstrap)?;
                }
            }
            #[cfg(feature = "insecure-toy")]
            Security::InsecureToy => {}
        }
        let scales = scales[..=top].iter().copied().collect();
        let fingerprint = fingerprint(&literal, &chain);
        Ok(Self { literal, chain, scales, fingerprint })
    }

    /// The literal they were checked from.
    pub fn literal(&self) -> &ParametersLiteral {
        &self.literal
    }

    /// The ring that linear algebra happens in between SlotToCoeff and ModRaise: the primes up to the
    /// level at which SlotToCoeff ends, one special prime, and the smallest degree at which they are
    /// safe. Without security, half the degree.
    ///
    /// # Errors
    /// [`Error::NoBootstrap`]; [`Error::Insecure`] when no degree below N is safe.
    pub fn small_ring(&self) -> Result<Self, Error> {
        let bootstrap = self.bootstrap().ok_or(Error::NoBootstrap)?;
        let level = bootstrap.coefficient_level as usize;
        let primes = |basis| -> heapless::Vec<u64, MAX_LIMBS> {
            self.chain.of(basis).map(|modulus| modulus.value()).collect()
        };
        let (ordinary, special) = (primes(Basis::level(level)), primes(Basis::new(0, 0, 1)));
        let below = self.literal.log_degree - 1;
        let bits = ModulusChain::new(below, &ordinary, &special)?.log2_product();
        let log_qp = libm::ceil(bits) as u32;
        let fits = |log_degree: &u32| max_log_qp(*log_degree).is_some_and(|cap| log_qp <= cap);
        let log_degree = if self.is_insecure() { Some(below) } else { (10..=below).find(fits) };
        let cap = max_log_qp(below).unwrap_or(0);
        let log_degree = log_degree.ok_or(Error::Insecure { log_degree: below, log_qp, cap })?;
        let literal = ParametersLiteral {
            log_degree,
            levels: level as u32,
            special_primes: 1,
            digit_size: 1,
            bootstrap: None,
            ..self.literal
        };
        let chain = ModulusChain::new(log_degree, &ordinary, &special)?;
        let scales = self.scales[..=level].iter().copied().collect();
        let fingerprint = fingerprint(&literal, &chain);
        Ok(Self { literal, chain, scales, fingerprint })
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

    /// L: the level of a fresh ciphertext, and of one that was bootstrapped.
    pub fn max_level(&self) -> usize {
        self.literal.levels as usize
    }

    /// The level of all ordinary primes: above L where there is bootstrapping.
    pub fn top_level(&self) -> usize {
        self.chain.ordinary() - 1
    }

    /// The bootstrapping that was asked for.
    pub fn bootstrap(&self) -> Option<&BootstrapLiteral> {
        self.literal.bootstrap.as_ref()
    }

    /// The scale of every ciphertext and plaintext at `level`.
    pub fn scale(&self, level: usize) -> f64 {
        self.scales[level.min(self.top_level())]
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

    /// The shape of the key `id` at `level`. The keys to and from the ephemeral
    /// secret have one digit and one special prime: their modulus is as small,
    /// or their operand as short, as that.
    pub fn key_shape(&self, id: KeyId, level: usize) -> KeyShape {
        let (digit_size, special) = match id {
            KeyId::DenseToSparse | KeyId::SparseToDense => (level + 1, 1),
            // As few bits as there can be: the small ring allows little.
            KeyId::ToSmallRing | KeyId::FromSmallRing => (1, 1),
            KeyId::Relinearization | KeyId::Galois(_) | KeyId::Component { .. } => {
                (self.digit_size(), self.chain.special())
            }
        };
        let digits = (level + 1).div_ceil(digit_size);
        KeyShape { digit_size, digits, basis: Basis::level(level).with_special(special) }
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

/// What a switching key consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyShape {
    /// Ordinary primes to a digit.
    pub digit_size: usize,
    /// Pairs of polynomials.
    pub digits: usize,
    /// The primes of every polynomial.
    pub basis: Basis,
}

/// The ephemeral secret is used modulo q_0 and one special prime only.
fn check_ephemeral(literal: &ParametersLiteral, bootstrap: &BootstrapLiteral) -> Result<(), Error> {
    let (log_degree, log_qp) = (literal.log_degree, literal.base_bits + literal.special_bits);
    let cap = max_log_q_sparse(log_degree, bootstrap.ephemeral_weight).unwrap_or(0);
    if log_qp > cap { Err(Error::Insecure { log_degree, log_qp, cap }) } else { Ok(()) }
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
    if let Some(bootstrap) = literal.bootstrap {
        hash.update(b"bootstrap");
        for field in bootstrap.fields() {
            hash.update(field.to_le_bytes());
        }
    }
    for modulus in chain.moduli() {
        hash.update(modulus.value().to_le_bytes());
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ckks::Error;

    #[test]
    fn named_sets_are_within_the_table_and_scales_hold_still() {
        for (name, literal) in ParametersLiteral::NAMED {
            let p = literal.check().unwrap_or_else(|e| panic!("{name}: {e}"));
            for level in 0..=p.top_level() {
                let delta = (1u64 << literal.ordinary_bits(level.max(1) as u32)) as f64;
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
        let boot = |change: fn(&mut BootstrapLiteral)| {
            let mut literal = ParametersLiteral::N16_BOOT;
            literal.bootstrap.iter_mut().for_each(change);
            literal
        };
        for literal in [
            ParametersLiteral { log_degree: 9, ..ParametersLiteral::N16_24 },
            ParametersLiteral { base_bits: 51, ..ParametersLiteral::N16_24 },
            ParametersLiteral { scale_bits: 50, ..ParametersLiteral::N16_24 },
            ParametersLiteral { levels: 64, ..ParametersLiteral::N16_24 },
            ParametersLiteral { special_primes: 60, ..ParametersLiteral::N16_24 },
            ParametersLiteral { digit_size: 9, ..ParametersLiteral::N16_24 },
            boot(|b| b.coeff_to_slot = u32::MAX),
            boot(|b| b.coeff_to_slot = 1),
            boot(|b| b.slot_to_coeff = 1),
            boot(|b| b.coefficient_level = 4),
            boot(|b| b.working_bits = 39),
            boot(|b| b.ratio_bits = 31),
            boot(|b| b.ephemeral_weight = 33),
        ] {
            assert!(matches!(literal.check(), Err(Error::Parameter { .. })), "{literal:?}");
        }
    }
}
