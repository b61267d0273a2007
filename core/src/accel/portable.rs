//! The reference accelerator: plain Rust, one thread, a caller's memory.

use super::{
    Accelerator, Error, RowSums, Trusted, check, check_block, check_blocks, check_repeat, check_rows,
};
use crate::memory::{LimbPool, PoolLimb};
use crate::ring::{
    Basis, Converter, MAX_SOURCES, Modulus, ModulusChain, RingTables, Word, automorphism_index,
};

/// Runs every kernel in portable code on limbs of a [`LimbPool`].
pub struct Portable<'p, 'm, W: Word, const CAP: usize> {
    tables: &'p RingTables<'p, W>,
    pool: &'p LimbPool<'m, W, CAP>,
}

impl<'p, 'm, W: Word, const CAP: usize> Portable<'p, 'm, W, CAP> {
    /// Over tables and a pool of the same degree.
    ///
    /// # Errors
    /// [`Error::Shape`] when the pool's limbs have another length than N.
    pub fn new(tables: &'p RingTables<'p, W>, pool: &'p LimbPool<'m, W, CAP>) -> Result<Self, Error> {
        check(tables.chain().degree(), pool.degree())?;
        Ok(Self { tables, pool })
    }

    fn each(
        &self,
        basis: Basis,
        x: &mut [PoolLimb<'p, 'm, W, CAP>],
        mut kernel: impl FnMut(usize, &Modulus, &mut [W]),
    ) -> Result<(), Error> {
        self.fits(basis, x.len())?;
        for (i, (limb, modulus)) in x.iter_mut().zip(self.chain().of(basis)).enumerate() {
            kernel(i, modulus, limb.words_mut());
        }
        Ok(())
    }

    fn zip(
        &self,
        basis: Basis,
        x: &mut [PoolLimb<'p, 'm, W, CAP>],
        y: &[PoolLimb<'p, 'm, W, CAP>],
        mut kernel: impl FnMut(usize, &Modulus, &mut W, W),
    ) -> Result<(), Error> {
        check(x.len(), y.len())?;
        self.each(basis, x, |i, modulus, words| {
            for (x, y) in words.iter_mut().zip(y[i].words()) {
                kernel(i, modulus, x, *y);
            }
        })
    }

    fn fits(&self, basis: Basis, have: usize) -> Result<(), Error> {
        check(basis.len(), have)?;
        if basis.fits(self.chain()) {
            Ok(())
        } else {
            Err(Error::Shape { have: self.chain().moduli().len(), need: basis.len() })
        }
    }
}

fn add<W: Word>(x: W, y: W, m: &Modulus) -> W {
    x.wrapping_add(y).reduce_once(m.word())
}

impl<'p, 'm, W: Word, const CAP: usize> Accelerator for Portable<'p, 'm, W, CAP> {
    type Word = W;
    type Limb = PoolLimb<'p, 'm, W, CAP>;

    fn chain(&self) -> &ModulusChain {
        self.tables.chain()
    }

    fn allocate(&self) -> Result<Self::Limb, Error> {
        self.pool.take().ok_or(Error::OutOfLimbs { capacity: self.pool.capacity() })
    }

    fn available(&self) -> usize {
        self.pool.available()
    }

    fn write(&self, limb: &mut Self::Limb, source: &[W]) -> Result<(), Error> {
        check(limb.words().len(), source.len())?;
        limb.words_mut().copy_from_slice(source);
        Ok(())
    }

    fn read(&self, limb: &Self::Limb, destination: &mut [W]) -> Result<(), Error> {
        check(limb.words().len(), destination.len())?;
        destination.copy_from_slice(limb.words());
        Ok(())
    }

    fn write_signed(&self, basis: Basis, limbs: &mut [Self::Limb], source: &[i64]) -> Result<(), Error> {
        check(self.chain().degree(), source.len())?;
        // Secrets pass here: no branch and no division may depend on a value.
        if source.iter().fold(0, |bits, x| bits | x.unsigned_abs()) >> 62 != 0 {
            return Err(Error::Range);
        }
        self.each(basis, limbs, |_, m, words| {
            let (q, one) = (m.value(), u64::shoup(1, m.value()));
            for (word, &x) in words.iter_mut().zip(source) {
                let r = x.unsigned_abs().multiply_shoup_lazy(1, one, q).reduce_once(q);
                let (negated, sign) = ((q - r).reduce_once(q), (x >> 63) as u64);
                *word = W::from_u64((r & !sign) | (negated & sign));
            }
        })
    }

