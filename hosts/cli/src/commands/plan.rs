//! `plan`: the price of a run, before any key exists.

use crate::args::{ParametersArg, Size, Threads};
use crate::bootstrap::Price;
use crate::exit::{Exit, Failure};
use crate::forecast::{Forecast, forecast, rates};
use crate::job::Job as SlotJob;
use crate::model::LoadedModel;
use crate::output::{Output, Table, bytes, seconds};
use crate::product::{Comparison, Shape};
use crate::typical::Typical;
use crate::watch::OVERHEAD;
use crate::work::task;
use serde::Serialize;
use std::path::PathBuf;
use std::time::Instant;
use veilformer::accel::Accelerator;
use veilformer::ckks::server::bootstrap::BootstrapPlan;
use veilformer::ckks::{KeyId, Parameters};
use veilformer::ring::Basis;
use veilformer::transformer::{AdamWHe, Trainable};
use veilformer_engine::plan::Job;
use veilformer_multicore::Multicore;
use veilformer_plain::data::Task;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder of the model; the one that comes with the program when left out
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Only bootstrapping, for no model
    #[arg(long, conflicts_with_all = ["model", "keys"])]
    bootstrap: bool,
    /// Only a product of matrices, TOKENSxINNERxOUTER: where it is done, and why there
    #[arg(long, value_name = "SHAPE", conflicts_with_all = ["model", "keys", "bootstrap"])]
    product: Option<Shape>,
    /// The product is one of two encrypted matrices, not of one and weights
    #[arg(long, requires = "product")]
    encrypted: bool,
    /// Sizes of a model that does not exist yet, for instance layers=2,width=768,heads=12,length=128; softmax=1
    /// for softmax attention instead of the Gaussian kernel
    #[arg(long, value_name = "SIZES", conflicts_with_all = ["model", "keys", "bootstrap", "product"])]
    config: Option<String>,
    /// The task: one of CoLA, MRPC, RTE, STS-B, SST-2, QNLI
    #[arg(long, value_parser = task)]
    task: Option<Task>,
    /// Rank of LoRA
    #[arg(long, value_name = "RANK", value_parser = clap::value_parser!(u8).range(0..=16))]
    lora_rank: Option<u8>,
    /// Sentences of a batch; 16 when left out, or with --memory what takes the least time for a sentence
    #[arg(long, value_name = "SENTENCES", value_parser = clap::value_parser!(u16).range(1..=1024))]
    batch: Option<u16>,
    /// Memory that there is for it, for instance 16GiB
    #[arg(long, value_name = "SIZE")]
    memory: Option<Size>,
    /// A step of fine-tuning
    #[arg(long)]
    train: bool,
    /// All matrices of the encoder and the head encrypted, not LoRA and the head alone
    #[arg(long, conflicts_with_all = ["lora_rank", "bootstrap", "product", "keys"])]
    full: bool,
    /// Inference, as without --train
    #[arg(long, conflicts_with = "train")]
    infer: bool,
    #[command(flatten)]
    parameters: ParametersArg,
    #[command(flatten)]
    threads: Threads,
    /// List every key
    #[arg(long)]
    keys: bool,
}

/// A plan, in numbers.
#[derive(Serialize)]
pub(crate) struct Report {
    pub(crate) model: String,
    pub(crate) parameters: Option<&'static str>,
    pub(crate) security_bits: u32,
    pub(crate) degree: usize,
    pub(crate) log_qp: f64,
    pub(crate) sentences_per_batch: usize,
    pub(crate) input_level: usize,
    pub(crate) output_level: usize,
    pub(crate) levels: usize,
    pub(crate) bootstraps: usize,
    pub(crate) key_switches: usize,
    pub(crate) products: usize,
    pub(crate) diagonals: usize,
    pub(crate) keys: usize,
    pub(crate) key_file_bytes: u64,
    pub(crate) key_memory_bytes: u64,
    pub(crate) working_memory_bytes: u64,
    pub(crate) predicted_s: f64,
    /// What bootstrapping adds, where the parameters have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bootstrap: Option<Price>,
}

