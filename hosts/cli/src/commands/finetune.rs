//! `finetune`: the server trains LoRA and the head on sentences and labels it cannot read.

use crate::answer::Answer;
use crate::args::{Size, Threads};
use crate::backend::{BackendArgs, RingsWork, ServerAccelerator, with_rings};
use crate::batch::{self, Batch};
use crate::exit::{Exit, Failure};
use crate::output::{Output, Phases, bytes, count, peak_memory, seconds};
use crate::progress::Progress;
use crate::rings::Carrier;
use crate::run::{Asked, Recipe, RunFolder};
use crate::serve::{Demand, ServerKeys, with_keys};
use crate::stop;
use crate::work::{ModelArgs, Work};
use serde::Serialize;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Instant;
use veilformer::ckks::Ciphertext;
use veilformer::transformer::{AdamWHe, Loss, Trainable};
use veilformer_engine::plan::Job;
use veilformer_engine::{Algebra, Engine, Watched};
use veilformer_plain::slots::Weights as View;
use veilformer_plain::tiny;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The folder of the run holds the newest checkpoint, which `infer --weights` takes, and the encrypted outputs of every
step, which the client's `evaluate` turns into losses. Stop it with Ctrl-C, kill it, lose the power: the same command
goes on after the last whole step, and comes to the same ciphertexts, bit for bit.")]
pub(crate) struct Args {
    /// The folder of evaluation keys, or the file of those of the big ring beside those of the small one. A secret key
    /// is refused
    #[arg(long, value_name = "DIR|FILE")]
    keys: PathBuf,
    #[command(flatten)]
    model: ModelArgs,
    /// What the client encrypted with labels: a folder of batches, or one
    #[arg(long = "in", value_name = "DIR|FILE")]
    input: PathBuf,
    /// The folder of the run: made, or gone on with
    #[arg(long, value_name = "DIR")]
    run: PathBuf,
    #[command(flatten)]
    recipe: RecipeArgs,
    /// Memory for expanded keys, for instance 4GiB. Others are loaded when they are used, which
    /// takes time; all are kept when this is left out and the machine has the memory
    #[arg(long, value_name = "SIZE")]
    key_memory: Option<Size>,
    #[command(flatten)]
    threads: Threads,
    #[command(flatten)]
    backend: BackendArgs,
}

/// What is trained for how long, and how fast.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct RecipeArgs {
    /// Steps of a batch each; every batch once when left out, from the first again when there are more steps
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=99_999))]
    steps: Option<u32>,
    /// At the first step; falls to 0 along a cosine. A calibrated one for the task when left out
    #[arg(long, value_name = "RATE")]
    learning_rate: Option<f64>,
    /// Inside the root of AdamW-HE: bounds it from below. A calibrated one for the task when left out
    #[arg(long, value_name = "E")]
    epsilon: Option<f64>,
    /// Decoupled
    #[arg(long, value_name = "DECAY", default_value_t = 0.01)]
    weight_decay: f64,
}

impl RecipeArgs {
    /// The steps and the optimizer for so many batches of a work.
    ///
    /// # Errors
    /// Usage for numbers that are none, and for an ε below what the model's polynomials serve.
    pub(crate) fn asked(&self, work: &Work, batches: usize) -> Result<Asked, Failure> {
        let (learning_rate, epsilon) = tiny::constants(work.task);
        let (rate, epsilon) = (self.learning_rate.unwrap_or(learning_rate), self.epsilon.unwrap_or(epsilon));
        let paper = AdamWHe::paper(rate, epsilon);
        let optimizer = AdamWHe { weight_decay: self.weight_decay, ..paper };
        optimizer.validate().map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
        let least = veilformer_engine::least_epsilon(&work.view())?;
        if epsilon < least {
            let message = format!(
                "ε is {epsilon}; the model's polynomial of 1/√(1 + v/ε) serves {least:.1e} and above: raise --epsilon, \
                 or calibrate the model for less"
            );
            return Err(Failure::new(Exit::Usage, message));
        }
        Ok(Asked { steps: self.steps.unwrap_or(batches as u32), optimizer })
    }
}

