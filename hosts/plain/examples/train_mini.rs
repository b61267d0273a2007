//! Trains `veil-mini` on SST-2, prints what it reached and writes the model folder.
//!
//! `cargo run --release -p veilformer-plain --example train_mini -- DATA OUT SEED [LENGTH]`
//! where DATA holds `vocab.txt` and `glue/SST-2/{train,dev}.tsv`; LENGTH is 32 unless given.

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use veilformer::ckks::ParametersLiteral;
use veilformer::transformer::slots::{PlanSlots, Refresh, SlotExecutor, SlotTensor};
use veilformer::transformer::{Site, forward};
use veilformer_plain::model::Model;
use veilformer_plain::parameters::site_name;
use veilformer_plain::recipe::make;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (data, out, seed, length) = match arguments.as_slice() {
        [data, out, seed] => (data, out, seed.parse()?, 32),
        [data, out, seed, length] => (data, out, seed.parse()?, length.parse()?),
        _ => return Err("usage: train_mini DATA OUT SEED [LENGTH]".into()),
    };
    let command =
        format!("cargo run --release -p veilformer-plain --example train_mini -- DATA OUT {seed} {length}");
    let start = Instant::now();
    let made = make(Path::new(data), length, seed, command, &mut |p| {
        let functions = if p.polynomial { "polynomials" } else { "exact" };
        let seconds = start.elapsed().as_secs_f64();
        println!("epoch {}/{} ({functions}): loss {:.4}, {seconds:.0} s", p.epoch, p.epochs, p.loss);
    })?;
    let (model, t) = (&made.model, &made.scores);
    println!(
        "trained and evaluated in {:.0} s; {} pieces",
        start.elapsed().as_secs_f64(),
        model.config.vocabulary
    );
    println!(
        "accuracy on {} development sentences ({} truncated to {length} tokens): exact {:.4}, polynomial {:.4}",
        t.dev_sentences, t.dev_truncated, t.dev_accuracy_exact, t.dev_accuracy_polynomial
    );
    println!(
        "exact and polynomial logits differ by {:.4} at most, {:.4} on average; largest logit {:.2}",
        t.worst_logit_difference, t.mean_logit_difference, t.largest_logit
    );
    for site in Site::all(&model.config) {
        let a = model.approximations.get(site).ok_or("a site has no approximation")?;
        println!(
            "{:20} degree {:2}, {} levels on [{:.3}, {:.3}], error {:.1e}; seen {:.3?} in training, {:.3?} in development",
            site_name(site),
            a.degree(),
            a.depth(),
            a.interval().low(),
            a.interval().high(),
            a.measure(4001).worst,
            made.train_polynomial.ranges.get(site),
            made.dev_polynomial.ranges.get(site)
        );
    }
    print_plan(model)?;
    for (set, run) in [("training", &made.train_polynomial), ("development", &made.dev_polynomial)] {
        if let Some(site) = run.ranges.escape(&model.approximations) {
            return Err(format!("a {set} sentence leaves the interval of {}", site_name(site)).into());
        }
    }
    model.save(Path::new(out))?;
    Ok(())
}

/// What one encrypted inference takes when a bootstrap brings level 3 to level 15.
fn print_plan(model: &Model) -> Result<(), Box<dyn Error>> {
    let parameters = ParametersLiteral::N16_LEVELED.check()?;
    let refresh = Refresh { floor: 3, level: 15 };
    let slots = PlanSlots::with_refresh(&parameters, Some(refresh));
    let input = || SlotTensor::tokens(slots.input(refresh.level));
    let (tokens, mask) = (input(), input());
    let mut executor = SlotExecutor::new(slots, model)?;
    forward(&model.config, &mut executor, tokens, &mask)?;
    let plan = executor.into_slots().finish();
    println!(
        "{} bootstraps, {} key switches, {} products, {} diagonals, {} keys; lowest level {}",
        plan.refreshes,
        plan.key_switches,
        plan.products,
        plan.diagonals,
        plan.keys.len(),
        plan.lowest_level
    );
    Ok(())
}
