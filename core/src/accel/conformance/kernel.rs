//! One program per kernel of the seam.

mod matrix;

use super::super::{Accelerator, Error, Factors, KeyRow, Limbs, MAX_DIGITS, Step, check, digits};
use crate::ring::{Basis, MAX_SOURCES, Modulus, Word};

/// What a program hands back.
pub type Outputs<A> = heapless::Vec<<A as Accelerator>::Limb, 192>;

/// What the inputs look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Fill {
    /// Uniform.
    Random,
    /// q − 1 everywhere.
    Top,
    /// A random mixture of 0, 1, q/2 and q − 1.
    Edges,
}

impl Fill {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Random, Self::Top, Self::Edges];
}

/// A kernel of the seam, as a program from a seed to limbs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[expect(missing_docs, reason = "each is the method of that name")]
pub enum Kernel {
    WriteSigned,
    Copy,
    Clear,
    NttForward,
    NttInverse,
    AddAssign,
    SubAssign,
    NegateAssign,
    MultiplyAssign,
    MultiplyAdd,
    MultiplyScalarAssign,
    MultiplyScalarAdd,
    MultiplyScalarsAdd,
    AddScalarAssign,
    Automorphism,
    AutomorphismAdd,
    Repeat,
    Convert,
    Tensor,
    TensorAdd,
    ModUp,
    InnerProduct,
    ModDown,
    ModDownAdd,
    KeySwitch,
    HoistedSums,
    NttPartial,
    RowProducts,
    BlockProducts,
    OddPowerSums,
}

impl Kernel {
    /// All of them.
    pub const ALL: [Self; 30] = [
        Self::WriteSigned,
        Self::Copy,
        Self::Clear,
        Self::NttForward,
        Self::NttInverse,
        Self::AddAssign,
        Self::SubAssign,
        Self::NegateAssign,
        Self::MultiplyAssign,
        Self::MultiplyAdd,
        Self::MultiplyScalarAssign,
        Self::MultiplyScalarAdd,
        Self::MultiplyScalarsAdd,
        Self::AddScalarAssign,
        Self::Automorphism,
        Self::AutomorphismAdd,
        Self::Repeat,
        Self::Convert,
        Self::Tensor,
        Self::TensorAdd,
        Self::ModUp,
        Self::InnerProduct,
        Self::ModDown,
        Self::ModDownAdd,
        Self::KeySwitch,
        Self::HoistedSums,
        Self::NttPartial,
        Self::RowProducts,
        Self::BlockProducts,
        Self::OddPowerSums,
    ];

    /// Whether the kernel is defined over a basis of this shape.
    #[must_use]
    pub fn applies(self, basis: Basis) -> bool {
        let from_zero = basis.start() == 0 && basis.ordinary() > 0;
        match self {
            Self::ModUp | Self::InnerProduct | Self::KeySwitch | Self::HoistedSums => {
                from_zero && basis.special() > 0
            }
            Self::ModDown | Self::ModDownAdd => from_zero && basis.len() > 1,
            Self::Convert => basis.len() > 1,
            _ => true,
        }
    }
}

/// SplitMix64's finaliser (Steele, Lea, Flood, OOPSLA 2014).
const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// Entry `index` of the input `name` modulo q: mix(mix(seed + STEP·(name + 1)) ⊕ q + STEP·(index + 1))
/// scaled to [0, q).
fn draw(seed: u64, name: u64, q: u64, index: usize) -> u64 {
    let stream = mix(seed.wrapping_add(STEP.wrapping_mul(name + 1))) ^ q;
    mix(stream.wrapping_add(STEP.wrapping_mul(index as u64 + 1)))
}

fn residue(fill: Fill, draw: u64, q: u64) -> u64 {
    match fill {
        Fill::Random => ((draw as u128 * q as u128) >> 64) as u64,
        Fill::Top => q - 1,
        Fill::Edges => [0, 1, q / 2, q - 1][(draw % 4) as usize],
    }
}

