//! `demo`: the whole story in one go, by the commands that it shows. Client and server share nothing but files.

use super::decrypt::{Opening, with_opener};
use super::report::{Agreement, same_class};
use super::{finetune, infer};
use crate::args::{Args as Line, Command, Threads, named};
use crate::exit::{Exit, Failure, InFile};
use crate::forecast::{Forecast, forecast, rates};
use crate::output::{Output, Phases, Stolen, Table, bytes, count, peak_memory, seconds, shorten, taken};
use crate::run::Asked;
use crate::sentences::{SHIPPED_SENTENCES, Sentence, TextArgs};
use crate::twin::Twin;
use crate::typical::Typical;
use crate::work::{ModelArgs, Work};
use clap::Parser;
use serde::Serialize;
use std::fs;
use std::path::PathBuf;
use veilformer::transformer::{AdamWHe, Trainable};
use veilformer_engine::plan::Job;
use veilformer_plain::data::Task;
use veilformer_plain::executor::Functions;
use veilformer_plain::run::observe;
use veilformer_plain::tiny;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Steps of fine-tuning
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=9999))]
    steps: u32,
    /// Sentences of the SST-2 development set, all in one batch
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=64))]
    sentences: u16,
    /// Folder for keys, ciphertexts and the run, which is kept; a temporary one when left out
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    #[command(flatten)]
    threads: Threads,
}

/// What the demo runs under.
const PARAMETERS: &str = "n16/matrix";

/// One sentence of the table.
#[derive(Serialize)]
struct Row {
    sentence: String,
    label: String,
    /// Logits, decrypted: before and after fine-tuning.
    before: Vec<f64>,
    after: Vec<f64>,
    /// What the same steps in the clear, on the functions themselves, come to.
    exact_before: Vec<f64>,
    exact_after: Vec<f64>,
    /// Agreement with the same steps in the clear, on the same polynomials.
    bits_before: f64,
    bits_after: f64,
}

#[derive(Serialize)]
struct Report {
    steps: u32,
    /// Mean loss over the sentences.
    loss_before: f64,
    loss_after: f64,
    exact_loss_after: f64,
    same_class_before: f64,
    same_class_after: f64,
    planned_infer_s: f64,
    infer_s: [f64; 2],
    planned_step_s: f64,
    step_s: f64,
    planned_bytes: u64,
    peak_bytes: Option<u64>,
    /// Shares of all processors' time that other machines on this host had, while it was planned and afterwards.
    stolen: [Option<f64>; 2],
    phases: Vec<(&'static str, f64)>,
    total_s: f64,
}

pub(crate) fn run(args: &Args, output: Output) -> Result<(), Failure> {
    let temporary;
    let folder = match &args.keep {
        Some(folder) => folder.clone(),
        None => {
            temporary = tempfile::tempdir()?;
            temporary.path().to_owned()
        }
    };
    fs::create_dir_all(&folder).in_file(&folder)?;
    let story = Story { args, output, folder };
    let model = ModelArgs::shipped();
    let work = Work::load(&model)?;
    let sentences = story.write_sentences(&work)?;

    let mut phases = Phases::new();
    let planning = Stolen::start();
    let [of_infer, of_step] = story.plans()?;
    let stolen_planning = planning.share();
    let carrying_out = Stolen::start();
    phases.end("plan");
    story.line("keygen", &format!("--parameters {PARAMETERS} --out @/client"))?;
    story.give_to_server()?;
    phases.end("keys");
    story.line(
        "encrypt",
        &format!("--keys @/client --file @/sentences.tsv --batch {} --out @/batches", args.sentences),
    )?;
    phases.end("encrypt");
    let before_s = story.infer("--in @/batches --out @/before")?;
    phases.end("infer before");
    let step_s = story.finetune()?;
    phases.end("fine-tune");
    let checkpoint = format!("@/run/checkpoint-{:05}.vfw", args.steps);
    let after_s = story.infer(&format!("--in @/batches --out @/after --weights {checkpoint}"))?;
    phases.end("infer after");
    let stolen = [stolen_planning, carrying_out.share()];
    let logits = [story.decrypt("before")?, story.decrypt("after")?];
    phases.end("decrypt");

    let twin = Twin::new(&work, story.asked(), &sentences, sentences.len());
    let [exact, polynomial] = [Functions::Exact, Functions::Polynomial(&work.approximations)]
        .map(|functions| logits_of(&twin, functions));
    let (exact, polynomial) = (exact?, polynomial?);
    let rows = rows(&work, &sentences, &logits, &exact, &polynomial);
    rows.iter().try_for_each(|row| output.json(row))?;
    output.say(table(&work, &sentences, &rows));
    let same = |when: usize| same_class(work.naming(), &logits[when], &exact[when]).unwrap_or_default();
    let loss = |logits: &[Vec<f64>]| mean_loss(&work, &sentences, logits);
    let report = Report {
        steps: args.steps,
        loss_before: loss(&logits[0]),
        loss_after: loss(&logits[1]),
        exact_loss_after: loss(&exact[1]),
        same_class_before: same(0),
        same_class_after: same(1),
        planned_infer_s: of_infer.seconds(),
        infer_s: [before_s, after_s],
        planned_step_s: of_step.seconds(),
        step_s,
        planned_bytes: of_step.peak_bytes(),
        peak_bytes: peak_memory(),
        stolen,
        total_s: phases.total(),
        phases: phases.list,
    };
    output.json(&report)?;
    output.say(report.describe());
    if rows.iter().any(|row| row.bits_before.min(row.bits_after) <= 1.0) {
        return Err(Failure::new(Exit::Failure, "the encrypted logits are not those of the model"));
    }
    Ok(())
}

/// Where it all takes place.
struct Story<'a> {
    args: &'a Args,
    output: Output,
    folder: PathBuf,
}

