//! The hidden layer of a feed-forward block out of slots.
//!
//! Products with weights are done between bootstraps, in the small ring, where they cost next to nothing; but a hidden
//! layer is wider than the stream, a and b of a ⊙ ReLU(b) are two of them, and each of their ciphertexts is bootstrapped
//! for the gate. The stream is in slots already, for the norm's variance, with all levels but those that 1/√ has used up.
//! So the weights multiply it there, before the norm does: LN(x)·W = (x·diag(gain)·W)·1/√ + bias·W, row by row of tokens.
//! What has to be bootstrapped then is 1/√, one number for every token, and all of them fit into half a ciphertext.

use crate::algebra::{Algebra, Halves};
use crate::executor::{Engine, NORM_MARGIN};
use crate::tensor::{Slots, Unscaled, at_most, half_of};
use crate::{Error, Places, Tensor};
use std::cell::RefCell;
use std::ops::Range;
use veilformer::ckks::server::{MAX_TURN_BITS, Turns};
use veilformer::transformer::slots::{Model, SlotArithmetic};
use veilformer::transformer::{Norm, Parameter, Shape, Site};

const FORM: Error = Error::Form { operation: "a hidden layer out of slots" };

/// Levels of the stream that go into a hidden layer: the weights, and 1/√.
const LEVELS: usize = 2;

// What there is to weigh, roughly, in bootstraps of both halves at N = 2^16. The products of `veil-tiny` come to 1.8 of them;
// on two threads they took 1.7 (benches/README.md, "Hidden layers out of slots").
/// A bootstrap of one half, and what spreads its vectors again.
const HALF_BOOTSTRAP: f64 = 0.8;
/// A giant step.
const GIANT: f64 = 1.0 / 130.0;
/// A factor of one vector.
const PRODUCT: f64 = 1.0 / 4000.0;
/// Making a factor that does not repeat.
const FACTOR: f64 = 1.0 / 400.0;

/// How the rows of a sentence are turned into each other; `None` where they are not by themselves in the bits of a slot's
/// number.
///
/// # Errors
/// Those of [`Turns::new`].
pub(crate) fn row_turns(places: &Places) -> Result<Option<Turns>, Error> {
    match places.row_bits() {
        Some((first, count)) if count <= MAX_TURN_BITS => {
            Ok(Some(Turns::new(places.degrees().slots(), first, count)?))
        }
        _ => Ok(None),
    }
}

/// The turns from a slot whose place has a bit to that without, and back.
pub(crate) fn either_way(turns: &Turns, bit: u32) -> [i64; 2] {
    let turn = 1i64 << (turns.first() + bit);
    [turn, -turn]
}

/// One half of a hidden layer.
struct Half {
    /// Its columns of the weight.
    columns: Range<usize>,
    /// What its slots hold entries times.
    factor: f64,
    /// Its level.
    level: usize,
}

