//! What a job of the encrypted executor will take, by a dry run and this machine's rates.

use crate::args::Size;
use crate::exit::{Exit, Failure};
use crate::keyfile::KeyLayout;
use crate::output::{Stolen, Table, bytes, seconds, taken};
use crate::typical::Typical;
use serde::Serialize;
use std::collections::BTreeMap;
use veilformer::ckks::server::bootstrap::BootstrapPlan;
use veilformer::ckks::{KeyRequests, Parameters};
use veilformer::transformer::Trainable;
use veilformer_engine::Operation;
use veilformer_engine::plan::{Count, Job, Kernel, Phase, Rates, Refusal, Share, Subject, count, job_keys};
use veilformer_multicore::Multicore;
use veilformer_plain::slots::Weights;

/// All operations of one kind.
#[derive(Serialize)]
struct OperationLine {
    operation: String,
    count: usize,
    predicted_s: f64,
    predicted_cpu_s: f64,
}

/// Bootstraps before one operation of the program.
#[derive(Serialize)]
struct StandLine {
    phase: &'static str,
    operation: String,
    bootstraps: usize,
    half_bootstraps: usize,
    reason: &'static str,
}

/// A part of a job.
#[derive(Serialize)]
struct PhaseLine {
    phase: &'static str,
    bootstraps: usize,
    half_bootstraps: usize,
    host_s: f64,
    predicted_s: f64,
}

/// A forecast, in numbers.
#[derive(Serialize)]
pub(crate) struct Forecast {
    model: String,
    /// Whether intervals, bounds or weights are assumed ones.
    assumed: bool,
    job: &'static str,
    /// Weights that are encrypted.
    encrypted: &'static str,
    sentences: usize,
    parameters: Option<&'static str>,
    security_bits: u32,
    degree: usize,
    small_degree: usize,
    log_qp: f64,
    threads: usize,
    /// Levels that a bootstrap leaves in slots; the level that the next one needs; levels in the small ring.
    levels: [usize; 3],
    bootstraps: usize,
    half_bootstraps: usize,
    key_switches: usize,
    keys: usize,
    keys_used: usize,
    key_file_bytes: u64,
    key_memory_bytes: u64,
    peak_limbs: [usize; 2],
    peak_bytes: u64,
    predicted_s: f64,
    predicted_cpu_s: f64,
    phases: Vec<PhaseLine>,
    stands: Vec<StandLine>,
    operations: Vec<OperationLine>,
}

/// Share of the processors from which on a plan is worth a second look: it asks for less than 15 % of error.
const MUCH_STOLEN: f64 = 0.05;

/// This machine's rates for both rings, within a few seconds.
pub(crate) fn rates(parameters: &Parameters, threads: usize) -> Result<[Rates; 2], Failure> {
    let small = parameters.small_ring()?;
    let stolen = Stolen::start();
    let measure = |parameters: &Parameters| -> Result<Rates, Failure> {
        let limbs = Rates::limbs(parameters.degree(), threads);
        let accelerator = Multicore::new(parameters.chain(), threads, limbs)?;
        let rates = accelerator.run(|| Rates::measure(&accelerator, threads))?;
        for kernel in Kernel::ALL {
            let [alone, shared] = rates.unit_s[kernel as usize].map(|s| 1e6 * s);
            tracing::info!(degree = parameters.degree(), ?kernel, alone, shared, "µs a limb");
        }
        let (fork, bookkeeping) = (1e6 * rates.fork_s, 1e6 * rates.bookkeeping_s);
        tracing::info!(degree = parameters.degree(), fork, bookkeeping, "µs a call");
        tracing::info!(degree = parameters.degree(), together = rates.together, "kernels in an operation");
        Ok(rates)
    };
    let rates = [measure(parameters)?, measure(&small)?];
    if let Some(share) = stolen.share().filter(|share| *share > MUCH_STOLEN) {
        tracing::warn!(
            "other machines on this host had {} while rates were measured: planned times may be far off; plan \
             again when they have less",
            taken(share)
        );
    }
    Ok(rates)
}

/// Runs a job dry: the keys it asks for and what it takes.
///
/// # Errors
/// Why it cannot work, and what would help.
pub(crate) fn dry_run(
    parameters: &Parameters,
    weights: &Weights<'_>,
    sentences: usize,
    job: &Job,
    threads: usize,
) -> Result<([KeyRequests; 2], Count), Failure> {
    let refused = |refused: Refusal| {
        let failure = Failure::from(refused.error);
        let failure = Failure { message: refused.to_string(), ..failure };
        refusal(failure, parameters)
    };
    let small = parameters.small_ring()?;
    let keys = job_keys(parameters, weights.config, job).map_err(|error| refused(error.into()))?;
    let subject = Subject { parameters, keys: &keys, threads, limbs: [usize::MAX >> 1; 2] };
    let count = count(&subject, weights, sentences, job).map_err(refused)?;
    for phase in &count.phases {
        for (work, degree) in phase.total().work.iter().zip([parameters.degree(), small.degree()]) {
            for kernel in Kernel::ALL {
                let [alone, shared] = work.units(kernel);
                tracing::info!(phase = phase.name, degree, ?kernel, alone, shared, "limbs");
            }
        }
    }
    Ok((keys, count))
}

