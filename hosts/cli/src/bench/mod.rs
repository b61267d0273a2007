//! `bench`: figures of every layer on this machine, under fixed names.
//!
//! A transform's figure is per limb. `encode` goes from slots to a plaintext
//! in evaluation form at the top level, `decode` back; `decrypt` ends at the
//! slots. Times are wall-clock; the minimum is what the code costs, the
//! median what the machine made of it.

mod bootstrap;
mod compare;
mod engine;
mod lanes;
mod matrix;
mod model;
mod ntt;
mod pair;
mod scheme;
mod slots;
mod step;
mod tally;

use crate::exit::{Exit, Failure};
use crate::output::{Output, Stolen, Table, cpu_seconds, seconds, taken};
use serde::Serialize;
use std::time::{Duration, Instant};
use veilformer::ckks::{ParametersLiteral, PrecisionStats};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: Option<What>,
    /// Only figures whose name contains this; several parts are separated by commas
    #[arg(long, value_name = "PART")]
    filter: Option<String>,
    /// Threads
    #[arg(long, global = true, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=512))]
    threads: u16,
    /// Measurements of each figure; as many as fit a second and a half when left out
    #[arg(long, global = true, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    runs: Option<u32>,
    /// Only list the names
    #[arg(long)]
    list: bool,
}

/// A bench with a table of its own.
#[derive(Debug, clap::Subcommand)]
enum What {
    /// Fine-tuning and inference of one model with all weights encrypted or LoRA, softmax or Gaussian attention
    Compare {
        /// The model
        #[arg(long, default_value = compare::MODEL, value_parser = [compare::MODEL])]
        model: String,
    },
}

/// One line.
#[derive(Debug, Serialize)]
pub(crate) struct Figure {
    name: String,
    params: &'static str,
    threads: usize,
    median_s: f64,
    min_s: f64,
    runs: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bits_mean: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bits_min: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    levels: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bootstraps: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stages: Vec<Stage>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    operations: Vec<tally::Line>,
}

/// A part of what is measured, in the last run.
#[derive(Clone, Copy, Debug, Serialize)]
struct Stage {
    name: &'static str,
    seconds: f64,
    cpu_s: f64,
}

/// Times stages, one after another.
struct Stages {
    list: Vec<Stage>,
    began: (Instant, f64),
}

impl Stages {
    /// The first begins.
    fn new() -> Self {
        Self { list: Vec::new(), began: Self::now() }
    }

    fn now() -> (Instant, f64) {
        (Instant::now(), cpu_seconds().unwrap_or(f64::NAN))
    }

    /// One ends, and the next begins.
    fn end(&mut self, name: &'static str) {
        let (seconds, cpu_s) = (self.began.0.elapsed().as_secs_f64(), Self::now().1 - self.began.1);
        self.list.push(Stage { name, seconds, cpu_s });
        self.began = Self::now();
    }
}

impl Figure {
    fn precise(self, stats: PrecisionStats) -> Self {
        Self { bits_mean: Some(stats.mean_bits), bits_min: Some(stats.min_bits), ..self }
    }

    /// Least processor time of a run.
    fn cpu(self, seconds: f64) -> Self {
        Self { cpu_s: Some(seconds).filter(|s| s.is_finite()), ..self }
    }

    fn levels(self, levels: usize) -> Self {
        Self { levels: Some(levels), ..self }
    }

    fn bytes(self, bytes: u64) -> Self {
        Self { bytes: Some(bytes), ..self }
    }
}

/// What every measurement needs to know.
#[derive(Clone, Copy)]
pub(crate) struct Setting {
    threads: usize,
    runs: Option<u32>,
}

impl Setting {
    /// Times `f` on what `prepare` makes, which is not timed; the first call only warms up.
    /// `share` is how many items one call works on.
    fn measure<T>(
        &self,
        name: &str,
        params: &'static str,
        share: usize,
        mut prepare: impl FnMut() -> Result<T, Failure>,
        mut f: impl FnMut(T) -> Result<(), Failure>,
    ) -> Result<Figure, Failure> {
        const ENOUGH: Duration = Duration::from_millis(1500);
        f(prepare()?)?;
        let (mut times, began) = (Vec::new(), Instant::now());
        loop {
            let enough = match self.runs {
                Some(runs) => times.len() >= runs as usize,
                None => times.len() >= 3 && (began.elapsed() >= ENOUGH || times.len() >= 20_000),
            };
            if enough {
                break;
            }
            let input = prepare()?;
            let start = Instant::now();
            f(input)?;
            times.push(start.elapsed().as_secs_f64() / share as f64);
        }
        times.sort_by(f64::total_cmp);
        Ok(self.figure(name, params, &times))
    }

