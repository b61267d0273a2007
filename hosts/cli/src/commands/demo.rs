//! `demo`: client and server in one process. Everything that would travel
//! between them passes as bytes of the wire formats; the server's half is
//! never handed anything secret.

use super::plan::{Report as Plan, unit};
use super::report::{Offloaded, Summary, compare, table};
use crate::args::{Threads, named};
use crate::backend::{BackendArgs, ServerAccelerator, ServerWork, with_accelerator};
use crate::client::{Client, RELEASES};
use crate::exit::{Exit, Failure};
use crate::files::Message;
use crate::job::Job;
use crate::model::{LoadedModel, SentenceArgs, pack, unpack};
use crate::output::{Output, Phases, bytes, peak_memory, seconds};
use crate::sentences::Sentence;
use crate::server::Server;
use serde::Serialize;
use std::path::PathBuf;
use veilformer::ckks::Parameters;
use veilformer::wire::Reader;
use veilformer_multicore::Multicore;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder of a model; the one that comes with the program when left out
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// How many of the sentences to use; as many as fit one ciphertext when left out
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    sentences: Option<u32>,
    #[command(flatten)]
    own: SentenceArgs,
    #[command(flatten)]
    threads: Threads,
    #[command(flatten)]
    backend: BackendArgs,
    /// Small parameters WITHOUT ANY SECURITY, to see the program work in a second
    #[cfg(feature = "insecure-toy")]
    #[arg(long)]
    toy: bool,
}

impl Args {
    fn parameters(&self) -> Result<Parameters, Failure> {
        #[cfg(feature = "insecure-toy")]
        if self.toy {
            return named("insecure-toy-boot");
        }
        named("n16/boot")
    }
}

#[derive(Serialize)]
struct Report {
    plan: Plan,
    summary: Summary,
    phases: Vec<(&'static str, f64)>,
    total_s: f64,
    keys: usize,
    key_bytes: u64,
    question_bytes: u64,
    answer_bytes: u64,
    planned_limbs: usize,
    peak_limbs: usize,
    peak_bytes: Option<u64>,
    offload: Option<Offloaded>,
}

pub(crate) fn run(args: &Args, output: Output) -> Result<(), Failure> {
    let model = LoadedModel::load(args.model.as_deref())?;
    let parameters = args.parameters()?;
    let job = Job::new(&parameters, &model)?;
    let most = args.sentences.map_or(usize::MAX, |n| n as usize).min(job.layout.batch());
    let sentences = args.own.read(&model, most)?;
    let threads = args.threads.count();
    let plan = Plan::new(&model, &parameters, &job, unit(&parameters, threads)?)?;
    output.say(plan.describe());

    let told = tell(&Telling {
        parameters: &parameters,
        model: &model,
        job: &job,
        sentences: &sentences,
        threads,
        backend: args.backend,
        output,
    })?;

    let plain = model.plain_logits(&sentences)?;
    if let Some(site) = plain.escaped {
        let text =
            format!("a sentence drives {site:?} outside its polynomial's interval: its logits mean nothing");
        tracing::warn!("{text}");
    }
    let (rows, summary) = compare(model.naming(), &sentences, &told.logits, Some(&plain));
    rows.iter().try_for_each(|row| output.json(row))?;
    output.say(table(&rows));
    let Told { phases, keys, key_bytes, question_bytes, answer_bytes, peak_limbs, offload, .. } = told;
    let report = Report {
        total_s: phases.total(),
        phases: phases.list,
        plan,
        summary,
        keys,
        key_bytes,
        question_bytes,
        answer_bytes,
        planned_limbs: job.server_limbs(threads),
        peak_limbs,
        peak_bytes: peak_memory(),
        offload,
    };
    output.json(&report)?;
    output.say(report.describe(&parameters));
    let sound = report.summary.against_polynomial.is_none_or(|a| a.bits_min > 0.0);
    if sound || plain.escaped.is_some() {
        Ok(())
    } else {
        Err(Failure::new(Exit::Failure, "the encrypted logits are not those of the model"))
    }
}

impl Report {
    fn describe(&self, parameters: &Parameters) -> String {
        let limb = 8 * parameters.degree() as u64;
        let phases: Vec<String> =
            self.phases.iter().map(|(name, time)| format!("{name} {}", seconds(*time))).collect();
        let mut lines = vec![
            self.summary.describe(),
            format!("time                 {} in all: {}", seconds(self.total_s), phases.join(", ")),
            format!(
                "server memory        {} limbs planned, {} used at most ({} of {})",
                self.planned_limbs,
                self.peak_limbs,
                bytes(self.peak_limbs as u64 * limb),
                bytes(self.planned_limbs as u64 * limb),
            ),
            format!(
                "process memory       {} at most",
                self.peak_bytes.map_or_else(|| "unknown".into(), bytes)
            ),
            format!(
                "traffic              {} evaluation keys {}, question {}, answer {}",
                self.keys,
                bytes(self.key_bytes),
                bytes(self.question_bytes),
                bytes(self.answer_bytes),
            ),
            format!(
                "security             {}, N = {}, log2 QP = {:.0}",
                if parameters.is_insecure() { "NONE: toy parameters" } else { "128-bit classical" },
                parameters.degree(),
                parameters.log_qp(),
            ),
        ];
        lines.extend(self.offload.map(|o| o.describe()));
        lines.join("\n")
    }
}

/// One batch, from keys to logits.
pub(crate) struct Telling<'s> {
    pub(crate) parameters: &'s Parameters,
    pub(crate) model: &'s LoadedModel,
    pub(crate) job: &'s Job,
    pub(crate) sentences: &'s [Sentence],
    pub(crate) threads: usize,
    pub(crate) backend: BackendArgs,
    pub(crate) output: Output,
}

