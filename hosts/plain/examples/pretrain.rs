//! Pre-trains `veil-tiny` by masked language modelling and writes its encoder.
//!
//! `cargo run --release -p veilformer-plain --example pretrain -- VOCAB GLUE WORK STEPS SEED TEXT…`
//! where VOCAB is the full uncased WordPiece vocabulary, GLUE a GLUE download, and each TEXT a text file (lines of
//! sentences or paragraphs). WORK gets the trimmed vocabulary, the tokenised corpus, the checkpoint and at the end the
//! model; a run that was stopped is taken up where its checkpoint was written. Vector instructions of the machine it
//! runs on (`RUSTFLAGS="-C target-cpu=native"`) make it about twice as fast.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use veilformer::transformer::Site;
use veilformer_plain::model::{Model, Reached, Training};
use veilformer_plain::parameters::site_name;
use veilformer_plain::pretrain::{MASK, Pretraining, Report, probe, stream};
use veilformer_plain::sites::{Approximations, Ranges};
use veilformer_plain::tiny;
use veilformer_plain::tokenizer::Tokenizer;

/// Time between two checkpoints.
const CHECKPOINT: Duration = Duration::from_secs(120);
/// Sequences the finished model is measured on.
const PROBE: usize = 64;
/// Steps between two lines of progress.
const LINE: u64 = 200;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [vocabulary, glue, work, steps, seed, texts @ ..] = arguments.as_slice() else {
        return Err("usage: pretrain VOCAB GLUE WORK STEPS SEED TEXT...".into());
    };
    let work = Path::new(work);
    fs::create_dir_all(work)?;
    let tokenizer = trimmed(Path::new(vocabulary), Path::new(glue), work, texts)?;
    let tokens = tokenised(&tokenizer, work, texts)?;
    let config = tiny::config(tokenizer.vocabulary().len());
    config.validate()?;
    let mask = tokenizer.piece(MASK).ok_or("the vocabulary has no [MASK]")?;
    let recipe = tiny::recipe(mask, config.vocabulary as u32, steps.parse()?, seed.parse()?);
    println!("{} tokens, {} pieces, {recipe:?}", tokens.len(), config.vocabulary);
    let steps = recipe.steps;
    let mut run = Pretraining::new(&config, recipe, tiny::bounds(&config), &tokens)?;
    let checkpoint = work.join("checkpoint.safetensors");
    if checkpoint.exists() {
        run.resume(&checkpoint)?;
        println!("taken up after step {}", run.steps_done());
    }
    let (start, mut saved, mut line) = (Instant::now(), Instant::now(), Line::new(&config));
    while run.steps_done() < steps {
        let report = run.step()?;
        line.add(&report);
        if report.step % LINE == 0 || report.step == steps {
            line.print(&config, steps, start);
        }
        if saved.elapsed() > CHECKPOINT || report.step == steps {
            run.save(&checkpoint)?;
            saved = Instant::now();
        }
    }

    let yardstick = probe(&config, run.parameters(), mask, &tokens, PROBE);
    println!("probe loss {yardstick:.6}");
    let training = Training {
        task: "masked language modelling".to_owned(),
        seed: seed.parse()?,
        command: format!(
            "cargo run --release -p veilformer-plain --example pretrain -- VOCAB GLUE WORK {steps} {seed} TEXT..."
        ),
        reached: Reached::Pretrained { tokens: run.tokens_seen(), steps, probe_loss: yardstick },
    };
    let (parameters, approximations) = (run.parameters().clone(), Approximations::new(&config));
    Model { config, parameters, approximations, tokenizer, training }.save(&work.join("veil-tiny"))?;
    Ok(())
}

/// The vocabulary in WORK, or the one the texts and GLUE's sentences ask for.
fn trimmed(full: &Path, glue: &Path, work: &Path, texts: &[String]) -> Result<Tokenizer, Box<dyn Error>> {
    let path = work.join("vocab.txt");
    if path.exists() {
        return Ok(Tokenizer::from_vocabulary(&fs::read_to_string(path)?)?);
    }
    let mut all = texts.iter().map(fs::read_to_string).collect::<Result<Vec<_>, _>>()?;
    all.push(tiny::glue_text(glue)?);
    let lines: Vec<&str> = all.iter().flat_map(|text| text.lines()).collect();
    let full = fs::read_to_string(full)?;
    let tokenizer = Tokenizer::most_frequent(&full, &lines, &[MASK], tiny::PIECES)?;
    fs::write(path, tokenizer.vocabulary().join("\n") + "\n")?;
    Ok(tokenizer)
}

/// The tokenised corpus in WORK, or the texts tokenised now.
fn tokenised(tokenizer: &Tokenizer, work: &Path, texts: &[String]) -> Result<Vec<u16>, Box<dyn Error>> {
    let path = work.join("corpus.u16");
    if path.exists() {
        let bytes = fs::read(path)?;
        return Ok(bytes.as_chunks::<2>().0.iter().map(|pair| u16::from_le_bytes(*pair)).collect());
    }
    let mut tokens = Vec::new();
    for text in texts {
        tokens.extend(stream(tokenizer, &fs::read_to_string(text)?)?);
    }
    let bytes: Vec<u8> = tokens.iter().flat_map(|t| t.to_le_bytes()).collect();
    fs::write(work.join("corpus.part"), bytes)?;
    fs::rename(work.join("corpus.part"), path)?;
    Ok(tokens)
}

/// What has happened since the last line of progress.
struct Line {
    ranges: Ranges,
    loss: f64,
    gradient: f64,
    steps: u32,
    first: Option<u64>,
    last: (u64, u64),
}

impl Line {
    fn new(config: &veilformer::transformer::Config) -> Self {
        Self { ranges: Ranges::new(config), loss: 0.0, gradient: 0.0, steps: 0, first: None, last: (0, 0) }
    }

    fn add(&mut self, report: &Report) {
        self.ranges.merge(&report.ranges);
        self.loss += report.loss;
        self.gradient += report.gradient;
        self.steps += 1;
        self.first.get_or_insert(report.tokens);
        self.last = (report.step, report.tokens);
    }

    fn print(&mut self, config: &veilformer::transformer::Config, steps: u64, start: Instant) {
        let seconds = start.elapsed().as_secs_f64();
        let (step, tokens) = self.last;
        let rate = (tokens - self.first.unwrap_or(0)) as f64 / seconds;
        let count = f64::from(self.steps.max(1));
        let (loss, gradient) = (self.loss / count, self.gradient / count);
        print!(
            "step {step}/{steps}, {tokens} tokens, loss {loss:.4}, gradient {gradient:.2}, {rate:.0} tokens/s, {seconds:.0} s;"
        );
        for site in Site::all(config).filter(|site| *site != Site::Tanh) {
            let (low, high) = self.ranges.get(site);
            print!(" {} {low:.2}..{high:.2}", site_name(site));
        }
        println!();
        let first = self.first;
        *self = Self { first, ..Self::new(config) };
    }
}
