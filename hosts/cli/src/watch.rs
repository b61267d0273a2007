//! Slot arithmetic under observation: the same wrapper weighs a dry run and
//! then shows how far the real one has come.

use std::time::Instant;
use veilformer::ckks::server::bootstrap::BootstrapPlan;
use veilformer::ckks::server::{BabyGiant, chebyshev_depth};
use veilformer::ckks::{Error, Parameters};
use veilformer::transformer::slots::SlotArithmetic;

/// Work, in transforms of one limb; memory traffic is counted as transforms
/// of the same duration.
pub(crate) struct Work<'a> {
    parameters: &'a Parameters,
}

impl<'a> Work<'a> {
    pub(crate) fn new(parameters: &'a Parameters) -> Self {
        Self { parameters }
    }

    fn limbs(&self, level: usize) -> f64 {
        self.parameters.key_basis(level).len() as f64
    }

    fn special(&self) -> f64 {
        self.parameters.chain().special() as f64
    }

    /// Raising every digit, transforms and conversions.
    fn raise(&self, level: usize) -> f64 {
        let (own, digits) = (level as f64 + 1.0, self.parameters.digits(level) as f64);
        own + (1.0 + 0.06 * self.parameters.digit_size() as f64) * (digits * self.limbs(level) - own)
    }

    fn inner_product(&self, level: usize) -> f64 {
        0.35 * 2.0 * self.parameters.digits(level) as f64 * self.limbs(level)
    }

    /// Division of two polynomials by P.
    fn divide(&self, level: usize) -> f64 {
        2.0 * (self.special() + 1.5 * (level as f64 + 1.0))
    }

    pub(crate) fn key_switch(&self, level: usize) -> f64 {
        self.raise(level) + self.inner_product(level) + self.divide(level)
    }

    /// A switch into the small ring or out of it: digits of one prime, one special prime.
    pub(crate) fn narrow_switch(&self, level: usize) -> f64 {
        let own = level as f64 + 1.0;
        own + 1.4 * own * (own + 1.0) + 2.0 * (1.0 + 1.5 * own)
    }

    /// A ciphertext times an encoded factor, and a sum.
    pub(crate) fn limb_products(&self, level: usize) -> f64 {
        PASS * self.limbs(level)
    }

    fn product(&self, level: usize) -> f64 {
        self.key_switch(level) + 2.0 * (level as f64 + 1.0)
    }

    fn rescale(&self, level: usize) -> f64 {
        2.0 * (1.0 + 1.5 * level as f64)
    }

    fn encode(&self, limbs: f64) -> f64 {
        ENCODE + limbs
    }

    fn transform(&self, level: usize, babies: usize, giants: usize) -> f64 {
        let limbs = self.limbs(level);
        let rotations = babies as f64 * (self.inner_product(level) + limbs);
        let diagonals = (babies * giants) as f64 * (self.encode(limbs) + limbs);
        let giants = giants as f64 * (self.key_switch(level) + limbs);
        self.raise(level) + rotations + diagonals + giants + self.divide(level)
    }

    /// The digits are raised once; every baby step is an inner product with its
    /// key, and one pass over memory multiplies and adds for all giant steps.
    fn stage(&self, (level, babies, giants): (usize, usize, usize)) -> f64 {
        let steps = (babies - 1) as f64 * self.inner_product(level);
        let factors = PASS * (babies * giants) as f64 * self.limbs(level);
        let giants = (giants - 1) as f64 * (self.key_switch(level) + self.limbs(level));
        self.raise(level) + steps + factors + giants + self.divide(level)
    }

    /// A bootstrap of `parts` real vectors, two of them packed together.
    pub(crate) fn bootstrap(&self, plan: &BootstrapPlan, parts: usize) -> f64 {
        let start = plan.eval_mod_level();
        let sine: f64 = (plan.output() + 1..plan.output() + 5).map(|l| self.product(l)).sum();
        let raise = 4.0 * (plan.top() + 2) as f64;
        let eval_mod = self.chebyshev(start, BootstrapPlan::SERIES_DEGREE) + sine;
        let stages: f64 = plan.steps().map(|stage| self.stage(stage)).sum();
        CLOSE * (stages + raise + self.key_switch(start) + parts as f64 * eval_mod)
    }

    fn refresh(&self, parts: usize) -> f64 {
        BootstrapPlan::new(self.parameters).map_or(0.0, |plan| self.bootstrap(&plan, parts))
    }

    fn chebyshev(&self, level: usize, degree: usize) -> f64 {
        let depth = chebyshev_depth(degree).max(1);
        let products = depth + (1 << depth.div_ceil(2)) + (1 << (depth / 2));
        products as f64 * self.product(level.saturating_sub(depth / 2))
    }
}

/// Encoding's embedding, rounding and reduction, in transforms of one limb.
const ENCODE: f64 = 20.0;

/// Multiplying a limb by a factor and adding it to two sums, in transforms of one limb.
const PASS: f64 = 0.7;

/// What a bootstrap takes of [`OVERHEAD`]: nothing is encoded, and sums are
/// made in one pass over memory. Measured once on whole bootstraps.
const CLOSE: f64 = 0.67;

/// Seconds of a unit of work over seconds of a transform that stays in the
/// cache: what the units leave out, measured once on whole runs.
pub(crate) const OVERHEAD: f64 = 1.75;

