//! Basis conversion and division on this machine: the parts that key switches
//! and rescalings are fused from.

use super::{Multicore, check, check_rows, contains, key_limbs};
use crate::kernels::{ConvertTable, Prime};
use crate::memory::Limb;
use std::sync::Arc;
use veilformer::accel::{Accelerator, Error, KeyRow, digits};
use veilformer::ring::Basis;

/// Words of one limb to a task when work is split by columns.
const COLUMNS: usize = 1 << 12;
/// Most targets of a conversion that one task takes together: every block of
/// columns of the sources is then read once for all of them.
const MAX_GROUP: usize = 8;
/// Columns of a tile: those of eight sources stay in a 48 KiB first-level cache.
const TILE: usize = 1 << 9;

/// The half of a conversion that all targets share: y_i, and how often their sum wraps.
pub(super) struct Scaled<'y> {
    table: Arc<ConvertTable>,
    y: &'y [Limb],
    wraps: Limb,
}

impl Multicore {
    /// From `source` to every prime of the chain.
    fn conversion(&self, source: Basis) -> Result<Arc<ConvertTable>, Error> {
        self.conversions.get(source, || {
            let primes: Vec<Prime> = (0..source.len()).map(|i| *self.prime(source, i)).collect();
            let all: Vec<Prime> = self.tables.iter().map(|table| *table.prime()).collect();
            ConvertTable::new(&primes, &all)
        })
    }

