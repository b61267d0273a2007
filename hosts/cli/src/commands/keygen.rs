//! `keygen`: the client makes its keys, exactly those the plan asks for.

use super::{EVALUATION, EVALUATION_KEYS, PUBLIC_KEY, SECRET_KEY};
use crate::args::{ParametersArg, Threads};
use crate::client::{Client, RELEASES};
use crate::exit::{Failure, InFile};
use crate::files::{NewFile, Readers, check_free};
use crate::job::Job;
use crate::model::LoadedModel;
use crate::output::{Output, Phases, bytes, seconds};
use serde::Serialize;
use std::path::PathBuf;
use veilformer::wire::{Bundle, write_bundle, write_parameters, write_secret_key};
use veilformer_multicore::Multicore;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder of the model the keys are for; the one that comes with the program when left out
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Folder for secret.key, public.key and evaluation.keys; made if it is not there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    parameters: ParametersArg,
    #[command(flatten)]
    threads: Threads,
    /// How many decryptions may ever be shown to others; the fewer, the less noise each needs
    #[arg(long, default_value_t = RELEASES)]
    releases: u32,
    /// Replace files of the same names. What the old keys encrypted is then lost
    #[arg(long)]
    force: bool,
}

#[derive(Serialize)]
struct Report {
    parameters: Option<&'static str>,
    keys: usize,
    secret_key_bytes: u64,
    public_key_bytes: u64,
    evaluation_keys_bytes: u64,
    seconds: f64,
}

pub(crate) fn run(args: &Args, output: Output) -> Result<(), Failure> {
    let model = LoadedModel::load(args.model.as_deref())?;
    let parameters = args.parameters.check()?;
    let job = Job::new(&parameters, &model)?;
    let paths = [SECRET_KEY, PUBLIC_KEY, EVALUATION].map(|name| args.out.join(name));
    paths.iter().try_for_each(|path| check_free(path, args.force))?;
    std::fs::create_dir_all(&args.out).in_file(&args.out)?;
    let [secret_path, public_path, evaluation_path] = &paths;

    let mut phases = Phases::new();
    let limbs = Client::limbs(&parameters);
    let accelerator = Multicore::new(parameters.chain(), args.threads.count(), limbs)?;
    let (secret_bytes, public_bytes, evaluation_bytes) =
        accelerator.run(|| -> Result<(u64, u64, u64), Failure> {
            let mut client = Client::new(&accelerator, &parameters)?;
            let (secret, budget) = client.generate(args.releases)?;
            let mut file = NewFile::create(evaluation_path, Readers::Anyone, args.force)?;
            write_parameters(&mut file, &parameters).in_file(evaluation_path)?;
            let bundle = Bundle {
                tag: EVALUATION_KEYS,
                count: job.plan.keys.len() as u64,
                bytes: job.key_objects_bytes(),
            };
            write_bundle(&mut file, &parameters, secret.tag(), &bundle).in_file(evaluation_path)?;
            let bar = output.progress("keys", job.plan.keys.len() as u64);
            for request in job.plan.keys.iter() {
                client.write_evaluation_key(&mut file, &secret, *request).in_file(evaluation_path)?;
                bar.inc(1);
            }
            bar.finish_and_clear();

            let mut secret_file = NewFile::create(secret_path, Readers::Owner, args.force)?;
            write_parameters(&mut secret_file, &parameters).in_file(secret_path)?;
            write_secret_key(&mut secret_file, &secret, &budget).in_file(secret_path)?;
            let mut public_file = NewFile::create(public_path, Readers::Anyone, args.force)?;
            write_parameters(&mut public_file, &parameters).in_file(public_path)?;
            let public = client.public_key(&secret)?;
            client.write_public_key(&mut public_file, &public).in_file(public_path)?;
            // The secret key last: if anything fails, none is left behind that fits no other file.
            let (evaluation, public) = (file.commit()?, public_file.commit()?);
            Ok((secret_file.commit()?, public, evaluation))
        })?;
    phases.end("keys");

    let report = Report {
        parameters: parameters.name(),
        keys: job.plan.keys.len(),
        secret_key_bytes: secret_bytes,
        public_key_bytes: public_bytes,
        evaluation_keys_bytes: evaluation_bytes,
        seconds: phases.total(),
    };
    output.json(&report)?;
    output.say(format!(
        "{}  {}  keep it here, it reads everything\n{}  {}  for whoever encrypts\n{}  {}  {} keys, for the server",
        secret_path.display(),
        bytes(secret_bytes),
        public_path.display(),
        bytes(public_bytes),
        evaluation_path.display(),
        bytes(evaluation_bytes),
        report.keys,
    ));
    output.say(format!("made in {}", seconds(report.seconds)));
    Ok(())
}