/// Runs programs on one accelerator.
pub struct Bench<'b, A: Accelerator> {
    accelerator: &'b A,
    row: &'b mut [A::Word],
    signed: &'b mut [i64],
    fill: Fill,
    seed: u64,
}

impl<'b, A: Accelerator> Bench<'b, A> {
    /// `row` and `signed` hold N entries.
    pub fn new(
        accelerator: &'b A,
        row: &'b mut [A::Word],
        signed: &'b mut [i64],
        fill: Fill,
        seed: u64,
    ) -> Self {
        Self { accelerator, row, signed, fill, seed }
    }

    /// The input `name` over `basis`.
    ///
    /// # Errors
    /// [`Error::OutOfLimbs`].
    pub fn polynomial(&mut self, basis: Basis, name: u64) -> Result<Limbs<A>, Error> {
        let mut limbs = Limbs::<A>::new();
        for m in self.accelerator.chain().of(basis) {
            let limb = self.limb(m, name)?;
            limbs.push(limb).map_err(|_| Error::Shape { have: limbs.len(), need: basis.len() })?;
        }
        Ok(limbs)
    }

    /// The input `name` modulo one prime.
    fn limb(&mut self, m: &Modulus, name: u64) -> Result<A::Limb, Error> {
        let q = m.value();
        for (i, word) in self.row.iter_mut().enumerate() {
            *word = A::Word::from_u64(residue(self.fill, draw(self.seed, name, q, i), q));
        }
        let mut limb = self.accelerator.allocate()?;
        self.accelerator.write(&mut limb, self.row)?;
        Ok(limb)
    }

    fn scalars(&self, basis: Basis, name: u64) -> heapless::Vec<u64, { crate::ring::MAX_LIMBS }> {
        let scalar = |m: &Modulus| residue(self.fill, draw(self.seed, name, m.value(), 0), m.value());
        self.accelerator.chain().of(basis).map(scalar).collect()
    }

    /// Signed integers up to 2^61, with both ends of the range among them.
    fn integers(&mut self) {
        for (i, x) in self.signed.iter_mut().enumerate() {
            let word = draw(self.seed, 0, 0, i);
            *x = match (self.fill, i % 8) {
                (Fill::Top, _) => (1 << 62) - 1,
                (Fill::Edges, 0) => -((1 << 62) - 1),
                (Fill::Edges, 1) => (1 << 62) - 1,
                (Fill::Edges, 2) => 0,
                (Fill::Edges, 3) => -1,
                _ => word as i64 >> 2,
            };
        }
    }

