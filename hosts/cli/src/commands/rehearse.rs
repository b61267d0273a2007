//! `rehearse`: the client takes the steps of `finetune` in the clear, and scores what they, and those under encryption, come to.

use super::decrypt::{Opening, with_opener};
use super::finetune::RecipeArgs;
use super::report::{Agreement, same_class};
use crate::args::Threads;
use crate::exit::{Exit, Failure};
use crate::output::{Output, Table};
use crate::sentences::TextArgs;
use crate::twin::Twin;
use crate::work::{ModelArgs, Work};
use serde::Serialize;
use std::path::PathBuf;
use veilformer::transformer::Trainable;
use veilformer_plain::executor::Functions;
use veilformer_plain::metrics::Metric;
use veilformer_plain::noise::Noise;
use veilformer_plain::parameters::Parameters as Weights;
use veilformer_plain::run::{Example, observe};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Before encrypted fine-tuning it tells what to expect: the score of a development set after the same steps on the
functions themselves, on the polynomials that stand for them, and with noise as encryption has it. Afterwards, given
--secret and the run's checkpoint as --weights, it scores what the server trained beside them.")]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Sentences and labels to train on, in the layout of the task's GLUE file, as given to `encrypt`
    #[arg(long, value_name = "TSV")]
    file: PathBuf,
    /// Sentences and labels to score on, in the same layout
    #[arg(long, value_name = "TSV")]
    dev: PathBuf,
    /// Sentences to a batch
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    batch: u16,
    #[command(flatten)]
    recipe: RecipeArgs,
    /// Precision of an encrypted operation that noise is added for. 16 bits come to what forty encrypted steps of
    /// veil-tiny came to
    #[arg(long, value_name = "BITS", default_value_t = 16, value_parser = clap::value_parser!(u8).range(1..=50))]
    bits: u8,
    /// The secret key, to score encrypted weights
    #[arg(long, value_name = "FILE", requires = "weights")]
    secret: Option<PathBuf>,
    /// A checkpoint of a run of fine-tuning on the same sentences
    #[arg(long, value_name = "FILE", requires = "secret")]
    weights: Option<PathBuf>,
    #[command(flatten)]
    threads: Threads,
}

/// One way to train.
#[derive(Serialize)]
struct Row {
    run: &'static str,
    score: f64,
    /// Share of sentences for which the same weights on exact functions predict the same class.
    same_class: Option<f64>,
    /// Mean loss of the last tenth of the steps, where they were taken here.
    loss: Option<f64>,
    /// Agreement of trained weights and of logits with those of the steps on polynomials.
    weights: Agreement,
    logits: Agreement,
    /// The function of which an argument left its polynomial's interval.
    escaped: Option<String>,
}

/// What a development set says of weights.
struct Scored {
    run: &'static str,
    weights: Weights<f64>,
    loss: Option<f64>,
    escaped: Option<String>,
    logits: Vec<Vec<f64>>,
    /// Of the same weights on exact functions.
    exact: Vec<Vec<f64>>,
}

pub(crate) fn run(args: &Args, output: Output) -> Result<(), Failure> {
    args.threads.pool()?.install(|| rehearse(args, output))
}

fn rehearse(args: &Args, output: Output) -> Result<(), Failure> {
    let work = Work::load(&args.model)?;
    let read = |path: &PathBuf| TextArgs::of_file(path.clone()).read(&work);
    let (train, dev) = (read(&args.file)?, read(&args.dev)?);
    if train.is_empty() || dev.is_empty() {
        return Err(Failure::new(
            Exit::Usage,
            "no sentences to train on or to score on; check --file and --dev",
        ));
    }
    let batch = usize::from(args.batch);
    let asked = args.recipe.asked(&work, train.len().div_ceil(batch))?;
    let twin = Twin::new(&work, asked, &train, batch);
    let data: Vec<Example> = dev.iter().map(|s| s.example.clone()).collect();
    let rehearsal = Rehearsal { work: &work, twin: &twin, data: &data, output };

    let polynomials = Functions::Polynomial(&work.approximations);
    let noise = Noise { relative: 2f64.powi(-i32::from(args.bits)), seed: 1 };
    let mut runs = vec![
        rehearsal.score("before", work.weights.clone(), polynomials)?,
        rehearsal.train("exact functions", Functions::Exact, None)?,
        rehearsal.train("polynomials", polynomials, None)?,
        rehearsal.train("polynomials, with noise", polynomials, Some(noise))?,
    ];
    if let (Some(secret), Some(weights)) = (&args.secret, &args.weights) {
        let (secret, weights) = (secret.clone(), Some(weights.clone()));
        let opening = Opening { secret, model: args.model.clone(), weights, threads: args.threads };
        let decrypted = with_opener(&opening, |_, work| Ok(work.weights))?;
        runs.push(rehearsal.score("encrypted", decrypted, polynomials)?);
    }
    let labels: Vec<f64> = data.iter().map(|example| f64::from(example.label)).collect();
    let rows = rows(&work, &runs, &labels);
    rows.iter().try_for_each(|row| output.json(row))?;
    output.say(table(&work, &rows));
    output.say(format!(
        "{} steps of {batch} sentences, {} sentences to score on; bits are of agreement with the steps on polynomials; classes are compared \
         with those of the same weights on exact functions",
        asked.steps,
        data.len()
    ));
    Ok(())
}