impl<G: Algebra, M: Model> Engine<'_, G, M> {
    /// Whether a norm of slots at `level` is left to the product with weights that follows it.
    pub(crate) fn expands_in_slots(
        &self,
        norm: Norm,
        places: &Places,
        (level, floor): (usize, usize),
    ) -> Result<bool, Error> {
        let Norm::Second(layer) = norm else { return Ok(false) };
        let weight = Parameter::Expand(layer);
        let Some(turns) = row_turns(places)? else { return Ok(false) };
        let halves = |places: &Places| if places.has_upper_half() { 2 } else { 1 };
        let vectors = halves(places) * places.ciphertexts();
        let fits = level >= floor + self.gate_levels(layer)? + LEVELS && vectors <= 1 << turns.count();
        if self.is_trained(weight) || !fits {
            return Ok(false);
        }
        let width = weight.shape(self.config()).columns / 2;
        let (apart, blocked) = (places.with_rows(width)?, places.with_blocks(width)?);
        // Where there is no upper half, a and b share a bootstrap.
        let saved = halves(&apart) * apart.ciphertexts();
        let (factors, products) = (turns.factors() as f64, 2.0 * blocked.ciphertexts() as f64);
        let made = 2.0 * blocked.blocks() as f64 * factors / turns.repeat() as f64;
        let spent = HALF_BOOTSTRAP
            + products * (turns.giants().count() as f64 * GIANT + factors * PRODUCT)
            + made * FACTOR;
        Ok(spent < saved as f64)
    }

    /// LN(x)·W of a norm that was left to it: both halves of the hidden layer in slots.
    pub(crate) fn expand_in_slots(
        &mut self,
        x: &Tensor<G>,
        unscaled: &Unscaled<G::Vector>,
        weight: Parameter,
    ) -> Result<Tensor<G>, Error> {
        let Parameter::Expand(layer) = weight else { return Err(FORM) };
        let turns = row_turns(&x.places)?.ok_or(FORM)?;
        let Shape { columns, .. } = weight.shape(self.config());
        let width = columns / 2;
        let (floor, levels) = (self.algebra.slots().floor(), self.gate_levels(layer)?);
        let interval = self.approximation(Site::Gate(layer))?.interval();
        let roots = self.fresh_roots(&x.places, unscaled, &turns)?;
        let gated = Half { columns: width..columns, factor: 2.0 / interval.width(), level: floor + levels };
        let gated = self.expand_half(x, unscaled, &roots, &turns, (weight, &gated))?;
        let (model, inputs) = (self.model, self.config().width);
        let square = |o: usize| (0..inputs).map(|i| model.weight(weight, i, o).powi(2)).sum::<f64>();
        let reach = self.norm_bound(unscaled.norm) * (0..width).map(square).fold(0.0, f64::max).sqrt();
        let plain = Half {
            columns: 0..width,
            factor: 1.0 / reach,
            // The gate's products alone.
            level: floor + 1 + usize::from(self.is_recording()),
        };
        let plain = self.expand_half(x, unscaled, &roots, &turns, (weight, &plain))?;
        Ok(Tensor {
            halves: RefCell::new(Some([gated, plain])),
            ..Tensor::packed(x.places.with_blocks(width)?, Vec::new(), x.first)
        })
    }

    /// The roots at the top again, one level for taking them apart: vector v of them goes where the last bits of a row's
    /// place are v, and back to all rows.
    fn fresh_roots(
        &mut self,
        places: &Places,
        unscaled: &Unscaled<G::Vector>,
        turns: &Turns,
    ) -> Result<Slots<G::Vector>, Error> {
        let site = unscaled.norm.site().ok_or(FORM)?;
        let factor = self.approximation(site)?.interval().low().sqrt() / NORM_MARGIN;
        let all: Vec<&G::Vector> = unscaled
            .roots
            .iter()
            .flat_map(|(lower, upper)| [Some(lower), upper.as_ref()])
            .flatten()
            .collect();
        let lanes = all.len().next_power_of_two();
        let mask = |v: usize, value: f64| {
            move |slot: usize| if turns.place(slot) & (lanes - 1) == v { value } else { 0.0 }
        };
        let arithmetic = self.algebra.slots();
        let mut together: Option<G::Vector> = None;
        for (v, root) in all.iter().enumerate() {
            let level = arithmetic.level(root).saturating_sub(1);
            let part = arithmetic.multiply_known(root, &mask(v, factor), level)?;
            match &mut together {
                Some(sum) => arithmetic.add_assign(sum, &part)?,
                None => together = Some(part),
            }
        }
        let fresh = arithmetic.refresh(&together.ok_or(FORM)?)?;
        let level = arithmetic.level(&fresh).saturating_sub(1);
        let mut apart = Vec::with_capacity(all.len());
        for v in 0..all.len() {
            let mut root = arithmetic.multiply_known(&fresh, &mask(v, 1.0), level)?;
            for bit in 0..lanes.trailing_zeros() {
                let turn = either_way(turns, bit)[usize::from(v >> bit & 1 == 0)];
                let turned = arithmetic.rotate(&root, turn)?;
                arithmetic.add_assign(&mut root, &turned)?;
            }
            apart.push(root);
        }
        let (mut apart, has_upper) = (apart.into_iter(), places.has_upper_half());
        let mut halves = Vec::with_capacity(unscaled.roots.len());
        while let Some(lower) = apart.next() {
            halves.push((lower, if has_upper { apart.next() } else { None }));
        }
        Ok(Slots { factor, halves })
    }

    fn expand_half(
        &mut self,
        x: &Tensor<G>,
        unscaled: &Unscaled<G::Vector>,
        roots: &Slots<G::Vector>,
        turns: &Turns,
        (weight, half): (Parameter, &Half),
    ) -> Result<Slots<G::Vector>, Error> {
        let (inputs, model) = (&unscaled.x, self.model);
        let (gain, bias) = self.gain_and_bias(unscaled.norm);
        // Both real vectors of a ciphertext are multiplied as one, and doubled when they are taken apart.
        let level = half.level + LEVELS;
        let doubled = if x.places.has_upper_half() { 2.0 } else { 1.0 };
        let mut paired = Vec::with_capacity(inputs.halves.len());
        for (lower, upper) in &inputs.halves {
            let lower = at_most(self.algebra.slots(), lower, level)?;
            paired.push(match upper {
                Some(upper) => {
                    let upper = at_most(self.algebra.slots(), upper, level)?;
                    self.algebra.pair(&lower, &upper)?
                }
                None => lower,
            });
        }
        let scale = half.factor / (doubled * inputs.factor * roots.factor);
        let count = 1usize << turns.count();
        let row = |place: usize| x.places.at(0, false, place << turns.first()).map(|at| at.1).ok_or(FORM);
        let row_of = (0..count).map(row).collect::<Result<Vec<_>, Error>>()?;
        let mut halves = Vec::new();
        for block in half.columns.clone().step_by(count) {
            let mut entries = vec![0.0; count * count];
            for (output, line) in row_of.iter().map(|row| block + row).zip(entries.chunks_exact_mut(count)) {
                if half.columns.contains(&output) {
                    for (entry, &input) in line.iter_mut().zip(&row_of) {
                        *entry = scale * gain[input] * model.weight(weight, input, output);
                    }
                }
            }
            let entry = |row: usize, column: usize| entries[row * count + column];
            let products = self.algebra.turn_blocks(&paired, turns, &entry)?;
            for (product, root) in products.into_iter().zip(&roots.halves) {
                halves.push(self.scaled_by(product, root)?);
            }
        }
        let slots = Slots { factor: half.factor, halves };
        let shift = |o: usize| -> f64 {
            bias.iter().enumerate().map(|(i, b)| b * model.weight(weight, i, o)).sum::<f64>() * half.factor
        };
        let shifts: Vec<f64> = half.columns.clone().map(shift).collect();
        if shifts.iter().all(|shift| *shift == 0.0) {
            return Ok(slots);
        }
        let places = x.places.with_blocks(half.columns.len())?;
        self.each(&slots, |arithmetic, ciphertext, upper, x| {
            let mut sum = arithmetic.duplicate(x)?;
            let shift = |slot| places.at(ciphertext, upper, slot).map_or(0.0, |at| shifts[at.1]);
            arithmetic.add_known_assign(&mut sum, &shift)?;
            Ok(sum)
        })
    }

    /// The vectors of a product, each times its roots.
    fn scaled_by(
        &mut self,
        product: G::Vector,
        roots: &Halves<G::Vector>,
    ) -> Result<Halves<G::Vector>, Error> {
        let Some(root) = half_of(roots, true) else {
            return Ok((self.algebra.slots().multiply(&product, &roots.0)?, None));
        };
        let [lower, upper] = self.algebra.apart(&product)?;
        drop(product);
        let arithmetic = self.algebra.slots();
        Ok((arithmetic.multiply(&lower, &roots.0)?, Some(arithmetic.multiply(&upper, root)?)))
    }
}
