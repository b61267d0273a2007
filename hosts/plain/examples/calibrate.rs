//! Fits the polynomials of a pre-trained model, prints them and writes them into its folder.
//!
//! `cargo run --release -p veilformer-plain --example calibrate -- MODEL GLUE TEXT…`
//! The arguments are those of all of GLUE's training sentences (pairs as pairs) and of 20,000 stretches of the texts.

use std::error::Error;
use std::fs;
use std::path::Path;

use veilformer::transformer::Site;
use veilformer_plain::data::Task;
use veilformer_plain::model::Model;
use veilformer_plain::parameters::site_name;
use veilformer_plain::pretrain::{segments, stream};
use veilformer_plain::tiny;
use veilformer_plain::tokenizer::{FIRST, PAD, Sequence};

/// Stretches of the texts.
const STRETCHES: usize = 20_000;
/// Lines of a text that stretches are taken from.
const LINES: usize = 50_000;
/// Training rows of a task, at most.
const ROWS: usize = 10_000;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, glue, texts @ ..] = arguments.as_slice() else {
        return Err("usage: calibrate MODEL GLUE TEXT...".into());
    };
    let mut model = Model::load(Path::new(folder))?;
    let length = model.config.length;
    let mut sequences = Vec::new();
    for task in Task::ALL {
        let rows = task.read(&Path::new(glue).join(task.folder()).join(task.training_file()))?;
        for row in rows.iter().take(ROWS) {
            sequences.push(model.tokenizer.encode(&row.sentence, row.second.as_deref(), length)?);
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
    for site in Site::all(&model.config) {
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