/// One step, for scripts.
#[derive(Serialize)]
struct StepDone {
    step: u32,
    steps: u32,
    sentences: usize,
    seconds: f64,
    checkpoint_bytes: u64,
}

#[derive(Serialize)]
pub(super) struct Report {
    steps: u32,
    /// Steps that were done before.
    pub(super) kept: u32,
    keys: usize,
    key_loads: u64,
    load_s: f64,
    pub(super) train_s: f64,
    checkpoint: PathBuf,
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
    keys.check(&work, true)?;
    if work.config.loss != work.trains {
        let of = |loss: Loss| if loss == Loss::SquaredError { "scores" } else { "classes" };
        let message = format!(
            "{} asks for {}, the model's polynomials and bounds of training are for {}: with --task \
             name one that asks for those too, or fit polynomials for this one with `veilformer calibrate --task … --file … \
             --out …`, and name its folder with --model",
            work.task.folder(),
            of(work.config.loss),
            of(work.trains)
        );
        return Err(Failure::new(Exit::BadFile, message));
    }
    let batches = batch::files_in(&args.input)?;
    let size = batch::common_size(&batches, &work, &keys.rings, keys.owner, true)?;
    let asked = args.recipe.asked(&work, batches.len())?;
    let recipe = Recipe::new(&work, &keys.rings.big, keys.owner, &asked, &batches)?;
    let folder = RunFolder::open(&args.run, &recipe)?;
    let threads = args.threads.count();
    let job = Job::Step(Trainable::Adapters, asked.optimizer);
    let demand = Demand::of(&work, &keys.rings, size, &job, threads)?;
    let room = keys.room(args.key_memory, &demand)?;
    let (parameters, limbs) = (keys.rings.both(), keys.limbs(room, &demand));
    let stop = stop::on_interrupt()?;
    let training = Training {
        output,
        work: &work,
        keys: &keys,
        room,
        size,
        operations: demand.operations,
        batches: &batches,
        recipe,
        folder: &folder,
        stop,
    };
    let report = with_rings(args.backend, parameters, threads, limbs, training)?;
    output.json(&report)?;
    output.say(format!(
        "{}  the weights after {}, for `infer --weights`\n{} keys, {} loads, loaded in {}, trained in {}, peak memory {}",
        report.checkpoint.display(),
        count(report.steps as usize, "step"),
        report.keys,
        report.key_loads,
        seconds(report.load_s),
        seconds(report.train_s),
        report.peak_bytes.map_or_else(|| "unknown".into(), bytes),
    ));
    report.offload.iter().flatten().for_each(|offload| output.say(offload.describe()));
    Ok(report)
}

struct Training<'w> {
    output: Output,
    work: &'w Work,
    keys: &'w ServerKeys,
    room: usize,
    size: usize,
    /// Of a step.
    operations: u64,
    batches: &'w [PathBuf],
    recipe: Recipe,
    folder: &'w RunFolder,
    stop: &'static AtomicBool,
}

impl RingsWork for Training<'_> {
    type Output = Report;

    fn run<A: ServerAccelerator>(self, accelerators: [&A; 2]) -> Result<Report, Failure> {
        let mut phases = Phases::new();
        let threads = accelerators[0].host().threads();
        let stores = self.keys.load(accelerators, self.room, threads, self.output)?;
        let rings = &self.keys.rings;
        let progress = Progress::new(self.output, "fine-tune", self.operations);
        let view = self.work.view();
        let kept = with_keys(rings, accelerators, &stores, |algebra| {
            let watched = Watched::new(algebra, progress.observer());
            let mut engine = Engine::new(watched.until(self.stop), &view, self.size)?;
            self.train(&mut engine, accelerators, &mut phases, &progress)
        })?;
        progress.finish();
        phases.end("train");
        let loads = stores.iter().map(|store| store.loads().count).sum();
        let (_, checkpoint) =
            self.folder.newest()?.ok_or_else(|| Failure::new(Exit::Failure, "no checkpoint"))?;
        Ok(Report {
            steps: self.recipe.steps,
            kept,
            keys: self.keys.count(),
            key_loads: loads,
            load_s: phases.get("load").unwrap_or(0.0),
            train_s: phases.get("train").unwrap_or(0.0),
            checkpoint,
            peak_limbs: accelerators.map(|accelerator| accelerator.host().peak_limbs()),
            peak_bytes: peak_memory(),
            offload: super::report::offloads(accelerators),
        })
    }
}

