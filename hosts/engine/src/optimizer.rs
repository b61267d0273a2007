//! AdamW-HE on encrypted weights, all of them at once, entry by entry in slots.

use crate::Error;
use crate::algebra::{Algebra, Halves};
use crate::executor::Engine;
use crate::functions::compose;
use crate::tensor::Slots;
use veilformer::transformer::slots::{Model, SlotArithmetic};
use veilformer::transformer::{Moments, OptimizerExecutor, Site, Step, adamw_he};

impl<G: Algebra, M: Model> Engine<'_, G, M> {
    /// One step of AdamW-HE with the gradients summed since the last one; the new weights are taken in. Moments are kept
    /// between steps; they start at zero.
    ///
    /// # Errors
    /// From the scheme; [`Error::MissingWeights`] where none are trained.
    pub fn optimize(&mut self, step: &Step) -> Result<(), Error> {
        let gradient = self.take_gradients()?;
        let form = Error::Form { operation: "the optimizer" };
        let weights = self.trained.take().ok_or(form)?.weights;
        let moments = match self.moments.take() {
            Some([first, second]) => [first, second],
            None => {
                let mut zero = || {
                    self.each(&gradient, |slots, _, _, x| {
                        let mut zero = slots.duplicate(x)?;
                        slots.subtract_assign(&mut zero, x)?;
                        Ok(zero)
                    })
                };
                [zero()?, zero()?]
            }
        };
        let [first, second] = moments;
        let mut moments = Moments { weights, first, second };
        adamw_he(self, step, &mut moments, &gradient, true)?;
        let [weights, first, second] =
            [moments.weights, moments.first, moments.second].map(|x| self.refreshed(&x));
        self.moments = Some([first?, second?]);
        self.set_trained(weights?.halves)
    }

    /// The weights as they are now, in slots.
    pub fn weights(&self) -> Option<&[Halves<G::Vector>]> {
        self.trained.as_ref().map(|trained| &trained.weights.halves[..])
    }

    fn refreshed(&mut self, x: &Slots<G::Vector>) -> Result<Slots<G::Vector>, Error> {
        let slots = self.algebra.slots();
        let mut halves = Vec::with_capacity(x.halves.len());
        for (lower, upper) in &x.halves {
            halves.push(match upper {
                Some(upper) => {
                    let (lower, upper) = slots.refresh_pair(lower, upper)?;
                    (lower, Some(upper))
                }
                None => (slots.refresh(lower)?, None),
            });
        }
        Ok(Slots { factor: 1.0, halves })
    }
}

impl<G: Algebra, M: Model> OptimizerExecutor for Engine<'_, G, M> {
    type Vector = Slots<G::Vector>;
    type Error = Error;

    fn combine(
        &mut self,
        a: f64,
        x: &Slots<G::Vector>,
        b: f64,
        y: &Slots<G::Vector>,
    ) -> Result<Slots<G::Vector>, Error> {
        let form = Error::Form { operation: "the optimizer" };
        let other = |ciphertext: usize, upper: bool| {
            y.halves.get(ciphertext).and_then(|halves| crate::tensor::half_of(halves, upper)).ok_or(form)
        };
        self.each(x, |slots, ciphertext, upper, x| {
            let y = other(ciphertext, upper)?;
            let level = slots.level(x).min(slots.level(y)).saturating_sub(1);
            let mut sum = slots.scale(x, a, level)?;
            let more = slots.scale(y, b, level)?;
            slots.add_assign(&mut sum, &more)?;
            Ok(sum)
        })
    }

    fn product(&mut self, x: &Slots<G::Vector>, y: &Slots<G::Vector>) -> Result<Slots<G::Vector>, Error> {
        Ok(Slots { factor: 1.0, ..self.products(x, y)? })
    }

    fn inverse_sqrt(&mut self, x: &Slots<G::Vector>, factor: f64) -> Result<Slots<G::Vector>, Error> {
        let approximation = self.approximation(Site::Optimizer)?;
        let interval = approximation.interval();
        let (half, middle) = (0.5 * interval.width(), 0.5 * (interval.low() + interval.high()));
        let coefficients = compose(&approximation, half, middle);
        self.each(x, |slots, _, _, x| {
            let level = slots.level(x).saturating_sub(1);
            let mut unit = slots.scale(x, factor / half, level)?;
            slots.add_known_assign(&mut unit, &|_| (1.0 - middle) / half)?;
            Ok(slots.chebyshev(&unit, &coefficients)?)
        })
    }
}