impl Story<'_> {
    /// Parses a command, `@` being the folder, and shows it.
    fn parse(&self, command: &str, rest: &str) -> Result<Command, Failure> {
        let threads = format!(" --threads {}", self.args.threads.count());
        let line = format!("veilformer {command} {rest}{threads}");
        self.output.say(format!("\n$ {}", line.replace("@/", "")));
        let folder = self.folder.display().to_string();
        let words: Vec<String> = line.split_whitespace().map(|word| word.replace('@', &folder)).collect();
        let line =
            Line::try_parse_from(words).map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
        Ok(line.command)
    }

    fn line(&self, command: &str, rest: &str) -> Result<(), Failure> {
        super::dispatch(&self.parse(command, rest)?, self.output)
    }

    /// Seconds that the model took.
    fn infer(&self, rest: &str) -> Result<f64, Failure> {
        match self.parse("infer", &format!("--keys @/server {rest}"))? {
            Command::Infer(args) => Ok(infer::carry_out(&args, self.output)?.infer_s),
            _ => Ok(0.0),
        }
    }

    /// Seconds of a step.
    fn finetune(&self) -> Result<f64, Failure> {
        let steps = self.args.steps;
        match self
            .parse("finetune", &format!("--keys @/server --in @/batches --run @/run --steps {steps}"))?
        {
            Command::Finetune(args) => {
                let report = finetune::carry_out(&args, self.output)?;
                Ok(report.train_s / f64::from((steps - report.kept).max(1)))
            }
            _ => Ok(0.0),
        }
    }

    /// The first sentences that come with the program, in a file as GLUE has them.
    fn write_sentences(&self, work: &Work) -> Result<Vec<Sentence>, Failure> {
        let path = self.folder.join("sentences.tsv");
        let lines: Vec<&str> = SHIPPED_SENTENCES.lines().take(1 + usize::from(self.args.sentences)).collect();
        fs::write(&path, lines.join("\n") + "\n").in_file(&path)?;
        TextArgs::of_file(path).read(work)
    }

    /// What `finetune` is asked for.
    fn asked(&self) -> Asked {
        let (rate, epsilon) = tiny::constants(Task::Sst2);
        Asked { steps: self.args.steps, optimizer: AdamWHe::paper(rate, epsilon) }
    }

    /// What inference and a step will take.
    fn plans(&self) -> Result<[Forecast; 2], Failure> {
        let (parameters, threads) = (named(PARAMETERS)?, self.args.threads.count());
        let rates = rates(&parameters, threads)?;
        let plan = |rank: u8, job: &Job| {
            let model = Typical::load(None, Some(Task::Sst2), rank)?;
            forecast(&parameters, &model, self.args.sentences.into(), job, threads, &rates)
        };
        let step = Job::Step(Trainable::Adapters, self.asked().optimizer);
        Ok([plan(0, &Job::Inference(None))?, plan(2, &step)?])
    }

    /// Evaluation keys alone go where the server reads.
    fn give_to_server(&self) -> Result<(), Failure> {
        let server = self.folder.join("server");
        fs::create_dir_all(&server).in_file(&server)?;
        for name in [super::EVALUATION, super::EVALUATION_SMALL] {
            let (from, to) = (self.folder.join("client").join(name), server.join(name));
            fs::rename(&from, &to).in_file(&to)?;
        }
        self.output.say(format!("{} and {} go to the server", super::EVALUATION, super::EVALUATION_SMALL));
        Ok(())
    }

    /// The logits of an answer.
    fn decrypt(&self, name: &str) -> Result<Vec<Vec<f64>>, Failure> {
        let opening = Opening {
            secret: self.folder.join("client").join(super::SECRET_KEY),
            model: ModelArgs::shipped(),
            weights: None,
            threads: self.args.threads,
        };
        with_opener(&opening, |mut opener, work| {
            let parts = opener.open(&self.folder.join(name), &work)?;
            super::decrypt::check_escapes(&parts)?;
            Ok(parts.into_iter().flat_map(|part| part.opened.logits).collect())
        })
    }
}

