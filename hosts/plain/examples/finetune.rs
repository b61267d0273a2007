//! Fine-tunes a pre-trained model on a GLUE task in the clear, with AdamW-HE, and prints the development score after
//! every epoch.
//!
//! `cargo run --release -p veilformer-plain --example finetune -- MODEL GLUE TASK full|lora EPOCHS RATE EPSILON SEED [ROWS]`
//! where TASK is a folder of GLUE (CoLA, MRPC, …) and ROWS bounds the training rows that are used.

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use veilformer::transformer::{AdamWHe, Site, Trainable};
use veilformer_plain::data::Task;
use veilformer_plain::executor::Functions;
use veilformer_plain::finetune::{FineTuner, Recipe};
use veilformer_plain::metrics::Metric;
use veilformer_plain::model::Model;
use veilformer_plain::parameters::site_name;
use veilformer_plain::random::Random;
use veilformer_plain::recipe::tokenise;
use veilformer_plain::run::observe;
use veilformer_plain::tiny;

/// Sequences per step, as in PAPER.md.
const BATCH: usize = 16;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, glue, task, method, epochs, rate, epsilon, seed, rows @ ..] = arguments.as_slice() else {
        return Err("usage: finetune MODEL GLUE TASK full|lora EPOCHS RATE EPSILON SEED [ROWS]".into());
    };
    let task = Task::ALL.into_iter().find(|t| t.folder() == task).ok_or("TASK is not one of GLUE's six")?;
    let (rank, trained) = match method.as_str() {
        "full" => (0, Trainable::Server),
        "lora" => (2, Trainable::Adapters),
        _ => return Err("the method is full or lora".into()),
    };
    let (epochs, seed): (u32, u64) = (epochs.parse()?, seed.parse()?);
    let model = Model::load(Path::new(model))?;
    let (config, parameters) = tiny::adapted(&model, task, rank, seed);

    let folder = Path::new(glue).join(task.folder());
    let mut train = task.read(&folder.join(task.training_file()))?;
    Random::new(seed, 7).shuffle(&mut train);
    if let [rows] = rows {
        train.truncate(rows.parse()?);
    }
    let mut train = tokenise(&model.tokenizer, &train, config.length)?;
    let dev = tokenise(&model.tokenizer, &task.read(&folder.join(task.development_file()))?, config.length)?;
    let labels: Vec<f64> = dev.iter().map(|example| f64::from(example.label)).collect();
    let truncated = dev.iter().filter(|example| example.sequence.truncated).count();
    println!("{} rows to train on; {} development rows, {truncated} truncated", train.len(), dev.len());

    let steps = epochs * train.len().div_ceil(BATCH) as u32;
    let optimizer = AdamWHe::paper(rate.parse()?, epsilon.parse()?);
    optimizer.validate()?;
    let recipe = Recipe { trained, optimizer, steps, functions: Functions::Exact, noise: None };
    let mut tuner = FineTuner::new(&config, parameters, recipe);
    let start = Instant::now();
    for epoch in 0..epochs {
        Random::new(seed, 100 + u64::from(epoch)).shuffle(&mut train);
        let mut loss = 0.0;
        for batch in train.chunks(BATCH) {
            loss += tuner.step(batch)? * batch.len() as f64;
        }
        let seen = observe(&config, tuner.parameters(), &dev, Functions::Exact)?;
        let score = Metric::of(task).of_logits(&seen.logits, &labels);
        let (loss, seconds) = (loss / train.len() as f64, start.elapsed().as_secs_f64());
        print!(
            "epoch {}/{epochs}: loss {loss:.4}, {:?} {score:.4}, {seconds:.0} s;",
            epoch + 1,
            Metric::of(task)
        );
        for site in Site::all(&config) {
            let (low, high) = seen.ranges.get(site);
            print!(" {} {low:.2}..{high:.2}", site_name(site));
        }
        println!();
    }
    Ok(())
}
