//! Slots that are ciphertexts.

use super::SlotArithmetic;
use crate::accel::{Accelerator, Evaluations, Polynomial};
use crate::ckks::encoding::Encoder;
use crate::ckks::server::bootstrap::Bootstrap;
use crate::ckks::server::{BabyGiant, DiagonalSource, Evaluator, FactorScratch, Turns};
use crate::ckks::{Ciphertext, Error, KeySource, Plaintext};
use crate::ring::Basis;

/// Memory for encoding known vectors.
pub struct Scratch<'a> {
    values: &'a mut [f64],
    work: &'a mut [f64],
    coefficients: &'a mut [i64],
}

impl<'a> Scratch<'a> {
    /// (f64 words, i64 words) for degree N: 3N/2 and N.
    pub const fn words_needed(degree: usize) -> (usize, usize) {
        (degree + degree / 2, degree)
    }

    /// Over the caller's memory.
    ///
    /// # Errors
    /// [`Error::Length`] when a slice is shorter than [`Scratch::words_needed`].
    pub fn new(degree: usize, reals: &'a mut [f64], coefficients: &'a mut [i64]) -> Result<Self, Error> {
        let (need, need_integers) = Self::words_needed(degree);
        let have = reals.len();
        let (values, rest) = reals.split_at_mut_checked(degree / 2).ok_or(Error::Length { have, need })?;
        let work = rest.get_mut(..degree).ok_or(Error::Length { have, need })?;
        let have = coefficients.len();
        let coefficients =
            coefficients.get_mut(..degree).ok_or(Error::Length { have, need: need_integers })?;
        Ok(Self { values, work, coefficients })
    }
}

/// Executes slot arithmetic with an [`Evaluator`].
pub struct EncryptedSlots<'a, A: Accelerator, K: KeySource<A> + ?Sized> {
    evaluator: Evaluator<'a, A, K>,
    encoder: &'a Encoder<'a>,
    scratch: Scratch<'a>,
    bootstrap: Option<Bootstrap<'a, A, K>>,
}

impl<'a, A: Accelerator, K: KeySource<A> + ?Sized> EncryptedSlots<'a, A, K> {
    /// Over an evaluator, an encoder of the same degree, and scratch memory.
    pub fn new(evaluator: Evaluator<'a, A, K>, encoder: &'a Encoder<'a>, scratch: Scratch<'a>) -> Self {
        Self { evaluator, encoder, scratch, bootstrap: None }
    }

    /// Vectors can be refreshed from now on.
    pub fn with_bootstrap(self, bootstrap: Bootstrap<'a, A, K>) -> Self {
        Self { bootstrap: Some(bootstrap), ..self }
    }

    /// The evaluator.
    pub fn evaluator(&self) -> &Evaluator<'a, A, K> {
        &self.evaluator
    }

    /// The factors of a matrix for vectors at a level: [`Turns::prepare`]. Each of `words` has N entries.
    ///
    /// # Errors
    /// As there.
    pub fn prepare_turns(
        &mut self,
        (turns, level): (&Turns, usize),
        entry: &dyn Fn(usize, usize) -> f64,
        words: [&mut [A::Word]; 2],
        limbs: &mut [A::Limb],
    ) -> Result<(), Error> {
        let of = (self.evaluator.accelerator(), self.evaluator.parameters(), level);
        let Scratch { work, coefficients, .. } = &mut self.scratch;
        let mut scratch = FactorScratch { values: work, coefficients, words };
        turns.prepare(of, self.encoder, entry, &mut scratch, limbs)
    }

    fn fill(&mut self, known: &dyn Fn(usize) -> f64) {
        for (slot, value) in self.scratch.values.iter_mut().enumerate() {
            *value = known(slot);
        }
    }
}

/// Encodes `scratch.values` over `basis` at `scale`.
fn encode<A: Accelerator>(
    accelerator: &A,
    encoder: &Encoder<'_>,
    scratch: &mut Scratch<'_>,
    basis: Basis,
    scale: f64,
) -> Result<Plaintext<A>, Error> {
    encoder.encode_real(scratch.values, scale, scratch.work, scratch.coefficients)?;
    let polynomial = Polynomial::from_signed(accelerator, basis, scratch.coefficients)?;
    let polynomial: Polynomial<A, Evaluations> = polynomial.into_evaluations(accelerator)?;
    Ok(Plaintext::from_polynomial(polynomial))
}

/// Encodes the diagonals of a transform when they are needed.
struct Diagonals<'d, 's, A: Accelerator> {
    accelerator: &'d A,
    encoder: &'d Encoder<'d>,
    scratch: &'d mut Scratch<'s>,
    special: usize,
    scale: f64,
    fill: &'d (dyn Fn(usize, usize, &mut [f64]) -> bool + Sync),
}

impl<A: Accelerator> DiagonalSource<A> for Diagonals<'_, '_, A> {
    fn diagonal(&mut self, giant: usize, baby: usize, level: usize) -> Result<Option<Plaintext<A>>, Error> {
        if !(self.fill)(giant, baby, self.scratch.values) {
            return Ok(None);
        }
        let basis = Basis::level(level).with_special(self.special);
        encode(self.accelerator, self.encoder, self.scratch, basis, self.scale).map(Some)
    }
}

