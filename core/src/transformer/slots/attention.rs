//! Gaussian attention on slots: of token 0, and of every token.
//!
//! Every token: with n places (features) to a head, T tokens, and a shift δ from a query's token to a key's, the
//! score of (token t, shift δ) is put where feature place δ mod n of token t would be, so that exp works on T/n
//! vectors. A shift is δ = γ·g + b (γ = `babies`): keys and values are turned by b, queries by −γ·g, and the
//! scores of a whole group g live γ·g tokens away from their query until the outputs of the groups are added up.
//! That is √T turns of each instead of T.
//!
//! Sums over the features of a head and the packing of their results are one: a sum over p of u_δ\[p\], put at place
//! δ, is Σ_ρ turn_ρ(c_ρ), where c_ρ picks at place p the vector of shift p − ρ. By Horner's rule that is n − 1 turns
//! by one place instead of n·log n. The way back is the same: the scores turned by ρ meet the values picked so that
//! place p holds the values of shift p + ρ.

use super::executor::{SlotExecutor, half, middle};
use super::tensor::{Lanes, Parts, SlotError, SlotTensor};
use super::{Model, SlotArithmetic};
use crate::approx::Approximation;
use crate::ckks::Error;
use crate::ckks::server::BabyGiant;
use crate::transformer::Config;

/// Most features of a head, and most turned copies of one vector, in full attention.
const MAX_PLACES: usize = 32;

type Copies<V> = heapless::Vec<V, MAX_PLACES>;

/// Levels from the normalised input of an attention to the residual stream, along the values: with every query
/// W_V, mask, turn, pick, product, turn, W_O; with token 0's W_V, mask, product, W_O.
pub(super) fn value_levels(last: bool) -> usize {
    if last { 4 } else { 7 }
}

/// How shifts are split.
#[derive(Clone, Copy)]
struct Shifts {
    /// Features of a head, n.
    places: usize,
    /// Tokens, T.
    length: usize,
    /// Shifts of a group; divides n and T.
    babies: usize,
}

impl Shifts {
    fn new(config: &Config) -> Self {
        let (places, length) = (config.head_width(), config.length);
        Self { places, length, babies: places.min(1 << length.ilog2().div_ceil(2)) }
    }

    /// Vectors that hold all scores.
    fn parts(self) -> usize {
        self.length.div_ceil(self.places)
    }

    /// Shifts of one vector.
    fn in_part(self) -> usize {
        self.length.min(self.places)
    }

    /// (group, shift within the group) at a place of a part; places beyond the last shift repeat the first ones.
    fn split(self, part: usize, place: usize) -> (usize, usize) {
        let shift = (part * self.places + place) % self.length;
        (shift / self.babies, shift % self.babies)
    }
}

fn copies<V>(items: impl Iterator<Item = Result<V, SlotError>>) -> Result<Copies<V>, SlotError> {
    let mut list = Copies::new();
    for item in items {
        list.push(item?).map_err(|_| Error::Full { capacity: MAX_PLACES })?;
    }
    Ok(list)
}

