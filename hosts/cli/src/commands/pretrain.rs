//! `pretrain`: makes an encoder from public text, by masked language modelling.

use super::calibrate::{self, FitArgs, Sources};
use crate::args::Threads;
use crate::exit::{Exit, Failure, InFile};
use crate::files::{Claim, NewFile, Readers};
use crate::output::{Output, count, seconds};
use crate::stop;
use crate::work::SHIPPED_VOCABULARY;
use serde::Serialize;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use veilformer::transformer::{Config, Kernel};
use veilformer::wire::{self, Sink as _};
use veilformer_plain::model::{Model, Reached, Training};
use veilformer_plain::pretrain::{MASK, Pretraining, probe, stream};
use veilformer_plain::sites::Approximations;
use veilformer_plain::tiny;
use veilformer_plain::tokenizer::Tokenizer;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The folder of the run holds the vocabulary, the tokenised text, the newest checkpoint and, at the end, the calibrated
model in `model`. Stop it with Ctrl-C: the same command goes on. Text and GLUE's sentences are public here: nothing of
this is encrypted. A program built with RUSTFLAGS=\"-C target-cpu=native\" is about twice as fast at it.")]
pub(crate) struct Args {
    /// The folder of the run: made, or gone on with
    #[arg(long, value_name = "DIR")]
    run: PathBuf,
    #[command(flatten)]
    sources: Sources,
    /// A WordPiece vocabulary, of which the pieces that occur most often are kept; that of the encoder that comes with
    /// the program when left out
    #[arg(long, value_name = "FILE")]
    vocabulary: Option<PathBuf>,
    /// Pieces to keep
    #[arg(long, value_name = "N", default_value_t = tiny::PIECES, requires = "vocabulary")]
    pieces: usize,
    /// Steps of 64 sequences
    #[arg(long, value_name = "N", default_value_t = 15_000, value_parser = clap::value_parser!(u64).range(1..))]
    steps: u64,
    /// Stop after so many of them, to go on another time
    #[arg(long, value_name = "N")]
    stop_after: Option<u64>,
    /// What everything random follows from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    sizes: Sizes,
    #[command(flatten)]
    fit: FitArgs,
    #[command(flatten)]
    threads: Threads,
}

/// The sizes of an encoder; veil-tiny's when left out.
#[derive(Clone, Copy, Debug, clap::Args)]
struct Sizes {
    /// Layers
    #[arg(long, value_name = "N", default_value_t = 2)]
    layers: usize,
    /// Features of a token
    #[arg(long, value_name = "N", default_value_t = 128)]
    width: usize,
    /// Attention heads
    #[arg(long, value_name = "N", default_value_t = 2)]
    heads: usize,
    /// Tokens of a sequence
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(8..=256))]
    length: u16,
    /// Width of each half of the gate; twice the width when left out
    #[arg(long, value_name = "N")]
    feed_forward: Option<usize>,
    /// Softmax attention in place of the Gaussian kernel: for the baselines
    #[arg(long)]
    softmax: bool,
}

/// Time between two checkpoints, and steps between two reports.
const CHECKPOINT: Duration = Duration::from_secs(60);
const REPORT: u64 = 200;
/// Sequences the finished model is measured on.
const PROBE: usize = 64;
const MODEL: &str = "model";

/// The mean over some steps.
#[derive(Serialize)]
struct Told {
    step: u64,
    steps: u64,
    tokens: u64,
    loss: f64,
    /// Mean length of the gradient.
    gradient: f64,
    tokens_per_s: f64,
}

#[derive(Serialize)]
struct Report {
    steps: u64,
    tokens: u64,
    probe_loss: f64,
    seconds: f64,
    model: PathBuf,
}

impl Sizes {
    fn config(self, vocabulary: usize) -> Result<Config, Failure> {
        let config = Config {
            layers: self.layers,
            width: self.width,
            heads: self.heads,
            length: self.length.into(),
            feed_forward: self.feed_forward.unwrap_or(2 * self.width),
            head_hidden: self.width,
            kernel: if self.softmax { Kernel::Softmax } else { Kernel::Gaussian },
            ..tiny::config(vocabulary)
        };
        config.validate()?;
        Ok(config)
    }
}

