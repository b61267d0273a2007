//! Fits the polynomials of a pre-trained model, prints them and writes them into its folder.
//!
//! `cargo run --release -p veilformer-plain --example calibrate -- MODEL GLUE TEXT…`
//! The arguments are those of all of GLUE's training sentences (pairs as pairs) and of 20,000 stretches of the texts, and those
//! of fine-tuning on each of GLUE's tasks with classes for some steps, which gives the polynomials and bounds of training too.

use std::error::Error;
use std::fs;
use std::path::Path;

use veilformer::transformer::{Loss, Site};
use veilformer_plain::data::Task;
use veilformer_plain::model::Model;
use veilformer_plain::parameters::site_name;
use veilformer_plain::pretrain::{segments, stream};
use veilformer_plain::random::Random;
use veilformer_plain::run::Example;
use veilformer_plain::tiny;
use veilformer_plain::tokenizer::{FIRST, PAD, Sequence};

/// Stretches of the texts.
const STRETCHES: usize = 20_000;
/// Lines of a text that stretches are taken from.
const LINES: usize = 50_000;
/// Training rows of a task, at most.
const ROWS: usize = 10_000;
/// Steps of fine-tuning on a task.
const STEPS: u32 = 120;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, glue, texts @ ..] = arguments.as_slice() else {
        return Err("usage: calibrate MODEL GLUE TEXT...".into());
    };
    let mut model = Model::load(Path::new(folder))?;
    let length = model.config.length;
    let (mut sequences, mut tasks) = (Vec::new(), Vec::new());
    for task in Task::ALL {
        let mut rows = task.read(&Path::new(glue).join(task.folder()).join(task.training_file()))?;
        rows.truncate(ROWS);
        let mut examples = Vec::with_capacity(rows.len());
        for row in rows {
            let sequence = model.tokenizer.encode(&row.sentence, row.second.as_deref(), length)?;
            sequences.push(sequence.clone());
            examples.push(Example { sequence, label: row.label });
        }
        if task.outputs().1 == Loss::CrossEntropy {
            Random::new(1, 1000).shuffle(&mut examples);
            tasks.push((task, examples));
        }
    }
    for text in texts {
        let text = fs::read_to_string(text)?;
        let lines: Vec<&str> = text.lines().take(LINES).collect();
        let tokens = stream(&model.tokenizer, &lines.join("\n"))?;
        let cut = segments(&tokens, length, 0, 0);
        sequences.extend(cut.iter().take(STRETCHES / texts.len()).map(|&(start, taken)| {
            let pieces = &tokens[start as usize..][..usize::from(taken)];
            let mut tokens = vec![FIRST];
            tokens.extend(pieces.iter().map(|&piece| u32::from(piece)));
            let used = tokens.len();
            tokens.resize(length, PAD);
            Sequence { tokens, used, truncated: false }
        }));
    }
    tiny::calibrate(&mut model, &sequences)?;
    println!("{} sequences", sequences.len());
    tiny::rehearse(&mut model, &tasks, STEPS, tiny::budget)?;
    for layer in 0..model.config.layers {
        let bound = model.approximations.adapter_gradient_bound(layer);
        println!("layer {layer}, gradients by LoRA within {bound:?}");
    }
    for site in Site::all(&model.config).chain(Site::training(&model.config)) {
        if let Some(bound) = model.approximations.gradient_bound(site) {
            println!("{:20} gradients within {bound:.2e}", site_name(site));
        }
        let entry = model.approximations.entry(site).ok_or("a site has no polynomial")?;
        let polynomial = model.approximations.get(site).ok_or("a site has no polynomial")?;
        println!(
            "{:20} seen {:.3?}, degree {} on [{:.3}, {:.3}], {} squarings, {} levels, error {:.1e}",
            site_name(site),
            entry.observed,
            polynomial.degree(),
            entry.interval.low(),
            entry.interval.high(),
            entry.squarings,
            polynomial.depth(),
            polynomial.measure(4001).worst,
        );
    }
    model.save(Path::new(folder))?;
    Ok(())
}