struct Rehearsal<'a> {
    work: &'a Work,
    twin: &'a Twin<'a>,
    data: &'a [Example],
    output: Output,
}

impl Rehearsal<'_> {
    fn train(
        &self,
        run: &'static str,
        functions: Functions<'_>,
        noise: Option<Noise>,
    ) -> Result<Scored, Failure> {
        let bar = self.output.progress("rehearse", self.twin.asked.steps.into());
        let trained = self.twin.train(functions, noise, || bar.inc(1))?;
        bar.finish_and_clear();
        let last = &trained.losses[trained.losses.len() * 9 / 10..];
        let loss = (!last.is_empty()).then(|| last.iter().sum::<f64>() / last.len() as f64);
        let scored = self.score(run, trained.weights, functions)?;
        let escaped = trained.ranges.escape(&self.work.approximations).map(|site| format!("{site:?}"));
        Ok(Scored { loss, escaped: escaped.or(scored.escaped), ..scored })
    }

    fn score(
        &self,
        run: &'static str,
        weights: Weights<f64>,
        functions: Functions<'_>,
    ) -> Result<Scored, Failure> {
        let seen = observe(&self.work.config, &weights, self.data, functions)?;
        let escaped = seen.ranges.escape(&self.work.approximations).map(|site| format!("{site:?}"));
        let exact = observe(&self.work.config, &weights, self.data, Functions::Exact)?.logits;
        Ok(Scored { run, weights, loss: None, escaped, logits: seen.logits, exact })
    }
}

/// Scores, and agreement with the runs they are to agree with.
fn rows(work: &Work, runs: &[Scored], labels: &[f64]) -> Vec<Row> {
    let metric = Metric::of(work.task);
    let trained = |weights: &Weights<f64>| -> Vec<Vec<f64>> {
        Trainable::Adapters
            .parameters(&work.config)
            .map(|parameter| weights.get(parameter).to_vec())
            .collect()
    };
    let polynomials = &runs[2];
    let row = |scored: &Scored| Row {
        run: scored.run,
        score: metric.of_logits(&scored.logits, labels),
        same_class: same_class(work.naming(), &scored.exact, &scored.logits),
        loss: scored.loss,
        weights: Agreement::of(&trained(&polynomials.weights), &trained(&scored.weights)),
        logits: Agreement::of(&polynomials.logits, &scored.logits),
        escaped: scored.escaped.clone(),
    };
    runs.iter().map(row).collect()
}

fn table(work: &Work, rows: &[Row]) -> String {
    let metric = format!(">{:?}", Metric::of(work.task)).to_lowercase();
    let mut table = Table::new(&[
        "steps on",
        &metric,
        ">same class exactly",
        ">loss",
        ">bits of weights, mean",
        ">min",
        ">of logits, mean",
        ">min",
        "left its interval",
    ]);
    for row in rows {
        let or_dash = |value: Option<String>| value.unwrap_or_else(|| "–".into());
        let mut cells = vec![
            row.run.into(),
            format!("{:.4}", row.score),
            or_dash(row.same_class.map(|share| format!("{:.1} %", 100.0 * share))),
            or_dash(row.loss.map(|loss| format!("{loss:.4}"))),
        ];
        for Agreement { bits_mean, bits_min } in [row.weights, row.logits] {
            cells.extend([bits_mean, bits_min].map(|bits| format!("{bits:.1}")));
        }
        cells.push(or_dash(row.escaped.clone()));
        table.row(cells);
    }
    table.render()
}
