//! ModRaise under an ephemeral sparse secret.

use super::Bootstrap;
use crate::accel::{Accelerator, Evaluations, KeyRow, Polynomial};
use crate::ckks::{Ciphertext, Error, KeyId, KeySource};
use crate::ring::Basis;

impl<A: Accelerator, K: KeySource<A> + ?Sized> Bootstrap<'_, A, K> {
    /// m modulo q_0 becomes m + q_0·I modulo all ordinary primes, |I| ≤ 16: what
    /// there is above q_0 is left out, the ciphertext is switched to the sparse secret, lifted, and switched back.
    /// One digit and one special prime do for both, as the operand is below q_0.
    ///
    /// # Errors
    /// [`Error::Level`] above the level at which SlotToCoeff ends.
    pub fn raise(&self, x: &Ciphertext<A>) -> Result<Ciphertext<A>, Error> {
        if x.level() > self.plan.coefficient_level() {
            return Err(Error::Level { have: x.level(), need: self.plan.coefficient_level() });
        }
        let ev = &self.evaluator;
        let bottom = |part: &Polynomial<A, Evaluations>| part.duplicate_to(ev.accelerator, Basis::level(0));
        let [c0, c1] = [bottom(&x.parts[0])?, bottom(&x.parts[1])?];
        let sums = ev.key_switch(KeyId::DenseToSparse, &c1)?;
        let sparse = ev.divide_add(sums, Basis::level(0), [Some(&c0), None])?;
        let [c0, c1] = sparse.parts;
        let top = Basis::level(self.plan.top());
        let (c0, c1) = (self.lift(c0, top)?, self.lift(c1, top.with_special(1))?);
        let key = ev.key(KeyId::SparseToDense, self.plan.top())?;
        let [b, a] = key.rows(self.plan.top());
        let rows: [&[KeyRow<'_, A::Limb>]; 2] = [&b, &a];
        let pair = || Polynomial::allocate(ev.accelerator, top.with_special(1));
        let mut sums = [pair()?, pair()?];
        let [sum0, sum1] = &mut sums;
        let sums_mut = [sum0.limbs_mut(), sum1.limbs_mut()];
        ev.accelerator.inner_product(top, sums_mut, &[c1.limbs()], rows)?;
        ev.divide_add(sums, top, [Some(&c0), None])
    }

    /// Residues modulo q_0, centred, modulo every prime of `basis`.
    fn lift(&self, x: Polynomial<A, Evaluations>, basis: Basis) -> Result<Polynomial<A, Evaluations>, Error> {
        let accelerator = self.evaluator.accelerator;
        let mut lifted = Polynomial::<A, Evaluations>::allocate(accelerator, basis)?;
        let others = Basis::new(1, basis.ordinary() - 1, basis.special());
        {
            let (own, rest) = lifted.limbs_mut().split_at_mut(1);
            accelerator.copy(own, x.limbs())?;
            let coefficients = x.into_coefficients(accelerator)?;
            accelerator.convert(Basis::level(0), coefficients.limbs(), others, rest)?;
            accelerator.ntt_forward(others, rest)?;
        }
        Ok(lifted)
    }
}