/// Plans a job, or says why it cannot work and what would help.
pub(crate) fn forecast(
    parameters: &Parameters,
    model: &Typical,
    sentences: usize,
    job: &Job,
    threads: usize,
    rates: &[Rates; 2],
) -> Result<Forecast, Failure> {
    let small = parameters.small_ring()?;
    let (keys, count) = dry_run(parameters, &model.weights(), sentences, job, threads)?;
    let limb = [parameters.degree(), small.degree()].map(|degree| 8 * degree as u64);
    let bytes_of = |limbs: [usize; 2]| limbs[0] as u64 * limb[0] + limbs[1] as u64 * limb[1];
    let plan = BootstrapPlan::new(parameters)?;
    Ok(Forecast {
        model: model.name.clone(),
        assumed: model.is_assumed,
        job: match job {
            Job::Inference(_) => "inference",
            Job::Step(..) => "step",
        },
        encrypted: match job.encrypted() {
            None => "none",
            Some(Trainable::Adapters) => "LoRA and the head",
            Some(_) => "all matrices",
        },
        sentences,
        parameters: parameters.name(),
        security_bits: if parameters.is_insecure() { 0 } else { 128 },
        degree: parameters.degree(),
        small_degree: small.degree(),
        log_qp: parameters.log_qp(),
        threads,
        levels: [plan.output(), plan.floor(), plan.coefficient_level()],
        bootstraps: count.operations(Operation::Bootstrap),
        half_bootstraps: count.operations(Operation::HalfBootstrap),
        key_switches: count.key_switches(),
        keys: keys.iter().map(|keys| keys.len()).sum(),
        keys_used: count.used.iter().map(|used| used.keys.len()).sum(),
        key_file_bytes: KeyLayout::new(parameters, &keys[0]).len() + KeyLayout::new(&small, &keys[1]).len(),
        key_memory_bytes: bytes_of(count.key_limbs),
        peak_limbs: count.peak,
        peak_bytes: bytes_of(count.peak),
        predicted_s: count.seconds(rates),
        predicted_cpu_s: count.phases.iter().map(|p| p.total().processor_seconds(rates, threads)).sum(),
        phases: count.phases.iter().map(|phase| phase_line(phase, rates)).collect(),
        stands: count.phases.iter().flat_map(stands).collect(),
        operations: operations(&count, rates, threads),
    })
}

fn stands(phase: &Phase) -> impl Iterator<Item = StandLine> {
    phase.bootstraps.iter().map(|stand| StandLine {
        phase: phase.name,
        operation: stand.operation.clone(),
        bootstraps: stand.full,
        half_bootstraps: stand.half,
        reason: reason(&stand.operation),
    })
}

/// Why a bootstrap stands before an operation.
fn reason(operation: &str) -> &'static str {
    let known = [
        ("gradient of", "gradients leave the small ring at its bottom, and are summed up in slots"),
        ("gradient through norm", "a product of a gradient and kept roots, both of all features"),
        ("gradient through", "a product of two vectors, entry by entry"),
        ("norm", "the variance and 1/√ of it"),
        ("kernel", "exp of every score"),
        ("gate", "ReLU, and the product of both halves"),
        ("product with Expand", "1/√ of the variances, for what weights made of the stream in slots"),
        ("function", "a polynomial, entry by entry"),
        ("optimizer", "weights and moments have used their levels up"),
    ];
    known
        .iter()
        .find(|(of, _)| operation.starts_with(of))
        .map_or("entries by themselves, in slots", |(_, why)| why)
}

fn phase_line(phase: &Phase, rates: &[Rates; 2]) -> PhaseLine {
    let of = |operation| phase.shares.get(&operation).map_or(0, |share: &Share| share.count);
    PhaseLine {
        phase: phase.name,
        bootstraps: of(Operation::Bootstrap),
        half_bootstraps: of(Operation::HalfBootstrap),
        host_s: phase.total().host_s,
        predicted_s: phase.total().seconds(rates),
    }
}

