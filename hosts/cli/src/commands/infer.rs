//! `infer`: the server runs the model on what it cannot read.

use crate::answer::{self, Answer};
use crate::args::{Size, Threads};
use crate::backend::{BackendArgs, RingsWork, ServerAccelerator, with_rings};
use crate::batch::{self, Batch};
use crate::exit::{Exit, Failure, InFile};
use crate::files::check_free;
use crate::output::{Output, Phases, bytes, count, peak_memory, seconds};
use crate::progress::Progress;
use crate::rings::Carrier;
use crate::serve::{Demand, ServerKeys, with_keys};
use crate::weights;
use crate::work::{ModelArgs, Work};
use serde::Serialize;
use std::fs;
use std::path::PathBuf;
use veilformer::transformer::Trainable;
use veilformer_engine::plan::Job;
use veilformer_engine::{Engine, Watched};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The folder of evaluation keys, or the file of those of the big ring beside those of the small one. A secret key
    /// is refused
    #[arg(long, value_name = "DIR|FILE")]
    keys: PathBuf,
    #[command(flatten)]
    model: ModelArgs,
    /// What the client encrypted: a batch, or a folder of them
    #[arg(long = "in", value_name = "FILE|DIR")]
    input: PathBuf,
    /// The folder to write numbered answers to; a file, if its name ends in .vfa, for one answer
    #[arg(long, value_name = "DIR|FILE")]
    out: PathBuf,
    /// Encrypted weights of LoRA and the head; the model's own, in the clear, when left out
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Memory for expanded keys, for instance 4GiB. Others are loaded when they are used, which
    /// takes time; all are kept when this is left out and the machine has the memory
    #[arg(long, value_name = "SIZE")]
    key_memory: Option<Size>,
    #[command(flatten)]
    threads: Threads,
    #[command(flatten)]
    backend: BackendArgs,
    /// Replace answers that exist
    #[arg(long)]
    force: bool,
}

#[derive(Serialize)]
pub(super) struct Report {
    keys: usize,
    /// Memory that keys of the big ring may take, times that one was loaded, seconds of that.
    key_memory_bytes: u64,
    key_loads: u64,
    key_loads_s: f64,
    sentences: usize,
    batches: usize,
    bytes: u64,
    load_s: f64,
    pub(super) infer_s: f64,
    /// Of the big ring and of the small one.
    peak_limbs: [usize; 2],
    peak_bytes: Option<u64>,
    offload: Option<[super::report::Offloaded; 2]>,
}

pub(crate) fn run(args: &Args, output: Output) -> Result<(), Failure> {
    carry_out(args, output).map(drop)
}

/// Does it and says what it took.
pub(super) fn carry_out(args: &Args, output: Output) -> Result<Report, Failure> {
    let keys = ServerKeys::open(&args.keys)?;
    let work = Work::load(&args.model)?;
    keys.check(&work, args.weights.is_some())?;
    if let Some(path) = &args.weights {
        weights::check(path, &work, &keys.rings, keys.owner)?;
    }
    // Without encrypted weights those in the clear are folded into the matrices they adapt.
    let work = if args.weights.is_some() { work } else { work.merged() };
    let batches = batch::files_in(&args.input)?;
    let size = batch::common_size(&batches, &work, &keys.rings, keys.owner, false)?;
    let answers = files(args, batches.len())?;
    let threads = args.threads.count();
    let job = Job::Inference(args.weights.as_ref().map(|_| Trainable::Adapters));
    let demand = Demand::of(&work, &keys.rings, size, &job, threads)?;
    let room = keys.room(args.key_memory, &demand)?;
    let (parameters, limbs) = (keys.rings.both(), keys.limbs(room, &demand));
    let operations = demand.operations;
    let inference =
        Inference { args, output, work: &work, keys: &keys, room, size, operations, batches, answers };
    let report = with_rings(args.backend, parameters, threads, limbs, inference)?;
    output.json(&report)?;
    output.say(format!(
        "{}  {}  {} in {}\n{} keys, {} loads in {}, model run in {}, peak memory {}",
        args.out.display(),
        bytes(report.bytes),
        count(report.sentences, "sentence"),
        count(report.batches, "answer"),
        report.keys,
        report.key_loads,
        seconds(report.key_loads_s),
        seconds(report.infer_s),
        report.peak_bytes.map_or_else(|| "unknown".into(), bytes),
    ));
    report.offload.iter().flatten().for_each(|offload| output.say(offload.describe()));
    Ok(report)
}

