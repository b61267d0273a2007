//! The seam between the evaluator and the machine.
//!
//! [`Accelerator`] is what the evaluator is written against. Its contract:
//!
//! - **Residency.** A limb (one residue polynomial, N words) lives in a buffer
//!   of the accelerator's own, taken from a fixed pool and returned when it is
//!   dropped. Host memory is touched only inside `read`, `write` and
//!   `write_signed`, never afterwards.
//! - **Shape.** A kernel works on a slice of limbs and the [`Basis`] that says
//!   which prime each belongs to; the lengths must agree. Sources and
//!   destinations are distinct limbs.
//! - **Ranges.** Every residue is canonical, in [0, q), before and after every
//!   kernel. Results are defined exactly, so all accelerators agree bit for bit.
//! - **Form.** Coefficient form is in natural order; evaluation form is in the
//!   bit-reversed order of [`crate::ring::NttTable`], with
//!   ψ = [`crate::ring::Modulus::primitive_root`]. The inverse transform divides by N.
//! - **Order.** Kernels take effect in the order they are called; only `read`
//!   and `sync` need wait. Independent work goes through `for_each`.
//! - **Errors.** Out of limbs, a wrong shape or a device's failure is an
//!   [`Error`]; limbs being written then hold unspecified canonical residues.
//! - **Secrets.** Only an accelerator that is also [`Trusted`] may be given
//!   secret limbs; types enforce it.
//!
//! The coarse kernels (`mod_up`, `inner_product`, `mod_down`, `mod_down_add`,
//! `key_switch`, `hoisted_sums`, `odd_power_sums`) are provided in terms of the fine ones. An
//! accelerator overrides them to fuse memory passes, and must keep the result.
//! P is the product of the special primes *in use*, the first k of the chain's:
//! k is what the limbs of the output say, from none to all of them.

pub mod conformance;
pub mod engine;
mod error;
mod key;
mod offload;
mod polynomial;
mod portable;
mod rows;
mod transform;
mod verify;

pub use error::{Error, ErrorKind};
pub use key::KeyRow;
use key::multiply_add_row;
pub use offload::{Offload, OffloadCounters, OffloadError};
pub use polynomial::{Coefficients, Evaluations, Form, Limbs, Polynomial};
pub use portable::Portable;
pub use rows::{RowSums, check_block, check_blocks, check_powers, check_rows};
pub use transform::{Factors, Step, check_repeat, check_sums};

use crate::ring::{Basis, MAX_LIMBS, ModulusChain, Word};

/// Most digits of a key switch.
pub const MAX_DIGITS: usize = 16;

/// Most baby steps of a transform.
pub const MAX_STEPS: usize = 256;

/// Executes kernels on sets of limbs. See the module's contract.
pub trait Accelerator: Sync + Sized {
    /// Word of a residue.
    type Word: Word;
    /// One residue polynomial in the accelerator's memory.
    type Limb: Send + Sync;

    /// The primes it was set up with.
    fn chain(&self) -> &ModulusChain;

    /// A limb with unspecified content.
    ///
    /// # Errors
    /// [`Error::OutOfLimbs`].
    fn allocate(&self) -> Result<Self::Limb, Error>;

    /// Limbs that can still be allocated.
    fn available(&self) -> usize;

    /// Runs `f` on every item with its index; items are independent and may
    /// run at the same time. Returns the first error by index.
    ///
    /// # Errors
    /// Whatever `f` returns.
    fn for_each<T: Send, E: Send>(
        &self,
        items: &mut [T],
        f: impl Fn(usize, &mut T) -> Result<(), E> + Sync,
    ) -> Result<(), E> {
        items.iter_mut().enumerate().try_for_each(|(i, item)| f(i, item))
    }

    /// Copies canonical words into a limb. `source` has N words.
    fn write(&self, limb: &mut Self::Limb, source: &[Self::Word]) -> Result<(), Error>;

    /// Copies a limb out. `destination` has N words.
    fn read(&self, limb: &Self::Limb, destination: &mut [Self::Word]) -> Result<(), Error>;