impl<A: Accelerator, K: KeySource<A> + ?Sized> SlotArithmetic for EncryptedSlots<'_, A, K> {
    type Vector = Ciphertext<A>;
    type Known = Plaintext<A>;

    fn slots(&self) -> usize {
        self.evaluator.parameters().slots()
    }

    fn level(&self, x: &Ciphertext<A>) -> usize {
        x.level()
    }

    fn duplicate(&mut self, x: &Ciphertext<A>) -> Result<Ciphertext<A>, Error> {
        x.duplicate(self.evaluator.accelerator())
    }

    fn add_assign(&mut self, x: &mut Ciphertext<A>, y: &Ciphertext<A>) -> Result<(), Error> {
        self.evaluator.add_assign(x, y)
    }

    fn subtract_assign(&mut self, x: &mut Ciphertext<A>, y: &Ciphertext<A>) -> Result<(), Error> {
        self.evaluator.sub_assign(x, y)
    }

    fn negate_assign(&mut self, x: &mut Ciphertext<A>) -> Result<(), Error> {
        self.evaluator.negate_assign(x)
    }

    fn add_known_assign(&mut self, x: &mut Ciphertext<A>, known: &dyn Fn(usize) -> f64) -> Result<(), Error> {
        self.fill(known);
        let scale = x.scale(self.evaluator.parameters());
        let (accelerator, basis) = (self.evaluator.accelerator(), Basis::level(x.level()));
        let y = encode(accelerator, self.encoder, &mut self.scratch, basis, scale)?;
        self.evaluator.add_plain_assign(x, &y)
    }

    fn products(&mut self, pairs: &[(&Ciphertext<A>, &Ciphertext<A>)]) -> Result<Ciphertext<A>, Error> {
        let evaluator = &self.evaluator;
        let level = pairs.iter().map(|(x, y)| x.level().min(y.level())).min().unwrap_or(0);
        let mut sum = evaluator.product(level)?;
        for (x, y) in pairs {
            match (x.level() > level, y.level() > level) {
                (false, false) => evaluator.multiply_add(&mut sum, x, y)?,
                (true, false) => evaluator.multiply_add(&mut sum, &evaluator.drop_to(x, level)?, y)?,
                (false, true) => evaluator.multiply_add(&mut sum, x, &evaluator.drop_to(y, level)?)?,
                (true, true) => {
                    let (x, y) = (evaluator.drop_to(x, level)?, evaluator.drop_to(y, level)?);
                    evaluator.multiply_add(&mut sum, &x, &y)?;
                }
            }
        }
        evaluator.rescale(sum)
    }

    fn prepare(&mut self, known: &dyn Fn(usize) -> f64, level: usize) -> Result<Plaintext<A>, Error> {
        self.fill(known);
        let scale = self.evaluator.factor_scale(level, level);
        let accelerator = self.evaluator.accelerator();
        encode(accelerator, self.encoder, &mut self.scratch, Basis::level(level), scale)
    }

    fn weigh(&mut self, pairs: &[(&Ciphertext<A>, &Plaintext<A>)]) -> Result<Ciphertext<A>, Error> {
        let level = pairs.first().map_or(0, |(x, _)| x.level());
        let mut sum = self.evaluator.product(level)?;
        for &(x, known) in pairs {
            self.evaluator.multiply_plain_add(&mut sum, x, known)?;
        }
        self.evaluator.rescale(sum)
    }

    fn multiply_known(
        &mut self,
        x: &Ciphertext<A>,
        known: &dyn Fn(usize) -> f64,
        level: usize,
    ) -> Result<Ciphertext<A>, Error> {
        self.fill(known);
        let mut product = self.evaluator.product(level + 1)?;
        let scale = self.evaluator.factor_scale(level + 1, x.level());
        let (accelerator, basis) = (self.evaluator.accelerator(), Basis::level(level + 1));
        let y = encode(accelerator, self.encoder, &mut self.scratch, basis, scale)?;
        self.evaluator.multiply_plain_add(&mut product, x, &y)?;
        self.evaluator.rescale(product)
    }

    fn scale(&mut self, x: &Ciphertext<A>, factor: f64, level: usize) -> Result<Ciphertext<A>, Error> {
        let mut product = self.evaluator.product(level + 1)?;
        self.evaluator.multiply_constant_add(&mut product, x, factor)?;
        self.evaluator.rescale(product)
    }

    fn rotate(&mut self, x: &Ciphertext<A>, steps: i64) -> Result<Ciphertext<A>, Error> {
        self.evaluator.rotate(x, steps)
    }

    fn chebyshev(&mut self, x: &Ciphertext<A>, coefficients: &[f64]) -> Result<Ciphertext<A>, Error> {
        self.evaluator.chebyshev(x, coefficients)
    }

    fn transform(
        &mut self,
        x: &Ciphertext<A>,
        rotations: BabyGiant<'_>,
        diagonal: &(dyn Fn(usize, usize, &mut [f64]) -> bool + Sync),
    ) -> Result<Ciphertext<A>, Error> {
        let parameters = self.evaluator.parameters();
        let mut diagonals = Diagonals {
            accelerator: self.evaluator.accelerator(),
            encoder: self.encoder,
            scratch: &mut self.scratch,
            special: parameters.chain().special(),
            scale: parameters.scale(x.level()),
            fill: diagonal,
        };
        self.evaluator.transform(x, rotations, &mut diagonals)
    }

    fn floor(&self) -> usize {
        self.bootstrap.as_ref().map_or(0, |bootstrap| bootstrap.plan().floor())
    }

    fn refresh(&mut self, x: &Ciphertext<A>) -> Result<Ciphertext<A>, Error> {
        self.bootstrap.as_ref().ok_or(Error::NoBootstrap)?.refresh_real(x)
    }

    fn refresh_pair(
        &mut self,
        x: &Ciphertext<A>,
        y: &Ciphertext<A>,
    ) -> Result<(Ciphertext<A>, Ciphertext<A>), Error> {
        let [x, y] = self.bootstrap.as_ref().ok_or(Error::NoBootstrap)?.refresh_pair(x, y)?;
        Ok((x, y))
    }
}
