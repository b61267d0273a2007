//! Sums of products on this machine: one pass over the sum, however many terms there are.

use super::{Multicore, check, check_rows, key_limbs};
use crate::memory::Limb;
use veilformer::accel::{Error, KeyRow};
use veilformer::ring::Basis;

impl Multicore {
    /// [`veilformer::accel::Accelerator::multiply_scalars_add`].
    pub(super) fn scalar_sums(
        &self,
        basis: Basis,
        sum: &mut [Limb],
        terms: &[(&[Limb], &[u64])],
    ) -> Result<(), Error> {
        for (x, s) in terms {
            check(sum.len(), x.len())?;
            check(sum.len(), s.len())?;
        }
        self.each(basis, sum, |i, words| {
            let terms: Vec<(&[u64], u64)> = terms.iter().map(|(x, s)| (&x[i][..], s[i])).collect();
            self.kernels.multiply_scalars_add(self.prime(basis, i), words, &terms);
        })
    }

    /// [`veilformer::accel::Accelerator::tensor_add`].
    pub(super) fn tensor_sums(
        &self,
        basis: Basis,
        d: [&mut [Limb]; 3],
        terms: &[[[&[Limb]; 2]; 2]],
    ) -> Result<(), Error> {
        for have in d.iter().map(|d| d.len()).chain(terms.iter().flatten().flatten().map(|x| x.len())) {
            self.fits(basis, have)?;
        }
        let [d0, d1, d2] = d;
        let mut rows: Vec<_> = d0.iter_mut().zip(d1).zip(d2).collect();
        self.spread(&mut rows, basis.len() * self.pool.degree(), |i, ((d0, d1), d2)| {
            let terms: Vec<[[&[u64]; 2]; 2]> =
                terms.iter().map(|term| term.map(|pair| pair.map(|limbs| &limbs[i][..]))).collect();
            self.kernels.tensor_add(self.prime(basis, i), [d0, d1, d2], &terms);
            Ok(())
        })
    }

    /// [`veilformer::accel::Accelerator::inner_product`].
    pub(super) fn key_products(
        &self,
        level: Basis,
        sums: [&mut [Limb]; 2],
        digits: &[&[Limb]],
        key: [&[KeyRow<'_, Limb>]; 2],
    ) -> Result<(), Error> {
        let [sum0, sum1] = sums;
        let basis = level.with_special(sum0.len().saturating_sub(level.len()));
        self.fits(basis, sum0.len())?;
        check(sum0.len(), sum1.len())?;
        digits.iter().try_for_each(|digit| check(basis.len(), digit.len()))?;
        check_rows(digits.len(), basis.len(), key)?;
        let mut rows: Vec<_> = sum0.iter_mut().zip(sum1).collect();
        self.spread(&mut rows, basis.len() * self.pool.degree(), |i, (sum0, sum1)| {
            let digits: Vec<&[u64]> = digits.iter().map(|digit| &digit[i][..]).collect();
            let keys = key.map(|half| key_limbs(half, i));
            self.kernels.inner_product(self.prime(basis, i), [sum0, sum1], &digits, [&keys[0], &keys[1]]);
            Ok(())
        })
    }
}
