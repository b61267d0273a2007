//! Linear transforms that join slots whose numbers differ in some neighbouring bits, by baby and giant steps in one pass.

use super::factors::encode_factors;
use super::{Evaluator, ExtendedProduct, FactorScratch};
use crate::accel::{Accelerator, Factors, MAX_DIGITS, Polynomial, Step};
use crate::ckks::encoding::{Complex, Encoder};
use crate::ckks::{Ciphertext, Error, KeyId, KeyRequests, KeySource, Parameters, galois_element};
use crate::ring::Basis;

/// Most bits that one transform joins: the square root of its diagonals, of which there are up to two for every
/// combination of its bits, is the number of its baby steps.
pub const MAX_TURN_BITS: u32 = 9;

/// Most baby steps, and most giant steps.
const MAX_STEPS: usize = 1 << MAX_TURN_BITS.div_ceil(2);

/// How a matrix is applied whose entry at two slots is zero unless their numbers agree in all bits but `first` to
/// `first + count`.
///
/// Where these are the uppermost bits, turns wrap around and the matrix has 2^count diagonals. Elsewhere a turn runs from
/// one block into the next, and there are twice as many, one of them zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Turns {
    slots: usize,
    first: u32,
    count: u32,
}

impl Turns {
    /// For vectors of so many slots, a power of two.
    ///
    /// # Errors
    /// [`Error::Full`] for more than [`MAX_TURN_BITS`] bits; [`Error::Length`] for bits that a slot's number lacks.
    pub fn new(slots: usize, first: u32, count: u32) -> Result<Self, Error> {
        if count > MAX_TURN_BITS {
            return Err(Error::Full { capacity: 1 << MAX_TURN_BITS });
        }
        let end = first.saturating_add(count);
        if slots.is_power_of_two() && end <= slots.trailing_zeros() {
            return Ok(Self { slots, first, count });
        }
        Err(Error::Length { have: slots, need: 1usize.checked_shl(end).unwrap_or(usize::MAX) })
    }

    /// The first bit.
    pub fn first(&self) -> u32 {
        self.first
    }

    /// How many bits.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Row and column of a slot in its block: the bits that are joined, below 2^count.
    pub fn place(&self, slot: usize) -> usize {
        slot >> self.first & ((1 << self.count) - 1)
    }

    /// Slots of a vector.
    pub(super) fn slots(&self) -> usize {
        self.slots
    }

    /// Whether the blocks are the whole vector, so that turns wrap around.
    fn is_cyclic(&self) -> bool {
        1 << (self.first + self.count) == self.slots
    }

    fn unit(&self) -> i64 {
        1 << self.first
    }

    /// log2 of the number of diagonals, one of them zero unless cyclic.
    fn diagonal_bits(&self) -> u32 {
        self.count + !self.is_cyclic() as u32
    }

    fn baby_count(&self) -> usize {
        1 << self.diagonal_bits().div_ceil(2)
    }

    /// The baby steps: from 0 up where cyclic, else from the most negative turn
    /// of all, so that giant steps only go up.
    pub fn babies(&self) -> impl Iterator<Item = i64> + Clone {
        let (unit, count) = (self.unit(), self.baby_count() as i64);
        let lowest = if self.is_cyclic() { 0 } else { -(1i64 << self.count) };
        (lowest..lowest + count).map(move |b| b * unit)
    }

    /// The giant steps: multiples of the first, from 0 up.
    pub fn giants(&self) -> impl DoubleEndedIterator<Item = i64> + Clone {
        let step = self.giant();
        let count = 1i64 << (self.diagonal_bits() - self.diagonal_bits().div_ceil(2));
        (0..count).map(move |g| g * step)
    }

    /// The turn from one giant step to the next: the only one that needs a key.
    pub fn giant(&self) -> i64 {
        self.baby_count() as i64 * self.unit()
    }

    /// How many factors: giant steps times baby steps, one for each pair in that order.
    pub fn factors(&self) -> usize {
        1 << self.diagonal_bits()
    }

    /// The giant and the baby step of a factor.
    pub(crate) fn steps_of(&self, factor: usize) -> (i64, i64) {
        let (babies, unit) = (self.baby_count(), self.unit());
        let lowest = self.babies().next().unwrap_or(0);
        ((factor / babies * babies) as i64 * unit, lowest + (factor % babies) as i64 * unit)
    }

    /// The factors have this period in the slots.
    pub fn period(&self) -> usize {
        1 << (self.first + self.count)
    }

    /// So many consecutive words of their evaluation form are equal.
    pub fn repeat(&self) -> usize {
        self.slots / self.period()
    }

    /// Limbs for one residue of every factor.
    pub fn limbs_per_prime(&self) -> usize {
        self.factors().div_ceil(self.repeat())
    }

    /// Limbs of all factors for vectors at `level`.
    pub fn limbs(&self, parameters: &Parameters, level: usize) -> usize {
        self.limbs_per_prime() * parameters.key_basis(level).len()
    }

    /// Row and column of the entry in slot `j` of the factor of `baby` inside `giant`: the diagonal baby + giant, turned
    /// back by the giant step. `None` where the turn leaves a block.
    pub(crate) fn entry(&self, giant: i64, baby: i64, j: usize) -> Option<(usize, usize)> {
        let row = (j as i64 - giant).rem_euclid(self.slots as i64) as usize;
        let column = row as i64 + giant + baby;
        let column = if self.is_cyclic() { column.rem_euclid(self.slots as i64) } else { column };
        let block = |slot: usize| slot >> (self.first + self.count);
        let column = usize::try_from(column).ok()?;
        (block(column) == block(row)).then_some((row, column))
    }

