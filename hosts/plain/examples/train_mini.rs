//! Trains `veil-mini` on SST-2 and writes the model folder.
//!
//! `cargo run --release -p veilformer-plain --example train_mini -- DATA OUT SEED`
//! where DATA holds `vocab.txt` and `glue/SST-2/{train,dev}.tsv`.

use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

use veilformer::transformer::{Config, Loss, Site};
use veilformer_plain::data::Task;
use veilformer_plain::executor::Functions;
use veilformer_plain::gradient::Penalties;
use veilformer_plain::model::{Model, Training};
use veilformer_plain::optimizer::AdamW;
use veilformer_plain::parameters::site_name;
use veilformer_plain::sites::Budget;
use veilformer_plain::tokenizer::Tokenizer;
use veilformer_plain::train::{Example, Options, observe, train};

fn env<T: std::str::FromStr>(name: &str, default: T) -> T {
    std::env::var(name).ok().and_then(|s| s.parse().ok()).unwrap_or(default)
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [data, out, seed] = arguments.as_slice() else {
        return Err("usage: train_mini DATA OUT SEED".into());
    };
    let (data, out, seed) = (PathBuf::from(data), PathBuf::from(out), seed.parse::<u64>()?);

    let train_rows = Task::Sst2.read(&data.join("glue/SST-2/train.tsv"))?;
    let dev_rows = Task::Sst2.read(&data.join("glue/SST-2/dev.tsv"))?;
    let full = std::fs::read_to_string(data.join("vocab.txt"))?;
    let tokenizer =
        Tokenizer::trimmed(&full, train_rows.iter().map(|r| r.sentence.as_str()), env("LEAST", 12))?;
    let config = Config {
        layers: 1,
        width: 32,
        heads: 2,
        length: env("T", 16),
        feed_forward: env("F", 32),
        head_rank: 0,
        head_hidden: 32,
        classes: 2,
        vocabulary: tokenizer.vocabulary().len(),
        lora_rank: 0,
        first_norm: false,
        embedding_affine: false,
        norm_epsilon: 1e-5,
        loss: Loss::CrossEntropy,
    };
    config.validate()?;
    let examples = |rows: &[veilformer_plain::data::Row]| -> Result<Vec<Example>, Box<dyn Error>> {
        rows.iter()
            .map(|row| {
                let sequence = tokenizer.encode(&row.sentence, None, config.length)?;
                Ok(Example { sequence, label: row.label })
            })
            .collect()
    };
    let (train_set, dev_set) = (examples(&train_rows)?, examples(&dev_rows)?);
    let truncated = |set: &[Example]| set.iter().filter(|e| e.sequence.truncated).count();
    println!(
        "{} pieces; {} training sentences ({} truncated), {} development ({} truncated)",
        config.vocabulary,
        train_set.len(),
        truncated(&train_set),
        dev_set.len(),
        truncated(&dev_set)
    );

    let mut penalties = Penalties::none(&config);
    penalties.weight = env("PW", 1.0);
    penalties.set(Site::Kernel(0), -env("M", 6.0), 0.0);
    penalties.set(Site::SecondNorm(0), env("L2", 0.8), env("H2", 2.0));
    penalties.set(Site::Gate(0), -env("R", 3.0), env("R", 3.0));
    penalties.set(Site::FinalNorm, env("L3", 0.8), env("H3", 2.0));
    penalties.set(Site::Tanh, -env("Z", 2.0), env("Z", 2.0));
    let budget = |site| match site {
        Site::Kernel(_) => Budget { degree: 7, squarings: 2, margin: 1.5 },
        Site::Gate(_) => Budget { degree: 15, squarings: 0, margin: 1.5 },
        Site::Tanh => Budget { degree: 15, squarings: 0, margin: 1.5 },
        _ => Budget { degree: 7, squarings: 0, margin: 1.5 },
    };
    let options = Options {
        exact_epochs: env("EPOCHS", 4),
        polynomial_epochs: env("POLY", 2),
        batch: env("BATCH", 64),
        learning_rate: env("LR", 3e-3),
        optimizer: AdamW { weight_decay: env("WD", 0.01), ..AdamW::default() },
        word_dropout: env("DROP", 0.1),
        seed,
    };
    let start = Instant::now();
    let trained = train(&config, &train_set, &options, &penalties, budget, &mut |p| {
        println!(
            "epoch {}/{}: loss {:.4} ({:.0} s)",
            p.epoch,
            p.epochs,
            p.loss,
            start.elapsed().as_secs_f64()
        );
    })?;
    let seconds = start.elapsed().as_secs_f64();

    let weights = &trained.parameters;
    let exact = observe(&config, weights, &dev_set, Functions::Exact)?;
    let polynomial = observe(&config, weights, &dev_set, Functions::Polynomial(&trained.approximations))?;
    let everywhere = observe(&config, weights, &train_set, Functions::Polynomial(&trained.approximations))?;
    let (worst, mean) = exact.difference(&polynomial);
    let largest = exact.logits.iter().flatten().fold(0.0f64, |m, y| m.max(y.abs()));
    println!("trained in {seconds:.0} s");
    println!(
        "development accuracy: exact {:.4}, polynomial {:.4}; logits differ by {worst:.4} at most, {mean:.5} on average (largest logit {largest:.2})",
        exact.accuracy(&dev_set),
        polynomial.accuracy(&dev_set)
    );
    for site in Site::all(&config) {
        let a = trained.approximations.get(site).ok_or("no approximation")?;
        let e = a.measure(4001);
        println!(
            "{:20} [{:.3}, {:.3}] error {:.1e}; seen: training {:.3?}, development {:.3?}",
            site_name(site),
            a.interval().low(),
            a.interval().high(),
            e.worst,
            everywhere.ranges.get(site),
            polynomial.ranges.get(site)
        );
    }
    if let Some(site) = everywhere.ranges.escape(&trained.approximations) {
        println!("warning: a training sentence leaves the interval of {}", site_name(site));
    }
    if let Some(site) = polynomial.ranges.escape(&trained.approximations) {
        return Err(format!("a development sentence leaves the interval of {}", site_name(site)).into());
    }
    let training = Training {
        task: "SST-2".to_owned(),
        seed,
        command: format!("cargo run --release -p veilformer-plain --example train_mini -- DATA OUT {seed}"),
        dev_accuracy_exact: exact.accuracy(&dev_set),
        dev_accuracy_polynomial: polynomial.accuracy(&dev_set),
        dev_sentences: dev_set.len(),
        dev_truncated: truncated(&dev_set),
        worst_logit_difference: worst,
        mean_logit_difference: mean,
        largest_logit: largest,
    };
    let Training { .. } = &training;
    let model = Model {
        config,
        parameters: trained.parameters,
        approximations: trained.approximations,
        tokenizer,
        training,
    };
    model.save(&out)?;
    Ok(())
}
