//! A choice of parameters, as anyone may write it, and the named sets.

use super::server::{BOOTSTRAP_DEPTH, MAX_TURN_BITS};
use super::{Error, ParameterField, Parameters};
use crate::ring::MAX_LIMBS;

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

/// What bootstrapping adds to a choice of parameters: primes above those of
/// the levels that are left, and how a message sits in q_0 when it is raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct BootstrapLiteral {
    /// Bits of the primes that bootstrapping consumes, and of the scale there.
    pub working_bits: u32,
    /// Levels of CoeffToSlot, above those of EvalMod: up to 4, and enough that
    /// no level takes more than nine of the embedding's log2 N − 1 layers.
    pub coeff_to_slot: u32,
    /// Levels of SlotToCoeff, as many as there may be of CoeffToSlot: the
    /// lowest ones, among `levels`.
    pub slot_to_coeff: u32,
    /// The level at which SlotToCoeff ends, 0 to 3: more than 0 where something
    /// is computed on coefficients before they are raised.
    pub coefficient_level: u32,
    /// log2 of q_0 over the scale of the message when it is raised. The error
    /// of the sine falls with its square, noise grows with it.
    pub ratio_bits: u32,
    /// Non-zero coefficients of the ephemeral secret, at most [`MAX_EPHEMERAL_WEIGHT`].
    pub ephemeral_weight: u32,
    /// Whether the sine is undone by a cubic: two more levels at the message's
    /// scale, for which the ratio can be smaller, and error does not build up
    /// over many bootstraps of one value.
    pub arcsine: bool,
}

impl BootstrapLiteral {
    /// How many fields.
    pub(crate) const FIELDS: usize = 7;

    /// The fields, in the order of the definition.
    pub(crate) const fn fields(&self) -> [u32; Self::FIELDS] {
        let &Self { working_bits, coeff_to_slot, slot_to_coeff, coefficient_level, .. } = self;
        let &Self { ratio_bits, ephemeral_weight, arcsine, .. } = self;
        [
            working_bits,
            coeff_to_slot,
            slot_to_coeff,
            coefficient_level,
            ratio_bits,
            ephemeral_weight,
            arcsine as u32,
        ]
    }

    /// From its fields.
    pub(crate) const fn from_fields(fields: [u32; Self::FIELDS]) -> Self {
        let [
            working_bits,
            coeff_to_slot,
            slot_to_coeff,
            coefficient_level,
            ratio_bits,
            ephemeral_weight,
            arcsine,
        ] = fields;
        let arcsine = arcsine != 0;
        Self {
            working_bits,
            coeff_to_slot,
            slot_to_coeff,
            coefficient_level,
            ratio_bits,
            ephemeral_weight,
            arcsine,
        }
    }

    /// Levels of the cubic, at the message's scale.
    pub(crate) const fn arcsine_levels(&self) -> u32 {
        2 * self.arcsine as u32
    }
}

/// Largest weight of the ephemeral secret: c0 + c1·s' is within
/// (1 + h)/2 = 16.5 times q_0, so that the multiple of q_0 is at most 16, always.
pub const MAX_EPHEMERAL_WEIGHT: u32 = 32;

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
    /// L, the multiplicative depth of a fresh ciphertext: L + 1 ordinary
    /// primes, and those of `bootstrap` on top.
    pub levels: u32,
    /// Special primes for key switching; 0 when none is ever needed.
    pub special_primes: u32,
    /// Bits of a special prime.
    pub special_bits: u32,
    /// Ordinary primes to a key-switching digit, whose product is at most P.
    pub digit_size: u32,
    /// Bootstrapping, if ever needed.
    pub bootstrap: Option<BootstrapLiteral>,
    /// Distribution of the secret.
    pub secret: SecretDistribution,
    /// Promise.
    pub security: Security,
}

/// Most levels of one of the two linear transforms of bootstrapping.
const MAX_STAGES: u32 = 4;

