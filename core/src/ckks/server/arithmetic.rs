//! Addition, multiplication, rescaling, change of level.

use super::{Evaluator, same_level};
use crate::accel::{Accelerator, Polynomial};
use crate::ckks::{Ciphertext, Error, KeyId, KeySource, Plaintext, Product};
use crate::ring::{Basis, MAX_LIMBS};

/// Most terms of a sum that go to the accelerator together.
pub const MAX_TERMS: usize = 24;

impl<A: Accelerator, K: KeySource<A> + ?Sized> Evaluator<'_, A, K> {
    /// x += y, at the same level.
    ///
    /// # Errors
    /// [`Error::Level`].
    pub fn add_assign(&self, x: &mut Ciphertext<A>, y: &Ciphertext<A>) -> Result<(), Error> {
        same_level(x, y.level())?;
        for (x, y) in x.parts.iter_mut().zip(&y.parts) {
            x.add_assign(self.accelerator, y)?;
        }
        Ok(())
    }

    /// x −= y, at the same level.
    ///
    /// # Errors
    /// [`Error::Level`].
    pub fn sub_assign(&self, x: &mut Ciphertext<A>, y: &Ciphertext<A>) -> Result<(), Error> {
        same_level(x, y.level())?;
        for (x, y) in x.parts.iter_mut().zip(&y.parts) {
            x.sub_assign(self.accelerator, y)?;
        }
        Ok(())
    }

    /// x = −x.
    ///
    /// # Errors
    /// [`Error::Accelerator`].
    pub fn negate_assign(&self, x: &mut Ciphertext<A>) -> Result<(), Error> {
        x.parts.iter_mut().try_for_each(|part| part.negate_assign(self.accelerator))?;
        Ok(())
    }

    /// x += y, at the same level.
    ///
    /// # Errors
    /// [`Error::Level`].
    pub fn add_plain_assign(&self, x: &mut Ciphertext<A>, y: &Plaintext<A>) -> Result<(), Error> {
        same_level(x, y.level())?;
        Ok(x.parts[0].add_assign(self.accelerator, &y.polynomial)?)
    }

    /// Adds the real `value` to every slot.
    ///
    /// # Errors
    /// [`Error::NotEncodable`].
    pub fn add_constant_assign(&self, x: &mut Ciphertext<A>, value: f64) -> Result<(), Error> {
        let basis = x.parts[0].basis();
        let s = self.scalars(basis, value, x.scale(self.parameters))?;
        Ok(self.accelerator.add_scalar_assign(basis, x.parts[0].limbs_mut(), &s)?)
    }

    /// x = value·x for a small integer; costs no level, and noise grows by its size.
    ///
    /// # Errors
    /// [`Error::Accelerator`].
    pub fn multiply_integer_assign(&self, x: &mut Ciphertext<A>, value: i32) -> Result<(), Error> {
        let s = self.scalars(x.parts[0].basis(), value as f64, 1.0)?;
        x.parts.iter_mut().try_for_each(|part| part.multiply_scalar_assign(self.accelerator, &s))?;
        Ok(())
    }

    /// x = x/`by` modulo q, message and noise: exact ahead of a linear map that multiplies everything by as much.
    /// `by` is prime to q.
    pub(crate) fn divide_exactly(&self, x: &mut Ciphertext<A>, by: usize) -> Result<(), Error> {
        let moduli = self.parameters.chain().of(x.parts[0].basis());
        let inverses: heapless::Vec<u64, MAX_LIMBS> =
            moduli.map(|m| m.inverse(m.reduce(by as u64))).collect();
        x.parts.iter_mut().try_for_each(|part| part.multiply_scalar_assign(self.accelerator, &inverses))?;
        Ok(())
    }

    /// An empty sum of products of operands at `level`.
    ///
    /// # Errors
    /// [`Error::LevelsExhausted`] at level 0, where nothing can be rescaled.
    pub fn product(&self, level: usize) -> Result<Product<A>, Error> {
        if level == 0 {
            return Err(Error::LevelsExhausted { have: 0, need: 1 });
        }
        let zero = || Polynomial::zero(self.accelerator, Basis::level(level));
        Ok(Product { parts: [zero()?, zero()?], square: None })
    }

    /// x·y, to be relinearised and rescaled.
    ///
    /// # Errors
    /// [`Error::Level`] when the levels differ, [`Error::LevelsExhausted`] at level 0.
    pub fn multiply(&self, x: &Ciphertext<A>, y: &Ciphertext<A>) -> Result<Product<A>, Error> {
        self.multiply_at(same_level(x, y.level())?, x, y)
    }

    /// x·y modulo Q_level, the scale that of the operands' own levels: it is the caller's to have them multiply up
    /// to the scale of a product at that level.
    pub(super) fn multiply_at(
        &self,
        level: usize,
        x: &Ciphertext<A>,
        y: &Ciphertext<A>,
    ) -> Result<Product<A>, Error> {
        if level == 0 {
            return Err(Error::LevelsExhausted { have: 0, need: 1 });
        }
        if let Some(have) = [x.level(), y.level()].into_iter().find(|have| *have < level) {
            return Err(Error::Level { have, need: level });
        }
        let basis = Basis::level(level);
        let limbs = || Polynomial::allocate(self.accelerator, basis);
        let (mut d0, mut d1, mut d2) = (limbs()?, limbs()?, limbs()?);
        self.accelerator.tensor(
            basis,
            [d0.limbs_mut(), d1.limbs_mut(), d2.limbs_mut()],
            x.limbs_at(level),
            y.limbs_at(level),
        )?;
        Ok(Product { parts: [d0, d1], square: Some(d2) })
    }

    /// sum += x·y, all at one level.
    ///
    /// # Errors
    /// As [`Evaluator::multiply`].
    pub fn multiply_add(
        &self,
        sum: &mut Product<A>,
        x: &Ciphertext<A>,
        y: &Ciphertext<A>,
    ) -> Result<(), Error> {
        self.multiply_pairs_add(sum, &[(x, y)])
    }

    /// sum += Σ_k x_k·y_k, all at one level: one pass over the sum for every [`MAX_TERMS`] pairs.
    ///
    /// # Errors
    /// As [`Evaluator::multiply`].
    pub fn multiply_pairs_add(
        &self,
        sum: &mut Product<A>,
        pairs: &[(&Ciphertext<A>, &Ciphertext<A>)],
    ) -> Result<(), Error> {
        pairs.iter().flat_map(|(x, y)| [x, y]).try_for_each(|x| same_level(x, sum.level()).map(drop))?;
        self.multiply_at_add(sum, pairs)
    }

    /// sum += Σ_k x_k·y_k at the sum's level, as [`Evaluator::multiply_at`].
    pub(super) fn multiply_at_add(
        &self,
        sum: &mut Product<A>,
        pairs: &[(&Ciphertext<A>, &Ciphertext<A>)],
    ) -> Result<(), Error> {
        let (level, basis) = (sum.level(), Basis::level(sum.level()));
        let mut operands = pairs.iter().flat_map(|(x, y)| [x, y]);
        if let Some(x) = operands.find(|x| x.level() < level) {
            return Err(Error::Level { have: x.level(), need: level });
        }
        let [d0, d1] = &mut sum.parts;
        let d2 = match &mut sum.square {
            Some(square) => square,
            none => none.insert(Polynomial::zero(self.accelerator, basis)?),
        };
        for pairs in pairs.chunks(MAX_TERMS) {
            let terms = pairs.iter().map(|(x, y)| [x, y].map(|x| x.limbs_at(level)));
            let terms: heapless::Vec<_, MAX_TERMS> = terms.collect();
            let d = [d0.limbs_mut(), d1.limbs_mut(), d2.limbs_mut()];
            self.accelerator.tensor_add(basis, d, &terms)?;
        }
        Ok(())
    }

    /// The scale at which a factor must be encoded so that its product with a
    /// ciphertext at level `x` belongs into a sum of products at `level` ≤ x.
    pub fn factor_scale(&self, level: usize, x: usize) -> f64 {
        let scale = self.parameters.scale(level);
        scale * scale / self.parameters.scale(x)
    }

    /// sum += x·y for a plaintext y at the sum's level, encoded at
    /// [`Evaluator::factor_scale`]. x may be at a higher level than the sum.
    ///
    /// # Errors
    /// [`Error::Level`].
    pub fn multiply_plain_add(
        &self,
        sum: &mut Product<A>,
        x: &Ciphertext<A>,
        y: &Plaintext<A>,
    ) -> Result<(), Error> {
        let level = sum.level();
        if x.level() < level || y.level() != level {
            return Err(Error::Level { have: x.level().min(y.level()), need: level });
        }
        let factor = &y.polynomial.limbs()[..=level];
        for (sum, part) in sum.parts.iter_mut().zip(&x.parts) {
            let limbs = &part.limbs()[..=level];
            self.accelerator.multiply_add(Basis::level(level), sum.limbs_mut(), limbs, factor)?;
        }
        Ok(())
    }

    /// sum += value·x for a real constant. x may be at a higher level than the
    /// sum: the constant's scale makes up for the difference, at no cost.
    ///
    /// # Errors
    /// [`Error::Level`] when x is below the sum, [`Error::NotEncodable`].
    pub fn multiply_constant_add(
        &self,
        sum: &mut Product<A>,
        x: &Ciphertext<A>,
        value: f64,
    ) -> Result<(), Error> {
        self.multiply_constants_add(sum, &[(x, value)])
    }

    /// sum += Σ_k value_k·x_k, at most [`MAX_TERMS`] terms, as [`Evaluator::multiply_constant_add`] of each: one pass
    /// over the sum.
    ///
    /// # Errors
    /// As there; [`Error::Full`].
    pub fn multiply_constants_add(
        &self,
        sum: &mut Product<A>,
        terms: &[(&Ciphertext<A>, f64)],
    ) -> Result<(), Error> {
        let (level, basis) = (sum.level(), Basis::level(sum.level()));
        let mut scalars: heapless::Vec<_, MAX_TERMS> = heapless::Vec::new();
        for (x, value) in terms {
            if x.level() < level {
                return Err(Error::Level { have: x.level(), need: level });
            }
            let s = self.scalars(basis, *value, self.factor_scale(level, x.level()))?;
            scalars.push(s).map_err(|_| Error::Full { capacity: MAX_TERMS })?;
        }
        for (half, sum) in sum.parts.iter_mut().enumerate() {
            let list = terms.iter().zip(&scalars).map(|((x, _), s)| (x.limbs_at(level)[half], &s[..]));
            let list: heapless::Vec<_, MAX_TERMS> = list.collect();
            self.accelerator.multiply_scalars_add(basis, sum.limbs_mut(), &list)?;
        }
        Ok(())
    }

    /// Adds the real `value` to every slot of a sum of products.
    ///
    /// # Errors
    /// [`Error::NotEncodable`].
    pub fn add_constant_to_product(&self, sum: &mut Product<A>, value: f64) -> Result<(), Error> {
        let (basis, scale) = (sum.parts[0].basis(), self.parameters.scale(sum.level()));
        let s = self.scalars(basis, value, scale * scale)?;
        Ok(self.accelerator.add_scalar_assign(basis, sum.parts[0].limbs_mut(), &s)?)
    }

    /// Relinearises when needed and divides by q_l: the ciphertext one level below.
    /// The division by P and the one by q_l are one step.
    ///
    /// # Errors
    /// [`Error::MissingKey`] for the relinearisation key.
    pub fn rescale(&self, mut product: Product<A>) -> Result<Ciphertext<A>, Error> {
        let level = product.level();
        let (keep, last) = (Basis::level(level - 1), Basis::new(level, 1, 0));
        let Some(square) = product.square.take() else {
            for part in &mut product.parts {
                self.accelerator.mod_down(keep, last, part.limbs_mut())?;
                part.truncate(keep)?;
            }
            return Ok(Ciphertext { parts: product.parts });
        };
        let sums = self.key_switch(KeyId::Relinearization, &square)?;
        let [d0, d1] = &product.parts;
        self.divide_add(sums, keep, [Some(d0), Some(d1)])
    }

    /// x·y, relinearised and rescaled: one level down.
    ///
    /// # Errors
    /// As [`Evaluator::multiply`] and [`Evaluator::rescale`].
    pub fn multiply_rescale(&self, x: &Ciphertext<A>, y: &Ciphertext<A>) -> Result<Ciphertext<A>, Error> {
        self.rescale(self.multiply(x, y)?)
    }

    /// value·x for a real constant, rescaled: one level down.
    ///
    /// # Errors
    /// [`Error::LevelsExhausted`] at level 0, [`Error::NotEncodable`].
    pub fn multiply_constant(&self, x: &Ciphertext<A>, value: f64) -> Result<Ciphertext<A>, Error> {
        let mut product = self.product(x.level())?;
        self.multiply_constant_add(&mut product, x, value)?;
        self.rescale(product)
    }

    /// The same message at a lower level, its scale adjusted exactly. Dropping
    /// one level or ten costs the same: one rescaling at the destination.
    ///
    /// # Errors
    /// [`Error::Level`] when `level` is above the operand's.
    pub fn drop_to(&self, x: &Ciphertext<A>, level: usize) -> Result<Ciphertext<A>, Error> {
        if level > x.level() {
            return Err(Error::Level { have: x.level(), need: level });
        }
        if level == x.level() {
            return x.duplicate(self.accelerator);
        }
        let mut product = self.product(level + 1)?;
        self.multiply_constant_add(&mut product, x, 1.0)?;
        self.rescale(product)
    }
}