impl Report {
    /// On a machine that takes `unit` seconds for a unit of work.
    pub(crate) fn new(
        model: &LoadedModel,
        parameters: &Parameters,
        job: &SlotJob,
        unit: f64,
    ) -> Result<Self, Failure> {
        let limb = 8 * parameters.degree() as u64;
        Ok(Self {
            model: model.name.clone(),
            parameters: parameters.name(),
            security_bits: if parameters.is_insecure() { 0 } else { 128 },
            degree: parameters.degree(),
            log_qp: parameters.log_qp(),
            sentences_per_batch: job.layout.batch(),
            input_level: job.input_level,
            output_level: job.output_level,
            levels: job.input_level - job.output_level,
            bootstraps: job.plan.refreshes,
            key_switches: job.plan.key_switches,
            products: job.plan.products,
            diagonals: job.plan.diagonals,
            keys: job.plan.keys.len(),
            key_file_bytes: job.key_bytes,
            key_memory_bytes: job.key_limbs as u64 * limb,
            working_memory_bytes: job.working_limbs as u64 * limb,
            predicted_s: unit * job.work,
            bootstrap: parameters.bootstrap().map(|_| Price::new(parameters, unit)).transpose()?,
        })
    }

    pub(crate) fn describe(&self) -> String {
        let mut table = Table::new(&["plan", "value"]);
        let security = match self.security_bits {
            0 => "NONE: toy parameters".into(),
            bits => format!("{bits}-bit classical, uniform ternary secret"),
        };
        for (what, value) in [
            ("model", self.model.clone()),
            ("parameters", self.parameters.unwrap_or("unnamed").into()),
            ("security", security),
            ("N, log2 QP", format!("{}, {:.0}", self.degree, self.log_qp)),
            ("sentences in a batch", self.sentences_per_batch.to_string()),
            ("levels", format!("{} (from {} to {})", self.levels, self.input_level, self.output_level)),
            ("bootstraps", self.bootstraps.to_string()),
            ("key switches, at most", self.key_switches.to_string()),
            ("products of ciphertexts", self.products.to_string()),
            ("diagonals", self.diagonals.to_string()),
            (
                "evaluation keys",
                format!(
                    "{}: {} as a file, {} in memory",
                    self.keys,
                    bytes(self.key_file_bytes),
                    bytes(self.key_memory_bytes)
                ),
            ),
            ("working memory", bytes(self.working_memory_bytes)),
            ("predicted time", format!("{} here", seconds(self.predicted_s))),
        ]
        .into_iter()
        .chain(self.bootstrap.iter().flat_map(Price::rows))
        {
            table.row(vec![what.into(), value]);
        }
        table.render()
    }
}

/// Seconds that a unit of work takes here, from a quick measurement of the transform.
pub(crate) fn unit(parameters: &Parameters, threads: usize) -> Result<f64, Failure> {
    const LIMBS: usize = 8;
    let count = parameters.chain().ordinary().min(LIMBS);
    let accelerator = Multicore::new(parameters.chain(), threads, count)?;
    let basis = Basis::level(count - 1);
    let mut limbs = (0..count).map(|_| accelerator.allocate()).collect::<Result<Vec<_>, _>>()?;
    accelerator.clear(&mut limbs)?;
    let best = accelerator.run(|| -> Result<f64, Failure> {
        let mut best = f64::INFINITY;
        for _ in 0..9 {
            let start = Instant::now();
            accelerator.ntt_forward(basis, &mut limbs)?;
            best = best.min(start.elapsed().as_secs_f64() / count as f64);
        }
        Ok(best)
    })?;
    Ok(best * OVERHEAD)
}

fn only_bootstrap(parameters: &Parameters, unit: f64, output: Output) -> Result<(), Failure> {
    let price = Price::new(parameters, unit)?;
    let mut table = Table::new(&["plan", "value"]);
    for (what, value) in price.rows() {
        table.row(vec![what.into(), value]);
    }
    output.json(&price)?;
    output.say(table.render());
    Ok(())
}

