//! Predicts what an encrypted fine-tuning would reach, in the clear: LoRA and the head, trained exactly, on polynomials, and on
//! polynomials with noise. Prints the score of each on the development set, and every function's interval and error.
//!
//! `cargo run --release -p veilformer-plain --example rehearse -- DATA MODEL TASK ROWS [BITS]`
//! where DATA is a GLUE folder, TASK one of CoLA, MRPC, RTE, STS-B, SST-2, QNLI, ROWS the training rows used (from the start of
//! a fixed shuffle) and BITS the precision of an encrypted operation, 20 unless given.

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use veilformer::transformer::{AdamWHe, Config, Site, Targets, Trainable};
use veilformer_plain::data::Task;
use veilformer_plain::executor::Functions;
use veilformer_plain::finetune::{FineTuner, Recipe, begin, paper_constants};
use veilformer_plain::metrics::Metric;
use veilformer_plain::model::Model;
use veilformer_plain::noise::Noise;
use veilformer_plain::parameters::{Parameters, site_name};
use veilformer_plain::random::Random;
use veilformer_plain::recipe::tokenise;
use veilformer_plain::run::{Example, observe_with_noise};
use veilformer_plain::sites::{Approximations, Budget, Ranges};

const BATCH: usize = 16;

/// What encrypted execution can afford.
fn budget(site: Site) -> Budget {
    let (degree, squarings) = match site {
        Site::Optimizer | Site::Gate(_) => (31, 0),
        Site::Kernel(_) => (15, 1),
        _ => (15, 0),
    };
    Budget { degree, squarings, margin: 1.5 }
}

struct World {
    config: Config,
    task: Task,
    start: Parameters<f64>,
    train: Vec<Example>,
    dev: Vec<Example>,
}

impl World {
    /// Trains and evaluates one way; returns all arguments seen in training.
    fn run(
        &self,
        name: &str,
        functions: Functions<'_>,
        noise: Option<Noise>,
    ) -> Result<Ranges, Box<dyn Error>> {
        let (learning_rate, epsilon, epochs) = paper_constants(self.task);
        let steps = epochs * self.train.len().div_ceil(BATCH);
        let recipe = Recipe {
            trained: Trainable::Adapters,
            optimizer: AdamWHe::paper(learning_rate, epsilon),
            steps: u32::try_from(steps)?,
            functions,
            noise,
        };
        let start = Instant::now();
        let mut tuner = FineTuner::new(&self.config, self.start.clone(), recipe);
        let mut order = self.train.clone();
        let mut loss = 0.0;
        for epoch in 0..epochs {
            Random::new(1, epoch as u64).shuffle(&mut order);
            loss = 0.0;
            for batch in order.chunks(BATCH) {
                loss += tuner.step(batch)? * batch.len() as f64 / order.len() as f64;
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        let seen = observe_with_noise(&self.config, tuner.parameters(), &self.dev, functions, noise)?;
        let labels: Vec<f64> = self.dev.iter().map(|e| f64::from(e.label)).collect();
        let metric = Metric::of(self.task);
        println!(
            "{name}: {metric:?} {:.4} on {} rows; loss {loss:.4} in the last epoch; {:.1} ms a row and step",
            metric.of_logits(&seen.logits, &labels),
            labels.len(),
            1e3 * seconds / (epochs * self.train.len()) as f64
        );
        let mut ranges = tuner.ranges().clone();
        ranges.merge(&seen.ranges);
        Ok(ranges)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (data, model, task, rows, bits) = match arguments.as_slice() {
        [data, model, task, rows] => (Path::new(data), model, task, rows.parse()?, 20),
        [data, model, task, rows, bits] => (Path::new(data), model, task, rows.parse()?, bits.parse()?),
        _ => return Err("usage: rehearse DATA MODEL TASK ROWS [BITS]".into()),
    };
    let task =
        Task::ALL.into_iter().find(|t| t.folder() == task).ok_or("TASK is a folder of GLUE, as SST-2")?;
    let model = Model::load(Path::new(model))?;
    let (classes, loss) = task.outputs();
    let config = Config { lora_rank: 2, lora_targets: Targets::ALL, classes, loss, ..model.config };
    let folder = data.join(task.folder());
    let mut train = task.read(&folder.join(task.training_file()))?;
    Random::new(1, 1000).shuffle(&mut train);
    train.truncate(rows);
    let dev = task.read(&folder.join(task.development_file()))?;
    let world = World {
        config,
        task,
        start: begin(&model.parameters.convert(), &config, 1),
        train: tokenise(&model.tokenizer, &train, config.length)?,
        dev: tokenise(&model.tokenizer, &dev, config.length)?,
    };
    let ranges = world.run("exact", Functions::Exact, None)?;
    let mut table = Approximations::new(&config);
    table.fit(Site::all(&config).chain(Site::training(&config)), &ranges, budget)?;
    let polynomials = Functions::Polynomial(&table);
    let reached = world.run("polynomials", polynomials, None)?;
    let noise = Noise { relative: 2f64.powi(-bits), seed: 1 };
    let noisy = world.run(&format!("polynomials with {bits} bits"), polynomials, Some(noise))?;
    for site in Site::all(&config).chain(Site::training(&config)) {
        let a = table.get(site).ok_or("a site has no approximation")?;
        println!(
            "{:20} degree {:2}, {} levels on [{:.3}, {:.3}], error {:.1e}; seen {:.3?} exactly, {:.3?} on polynomials; gradients to {:.1e}, {:.1e}",
            site_name(site),
            a.degree(),
            a.depth(),
            a.interval().low(),
            a.interval().high(),
            a.measure(4001).worst,
            ranges.get(site),
            reached.get(site),
            ranges.gradient(site),
            reached.gradient(site)
        );
    }
    for (name, ranges) in [("polynomials", &reached), ("noise", &noisy)] {
        if let Some(site) = ranges.escape(&table) {
            println!("with {name}, arguments leave the interval of {}", site_name(site));
        }
    }
    Ok(())
}
