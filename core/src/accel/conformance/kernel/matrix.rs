//! The programs of the matrix room. Their products run over one ordinary and one special prime of the basis, where
//! there are both: the outputs are many.

use super::super::super::RowSums;
use super::*;

/// Inputs of a product of rows.
const INPUTS: usize = 3;
/// Sums of a product of rows.
const SUMS: usize = 2;
/// Most rows to a ciphertext.
const MAX_ROWS: usize = 16;
/// Terms of a product of blocks, or of a sum of powers.
const TERMS: usize = 5;
/// Sums of powers.
const POWERS: usize = 4;

impl<A: Accelerator> Bench<'_, A> {
    /// One of `count` numbers: (3·seed + primes) mod count.
    fn choice(&self, basis: Basis, count: u32) -> u32 {
        ((3 * self.seed + basis.len() as u64) % u64::from(count)) as u32
    }

    /// Words to a block, from 8 to N.
    pub(super) fn block(&self, basis: Basis) -> usize {
        8 << self.choice(basis, self.accelerator.chain().log_degree() - 2)
    }

    /// Any weight; the most positive, or the ends of the range.
    fn weight(&self, index: usize) -> i16 {
        let draw = draw(self.seed, 200, 0, index);
        match self.fill {
            Fill::Random => draw as i16,
            Fill::Top => i16::MAX,
            Fill::Edges => [0, 1, i16::MIN, i16::MAX][(draw % 4) as usize],
        }
    }

    /// Two sums of three inputs of 1, 2, 4, 8 or 16 rows each: for each sum the body, then the components.
    pub(super) fn row_products(&mut self, basis: Basis) -> Result<Outputs<A>, Error> {
        let rows = 1 << self.choice(basis, 5);
        let basis = few(basis);
        let mut weights = heapless::Vec::<i16, { MAX_ROWS * MAX_ROWS * INPUTS * SUMS }>::new();
        for index in 0..rows * rows * INPUTS * SUMS {
            check_room(weights.push(self.weight(index)))?;
        }
        let halves = [self.polynomials(basis, 1, INPUTS)?, self.polynomials(basis, 10, INPUTS)?];
        let pairs = halves[0].iter().zip(&halves[1]);
        let x: heapless::Vec<[&[A::Limb]; 2], INPUTS> = pairs.map(|(b, a)| [&b[..], &a[..]]).collect();
        let mut limbs = Outputs::<A>::new();
        for _ in 0..SUMS * (1 + rows) {
            give(&mut limbs, self.polynomial(basis, 20)?)?;
        }
        let mut sums = heapless::Vec::<RowSums<'_, A::Limb>, SUMS>::new();
        for limbs in limbs.chunks_exact_mut((1 + rows) * basis.len()) {
            let (body, masks) = limbs.split_at_mut(basis.len());
            check_room(sums.push(RowSums { body, masks }))?;
        }
        self.accelerator.row_products(basis, rows, &weights, &x, &mut sums)?;
        drop(sums);
        Ok(limbs)
    }

    /// Five terms in blocks of 8, 16 or 32 words.
    pub(super) fn block_products(&mut self, basis: Basis) -> Result<Outputs<A>, Error> {
        let block = 8 << self.choice(basis, 3);
        let basis = few(basis);
        let (left, right) = (self.polynomials(basis, 1, TERMS)?, self.polynomials(basis, 10, TERMS)?);
        let mut limbs = Outputs::<A>::new();
        for _ in 0..block {
            give(&mut limbs, self.polynomial(basis, 20)?)?;
        }
        let mut out: heapless::Vec<&mut [A::Limb], 32> = limbs.chunks_exact_mut(basis.len()).collect();
        self.accelerator.block_products(basis, block, &slices(&left), &slices(&right), &mut out)?;
        drop(out);
        Ok(limbs)
    }

    /// Five rows at the first four odd powers.
    pub(super) fn odd_power_sums(&mut self, basis: Basis, x: &[A::Limb]) -> Result<Outputs<A>, Error> {
        let rows = self.polynomials(basis, 1, TERMS)?;
        let mut limbs = Outputs::<A>::new();
        for _ in 0..POWERS {
            give(&mut limbs, self.polynomial(basis, 20)?)?;
        }
        let mut sums: heapless::Vec<&mut [A::Limb], POWERS> = limbs.chunks_exact_mut(basis.len()).collect();
        self.accelerator.odd_power_sums(basis, x, &slices(&rows), &mut sums)?;
        drop(sums);
        Ok(limbs)
    }
}

/// The first ordinary and the first special prime of a basis.
fn few(basis: Basis) -> Basis {
    Basis::new(basis.start(), basis.ordinary().min(1), basis.special().min(1))
}