impl Training<'_> {
    /// Begins or goes on, to the last step. Returns the steps that were done before.
    fn train<A, G>(
        &self,
        engine: &mut Engine<'_, G, View<'_>>,
        accelerators: [&A; 2],
        phases: &mut Phases,
        progress: &Progress,
    ) -> Result<u32, Failure>
    where
        A: ServerAccelerator,
        G: Algebra<Vector = Ciphertext<A>, Piece = Ciphertext<A>>,
    {
        let (work, rings, recipe) = (self.work, &self.keys.rings, &self.recipe);
        let steps = recipe.steps;
        let mut big = Carrier::new(accelerators[0], &rings.big, self.keys.owner);
        let mut small = Carrier::new(accelerators[1], &rings.small, self.keys.small_owner());
        let done = match self.folder.resume(steps, work, rings, &mut big)? {
            Some((step, state)) => {
                self.output.say(format!("going on after step {step} of {steps}"));
                engine.resume(state)?;
                step
            }
            None => {
                engine.begin()?;
                // A disk that has no room for it is better known now than after the first step.
                self.save(engine, 0, &mut big)?;
                0
            }
        };
        phases.end("load");
        progress.begin((steps - done) as usize);
        for step in done + 1..=steps {
            let start = Instant::now();
            let batch = Batch::read(&self.batches[recipe.batch_of(step)], work, rings, &mut big)?;
            let places = [batch.first, batch.sentences, batch.size];
            let outputs = engine
                .train(batch.into_sent(), &recipe.optimizer(), step, steps)
                .map_err(|error| self.stopped(error, step - 1))?;
            let answer = Answer::of(&outputs, places, accelerators[1])?;
            answer.write(&self.folder.answer(step), work, rings, self.keys.owner, &mut small, true)?;
            let checkpoint_bytes = self.save(engine, step, &mut big)?;
            let (took, left) = (start.elapsed().as_secs_f64(), u64::from(steps - step));
            progress.done((step - done) as usize);
            let told = StepDone { step, steps, sentences: places[1], seconds: took, checkpoint_bytes };
            self.output.json(&told)?;
            let left =
                if left == 0 { String::new() } else { format!(", {} left", seconds(took * left as f64)) };
            progress.say(self.output, format!("step {step} of {steps}  {}{left}", seconds(took)));
        }
        Ok(done)
    }

    fn save<A, G>(
        &self,
        engine: &Engine<'_, G, View<'_>>,
        step: u32,
        carrier: &mut Carrier<'_, A>,
    ) -> Result<u64, Failure>
    where
        A: ServerAccelerator,
        G: Algebra<Vector = Ciphertext<A>>,
    {
        let state = engine.state().ok_or_else(|| Failure::new(Exit::Failure, "nothing is trained"))?;
        let before = step.saturating_sub(1);
        self.folder.save([step, self.recipe.steps], self.work, carrier, &state).map_err(|failure| Failure {
            message: format!(
                "{}; step {step} is not kept, the state after step {before} is: repeat the command when this is mended",
                failure.message
            ),
            ..failure
        })
    }

    /// What stopping means for the run.
    fn stopped(&self, error: veilformer_engine::Error, done: u32) -> Failure {
        let failure = Failure::from(error);
        match error {
            veilformer_engine::Error::Stopped => Failure {
                message: format!(
                    "stopped; the state after step {done} of {} is kept: repeat the command to go on",
                    self.recipe.steps
                ),
                ..failure
            },
            _ => failure,
        }
    }
}
