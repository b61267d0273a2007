//! What a bootstrap consists of, from the parameters alone: its linear stages,
//! its keys, the memory of its constants.

use super::fourier::{Direction, Stage};
use super::{BOOTSTRAP_DEPTH, MULTIPLES, RANGE, SERIES_DEGREE};
use crate::ckks::{BootstrapLiteral, Error, KeyId, KeyRequests, Parameters};
use crate::ring::Basis;

/// Most linear stages of one bootstrap, both directions together.
const MAX_STAGES: usize = 8;

/// The stages of a bootstrap under some parameters.
#[derive(Clone, Debug)]
pub struct BootstrapPlan {
    stages: heapless::Vec<Stage, MAX_STAGES>,
    literal: BootstrapLiteral,
    top: usize,
    output: usize,
    special: usize,
}

impl BootstrapPlan {
    /// The plan of `parameters`.
    ///
    /// # Errors
    /// [`Error::NoBootstrap`].
    pub fn new(parameters: &Parameters) -> Result<Self, Error> {
        let literal = *parameters.bootstrap().ok_or(Error::NoBootstrap)?;
        let (slots, top) = (parameters.slots(), parameters.top_level());
        let output = parameters.max_level();
        let mut plan = Self {
            stages: heapless::Vec::new(),
            literal,
            top,
            output,
            special: parameters.chain().special(),
        };
        let (down, up) = (literal.slot_to_coeff as usize, literal.coeff_to_slot as usize);
        let q = |level: usize| parameters.chain().moduli()[level].value() as f64;
        // SlotToCoeff leaves the message at q_0/2^ratio. CoeffToSlot takes raised
        // coefficients t to t/(2·RANGE·q_0) at the working scale: twice their real
        // parts are the argument of EvalMod.
        let bottom = plan.message_scale(parameters) / parameters.scale(plan.floor());
        let raised = parameters.scale(top - up) / (2.0 * RANGE * q(0));
        for (direction, first, count, ratio) in
            [(Direction::SlotToCoeff, plan.floor(), down, bottom), (Direction::CoeffToSlot, top, up, raised)]
        {
            let share = libm::pow(ratio, 1.0 / count as f64);
            for (i, level) in (0..count).map(|i| (i, first - i)) {
                let stage = Stage::new(direction, slots, i, count, level, share * q(level))?;
                // Not full: the literal's stages were checked.
                let _ = plan.stages.push(stage);
            }
        }
        Ok(plan)
    }

    /// The scale of the message when it is raised: q_0/2^ratio.
    pub fn message_scale(&self, parameters: &Parameters) -> f64 {
        parameters.chain().moduli()[0].value() as f64 / (1u64 << self.literal.ratio_bits) as f64
    }

    /// The lowest level of a ciphertext whose slots can be refreshed.
    pub fn floor(&self) -> usize {
        (self.literal.slot_to_coeff + self.literal.coefficient_level) as usize
    }

    /// The level at which SlotToCoeff ends.
    pub fn coefficient_level(&self) -> usize {
        self.literal.coefficient_level as usize
    }

    /// The level of a refreshed ciphertext.
    pub fn output(&self) -> usize {
        self.output
    }

    /// The level at which the sine is done.
    pub(super) fn sine(&self) -> usize {
        self.output + self.literal.arcsine_levels() as usize
    }

    /// Whether the sine is undone.
    pub(super) fn arcsine(&self) -> bool {
        self.literal.arcsine
    }

    /// log2 of the probability that one bootstrap fails; −∞ for never.
    ///
    /// It fails when a raised coefficient exceeds K·q_0. |c0 + c1·s'| is at most
    /// (1 + h)/2 times q_0 for an ephemeral secret of h non-zero coefficients,
    /// and K is at least that: no failure, whatever the ciphertext. A weight for
    /// which this did not hold, which no checked parameters have, counts as certain to fail.
    pub fn failure_log2(&self) -> f64 {
        let most = self.literal.ephemeral_weight.div_ceil(2);
        if most <= MULTIPLES { f64::NEG_INFINITY } else { 0.0 }
    }

    /// The level at which a raised ciphertext begins.
    pub fn top(&self) -> usize {
        self.top
    }

    /// Level, baby steps and giant steps of every linear stage, those of SlotToCoeff first.
    pub fn steps(&self) -> impl Iterator<Item = (usize, usize, usize)> {
        self.stages
            .iter()
            .map(|stage| (stage.level, stage.turns.babies().count(), stage.turns.giants().count()))
    }

    /// Most keys that are in use together: those of one stage's baby steps.
    pub fn keys_at_once(&self) -> usize {
        self.steps().map(|(_, babies, _)| babies).max().unwrap_or(0).max(1)
    }

    pub(super) fn all_stages(&self) -> &[Stage] {
        &self.stages
    }

    pub(super) fn stages(&self, direction: Direction) -> impl Iterator<Item = &Stage> {
        self.stages.iter().filter(move |stage| stage.direction == direction)
    }

    /// Q_level ∪ P of a stage.
    pub(super) fn basis(&self, stage: &Stage) -> Basis {
        Basis::level(stage.level).with_special(self.special)
    }

    /// The place of a stage's factors among the limbs of the constants.
    pub(super) fn place(&self, stage: &Stage) -> core::ops::Range<usize> {
        let size = |s: &Stage| s.turns.limbs_per_prime() * self.basis(s).len();
        let start = self.stages.iter().take_while(|s| *s != stage).map(size).sum();
        start..start + size(stage)
    }

    /// Where i, as a polynomial over Q_top, begins among the limbs of the constants.
    pub(super) fn imaginary(&self) -> usize {
        self.stages.last().map_or(0, |stage| self.place(stage).end)
    }

    /// Limbs of the constants.
    pub fn limbs(&self) -> usize {
        self.imaginary() + self.top + 1
    }

    /// The keys of a bootstrap.
    ///
    /// # Errors
    /// [`Error::Full`].
    pub fn required_keys(&self, parameters: &Parameters, keys: &mut KeyRequests) -> Result<(), Error> {
        for stage in &self.stages {
            stage.turns.required_keys(parameters, stage.level, keys)?;
        }
        let sliced = self.top - self.literal.coeff_to_slot as usize;
        keys.add(KeyId::conjugation(parameters), sliced + 1)?;
        keys.add(KeyId::Relinearization, sliced)?;
        keys.add(KeyId::DenseToSparse, 0)?;
        keys.add(KeyId::SparseToDense, self.top)
    }

    /// Degree of EvalMod's series.
    pub const SERIES_DEGREE: usize = SERIES_DEGREE;

    /// The level at which EvalMod starts.
    pub fn eval_mod_level(&self) -> usize {
        self.sine() + BOOTSTRAP_DEPTH as usize
    }
}
