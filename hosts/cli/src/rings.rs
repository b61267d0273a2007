//! The two rings of the encrypted executor, and what carries ciphertexts of either between memory and files.

use crate::exit::{Exit, Failure};
use veilformer::accel::Accelerator;
use veilformer::ckks::client::KeyTag;
use veilformer::ckks::server::bootstrap::BootstrapPlan;
use veilformer::ckks::{Ciphertext, Parameters};
use veilformer::wire::{Codec, Reader, Sink, Source};
use veilformer_engine::Degrees;

/// Levels that a packed matrix needs: products up to the bootstrap behind them.
const PRODUCT_LEVELS: usize = 3;

/// Parameters of the big ring and of the small one, which follow from it.
pub(crate) struct Rings {
    pub(crate) big: Parameters,
    pub(crate) small: Parameters,
    plan: BootstrapPlan,
}

impl Rings {
    /// Of the big ring's parameters.
    ///
    /// # Errors
    /// Usage for parameters that leave no levels for products of matrices.
    pub(crate) fn new(big: Parameters) -> Result<Self, Failure> {
        let levels = big.bootstrap().map_or(0, |bootstrap| bootstrap.coefficient_level as usize);
        if levels < PRODUCT_LEVELS {
            let message = format!(
                "{} have {levels} levels for products of packed matrices, the executor needs {PRODUCT_LEVELS}; \
                 choose parameters with products, such as n16/matrix",
                big.name().unwrap_or("these parameters")
            );
            return Err(Failure::new(Exit::Usage, message));
        }
        let (small, plan) = (big.small_ring()?, BootstrapPlan::new(&big)?);
        Ok(Self { big, small, plan })
    }

    /// Big, small.
    pub(crate) fn both(&self) -> [&Parameters; 2] {
        [&self.big, &self.small]
    }

    pub(crate) fn degrees(&self) -> Degrees {
        Degrees { big: self.big.degree(), small: self.small.degree() }
    }

    /// The scale of a packed entry of 1 that is to be raised.
    pub(crate) fn message_scale(&self) -> f64 {
        self.plan.message_scale(&self.big)
    }

    /// The level of coefficients that are to be packed matrices.
    pub(crate) fn coefficient_level(&self) -> usize {
        self.plan.coefficient_level()
    }

    /// The level of slots as a bootstrap leaves them.
    pub(crate) fn slot_level(&self) -> usize {
        self.plan.output()
    }
}

/// Carries ciphertexts of one ring and one secret key between an accelerator and files.
pub(crate) struct Carrier<'a, A: Accelerator<Word = u64>> {
    pub(crate) accelerator: &'a A,
    pub(crate) parameters: &'a Parameters,
    pub(crate) owner: KeyTag,
    words: Vec<u64>,
}

impl<'a, A: Accelerator<Word = u64>> Carrier<'a, A> {
    pub(crate) fn new(accelerator: &'a A, parameters: &'a Parameters, owner: KeyTag) -> Self {
        Self { accelerator, parameters, owner, words: vec![0; parameters.degree()] }
    }

    /// The next `count` ciphertexts.
    pub(crate) fn read<S: Source>(
        &mut self,
        reader: &mut Reader<S>,
        count: usize,
    ) -> Result<Vec<Ciphertext<A>>, Failure> {
        let mut codec = Codec::new(self.accelerator, self.parameters, &mut self.words)?;
        let owner = Some(self.owner);
        (0..count).map(|_| Ok(codec.read_ciphertext(reader, owner)?)).collect()
    }

    pub(crate) fn write(&mut self, sink: &mut impl Sink, ciphertext: &Ciphertext<A>) -> Result<(), Failure> {
        let mut codec = Codec::new(self.accelerator, self.parameters, &mut self.words)?;
        Ok(codec.write_ciphertext(sink, self.owner, ciphertext)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::named;

    #[test]
    fn parameters_without_products_are_refused_with_the_way_out() {
        for name in ["n16/boot", "n13/3"] {
            let failure = Rings::new(named(name).unwrap()).err().unwrap();
            assert!(failure.exit == Exit::Usage && failure.message.contains("n16/matrix"));
        }
        let rings = Rings::new(named("n16/matrix").unwrap()).unwrap();
        assert_eq!((rings.degrees().factor(), rings.coefficient_level()), (8, 3));
    }
}