/// The files of so many answers.
fn files(args: &Args, count: usize) -> Result<Vec<PathBuf>, Failure> {
    let out = &args.out;
    let files = if out.extension().is_some_and(|extension| extension == "vfa") {
        if count > 1 {
            let message = format!("{} is one file for {count} answers; name a folder", out.display());
            return Err(Failure::new(Exit::Usage, message));
        }
        vec![out.clone()]
    } else {
        fs::create_dir_all(out).in_file(out)?;
        (0..count).map(|index| answer::file_of(out, index)).collect()
    };
    files.iter().try_for_each(|file| check_free(file, args.force))?;
    Ok(files)
}

struct Inference<'w> {
    args: &'w Args,
    output: Output,
    work: &'w Work,
    keys: &'w ServerKeys,
    room: usize,
    size: usize,
    /// Of a batch.
    operations: u64,
    batches: Vec<PathBuf>,
    answers: Vec<PathBuf>,
}

impl RingsWork for Inference<'_> {
    type Output = Report;

    fn run<A: ServerAccelerator>(self, accelerators: [&A; 2]) -> Result<Report, Failure> {
        let (args, work, rings) = (self.args, self.work, &self.keys.rings);
        let mut phases = Phases::new();
        let threads = accelerators[0].host().threads();
        let stores = self.keys.load(accelerators, self.room, threads, self.output)?;
        let mut big = Carrier::new(accelerators[0], &rings.big, self.keys.owner);
        let mut small = Carrier::new(accelerators[1], &rings.small, self.keys.small_owner());
        let (mut written, mut sentences) = (0, 0);
        let progress = Progress::new(self.output, "infer", self.operations);
        let view = work.view();
        with_keys(rings, accelerators, &stores, |algebra| {
            let watched = Watched::new(algebra, progress.observer());
            let mut engine = Engine::new(watched, &view, self.size)?;
            if let Some(path) = &args.weights {
                engine.set_trained(weights::load(path, work, rings, &mut big)?)?;
            }
            phases.end("load");
            progress.begin(self.batches.len());
            for (index, (from, to)) in self.batches.iter().zip(&self.answers).enumerate() {
                let batch = Batch::read(from, work, rings, &mut big)?;
                let places = [batch.first, batch.sentences, batch.size];
                let logits = engine.infer(batch.into_sent())?;
                let answer = Answer::of(&logits, places, accelerators[1])?;
                written += answer.write(to, work, rings, self.keys.owner, &mut small, args.force)?;
                sentences += places[1];
                progress.done(index + 1);
            }
            Ok(())
        })?;
        progress.finish();
        phases.end("infer");
        let loads = stores.each_ref().map(|store| store.loads());
        Ok(Report {
            keys: self.keys.count(),
            key_memory_bytes: 8 * (self.room * rings.big.degree()) as u64,
            key_loads: loads.iter().map(|loads| loads.count).sum(),
            key_loads_s: loads.iter().map(|loads| loads.seconds).sum(),
            sentences,
            batches: self.batches.len(),
            bytes: written,
            load_s: phases.get("load").unwrap_or(0.0),
            infer_s: phases.get("infer").unwrap_or(0.0),
            peak_limbs: accelerators.map(|accelerator| accelerator.host().peak_limbs()),
            peak_bytes: peak_memory(),
            offload: super::report::offloads(accelerators),
        })
    }
}