    /// Runs `kernel` over `basis`, with `digit_size` primes to a digit where there are digits.
    ///
    /// # Errors
    /// The accelerator's.
    pub fn run(&mut self, kernel: Kernel, basis: Basis, digit_size: usize) -> Result<Outputs<A>, Error> {
        let a = self.accelerator;
        let mut outputs = Outputs::<A>::new();
        let mut x = self.polynomial(basis, 0)?;
        match kernel {
            Kernel::WriteSigned => {
                self.integers();
                a.write_signed(basis, &mut x, self.signed)?;
            }
            Kernel::Copy => {
                let y = self.polynomial(basis, 1)?;
                a.copy(&mut x, &y)?;
                give(&mut outputs, y)?;
            }
            Kernel::Clear => a.clear(&mut x)?,
            Kernel::NttForward => a.ntt_forward(basis, &mut x)?,
            Kernel::NttInverse => a.ntt_inverse(basis, &mut x)?,
            Kernel::AddAssign => a.add_assign(basis, &mut x, &self.polynomial(basis, 1)?)?,
            Kernel::SubAssign => a.sub_assign(basis, &mut x, &self.polynomial(basis, 1)?)?,
            Kernel::NegateAssign => a.negate_assign(basis, &mut x)?,
            Kernel::MultiplyAssign => a.multiply_assign(basis, &mut x, &self.polynomial(basis, 1)?)?,
            Kernel::MultiplyAdd => {
                let (y, z) = (self.polynomial(basis, 1)?, self.polynomial(basis, 2)?);
                a.multiply_add(basis, &mut x, &y, &z)?;
            }
            Kernel::MultiplyScalarAssign => {
                a.multiply_scalar_assign(basis, &mut x, &self.scalars(basis, 1))?
            }
            Kernel::MultiplyScalarAdd => {
                let (y, s) = (self.polynomial(basis, 1)?, self.scalars(basis, 2));
                a.multiply_scalar_add(basis, &mut x, &y, &s)?;
            }
            Kernel::MultiplyScalarsAdd => {
                // One more than a kernel may sum before it reduces, of two polynomials by turns.
                let (y, z) = (self.polynomial(basis, 1)?, self.polynomial(basis, 2)?);
                let scalars: [_; 17] = core::array::from_fn(|k| self.scalars(basis, 3 + k as u64));
                let terms: [_; 17] = core::array::from_fn(|k| (&[&y, &z][k % 2][..], &scalars[k][..]));
                a.multiply_scalars_add(basis, &mut x, &terms)?;
            }
            Kernel::AddScalarAssign => a.add_scalar_assign(basis, &mut x, &self.scalars(basis, 1))?,
            Kernel::Automorphism => {
                let degree = a.chain().degree();
                for galois in [5, 2 * degree - 1] {
                    let mut y = self.polynomial(basis, 1)?;
                    a.automorphism(basis, &mut y, &x, galois)?;
                    give(&mut outputs, y)?;
                }
                let mut y = self.polynomial(basis, 1)?;
                a.automorphism(basis, &mut y, &x, degree + 3)?;
                x = y;
            }
            Kernel::AutomorphismAdd => {
                let (y, degree) = (self.polynomial(basis, 1)?, a.chain().degree());
                for galois in [5, 2 * degree - 1, degree + 3] {
                    a.automorphism_add(basis, &mut x, &y, galois)?;
                }
            }
            Kernel::Repeat => {
                let n = a.chain().degree();
                for (offset, repeat) in [(0, 1), (n / 2 - 3, 2), (n - 8, n / 8)] {
                    let mut y = self.polynomial(basis, 1)?;
                    for (y, x) in y.iter_mut().zip(&x) {
                        a.repeat(y, x, offset, repeat)?;
                    }
                    give(&mut outputs, y)?;
                }
                return Ok(outputs);
            }
            Kernel::Convert => return self.convert(basis),
            Kernel::Tensor | Kernel::TensorAdd => {
                let (x1, y0, y1) =
                    (self.polynomial(basis, 1)?, self.polynomial(basis, 2)?, self.polynomial(basis, 3)?);
                let mut d =
                    [self.polynomial(basis, 4)?, self.polynomial(basis, 5)?, self.polynomial(basis, 6)?];
                let [d0, d1, d2] = &mut d;
                let [x, y]: [[&[A::Limb]; 2]; 2] = [[&x, &x1], [&y0, &y1]];
                if kernel == Kernel::Tensor {
                    a.tensor(basis, [d0, d1, d2], x, y)?;
                } else {
                    // One more than a kernel may sum before it reduces.
                    let terms: [_; 9] = core::array::from_fn(|k| [[x, y], [y, y], [x, x]][k % 3]);
                    a.tensor_add(basis, [d0, d1, d2], &terms)?;
                }
                for d in d {
                    give(&mut outputs, d)?;
                }
                return Ok(outputs);
            }
            Kernel::ModUp => return self.mod_up(basis, x, digit_size),
            Kernel::ModDown => return self.mod_down(basis, false),
            Kernel::ModDownAdd => return self.mod_down(basis, true),
            Kernel::HoistedSums => return self.hoisted_sums(basis, x, digit_size),
            Kernel::NttPartial => a.ntt_partial(basis, &mut x, self.block(basis))?,
            Kernel::RowProducts => return self.row_products(basis),
            Kernel::BlockProducts => return self.block_products(basis),
            Kernel::OddPowerSums => return self.odd_power_sums(basis, &x),
            Kernel::InnerProduct | Kernel::KeySwitch => {
                return self.key_switch(kernel, basis, &x, digit_size);
            }
        }
        give(&mut outputs, x)?;
        Ok(outputs)
    }