    /// Loads N signed integers, |x| < 2^62, reduced modulo every prime of `basis`.
    fn write_signed(&self, basis: Basis, limbs: &mut [Self::Limb], source: &[i64]) -> Result<(), Error>;

    /// Waits until everything called so far has taken effect.
    fn sync(&self) -> Result<(), Error> {
        Ok(())
    }

    /// destination = source.
    fn copy(&self, destination: &mut [Self::Limb], source: &[Self::Limb]) -> Result<(), Error>;

    /// All zero.
    fn clear(&self, limbs: &mut [Self::Limb]) -> Result<(), Error>;

    /// Coefficient form to evaluation form, in place.
    fn ntt_forward(&self, basis: Basis, x: &mut [Self::Limb]) -> Result<(), Error>;

    /// Evaluation form to coefficient form, in place.
    fn ntt_inverse(&self, basis: Basis, x: &mut [Self::Limb]) -> Result<(), Error>;

    /// The forward transform stopped when its blocks have `block` words, in
    /// place: word j·d + t, d = `block`, becomes Σ_z x\[t + d·z\]·ζ_j^z with
    /// ζ_j = ψ^(d·(2·brv(j) + 1)), brv over the bits of N/d. So it is coefficient t
    /// of x modulo X^d − ζ_j, and block j of the whole transform follows from block j alone.
    ///
    /// # Errors
    /// Those of [`check_block`], and the accelerator's.
    fn ntt_partial(&self, basis: Basis, x: &mut [Self::Limb], block: usize) -> Result<(), Error>;

    /// x = x + y.
    fn add_assign(&self, basis: Basis, x: &mut [Self::Limb], y: &[Self::Limb]) -> Result<(), Error>;

    /// x = x − y.
    fn sub_assign(&self, basis: Basis, x: &mut [Self::Limb], y: &[Self::Limb]) -> Result<(), Error>;

    /// x = −x.
    fn negate_assign(&self, basis: Basis, x: &mut [Self::Limb]) -> Result<(), Error>;

    /// x = x ⊙ y.
    fn multiply_assign(&self, basis: Basis, x: &mut [Self::Limb], y: &[Self::Limb]) -> Result<(), Error>;

    /// sum = sum + x ⊙ y.
    fn multiply_add(
        &self,
        basis: Basis,
        sum: &mut [Self::Limb],
        x: &[Self::Limb],
        y: &[Self::Limb],
    ) -> Result<(), Error>;

    /// x = s·x, one canonical scalar per limb.
    fn multiply_scalar_assign(&self, basis: Basis, x: &mut [Self::Limb], s: &[u64]) -> Result<(), Error>;

    /// sum = sum + s·x, one canonical scalar per limb.
    fn multiply_scalar_add(
        &self,
        basis: Basis,
        sum: &mut [Self::Limb],
        x: &[Self::Limb],
        s: &[u64],
    ) -> Result<(), Error>;

    /// sum = sum + Σ_k s_k·x_k for terms (x_k, s_k): [`Accelerator::multiply_scalar_add`] of each, which can be one
    /// pass over the sum.
    fn multiply_scalars_add(
        &self,
        basis: Basis,
        sum: &mut [Self::Limb],
        terms: &[(&[Self::Limb], &[u64])],
    ) -> Result<(), Error> {
        terms.iter().try_for_each(|(x, s)| self.multiply_scalar_add(basis, sum, x, s))
    }

    /// x = x + s in every entry, one canonical scalar per limb. In evaluation
    /// form this adds the constant polynomial s.
    fn add_scalar_assign(&self, basis: Basis, x: &mut [Self::Limb], s: &[u64]) -> Result<(), Error>;

    /// X → X^galois on evaluation form, `galois` odd, below 2N.
    fn automorphism(
        &self,
        basis: Basis,
        destination: &mut [Self::Limb],
        source: &[Self::Limb],
        galois: usize,
    ) -> Result<(), Error>;

    /// sum = sum + the image of `source` under X → X^galois, as
    /// [`Accelerator::automorphism`].
    fn automorphism_add(
        &self,
        basis: Basis,
        sum: &mut [Self::Limb],
        source: &[Self::Limb],
        galois: usize,
    ) -> Result<(), Error> {
        let mut image: Limbs<Self> = polynomial::allocate_limbs(self, source.len())?;
        self.automorphism(basis, &mut image, source, galois)?;
        self.add_assign(basis, sum, &image)
    }

