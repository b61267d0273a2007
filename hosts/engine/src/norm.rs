//! Layer norms.

use crate::algebra::Algebra;
use crate::algebra::Halves;
use crate::executor::{Engine, NORM_MARGIN};
use crate::tensor::{Kept, Slots, Unscaled, half_of};
use crate::{Error, Places, Tensor};
use std::cell::RefCell;
use std::rc::Rc;
use veilformer::transformer::slots::{Model, SlotArithmetic};
use veilformer::transformer::{Norm, Parameter};

impl<G: Algebra, M: Model> Engine<'_, G, M> {
    pub(crate) fn gain_and_bias(&self, norm: Norm) -> (Vec<f64>, Vec<f64>) {
        let of = |parameter: Parameter| -> Vec<f64> {
            (0..self.config().width).map(|feature| self.model.weight(parameter, 0, feature)).collect()
        };
        (of(Parameter::Gain(norm)), of(Parameter::Bias(norm)))
    }

    /// The largest Euclidean norm of a token's features behind a layer norm.
    pub(crate) fn norm_bound(&self, norm: Norm) -> f64 {
        let (gain, bias) = self.gain_and_bias(norm);
        let largest = gain.iter().fold(0.0f64, |m, g| m.max(g.abs()));
        let shift = bias.iter().map(|b| b * b).sum::<f64>().sqrt();
        NORM_MARGIN * largest * (gain.len() as f64).sqrt() + shift
    }

    /// gain ⊙ x/√(variance + ε) + bias of a stream whose mean is zero.
    ///
    /// Levels: the square, one constant that is also the mask of sums that must not run into each other, the root, the
    /// product. The gain goes in beside them, where there are levels to spare.
    pub(crate) fn normalise(&mut self, x: &Tensor<G>, norm: Norm) -> Result<Tensor<G>, Error> {
        let form = Error::Form { operation: "a norm" };
        let approximation = self.approximation(norm.site().ok_or(form)?)?;
        let (slots, places, config) = (self.slots_of(x)?, x.places, self.config());
        let interval = approximation.interval();
        let (half, middle) = (0.5 * interval.width(), 0.5 * (interval.low() + interval.high()));
        let constant = 1.0 / (config.width as f64 * slots.factor * slots.factor * half);
        let offset = (config.norm_epsilon - middle) / half;
        let (gain, bias) = self.gain_and_bias(norm);
        let squares = self.row_sums(&places, &slots.halves, constant, |arithmetic, parts, _, _| {
            let squares: Vec<_> = parts.iter().map(|x| (*x, *x)).collect();
            Ok(arithmetic.products(&squares)?)
        })?;
        let together = places.ciphertexts_of_one();
        let mut roots = Vec::with_capacity(squares.len());
        for (group, (lower, upper)) in squares.into_iter().enumerate() {
            let arithmetic = self.algebra.slots();
            let mut root = |mut variance: G::Vector, upper: bool| -> Result<G::Vector, Error> {
                // Empty places stay at 0, in the middle of the interval.
                let filled = |slot: usize| places.at(group * together, upper, slot).is_some();
                arithmetic
                    .add_known_assign(&mut variance, &|slot| if filled(slot) { offset } else { 0.0 })?;
                Ok(arithmetic.chebyshev(&variance, approximation.coefficients())?)
            };
            let lower = root(lower, false)?;
            roots.push((lower, upper.map(|upper| root(upper, true)).transpose()?));
        }
        let roots = Rc::new(roots);
        if self.is_recording() {
            self.keep(norm.site().ok_or(form)?, Kept::Norm { roots: roots.clone() });
        }
        let arithmetic = self.algebra.slots();
        let levels = (slots.halves.first().map_or(0, |(x, _)| arithmetic.level(x)), arithmetic.floor());
        if self.expands_in_slots(norm, &places, levels)? {
            let unscaled = Some(Unscaled { norm, x: slots, roots });
            return Ok(Tensor { unscaled, ..Tensor::packed(places, Vec::new(), x.first) });
        }
        let output = self.each(&slots, |arithmetic, ciphertext, upper, x| {
            let root = half_of(&roots[ciphertext / together], upper).ok_or(form)?;
            let row = |slot: usize| places.at(ciphertext, upper, slot).map(|at| at.1);
            let known = |of: &[f64], slot: usize| row(slot).map_or(0.0, |row| of[row]);
            let level = arithmetic.level(root).max(1);
            let gained = arithmetic.multiply_known(x, &|slot| known(&gain, slot), level)?;
            let mut y = arithmetic.multiply(&gained, root)?;
            arithmetic.add_known_assign(&mut y, &|slot| slots.factor * known(&bias, slot))?;
            Ok(y)
        })?;
        let bound = self.norm_bound(norm);
        let packed = self.lower(&places, &output, bound)?;
        Ok(Tensor { slots: RefCell::new(Some(Rc::new(output))), ..Tensor::packed(places, packed, x.first) })
    }

    /// constant·(sum over the rows of a sentence), in all its rows: one level below what `start` makes of the vectors of
    /// one sentence's ciphertexts, of which it is told the first and the half. Both halves are turned as one vector.
    pub(crate) fn row_sums(
        &mut self,
        places: &Places,
        halves: &[Halves<G::Vector>],
        constant: f64,
        mut start: impl FnMut(&mut G::Slots, &[&G::Vector], usize, bool) -> Result<G::Vector, Error>,
    ) -> Result<Vec<Halves<G::Vector>>, Error> {
        let (turns, rank, together) =
            (places.rows_in_slots(), places.layout().rank(), places.ciphertexts_of_one());
        let mut sums = Vec::new();
        for (group, of_one) in halves.chunks(together).enumerate() {
            let mut both = Vec::with_capacity(2);
            for upper in [false, true] {
                let parts: Vec<&G::Vector> = of_one.iter().filter_map(|x| half_of(x, upper)).collect();
                if !parts.is_empty() {
                    both.push(start(self.algebra.slots(), &parts, group * together, upper)?);
                }
            }
            let mut both = both.into_iter();
            let lower = both.next().ok_or(Error::Form { operation: "a sum" })?;
            // What is taken apart is doubled.
            let (mut sum, constant, paired) = match both.next() {
                Some(upper) => (self.algebra.pair(&lower, &upper)?, 0.5 * constant, true),
                None => (lower, constant, false),
            };
            let arithmetic = self.algebra.slots();
            for &turn in turns.cyclic.iter().chain(&turns.bounded) {
                let turned = arithmetic.rotate(&sum, turn as i64)?;
                arithmetic.add_assign(&mut sum, &turned)?;
            }
            // Wherever the upper half has an entry, the lower one has.
            let known = |slot: usize| match places.at(group * together, false, slot) {
                Some((_, row, _)) if turns.bounded.is_empty() || row % rank == 0 => constant,
                _ => 0.0,
            };
            let level = arithmetic.level(&sum).saturating_sub(1);
            let mut sum = arithmetic.multiply_known(&sum, &known, level)?;
            for &turn in &turns.bounded {
                let turned = arithmetic.rotate(&sum, -(turn as i64))?;
                arithmetic.add_assign(&mut sum, &turned)?;
            }
            sums.push(if paired {
                let [lower, upper] = self.algebra.apart(&sum)?;
                (lower, Some(upper))
            } else {
                (sum, None)
            });
        }
        Ok(sums)
    }

    /// dy → dx = r·(g − mean(g) − x̂·mean(g ⊙ x̂)), g = gain ⊙ dy, x̂ = r·x: as r·(g − mean(g) − r²·x·mean(g ⊙ x)), which
    /// multiplies by r, the lowest, last.
    pub(crate) fn normalise_backward(
        &mut self,
        x: &Tensor<G>,
        dy: &Tensor<G>,
        norm: Norm,
    ) -> Result<Tensor<G>, Error> {
        let form = Error::Form { operation: "a norm's gradient" };
        let (places, width) = (x.places, self.config().width as f64);
        let (gain, _) = self.gain_and_bias(norm);
        let (inputs, gradients) = (self.slots_of(x)?, self.slots_of(dy)?);
        let factor = 1.0 / self.gradient_stream()?;
        let constant = factor / gradients.factor;
        let gained = self.each(&gradients, |arithmetic, ciphertext, upper, d| {
            let row = |slot: usize| places.at(ciphertext, upper, slot).map(|at| at.1);
            let level = arithmetic.level(d).saturating_sub(1);
            Ok(arithmetic.multiply_known(
                d,
                &|slot| row(slot).map_or(0.0, |row| constant * gain[row]),
                level,
            )?)
        })?;
        drop(gradients);
        let means = self.row_sums(&places, &gained.halves, 1.0 / width, |arithmetic, parts, _, _| {
            let mut sum = arithmetic.duplicate(parts[0])?;
            parts[1..].iter().try_for_each(|part| arithmetic.add_assign(&mut sum, part))?;
            Ok(sum)
        })?;
        let scale = 1.0 / (width * inputs.factor * inputs.factor);
        let along = self.row_sums(&places, &gained.halves, scale, |arithmetic, parts, first, upper| {
            let pairs: Option<Vec<_>> = parts
                .iter()
                .enumerate()
                .map(|(i, d)| Some((*d, half_of(inputs.halves.get(first + i)?, upper)?)))
                .collect();
            Ok(arithmetic.products(&pairs.ok_or(form)?)?)
        })?;
        let kept = self.kept(norm.site().ok_or(form)?);
        let Some(Kept::Norm { roots }) = kept.as_deref() else { return Err(form) };
        let together = places.ciphertexts_of_one();
        let output = self.each(&gained, |arithmetic, ciphertext, upper, gained| {
            let group = ciphertext / together;
            let root = half_of(&roots[group], upper).ok_or(form)?;
            let mean = half_of(&means[group], upper).ok_or(form)?;
            let along = half_of(&along[group], upper).ok_or(form)?;
            let x = half_of(&inputs.halves[ciphertext], upper).ok_or(form)?;
            let square = arithmetic.multiply(root, root)?;
            let drift = arithmetic.multiply(x, along)?;
            let drift = arithmetic.multiply(&drift, &square)?;
            let level = arithmetic.level(&drift);
            let mut centred = arithmetic.scale(gained, 1.0, level)?;
            let mean = arithmetic.scale(mean, 1.0, level)?;
            arithmetic.subtract_assign(&mut centred, &mean)?;
            arithmetic.subtract_assign(&mut centred, &drift)?;
            Ok(arithmetic.multiply(&centred, root)?)
        })?;
        let output = Slots { factor, ..output };
        let packed = self.lower(&places, &output, 1.0 / factor)?;
        Ok(Tensor::packed(places, packed, x.first))
    }
}
