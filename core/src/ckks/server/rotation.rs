//! Key switching, rotations, and their hoisted forms.
//!
//! A rotation is a key switch (raise the digits of c1 to Q ∪ P, inner product
//! with the key, divide by P) followed by an automorphism. Several rotations
//! of one ciphertext share the raised digits ([`Hoisted`]); a sum of rotated
//! products shares the division as well ([`ExtendedProduct`]): Bossuat,
//! Mouchet, Troncoso-Pastoriza, Hubaux, EUROCRYPT 2021, §4.

use super::Evaluator;
use crate::accel::{Accelerator, Evaluations, MAX_DIGITS, Polynomial, digits};
use crate::ckks::{Ciphertext, Error, KeyId, KeySource, Plaintext, galois_element};
use crate::ring::Basis;

type Pair<A> = [Polynomial<A, Evaluations>; 2];

/// A ciphertext with the digits of its c1 raised, ready for many rotations.
pub struct Hoisted<'c, A: Accelerator> {
    ciphertext: &'c Ciphertext<A>,
    digits: heapless::Vec<Polynomial<A, Evaluations>, MAX_DIGITS>,
}

/// A ciphertext over Q_level ∪ P that holds P times the message.
pub struct Extended<A: Accelerator> {
    pub(crate) parts: Pair<A>,
}

/// A sum of products over Q_level ∪ P: P·scale(level)² times the message.
pub struct ExtendedProduct<A: Accelerator> {
    pub(super) parts: Pair<A>,
}

impl<A: Accelerator> Hoisted<'_, A> {
    /// The digits of c1 over Q_level ∪ P.
    pub(super) fn digits(&self) -> &[Polynomial<A, Evaluations>] {
        &self.digits
    }
}

impl<A: Accelerator> Extended<A> {
    /// The level of the ciphertext it came from.
    pub fn level(&self) -> usize {
        self.parts[0].basis().ordinary() - 1
    }
}

impl<A: Accelerator> ExtendedProduct<A> {
    pub(super) fn duplicate(&self, accelerator: &A) -> Result<Self, Error> {
        let [x0, x1] = &self.parts;
        Ok(Self { parts: [x0.duplicate(accelerator)?, x1.duplicate(accelerator)?] })
    }

    /// The level of its factors.
    pub fn level(&self) -> usize {
        self.parts[0].basis().ordinary() - 1
    }
}

