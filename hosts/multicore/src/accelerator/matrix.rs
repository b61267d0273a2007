//! The kernels of the matrix room.

use super::Multicore;
use crate::memory::Limb;
use veilformer::accel::{Error, ErrorKind, RowSums, check_block, check_blocks, check_rows};
use veilformer::ring::Basis;

impl Multicore {
    /// [`veilformer::accel::Accelerator::ntt_partial`].
    pub(super) fn partial(&self, _basis: Basis, _x: &mut [Limb], block: usize) -> Result<(), Error> {
        check_block(self.pool.degree(), block)?;
        Err(Error::Device { kind: ErrorKind::Unsupported })
    }

    /// [`veilformer::accel::Accelerator::row_products`].
    pub(super) fn rows(
        &self,
        basis: Basis,
        rows: usize,
        weights: &[i16],
        x: &[[&[Limb]; 2]],
        sums: &mut [RowSums<'_, Limb>],
    ) -> Result<(), Error> {
        check_rows(&self.chain, basis, rows, weights, x, sums)?;
        Err(Error::Device { kind: ErrorKind::Unsupported })
    }

    /// [`veilformer::accel::Accelerator::block_products`].
    pub(super) fn blocks(
        &self,
        basis: Basis,
        block: usize,
        left: &[&[Limb]],
        right: &[&[Limb]],
        destination: &mut [&mut [Limb]],
    ) -> Result<(), Error> {
        check_blocks(&self.chain, basis, block, left, right, destination)?;
        Err(Error::Device { kind: ErrorKind::Unsupported })
    }
}
