//! `evaluate`: the client scores a whole data set's answers.

use super::decrypt::{Input, Part, check_escapes, with_opener};
use super::report::{Agreement, same_class};
use crate::exit::{Exit, Failure};
use crate::output::{Output, Table, count};
use crate::sentences::{Sentence, TextArgs};
use serde::Serialize;
use veilformer::transformer::Config;
use veilformer_plain::metrics::Metric;
use veilformer_plain::train::loss;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    input: Input,
    /// The sentences that were encrypted, with their labels
    #[command(flatten)]
    sentences: TextArgs,
    /// The mean loss and the score of every answer by itself. Sentences may come again, as in a run of fine-tuning
    #[arg(long)]
    by_step: bool,
}

/// One answer by itself.
#[derive(Serialize)]
struct StepReport {
    step: usize,
    /// The number of its first sentence.
    first: usize,
    sentences: usize,
    loss: f64,
    score: f64,
    escaped: bool,
}

/// Loss and score of every answer.
fn by_step(
    parts: &[Part],
    config: &Config,
    metric: Metric,
    labels: &[f64],
    output: Output,
) -> Result<(), Failure> {
    let mut table =
        Table::new(&[">step", ">from", ">sentences", ">loss", &format!(">{metric:?}").to_lowercase()]);
    for (i, part) in parts.iter().enumerate() {
        let (logits, count) = (&part.opened.logits, part.opened.logits.len());
        let labels = labels.get(part.first..part.first + count).ok_or_else(|| {
            let message = format!("answers sentences that are not given: {} are", labels.len());
            Failure::new(Exit::BadFile, message).during(part.path.display())
        })?;
        let losses = logits.iter().zip(labels).map(|(y, &label)| loss(config, y, label as f32));
        let report = StepReport {
            step: i + 1,
            first: part.first,
            sentences: count,
            loss: losses.sum::<f64>() / count as f64,
            score: metric.of_logits(logits, labels),
            escaped: part.opened.is_escaped(),
        };
        output.json(&report)?;
        let mut cells: Vec<String> =
            [report.step, report.first + 1, count].iter().map(ToString::to_string).collect();
        cells.extend([report.loss, report.score].map(|x| format!("{x:.4}")));
        table.row(cells);
    }
    output.say(table.render());
    check_escapes(parts)
}

#[derive(Serialize)]
struct Report {
    task: &'static str,
    metric: String,
    sentences: usize,
    answers: usize,
    /// Answers that mean nothing, because a value left its polynomial's interval.
    escaped: usize,
    encrypted: f64,
    polynomial: f64,
    exact: f64,
    /// Share of sentences for which the encrypted run and another predict the same class.
    same_class_polynomial: Option<f64>,
    same_class_exact: Option<f64>,
    against_polynomial: Agreement,
    against_exact: Agreement,
}

/// The logits of all sentences in their order, each answered once.
fn all_logits(parts: &[Part], sentences: &[Sentence]) -> Result<Vec<Vec<f64>>, Failure> {
    let mut logits = Vec::with_capacity(sentences.len());
    for part in parts {
        if part.first != logits.len() {
            let message = format!(
                "starts at sentence {}, the answers before it end at {}; give all answers of one data set, each once",
                part.first + 1,
                logits.len()
            );
            return Err(Failure::new(Exit::BadFile, message).during(part.path.display()));
        }
        logits.extend(part.opened.logits.iter().cloned());
    }
    if logits.len() != sentences.len() {
        let message = format!("{} sentences answered, {} given", logits.len(), sentences.len());
        return Err(Failure::new(Exit::BadFile, message));
    }
    Ok(logits)
}

pub(crate) fn run(args: &Args, output: Output) -> Result<(), Failure> {
    let Input { opening, input } = &args.input;
    with_opener(opening, |mut opener, work| {
        let sentences = args.sentences.read(&work)?;
        let labels = sentences.iter().map(|s| s.label.map(f64::from)).collect::<Option<Vec<f64>>>();
        let labels = labels.ok_or_else(|| {
            Failure::new(
                Exit::Usage,
                "sentences without labels cannot be scored; pass --file instead of --text",
            )
        })?;
        let mut parts = opener.open(input, &work)?;
        if args.by_step {
            parts.sort_by(|a, b| a.path.cmp(&b.path));
            return by_step(&parts, &work.config, Metric::of(work.task), &labels, output);
        }
        let encrypted = all_logits(&parts, &sentences)?;
        let plain = work.plain_logits(&sentences)?;
        if let Some(site) = plain.escaped {
            tracing::warn!("in the clear, too, a sentence drives {site:?} outside its polynomial's interval");
        }
        let metric = Metric::of(work.task);
        let same = |other: &[Vec<f64>]| same_class(work.naming(), &encrypted, other);
        let report = Report {
            task: work.task.folder(),
            metric: format!("{metric:?}").to_lowercase(),
            sentences: sentences.len(),
            answers: parts.len(),
            escaped: parts.iter().filter(|part| part.opened.is_escaped()).count(),
            encrypted: metric.of_logits(&encrypted, &labels),
            polynomial: metric.of_logits(&plain.polynomial, &labels),
            exact: metric.of_logits(&plain.exact, &labels),
            same_class_polynomial: same(&plain.polynomial),
            same_class_exact: same(&plain.exact),
            against_polynomial: Agreement::of(&plain.polynomial, &encrypted),
            against_exact: Agreement::of(&plain.exact, &encrypted),
        };
        output.json(&report)?;
        output.say(report.describe());
        check_escapes(&parts)
    })
}

impl Report {
    fn describe(&self) -> String {
        let mut table =
            Table::new(&["run", &format!(">{}", self.metric), ">same class", ">bits mean", ">min"]);
        let share = |s: Option<f64>| s.map_or_else(|| "–".into(), |s| format!("{:.1} %", 100.0 * s));
        let bits = |a: Agreement| [format!("{:.1}", a.bits_mean), format!("{:.1}", a.bits_min)];
        table.row(vec!["encrypted".into(), format!("{:.4}", self.encrypted)]);
        for (name, score, same, agreement) in [
            ("polynomials, in f64", self.polynomial, self.same_class_polynomial, self.against_polynomial),
            ("exact model", self.exact, self.same_class_exact, self.against_exact),
        ] {
            let [mean, min] = bits(agreement);
            table.row(vec![name.into(), format!("{score:.4}"), share(same), mean, min]);
        }
        let (sentences, answers) = (count(self.sentences, "sentence"), count(self.answers, "answer"));
        format!("{}{sentences} of {} in {answers}", table.render(), self.task)
    }
}