    /// The half of a conversion that all targets share: y_i and v. `y` has a limb for each of x.
    pub(super) fn scale<'y>(
        &self,
        source: Basis,
        x: &[Limb],
        y: &'y mut [Limb],
    ) -> Result<Scaled<'y>, Error> {
        self.fits(source, x.len())?;
        check(x.len(), y.len())?;
        let table = self.conversion(source)?;
        let mut wraps = self.allocate()?;
        {
            let columns = COLUMNS.min(self.pool.degree());
            let mut tasks: Vec<(Vec<&mut [u64]>, &mut [u64])> =
                wraps.chunks_mut(columns).map(|wraps| (Vec::with_capacity(x.len()), wraps)).collect();
            for limb in &mut *y {
                for (task, part) in tasks.iter_mut().zip(limb.chunks_mut(columns)) {
                    task.0.push(part);
                }
            }
            let words = x.len() * self.pool.degree();
            self.spread(&mut tasks, words, |i, (y, wraps)| {
                let range = i * columns..(i + 1) * columns;
                let x: Vec<&[u64]> = x.iter().map(|limb| &limb[range.clone()]).collect();
                self.kernels.scale_sources(&table, &x, y, wraps);
                Ok::<(), Error>(())
            })?;
        }
        Ok(Scaled { table, y, wraps })
    }

    /// The same of limbs that the inverse transform has scaled already.
    fn scaled<'y>(&self, source: Basis, y: &'y [Limb]) -> Result<Scaled<'y>, Error> {
        self.fits(source, y.len())?;
        let table = self.conversion(source)?;
        let mut wraps = self.allocate()?;
        let columns = COLUMNS.min(self.pool.degree());
        let mut tasks: Vec<&mut [u64]> = wraps.chunks_mut(columns).collect();
        self.spread(&mut tasks, y.len() * self.pool.degree(), |i, wraps| {
            let range = i * columns..(i + 1) * columns;
            let y: Vec<&[u64]> = y.iter().map(|limb| &limb[range.clone()]).collect();
            self.kernels.count_wraps(&table, &y, wraps);
            Ok::<(), Error>(())
        })?;
        Ok(Scaled { table, y, wraps })
    }

    /// Targets to a task: many, as every task reads all sources again, but as many tasks as keep all threads busy.
    pub(super) fn group(&self, targets: usize) -> usize {
        let tasks = targets.div_ceil(MAX_GROUP).next_multiple_of(self.threads());
        targets.div_ceil(tasks).max(1)
    }

    /// The limbs of `targets` (a prime and where to put it), in coefficient form.
    fn combine(&self, scaled: &Scaled<'_>, targets: &mut [(usize, &mut [u64])]) {
        let degree = self.pool.degree();
        for start in (0..degree).step_by(TILE) {
            let tile = start..degree.min(start + TILE);
            let y: Vec<&[u64]> = scaled.y.iter().map(|limb| &limb[tile.clone()]).collect();
            let wraps = &scaled.wraps[tile.clone()];
            for (j, (prime, out)) in targets.iter_mut().enumerate() {
                // The next tile of some of the sources.
                let ahead =
                    [2 * j, 2 * j + 1].map(|k| scaled.y.get(k).map_or(&[][..], |limb| &limb[tile.end..]));
                self.kernels.combine(&scaled.table, *prime, &y, wraps, &mut out[tile.clone()], ahead);
            }
        }
    }

    /// The same with the outer stages of the transform done: [`NttTable::forward_block`] does the rest.
    fn raise(&self, scaled: &Scaled<'_>, targets: &mut [(usize, &mut [u64])]) {
        self.combine(scaled, targets);
        for (prime, limb) in targets.iter_mut() {
            self.tables[*prime].forward_outer(limb);
        }
    }

    /// Fresh limbs of `primes` as [`Multicore::raise`] leaves them.
    fn raised(&self, scaled: &Scaled<'_>, primes: &[usize]) -> Result<Vec<Limb>, Error> {
        let mut limbs = self.limbs(primes.len())?;
        let mut targets: Vec<_> = primes.iter().copied().zip(limbs.iter_mut().map(|l| &mut l[..])).collect();
        self.raise(scaled, &mut targets);
        Ok(limbs)
    }

    /// [`Accelerator::convert`].
    pub(super) fn change_basis(
        &self,
        from: Basis,
        source: &[Limb],
        to: Basis,
        destination: &mut [Limb],
    ) -> Result<(), Error> {
        let mut y = self.limbs(source.len())?;
        let scaled = self.scale(from, source, &mut y)?;
        self.fits(to, destination.len())?;
        let words = destination.len() * self.pool.degree();
        let size = self.group(destination.len());
        let mut groups: Vec<_> = destination.chunks_mut(size).collect();
        self.spread(&mut groups, words, |g, group| {
            let prime = |k| to.prime_index(&self.chain, g * size + k);
            let limbs = group.iter_mut().enumerate();
            let mut targets: Vec<_> = limbs.map(|(k, limb)| (prime(k), &mut limb[..])).collect();
            self.combine(&scaled, &mut targets);
            Ok(())
        })
    }

    /// [`Accelerator::mod_up`].
    pub(super) fn raise_digit(
        &self,
        level: Basis,
        digit: Basis,
        x: &[Limb],
        coefficients: &[Limb],
        out: &mut [Limb],
    ) -> Result<(), Error> {
        check(level.len(), x.len())?;
        let basis = level.with_special(out.len().saturating_sub(level.len()));
        let end = digit.start() + digit.len();
        if end > level.len() {
            return Err(Error::Shape { have: level.len(), need: end });
        }
        let mut y = self.limbs(coefficients.len())?;
        let scaled = self.scale(digit, coefficients, &mut y)?;
        self.fits(basis, out.len())?;
        let words = out.len() * self.pool.degree();
        let size = self.group(out.len());
        let mut groups: Vec<_> = out.chunks_mut(size).collect();
        self.spread(&mut groups, words, |g, group| {
            let mut targets = Vec::with_capacity(size);
            for (k, limb) in group.iter_mut().enumerate() {
                let i = g * size + k;
                if contains(digit, i) {
                    limb.copy_from_slice(&x[i]);
                } else {
                    targets.push((basis.prime_index(&self.chain, i), &mut limb[..]));
                }
            }
            self.raise(&scaled, &mut targets);
            for (prime, limb) in targets {
                let table = &self.tables[prime];
                let block = limb.len() / table.blocks();
                limb.chunks_exact_mut(block)
                    .enumerate()
                    .for_each(|(i, words)| table.forward_block(words, i, None));
            }
            Ok(())
        })
    }

    /// Divides x (+ P·addend) by the primes of `drop`, with rounding.
    pub(super) fn leave(
        &self,
        keep: Basis,
        drop: Basis,
        x: &mut [Limb],
        addend: Option<&[Limb]>,
    ) -> Result<(), Error> {
        check(keep.len() + drop.len(), x.len())?;
        self.fits(keep, keep.len())?;
        self.fits(drop, drop.len())?;
        let special = Basis::new(0, 0, drop.special());
        let (kept, dropped) = x.split_at_mut(keep.len());
        if let Some(addend) = addend {
            let last = Basis::new(keep.len(), drop.ordinary(), 0);
            let p: Vec<u64> = self.chain.of(last).map(|m| self.chain.product_mod(special, m)).collect();
            self.multiply_scalar_add(last, &mut dropped[..last.len()], &addend[keep.len()..], &p)?;
        }
        let table = self.conversion(drop)?;
        self.each(drop, dropped, |i, words| {
            self.table(drop, i).inverse_scaled(None, words, table.factor(i));
        })?;
        let scaled = self.scaled(drop, dropped)?;
        let words = keep.len() * self.pool.degree();
        let size = self.group(kept.len());
        let mut groups: Vec<_> = kept.chunks_mut(size).collect();
        self.spread(&mut groups, words, |g, group| {
            let primes: Vec<usize> =
                (0..group.len()).map(|k| keep.prime_index(&self.chain, g * size + k)).collect();
            let mut rounded = self.raised(&scaled, &primes)?;
            for (k, ((limb, rounded), prime)) in group.iter_mut().zip(&mut rounded).zip(primes).enumerate() {
                let (modulus, table) = (&self.chain.moduli()[prime], &self.tables[prime]);
                let prime = table.prime();
                let inverse = modulus.inverse(self.chain.product_mod(drop, modulus));
                let factor = modulus.multiply(self.chain.product_mod(special, modulus), inverse);
                let block = limb.len() / table.blocks();
                let blocks = limb.chunks_exact_mut(block).zip(rounded.chunks_exact_mut(block));
                for (i, (words, rounded)) in blocks.enumerate() {
                    let addend = addend.map(|addend| &addend[g * size + k][i * block..(i + 1) * block]);
                    table.forward_block(rounded, i, Some([words, addend.unwrap_or(words)]));
                    self.kernels.sub_multiply_scalar(prime, words, rounded, inverse);
                    if let Some(addend) = addend {
                        if factor == 1 {
                            self.kernels.add_assign(prime, words, addend);
                        } else {
                            self.kernels.multiply_scalar_add(prime, words, addend, factor);
                        }
                    }
                }
            }
            Ok(())
        })
    }

    /// A key switch up to the division by P: a block of all digits is transformed and summed while it is in the cache, and
    /// the key's words for it are fetched during the transforms.
    pub(super) fn switch(
        &self,
        level: Basis,
        digit_size: usize,
        x: &[Limb],
        key: [&[KeyRow<'_, Limb>]; 2],
        sums: [&mut [Limb]; 2],
    ) -> Result<(), Error> {
        let [sum0, sum1] = sums;
        let basis = level.with_special(sum0.len().saturating_sub(level.len()));
        self.fits(level, x.len())?;
        self.fits(basis, sum0.len())?;
        check(sum0.len(), sum1.len())?;
        let runs: Vec<Basis> = digits(level, digit_size).collect();
        let last = x.last().ok_or(Error::Shape { have: 0, need: 1 })?;
        check_rows(runs.len(), basis.len(), key)?;
        let tables: Vec<_> = runs.iter().map(|run| self.conversion(*run)).collect::<Result<_, _>>()?;
        let mut y = self.limbs(x.len())?;
        self.each(level, &mut y, |i, words| {
            let factor = tables[i / digit_size].factor(i % digit_size);
            self.table(level, i).inverse_scaled(Some(&x[i]), words, factor);
        })?;
        let scaled: Vec<Scaled<'_>> = runs
            .iter()
            .map(|run| self.scaled(*run, &y[run.start()..run.start() + run.len()]))
            .collect::<Result<_, _>>()?;
        let mut rows: Vec<_> = sum0.iter_mut().zip(sum1).collect();
        let words = basis.len() * self.pool.degree();
        let size = self.group(rows.len());
        let mut groups: Vec<_> = rows.chunks_mut(size).collect();
        self.spread(&mut groups, words, |g, group| {
            let limbs = g * size..g * size + group.len();
            let mut raised = Vec::with_capacity(runs.len());
            for (run, scaled) in runs.iter().zip(&scaled) {
                let others = limbs.clone().filter(|i| !contains(*run, *i));
                let primes: Vec<usize> = others.map(|i| basis.prime_index(&self.chain, i)).collect();
                raised.push(self.raised(scaled, &primes)?.into_iter());
            }
            for (i, (sum0, sum1)) in limbs.zip(group.iter_mut()) {
                // A digit's own limbs are those of x; the others come in order.
                let mut taken: Vec<Option<Limb>> = runs
                    .iter()
                    .zip(&mut raised)
                    .map(|(run, raised)| if contains(*run, i) { None } else { raised.next() })
                    .collect();
                let own = x.get(i).unwrap_or(last);
                let keys = key.map(|half| key_limbs(half, i));
                let table = self.table(basis, i);
                let block = self.pool.degree() / table.blocks();
                let sums = sum0.chunks_exact_mut(block).zip(sum1.chunks_exact_mut(block));
                for (b, (sum0, sum1)) in sums.enumerate() {
                    let words = b * block..(b + 1) * block;
                    let keys = keys.each_ref().map(|half| -> Vec<&[u64]> {
                        half.iter().map(|limb| &limb[words.clone()]).collect()
                    });
                    let transformed = taken.iter_mut().enumerate().map(|(d, limb)| {
                        let Some(limb) = limb else { return &own[words.clone()] };
                        let limb = &mut limb[words.clone()];
                        table.forward_block(limb, b, Some([keys[0][d], keys[1][d]]));
                        &*limb
                    });
                    let digits: Vec<&[u64]> = transformed.collect();
                    self.kernels.inner_product(table.prime(), [sum0, sum1], &digits, [&keys[0], &keys[1]]);
                }
            }
            Ok(())
        })
    }
}