/// Logits of the model in the clear, before and after the same steps.
fn logits_of(twin: &Twin<'_>, functions: Functions<'_>) -> Result<[Vec<Vec<f64>>; 2], Failure> {
    let config = &twin.work.config;
    let logits = |weights| observe(config, weights, &twin.batches[0], functions).map(|seen| seen.logits);
    let trained = twin.train(functions, None, || ())?;
    Ok([logits(&twin.work.weights)?, logits(&trained.weights)?])
}

fn rows(
    work: &Work,
    sentences: &[Sentence],
    encrypted: &[Vec<Vec<f64>>; 2],
    exact: &[Vec<Vec<f64>>; 2],
    polynomial: &[Vec<Vec<f64>>; 2],
) -> Vec<Row> {
    let bits =
        |when: usize, i: usize| Agreement::of(&polynomial[when][i..=i], &encrypted[when][i..=i]).bits_min;
    let row = |(i, sentence): (usize, &Sentence)| Row {
        sentence: sentence.text.clone(),
        label: sentence.label.map(|label| work.naming().label(label)).unwrap_or_default(),
        before: encrypted[0][i].clone(),
        after: encrypted[1][i].clone(),
        exact_before: exact[0][i].clone(),
        exact_after: exact[1][i].clone(),
        bits_before: bits(0, i),
        bits_after: bits(1, i),
    };
    sentences.iter().enumerate().map(row).collect()
}

/// The probability that logits give to the label.
fn probability(logits: &[f64], label: f32) -> f64 {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logits.iter().map(|x| (x - largest).exp()).sum();
    logits.get(label as usize).map_or(0.0, |x| (x - largest).exp() / sum)
}

fn table(work: &Work, sentences: &[Sentence], rows: &[Row]) -> String {
    let mut table = Table::new(&[
        "sentence",
        "label",
        ">p(label) before",
        ">exact",
        ">after",
        ">exact",
        "predicted",
        ">bits before",
        ">after",
    ]);
    for (row, sentence) in rows.iter().zip(sentences) {
        let label = sentence.label.unwrap_or_default();
        let p = |logits: &[f64]| format!("{:.4}", probability(logits, label));
        table.row(vec![
            shorten(&row.sentence, 40),
            row.label.clone(),
            p(&row.before),
            p(&row.exact_before),
            p(&row.after),
            p(&row.exact_after),
            work.naming().answer(&row.after),
            format!("{:.1}", row.bits_before),
            format!("{:.1}", row.bits_after),
        ]);
    }
    format!("\n{}", table.render())
}

fn mean_loss(work: &Work, sentences: &[Sentence], logits: &[Vec<f64>]) -> f64 {
    let losses = logits.iter().zip(sentences).map(|(logits, sentence)| {
        veilformer_plain::train::loss(&work.config, logits, sentence.label.unwrap_or_default())
    });
    losses.sum::<f64>() / logits.len().max(1) as f64
}

impl Report {
    fn describe(&self) -> String {
        let mut plan = Table::new(&["", ">planned", ">measured"]);
        let times = [
            ("inference before", self.planned_infer_s, self.infer_s[0]),
            ("a step of fine-tuning", self.planned_step_s, self.step_s),
        ];
        for (what, planned, measured) in times {
            plan.row(vec![what.into(), seconds(planned), seconds(measured)]);
        }
        let peak = self.peak_bytes.map_or_else(|| "unknown".into(), bytes);
        plan.row(vec!["memory at the peak".into(), bytes(self.planned_bytes), peak]);
        if let [Some(planning), Some(afterwards)] = self.stolen.map(|share| share.map(taken)) {
            plan.row(vec!["other machines on this host had".into(), planning, afterwards]);
        }
        let phases: Vec<String> =
            self.phases.iter().map(|(name, time)| format!("{name} {}", seconds(*time))).collect();
        format!(
            "{}\nmean loss {:.4} before, {:.4} after {} ({:.4} exactly); same class as the exact model for {:.0} % \
             and {:.0} %\n{} in all: {}\nparameters {PARAMETERS}: 128-bit classical security",
            plan.render(),
            self.loss_before,
            self.loss_after,
            count(self.steps as usize, "step"),
            self.exact_loss_after,
            100.0 * self.same_class_before,
            100.0 * self.same_class_after,
            seconds(self.total_s),
            phases.join(", "),
        )
    }
}
