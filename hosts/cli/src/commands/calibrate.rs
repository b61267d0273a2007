//! `calibrate`: gives a model the polynomials that stand for its functions under encryption.

use crate::args::Threads;
use crate::exit::{Exit, Failure, InFile};
use crate::output::{Output, Table};
use crate::work::{shipped_model, task};
use serde::Serialize;
use std::fs;
use std::path::{Path, PathBuf};
use veilformer::transformer::{Config, Loss, Site};
use veilformer_plain::data::Task;
use veilformer_plain::model::{Model, Reached};
use veilformer_plain::parameters::site_name;
use veilformer_plain::pretrain::{sequences, stream};
use veilformer_plain::random::Random;
use veilformer_plain::run::Example;
use veilformer_plain::sites::{Approximations, Budget};
use veilformer_plain::tiny;
use veilformer_plain::tokenizer::{Sequence, Tokenizer};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Every polynomial serves an interval: the arguments that its function meets in the sentences given here, and a margin.
A sentence that leaves it under encryption is told by exit code 7 when its answer is decrypted. A pre-trained encoder is
also fine-tuned for some steps on every task, which gives the polynomials and bounds of training. The calibrated model is
another one to client and server: what was encrypted for the old one is refused.")]
pub(crate) struct Args {
    /// Folder of the model; the encoder that comes with the program when left out
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Folder for the calibrated model
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    sources: Sources,
    /// Sentences and labels in the layout of the task's GLUE file; may be given more than once
    #[arg(long, value_name = "TSV")]
    file: Vec<PathBuf>,
    /// The task of the files: cola, mrpc, rte, sts-b, sst-2, qnli
    #[arg(long, value_parser = task, default_value = "sst-2", requires = "file")]
    task: Task,
    #[command(flatten)]
    fit: FitArgs,
    #[command(flatten)]
    threads: Threads,
}

/// What to calibrate on beside files of one task.
#[derive(Debug, clap::Args)]
pub(crate) struct Sources {
    /// Folder of GLUE's tasks, whose training sentences to calibrate on
    #[arg(long, value_name = "DIR")]
    pub(crate) glue: Option<PathBuf>,
    /// Text, a sentence or paragraph a line; may be given more than once
    #[arg(long, value_name = "FILE")]
    pub(crate) text: Vec<PathBuf>,
}

/// What polynomials are to serve.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct FitArgs {
    /// How many times as far as the arguments seen an interval reaches
    #[arg(long, default_value_t = 1.5)]
    margin: f64,
    /// Degree of all polynomials: 7 takes three levels, 15 four, 31 five. veil-tiny's when left out: 15, 31 and 63,
    /// where each pays
    #[arg(long, value_parser = clap::value_parser!(u8).range(3..=63))]
    degree: Option<u8>,
    /// Steps of fine-tuning on every task that training is calibrated on
    #[arg(long, value_name = "N", default_value_t = 120)]
    rehearsal: u32,
}

impl FitArgs {
    /// # Errors
    /// Usage for a margin that is none.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.margin >= 1.0 && self.margin.is_finite() {
            return Ok(());
        }
        let message = format!("--margin is {}; expected 1 or more", self.margin);
        Err(Failure::new(Exit::Usage, message))
    }
}

/// Stretches of all texts, and lines of each that they are taken from.
const STRETCHES: usize = 20_000;
const LINES: usize = 50_000;
/// Training rows of a task, at most.
const ROWS: usize = 10_000;

/// A polynomial and what it serves.
#[derive(Serialize)]
struct Row {
    site: String,
    seen: (f64, f64),
    interval: (f64, f64),
    degree: usize,
    levels: u32,
    /// The largest error on the interval.
    error: f64,
    /// Bound on gradients, where training was calibrated.
    gradients: Option<f64>,
}

pub(crate) fn run(args: &Args, output: Output) -> Result<(), Failure> {
    args.fit.check()?;
    args.sources.check()?;
    let mut model = args.model.as_deref().map_or_else(shipped_model, |folder| Ok(Model::load(folder)?))?;
    let mut files: Vec<(Task, PathBuf)> = args.file.iter().map(|path| (args.task, path.clone())).collect();
    files.extend(args.sources.tasks());
    args.threads.pool()?.install(|| calibrate(&mut model, &files, &args.sources.text, args.fit))?;
    model.save(&args.out)?;
    report(&model.config, &model.approximations, output)?;
    output.say(format!("{}  the calibrated model", args.out.display()));
    Ok(())
}

