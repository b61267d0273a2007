//! Layer norms.

use crate::algebra::Algebra;
use crate::executor::{Engine, NORM_MARGIN};
use crate::tensor::Slots;
use crate::{Error, Tensor};
use std::cell::RefCell;
use std::rc::Rc;
use veilformer::transformer::slots::{Model, SlotArithmetic};
use veilformer::transformer::{Norm, Parameter};

impl<G: Algebra, M: Model> Engine<'_, G, M> {
    fn gain_and_bias(&self, norm: Norm) -> (Vec<f64>, Vec<f64>) {
        let of = |parameter: Parameter| -> Vec<f64> {
            (0..self.config().width).map(|feature| self.model.weight(parameter, 0, feature)).collect()
        };
        (of(Parameter::Gain(norm)), of(Parameter::Bias(norm)))
    }

    /// The largest Euclidean norm of a token's features behind a layer norm.
    fn norm_bound(&self, norm: Norm) -> f64 {
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
        let (interval, turns) = (approximation.interval(), places.rows_in_slots());
        let (half, middle) = (0.5 * interval.width(), 0.5 * (interval.low() + interval.high()));
        let constant = 1.0 / (config.width as f64 * slots.factor * slots.factor * half);
        let offset = (config.norm_epsilon - middle) / half;
        let (gain, bias) = self.gain_and_bias(norm);
        let rank = places.layout().rank();
        let together = places.ciphertexts_of_one();
        let mut halves = Vec::with_capacity(slots.halves.len());
        for (group, of_one) in slots.halves.chunks(together).enumerate() {
            let mut normalised: Vec<Vec<G::Vector>> = Vec::new();
            for upper in [false, true] {
                let parts: Vec<&G::Vector> =
                    of_one.iter().filter_map(|(l, u)| if upper { u.as_ref() } else { Some(l) }).collect();
                if parts.is_empty() {
                    continue;
                }
                let arithmetic = self.algebra.slots();
                let squares: Vec<_> = parts.iter().map(|x| (*x, *x)).collect();
                let mut sum = arithmetic.products(&squares)?;
                for &turn in turns.cyclic.iter().chain(&turns.bounded) {
                    let turned = arithmetic.rotate(&sum, turn as i64)?;
                    arithmetic.add_assign(&mut sum, &turned)?;
                }
                let at = |slot: usize| places.at(group * together, upper, slot);
                let whole = |slot: usize| {
                    at(slot).is_some_and(|(_, row, _)| turns.bounded.is_empty() || row % rank == 0)
                };
                let known = |slot: usize| if whole(slot) { constant } else { 0.0 };
                let level = arithmetic.level(&sum).saturating_sub(1);
                let mut variance = arithmetic.multiply_known(&sum, &known, level)?;
                for &turn in &turns.bounded {
                    let turned = arithmetic.rotate(&variance, -(turn as i64))?;
                    arithmetic.add_assign(&mut variance, &turned)?;
                }
                // Empty places stay at 0, in the middle of the interval.
                arithmetic.add_known_assign(&mut variance, &|slot| {
                    if at(slot).is_some() { offset } else { 0.0 }
                })?;
                let root = arithmetic.chebyshev(&variance, approximation.coefficients())?;
                let mut outputs = Vec::with_capacity(parts.len());
                for (part, x) in parts.into_iter().enumerate() {
                    let row = |slot: usize| places.at(group * together + part, upper, slot).map(|at| at.1);
                    let known = |of: &[f64], slot: usize| row(slot).map_or(0.0, |row| of[row]);
                    let level = arithmetic.level(&root).max(1);
                    let gained = arithmetic.multiply_known(x, &|slot| known(&gain, slot), level)?;
                    let mut y = arithmetic.multiply(&gained, &root)?;
                    arithmetic.add_known_assign(&mut y, &|slot| slots.factor * known(&bias, slot))?;
                    outputs.push(y);
                }
                normalised.push(outputs);
            }
            let mut normalised = normalised.into_iter();
            let lower = normalised.next().ok_or(form)?;
            let mut upper = normalised.next().unwrap_or_default().into_iter();
            halves.extend(lower.into_iter().map(|lower| (lower, upper.next())));
        }
        let slots = Slots { factor: slots.factor, halves };
        let bound = self.norm_bound(norm);
        let packed = self.lower(&places, &slots, bound)?;
        Ok(Tensor { slots: RefCell::new(Some(Rc::new(slots))), ..Tensor::packed(places, packed, x.first) })
    }
}
