//! AdamW-HE on encrypted weights, all of them at once, entry by entry in slots.

use crate::Error;
use crate::algebra::{Algebra, Halves};
use crate::executor::Engine;
use crate::functions::{compose, depth};
use crate::tensor::{Slots, half_of};
use std::rc::Rc;
use veilformer::transformer::slots::{Model, SlotArithmetic};
use veilformer::transformer::{Moments, OptimizerExecutor, Site, Step, adamw_he};

impl<G: Algebra, M: Model> Engine<'_, G, M> {
    /// One step of AdamW-HE with the gradients summed since the last one; the new weights are taken in. Moments are kept
    /// between steps; they start at zero. After an error weights and moments are what they were.
    ///
    /// # Errors
    /// From the scheme; [`Error::MissingWeights`] where none are trained.
    pub fn optimize(&mut self, step: &Step) -> Result<(), Error> {
        let gradient = Rc::new(self.take_gradients()?);
        let form = Error::Form { operation: "the optimizer" };
        let weights = self.trained().ok_or(form)?.weights.clone();
        let [first, second] = match &self.moments {
            Some(moments) => moments.clone(),
            None => {
                let zero = Rc::new(self.zeros()?);
                [zero.clone(), zero]
            }
        };
        let before = Moments { weights, first, second };
        let after = adamw_he(self, step, &before, &gradient, true)?;
        let weights = Rc::new(self.refreshed(&after.weights)?);
        // v̂ takes a level for itself, one for its root's argument, the root's, one for the direction; m̂ meets it there.
        // The weights' own sum comes last.
        let root = depth(self.approximation(Site::Optimizer)?.coefficients().len());
        let moments = [self.ready(after.first, 3)?, self.ready(after.second, 4 + root)?];
        self.take_in(weights)?;
        self.moments = Some(moments);
        Ok(())
    }

    /// The weights as they are now, in slots.
    pub fn weights(&self) -> Option<&[Halves<G::Vector>]> {
        self.trained().map(|trained| &trained.weights.halves[..])
    }

    /// θ, m̂ and v̂ between two steps: with them a run goes on later, bit for bit.
    pub fn state(&self) -> Option<Moments<&[Halves<G::Vector>]>> {
        let [first, second] = self.moments.as_ref()?;
        Some(Moments { weights: self.weights()?, first: &first.halves, second: &second.halves })
    }

    /// Goes on from what [`Engine::state`] was.
    ///
    /// # Errors
    /// [`Error::Form`] for another number of vectors than the model has; from the scheme.
    pub fn resume(&mut self, state: Moments<Vec<Halves<G::Vector>>>) -> Result<(), Error> {
        let Moments { weights, first, second } = state;
        let places = *self.trained_places()?.places();
        let fits = |halves: &[Halves<G::Vector>]| {
            halves.len() == places.ciphertexts()
                && halves.iter().all(|halves| halves.1.is_some() == places.has_upper_half())
        };
        if ![&weights, &first, &second].into_iter().all(|x| fits(x)) {
            return Err(Error::Form { operation: "the state of a run" });
        }
        self.set_trained(weights)?;
        self.moments = Some([first, second].map(|halves| Rc::new(Slots { factor: 1.0, halves })));
        Ok(())
    }

    /// Starts at the model's own weights, which everybody knows: nothing about them is secret before the first step.
    ///
    /// # Errors
    /// From the scheme.
    pub fn begin(&mut self) -> Result<(), Error> {
        let places = self.trained_places()?;
        let mut weights = self.zeros()?;
        let model = self.model;
        for (ciphertext, (lower, upper)) in weights.halves.iter_mut().enumerate() {
            for (upper, x) in [(false, Some(lower)), (true, upper.as_mut())] {
                let weight = |slot: usize| match places.weight(ciphertext, upper, slot) {
                    Some((parameter, row, column)) => model.weight(parameter, row, column),
                    None => 0.0,
                };
                if let Some(x) = x {
                    self.algebra.slots().add_known_assign(x, &weight)?;
                }
            }
        }
        self.take_in(Rc::new(weights))?;
        let zero = Rc::new(self.zeros()?);
        self.moments = Some([zero.clone(), zero]);
        Ok(())
    }

    /// Vectors in the weights' places that hold nothing.
    fn zeros(&mut self) -> Result<Slots<G::Vector>, Error> {
        let places = *self.trained_places()?.places();
        let mut halves = Vec::with_capacity(places.ciphertexts());
        for _ in 0..places.ciphertexts() {
            let lower = self.algebra.zero()?;
            let upper = places.has_upper_half().then(|| self.algebra.zero()).transpose()?;
            halves.push((lower, upper));
        }
        Ok(Slots { factor: 1.0, halves })
    }

    /// The same, refreshed where a step more would not leave enough of its `levels` for the weights to be.
    fn ready(&mut self, x: Rc<Slots<G::Vector>>, levels: usize) -> Result<Rc<Slots<G::Vector>>, Error> {
        let slots = self.algebra.slots();
        let (enough, mut halves) = (slots.floor() + levels, x.halves.iter());
        let is_ready = halves.all(|(lower, upper)| {
            slots.level(lower) >= enough && upper.as_ref().is_none_or(|x| slots.level(x) >= enough)
        });
        if is_ready { Ok(x) } else { Ok(Rc::new(self.refreshed(&x)?)) }
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

/// The least ε for which every mean gradient within the model's bound keeps 1 + v̂/ε in its polynomial's interval.
///
/// # Errors
/// [`Error::NoApproximation`], [`Error::NoGradientBound`] of a model that is not calibrated for training.
pub fn least_epsilon<M: Model>(model: &M) -> Result<f64, Error> {
    let site = Site::Optimizer;
    let interval = model.approximation(site).ok_or(Error::NoApproximation(site))?.interval();
    let unit = model.gradient_bound(site).ok_or(Error::NoGradientBound(site))?;
    // A hair less: the interval's ends were rounded.
    Ok(unit * unit / (interval.high() - 1.0) * (1.0 - 1e-9))
}

impl<G: Algebra, M: Model> OptimizerExecutor for Engine<'_, G, M> {
    type Vector = Rc<Slots<G::Vector>>;
    type Error = Error;

    fn combine(&mut self, a: f64, x: &Self::Vector, b: f64, y: &Self::Vector) -> Result<Self::Vector, Error> {
        let form = Error::Form { operation: "the optimizer" };
        let other = |ciphertext: usize, upper: bool| {
            y.halves.get(ciphertext).and_then(|halves| half_of(halves, upper)).ok_or(form)
        };
        let sum = self.each(x, |slots, ciphertext, upper, x| {
            let y = other(ciphertext, upper)?;
            let level = slots.level(x).min(slots.level(y)).saturating_sub(1);
            let mut sum = slots.scale(x, a, level)?;
            let more = slots.scale(y, b, level)?;
            slots.add_assign(&mut sum, &more)?;
            Ok(sum)
        })?;
        Ok(Rc::new(sum))
    }

    fn product(&mut self, x: &Self::Vector, y: &Self::Vector) -> Result<Self::Vector, Error> {
        Ok(Rc::new(Slots { factor: 1.0, ..self.products(x, y)? }))
    }

    fn inverse_sqrt(&mut self, x: &Self::Vector, factor: f64) -> Result<Self::Vector, Error> {
        let approximation = self.approximation(Site::Optimizer)?;
        let interval = approximation.interval();
        let (half, middle) = (0.5 * interval.width(), 0.5 * (interval.low() + interval.high()));
        let coefficients = compose(&approximation, half, middle);
        let roots = self.each(x, |slots, _, _, x| {
            let level = slots.level(x).saturating_sub(1);
            let mut unit = slots.scale(x, factor / half, level)?;
            slots.add_known_assign(&mut unit, &|_| (1.0 - middle) / half)?;
            Ok(slots.chebyshev(&unit, &coefficients)?)
        })?;
        Ok(Rc::new(roots))
    }
}