    /// From the first half, from the last ordinary prime and from the special ones to all others.
    fn convert(&mut self, basis: Basis) -> Result<Outputs<A>, Error> {
        let (start, ordinary, special) = (basis.start(), basis.ordinary(), basis.special());
        let half = ordinary.div_ceil(2).min(MAX_SOURCES);
        let mut outputs = Outputs::<A>::new();
        for (from, to) in [
            (Basis::new(start, half, 0), Basis::new(start + half, ordinary - half, special)),
            (Basis::new(start, ordinary.min(MAX_SOURCES), 0), Basis::new(0, 0, special)),
            (
                Basis::new(start + ordinary.saturating_sub(1), 1, 0),
                Basis::new(start, ordinary.saturating_sub(1), 0),
            ),
            (Basis::new(0, 0, special), Basis::new(start, ordinary, 0)),
        ] {
            if from.is_empty() || to.is_empty() || ordinary == 0 {
                continue;
            }
            let (x, mut y) = (self.polynomial(from, 0)?, self.polynomial(to, 1)?);
            self.accelerator.convert(from, &x, to, &mut y)?;
            give(&mut outputs, y)?;
        }
        Ok(outputs)
    }

    fn mod_up(&mut self, basis: Basis, x: Limbs<A>, digit_size: usize) -> Result<Outputs<A>, Error> {
        let mut outputs = Outputs::<A>::new();
        let level = Basis::level(basis.ordinary() - 1);
        for digit in digits(level, digit_size) {
            let range = digit.start()..digit.start() + digit.len();
            let mut coefficients = self.polynomial(digit, 1)?;
            self.accelerator.copy(&mut coefficients, &x[range])?;
            self.accelerator.ntt_inverse(digit, &mut coefficients)?;
            let mut out = self.polynomial(basis, 2)?;
            self.accelerator.mod_up(level, digit, &x[..level.len()], &coefficients, &mut out)?;
            give(&mut outputs, out)?;
        }
        Ok(outputs)
    }

    /// Drops P, the last ordinary prime, and both.
    fn mod_down(&mut self, basis: Basis, add: bool) -> Result<Outputs<A>, Error> {
        let mut outputs = Outputs::<A>::new();
        let (ordinary, special) = (basis.ordinary(), basis.special());
        for (kept, special) in [(ordinary, special), (ordinary - 1, 0), (ordinary - 1, special)] {
            let drop = Basis::new(kept, ordinary - kept, special);
            if kept == 0 || drop.is_empty() || drop.len() > MAX_SOURCES {
                continue;
            }
            let mut x = self.polynomial(Basis::new(0, ordinary, special), 0)?;
            if add {
                let addend = self.polynomial(Basis::level(ordinary - 1), 1)?;
                self.accelerator.mod_down_add(Basis::level(kept - 1), drop, &mut x, &addend)?;
            } else {
                self.accelerator.mod_down(Basis::level(kept - 1), drop, &mut x)?;
            }
            x.truncate(kept);
            give(&mut outputs, x)?;
        }
        Ok(outputs)
    }

    /// The inputs `name`, `name` + 1, … over `basis`.
    fn polynomials(
        &mut self,
        basis: Basis,
        name: u64,
        count: usize,
    ) -> Result<heapless::Vec<Limbs<A>, MAX_DIGITS>, Error> {
        let mut all = heapless::Vec::new();
        for d in 0..count as u64 {
            check_room(all.push(self.polynomial(basis, name + d)?))?;
        }
        Ok(all)
    }