/// A job of the encrypted executor.
fn job(args: &Args, parameters: &Parameters, output: Output) -> Result<(), Failure> {
    let rank = args.lora_rank.unwrap_or(if args.train && !args.full { 2 } else { 0 });
    let encrypted = match (args.full, rank) {
        (true, _) => Some(Trainable::Matrices),
        (false, 0) => None,
        (false, _) => Some(Trainable::Adapters),
    };
    let job = if args.train {
        Job::Step(encrypted.unwrap_or(Trainable::Adapters), AdamWHe::paper(1e-3, 1e-2))
    } else {
        Job::Inference(encrypted)
    };
    let model = match &args.config {
        Some(sizes) => Typical::of_sizes(sizes, args.task, rank.into())?,
        None => Typical::load(args.model.as_deref(), args.task, rank)?,
    };
    let threads = args.threads.count();
    let rates = rates(parameters, threads)?;
    let plan = |sentences: u16| forecast(parameters, &model, sentences.into(), &job, threads, &rates);
    let found = match (args.batch, args.memory) {
        (Some(batch), Some(memory)) => plan(batch)?.within(memory)?,
        (batch, None) => plan(batch.unwrap_or(16))?,
        (None, Some(memory)) => best(memory, plan)?,
    };
    output.json(&found)?;
    output.say(found.describe());
    Ok(())
}

/// The batch that takes the least time for a sentence within some memory: larger ones are tried as long as they work.
fn best(memory: Size, plan: impl Fn(u16) -> Result<Forecast, Failure>) -> Result<Forecast, Failure> {
    let mut best = plan(1)?.within(memory)?;
    for batch in (1..=6).map(|log| 1 << log) {
        let Ok(found) = plan(batch).and_then(|found| found.within(memory)) else { break };
        tracing::info!(batch, seconds = found.seconds_a_sentence(), "a sentence");
        if found.seconds_a_sentence() < best.seconds_a_sentence() {
            best = found;
        }
    }
    Ok(best)
}

pub(crate) fn run(args: &Args, output: Output) -> Result<(), Failure> {
    let parameters = args.parameters.check()?;
    let has_small_ring = BootstrapPlan::new(&parameters).is_ok_and(|plan| plan.coefficient_level() > 0);
    if has_small_ring && !args.bootstrap && args.product.is_none() && !args.keys {
        return job(args, &parameters, output);
    }
    if args.config.is_some() || args.train || args.full {
        let message = "the encrypted executor needs parameters with a small ring: --parameters n16/matrix";
        return Err(Failure::new(Exit::Usage, message));
    }
    let unit = unit(&parameters, args.threads.count())?;
    if args.bootstrap {
        return only_bootstrap(&parameters, unit, output);
    }
    if let Some(shape) = args.product {
        let comparison = Comparison::new(&parameters, shape, args.encrypted, unit)?;
        output.json(&comparison)?;
        output.say(comparison.describe());
        return Ok(());
    }
    let model = LoadedModel::load(args.model.as_deref())?;
    let job = SlotJob::new(&parameters, &model)?;
    let report = Report::new(&model, &parameters, &job, unit)?;
    output.json(&report)?;
    output.say(report.describe());
    if args.keys {
        let mut table = Table::new(&["key", ">level"]);
        for key in job.plan.keys.iter() {
            let name = match key.id {
                KeyId::Relinearization => "relinearisation".into(),
                KeyId::Galois(g) => format!("automorphism {g}"),
                KeyId::DenseToSparse => "to the ephemeral secret".into(),
                KeyId::SparseToDense => "from the ephemeral secret".into(),
                KeyId::ToSmallRing => "to the small ring".into(),
                KeyId::FromSmallRing => "from the small ring".into(),
                KeyId::Component { log_rank, index } => format!("component {index} of {}", 1u32 << log_rank),
            };
            table.row(vec![name, key.level.to_string()]);
        }
        output.say(table.render());
    }
    Ok(())
}