    fn copy(&self, destination: &mut [Self::Limb], source: &[Self::Limb]) -> Result<(), Error> {
        check(destination.len(), source.len())?;
        for (x, y) in destination.iter_mut().zip(source) {
            x.words_mut().copy_from_slice(y.words());
        }
        Ok(())
    }

    fn clear(&self, limbs: &mut [Self::Limb]) -> Result<(), Error> {
        for limb in limbs {
            zeroize::Zeroize::zeroize(limb.words_mut());
        }
        Ok(())
    }

    fn ntt_forward(&self, basis: Basis, x: &mut [Self::Limb]) -> Result<(), Error> {
        let tables = self.tables;
        self.each(basis, x, |i, _, words| {
            tables.table(basis.prime_index(tables.chain(), i)).forward(words);
        })
    }

    fn ntt_inverse(&self, basis: Basis, x: &mut [Self::Limb]) -> Result<(), Error> {
        let tables = self.tables;
        self.each(basis, x, |i, _, words| {
            tables.table(basis.prime_index(tables.chain(), i)).inverse(words);
        })
    }

    fn ntt_partial(&self, basis: Basis, x: &mut [Self::Limb], block: usize) -> Result<(), Error> {
        let tables = self.tables;
        check_block(tables.chain().degree(), block)?;
        self.each(basis, x, |i, _, words| {
            tables.table(basis.prime_index(tables.chain(), i)).forward_to(words, block);
        })
    }

    fn add_assign(&self, basis: Basis, x: &mut [Self::Limb], y: &[Self::Limb]) -> Result<(), Error> {
        self.zip(basis, x, y, |_, m, x, y| *x = add(*x, y, m))
    }

    fn sub_assign(&self, basis: Basis, x: &mut [Self::Limb], y: &[Self::Limb]) -> Result<(), Error> {
        self.zip(basis, x, y, |_, m, x, y| {
            *x = x.wrapping_add(m.word::<W>()).wrapping_sub(y).reduce_once(m.word());
        })
    }

    fn negate_assign(&self, basis: Basis, x: &mut [Self::Limb]) -> Result<(), Error> {
        self.each(basis, x, |_, m, words| {
            for word in words {
                *word = m.word::<W>().wrapping_sub(*word).reduce_once(m.word());
            }
        })
    }

    fn multiply_assign(&self, basis: Basis, x: &mut [Self::Limb], y: &[Self::Limb]) -> Result<(), Error> {
        self.zip(basis, x, y, |_, m, x, y| *x = x.multiply_mod(y, m))
    }

    fn multiply_add(
        &self,
        basis: Basis,
        sum: &mut [Self::Limb],
        x: &[Self::Limb],
        y: &[Self::Limb],
    ) -> Result<(), Error> {
        check(sum.len(), x.len())?;
        check(sum.len(), y.len())?;
        self.each(basis, sum, |i, m, words| {
            for ((sum, x), y) in words.iter_mut().zip(x[i].words()).zip(y[i].words()) {
                *sum = add(*sum, x.multiply_mod(*y, m), m);
            }
        })
    }

    fn multiply_scalar_assign(&self, basis: Basis, x: &mut [Self::Limb], s: &[u64]) -> Result<(), Error> {
        check(x.len(), s.len())?;
        self.each(basis, x, |i, m, words| {
            let (q, s, companion) = (m.word::<W>(), W::from_u64(s[i]), W::shoup(s[i], m.value()));
            for word in words {
                *word = word.multiply_shoup_lazy(s, companion, q).reduce_once(q);
            }
        })
    }

    fn multiply_scalar_add(
        &self,
        basis: Basis,
        sum: &mut [Self::Limb],
        x: &[Self::Limb],
        s: &[u64],
    ) -> Result<(), Error> {
        check(sum.len(), s.len())?;
        self.zip(basis, sum, x, |i, m, sum, x| *sum = add(*sum, x.multiply_mod(W::from_u64(s[i]), m), m))
    }

    fn add_scalar_assign(&self, basis: Basis, x: &mut [Self::Limb], s: &[u64]) -> Result<(), Error> {
        check(x.len(), s.len())?;
        self.each(basis, x, |i, m, words| {
            for word in words {
                *word = add(*word, W::from_u64(s[i]), m);
            }
        })
    }

