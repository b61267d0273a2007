//! `keygen`: the client makes its keys, exactly those the plan asks for.
//!
//! The order on disk makes it safe to stop at any moment: first the unfinished
//! file of evaluation keys, which says that the folder is not ready, then the
//! secret key, then everything that follows from it.

use super::{EVALUATION, PUBLIC_KEY, SECRET_KEY, open};
use crate::args::{ParametersArg, Threads};
use crate::bootstrap::refreshing_keys;
use crate::client::{Client, RELEASES};
use crate::exit::{Exit, Failure, InFile};
use crate::files::{Claim, NewFile, Readers, check_free, sweep, sync_folder};
use crate::job::Job;
use crate::keyfile::{KeyLayout, Making, is_of, unfinished};
use crate::model::LoadedModel;
use crate::output::{Output, Phases, bytes, seconds};
use serde::Serialize;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use veilformer::ckks::client::SecretKey;
use veilformer::ckks::{KeyRequests, Parameters};
use veilformer::wire::{write_parameters, write_secret_key};
use veilformer_multicore::Multicore;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Keys are written to disk one by one. If key generation is interrupted, the same command with
--resume finishes it, with the same secret key and to the same files, byte for byte; until then
servers refuse the folder.")]
pub(crate) struct Args {
    /// Folder of the model the keys are for; the one that comes with the program when left out
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Only the keys of bootstrapping, for no model
    #[arg(long, conflicts_with = "model")]
    bootstrap: bool,
    /// Folder for secret.key, public.key and evaluation.keys; made if it is not there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    parameters: ParametersArg,
    /// Threads, and keys that are made at once, 16 at most: each takes four limbs of memory per prime
    #[command(flatten)]
    threads: Threads,
    /// How many decryptions may ever be shown to others; the fewer, the less noise each needs
    #[arg(long, default_value_t = RELEASES)]
    releases: u32,
    /// Make only what is missing, for the secret key that is there: goes on after an interruption
    #[arg(long, conflicts_with = "force")]
    resume: bool,
    /// Replace files of the same names. What the old keys encrypted is then lost
    #[arg(long)]
    force: bool,
}

#[derive(Serialize)]
struct Report {
    parameters: Option<&'static str>,
    keys: usize,
    /// Keys that were there from an earlier run.
    kept: usize,
    secret_key_bytes: u64,
    public_key_bytes: u64,
    evaluation_keys_bytes: u64,
    seconds: f64,
}

/// The keys to make: those of the model's plan, and of bootstrapping where the parameters have it.
fn requests(args: &Args, parameters: &Parameters) -> Result<KeyRequests, Failure> {
    let mut keys = KeyRequests::new();
    if args.bootstrap || parameters.bootstrap().is_some() {
        keys = refreshing_keys(parameters)?;
    }
    if !args.bootstrap {
        let model = LoadedModel::load(args.model.as_deref())?;
        keys.merge(&Job::new(parameters, &model)?.plan.keys)?;
    }
    Ok(keys)
}

/// The files of one key generation.
struct Folder {
    path: PathBuf,
    secret: PathBuf,
    public: PathBuf,
    evaluation: PathBuf,
    unfinished: PathBuf,
}

impl Folder {
    fn new(path: &Path) -> Self {
        let [secret, public, evaluation] = [SECRET_KEY, PUBLIC_KEY, EVALUATION].map(|name| path.join(name));
        let unfinished = unfinished(&evaluation);
        Self { path: path.to_owned(), secret, public, evaluation, unfinished }
    }

    fn is_begun(&self) -> bool {
        self.unfinished.symlink_metadata().is_ok()
    }

    /// Refuses early what was not asked for.
    fn check(&self, args: &Args) -> Result<(), Failure> {
        if args.force || args.resume {
            return Ok(());
        }
        if self.is_begun() {
            let message = format!(
                "key generation in {} did not finish; go on with --resume, or start anew with --force",
                self.path.display()
            );
            return Err(Failure::new(Exit::Usage, message));
        }
        [&self.secret, &self.public, &self.evaluation]
            .into_iter()
            .try_for_each(|path| check_free(path, false))
    }