    /// destination\[i\] = source\[offset + ⌊i/repeat⌋\]: every word of a run
    /// `repeat` times. `repeat` is a power of two from 1 to N/8, and
    /// offset + N/repeat ≤ N ([`check_repeat`]).
    fn repeat(
        &self,
        destination: &mut Self::Limb,
        source: &Self::Limb,
        offset: usize,
        repeat: usize,
    ) -> Result<(), Error>;

    /// Centred basis conversion of coefficient form ([`crate::ring::Converter`]).
    /// The bases share no prime.
    fn convert(
        &self,
        from: Basis,
        source: &[Self::Limb],
        to: Basis,
        destination: &mut [Self::Limb],
    ) -> Result<(), Error>;

    /// A matrix of small integers times rows that are packed `rows` = k to a
    /// ciphertext, all in coefficient form. Row i of the pair (b, a) is the sample
    /// b_i(Y), (a_{i,j}(Y))_j of a module of rank k over Z_q\[Y\], Y = X^k: with
    /// b = Σ_i X^i·b_i(Y) and a likewise, a_{i,j} = a_{i−j}, times Y where i < j
    /// and the index wraps. Output row o is Σ_r weights\[o·inputs + r\]·(row r), exactly;
    /// output rows leave k to a [`RowSums`]. `weights` is row-major, k·`x.len()`
    /// to a row.
    ///
    /// # Errors
    /// Those of [`check_rows`], and the accelerator's.
    fn row_products(
        &self,
        basis: Basis,
        rows: usize,
        weights: &[i16],
        x: &[[&[Self::Limb]; 2]],
        sums: &mut [RowSums<'_, Self::Limb>],
    ) -> Result<(), Error>;

    /// Lᵀ·R in every block of d = `block` words: word j·d + u of
    /// destination\[t\] is Σ_f left\[f\]\[j·d + t\]·right\[f\]\[j·d + u\], for t and u
    /// below d.
    ///
    /// # Errors
    /// Those of [`check_blocks`], and the accelerator's.
    fn block_products(
        &self,
        basis: Basis,
        block: usize,
        left: &[&[Self::Limb]],
        right: &[&[Self::Limb]],
        destination: &mut [&mut [Self::Limb]],
    ) -> Result<(), Error>;

    /// sums\[a\] = Σ_i x^(i·(2a + 1)) ⊙ rows\[i\]: polynomials with these coefficients, word by word, at the odd
    /// powers of x.
    ///
    /// # Errors
    /// Those of [`check_powers`], and the accelerator's.
    fn odd_power_sums(
        &self,
        basis: Basis,
        x: &[Self::Limb],
        rows: &[&[Self::Limb]],
        sums: &mut [&mut [Self::Limb]],
    ) -> Result<(), Error> {
        rows::odd_power_sums(self, basis, x, rows, sums)
    }

    /// The product of two degree-one pairs without relinearisation:
    /// d = (x0·y0, x0·y1 + x1·y0, x1·y1).
    fn tensor(
        &self,
        basis: Basis,
        d: [&mut [Self::Limb]; 3],
        x: [&[Self::Limb]; 2],
        y: [&[Self::Limb]; 2],
    ) -> Result<(), Error> {
        let [d0, d1, d2] = d;
        self.copy(d0, x[0])?;
        self.multiply_assign(basis, d0, y[0])?;
        self.copy(d1, x[0])?;
        self.multiply_assign(basis, d1, y[1])?;
        self.multiply_add(basis, d1, x[1], y[0])?;
        self.copy(d2, x[1])?;
        self.multiply_assign(basis, d2, y[1])
    }

    /// d = d + Σ_k x_k ⊗ y_k for terms \[x_k, y_k\], products as [`Accelerator::tensor`] makes them.
    fn tensor_add(
        &self,
        basis: Basis,
        d: [&mut [Self::Limb]; 3],
        terms: &[[[&[Self::Limb]; 2]; 2]],
    ) -> Result<(), Error> {
        let [d0, d1, d2] = d;
        for [x, y] in terms {
            self.multiply_add(basis, d0, x[0], y[0])?;
            self.multiply_add(basis, d1, x[0], y[1])?;
            self.multiply_add(basis, d1, x[1], y[0])?;
            self.multiply_add(basis, d2, x[1], y[1])?;
        }
        Ok(())
    }

    /// Raises one digit of `x` (evaluation form over Q_level, given by
    /// `level`) to Q_level ∪ P: `out` in evaluation form, `level.len()` +
    /// special limbs. `digit` is a run inside `level`; `coefficients` are the
    /// digit's limbs of `x` in coefficient form.
    fn mod_up(
        &self,
        level: Basis,
        digit: Basis,
        x: &[Self::Limb],
        coefficients: &[Self::Limb],
        out: &mut [Self::Limb],
    ) -> Result<(), Error> {
        let (first, end) = (digit.start(), digit.start() + digit.len());
        let special = out.len().saturating_sub(level.len());
        check(level.len(), x.len())?;
        check(digit.len(), coefficients.len())?;
        if end > level.len() {
            return Err(Error::Shape { have: level.len(), need: end });
        }
        if out.len() < level.len() {
            return Err(Error::Shape { have: out.len(), need: level.len() });
        }
        let (head, tail) = out.split_at_mut(end);
        let (head, own) = head.split_at_mut(first);
        self.copy(own, &x[first..end])?;
        for (basis, part) in
            [(Basis::new(0, first, 0), head), (Basis::new(end, level.len() - end, special), tail)]
        {
            if !basis.is_empty() {
                self.convert(digit, coefficients, basis, part)?;
                self.ntt_forward(basis, part)?;
            }
        }
        Ok(())
    }

    /// sums\[h\] = Σ_d digits\[d\] ⊙ key\[h\]\[d\] for both halves h of a key, over
    /// `level` ∪ P, evaluation form.
    fn inner_product(
        &self,
        level: Basis,
        sums: [&mut [Self::Limb]; 2],
        digits: &[&[Self::Limb]],
        key: [&[KeyRow<'_, Self::Limb>]; 2],
    ) -> Result<(), Error> {
        for (sum, half) in sums.into_iter().zip(key) {
            check(digits.len(), half.len())?;
            self.clear(sum)?;
            for (digit, row) in digits.iter().zip(half) {
                multiply_add_row(self, level, sum, digit, row)?;
            }
        }
        Ok(())
    }

    /// Divides by the primes of `drop` with rounding: x over `keep` then
    /// `drop`, evaluation form; afterwards x\[..keep.len()\] holds the quotient
    /// and the rest is unspecified. `keep` then `drop` must be a run of
    /// ordinary primes from q_0, then special ones. Rescaling drops q_l,
    /// leaving key switching drops P, doing both at once drops q_l and P.
    fn mod_down(&self, keep: Basis, drop: Basis, x: &mut [Self::Limb]) -> Result<(), Error> {
        check(keep.len() + drop.len(), x.len())?;
        let chain = self.chain();
        let (kept, dropped) = x.split_at_mut(keep.len());
        self.ntt_inverse(drop, dropped)?;
        let mut rounded: Limbs<Self> = polynomial::allocate_limbs(self, keep.len())?;
        self.convert(drop, dropped, keep, &mut rounded)?;
        self.ntt_forward(keep, &mut rounded)?;
        self.sub_assign(keep, kept, &rounded)?;
        let inverses: heapless::Vec<u64, MAX_LIMBS> =
            chain.of(keep).map(|m| m.inverse(chain.product_mod(drop, m))).collect();
        self.multiply_scalar_assign(keep, kept, &inverses)
    }

    /// [`Accelerator::mod_down`] of x + P·addend: what ends a key switch whose
    /// result is added to something. `addend` is over all ordinary primes of
    /// `keep` and `drop`, evaluation form.
    fn mod_down_add(
        &self,
        keep: Basis,
        drop: Basis,
        x: &mut [Self::Limb],
        addend: &[Self::Limb],
    ) -> Result<(), Error> {
        let level = Basis::new(0, keep.len() + drop.ordinary(), 0);
        check(level.len(), addend.len())?;
        check(level.len() + drop.special(), x.len())?;
        let (chain, special) = (self.chain(), Basis::new(0, 0, drop.special()));
        if !level.with_special(drop.special()).fits(chain) {
            return Err(Error::Shape { have: chain.moduli().len(), need: x.len() });
        }
        let p: heapless::Vec<u64, MAX_LIMBS> =
            chain.of(level).map(|m| chain.product_mod(special, m)).collect();
        self.multiply_scalar_add(level, &mut x[..addend.len()], addend, &p)?;
        self.mod_down(keep, drop, x)
    }

    /// Key switch without the division by P: both sums over Q_level ∪ P,
    /// evaluation form. `x` is over `level`, `digit_size` ordinary primes to a
    /// digit, `key` the two halves of every digit, trimmed to the level.
    fn key_switch(
        &self,
        level: Basis,
        digit_size: usize,
        x: &[Self::Limb],
        key: [&[KeyRow<'_, Self::Limb>]; 2],
        sums: [&mut [Self::Limb]; 2],
    ) -> Result<(), Error> {
        let [sum0, sum1] = sums;
        check(level.len(), x.len())?;
        self.clear(sum0)?;
        self.clear(sum1)?;
        let mut raised: Limbs<Self> = polynomial::allocate_limbs(self, sum0.len())?;
        for (d, digit) in digits(level, digit_size).enumerate() {
            let mut coefficients: Limbs<Self> = polynomial::allocate_limbs(self, digit.len())?;
            self.copy(&mut coefficients, &x[digit.start()..digit.start() + digit.len()])?;
            self.ntt_inverse(digit, &mut coefficients)?;
            self.mod_up(level, digit, x, &coefficients, &mut raised)?;
            let [Some(row0), Some(row1)] = key.map(|half| half.get(d)) else {
                return Err(Error::Shape { have: key[0].len(), need: d + 1 });
            };
            multiply_add_row(self, level, sum0, &raised, row0)?;
            multiply_add_row(self, level, sum1, &raised, row1)?;
        }
        Ok(())
    }

    /// The inner part of a baby-step giant-step transform, exact modulo every
    /// prime of `level` ∪ P: sums\[g\]\[h\] = Σ_b factor_{g·B+b} ⊙ r_b\[h\] for B ≤
    /// [`MAX_STEPS`] steps, with r_b\[h\] the step's image of P·x over Q_level ∪ P,
    /// σ_b(Σ_d digits\[d\] ⊙ key_b\[h\]\[d\] + (h = 0 ? P·x\[0\] : 0)), or P·x\[h\]
    /// for the identity. P·x is zero modulo the special primes. `x` is over
    /// `level`, `digits` and the sums over `level` ∪ P, all in evaluation form.
    ///
    /// # Errors
    /// Those of [`check_sums`], and the accelerator's.
    fn hoisted_sums(
        &self,
        level: Basis,
        x: [&[Self::Limb]; 2],
        digits: &[&[Self::Limb]],
        steps: &[Step<'_, Self::Limb>],
        factors: &Factors<'_, Self::Limb>,
        sums: &mut [[&mut [Self::Limb]; 2]],
    ) -> Result<(), Error> {
        transform::hoisted_sums(self, level, x, digits, steps, factors, sums)
    }
}

/// An accelerator whose memory is this process's own and whose kernels run in
/// constant time: it may be given secrets. Never implemented for a device.
pub trait Trusted: Accelerator {}

/// The digits of `level`: runs of `digit_size` primes, the last one shorter.
pub fn digits(level: Basis, digit_size: usize) -> impl Iterator<Item = Basis> + Clone {
    let size = digit_size.max(1);
    (0..level.len().div_ceil(size)).map(move |d| Basis::new(d * size, size.min(level.len() - d * size), 0))
}

/// `Ok` when a count is as expected.
pub(crate) fn check(need: usize, have: usize) -> Result<(), Error> {
    if need == have { Ok(()) } else { Err(Error::Shape { have, need }) }
}
