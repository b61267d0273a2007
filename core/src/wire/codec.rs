//! Objects made of limbs: between bytes and an accelerator's memory, one limb
//! at a time through N words of the caller's.

use super::frame::{ObjectReader, ObjectWriter, residue_len};
use super::{Error, Expected, Sink, Source};
use crate::accel::{self, Accelerator, Evaluations, Polynomial};
use crate::ckks::client::KeyTag;
use crate::ckks::{self, Parameters};
use crate::memory::OutOfMemory;
use crate::ring::{Basis, PublicSeed, Word};

/// Reads and writes ciphertexts and public keys under one set of parameters.
/// Independent objects may be read at the same time, each through a codec of its own.
pub struct Codec<'a, A: Accelerator> {
    pub(super) accelerator: &'a A,
    pub(super) parameters: &'a Parameters,
    pub(super) scratch: &'a mut [A::Word],
}

impl<'a, A: Accelerator> Codec<'a, A> {
    /// Through `scratch`, N words or a multiple: as many limbs are expanded
    /// from a seed at a time.
    ///
    /// # Errors
    /// [`ckks::Error::OtherChain`] when the accelerator has other primes,
    /// [`Error::WordTooNarrow`] when they do not fit its words,
    /// [`ckks::Error::Memory`] when `scratch` is too short.
    pub fn new(
        accelerator: &'a A,
        parameters: &'a Parameters,
        scratch: &'a mut [A::Word],
    ) -> Result<Self, Error> {
        if accelerator.chain() != parameters.chain() {
            return Err(ckks::Error::OtherChain.into());
        }
        let bits = parameters.chain().moduli().iter().map(|m| m.bits()).max().unwrap_or(0);
        if bits > A::Word::MAX_MODULUS_BITS {
            return Err(Error::WordTooNarrow { bits, max: A::Word::MAX_MODULUS_BITS });
        }
        let (have, need) = (scratch.len(), parameters.degree());
        if have < need {
            return Err(OutOfMemory { have, need }.into());
        }
        Ok(Self { accelerator, parameters, scratch })
    }

    pub(super) fn expected(&self, key: Option<KeyTag>) -> Expected<'a> {
        Expected { parameters: self.parameters, key }
    }

    /// An object that needs more limbs than are left is refused before it is read.
    pub(super) fn has_limbs(&self, need: usize) -> Result<(), Error> {
        match self.accelerator.available() {
            have if have < need => Err(accel::Error::OutOfLimbs { capacity: have }.into()),
            _ => Ok(()),
        }
    }

    /// The polynomial's basis must fit the chain; what a header declares is checked before it is written.
    pub(super) fn write_polynomial<S: Sink>(
        &mut self,
        writer: &mut ObjectWriter<'_, S>,
        polynomial: &Polynomial<A, Evaluations>,
    ) -> Result<(), Error> {
        let chain = self.parameters.chain();
        let words = &mut self.scratch[..chain.degree()];
        for (limb, modulus) in polynomial.limbs().iter().zip(chain.of(polynomial.basis())) {
            self.accelerator.read(limb, words)?;
            writer.limb(modulus, words)?;
        }
        Ok(())
    }

    pub(super) fn read_polynomial<S: Source>(
        &mut self,
        object: &mut ObjectReader<'_, S>,
        basis: Basis,
    ) -> Result<Polynomial<A, Evaluations>, Error> {
        let mut polynomial = Polynomial::allocate(self.accelerator, basis)?;
        let words = &mut self.scratch[..self.parameters.degree()];
        for (limb, modulus) in polynomial.limbs_mut().iter_mut().zip(self.parameters.chain().of(basis)) {
            object.limb(modulus, words)?;
            self.accelerator.write(limb, words)?;
        }
        Ok(polynomial)
    }
}

/// The seed at the end of a payload.
pub(super) fn read_seed<S: Source>(object: &mut ObjectReader<'_, S>) -> Result<PublicSeed, Error> {
    let mut bytes = [0; SEED_LEN as usize];
    object.bytes(&mut bytes)?;
    Ok(PublicSeed::from_bytes(bytes))
}

/// Bytes of a seed.
pub(super) const SEED_LEN: u64 = 32;

/// Bytes of one polynomial over `basis`, which must fit the parameters' chain.
pub(super) fn polynomial_len(parameters: &Parameters, basis: Basis) -> u64 {
    let residues: usize = parameters.chain().of(basis).map(residue_len).sum();
    residues as u64 * parameters.degree() as u64
}