/// All phases' operations, longest first, and what lies between them.
fn operations(count: &Count, rates: &[Rates; 2], threads: usize) -> Vec<OperationLine> {
    let mut shares: BTreeMap<String, (usize, f64, f64)> = BTreeMap::new();
    for phase in &count.phases {
        let named = phase.shares.iter().map(|(operation, share)| (format!("{operation:?}"), share));
        for (name, share) in named.chain([("(between operations)".into(), &phase.between)]) {
            let (count, seconds, cpu) = shares.entry(name).or_default();
            *count += share.count;
            *seconds += share.seconds(rates);
            *cpu += share.processor_seconds(rates, threads);
        }
    }
    let line = |(operation, (count, predicted_s, predicted_cpu_s))| OperationLine {
        operation,
        count,
        predicted_s,
        predicted_cpu_s,
    };
    let mut lines: Vec<OperationLine> = shares.into_iter().map(line).collect();
    lines.sort_by(|a, b| b.predicted_s.total_cmp(&a.predicted_s));
    lines
}

/// Why a job cannot work, and what would help.
fn refusal(failure: Failure, parameters: &Parameters) -> Failure {
    let name = parameters.name().unwrap_or("these parameters");
    let help = match failure.exit {
        Exit::Failure => {
            "fewer sentences (--batch), smaller sizes, other --parameters, or a model that was \
                          calibrated to narrower intervals"
        }
        Exit::Resources => "fewer sentences (--batch), or more memory",
        _ => return failure,
    };
    let message = format!("{}: under {name} this job cannot work; what helps: {help}", failure.message);
    Failure::new(if failure.exit == Exit::Failure { Exit::Usage } else { failure.exit }, message)
}

impl Forecast {
    /// Refused where it takes more memory than there is.
    pub(crate) fn within(self, memory: Size) -> Result<Self, Failure> {
        if self.peak_bytes <= memory.0 {
            return Ok(self);
        }
        let message = format!(
            "{} sentences take {} at the peak, and there are {}; what helps: fewer sentences (--batch)",
            self.sentences,
            bytes(self.peak_bytes),
            bytes(memory.0)
        );
        Err(Failure::new(Exit::Resources, message))
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.predicted_s
    }

    pub(crate) fn peak_bytes(&self) -> u64 {
        self.peak_bytes
    }

    pub(crate) fn seconds_a_sentence(&self) -> f64 {
        self.predicted_s / self.sentences as f64
    }

    pub(crate) fn describe(&self) -> String {
        let mut table = Table::new(&["plan", "value"]);
        let security = match self.security_bits {
            0 => "NONE: toy parameters".into(),
            bits => format!("{bits}-bit classical, uniform ternary secret"),
        };
        let [output, floor, small] = self.levels;
        let assumed = if self.assumed { ", some intervals and bounds assumed" } else { "" };
        for (what, value) in [
            ("model", format!("{}{assumed}", self.model)),
            ("job", format!("{} of {} sentences, {} threads", self.job, self.sentences, self.threads)),
            ("encrypted weights", self.encrypted.into()),
            ("parameters", self.parameters.unwrap_or("unnamed").into()),
            ("security", security),
            (
                "N, N of the small ring, log2 QP",
                format!("{}, {}, {:.0}", self.degree, self.small_degree, self.log_qp),
            ),
            ("levels", format!("in slots {output} to {floor}, in the small ring {small} to 0")),
            ("bootstraps", format!("{} and {} of half the slots", self.bootstraps, self.half_bootstraps)),
            ("key switches", self.key_switches.to_string()),
            (
                "evaluation keys",
                format!(
                    "{}, of which {} are used: {} as files, {} in memory",
                    self.keys,
                    self.keys_used,
                    bytes(self.key_file_bytes),
                    bytes(self.key_memory_bytes)
                ),
            ),
            ("memory at the peak, keys included", bytes(self.peak_bytes)),
            (
                "predicted time",
                format!(
                    "{} here, of processors {}",
                    seconds(self.predicted_s),
                    seconds(self.predicted_cpu_s)
                ),
            ),
        ] {
            table.row(vec![what.into(), value]);
        }
        let mut phases = Table::new(&["phase", ">bootstraps", ">half", ">seconds"]);
        for line in &self.phases {
            let numbers = [line.bootstraps.to_string(), line.half_bootstraps.to_string()];
            let [full, half] = numbers;
            phases.row(vec![line.phase.into(), full, half, format!("{:.1}", line.predicted_s)]);
        }
        let mut stands = Table::new(&["bootstraps before", ">all slots", ">half", "because of"]);
        for line in &self.stands {
            let place = format!("{}: {}", line.phase, line.operation);
            let numbers = [line.bootstraps, line.half_bootstraps].map(|count| count.to_string());
            let [full, half] = numbers;
            stands.row(vec![place, full, half, line.reason.into()]);
        }
        let mut operations = Table::new(&["operation", ">count", ">seconds", ">of processors"]);
        for line in &self.operations {
            let [wall, processor] = [line.predicted_s, line.predicted_cpu_s].map(|s| format!("{s:.2}"));
            operations.row(vec![line.operation.clone(), line.count.to_string(), wall, processor]);
        }
        let tables = [table, phases, stands, operations];
        tables.iter().map(Table::render).collect::<Vec<_>>().join("\n")
    }
}