    fn figure(&self, name: &str, params: &'static str, sorted: &[f64]) -> Figure {
        Figure {
            name: name.to_owned(),
            params,
            threads: self.threads,
            median_s: sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN),
            min_s: sorted.first().copied().unwrap_or(f64::NAN),
            runs: sorted.len(),
            cpu_s: None,
            bits_mean: None,
            bits_min: None,
            levels: None,
            bootstraps: None,
            bytes: None,
            stages: Vec::new(),
            operations: Vec::new(),
        }
    }
}

/// The names, in the order they are measured.
pub(crate) const NAMES: &[&str] = &[
    "ntt_forward/4096",
    "ntt_forward/8192",
    "ntt_forward/65536",
    "ntt_inverse/4096",
    "ntt_inverse/8192",
    "ntt_inverse/65536",
    "rotate/n13/3",
    "mul_relin_rescale/n13/3",
    "rotate/n16/12",
    "mul_relin_rescale/n16/12",
    "rotate/n16/24",
    "mul_relin_rescale/n16/24",
    "rescale/n16/24",
    "encode/n16",
    "decode/n16",
    "encrypt/n16/24",
    "decrypt/n16/24",
    "keygen/n16/24",
    "bootstrap_keygen/n16",
    "bootstrap_stc/n16",
    "bootstrap_raise/n16",
    "bootstrap_cts/n16",
    "bootstrap_evalmod/n16",
    "bootstrap/n16",
    "bootstrap_chain/n16",
    "bootstrap/n16/matrix",
    "pcmm/128x768x768",
    "pcmm/layer",
    "pcmm/layer-batch16",
    "lora/128x768-r2",
    lanes::NAMES[0],
    lanes::NAMES[1],
    pair::NAMES[0],
    pair::NAMES[1],
    pair::NAMES[2],
    slots::NAME,
    "infer/veil-mini",
    engine::NAMES[0],
    engine::NAMES[1],
    engine::NAMES[2],
    compare::NAMES[0],
    compare::NAMES[1],
    compare::NAMES[2],
    compare::NAMES[3],
];

/// The parameters of the names that end so.
const SETS: &[(&str, ParametersLiteral)] = &[
    ("n13/3", ParametersLiteral::N13_3),
    ("n16/12", ParametersLiteral::N16_12),
    ("n16/24", ParametersLiteral::N16_24),
];

