//! The kernels of the matrix room that work block by block: [`Multicore::partial`], [`Multicore::blocks`] and
//! [`Multicore::powers`].

use super::Multicore;
use crate::kernels::{AlignedWords, Prime};
use crate::memory::Limb;
use veilformer::accel::{Error, check_block, check_blocks, check_powers};
use veilformer::ring::Basis;

/// Most terms of a sum whose operands are packed together: both panels of a block of 128 words then take 512 KiB.
const TERMS: usize = 1 << 8;
/// Words of a limb to a task of [`Multicore::powers`].
const RUN: usize = 1 << 9;

/// One block of one prime in every destination.
struct Block<'a> {
    prime: usize,
    start: usize,
    out: Vec<&'a mut [u64]>,
}

impl Multicore {
    /// [`veilformer::accel::Accelerator::ntt_partial`].
    pub(super) fn partial(&self, basis: Basis, x: &mut [Limb], block: usize) -> Result<(), Error> {
        check_block(self.pool.degree(), block)?;
        self.each(basis, x, |i, words| self.table(basis, i).forward_to(words, block))
    }

    /// [`veilformer::accel::Accelerator::block_products`]: N·block·F multiply-adds for F terms. The operands of a
    /// block are packed, so that eight words of each are one line and a run of lines is all that a tile reads.
    pub(super) fn blocks(
        &self,
        basis: Basis,
        block: usize,
        left: &[&[Limb]],
        right: &[&[Limb]],
        destination: &mut [&mut [Limb]],
    ) -> Result<(), Error> {
        check_blocks(&self.chain, basis, block, left, right, destination)?;
        let blocks = self.pool.degree() / block;
        let mut tasks = tasks(blocks, block, basis, destination);
        let words = block * basis.len() * self.pool.degree();
        self.spread(&mut tasks, words, |_, Block { prime, start, out }| {
            let (p, range) = (*prime, *start..*start + block);
            let prime = self.prime(basis, p);
            if left.is_empty() {
                out.iter_mut().for_each(|out| out.fill(0));
            }
            for (run, (left, right)) in left.chunks(TERMS).zip(right.chunks(TERMS)).enumerate() {
                let left: Vec<&[u64]> = left.iter().map(|limbs| &limbs[p][range.clone()]).collect();
                let right: Vec<&[u64]> = right.iter().map(|limbs| &limbs[p][range.clone()]).collect();
                self.block_product(prime, &left, &right, out, run > 0);
            }
            Ok(())
        })
    }

    /// [`veilformer::accel::Accelerator::odd_power_sums`]: rows · sums multiply-adds a word, in runs of columns.
    pub(super) fn powers(
        &self,
        basis: Basis,
        x: &[Limb],
        rows: &[&[Limb]],
        sums: &mut [&mut [Limb]],
    ) -> Result<(), Error> {
        check_powers(&self.chain, basis, x, rows, sums)?;
        let run = RUN.min(self.pool.degree());
        let mut tasks = tasks(self.pool.degree() / run, run, basis, sums);
        let words = rows.len().max(1) * basis.len() * self.pool.degree();
        self.spread(&mut tasks, words, |_, Block { prime, start, out }| {
            let (p, range) = (*prime, *start..*start + run);
            let rows: Vec<&[u64]> = rows.iter().map(|limbs| &limbs[p][range.clone()]).collect();
            self.kernels.odd_power_sums(self.prime(basis, p), &x[p][range], &rows, out);
            Ok(())
        })
    }

    /// out\[t\]\[u\] = Σ_f left\[f\]\[t\]·right\[f\]\[u\], or that more than before.
    fn block_product(
        &self,
        prime: &Prime,
        left: &[&[u64]],
        right: &[&[u64]],
        out: &mut [&mut [u64]],
        add: bool,
    ) {
        let (terms, tiles) = (left.len(), out.len() / 8);
        let left = panel(left, tiles);
        let mut right = panel(right, tiles);
        let factor = self.kernels.outer_factor(prime);
        self.kernels.multiply_scalar_assign(prime, right.lines_mut().as_flattened_mut(), factor);
        let mut sums = AlignedWords::zeroed(8 * tiles);
        for (left, out) in left.lines().chunks_exact(terms).zip(out.chunks_exact_mut(8)) {
            self.kernels.outer_products(prime, terms, left, right.lines(), sums.lines_mut());
            for (sums, out) in sums.lines().chunks_exact(tiles).zip(out) {
                if add {
                    self.kernels.add_assign(prime, out, sums.as_flattened());
                } else {
                    out.copy_from_slice(sums.as_flattened());
                }
            }
        }
    }
}

/// A task for each of `blocks` runs of `block` words of each prime, with its part of every destination.
fn tasks<'d>(
    blocks: usize,
    block: usize,
    basis: Basis,
    destination: &'d mut [&mut [Limb]],
) -> Vec<Block<'d>> {
    let mut tasks: Vec<Block<'_>> = (0..basis.len() * blocks)
        .map(|i| Block {
            prime: i / blocks,
            start: i % blocks * block,
            out: Vec::with_capacity(destination.len()),
        })
        .collect();
    for limbs in destination.iter_mut() {
        let parts = limbs.iter_mut().flat_map(|limb| limb.chunks_exact_mut(block));
        tasks.iter_mut().zip(parts).for_each(|(task, part)| task.out.push(part));
    }
    tasks
}

/// Line `terms·tile + f` is words 8·tile … of `x[f]`.
fn panel(x: &[&[u64]], tiles: usize) -> AlignedWords {
    let mut panel = AlignedWords::zeroed(x.len() * tiles);
    let lines = panel.lines_mut();
    for (f, words) in x.iter().enumerate() {
        for (tile, line) in words.as_chunks::<8>().0.iter().enumerate() {
            lines[x.len() * tile + f] = *line;
        }
    }
    panel
}
