//! The price of bootstrapping, and its keys.

use crate::exit::Failure;
use crate::job::key_limbs;
use crate::keyfile::KeyLayout;
use crate::output::{bytes, seconds};
use crate::watch::Work;
use serde::Serialize;
use veilformer::ckks::server::bootstrap::BootstrapPlan;
use veilformer::ckks::{KeyRequests, Parameters, max_log_q_sparse};

/// The keys of a bootstrap.
pub(crate) fn refreshing_keys(parameters: &Parameters) -> Result<KeyRequests, Failure> {
    let mut keys = KeyRequests::new();
    BootstrapPlan::new(parameters)?.required_keys(parameters, &mut keys)?;
    Ok(keys)
}

/// The price of bootstrapping, before any key exists.
#[derive(Serialize)]
pub(crate) struct Price {
    keys: usize,
    key_file_bytes: u64,
    key_memory_bytes: u64,
    /// The least that keys in use at once take: what `--key-memory` may be.
    key_memory_least_bytes: u64,
    constant_bytes: u64,
    /// Keys, constants and what one bootstrap works with.
    peak_memory_bytes: u64,
    levels_consumed: usize,
    levels_left: usize,
    /// log2 of the probability that a bootstrap fails; nothing when it cannot.
    failure_log2: Option<f64>,
    ephemeral_weight: u32,
    ephemeral_log_q: u32,
    /// The most that 128 bits of security allow; nothing where that is not tabulated.
    ephemeral_log_q_cap: Option<u32>,
    predicted_s: f64,
}

impl Price {
    /// Under parameters with bootstrapping, on a machine that takes `unit` seconds for a unit of work.
    pub(crate) fn new(parameters: &Parameters, unit: f64) -> Result<Self, Failure> {
        let (plan, keys) = (BootstrapPlan::new(parameters)?, refreshing_keys(parameters)?);
        let (literal, limb) = (parameters.literal(), 8 * parameters.degree() as u64);
        let sizes = || keys.iter().map(|request| key_limbs(parameters, *request));
        let (all, largest) = (sizes().sum::<usize>(), sizes().max().unwrap_or(0));
        let log_degree = parameters.chain().log_degree();
        let weight = parameters.bootstrap().map_or(0, |bootstrap| bootstrap.ephemeral_weight);
        Ok(Self {
            keys: keys.len(),
            key_file_bytes: KeyLayout::new(parameters, &keys).len(),
            key_memory_bytes: all as u64 * limb,
            key_memory_least_bytes: (plan.keys_at_once() * largest) as u64 * limb,
            constant_bytes: plan.limbs() as u64 * limb,
            peak_memory_bytes: (all + plan.limbs() + working_limbs(parameters, &plan)) as u64 * limb,
            levels_consumed: plan.top() - plan.output() + plan.floor(),
            levels_left: plan.output() - plan.floor(),
            failure_log2: Some(plan.failure_log2()).filter(|log2| log2.is_finite()),
            ephemeral_weight: weight,
            ephemeral_log_q: literal.base_bits + literal.special_bits,
            ephemeral_log_q_cap: max_log_q_sparse(log_degree, weight),
            predicted_s: unit * Work::new(parameters).bootstrap(&plan, 2),
        })
    }

    /// For people: what, and how much of it.
    pub(crate) fn rows(&self) -> [(&'static str, String); 8] {
        let cap = self.ephemeral_log_q_cap.map_or_else(
            || "no 128-bit limit is known".to_owned(),
            |cap| format!("128-bit security allows {cap}"),
        );
        [
            (
                "keys of bootstrapping",
                format!(
                    "{}: {} as a file, {} in memory, {} at least",
                    self.keys,
                    bytes(self.key_file_bytes),
                    bytes(self.key_memory_bytes),
                    bytes(self.key_memory_least_bytes)
                ),
            ),
            ("its constants", bytes(self.constant_bytes)),
            ("its memory in all", bytes(self.peak_memory_bytes)),
            ("levels it consumes", self.levels_consumed.to_string()),
            ("levels it leaves", self.levels_left.to_string()),
            (
                "chance of failure",
                self.failure_log2.map_or_else(|| "never: |I| ≤ 16".into(), |log2| format!("2^{log2:.0}")),
            ),
            (
                "ephemeral secret",
                format!("weight {}, log2 Q = {}; {cap}", self.ephemeral_weight, self.ephemeral_log_q),
            ),
            ("one bootstrap", format!("{} here", seconds(self.predicted_s))),
        ]
    }
}

/// The largest working set is that of a stage of CoeffToSlot: the digits of its
/// input raised, a sum for every giant step, and while those are rotated
/// another set of digits and three pairs more.
pub(crate) fn working_limbs(parameters: &Parameters, plan: &BootstrapPlan) -> usize {
    let stage = |(level, _, giants): (usize, usize, usize)| {
        let raised = parameters.digits(level) + 2 * giants + 2 * 3;
        raised * parameters.key_basis(level).len() + 2 * (level + 1)
    };
    plan.steps().map(stage).max().unwrap_or(0)
}
