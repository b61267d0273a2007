//! `keygen`: the client makes its keys, exactly those the executor asks for.
//!
//! The order on disk makes it safe to stop at any moment: first the unfinished
//! files of evaluation keys, which say that the folder is not ready, then the
//! secret key, then everything that follows from it.

use super::{EVALUATION, EVALUATION_KEYS, EVALUATION_SMALL, PUBLIC_KEY, SECRET_KEY, SMALL_KEYS, open};
use crate::args::{ParametersArg, Threads};
use crate::client::{Client, RELEASES};
use crate::exit::{Exit, Failure, InFile};
use crate::files::{Claim, NewFile, Readers, check_free, sweep, sync_folder};
use crate::keyfile::{KeyLayout, Making, Title, is_of, unfinished};
use crate::output::{Output, Phases, bytes, seconds};
use crate::rings::Rings;
use crate::serve::requests;
use crate::work::{ModelArgs, Work};
use indicatif::ProgressBar;
use serde::Serialize;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use veilformer::ckks::client::SecretKey;
use veilformer::wire::{write_parameters, write_secret_key};
use veilformer_multicore::Multicore;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The keys serve batches of any size, every task of the model and every LoRA rank.
Keys are written to disk one by one. If key generation is interrupted, the same command with
--resume finishes it, with the same secret key and to the same files, byte for byte; until then
servers refuse the folder.")]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Only the keys of inference with weights in the clear; fine-tuning and encrypted weights need more
    #[arg(long)]
    inference: bool,
    /// Folder for secret.key, public.key, evaluation.keys and evaluation-small.keys; made if it is not there
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
    evaluation_small_keys_bytes: u64,
    seconds: f64,
}

/// The files of one key generation.
struct Folder {
    path: PathBuf,
    secret: PathBuf,
    public: PathBuf,
    /// Of the big ring and of the small one.
    evaluation: [PathBuf; 2],
    unfinished: [PathBuf; 2],
}

fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

impl Folder {
    fn new(path: &Path) -> Self {
        let [secret, public] = [SECRET_KEY, PUBLIC_KEY].map(|name| path.join(name));
        let evaluation = [EVALUATION, EVALUATION_SMALL].map(|name| path.join(name));
        let unfinished = evaluation.each_ref().map(|path| unfinished(path));
        Self { path: path.to_owned(), secret, public, evaluation, unfinished }
    }

    /// Refuses early what was not asked for.
    fn check(&self, args: &Args) -> Result<(), Failure> {
        if args.force {
            return Ok(());
        }
        if args.resume {
            // What there is of evaluation keys follows from a secret key.
            let begun = |path: &PathBuf| path.metadata().is_ok_and(|metadata| metadata.len() > 0);
            let follows =
                self.unfinished.iter().any(begun) || self.evaluation.iter().any(|path| is_there(path));
            if follows && !is_there(&self.secret) {
                let message = "the secret key that these keys belong to is gone; start anew with --force";
                return Err(Failure::new(Exit::Key, message).during(self.path.display()));
            }
            return Ok(());
        }
        if self.unfinished.iter().any(|path| is_there(path)) {
            let message = format!(
                "key generation in {} did not finish; go on with --resume, or start anew with --force",
                self.path.display()
            );
            return Err(Failure::new(Exit::Usage, message));
        }
        let all = [&self.secret, &self.public].into_iter().chain(&self.evaluation);
        all.into_iter().try_for_each(|path| check_free(path, false))
    }

    /// Whether the keys of a ring are whole, as far as names tell.
    fn is_finished(&self, ring: usize) -> bool {
        is_there(&self.evaluation[ring]) && !is_there(&self.unfinished[ring])
    }