impl<A: Accelerator, K: KeySource<A> + ?Sized> Evaluator<'_, A, K> {
    /// x ↦ (u0, u1) over Q_l ∪ P with u0 + u1·s' ≈ P·x·s.
    pub(crate) fn key_switch(&self, id: KeyId, x: &Polynomial<A, Evaluations>) -> Result<Pair<A>, Error> {
        let level = x.basis().len() - 1;
        let key = self.key(id, level)?;
        let [row0, row1] = key.rows(level);
        let basis = Basis::level(level).with_special(key.special());
        let sum = || Polynomial::allocate(self.accelerator, basis);
        let mut sums = [sum()?, sum()?];
        let [sum0, sum1] = &mut sums;
        self.accelerator.key_switch(
            x.basis(),
            key.digit_size(),
            x.limbs(),
            [&row0, &row1],
            [sum0.limbs_mut(), sum1.limbs_mut()],
        )?;
        Ok(sums)
    }

    /// A pair over Q_level ∪ P.
    pub(super) fn extended_pair(&self, level: usize) -> Result<Pair<A>, Error> {
        let limbs = || Polynomial::allocate(self.accelerator, self.parameters.key_basis(level));
        Ok([limbs()?, limbs()?])
    }

    /// Divides a pair over Q_l ∪ P by everything beyond `keep`.
    pub(super) fn divide(&self, pair: Pair<A>, keep: Basis) -> Result<Ciphertext<A>, Error> {
        self.divide_add(pair, keep, [None, None])
    }

    /// Divides pair + P·addend by everything beyond `keep`.
    pub(crate) fn divide_add(
        &self,
        mut pair: Pair<A>,
        keep: Basis,
        addend: [Option<&Polynomial<A, Evaluations>>; 2],
    ) -> Result<Ciphertext<A>, Error> {
        for (part, addend) in pair.iter_mut().zip(addend) {
            let basis = part.basis();
            let drop = Basis::new(keep.len(), basis.ordinary() - keep.len(), basis.special());
            match addend {
                Some(y) => self.accelerator.mod_down_add(keep, drop, part.limbs_mut(), y.limbs())?,
                None => self.accelerator.mod_down(keep, drop, part.limbs_mut())?,
            }
            part.truncate(keep)?;
        }
        Ok(Ciphertext { parts: pair })
    }

    /// Slots shifted left by `steps` (right when negative), cyclically.
    ///
    /// # Errors
    /// [`Error::MissingKey`].
    pub fn rotate(&self, x: &Ciphertext<A>, steps: i64) -> Result<Ciphertext<A>, Error> {
        self.automorphism(x, galois_element(self.parameters.degree(), steps))
    }

    /// Every slot replaced by its complex conjugate.
    ///
    /// # Errors
    /// [`Error::MissingKey`].
    pub fn conjugate(&self, x: &Ciphertext<A>) -> Result<Ciphertext<A>, Error> {
        self.automorphism(x, 2 * self.parameters.degree() - 1)
    }

    /// X → X^galois.
    pub(crate) fn automorphism(&self, x: &Ciphertext<A>, galois: usize) -> Result<Ciphertext<A>, Error> {
        if galois == 1 {
            return x.duplicate(self.accelerator);
        }
        let sums = self.key_switch(KeyId::Galois(galois as u32), &x.parts[1])?;
        let switched = self.divide_add(sums, Basis::level(x.level()), [Some(&x.parts[0]), None])?;
        let [c0, c1] = &switched.parts;
        Ok(Ciphertext {
            parts: [c0.automorphism(self.accelerator, galois)?, c1.automorphism(self.accelerator, galois)?],
        })
    }

    /// Raises the digits of x once for any number of rotations.
    ///
    /// # Errors
    /// [`Error::Accelerator`].
    pub fn hoist<'c>(&self, x: &'c Ciphertext<A>) -> Result<Hoisted<'c, A>, Error> {
        let (level, c1) = (Basis::level(x.level()), &x.parts[1]);
        let coefficients = c1.duplicate(self.accelerator)?.into_coefficients(self.accelerator)?;
        let mut raised = heapless::Vec::new();
        for digit in digits(level, self.parameters.digit_size()) {
            let mut out = Polynomial::allocate(self.accelerator, self.parameters.key_basis(x.level()))?;
            let own = &coefficients.limbs()[digit.start()..digit.start() + digit.len()];
            self.accelerator.mod_up(level, digit, c1.limbs(), own, out.limbs_mut())?;
            raised.push(out).map_err(|_| Error::Full { capacity: MAX_DIGITS })?;
        }
        Ok(Hoisted { ciphertext: x, digits: raised })
    }

    /// P·x rotated by `steps`, over Q ∪ P: no division yet.
    ///
    /// # Errors
    /// [`Error::MissingKey`].
    pub fn rotate_extended(&self, x: &Hoisted<'_, A>, steps: i64) -> Result<Extended<A>, Error> {
        let level = x.ciphertext.level();
        let p = self.special_product(level);
        let galois = galois_element(self.parameters.degree(), steps);
        let basis = Basis::level(level);
        if galois == 1 {
            let mut parts = [
                Polynomial::zero(self.accelerator, self.parameters.key_basis(level))?,
                Polynomial::zero(self.accelerator, self.parameters.key_basis(level))?,
            ];
            for (part, c) in parts.iter_mut().zip(&x.ciphertext.parts) {
                let limbs = &mut part.limbs_mut()[..=level];
                self.accelerator.multiply_scalar_add(basis, limbs, c.limbs(), &p)?;
            }
            return Ok(Extended { parts });
        }
        let mut sums = self.hoisted_sums(x, KeyId::Galois(galois as u32))?;
        let limbs = &mut sums[0].limbs_mut()[..=level];
        self.accelerator.multiply_scalar_add(basis, limbs, x.ciphertext.parts[0].limbs(), &p)?;
        let [u0, u1] = &sums;
        Ok(Extended {
            parts: [u0.automorphism(self.accelerator, galois)?, u1.automorphism(self.accelerator, galois)?],
        })
    }

    fn hoisted_sums(&self, x: &Hoisted<'_, A>, id: KeyId) -> Result<Pair<A>, Error> {
        let level = x.ciphertext.level();
        let key = self.key(id, level)?;
        let [row0, row1] = key.rows(level);
        let rows: heapless::Vec<&[A::Limb], MAX_DIGITS> = x.digits.iter().map(Polynomial::limbs).collect();
        let mut sums = self.extended_pair(level)?;
        let [sum0, sum1] = &mut sums;
        let sums_mut = [sum0.limbs_mut(), sum1.limbs_mut()];
        self.accelerator.inner_product(Basis::level(level), sums_mut, &rows, [&row0, &row1])?;
        Ok(sums)
    }

    /// A rotation of a hoisted ciphertext, at its level.
    ///
    /// # Errors
    /// [`Error::MissingKey`].
    pub fn rotate_hoisted(&self, x: &Hoisted<'_, A>, steps: i64) -> Result<Ciphertext<A>, Error> {
        let extended = self.rotate_extended(x, steps)?;
        let keep = Basis::level(extended.level());
        self.divide(extended.parts, keep)
    }

    /// An empty sum of extended products at `level`.
    ///
    /// # Errors
    /// [`Error::LevelsExhausted`] at level 0.
    pub fn extended_product(&self, level: usize) -> Result<ExtendedProduct<A>, Error> {
        if level == 0 {
            return Err(Error::LevelsExhausted { have: 0, need: 1 });
        }
        let basis = self.parameters.key_basis(level);
        let zero = || Polynomial::zero(self.accelerator, basis);
        Ok(ExtendedProduct { parts: [zero()?, zero()?] })
    }

    /// sum += x ⊙ y. y is encoded over Q_level ∪ P ([`super::super::Parameters::key_basis`]).
    ///
    /// # Errors
    /// [`Error::Accelerator`] when the bases differ.
    pub fn extended_multiply_add(
        &self,
        sum: &mut ExtendedProduct<A>,
        x: &Extended<A>,
        y: &Plaintext<A>,
    ) -> Result<(), Error> {
        for (sum, part) in sum.parts.iter_mut().zip(&x.parts) {
            sum.multiply_add(self.accelerator, part, &y.polynomial)?;
        }
        Ok(())
    }

    /// sum += x rotated by `steps`: a giant step. Only x's second half is
    /// divided by P and switched.
    ///
    /// # Errors
    /// [`Error::MissingKey`], [`Error::Accelerator`].
    pub fn rotate_add(
        &self,
        sum: &mut ExtendedProduct<A>,
        x: ExtendedProduct<A>,
        steps: i64,
    ) -> Result<(), Error> {
        let galois = galois_element(self.parameters.degree(), steps);
        if galois != 1 {
            return self.automorphism_extended_add(sum, x, galois);
        }
        sum.parts.iter_mut().zip(&x.parts).try_for_each(|(sum, x)| sum.add_assign(self.accelerator, x))?;
        Ok(())
    }

    /// sum += the image of x, whose second half is divided by P and switched.
    pub(super) fn automorphism_extended_add(
        &self,
        sum: &mut ExtendedProduct<A>,
        x: ExtendedProduct<A>,
        galois: usize,
    ) -> Result<(), Error> {
        let [x0, mut x1] = x.parts;
        let basis = x0.basis();
        let level = Basis::level(basis.ordinary() - 1);
        let special = Basis::new(0, 0, basis.special());
        self.accelerator.mod_down(level, special, x1.limbs_mut())?;
        x1.truncate(level)?;
        let [mut u0, u1] = self.key_switch(KeyId::Galois(galois as u32), &x1)?;
        drop(x1);
        u0.add_assign(self.accelerator, &x0)?;
        drop(x0);
        for (sum, u) in sum.parts.iter_mut().zip([u0, u1]) {
            self.accelerator.automorphism_add(basis, sum.limbs_mut(), u.limbs(), galois)?;
        }
        Ok(())
    }

    /// Divides by P and q_l at once: the ciphertext one level below.
    ///
    /// # Errors
    /// [`Error::Accelerator`].
    pub fn rescale_extended(&self, product: ExtendedProduct<A>) -> Result<Ciphertext<A>, Error> {
        let keep = Basis::level(product.level() - 1);
        self.divide(product.parts, keep)
    }
}
