//! What an [`Offload`] does itself, and what it passes on.
//!
//! Only the transforms are its own. Kernels without a transform inside go to the inner accelerator; those with
//! one (`mod_up`, `mod_down`, `key_switch`) are the trait's provided methods, so that *their* transforms come
//! back here.

use super::super::engine::{Direction, NttEngine};
use super::super::{Accelerator, Error, Factors, KeyRow, RowSums, Step};
use super::Offload;
use crate::ring::{Basis, ModulusChain};

impl<E: NttEngine + Send, A: Accelerator> Accelerator for Offload<'_, E, A> {
    type Word = A::Word;
    type Limb = A::Limb;

    fn chain(&self) -> &ModulusChain {
        self.inner.chain()
    }

    fn allocate(&self) -> Result<A::Limb, Error> {
        self.inner.allocate()
    }

    fn available(&self) -> usize {
        self.inner.available()
    }

    fn for_each<T: Send, F: Send>(
        &self,
        items: &mut [T],
        f: impl Fn(usize, &mut T) -> Result<(), F> + Sync,
    ) -> Result<(), F> {
        self.inner.for_each(items, f)
    }

    fn write(&self, limb: &mut A::Limb, source: &[A::Word]) -> Result<(), Error> {
        self.inner.write(limb, source)
    }

    fn read(&self, limb: &A::Limb, destination: &mut [A::Word]) -> Result<(), Error> {
        self.inner.read(limb, destination)
    }

    fn write_signed(&self, basis: Basis, limbs: &mut [A::Limb], source: &[i64]) -> Result<(), Error> {
        self.inner.write_signed(basis, limbs, source)
    }

    fn sync(&self) -> Result<(), Error> {
        self.inner.sync()
    }

    fn copy(&self, destination: &mut [A::Limb], source: &[A::Limb]) -> Result<(), Error> {
        self.inner.copy(destination, source)
    }

    fn clear(&self, limbs: &mut [A::Limb]) -> Result<(), Error> {
        self.inner.clear(limbs)
    }

    fn ntt_forward(&self, basis: Basis, x: &mut [A::Limb]) -> Result<(), Error> {
        self.transform(Direction::Forward, basis, x)
    }

    fn ntt_inverse(&self, basis: Basis, x: &mut [A::Limb]) -> Result<(), Error> {
        self.transform(Direction::Inverse, basis, x)
    }

    fn add_assign(&self, basis: Basis, x: &mut [A::Limb], y: &[A::Limb]) -> Result<(), Error> {
        self.inner.add_assign(basis, x, y)
    }

    fn sub_assign(&self, basis: Basis, x: &mut [A::Limb], y: &[A::Limb]) -> Result<(), Error> {
        self.inner.sub_assign(basis, x, y)
    }

    fn negate_assign(&self, basis: Basis, x: &mut [A::Limb]) -> Result<(), Error> {
        self.inner.negate_assign(basis, x)
    }

    fn multiply_assign(&self, basis: Basis, x: &mut [A::Limb], y: &[A::Limb]) -> Result<(), Error> {
        self.inner.multiply_assign(basis, x, y)
    }

    fn multiply_add(
        &self,
        basis: Basis,
        sum: &mut [A::Limb],
        x: &[A::Limb],
        y: &[A::Limb],
    ) -> Result<(), Error> {
        self.inner.multiply_add(basis, sum, x, y)
    }

    fn multiply_scalar_assign(&self, basis: Basis, x: &mut [A::Limb], s: &[u64]) -> Result<(), Error> {
        self.inner.multiply_scalar_assign(basis, x, s)
    }

    fn multiply_scalar_add(
        &self,
        basis: Basis,
        sum: &mut [A::Limb],
        x: &[A::Limb],
        s: &[u64],
    ) -> Result<(), Error> {
        self.inner.multiply_scalar_add(basis, sum, x, s)
    }

    fn multiply_scalars_add(
        &self,
        basis: Basis,
        sum: &mut [A::Limb],
        terms: &[(&[A::Limb], &[u64])],
    ) -> Result<(), Error> {
        self.inner.multiply_scalars_add(basis, sum, terms)
    }

    fn add_scalar_assign(&self, basis: Basis, x: &mut [A::Limb], s: &[u64]) -> Result<(), Error> {
        self.inner.add_scalar_assign(basis, x, s)
    }

    fn automorphism(
        &self,
        basis: Basis,
        destination: &mut [A::Limb],
        source: &[A::Limb],
        galois: usize,
    ) -> Result<(), Error> {
        self.inner.automorphism(basis, destination, source, galois)
    }

    fn automorphism_add(
        &self,
        basis: Basis,
        sum: &mut [A::Limb],
        source: &[A::Limb],
        galois: usize,
    ) -> Result<(), Error> {
        self.inner.automorphism_add(basis, sum, source, galois)
    }

    fn repeat(
        &self,
        destination: &mut A::Limb,
        source: &A::Limb,
        offset: usize,
        repeat: usize,
    ) -> Result<(), Error> {
        self.inner.repeat(destination, source, offset, repeat)
    }

    fn row_products(
        &self,
        basis: Basis,
        rows: usize,
        weights: &[i16],
        x: &[[&[A::Limb]; 2]],
        sums: &mut [RowSums<'_, A::Limb>],
    ) -> Result<(), Error> {
        self.inner.row_products(basis, rows, weights, x, sums)
    }

    fn block_products(
        &self,
        basis: Basis,
        block: usize,
        left: &[&[A::Limb]],
        right: &[&[A::Limb]],
        destination: &mut [&mut [A::Limb]],
    ) -> Result<(), Error> {
        self.inner.block_products(basis, block, left, right, destination)
    }

    fn odd_power_sums(
        &self,
        basis: Basis,
        x: &[A::Limb],
        rows: &[&[A::Limb]],
        sums: &mut [&mut [A::Limb]],
    ) -> Result<(), Error> {
        self.inner.odd_power_sums(basis, x, rows, sums)
    }

    fn ntt_partial(&self, basis: Basis, x: &mut [A::Limb], block: usize) -> Result<(), Error> {
        self.inner.ntt_partial(basis, x, block)
    }

    fn convert(
        &self,
        from: Basis,
        source: &[A::Limb],
        to: Basis,
        destination: &mut [A::Limb],
    ) -> Result<(), Error> {
        self.inner.convert(from, source, to, destination)
    }

    fn tensor(
        &self,
        basis: Basis,
        d: [&mut [A::Limb]; 3],
        x: [&[A::Limb]; 2],
        y: [&[A::Limb]; 2],
    ) -> Result<(), Error> {
        self.inner.tensor(basis, d, x, y)
    }

    fn tensor_add(
        &self,
        basis: Basis,
        d: [&mut [A::Limb]; 3],
        terms: &[[[&[A::Limb]; 2]; 2]],
    ) -> Result<(), Error> {
        self.inner.tensor_add(basis, d, terms)
    }

    fn inner_product(
        &self,
        level: Basis,
        sums: [&mut [A::Limb]; 2],
        digits: &[&[A::Limb]],
        key: [&[KeyRow<'_, A::Limb>]; 2],
    ) -> Result<(), Error> {
        self.inner.inner_product(level, sums, digits, key)
    }

    fn hoisted_sums(
        &self,
        level: Basis,
        x: [&[A::Limb]; 2],
        digits: &[&[A::Limb]],
        steps: &[Step<'_, A::Limb>],
        factors: &Factors<'_, A::Limb>,
        sums: &mut [[&mut [A::Limb]; 2]],
    ) -> Result<(), Error> {
        self.inner.hoisted_sums(level, x, digits, steps, factors, sums)
    }
}