pub(crate) fn run(args: &Args, output: Output) -> Result<(), Failure> {
    let wanted = |name: &&str| {
        match args.filter.as_deref() {
            Some(filter) => filter.split(',').any(|part| name.contains(part)),
            None if args.what.is_some() => compare::NAMES.contains(name),
            // Minutes: only where it is asked for, or listed.
            None => args.list || !(name.contains("chain") || is_job(name)),
        }
    };
    let names: Vec<&str> = NAMES.iter().copied().filter(wanted).collect();
    if names.is_empty() {
        let message = format!("no figure's name contains that; there are: {}", NAMES.join(", "));
        return Err(Failure::new(Exit::Usage, message));
    }
    if args.list {
        output.say(names.join("\n"));
        names.iter().try_for_each(|name| output.json(name))?;
        return Ok(());
    }
    let setting = Setting { threads: args.threads.into(), runs: args.runs };
    let stolen = Stolen::start();
    let mut table =
        Table::new(&["figure", ">minimum", ">median", ">runs", ">bits mean", ">bits min", "notes"]);
    let mut compared = Vec::new();
    let mut report = |figure: Figure| -> Result<(), Failure> {
        compared.extend(compare::Outcome::of(&figure));
        output.json(&figure)?;
        if !output.json {
            eprintln!("{} {}", figure.name, seconds(figure.min_s));
        }
        table.row(cells(&figure));
        Ok(())
    };
    for name in names.iter().filter(|name| name.starts_with("ntt_")) {
        report(ntt::measure(&setting, name)?)?;
    }
    for (set, literal) in SETS {
        let of_set: Vec<&str> =
            names.iter().copied().filter(|name| scheme::set_of(name) == Some(set)).collect();
        if !of_set.is_empty() {
            scheme::measure(&setting, set, literal, &of_set, &mut report)?;
        }
    }
    let mut booted: Vec<&str> =
        names.iter().copied().filter(|n| bootstrap::literal_of(n).is_some()).collect();
    while let Some((set, literal)) = booted.first().and_then(|name| bootstrap::literal_of(name)) {
        let of_set: Vec<&str> = booted
            .extract_if(.., |name| bootstrap::literal_of(name).is_some_and(|(other, _)| other == set))
            .collect();
        bootstrap::measure(&setting, set, &literal, &of_set, &mut report)?;
    }
    let products: Vec<&str> = names.iter().copied().filter(|name| matrix::is_name(name)).collect();
    if !products.is_empty() {
        matrix::measure(&setting, &products, &mut report)?;
    }
    let products: Vec<&str> = names.iter().copied().filter(|name| lanes::NAMES.contains(name)).collect();
    if !products.is_empty() {
        lanes::measure(&setting, &products, &mut report)?;
    }
    let products: Vec<&str> = names.iter().copied().filter(|name| pair::NAMES.contains(name)).collect();
    if !products.is_empty() {
        pair::measure(&setting, &products, &mut report)?;
    }
    if names.contains(&slots::NAME) {
        report(slots::measure(&setting)?)?;
    }
    if names.contains(&model::NAME) {
        report(model::measure(&setting)?)?;
    }
    let jobs: Vec<&str> = names.iter().copied().filter(|name| is_job(name)).collect();
    if !jobs.is_empty() {
        engine::measure(&setting, &jobs, &mut report)?;
    }
    output.say(table.render());
    if !compared.is_empty() {
        output.say(compare::table(&compared).render());
    }
    if let Some(share) = stolen.share() {
        output.say(format!("other machines on this host had {} meanwhile", taken(share)));
    }
    Ok(())
}

/// Whether it is a job of the encrypted executor.
fn is_job(name: &str) -> bool {
    engine::NAMES.contains(&name) || compare::NAMES.contains(&name)
}

fn cells(figure: &Figure) -> Vec<String> {
    let bits = |value: Option<f64>| value.map_or_else(String::new, |bits| format!("{bits:.1}"));
    let mut notes = Vec::new();
    notes.extend(figure.cpu_s.map(|cpu| format!("processor {}", seconds(cpu))));
    notes.extend(figure.levels.map(|levels| format!("levels {levels}")));
    notes.extend(figure.bootstraps.map(|count| format!("bootstraps {count}")));
    notes.extend(figure.stages.iter().map(|stage| format!("{} {}", stage.name, seconds(stage.seconds))));
    notes.extend(figure.bytes.map(crate::output::bytes));
    vec![
        figure.name.clone(),
        seconds(figure.min_s),
        seconds(figure.median_s),
        figure.runs.to_string(),
        bits(figure.bits_mean),
        bits(figure.bits_min),
        notes.join(", "),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_belongs_to_one_bench() {
        for name in NAMES {
            let homes = usize::from(name.starts_with("ntt_"))
                + usize::from(scheme::set_of(name).is_some())
                + usize::from(bootstrap::literal_of(name).is_some())
                + usize::from(matrix::is_name(name))
                + usize::from(lanes::NAMES.contains(name))
                + usize::from(pair::NAMES.contains(name))
                + usize::from(*name == slots::NAME)
                + usize::from(*name == model::NAME)
                + usize::from(is_job(name));
            assert_eq!(homes, 1, "{name}");
        }
    }

    #[test]
    fn measuring_counts_runs_and_keeps_preparation_out() {
        let setting = Setting { threads: 1, runs: Some(4) };
        let mut prepared = 0;
        let figure = setting
            .measure(
                "x",
                "y",
                1,
                || {
                    prepared += 1;
                    std::thread::sleep(Duration::from_millis(5));
                    Ok(())
                },
                |()| Ok(()),
            )
            .unwrap();
        assert_eq!((figure.runs, prepared), (4, 5));
        assert!(figure.median_s < 4e-3 && figure.min_s <= figure.median_s);
    }
}
