//! `infer`: the server runs the model on what it cannot read.

use super::{ANSWER, EVALUATION, EVALUATION_KEYS, QUESTION, SECRET_KEY, expect_bundle, open, same_model};
use crate::args::{Size, Threads};
use crate::backend::{BackendArgs, ServerAccelerator, ServerWork, with_accelerator};
use crate::exit::{Exit, Failure, InFile};
use crate::files::{FileSource, NewFile, Readers, check_free};
use crate::job::Job;
use crate::keyfile::check_finished;
use crate::keystore::{KeyIndex, KeyStore};
use crate::model::LoadedModel;
use crate::output::{Output, Phases, bytes, peak_memory, seconds};
use crate::server::Server;
use serde::Serialize;
use std::path::{Path, PathBuf};
use veilformer::accel::OffloadCounters;
use veilformer::ckks::Parameters;
use veilformer::wire::{Bundle, Expected, Reader, ciphertext_len, write_bundle, write_parameters};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The file of evaluation keys. A secret key is refused
    #[arg(long, value_name = "FILE")]
    keys: PathBuf,
    /// Folder of the model; the one that comes with the program when left out
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// What the client encrypted
    #[arg(long = "in", value_name = "FILE")]
    input: PathBuf,
    /// The file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Memory for expanded keys, for instance 2GiB. Others are loaded when they are used, which
    /// takes time; all are kept when this is left out and the machine has the memory
    #[arg(long, value_name = "SIZE")]
    key_memory: Option<Size>,
    #[command(flatten)]
    threads: Threads,
    #[command(flatten)]
    backend: BackendArgs,
    /// Replace the file if it exists
    #[arg(long)]
    force: bool,
}

#[derive(Serialize)]
struct Report {
    keys: usize,
    /// Memory that keys may take, times that one was loaded, seconds of that.
    key_memory_bytes: u64,
    key_loads: u64,
    key_loads_s: f64,
    bytes: u64,
    load_s: f64,
    infer_s: f64,
    peak_limbs: usize,
    planned_limbs: usize,
    peak_bytes: Option<u64>,
    offload: Option<super::report::Offloaded>,
}

/// A folder that holds a secret key has no business on a server.
fn key_file(path: &Path) -> Result<PathBuf, Failure> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    if path.join(SECRET_KEY).exists() {
        let message = format!(
            "{} holds a secret key, which never leaves the client; give the server {EVALUATION} alone",
            path.display()
        );
        return Err(Failure::new(Exit::Security, message));
    }
    Ok(path.join(EVALUATION))
}

pub(crate) fn run(args: &Args, output: Output) -> Result<(), Failure> {
    check_free(&args.out, args.force)?;
    let key_path = key_file(&args.keys)?;
    check_finished(&key_path)?;
    let model = LoadedModel::load(args.model.as_deref())?;
    let (mut keys, parameters) = open(&key_path)?;
    let expected = Expected { parameters: &parameters, key: None };
    let (owner, bundle) =
        expect_bundle(&mut keys, &expected, "evaluation keys", |b| b.tag == EVALUATION_KEYS)
            .in_file(&key_path)?;
    let (mut question, theirs) = open(&args.input)?;
    if theirs.fingerprint() != parameters.fingerprint() {
        let message = "encrypted under other parameters than the keys were made for";
        return Err(Failure::new(Exit::BadFile, message).during(args.input.display()));
    }
    let expected = Expected { parameters: &parameters, key: Some(owner.key) };
    let (_, asked) = expect_bundle(&mut question, &expected, "tokens and mask from `encrypt`", |b| {
        b.count == QUESTION && b.tag != EVALUATION_KEYS
    })
    .in_file(&args.input)?;
    same_model(&asked, model.fingerprint).in_file(&args.input)?;
    let job = Job::new(&parameters, &model)?;
    let index = KeyIndex::read(&key_path, owner.key, bundle.count)?;
    job.plan.keys.iter().try_for_each(|k| index.check(k.id, k.level)).in_file(&key_path)?;
    let threads = args.threads.count();
    let room = index.room(&parameters, args.key_memory, job.server_limbs_with(0, threads))?;
    let file = NewFile::create(&args.out, Readers::Anyone, args.force)?;
    let work = Inference {
        args,
        output,
        model: &model,
        parameters: &parameters,
        job: &job,
        index,
        room,
        owner: owner.key,
        question,
        file,
    };
    let report =
        with_accelerator(args.backend, &parameters, threads, job.server_limbs_with(room, threads), work)?;
    output.json(&report)?;
    output.say(format!(
        "{}  {}\n{} keys, {} loaded in {}, model run in {}, {} limbs of {} planned, peak memory {}",
        args.out.display(),
        bytes(report.bytes),
        report.keys,
        report.key_loads,
        seconds(report.key_loads_s),
        seconds(report.infer_s),
        report.peak_limbs,
        report.planned_limbs,
        report.peak_bytes.map_or_else(|| "unknown".into(), bytes),
    ));
    if let Some(offload) = &report.offload {
        output.say(offload.describe());
    }
    Ok(())
}

struct Inference<'w> {
    args: &'w Args,
    output: Output,
    model: &'w LoadedModel,
    parameters: &'w Parameters,
    job: &'w Job,
    index: KeyIndex,
    room: usize,
    owner: veilformer::ckks::client::KeyTag,
    question: Reader<FileSource>,
    file: NewFile,
}

impl ServerWork for Inference<'_> {
    type Output = Report;

    fn run<A: ServerAccelerator>(mut self, accelerator: &A) -> Result<Report, Failure> {
        let mut phases = Phases::new();
        let mut server = Server::new(accelerator, self.parameters);
        let (threads, whole) = (accelerator.host().threads(), self.index.fits(self.parameters, self.room));
        server.keys = KeyStore::over(accelerator, self.parameters, self.index, self.room, threads);
        if whole {
            let bar = self.output.progress("load keys", server.keys.len() as u64);
            server.keys.load_all(|| bar.inc(1))?;
            bar.finish_and_clear();
        }
        let tokens =
            server.read_ciphertext(&mut self.question, Some(self.owner)).in_file(&self.args.input)?;
        let mask = server.read_ciphertext(&mut self.question, Some(self.owner)).in_file(&self.args.input)?;
        self.question.finish().in_file(&self.args.input)?;
        phases.end("load");
        let bar = self.output.progress("infer", self.job.work as u64);
        let logits = server.infer(self.model, tokens, mask, |work| bar.inc(work as u64))?;
        bar.finish_and_clear();
        phases.end("infer");
        let out = &self.args.out;
        write_parameters(&mut self.file, self.parameters).in_file(out)?;
        let bytes = ciphertext_len(self.parameters, logits.level());
        let bundle = Bundle { tag: self.model.fingerprint, count: ANSWER, bytes };
        write_bundle(&mut self.file, self.parameters, self.owner, &bundle).in_file(out)?;
        server.write_ciphertext(&mut self.file, self.owner, &logits).in_file(out)?;
        let written = self.file.commit()?;
        Ok(Report {
            keys: server.keys.len(),
            key_memory_bytes: 8 * (self.room * self.parameters.degree()) as u64,
            key_loads: server.keys.loads().count,
            key_loads_s: server.keys.loads().seconds,
            bytes: written,
            load_s: phases.list[0].1,
            infer_s: phases.list[1].1,
            peak_limbs: accelerator.host().peak_limbs(),
            planned_limbs: self.job.server_limbs_with(self.room, threads),
            peak_bytes: peak_memory(),
            offload: accelerator.offloaded().map(|c: OffloadCounters| c.into()),
        })
    }
}
