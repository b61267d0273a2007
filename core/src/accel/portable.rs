//! The reference accelerator: plain Rust, one thread, a caller's memory.

use super::{Accelerator, Error, Trusted, check, check_repeat};
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
}

impl<W: Word, const CAP: usize> Trusted for Portable<'_, '_, W, CAP> {}
