//! What a run will need, known before it starts: levels, keys, memory, work.

use crate::exit::{Exit, Failure};
use crate::keyfile::KeyLayout;
use crate::model::LoadedModel;
use crate::watch::Watched;
use veilformer::ckks::server::bootstrap::BootstrapPlan;
use veilformer::ckks::{KeyRequest, KeyShape, Parameters};
use veilformer::transformer::forward;
use veilformer::transformer::slots::{Layout, Plan, PlanSlots, SlotExecutor, SlotTensor};

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
        // With bootstraps nothing is saved by starting lower: they would come sooner.
        let input_level = if trial.refreshes > 0 { top } else { top - trial.lowest_level };
        let (plan, layout, output_level, work) = dry_run(parameters, model, input_level)?;
        let key_limbs = plan.keys.iter().map(|request| key_limbs(parameters, *request)).sum();
        let key_bytes = KeyLayout::new(parameters, &plan.keys).len();
        Ok(Self {
            layout,
            input_level,
            mask_level: mask_level(input_level),
            output_level,
            key_limbs,
            working_limbs: working_limbs(parameters, model, input_level),
            // A thread raises one limb of every digit at a time.
            thread_limbs: parameters.digits(input_level) + 1,
            key_bytes,
            work,
            plan,
        })
    }

    /// Limbs the server's pool may hand out when it holds all keys of the plan.
    pub(crate) fn server_limbs(&self, threads: usize) -> usize {
        self.server_limbs_with(self.key_limbs, threads)
    }

    /// The same with so many limbs of keys.
    pub(crate) fn server_limbs_with(&self, key_limbs: usize, threads: usize) -> usize {
        key_limbs + self.working_limbs + threads * self.thread_limbs
    }
}

/// Limbs that a key takes in memory.
pub(crate) fn key_limbs(parameters: &Parameters, request: KeyRequest) -> usize {
    let KeyShape { digits, basis, .. } = parameters.key_shape(request.id, request.level);
    2 * digits * basis.len()
}

fn mask_level(input_level: usize) -> usize {
    input_level.saturating_sub(1)
}

/// The largest working set of the model's own is that of the first transform:
/// the digits of its input raised, two polynomials for each of four giant
/// steps, a rotated copy, a diagonal, the total with its key switch. A bootstrap
/// needs its constants and, for its first stage upwards, eight giant sums, the
/// digits, and the halves of a key switch. Beside either, the tensors that live on.
fn working_limbs(parameters: &Parameters, model: &LoadedModel, level: usize) -> usize {
    // What a layer keeps at most; keys and values at several shifts where every token attends.
    let alive = if model.config().layers > 1 { 38 } else { 6 };
    let tensor = 2 * (level + 1);
    let raised = (parameters.digits(level) + 2 * 4 + 7) * parameters.key_basis(level).len();
    let leveled = raised + alive * tensor;
    match BootstrapPlan::new(parameters) {
        Ok(plan) => {
            let stage = 40 * parameters.key_basis(parameters.top_level()).len();
            plan.limbs() + leveled.max(stage + 6 * tensor)
        }
        Err(_) => leveled,
    }
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
    let view = model.view();
    let mut executor = SlotExecutor::new(watched, &view)?;
    let layout = *executor.layout();
    let output =
        forward(model.config(), &mut executor, SlotTensor::tokens(tokens), &SlotTensor::tokens(mask))?;
    let slots = executor.into_slots().into_inner();
    let output_level = veilformer::transformer::slots::SlotArithmetic::level(&slots, output.vector());
    Ok((slots.finish(), layout, output_level, work))
}