const SECURE: ParametersLiteral = ParametersLiteral {
    log_degree: 16,
    base_bits: 50,
    scale_bits: 47,
    levels: 23,
    special_primes: 8,
    special_bits: 50,
    digit_size: 8,
    bootstrap: None,
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
    /// N = 2^16, bootstrapped: 15 levels of 40 bits are left, of which
    /// SlotToCoeff takes three; 29 limbs at the top, three digits.
    pub const N16_BOOT: Self = Self {
        scale_bits: 40,
        levels: 15,
        special_primes: 9,
        digit_size: 10,
        bootstrap: Some(BootstrapLiteral {
            working_bits: 50,
            coeff_to_slot: 3,
            slot_to_coeff: 3,
            coefficient_level: 0,
            ratio_bits: 8,
            ephemeral_weight: 32,
            arcsine: true,
        }),
        ..SECURE
    };
    /// As [`Self::N16_BOOT`], with matrix products between SlotToCoeff, which
    /// ends at level 3, and ModRaise: they happen in a ring of degree 2^13,
    /// where four primes and a special one have to fit 214 bits. 16 levels of 38
    /// bits are left; 30 limbs at the top, three digits, which hold 48 bits of
    /// EvalMod where nine special primes of 50 bits are to cover them.
    pub const N16_MATRIX: Self = Self {
        base_bits: 48,
        scale_bits: 38,
        levels: 16,
        digit_size: 11,
        bootstrap: match Self::N16_BOOT.bootstrap {
            Some(bootstrap) => Some(BootstrapLiteral { working_bits: 48, coefficient_level: 3, ..bootstrap }),
            None => None,
        },
        ..Self::N16_BOOT
    };
    /// N = 2^15, bootstrapped: 6 levels of 34 bits are left, of which
    /// SlotToCoeff takes two; 17 limbs at the top, six digits. About three bits
    /// less precise than [`Self::N16_BOOT`].
    pub const N15_BOOT: Self = Self {
        log_degree: 15,
        base_bits: 46,
        scale_bits: 34,
        levels: 6,
        special_primes: 3,
        digit_size: 3,
        bootstrap: Some(BootstrapLiteral {
            working_bits: 46,
            coeff_to_slot: 2,
            slot_to_coeff: 2,
            coefficient_level: 0,
            ratio_bits: 9,
            ephemeral_weight: 32,
            arcsine: false,
        }),
        ..SECURE
    };
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
    /// N = 2^11 with no security at all, bootstrapped.
    #[cfg(feature = "insecure-toy")]
    pub const INSECURE_TOY_BOOT: Self = Self {
        log_degree: 11,
        levels: 14,
        special_primes: 9,
        digit_size: 9,
        bootstrap: Some(BootstrapLiteral {
            working_bits: 49,
            coeff_to_slot: 2,
            slot_to_coeff: 2,
            coefficient_level: 0,
            ratio_bits: 8,
            ephemeral_weight: 32,
            arcsine: true,
        }),
        ..Self::INSECURE_TOY
    };
    /// N = 2^12 with no security at all, matrix products at N = 2^11, then bootstrapped.
    #[cfg(feature = "insecure-toy")]
    pub const INSECURE_TOY_MATRIX: Self = Self {
        log_degree: 12,
        bootstrap: match Self::INSECURE_TOY_BOOT.bootstrap {
            Some(bootstrap) => Some(BootstrapLiteral { coefficient_level: 3, ..bootstrap }),
            None => None,
        },
        ..Self::INSECURE_TOY_BOOT
    };

    /// The named sets, smallest first, with their names.
    pub const NAMED: &'static [(&'static str, Self)] = &[
        #[cfg(feature = "insecure-toy")]
        ("insecure-toy", Self::INSECURE_TOY),
        #[cfg(feature = "insecure-toy")]
        ("insecure-toy-32", Self::INSECURE_TOY_32),
        #[cfg(feature = "insecure-toy")]
        ("insecure-toy-deep", Self::INSECURE_TOY_DEEP),
        #[cfg(feature = "insecure-toy")]
        ("insecure-toy-boot", Self::INSECURE_TOY_BOOT),
        #[cfg(feature = "insecure-toy")]
        ("insecure-toy-matrix", Self::INSECURE_TOY_MATRIX),
        ("n12/edge", Self::N12_EDGE),
        ("n13/3", Self::N13_3),
        ("n15/12", Self::N15_12),
        ("n15/boot", Self::N15_BOOT),
        ("n16/12", Self::N16_12),
        ("n16/24", Self::N16_24),
        ("n16/leveled", Self::N16_LEVELED),
        ("n16/boot", Self::N16_BOOT),
        ("n16/matrix", Self::N16_MATRIX),
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
        let stages = (self.log_degree - 1).div_ceil(MAX_TURN_BITS);
        if let Some(bootstrap) = self.bootstrap {
            within(ParameterField::CoeffToSlot, bootstrap.coeff_to_slot, stages, MAX_STAGES)?;
        }
        let extra = self.bootstrap_levels();
        within(ParameterField::Levels, self.levels, 0, (MAX_LIMBS as u32 - 1).saturating_sub(extra))?;
        let free = MAX_LIMBS as u32 - 1 - self.levels - extra;
        within(ParameterField::SpecialPrimes, self.special_primes, 0, free)?;
        within(ParameterField::SpecialBits, self.special_bits, 25, 50)?;
        within(ParameterField::DigitSize, self.digit_size, 1, crate::ring::MAX_SOURCES as u32)?;
        if let Some(bootstrap) = self.bootstrap {
            within(ParameterField::WorkingBits, bootstrap.working_bits, self.scale_bits, 50)?;
            within(
                ParameterField::SlotToCoeff,
                bootstrap.slot_to_coeff,
                stages,
                MAX_STAGES.min(self.levels),
            )?;
            let room = self.levels - bootstrap.slot_to_coeff;
            within(ParameterField::CoefficientLevel, bootstrap.coefficient_level, 0, room.min(3))?;
            within(ParameterField::RatioBits, bootstrap.ratio_bits, 4, self.base_bits - 20)?;
            within(ParameterField::EphemeralWeight, bootstrap.ephemeral_weight, 1, MAX_EPHEMERAL_WEIGHT)?;
            within(ParameterField::SpecialPrimes, self.special_primes, 1, free)?;
            // The switches to and from the ephemeral secret have one special prime.
            within(ParameterField::SpecialBits, self.special_bits, self.base_bits, 50)?;
        }
        if self.special_primes > 0 {
            // The noise of a switch is divided by P: a digit's product must not exceed P.
            let special = self.special_primes * self.special_bits;
            let digit = self.largest_digit_bits();
            within(ParameterField::DigitSize, digit, 1, special)?;
            let digits = (self.levels + extra + 1).div_ceil(self.digit_size);
            within(ParameterField::DigitSize, digits, 1, crate::accel::MAX_DIGITS as u32)?;
            let max = crate::ring::MAX_SOURCES as u32 - 1;
            within(ParameterField::SpecialPrimes, self.special_primes, 1, max)?;
        }
        Parameters::new(*self)
    }

    /// Levels above `levels` that bootstrapping consumes.
    pub(crate) const fn bootstrap_levels(&self) -> u32 {
        match self.bootstrap {
            Some(bootstrap) => bootstrap.coeff_to_slot + BOOTSTRAP_DEPTH + bootstrap.arcsine_levels(),
            None => 0,
        }
    }

    /// Bits of ordinary prime `i`.
    pub(crate) const fn ordinary_bits(&self, i: u32) -> u32 {
        match self.bootstrap {
            _ if i == 0 => self.base_bits,
            Some(bootstrap) if i > self.levels + bootstrap.arcsine_levels() => bootstrap.working_bits,
            _ => self.scale_bits,
        }
    }

    fn largest_digit_bits(&self) -> u32 {
        let count = self.levels + self.bootstrap_levels() + 1;
        let bits = |first: u32| {
            (first..count.min(first + self.digit_size)).map(|i| self.ordinary_bits(i)).sum::<u32>()
        };
        (0..count).step_by(self.digit_size as usize).map(bits).max().unwrap_or(0)
    }
}
