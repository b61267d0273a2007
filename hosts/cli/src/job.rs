//! What a run will need, known before it starts: levels, keys, memory, work.

use crate::exit::{Exit, Failure};
use crate::model::LoadedModel;
use crate::watch::Watched;
use veilformer::ckks::{Parameters, SwitchingKey};
use veilformer::transformer::forward;
use veilformer::transformer::slots::{Layout, Plan, PlanSlots, SlotExecutor, SlotTensor};
use veilformer::wire;

/// The plan of one batch under one set of parameters.
pub(crate) struct Job {
    pub(crate) layout: Layout,
    /// The level the tokens are encrypted at: the lowest that suffices.
    pub(crate) input_level: usize,
    /// The level the mask is encrypted at: it is first needed after one product.
    pub(crate) mask_level: usize,
    /// The level of the logits.
    pub(crate) output_level: usize,
    pub(crate) plan: Plan,
    /// Limbs that all evaluation keys take in memory.
    pub(crate) key_limbs: usize,
    /// Limbs that the run takes on top, and one more thread more.
    pub(crate) working_limbs: usize,
    thread_limbs: usize,
    /// Bytes of the file of evaluation keys.
    pub(crate) key_bytes: u64,
    /// Work, in transforms of one limb.
    pub(crate) work: f64,
}

impl Job {
    pub(crate) fn new(parameters: &Parameters, model: &LoadedModel) -> Result<Self, Failure> {
        let top = parameters.max_level();
        let short = |failure: Failure| match failure.exit {
            Exit::Failure => Failure::new(
                Exit::Usage,
                format!(
                    "{}: the model does not fit {} levels at N = {}; choose deeper parameters",
                    failure.message,
                    top,
                    parameters.degree()
                ),
            ),
            _ => failure,
        };
        let (trial, ..) = dry_run(parameters, model, top).map_err(short)?;
        let input_level = top - trial.lowest_level;
        let (plan, layout, output_level, work) = dry_run(parameters, model, input_level)?;
        let limbs = |level| SwitchingKey::<veilformer_multicore::Multicore>::limbs_needed(parameters, level);
        let key_limbs = plan.keys.iter().map(|k| limbs(k.level)).sum();
        let key_bytes = wire::BUNDLE_LEN
            + wire::PARAMETERS_LEN
            + plan.keys.iter().map(|k| wire::switching_key_len(parameters, *k)).sum::<u64>();
        Ok(Self {
            layout,
            input_level,
            mask_level: mask_level(input_level),
            output_level,
            key_limbs,
            working_limbs: working_limbs(parameters, input_level),
            // A thread raises one limb of every digit at a time.
            thread_limbs: parameters.digits(input_level) + 1,
            key_bytes,
            work,
            plan,
        })
    }

    /// Bytes of the evaluation keys alone.
    pub(crate) fn key_objects_bytes(&self) -> u64 {
        self.key_bytes - wire::BUNDLE_LEN - wire::PARAMETERS_LEN
    }

    /// Limbs the server's pool may hand out.
    pub(crate) fn server_limbs(&self, threads: usize) -> usize {
        self.key_limbs + self.working_limbs + threads * self.thread_limbs
    }
}

fn mask_level(input_level: usize) -> usize {
    input_level.saturating_sub(1)
}

/// The largest working set is that of the first transform: the digits of its
/// input raised, two polynomials for each of four giant steps, a rotated copy,
/// a diagonal, the total with its key switch; beside it the tensors that live on.
fn working_limbs(parameters: &Parameters, level: usize) -> usize {
    let raised = (parameters.digits(level) + 2 * 4 + 7) * parameters.key_basis(level).len();
    raised + 6 * 2 * (level + 1)
}

fn dry_run(
    parameters: &Parameters,
    model: &LoadedModel,
    level: usize,
) -> Result<(Plan, Layout, usize, f64), Failure> {
    let mut work = 0.0;
    let slots = PlanSlots::new(parameters);
    let (tokens, mask) = (slots.input(level), slots.input(mask_level(level)));
    let watched = Watched::new(slots, parameters, |w| work += w);
    let mut executor = SlotExecutor::new(watched, model)?;
    let layout = *executor.layout();
    let output =
        forward(model.config(), &mut executor, SlotTensor::tokens(tokens), &SlotTensor::tokens(mask))?;
    let slots = executor.into_slots().into_inner();
    let output_level = veilformer::transformer::slots::SlotArithmetic::level(&slots, output.vector());
    Ok((slots.finish(), layout, output_level, work))
}
