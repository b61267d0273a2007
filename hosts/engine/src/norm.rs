//! Layer norms.

use crate::algebra::Algebra;
use crate::executor::{Engine, NORM_MARGIN};
use crate::tensor::Slots;
use crate::{Error, Tensor};
use std::cell::RefCell;
use std::rc::Rc;
use veilformer::transformer::Norm;
use veilformer::transformer::slots::{Model, SlotArithmetic};

impl<G: Algebra, M: Model> Engine<'_, G, M> {
    /// x̂ = x/√(variance + ε) of a stream whose mean is zero; gain and bias are left to the next linear map.
    ///
    /// Levels: the square, one constant that is also the mask of sums that must not run into each other, the root, the product.
    pub(crate) fn normalise(&mut self, x: &Tensor<G>, norm: Norm) -> Result<Tensor<G>, Error> {
        let form = Error::Form { operation: "a norm" };
        let approximation = self.approximation(norm.site().ok_or(form)?)?;
        let (slots, places, config) = (self.slots_of(x)?, x.places, self.config());
        let (interval, turns) = (approximation.interval(), places.rows_in_slots());
        let (half, middle) = (0.5 * interval.width(), 0.5 * (interval.low() + interval.high()));
        let constant = 1.0 / (config.width as f64 * slots.factor * slots.factor * half);
        let offset = (config.norm_epsilon - middle) / half;
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
                normalised.push(
                    parts
                        .into_iter()
                        .map(|x| arithmetic.multiply(x, &root))
                        .collect::<Result<Vec<_>, _>>()?,
                );
            }
            let mut normalised = normalised.into_iter();
            let lower = normalised.next().ok_or(form)?;
            let mut upper = normalised.next().unwrap_or_default().into_iter();
            halves.extend(lower.into_iter().map(|lower| (lower, upper.next())));
        }
        let slots = Slots { factor: slots.factor, halves };
        let bound = NORM_MARGIN * (config.width as f64).sqrt();
        let packed = self.lower(&places, &slots, bound)?;
        Ok(Tensor {
            pending: Some(norm),
            slots: RefCell::new(Some(Rc::new(slots))),
            ..Tensor::packed(places, packed, x.first)
        })
    }
}
