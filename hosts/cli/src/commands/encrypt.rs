//! `encrypt`: the client turns sentences into batches of ciphertexts.

use super::{PUBLIC_KEY, open};
use crate::args::Threads;
use crate::batch::{self, Sealer};
use crate::client::Client;
use crate::exit::{Exit, Failure, InFile};
use crate::files::{NewFile, Readers, check_free};
use crate::output::{Output, bytes, count};
use crate::rings::{Carrier, Rings};
use crate::sentences::TextArgs;
use crate::weights;
use crate::work::{ModelArgs, Work};
use serde::Serialize;
use std::fs;
use std::path::{Path, PathBuf};
use veilformer::wire::write_parameters;
use veilformer_multicore::Multicore;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The public key, or the folder it is in
    #[arg(long, value_name = "FILE|DIR")]
    keys: PathBuf,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    sentences: TextArgs,
    /// The folder to write numbered batches to; a file, if its name ends in .vfb, for one batch
    #[arg(long, value_name = "DIR|FILE")]
    out: PathBuf,
    /// Also encrypt, into this file, the weights that fine-tuning starts from
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Sentences to a batch
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    batch: u16,
    /// Leave the labels out: inference has no use for them
    #[arg(long)]
    unlabelled: bool,
    #[command(flatten)]
    threads: Threads,
    /// Replace batches that exist
    #[arg(long)]
    force: bool,
}

#[derive(Serialize)]
struct Report {
    sentences: usize,
    batches: usize,
    batch: usize,
    labelled: bool,
    bytes: u64,
}

/// The files of so many batches; a folder is made and must hold no others.
fn files(out: &Path, batches: usize, force: bool) -> Result<Vec<PathBuf>, Failure> {
    if out.extension().is_some_and(|extension| extension == "vfb") {
        if batches > 1 {
            let message =
                format!("{} is one file, the sentences fill {batches}; name a folder", out.display());
            return Err(Failure::new(Exit::Usage, message));
        }
        check_free(out, force)?;
        return Ok(vec![out.to_owned()]);
    }
    fs::create_dir_all(out).in_file(out)?;
    for old in batch::files_in(out).unwrap_or_default() {
        check_free(&old, force)?;
        fs::remove_file(&old).in_file(&old)?;
    }
    Ok((0..batches).map(|index| batch::file_of(out, index)).collect())
}

pub(crate) fn run(args: &Args, output: Output) -> Result<(), Failure> {
    let work = Work::load(&args.model)?;
    let path = if args.keys.is_dir() { args.keys.join(PUBLIC_KEY) } else { args.keys.clone() };
    let (mut reader, parameters) = open(&path)?;
    let rings = Rings::new(parameters)?;
    let size = usize::from(args.batch);
    let sealer = Sealer::new(&rings, &work, size)?;
    let sentences = args.sentences.read(&work)?;
    let labelled = !args.unlabelled && sentences.iter().all(|sentence| sentence.label.is_some());
    if labelled {
        sealer.check_labels(&sentences)?;
    }
    let held = sealer.limbs() + args.weights.as_ref().map_or(Ok(0), |_| weights::limbs(&work, &rings))?;
    let limbs = Client::limbs(&rings.big) + held;
    let accelerator = Multicore::new(rings.big.chain(), args.threads.count(), limbs)?;
    let mut client = Client::new(&accelerator, &rings.big)?;
    let key = client.read_public_key(&mut reader).in_file(&path)?;
    reader.finish().in_file(&path)?;
    args.weights.iter().try_for_each(|path| check_free(path, args.force))?;
    let files = files(&args.out, sentences.len().div_ceil(size), args.force)?;
    let written = accelerator.run(|| -> Result<u64, Failure> {
        let mut carrier = Carrier::new(&accelerator, &rings.big, key.tag());
        let bar = output.progress("encrypt", files.len() as u64);
        let mut written = 0;
        for (index, (file, sentences)) in files.iter().zip(sentences.chunks(size)).enumerate() {
            let batch = sealer.seal(&mut client, &key, index * size, sentences, labelled)?;
            written += batch.write(file, &work, &mut carrier, args.force)?;
            bar.inc(1);
        }
        bar.finish_and_clear();
        if let Some(path) = &args.weights {
            let mut file = NewFile::create(path, Readers::Anyone, args.force)?;
            write_parameters(&mut file, &rings.big).in_file(path)?;
            let encrypted = weights::encrypt(&mut client, &key, &work, &rings)?;
            weights::write(&mut file, &mut carrier, work.fingerprint, &encrypted).in_file(path)?;
            file.commit()?;
        }
        Ok(written)
    })?;
    let batches = files.len();
    output.json(&Report { sentences: sentences.len(), batches, batch: size, labelled, bytes: written })?;
    output.say(format!(
        "{}  {}  {} in {} of {size}{}",
        args.out.display(),
        bytes(written),
        count(sentences.len(), "sentence"),
        count(batches, "batch"),
        if labelled { ", with their labels" } else { "" },
    ));
    Ok(())
}
