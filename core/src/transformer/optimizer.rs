//! AdamW-HE (PAPER.md, algorithm 1), written once over an [`OptimizerExecutor`].
//!
//! For a weight θ with gradient g at step t = 1, 2, …, bias correction included and ε inside the root:
//!
//! ```text
//! m ← β₁·m + (1−β₁)·g        m̂ = m/(1−β₁ᵗ)
//! v ← β₂·v + (1−β₂)·g²       v̂ = v/(1−β₂ᵗ)
//! θ ← (1−lr·wd)·θ − lr·m̂/√(v̂ + ε)
//! ```
//!
//! What a ciphertext holds must stay within ±1 and well above the noise; the form computed here sees to that:
//! * m̂ and v̂ are kept instead of m and v. They are running means, m̂ₜ = a·m̂ₜ₋₁ + (1−a)·g with a = β·(1−βᵗ⁻¹)/(1−βᵗ), which is
//!   0 at the first step. v would start at a thousandth of g² and be multiplied by a thousand when it is used.
//! * gradients come in a `unit` U of the executor's choice: a mean gradient is U times what the executor holds. With U at
//!   least the largest gradient seen in calibration (the model's bound at [`Site::Optimizer`]), |g|, |m̂| ≤ 1 and 0 ≤ v̂ ≤ 1.
//! * lr·m̂/√(v̂ + ε) = (lr/√ε)·m̂·r, with r = 1/√(1 + v̂/ε) in (0, 1]. The interval of [`Site::Optimizer`] starts at 1 whatever ε
//!   and U are, and ends at 1 + v̂/ε for the largest v̂ seen: it is ε, not v̂, that the range is measured in.
//!
//! Weights keep their own unit: LoRA factors and head matrices are well within ±1.

#[cfg(doc)]
use super::Site;

/// What the optimizer computes with: vectors of weights, one entry each, in whatever form the executor has them.
pub trait OptimizerExecutor {
    /// A vector.
    type Vector;
    /// What can go wrong.
    type Error;

    /// a·x + b·y.
    fn combine(
        &mut self,
        a: f64,
        x: &Self::Vector,
        b: f64,
        y: &Self::Vector,
    ) -> Result<Self::Vector, Self::Error>;

    /// x ⊙ y.
    fn product(&mut self, x: &Self::Vector, y: &Self::Vector) -> Result<Self::Vector, Self::Error>;

    /// 1/√(1 + factor·x), entry by entry. The argument at [`Site::Optimizer`] is that sum.
    fn inverse_sqrt(&mut self, x: &Self::Vector, factor: f64) -> Result<Self::Vector, Self::Error>;
}

/// The constants of AdamW-HE.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct AdamWHe {
    /// At the first step, lr; falls to 0 along a cosine.
    pub learning_rate: f64,
    /// Decay of the first moment, in [0, 1).
    pub beta1: f64,
    /// Decay of the second moment, in [0, 1).
    pub beta2: f64,
    /// Inside the root: bounds it from below. Positive.
    pub epsilon: f64,
    /// Decoupled weight decay, wd.
    pub weight_decay: f64,
}

/// Why constants cannot be used.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum OptimizerError {
    /// The learning rate is negative or not finite.
    LearningRate(f64),
    /// A β outside [0, 1).
    Beta(f64),
    /// ε is not positive and finite.
    Epsilon(f64),
    /// The weight decay is negative or not finite.
    WeightDecay(f64),
}

impl core::fmt::Display for OptimizerError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::LearningRate(x) => write!(f, "the learning rate is {x}, expected a finite number ≥ 0"),
            Self::Beta(x) => write!(f, "a β is {x}, expected a number ≥ 0 and < 1"),
            Self::Epsilon(x) => write!(f, "ε is {x}, expected a finite number > 0"),
            Self::WeightDecay(x) => write!(f, "the weight decay is {x}, expected a finite number ≥ 0"),
        }
    }
}

impl core::error::Error for OptimizerError {}

/// The plain numbers of one step.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Step {
    /// 1 − lr·wd: what is left of a weight that decays.
    pub keep: f64,
    /// What is left of m̂.
    pub first: f64,
    /// What is left of v̂.
    pub second: f64,
    /// U²/ε: v̂, in units U², times this is v̂/ε.
    pub curvature: f64,
    /// lr·U/√ε.
    pub rate: f64,
}

impl AdamWHe {
    /// The paper's β and weight decay, with the learning rate and the ε of a task (PAPER.md, T11).
    pub fn paper(learning_rate: f64, epsilon: f64) -> Self {
        Self { learning_rate, beta1: 0.9, beta2: 0.999, epsilon, weight_decay: 0.01 }
    }

    /// Checks that every step has finite numbers.
    pub fn validate(&self) -> Result<(), OptimizerError> {
        let is_size = |x: f64| x.is_finite() && x >= 0.0;
        if !is_size(self.learning_rate) {
            return Err(OptimizerError::LearningRate(self.learning_rate));
        }
        if let Some(beta) = [self.beta1, self.beta2].into_iter().find(|b| !(0.0..1.0).contains(b)) {
            return Err(OptimizerError::Beta(beta));
        }
        if !is_size(self.epsilon) || self.epsilon == 0.0 {
            return Err(OptimizerError::Epsilon(self.epsilon));
        }
        if !is_size(self.weight_decay) {
            return Err(OptimizerError::WeightDecay(self.weight_decay));
        }
        Ok(())
    }

    /// Step `step` of `steps`, counted from 1, for gradients in units of `unit`.
    pub fn step(&self, step: u32, steps: u32, unit: f64) -> Step {
        let done = f64::from(step.max(1) - 1);
        let cosine = 0.5 * (1.0 + libm::cos(core::f64::consts::PI * done / f64::from(steps.max(1))));
        let learning_rate = self.learning_rate * cosine;
        let left = |beta: f64| beta * (1.0 - libm::pow(beta, done)) / (1.0 - libm::pow(beta, done + 1.0));
        Step {
            keep: 1.0 - learning_rate * self.weight_decay,
            first: left(self.beta1),
            second: left(self.beta2),
            curvature: unit * unit / self.epsilon,
            rate: learning_rate * unit / libm::sqrt(self.epsilon),
        }
    }
}

/// Weights and their moments: m̂ in units U, v̂ in units U², both zero before the first step.
#[derive(Debug, Clone, PartialEq)]
pub struct Moments<V> {
    /// θ.
    pub weights: V,
    /// m̂.
    pub first: V,
    /// v̂.
    pub second: V,
}

/// The weights and moments after one step of AdamW-HE. Gains and biases do not decay ([`super::Parameter::decays`]).
pub fn adamw_he<E: OptimizerExecutor>(
    ex: &mut E,
    step: &Step,
    moments: &Moments<E::Vector>,
    gradient: &E::Vector,
    decays: bool,
) -> Result<Moments<E::Vector>, E::Error> {
    let square = ex.product(gradient, gradient)?;
    let first = ex.combine(step.first, &moments.first, 1.0 - step.first, gradient)?;
    let second = ex.combine(step.second, &moments.second, 1.0 - step.second, &square)?;
    let root = ex.inverse_sqrt(&second, step.curvature)?;
    let direction = ex.product(&first, &root)?;
    let keep = if decays { step.keep } else { 1.0 };
    let weights = ex.combine(keep, &moments.weights, -step.rate, &direction)?;
    Ok(Moments { weights, first, second })
}