/// Reports every operation and the work it was.
pub(crate) struct Watched<'a, S, F> {
    inner: S,
    work: Work<'a>,
    tick: F,
}

impl<'a, S, F: FnMut(f64)> Watched<'a, S, F> {
    pub(crate) fn new(inner: S, parameters: &'a Parameters, tick: F) -> Self {
        Self { inner, work: Work::new(parameters), tick }
    }

    pub(crate) fn into_inner(self) -> S {
        self.inner
    }

    fn step<R>(
        &mut self,
        name: &'static str,
        level: usize,
        work: f64,
        f: impl FnOnce(&mut S) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let start = Instant::now();
        let result = f(&mut self.inner);
        tracing::debug!(operation = name, level, work, seconds = start.elapsed().as_secs_f64());
        (self.tick)(work);
        result
    }
}

impl<S: SlotArithmetic, F: FnMut(f64)> SlotArithmetic for Watched<'_, S, F> {
    type Vector = S::Vector;
    type Known = S::Known;

    fn slots(&self) -> usize {
        self.inner.slots()
    }

    fn level(&self, x: &S::Vector) -> usize {
        self.inner.level(x)
    }

    fn duplicate(&mut self, x: &S::Vector) -> Result<S::Vector, Error> {
        self.inner.duplicate(x)
    }

    fn add_assign(&mut self, x: &mut S::Vector, y: &S::Vector) -> Result<(), Error> {
        self.inner.add_assign(x, y)
    }

    fn subtract_assign(&mut self, x: &mut S::Vector, y: &S::Vector) -> Result<(), Error> {
        self.inner.subtract_assign(x, y)
    }

    fn negate_assign(&mut self, x: &mut S::Vector) -> Result<(), Error> {
        self.inner.negate_assign(x)
    }

    fn add_known_assign(&mut self, x: &mut S::Vector, known: &dyn Fn(usize) -> f64) -> Result<(), Error> {
        let level = self.level(x);
        let work = self.work.encode(level as f64 + 1.0);
        self.step("add known", level, work, |s| s.add_known_assign(x, known))
    }

    fn products(&mut self, pairs: &[(&S::Vector, &S::Vector)]) -> Result<S::Vector, Error> {
        let level = pairs.iter().map(|(x, y)| self.level(x).min(self.level(y))).min().unwrap_or(0);
        let work = self.work.product(level) + 2.0 * pairs.len() as f64 * (level as f64 + 1.0);
        self.step("multiply", level, work, |s| s.products(pairs))
    }

    fn prepare(&mut self, known: &dyn Fn(usize) -> f64, level: usize) -> Result<S::Known, Error> {
        let work = self.work.encode(level as f64 + 1.0);
        self.step("prepare", level, work, |s| s.prepare(known, level))
    }

    fn weigh(&mut self, pairs: &[(&S::Vector, &S::Known)]) -> Result<S::Vector, Error> {
        let level = pairs.first().map_or(0, |(x, _)| self.level(x));
        let work = self.work.rescale(level) + pairs.len() as f64 * (level as f64 + 1.0);
        self.step("weigh", level, work, |s| s.weigh(pairs))
    }

    fn multiply_known(
        &mut self,
        x: &S::Vector,
        known: &dyn Fn(usize) -> f64,
        level: usize,
    ) -> Result<S::Vector, Error> {
        let work = self.work.encode(level as f64 + 2.0) + self.work.rescale(level);
        self.step("multiply known", level, work, |s| s.multiply_known(x, known, level))
    }

    fn scale(&mut self, x: &S::Vector, factor: f64, level: usize) -> Result<S::Vector, Error> {
        let work = self.work.rescale(level);
        self.step("scale", level, work, |s| s.scale(x, factor, level))
    }

    fn rotate(&mut self, x: &S::Vector, steps: i64) -> Result<S::Vector, Error> {
        let level = self.level(x);
        let work = if steps == 0 { 0.0 } else { self.work.key_switch(level) };
        self.step("rotate", level, work, |s| s.rotate(x, steps))
    }

    fn chebyshev(&mut self, x: &S::Vector, coefficients: &[f64]) -> Result<S::Vector, Error> {
        let level = self.level(x);
        let work = self.work.chebyshev(level, coefficients.len().saturating_sub(1));
        self.step("polynomial", level, work, |s| s.chebyshev(x, coefficients))
    }

    fn transform(
        &mut self,
        x: &S::Vector,
        rotations: BabyGiant<'_>,
        diagonal: &(dyn Fn(usize, usize, &mut [f64]) -> bool + Sync),
    ) -> Result<S::Vector, Error> {
        let level = self.level(x);
        let work = self.work.transform(level, rotations.baby.len(), rotations.giant.len());
        self.step("transform", level, work, |s| s.transform(x, rotations, diagonal))
    }

    fn floor(&self) -> usize {
        self.inner.floor()
    }

    fn refresh(&mut self, x: &S::Vector) -> Result<S::Vector, Error> {
        let (level, work) = (self.level(x), self.work.refresh(1));
        self.step("refresh", level, work, |s| s.refresh(x))
    }

    fn refresh_pair(&mut self, x: &S::Vector, y: &S::Vector) -> Result<(S::Vector, S::Vector), Error> {
        let (level, work) = (self.level(x), self.work.refresh(2));
        self.step("refresh pair", level, work, |s| s.refresh_pair(x, y))
    }
}
