//! The gate and tanh.

use crate::algebra::Algebra;
use crate::executor::Engine;
use crate::tensor::Slots;
use crate::{Error, Tensor};
use std::cell::RefCell;
use std::rc::Rc;
use veilformer::approx::{Approximation, clenshaw};
use veilformer::transformer::Site;
use veilformer::transformer::slots::{Model, SlotArithmetic};

/// Room for the error of a polynomial in the bound on what it returns.
const RANGE_MARGIN: f64 = 1.1;

/// The coefficients of p(from_unit⁻¹(a·t + b)) in t: the polynomial of an approximation for slots that are not its own
/// unit interval but t with argument a·t + b. Exact: the degree is the same.
pub(crate) fn compose(approximation: &Approximation<'_>, a: f64, b: f64) -> Vec<f64> {
    let count = approximation.coefficients().len();
    let angle = |i: usize| std::f64::consts::PI * (i as f64 + 0.5) / count as f64;
    let values: Vec<f64> = (0..count)
        .map(|i| {
            let unit = approximation.interval().to_unit(a * angle(i).cos() + b);
            clenshaw(approximation.coefficients(), unit)
        })
        .collect();
    (0..count)
        .map(|j| {
            let sum: f64 = values.iter().enumerate().map(|(i, y)| y * (j as f64 * angle(i)).cos()).sum();
            sum * if j == 0 { 1.0 } else { 2.0 } / count as f64
        })
        .collect()
}

impl<G: Algebra, M: Model> Engine<'_, G, M> {
    /// a ⊙ ReLU(b).
    pub(crate) fn gated(&mut self, hidden: &Tensor<G>, layer: usize) -> Result<Tensor<G>, Error> {
        let approximation = self.approximation(Site::Gate(layer))?;
        let places = hidden.places;
        let reach = approximation.interval().high();
        let b = self.raise(&places, &hidden.gated)?;
        let relu: Vec<f64> =
            compose(&approximation, 1.0 / b.factor, 0.0).into_iter().map(|c| c / reach).collect();
        let relu = self.each(&b, |slots, _, _, x| Ok(slots.chebyshev(x, &relu)?))?;
        drop(b);
        let a = self.slots_of(hidden)?;
        let product = self.products(&a, &Slots { factor: 1.0 / reach, ..relu })?;
        let bound = reach * hidden.packed.first().map_or(1.0, |matrix| matrix.entries.bound);
        let packed = self.lower(&places, &product, bound)?;
        Ok(Tensor::packed(places, packed, hidden.first))
    }

    /// The function of a site, entry by entry.
    pub(crate) fn function(&mut self, x: &Tensor<G>, site: Site) -> Result<Tensor<G>, Error> {
        let approximation = self.approximation(site)?;
        let slots = self.slots_of(x)?;
        let coefficients = compose(&approximation, 1.0 / slots.factor, 0.0);
        let y = self.each(&slots, |slots, _, _, x| Ok(slots.chebyshev(x, &coefficients)?))?;
        let y = Slots { factor: 1.0, ..y };
        let interval = approximation.interval();
        let end = |x: f64| approximation.function().evaluate(x).abs();
        let bound = RANGE_MARGIN * end(interval.low()).max(end(interval.high()));
        let packed = self.lower(&x.places, &y, bound)?;
        let slots = RefCell::new(Some(Rc::new(y)));
        Ok(Tensor { slots, ..Tensor::packed(x.places, packed, x.first) })
    }

    /// a ⊙ b.
    pub(crate) fn product(&mut self, a: &Tensor<G>, b: &Tensor<G>) -> Result<Tensor<G>, Error> {
        let form = Error::Form { operation: "a product" };
        let bound = |x: &Tensor<G>| x.packed.first().map(|matrix| matrix.entries.bound).ok_or(form);
        let bound = bound(a)? * bound(b)?;
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
}