impl Sources {
    /// That every file is there.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let tasks = self.tasks();
        let mut files = tasks.iter().map(|(_, path)| path).chain(&self.text);
        files.try_for_each(|path| fs::metadata(path).in_file(path).map(drop))
    }

    /// The training files of every task.
    pub(crate) fn tasks(&self) -> Vec<(Task, PathBuf)> {
        let of = |glue: &PathBuf| {
            Task::ALL.map(|task| (task, glue.join(task.folder()).join(task.training_file()))).to_vec()
        };
        self.glue.as_ref().map(of).unwrap_or_default()
    }
}

/// Fits the polynomials of inference, and of an encoder that is to be fine-tuned those of training.
pub(crate) fn calibrate(
    model: &mut Model,
    files: &[(Task, PathBuf)],
    texts: &[PathBuf],
    fit: FitArgs,
) -> Result<(), Failure> {
    let length = model.config.length;
    let (mut all, mut tasks) = (Vec::new(), Vec::new());
    for (task, path) in files {
        let mut examples = examples(&model.tokenizer, *task, path, length)?;
        all.extend(examples.iter().map(|example| example.sequence.clone()));
        Random::new(1, 1000).shuffle(&mut examples);
        tasks.push((*task, examples));
    }
    for text in texts {
        all.extend(stretches(&model.tokenizer, text, length, STRETCHES / texts.len())?);
    }
    if all.is_empty() {
        return Err(Failure::new(Exit::Usage, "nothing to calibrate on; give --file, --glue or --text"));
    }
    let config = model.config;
    let budget = |site: Site| {
        let Budget { degree, squarings, .. } = tiny::budget(&config, site);
        // Of tanh, in the head, the interval is what fine-tuning is expected to ask for already.
        let margin = if site == Site::Tanh { 1.0 } else { fit.margin };
        Budget { degree: fit.degree.map_or(degree, usize::from), squarings, margin }
    };
    tiny::calibrate(model, &all, budget)?;
    // Bounds for scores are far from those for classes and would serve neither: where there are both, classes have them.
    let classes = tasks.iter().any(|(task, _)| task.outputs().1 == Loss::CrossEntropy);
    tasks.retain(|(task, _)| !classes || task.outputs().1 == Loss::CrossEntropy);
    if let (Reached::Pretrained { .. }, Some((task, _))) = (&model.training.reached, tasks.first()) {
        if task.outputs().1 != model.config.loss {
            (model.config, model.parameters) = tiny::adapted(model, *task, 0, 1);
        }
        tiny::rehearse(model, &tasks, fit.rehearsal, budget)?;
    }
    Ok(())
}

fn examples(tokenizer: &Tokenizer, task: Task, path: &Path, length: usize) -> Result<Vec<Example>, Failure> {
    let rows = task.read(path)?.into_iter().take(ROWS);
    let example = |row: veilformer_plain::data::Row| {
        let sequence = tokenizer.encode(&row.sentence, row.second.as_deref(), length)?;
        Ok(Example { sequence, label: row.label })
    };
    rows.map(example).collect()
}

fn stretches(
    tokenizer: &Tokenizer,
    path: &Path,
    length: usize,
    most: usize,
) -> Result<Vec<Sequence>, Failure> {
    let text = fs::read_to_string(path).in_file(path)?;
    let lines: Vec<&str> = text.lines().take(LINES).collect();
    let tokens = stream(tokenizer, &lines.join("\n")).in_file(path)?;
    Ok(sequences(&tokens, length, most))
}

/// Shows a table of polynomials.
pub(crate) fn report(config: &Config, table: &Approximations, output: Output) -> Result<(), Failure> {
    let mut shown =
        Table::new(&["function", ">seen", ">served", ">degree", ">levels", ">error", ">gradients within"]);
    let range = |(low, high): (f64, f64)| format!("{low:.3} to {high:.3}");
    for site in Site::all(config).chain(Site::training(config)) {
        let (Some(entry), Some(polynomial)) = (table.entry(site), table.get(site)) else { continue };
        let row = Row {
            site: site_name(site),
            seen: entry.observed,
            interval: (entry.interval.low(), entry.interval.high()),
            degree: polynomial.degree(),
            levels: polynomial.depth(),
            error: polynomial.measure(4001).worst,
            gradients: table.gradient_bound(site),
        };
        output.json(&row)?;
        shown.row(vec![
            row.site,
            range(row.seen),
            range(row.interval),
            row.degree.to_string(),
            row.levels.to_string(),
            format!("{:.1e}", row.error),
            row.gradients.map_or_else(|| "–".into(), |bound| format!("{bound:.2}")),
        ]);
    }
    output.say(shown.render());
    for layer in 0..config.layers {
        if let Some(bound) = table.adapter_gradient_bound(layer) {
            output.say(format!("layer {layer}: gradients by what LoRA's matrices give within {bound:.3}"));
        }
    }
    Ok(())
}