impl<S: SlotArithmetic, M: Model> SlotExecutor<'_, S, M> {
    /// y\[t\] = x\[t + shift mod T\] for every feature; one level down.
    fn turn_tokens(&mut self, x: &S::Vector, shift: i64) -> Result<S::Vector, SlotError> {
        let (length, batch) = (self.layout.length(), self.layout.batch());
        let shift = shift.rem_euclid(length as i64) as usize;
        if shift == 0 {
            return self.at_factor(x, 1.0, self.below(x)?);
        }
        // Turned by `shift`, the last tokens of a feature would take the next feature's first.
        let unit = batch as i64;
        let turns = [shift as i64 * unit, (shift as i64 - length as i64) * unit];
        let fill = |_: usize, baby: usize, values: &mut [f64]| {
            for (run, values) in values.chunks_exact_mut(batch).enumerate() {
                let wraps = run % length + shift >= length;
                values.fill(f64::from(u8::from(wraps == (baby == 1))));
            }
            true
        };
        Ok(self.slots.transform(x, BabyGiant { baby: &turns, giant: &[0] }, &fill)?)
    }

    /// `value` at one place of every head, for every place.
    fn masks(&mut self, value: f64, level: usize) -> Result<Copies<S::Known>, SlotError> {
        let (layout, heads) = (self.layout, self.config().heads);
        copies((0..self.config().head_width()).map(|place| {
            let at = |slot: usize| if layout.place(slot).0 / heads == place { value } else { 0.0 };
            Ok(self.slots.prepare(&at, level)?)
        }))
    }

    /// Slots from one place of a head to the next.
    fn place_stride(&self) -> i64 {
        (self.config().heads * self.layout.feature_stride()) as i64
    }

    /// p(x) for the kernel's argument on its unit interval, refreshed first unless `after` more levels are left then.
    fn kernel(
        &mut self,
        arguments: &mut [S::Vector],
        approximation: &Approximation<'_>,
        after: usize,
    ) -> Result<(), SlotError> {
        let interval = approximation.interval();
        let offset = -middle(interval) / half(interval);
        for argument in arguments.iter_mut() {
            self.slots.add_known_assign(argument, &|_| offset)?;
        }
        self.ensure(arguments, approximation.depth() as usize + after)?;
        for argument in arguments {
            let mut scores = self.slots.chebyshev(argument, approximation.coefficients())?;
            for _ in 0..approximation.squarings() {
                scores = self.slots.multiply(&scores, &scores)?;
            }
            *argument = scores;
        }
        Ok(())
    }

    /// Scores of token 0's query, which must be clean: it is spread over the tokens of the keys.
    pub(super) fn scores_of_first(
        &mut self,
        query: &S::Vector,
        key: &S::Vector,
        approximation: &Approximation<'_>,
    ) -> Result<SlotTensor<S::Vector>, SlotError> {
        let layout = self.layout;
        let mut difference = self.slots.duplicate(query)?;
        self.fold(&mut difference, layout.length(), -(layout.batch() as i64))?;
        self.slots.subtract_assign(&mut difference, key)?;
        let mut exponent = self.slots.multiply(&difference, &difference)?;
        self.fold(&mut exponent, self.config().head_width(), self.place_stride())?;
        self.slots.negate_assign(&mut exponent)?;
        let mut scores = [exponent];
        // The product with the values, and W_O.
        self.kernel(&mut scores, approximation, 2)?;
        let [scores] = scores;
        Ok(SlotTensor::derived(scores, 1.0, Lanes::All))
    }

    /// Token 0's S·V: in lane 0.
    pub(super) fn mix_first(
        &mut self,
        scores: &S::Vector,
        value: &S::Vector,
    ) -> Result<(S::Vector, Lanes), SlotError> {
        let mut mixed = self.slots.multiply(scores, value)?;
        self.fold(&mut mixed, self.layout.length(), self.layout.batch() as i64)?;
        Ok((mixed, Lanes::Dirty))
    }

    /// Scores of every query.
    pub(super) fn scores_of_all(
        &mut self,
        query: &S::Vector,
        key: &S::Vector,
        approximation: &Approximation<'_>,
    ) -> Result<SlotTensor<S::Vector>, SlotError> {
        let shifts = Shifts::new(self.config());
        let (places, babies) = (shifts.places, shifts.babies);
        let keys = copies((0..babies).map(|b| self.turn_tokens(key, b as i64)))?;
        let groups = shifts.length / babies;
        let queries = copies((0..groups).map(|g| self.turn_tokens(query, -((g * babies) as i64))))?;
        let level = keys.first().map_or(0, |key| self.slots.level(key)).saturating_sub(1);
        // Exponents are negative: the masks take the sign in.
        let masks = self.masks(-1.0, level)?;
        let mut exponents = Parts::new();
        for part in 0..shifts.parts() {
            let squares = copies((0..shifts.in_part()).map(|place| {
                let (g, b) = shifts.split(part, place);
                let mut difference = self.slots.duplicate(&queries[g])?;
                self.slots.subtract_assign(&mut difference, &keys[b])?;
                Ok(self.slots.multiply(&difference, &difference)?)
            }))?;
            let mut sum: Option<S::Vector> = None;
            for turn in (0..places).rev() {
                let picked: Copies<_> = (0..places)
                    .map(|place| (&squares[place % squares.len()], &masks[(place + turn) % places]))
                    .collect();
                let mut picked = self.slots.weigh(&picked)?;
                if let Some(sum) = sum {
                    let turned = self.slots.rotate(&sum, self.place_stride())?;
                    self.slots.add_assign(&mut picked, &turned)?;
                }
                sum = Some(picked);
            }
            let sum = sum.ok_or(SlotError::Form)?;
            exponents.push(sum).map_err(|_| Error::Full { capacity: super::tensor::MAX_PARTS })?;
        }
        // The product with the values, the turn of a group, and W_O.
        self.kernel(&mut exponents, approximation, 3)?;
        let mut scores = exponents.into_iter();
        let first = scores.next().ok_or(SlotError::Form)?;
        Ok(SlotTensor { more: scores.collect(), ..SlotTensor::derived(first, 1.0, Lanes::Shifts) })
    }

    /// Every token's S·V.
    pub(super) fn mix_all(
        &mut self,
        scores: &SlotTensor<S::Vector>,
        value: &S::Vector,
    ) -> Result<(S::Vector, Lanes), SlotError> {
        let shifts = Shifts::new(self.config());
        let (places, babies) = (shifts.places, shifts.babies);
        // Picked values meet the scores at the scores' level; higher up the work would be more.
        let level = self.slots.level(value).min(self.slots.level(&scores.vector) + 2);
        let value = self.at_factor(value, 1.0, level)?;
        let turned = copies((0..babies).map(|b| self.turn_tokens(&value, b as i64)))?;
        let masks = self.masks(1.0, level.saturating_sub(1))?;
        let values = copies((0..places).map(|turn| {
            let picked: Copies<_> = turned
                .iter()
                .enumerate()
                .map(|(b, value)| (value, &masks[(b + places - turn) % places]))
                .collect();
            Ok(self.slots.weigh(&picked)?)
        }))?;
        drop((turned, masks));
        let mut mixed: Option<S::Vector> = None;
        for (part, scores) in core::iter::once(&scores.vector).chain(&scores.more).enumerate() {
            let mut turns: Copies<S::Vector> = Copies::new();
            while turns.len() < places {
                let next = match turns.last() {
                    None => self.slots.duplicate(scores)?,
                    Some(last) => self.slots.rotate(last, self.place_stride())?,
                };
                turns.push(next).map_err(|_| Error::Full { capacity: MAX_PLACES })?;
            }
            for first in (0..shifts.in_part()).step_by(babies) {
                let pairs: Copies<_> = turns
                    .iter()
                    .enumerate()
                    .map(|(turn, scores)| (scores, &values[(turn + places - first) % places]))
                    .collect();
                let group = self.slots.products(&pairs)?;
                let home = shifts.split(part, first).0 * babies;
                let group = self.turn_tokens(&group, home as i64)?;
                match &mut mixed {
                    None => mixed = Some(group),
                    Some(sum) => self.slots.add_assign(sum, &group)?,
                }
            }
        }
        Ok((mixed.ok_or(SlotError::Form)?, Lanes::All))
    }
}