    /// Marks as unfinished what is; with `force` nothing old outlives that.
    fn begin(&self, force: bool) -> Result<(), Failure> {
        for ring in (0..2).filter(|&ring| force || !self.is_finished(ring)) {
            let path = &self.unfinished[ring];
            OpenOptions::new().write(true).create(true).truncate(force).open(path).in_file(path)?;
        }
        [SECRET_KEY, PUBLIC_KEY].iter().try_for_each(|name| sweep(&self.path, name))?;
        if force {
            for path in [&self.secret, &self.public].into_iter().chain(&self.evaluation) {
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
        if is_there(path) {
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

    /// Makes the evaluation keys of a ring that are missing; returns how many were there.
    fn evaluation(
        &self,
        ring: usize,
        making: (&Multicore, &SecretKey<'_, Multicore>),
        title: &Title<'_>,
        layout: &KeyLayout,
        (threads, bar): (usize, &ProgressBar),
    ) -> Result<usize, Failure> {
        let path = &self.evaluation[ring];
        if self.is_finished(ring) {
            if !is_of(path, title, layout)? {
                let message = "there are keys for another model or secret key; replace them with --force";
                return Err(Failure::new(Exit::Usage, message).during(path.display()));
            }
            bar.inc(layout.count() as u64);
            return Ok(layout.count());
        }
        let making = Making::begin(path, making.0, making.1, title, layout)?;
        let kept = making.kept();
        bar.inc(kept as u64);
        making.fill(threads, bar)?;
        making.finish(path)?;
        sync_folder(&self.path)?;
        Ok(kept)
    }

    fn bytes(&self) -> Result<[u64; 4], Failure> {
        let len = |path: &PathBuf| Ok::<_, Failure>(path.metadata().in_file(path)?.len());
        let [big, small] = &self.evaluation;
        Ok([len(&self.secret)?, len(&self.public)?, len(big)?, len(small)?])
    }
}

pub(crate) fn run(args: &Args, output: Output) -> Result<(), Failure> {
    let rings = Rings::new(args.parameters.check()?)?;
    let work = Work::load(&args.model)?;
    let requests = requests(&work, &rings, !args.inference)?;
    let layouts = [0, 1].map(|ring| KeyLayout::new(rings.both()[ring], &requests[ring]));
    let folder = Folder::new(&args.out);
    folder.check(args)?;
    fs::create_dir_all(&args.out).in_file(&args.out)?;
    let _claim = Claim::take(&args.out, "making keys")?;
    // Again: another process may have been at it until now.
    folder.check(args)?;

    let mut phases = Phases::new();
    let threads = args.threads.count();
    let limbs = |ring: usize| {
        let parameters = rings.both()[ring];
        Client::limbs(parameters) + Making::limbs(parameters, threads)
    };
    let accelerators =
        [Multicore::new(rings.big.chain(), 1, limbs(0))?, Multicore::new(rings.small.chain(), 1, limbs(1))?];
    let mut client = Client::new(&accelerators[0], &rings.big)?;
    folder.begin(args.force)?;
    let secret = folder.secret(&mut client, args.releases)?;
    folder.public(&mut client, &secret)?;
    let of_small = secret.small_ring(&accelerators[1], &rings.small, &mut vec![0; rings.small.degree()])?;
    let count = layouts.iter().map(KeyLayout::count).sum();
    let (bar, mut kept) = (output.progress("keys", count as u64), 0);
    for (ring, (secret_of_ring, tag)) in
        [(&secret, EVALUATION_KEYS), (&of_small, SMALL_KEYS)].into_iter().enumerate()
    {
        let title = Title { parameters: &rings.big, owner: secret.tag(), tag };
        let making = (&accelerators[ring], secret_of_ring);
        kept += folder.evaluation(ring, making, &title, &layouts[ring], (threads, &bar))?;
    }
    bar.finish_and_clear();
    phases.end("keys");
    report(&folder, rings.big.name(), [count, kept], phases.total(), output)
}

fn report(
    folder: &Folder,
    parameters: Option<&'static str>,
    [keys, kept]: [usize; 2],
    total_s: f64,
    output: Output,
) -> Result<(), Failure> {
    let lengths = folder.bytes()?;
    let [secret_key_bytes, public_key_bytes, evaluation_keys_bytes, evaluation_small_keys_bytes] = lengths;
    output.json(&Report {
        parameters,
        keys,
        kept,
        secret_key_bytes,
        public_key_bytes,
        evaluation_keys_bytes,
        evaluation_small_keys_bytes,
        seconds: total_s,
    })?;
    let server = format!("{keys} keys in both, for the server");
    let uses = ["keep it here, it reads everything", "for whoever encrypts", &server, "beside it"];
    let [big, small] = &folder.evaluation;
    for ((path, length), what) in
        [&folder.secret, &folder.public, big, small].into_iter().zip(lengths).zip(uses)
    {
        output.say(format!("{}  {}  {what}", path.display(), bytes(length)));
    }
    let rest = if kept > 0 { format!("; {kept} keys were there") } else { String::new() };
    output.say(format!("made in {}{rest}", seconds(total_s)));
    Ok(())
}