pub(crate) fn run(args: &Args, output: Output) -> Result<(), Failure> {
    if args.sources.text.is_empty() {
        return Err(Failure::new(Exit::Usage, "no text to learn from; name a file with --text"));
    }
    // What calibration would refuse is better refused before hours of work.
    args.fit.check()?;
    args.sources.check()?;
    fs::create_dir_all(&args.run).in_file(&args.run)?;
    let _claim = Claim::take(&args.run, "pre-training")?;
    args.threads.pool()?.install(|| pretrain(args, output))
}

fn pretrain(args: &Args, output: Output) -> Result<(), Failure> {
    let stop = stop::on_interrupt()?;
    let start = Instant::now();
    check_same(args)?;
    let tokenizer = vocabulary(args)?;
    let config = args.sizes.config(tokenizer.vocabulary().len())?;
    let mask = tokenizer.piece(MASK).ok_or_else(|| {
        Failure::new(Exit::BadFile, format!("the vocabulary has no {MASK}; expected BERT's uncased one"))
    })?;
    let tokens = tokenised(&tokenizer, &args.run, &args.sources.text)?;
    let recipe = tiny::recipe(mask, config.vocabulary as u32, args.steps, args.seed);
    let mut run = Pretraining::new(&config, recipe, tiny::bounds(&config), &tokens)?;
    let checkpoint = args.run.join("checkpoint.safetensors");
    if checkpoint.exists() {
        run.resume(&checkpoint)?;
        output.say(format!("going on after step {} of {}", run.steps_done(), args.steps));
    }
    let bar = output.progress("pre-train", args.steps);
    bar.set_position(run.steps_done());
    bar.reset_eta();
    let (mut saved, mut since) = (Instant::now(), Since::new(&run));
    let last = args.stop_after.unwrap_or(args.steps).min(args.steps);
    while run.steps_done() < last {
        let done = run.step()?;
        since.add(done.loss, done.gradient);
        bar.inc(1);
        if done.step % REPORT == 0 || done.step == last {
            let told = since.report(&run, args.steps);
            bar.set_message(format!("loss {:.3}, {:.0} tokens/s", told.loss, told.tokens_per_s));
            output.json(&told)?;
            since = Since::new(&run);
        }
        let stopped = stop.load(Ordering::Relaxed);
        if saved.elapsed() > CHECKPOINT || done.step == last || stopped {
            run.save(&checkpoint)?;
            saved = Instant::now();
        }
        if stopped {
            let message =
                format!("stopped; step {} of {} is kept: repeat the command to go on", done.step, args.steps);
            return Err(Failure::new(Exit::Stopped, message));
        }
    }
    bar.finish_and_clear();
    if last < args.steps {
        output.say(format!(
            "step {} of {} is kept: repeat the command to go on",
            run.steps_done(),
            args.steps
        ));
        return Ok(());
    }
    let probe_loss = probe(&config, run.parameters(), mask, &tokens, PROBE);
    let training = Training {
        task: "masked language modelling".into(),
        seed: args.seed,
        command: command(args, &config),
        reached: Reached::Pretrained { tokens: run.tokens_seen(), steps: args.steps, probe_loss },
    };
    let (parameters, approximations) = (run.parameters().clone(), Approximations::new(&config));
    let mut model = Model { config, parameters, approximations, tokenizer, training };
    calibrate::calibrate(&mut model, &args.sources.tasks(), &args.sources.text, args.fit)?;
    let folder = args.run.join(MODEL);
    model.save(&folder)?;
    calibrate::report(&model.config, &model.approximations, output)?;
    let took = start.elapsed().as_secs_f64();
    let report =
        Report { steps: args.steps, tokens: run.tokens_seen(), probe_loss, seconds: took, model: folder };
    output.json(&report)?;
    output.say(format!(
        "{}  {}, {} tokens, loss {probe_loss:.4} on the first {PROBE} stretches, {}",
        report.model.display(),
        count(report.steps as usize, "step"),
        report.tokens,
        seconds(took)
    ));
    Ok(())
}

/// The command that makes the model again, files aside.
fn command(args: &Args, config: &Config) -> String {
    let Config { layers, width, heads, length, feed_forward, .. } = config;
    let softmax = if args.sizes.softmax { " --softmax" } else { "" };
    format!(
        "veilformer pretrain --steps {} --seed {} --layers {layers} --width {width} --heads {heads} --length {length} \
         --feed-forward {feed_forward}{softmax}",
        args.steps, args.seed
    )
}