    /// Fills `limbs`, [`Turns::limbs`] of them, with the factors of a real matrix for vectors at `level`. Every block is the
    /// same matrix: `entry`(row, column), both below 2^count, is that of slots whose bits are these.
    ///
    /// # Errors
    /// [`Error::Length`]; [`Error::NotEncodable`]; out of limbs: it takes as many as there are primes.
    pub fn prepare<A: Accelerator>(
        &self,
        (accelerator, parameters, level): (&A, &Parameters, usize),
        encoder: &Encoder<'_>,
        entry: &dyn Fn(usize, usize) -> f64,
        scratch: &mut FactorScratch<'_, A::Word>,
        limbs: &mut [A::Limb],
    ) -> Result<(), Error> {
        let slot = |factor: usize, j: usize| {
            let (giant, baby) = self.steps_of(factor);
            let value =
                self.entry(giant, baby, j).map(|(row, column)| entry(self.place(row), self.place(column)));
            Complex::new(value.unwrap_or(0.0), 0.0)
        };
        let of = (self, parameters.key_basis(level), parameters.scale(level));
        encode_factors(accelerator, encoder, of, slot, scratch, limbs)
    }

    /// The keys for vectors at `level`.
    ///
    /// # Errors
    /// [`Error::Full`].
    pub fn required_keys(
        &self,
        parameters: &Parameters,
        level: usize,
        keys: &mut KeyRequests,
    ) -> Result<(), Error> {
        let mut steps = self.babies().chain([self.giant()]);
        steps.try_for_each(|steps| keys.add(KeyId::rotation(parameters, steps), level))
    }
}

impl<A: Accelerator, K: KeySource<A> + ?Sized> Evaluator<'_, A, K> {
    /// A transform, to be rescaled: all baby steps at once, then the giant steps. The factors are over Q_level ∪ P, level
    /// being that of x, and lie as [`Factors`] says.
    ///
    /// # Errors
    /// [`Error::MissingKey`]; [`Error::Accelerator`] for other factors.
    pub(crate) fn turn_and_sum(
        &self,
        x: Ciphertext<A>,
        turns: &Turns,
        factors: &[A::Limb],
    ) -> Result<ExtendedProduct<A>, Error> {
        let (level, degree) = (x.level(), self.parameters.degree());
        let full = |_| Error::Full { capacity: MAX_STEPS };
        let mut sums: heapless::Vec<[Polynomial<A, _>; 2], MAX_STEPS> = heapless::Vec::new();
        for _ in turns.giants() {
            sums.push(self.extended_pair(level)?).map_err(full)?;
        }
        {
            let hoisted = self.hoist(&x)?;
            let mut keys: heapless::Vec<_, MAX_STEPS> = heapless::Vec::new();
            for steps in turns.babies() {
                let galois = galois_element(degree, steps);
                let key =
                    if galois == 1 { None } else { Some(self.key(KeyId::Galois(galois as u32), level)?) };
                keys.push((galois, key)).map_err(|_| Error::Full { capacity: MAX_STEPS })?;
            }
            let rows: heapless::Vec<_, MAX_STEPS> =
                keys.iter().map(|(galois, key)| (*galois, key.as_ref().map(|key| key.rows(level)))).collect();
            let steps: heapless::Vec<Step<'_, A::Limb>, MAX_STEPS> = rows
                .iter()
                .map(|(galois, rows)| Step {
                    galois: *galois,
                    key: rows.as_ref().map(|[b, a]| [b.as_slice(), a.as_slice()]),
                })
                .collect();
            let digits: heapless::Vec<&[A::Limb], MAX_DIGITS> =
                hoisted.digits().iter().map(Polynomial::limbs).collect();
            let factors = Factors { repeat: turns.repeat(), count: turns.factors(), limbs: factors };
            let mut pairs: heapless::Vec<[&mut [A::Limb]; 2], MAX_STEPS> =
                sums.iter_mut().map(|[s0, s1]| [s0.limbs_mut(), s1.limbs_mut()]).collect();
            let [x0, x1] = x.parts();
            self.accelerator.hoisted_sums(
                Basis::level(level),
                [x0.limbs(), x1.limbs()],
                &digits,
                &steps,
                &factors,
                &mut pairs,
            )?;
        }
        drop(x);
        // Horner's rule over the giant steps: one key for all of them.
        let giant = galois_element(degree, turns.giant());
        let none = Error::Length { have: 0, need: 1 };
        let mut total = ExtendedProduct { parts: sums.pop().ok_or(none)? };
        while let Some(parts) = sums.pop() {
            let mut sum = ExtendedProduct { parts };
            self.automorphism_extended_add(&mut sum, total, giant)?;
            total = sum;
        }
        Ok(total)
    }

    /// y = M·x, one level below x, for the factors of M that were made for the level of x.
    ///
    /// # Errors
    /// [`Error::MissingKey`]; [`Error::LevelsExhausted`] at level 0; [`Error::Accelerator`] for other factors.
    pub fn apply_turns(
        &self,
        x: &Ciphertext<A>,
        turns: &Turns,
        factors: &[A::Limb],
    ) -> Result<Ciphertext<A>, Error> {
        if x.level() == 0 {
            return Err(Error::LevelsExhausted { have: 0, need: 1 });
        }
        let copy = x.duplicate(self.accelerator)?;
        self.rescale_extended(self.turn_and_sum(copy, turns, factors)?)
    }
}