/// What came of it.
pub(crate) struct Told {
    pub(crate) logits: Vec<Vec<f64>>,
    pub(crate) phases: Phases,
    pub(crate) keys: usize,
    pub(crate) key_bytes: u64,
    pub(crate) question_bytes: u64,
    pub(crate) answer_bytes: u64,
    pub(crate) peak_limbs: usize,
    pub(crate) offload: Option<Offloaded>,
}

/// Plays both roles.
pub(crate) fn tell(telling: &Telling<'_>) -> Result<Told, Failure> {
    let Telling { parameters, threads, backend, job, .. } = *telling;
    let client = Multicore::new(parameters.chain(), threads, Client::limbs(parameters))?;
    let story = Story { client: &client, telling };
    with_accelerator(backend, parameters, threads, job.server_limbs(threads), story)
}

struct Story<'s> {
    client: &'s Multicore,
    telling: &'s Telling<'s>,
}

impl ServerWork for Story<'_> {
    type Output = Told;

    fn run<A: ServerAccelerator>(self, accelerator: &A) -> Result<Told, Failure> {
        let Telling { parameters, model, job, sentences, output, .. } = *self.telling;
        let mut phases = Phases::new();
        let mut client = Client::new(self.client, parameters)?;
        let mut server = Server::new(accelerator, parameters);

        let (secret, _) = client.generate(RELEASES)?;
        let public = client.public_key(&secret)?;
        let bar = output.progress("keys", job.plan.keys.len() as u64);
        let (mut key_bytes, mut message) = (0, Message::default());
        for request in job.plan.keys.iter() {
            message.0.clear();
            client.write_evaluation_key(&mut message, &secret, *request)?;
            key_bytes += message.0.len() as u64;
            server.read_key(&mut Reader::new(&message.0[..]), Some(secret.tag()))?;
            bar.inc(1);
        }
        bar.finish_and_clear();
        drop(message);
        phases.end("keys");

        let [tokens, mask] = pack(model, &job.layout, sentences)?;
        let tokens = client.encrypt(&public, &tokens, job.input_level)?;
        let mask = client.encrypt(&public, &mask, job.mask_level)?;
        let [tokens, mask] = [client.message(secret.tag(), &tokens)?, client.message(secret.tag(), &mask)?];
        let question_bytes = (tokens.len() + mask.len()) as u64;
        phases.end("encrypt");

        let mut receive =
            |bytes: Vec<u8>| server.read_ciphertext(&mut Reader::new(&bytes[..]), Some(secret.tag()));
        let (tokens, mask) = (receive(tokens)?, receive(mask)?);
        let bar = output.progress("infer", job.work as u64);
        let logits = server.infer(model, tokens, mask, |work| bar.inc(work as u64))?;
        bar.finish_and_clear();
        let mut answer = Message::default();
        server.write_ciphertext(&mut answer, secret.tag(), &logits)?;
        phases.end("infer");

        let logits = client.read_ciphertext(&mut Reader::new(&answer.0[..]), Some(secret.tag()))?;
        let values = client.decrypt(&secret, &logits)?;
        let logits = unpack(model, &job.layout, &values, sentences.len());
        phases.end("decrypt");
        Ok(Told {
            logits,
            phases,
            keys: server.keys.len(),
            key_bytes,
            question_bytes,
            answer_bytes: answer.0.len() as u64,
            peak_limbs: accelerator.host().peak_limbs(),
            offload: accelerator.offloaded().map(Into::into),
        })
    }
}
