//! The gate and tanh.

use crate::algebra::Algebra;
use crate::executor::Engine;
use crate::tensor::{Kept, Slots, at_most};
use crate::{Error, Tensor};
use std::cell::RefCell;
use std::rc::Rc;
use veilformer::approx::{Approximation, clenshaw, derivative};
use veilformer::transformer::Site;
use veilformer::transformer::slots::{Model, SlotArithmetic};

/// Room for the error of a polynomial in the bound on what it returns.
const RANGE_MARGIN: f64 = 1.1;

/// Arguments whose scale is this close to their interval's are taken as they come.
const NEARLY: f64 = 1.0 / 64.0;

/// Coefficients this small beside the largest are what rounding left of terms that symmetry takes away.
const NEGLIGIBLE: f64 = 1.0 / (1u64 << 44) as f64;

/// The coefficients of p(from_unit⁻¹(a·t + b)) in t: the polynomial of an approximation for slots that are not its own
/// unit interval but t with argument a·t + b. Exact: the degree is the same. An even polynomial, or one that is even
/// but for its linear term as a gate's, stays one to the last bit: the powers that only other terms ask for would
/// each cost a product.
pub(crate) fn compose(approximation: &Approximation<'_>, a: f64, b: f64) -> Vec<f64> {
    let count = approximation.coefficients().len();
    let angle = |i: usize| std::f64::consts::PI * (i as f64 + 0.5) / count as f64;
    let values: Vec<f64> = (0..count)
        .map(|i| {
            let unit = approximation.interval().to_unit(a * angle(i).cos() + b);
            clenshaw(approximation.coefficients(), unit)
        })
        .collect();
    let mut coefficients: Vec<f64> = (0..count)
        .map(|j| {
            let sum: f64 = values.iter().enumerate().map(|(i, y)| y * (j as f64 * angle(i)).cos()).sum();
            sum * if j == 0 { 1.0 } else { 2.0 } / count as f64
        })
        .collect();
    let least = NEGLIGIBLE * coefficients.iter().fold(0.0, |most: f64, c| most.max(c.abs()));
    coefficients.iter_mut().filter(|c| c.abs() < least).for_each(|c| *c = 0.0);
    coefficients
}

/// Levels that a polynomial of so many coefficients takes.
pub(crate) fn depth(coefficients: usize) -> usize {
    (usize::BITS - coefficients.saturating_sub(1).leading_zeros()) as usize
}