/// Steps since the last report.
struct Since {
    start: Instant,
    tokens: u64,
    steps: u32,
    loss: f64,
    gradient: f64,
}

impl Since {
    fn new(run: &Pretraining<'_>) -> Self {
        Self { start: Instant::now(), tokens: run.tokens_seen(), steps: 0, loss: 0.0, gradient: 0.0 }
    }

    fn add(&mut self, loss: f64, gradient: f64) {
        self.steps += 1;
        self.loss += loss;
        self.gradient += gradient;
    }

    fn report(&self, run: &Pretraining<'_>, steps: u64) -> Told {
        let (count, tokens) = (f64::from(self.steps.max(1)), run.tokens_seen());
        Told {
            step: run.steps_done(),
            steps,
            tokens,
            loss: self.loss / count,
            gradient: self.gradient / count,
            tokens_per_s: (tokens - self.tokens) as f64 / self.start.elapsed().as_secs_f64(),
        }
    }
}

/// The vocabulary of the run, or the one that texts and GLUE's sentences ask for.
fn vocabulary(args: &Args) -> Result<Tokenizer, Failure> {
    let path = args.run.join("vocab.txt");
    if path.exists() {
        return Ok(Tokenizer::from_vocabulary(&fs::read_to_string(&path).in_file(&path)?)?);
    }
    let tokenizer = match &args.vocabulary {
        None => Tokenizer::from_vocabulary(SHIPPED_VOCABULARY)?,
        Some(full) => {
            let read = |path: &PathBuf| fs::read_to_string(path).in_file(path);
            let mut texts = args.sources.text.iter().map(read).collect::<Result<Vec<_>, _>>()?;
            texts.extend(args.sources.glue.as_deref().map(tiny::glue_text).transpose()?);
            let lines: Vec<&str> = texts.iter().flat_map(|text| text.lines()).collect();
            Tokenizer::most_frequent(&read(full)?, &lines, &[MASK], args.pieces)?
        }
    };
    put(&path, (tokenizer.vocabulary().join("\n") + "\n").as_bytes())?;
    Ok(tokenizer)
}

/// The tokenised text of the run, or the texts tokenised now.
fn tokenised(tokenizer: &Tokenizer, run: &Path, texts: &[PathBuf]) -> Result<Vec<u16>, Failure> {
    let path = run.join("corpus.u16");
    if path.exists() {
        let bytes = fs::read(&path).in_file(&path)?;
        return Ok(bytes.as_chunks::<2>().0.iter().map(|pair| u16::from_le_bytes(*pair)).collect());
    }
    let mut tokens = Vec::new();
    for text in texts {
        tokens.extend(stream(tokenizer, &fs::read_to_string(text).in_file(text)?).in_file(text)?);
    }
    put(&path, &tokens.iter().flat_map(|t| t.to_le_bytes()).collect::<Vec<u8>>())?;
    Ok(tokens)
}

/// That a run goes on with what it was begun with: vocabulary and tokens are kept, and nobody would notice others.
fn check_same(args: &Args) -> Result<(), Failure> {
    let described = |file: &PathBuf| {
        let name = file.file_name().map(|name| name.to_string_lossy().into_owned());
        Ok((name.unwrap_or_default(), fs::metadata(file).in_file(file)?.len()))
    };
    let files = args.sources.text.iter().chain(&args.vocabulary).map(described);
    let files: Vec<(String, u64)> = files.collect::<Result<_, Failure>>()?;
    let given = serde_json::to_string(&(files, args.pieces, args.sources.glue.is_some()))?;
    let path = args.run.join("run.json");
    if !path.exists() {
        return put(&path, given.as_bytes());
    }
    let begun = fs::read_to_string(&path).in_file(&path)?;
    if begun == given {
        return Ok(());
    }
    let message = format!(
        "begun with {begun} (texts and vocabulary, pieces, whether GLUE is given), now {given}; name a new folder \
         for --run"
    );
    Err(Failure::new(Exit::Usage, message))
}

/// A file that is there as a whole or not at all.
fn put(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let mut file = NewFile::create(path, Readers::Anyone, false)?;
    file.write(bytes).map_err(wire::Error::Stream).in_file(path)?;
    file.commit().map(drop)
}