    fn key_switch(
        &mut self,
        kernel: Kernel,
        basis: Basis,
        x: &Limbs<A>,
        digit_size: usize,
    ) -> Result<Outputs<A>, Error> {
        let level = Basis::level(basis.ordinary() - 1);
        let count = digits(level, digit_size).count();
        let halves = [self.polynomials(basis, 10, count)?, self.polynomials(basis, 40, count)?];
        let rows = halves.each_ref().map(|half| rows(level, half));
        let (mut sum0, mut sum1) = (self.polynomial(basis, 2)?, self.polynomial(basis, 3)?);
        let (key, sums): ([&[_]; 2], [&mut [_]; 2]) = ([&rows[0], &rows[1]], [&mut sum0, &mut sum1]);
        if kernel == Kernel::KeySwitch {
            self.accelerator.key_switch(level, digit_size, &x[..level.len()], key, sums)?;
        } else {
            let raised = self.polynomials(basis, 70, count)?;
            self.accelerator.inner_product(level, sums, &slices(&raised), key)?;
        }
        let mut outputs = Outputs::<A>::new();
        give(&mut outputs, sum0)?;
        give(&mut outputs, sum1)?;
        Ok(outputs)
    }

    /// Two sums of a switched step, the identity, and a step switched with the halves exchanged, by factors whose
    /// words repeat 2^((seed + 3·primes) mod (log2 N − 2)) times.
    fn hoisted_sums(&mut self, basis: Basis, x0: Limbs<A>, digit_size: usize) -> Result<Outputs<A>, Error> {
        const SUMS: usize = 2;
        let chain = self.accelerator.chain();
        let level = Basis::level(basis.ordinary() - 1);
        let count = digits(level, digit_size).count();
        let halves = [self.polynomials(basis, 10, count)?, self.polynomials(basis, 40, count)?];
        let raised = self.polynomials(basis, 70, count)?;
        let [row0, row1] = halves.each_ref().map(|half| rows(level, half));
        let steps = [
            Step { galois: 5, key: Some([&row0, &row1]) },
            Step { galois: 1, key: None },
            Step { galois: 2 * chain.degree() - 1, key: Some([&row1, &row0]) },
        ];
        let exponent = (self.seed + 3 * basis.len() as u64) % u64::from(chain.log_degree() - 2);
        let mut limbs = Outputs::<A>::new();
        let factors = Factors { repeat: 1 << exponent, count: SUMS * steps.len(), limbs: &[] as &[A::Limb] };
        for m in chain.of(basis) {
            for j in 0..factors.limbs_per_prime() as u64 {
                check_room(limbs.push(self.limb(m, 100 + j)?))?;
            }
        }
        let factors = Factors { limbs: &limbs, ..factors };
        let x1 = self.polynomial(level, 1)?;
        let mut sums = self.polynomials(basis, 2, 2 * SUMS)?;
        let mut pairs: heapless::Vec<[&mut [A::Limb]; 2], SUMS> = heapless::Vec::new();
        for [sum0, sum1] in sums.as_chunks_mut::<2>().0 {
            check_room(pairs.push([sum0, sum1]))?;
        }
        let x: [&[A::Limb]; 2] = [&x0[..level.len()], &x1];
        self.accelerator.hoisted_sums(level, x, &slices(&raised), &steps, &factors, &mut pairs)?;
        drop(pairs);
        let mut outputs = Outputs::<A>::new();
        sums.into_iter().try_for_each(|sum| give(&mut outputs, sum))?;
        Ok(outputs)
    }
}

/// One half of a key, its limbs over `level` and the special primes in use.
fn rows<L, const N: usize>(
    level: Basis,
    half: &[heapless::Vec<L, N>],
) -> heapless::Vec<KeyRow<'_, L>, MAX_DIGITS> {
    let split = half.iter().map(|limbs| limbs.split_at(level.len()));
    split.map(|(ordinary, special)| KeyRow { ordinary, special }).collect()
}

fn slices<L, const N: usize>(polynomials: &[heapless::Vec<L, N>]) -> heapless::Vec<&[L], MAX_DIGITS> {
    polynomials.iter().map(|limbs| limbs.as_slice()).collect()
}

fn give<L, const N: usize, const M: usize>(
    outputs: &mut heapless::Vec<L, N>,
    limbs: heapless::Vec<L, M>,
) -> Result<(), Error> {
    limbs.into_iter().try_for_each(|limb| check_room(outputs.push(limb)))
}

fn check_room<T>(pushed: Result<(), T>) -> Result<(), Error> {
    pushed.or_else(|_| check(1, 0))
}