impl<G: Algebra, M: Model> Engine<'_, G, M> {
    /// dg → d(a | b): da = dg ⊙ ReLU(b), db = dg ⊙ a ⊙ the slope at b.
    pub(crate) fn gated_backward(
        &mut self,
        hidden: &Tensor<G>,
        d_gated: &Tensor<G>,
        layer: usize,
    ) -> Result<Tensor<G>, Error> {
        let d = if d_gated.places == hidden.places {
            self.slots_of(d_gated)?
        } else {
            Rc::new(self.raise(&hidden.places, &d_gated.packed)?)
        };
        let kept = self.kept(Site::Gate(layer));
        let Some(Kept::Gate { relu, sloped }) = kept.as_deref() else {
            return Err(Error::Form { operation: "a gate's gradient" });
        };
        let (a, b) = (self.products(&d, relu)?, self.products(&d, sloped)?);
        let (places, bound) = (hidden.places, 1.0 / d.factor);
        let packed = self.lower(&places, &a, bound / relu.factor)?;
        let gated = self.lower(&places, &b, bound / sloped.factor)?;
        Ok(Tensor { gated, ..Tensor::packed(places, packed, hidden.first) })
    }

    /// dy ⊙ (1 − y²), times `factor` in the slots.
    pub(crate) fn hyperbolic_backward(
        &mut self,
        y: &Tensor<G>,
        dy: &Tensor<G>,
        factor: f64,
    ) -> Result<Tensor<G>, Error> {
        let (values, d) = (self.slots_of(y)?, self.slots_of(dy)?);
        let slope = self.each(&values, |slots, _, _, y| {
            let mut slope = slots.multiply(y, y)?;
            slots.negate_assign(&mut slope)?;
            slots.add_known_assign(&mut slope, &|_| 1.0)?;
            Ok(slope)
        })?;
        let constant = factor / d.factor;
        let scaled = self.each(&d, |slots, _, _, d| {
            let level = slots.level(d).saturating_sub(1);
            Ok(slots.scale(d, constant, level)?)
        })?;
        let product = self.products(&Slots { factor, ..scaled }, &slope)?;
        let packed = self.lower(&y.places, &Slots { factor, ..product }, 1.0 / factor)?;
        Ok(Tensor::packed(y.places, packed, y.first))
    }

    /// a ⊙ ReLU(b).
    pub(crate) fn gated(&mut self, hidden: &Tensor<G>, layer: usize) -> Result<Tensor<G>, Error> {
        let approximation = self.approximation(Site::Gate(layer))?;
        let places = hidden.places;
        let reach = approximation.interval().high();
        let [b, a] = match hidden.halves.take() {
            Some(halves) => halves,
            None => self.raise_all(&places, [&hidden.gated, &hidden.packed])?,
        };
        let polynomial = compose(&approximation, 1.0 / b.factor, 0.0);
        // What the polynomial and the products here and in the backward pass leave over is dropped first.
        let levels = self.gate_levels(layer)?;
        let enough = self.algebra.slots().floor() + levels;
        let b = self.each(&b, |slots, _, _, x| Ok(at_most(slots, x, enough)?))?;
        let relu: Vec<f64> = polynomial.iter().map(|c| c / reach).collect();
        let relu = self.each(&b, |slots, _, _, x| Ok(slots.chebyshev(x, &relu)?))?;
        let relu = Slots { factor: 1.0 / reach, ..relu };
        let product = self.products(&a, &relu)?;
        if self.is_recording() {
            let mut slope = vec![0.0; polynomial.len() - 1];
            derivative(&polynomial, &mut slope);
            slope.iter_mut().for_each(|c| *c *= b.factor);
            let slope = self.each(&b, |slots, _, _, x| Ok(slots.chebyshev(x, &slope)?))?;
            let sloped = self.products(&a, &Slots { factor: 1.0, ..slope })?;
            self.keep(Site::Gate(layer), Kept::Gate { relu, sloped });
        }
        let bound = reach * hidden.packed.first().map_or(1.0 / a.factor, |matrix| matrix.entries.bound);
        let packed = self.lower(&places, &product, bound)?;
        Ok(Tensor::packed(places, packed, hidden.first))
    }

    /// Levels that the gated half of a hidden layer takes above the lowest from which slots are lowered.
    pub(crate) fn gate_levels(&self, layer: usize) -> Result<usize, Error> {
        let coefficients = self.approximation(Site::Gate(layer))?.coefficients().len();
        Ok(depth(coefficients) + 1 + usize::from(self.is_recording()))
    }

    /// The function of a site, entry by entry.
    pub(crate) fn function(&mut self, x: &Tensor<G>, site: Site) -> Result<Tensor<G>, Error> {
        let approximation = self.approximation(site)?;
        let slots = self.slots_of(x)?;
        let interval = approximation.interval();
        let (half, middle) = (0.5 * interval.width(), 0.5 * (interval.low() + interval.high()));
        let places = x.places;
        // A level brings the argument to its interval's scale, unless it has come so.
        let scaled = if (slots.factor * half - 1.0).abs() < NEARLY {
            None
        } else {
            let factor = 1.0 / (slots.factor * half);
            let scaled = self.each(&slots, |slots, _, _, x| {
                let level = slots.level(x).saturating_sub(1);
                Ok(slots.scale(x, factor, level)?)
            })?;
            Some(Slots { factor: 1.0 / half, ..scaled })
        };
        let arguments = scaled.as_ref().unwrap_or(&slots);
        let coefficients = compose(&approximation, 1.0 / arguments.factor, middle);
        let offset = -middle * arguments.factor;
        let empty = clenshaw(&coefficients, 0.0);
        let y = self.each(arguments, |slots, ciphertext, upper, x| {
            let mut unit = slots.duplicate(x)?;
            // Empty places stay in the middle, and empty behind the function.
            let filled = |slot: usize| places.at(ciphertext, upper, slot).is_some();
            if offset != 0.0 {
                slots.add_known_assign(&mut unit, &|slot| if filled(slot) { offset } else { 0.0 })?;
            }
            let mut y = slots.chebyshev(&unit, &coefficients)?;
            if empty != 0.0 {
                slots.add_known_assign(&mut y, &|slot| if filled(slot) { 0.0 } else { -empty })?;
            }
            Ok(y)
        })?;
        let y = Slots { factor: 1.0, ..y };
        let end = |x: f64| approximation.function().evaluate(x).abs();
        let bound = RANGE_MARGIN * end(interval.low()).max(end(interval.high()));
        // The loss goes on in slots.
        let packed = if site == Site::Tanh { self.lower(&x.places, &y, bound)? } else { Vec::new() };
        let slots = RefCell::new(Some(Rc::new(y)));
        Ok(Tensor { slots, ..Tensor::packed(x.places, packed, x.first) })
    }

    /// a ⊙ b.
    pub(crate) fn product(&mut self, a: &Tensor<G>, b: &Tensor<G>) -> Result<Tensor<G>, Error> {
        let bound = |x: &Tensor<G>| x.packed.first().map_or(1.0, |matrix| matrix.entries.bound);
        let bound = bound(a) * bound(b);
        let (x, y) = (self.slots_of(a)?, self.slots_of(b)?);
        let product = self.products(&x, &y)?;
        let packed = self.lower(&a.places, &product, bound)?;
        Ok(Tensor::packed(a.places, packed, a.first))
    }

    /// Slot by slot.
    pub(crate) fn products(
        &mut self,
        x: &Slots<G::Vector>,
        y: &Slots<G::Vector>,
    ) -> Result<Slots<G::Vector>, Error> {
        let mut product = Slots { factor: x.factor * y.factor, halves: Vec::new() };
        if x.halves.len() != y.halves.len() {
            return Err(Error::Form { operation: "a product" });
        }
        for ((x, x_upper), (y, y_upper)) in x.halves.iter().zip(&y.halves) {
            let arithmetic = self.algebra.slots();
            let upper = match (x_upper, y_upper) {
                (Some(x), Some(y)) => Some(arithmetic.multiply(x, y)?),
                _ => None,
            };
            product.halves.push((arithmetic.multiply(x, y)?, upper));
        }
        Ok(product)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use veilformer::approx::{Function, Interval, fit};

    #[test]
    fn a_composed_polynomial_is_the_polynomial() {
        let interval = Interval::new(-3.0, 0.0).unwrap();
        let mut coefficients = [0.0; 12];
        let fitted = fit(Function::Exp, interval, 2, 0, &mut coefficients).unwrap();
        let composed = compose(&fitted, 1.4, -1.45);
        for i in 0..50 {
            let t = f64::from(i) / 25.0 - 0.99;
            let squared = clenshaw(&composed, t).powi(4);
            assert!((squared - fitted.evaluate(1.4 * t - 1.45)).abs() < 1e-12);
        }
    }

    #[test]
    fn a_gates_odd_terms_stay_none_but_the_first() {
        let relu = |x: f64| x.max(0.0);
        // Interpolated at Chebyshev points, without the terms that |x| does not have.
        let mut coefficients = [0.0; 32];
        for (j, c) in coefficients.iter_mut().enumerate().filter(|(j, _)| *j == 1 || j % 2 == 0) {
            let angle = |i: i32| std::f64::consts::PI * (f64::from(i) + 0.5) / 32.0;
            let sum: f64 = (0..32).map(|i| relu(angle(i).cos()) * (j as f64 * angle(i)).cos()).sum();
            *c = sum * if j == 0 { 1.0 } else { 2.0 } / 32.0;
        }
        let interval = Interval::new(-3.7, 3.7).unwrap();
        let gate = Approximation::new(Function::Relu, interval, 0, &coefficients).unwrap();
        let composed = compose(&gate, 2.9, 0.0);
        let present: Vec<bool> = composed.iter().map(|c| *c != 0.0).collect();
        let expected: Vec<bool> = (0..32).map(|j| j == 1 || j % 2 == 0).collect();
        assert_eq!(present, expected);
    }
}