    fn automorphism(
        &self,
        basis: Basis,
        destination: &mut [Self::Limb],
        source: &[Self::Limb],
        galois: usize,
    ) -> Result<(), Error> {
        check(destination.len(), source.len())?;
        let log_degree = self.chain().log_degree();
        self.each(basis, destination, |i, _, words| {
            let source = source[i].words();
            for (j, word) in words.iter_mut().enumerate() {
                *word = source[automorphism_index(j, galois, log_degree)];
            }
        })
    }

    fn repeat(
        &self,
        destination: &mut Self::Limb,
        source: &Self::Limb,
        offset: usize,
        repeat: usize,
    ) -> Result<(), Error> {
        check_repeat(self.chain().degree(), offset, repeat)?;
        let runs = destination.words_mut().chunks_exact_mut(repeat);
        for (run, word) in runs.zip(&source.words()[offset..]) {
            run.fill(*word);
        }
        Ok(())
    }

    fn convert(
        &self,
        from: Basis,
        source: &[Self::Limb],
        to: Basis,
        destination: &mut [Self::Limb],
    ) -> Result<(), Error> {
        self.fits(from, source.len())?;
        let converter =
            Converter::new(self.chain(), from).ok_or(Error::Shape { have: from.len(), need: MAX_SOURCES })?;
        let sources: heapless::Vec<&[W], MAX_SOURCES> = source.iter().map(PoolLimb::words).collect();
        self.each(to, destination, |_, m, words| converter.convert(&sources, m, words))
    }

    fn row_products(
        &self,
        basis: Basis,
        rows: usize,
        weights: &[i16],
        x: &[[&[Self::Limb]; 2]],
        sums: &mut [RowSums<'_, Self::Limb>],
    ) -> Result<(), Error> {
        check_rows(self.chain(), basis, rows, weights, x, sums)?;
        let (primes, inputs) = (basis.len(), rows * x.len());
        for (o, sum) in sums.iter_mut().enumerate() {
            let weights = &weights[o * rows * inputs..][..rows * inputs];
            // Word `at` of every output holds coefficient at/k of row at mod k.
            let word = |at: usize, m: &Modulus, entry: &dyn Fn(usize, usize, usize) -> W| {
                let terms = weights[at % rows * inputs..][..inputs].iter().enumerate();
                terms.fold(W::default(), |sum, (r, &weight)| {
                    let weight = W::from_u64((weight as i64).rem_euclid(m.value() as i64) as u64);
                    add(sum, entry(r / rows, r % rows, at / rows).multiply_mod(weight, m), m)
                })
            };
            self.each(basis, sum.body, |p, m, words| {
                let entry = |c: usize, i: usize, index: usize| x[c][0][p].words()[i + rows * index];
                words.iter_mut().enumerate().for_each(|(at, out)| *out = word(at, m, &entry));
            })?;
            for (j, limbs) in sum.masks.chunks_exact_mut(primes.max(1)).enumerate() {
                self.each(basis, limbs, |p, m, words| {
                    let entry =
                        |c: usize, i: usize, index: usize| mask(x[c][1][p].words(), m, rows, i, j, index);
                    words.iter_mut().enumerate().for_each(|(at, out)| *out = word(at, m, &entry));
                })?;
            }
        }
        Ok(())
    }

    fn block_products(
        &self,
        basis: Basis,
        block: usize,
        left: &[&[Self::Limb]],
        right: &[&[Self::Limb]],
        destination: &mut [&mut [Self::Limb]],
    ) -> Result<(), Error> {
        check_blocks(self.chain(), basis, block, left, right, destination)?;
        for (t, limbs) in destination.iter_mut().enumerate() {
            self.each(basis, limbs, |p, m, words| {
                for (at, word) in words.iter_mut().enumerate() {
                    let from = at / block * block + t;
                    let terms = left.iter().zip(right);
                    *word = terms.fold(W::default(), |sum, (l, r)| {
                        add(sum, l[p].words()[from].multiply_mod(r[p].words()[at], m), m)
                    });
                }
            })?;
        }
        Ok(())
    }
}

/// Entry `index` of a times s's component j, for row i of k: block i − j of a, or Y times block i − j + k.
fn mask<W: Word>(a: &[W], m: &Modulus, rows: usize, i: usize, j: usize, index: usize) -> W {
    if i >= j {
        return a[i - j + rows * index];
    }
    match index.checked_sub(1) {
        Some(previous) => a[i + rows - j + rows * previous],
        None => W::default()
            .wrapping_add(m.word::<W>())
            .wrapping_sub(a[i + rows - j + a.len() - rows])
            .reduce_once(m.word()),
    }
}

impl<W: Word, const CAP: usize> Trusted for Portable<'_, '_, W, CAP> {}