    /// Marks the folder as unfinished; with `force` nothing old outlives that.
    fn begin(&self, force: bool) -> Result<(), Failure> {
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(force);
        options.open(&self.unfinished).in_file(&self.unfinished)?;
        [SECRET_KEY, PUBLIC_KEY].iter().try_for_each(|name| sweep(&self.path, name))?;
        if force {
            for path in [&self.secret, &self.public, &self.evaluation] {
                match fs::remove_file(path) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(error).in_file(path);
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// The secret key that is there, or a new one, which is on disk before anything follows from it.
    fn secret<'a>(
        &self,
        client: &mut Client<'a>,
        releases: u32,
    ) -> Result<SecretKey<'a, Multicore>, Failure> {
        let path = &self.secret;
        if path.symlink_metadata().is_ok() {
            let (mut reader, parameters) = open(path)?;
            if parameters.fingerprint() != client.parameters.fingerprint() {
                let name = parameters.name().unwrap_or("other parameters");
                let message = format!("made under {name}; repeat with those --parameters");
                return Err(Failure::new(Exit::Usage, message).during(path.display()));
            }
            let (secret, _) = client.read_secret(&mut reader).in_file(path)?;
            reader.finish().in_file(path)?;
            return Ok(secret);
        }
        if !self.is_begun() || self.unfinished.metadata().is_ok_and(|metadata| metadata.len() > 0) {
            let message = "the secret key that these keys belong to is gone; start anew with --force";
            return Err(Failure::new(Exit::Key, message).during(self.path.display()));
        }
        let (secret, budget) = client.generate(releases)?;
        let mut file = NewFile::create(path, Readers::Owner, false)?;
        write_parameters(&mut file, client.parameters).in_file(path)?;
        write_secret_key(&mut file, &secret, &budget).in_file(path)?;
        file.commit()?;
        sync_folder(&self.path)?;
        Ok(secret)
    }

    /// The public key, unless it is there.
    fn public(&self, client: &mut Client<'_>, secret: &SecretKey<'_, Multicore>) -> Result<(), Failure> {
        let path = &self.public;
        let fits = open(path)
            .is_ok_and(|(mut reader, _)| reader.skip().is_ok_and(|header| header.key == secret.tag()));
        if fits {
            return Ok(());
        }
        let mut file = NewFile::create(path, Readers::Anyone, true)?;
        write_parameters(&mut file, client.parameters).in_file(path)?;
        let public = client.public_key(secret)?;
        client.write_public_key(&mut file, &public).in_file(path)?;
        file.commit().map(drop)
    }

    fn bytes(&self) -> Result<[u64; 3], Failure> {
        let len = |path: &PathBuf| Ok::<_, Failure>(path.metadata().in_file(path)?.len());
        Ok([len(&self.secret)?, len(&self.public)?, len(&self.evaluation)?])
    }
}

pub(crate) fn run(args: &Args, output: Output) -> Result<(), Failure> {
    let parameters = args.parameters.check()?;
    let layout = KeyLayout::new(&parameters, &requests(args, &parameters)?);
    let folder = Folder::new(&args.out);
    folder.check(args)?;
    fs::create_dir_all(&args.out).in_file(&args.out)?;
    let _claim = Claim::take(&args.out)?;
    // Again: another process may have been at it until now.
    folder.check(args)?;

    let mut phases = Phases::new();
    let threads = args.threads.count();
    let limbs = Client::limbs(&parameters) + Making::limbs(&parameters, threads);
    let accelerator = Multicore::new(parameters.chain(), 1, limbs)?;
    let mut client = Client::new(&accelerator, &parameters)?;
    let finished = args.resume && !folder.is_begun() && folder.evaluation.exists();
    if !finished {
        folder.begin(args.force)?;
    }
    let secret = folder.secret(&mut client, args.releases)?;
    folder.public(&mut client, &secret)?;
    let kept = if finished {
        if !is_of(&folder.evaluation, &parameters, secret.tag(), &layout)? {
            let message = "there are keys for another model or secret key; replace them with --force";
            return Err(Failure::new(Exit::Usage, message).during(folder.evaluation.display()));
        }
        layout.count()
    } else {
        let making = Making::begin(&folder.evaluation, &accelerator, &secret, &layout)?;
        let (kept, bar) = (making.kept(), output.progress("keys", layout.count() as u64));
        bar.set_position(kept as u64);
        making.fill(threads, &bar)?;
        bar.finish_and_clear();
        making.finish(&folder.evaluation)?;
        sync_folder(&folder.path)?;
        kept
    };
    phases.end("keys");

    let [secret_key_bytes, public_key_bytes, evaluation_keys_bytes] = folder.bytes()?;
    let report = Report {
        parameters: parameters.name(),
        keys: layout.count(),
        kept,
        secret_key_bytes,
        public_key_bytes,
        evaluation_keys_bytes,
        seconds: phases.total(),
    };
    output.json(&report)?;
    output.say(format!(
        "{}  {}  keep it here, it reads everything\n{}  {}  for whoever encrypts\n{}  {}  {} keys, for the server",
        folder.secret.display(),
        bytes(secret_key_bytes),
        folder.public.display(),
        bytes(public_key_bytes),
        folder.evaluation.display(),
        bytes(evaluation_keys_bytes),
        report.keys,
    ));
    let rest = if kept > 0 { format!("; {kept} keys were there") } else { String::new() };
    output.say(format!("made in {}{rest}", seconds(report.seconds)));
    Ok(())
}
