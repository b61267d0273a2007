//! `encrypt`: the client turns sentences into a batch of ciphertexts.

use super::{PUBLIC_KEY, QUESTION, open};
use crate::args::Threads;
use crate::client::Client;
use crate::exit::{Failure, InFile};
use crate::files::{NewFile, Readers, check_free};
use crate::job::Job;
use crate::model::{LoadedModel, SentenceArgs, pack};
use crate::output::{Output, bytes};
use serde::Serialize;
use std::path::PathBuf;
use veilformer::wire::{Bundle, ciphertext_len, write_bundle, write_parameters};
use veilformer_multicore::Multicore;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The public key, or the folder it is in
    #[arg(long, value_name = "FILE|DIR")]
    keys: PathBuf,
    /// Folder of the model; the one that comes with the program when left out
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    #[command(flatten)]
    sentences: SentenceArgs,
    /// The file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    threads: Threads,
    /// Replace the file if it exists
    #[arg(long)]
    force: bool,
}

#[derive(Serialize)]
struct Report {
    sentences: usize,
    level: usize,
    bytes: u64,
}

pub(crate) fn run(args: &Args, output: Output) -> Result<(), Failure> {
    check_free(&args.out, args.force)?;
    let model = LoadedModel::load(args.model.as_deref())?;
    let path = if args.keys.is_dir() { args.keys.join(PUBLIC_KEY) } else { args.keys.clone() };
    let (mut reader, parameters) = open(&path)?;
    let job = Job::new(&parameters, &model)?;
    let sentences = args.sentences.read(&model, job.layout.batch())?;
    let [tokens, mask] = pack(&model, &job.layout, &sentences)?;

    let limbs = Client::limbs(&parameters);
    let accelerator = Multicore::new(parameters.chain(), args.threads.count(), limbs)?;
    let written = accelerator.run(|| -> Result<u64, Failure> {
        let mut client = Client::new(&accelerator, &parameters)?;
        let key = client.read_public_key(&mut reader).in_file(&path)?;
        reader.finish().in_file(&path)?;
        let mut file = NewFile::create(&args.out, Readers::Anyone, args.force)?;
        write_parameters(&mut file, &parameters).in_file(&args.out)?;
        let levels = [job.input_level, job.mask_level];
        let bundle = Bundle {
            tag: model.fingerprint,
            count: QUESTION,
            bytes: levels.iter().map(|&level| ciphertext_len(&parameters, level)).sum(),
        };
        write_bundle(&mut file, &parameters, key.tag(), &bundle).in_file(&args.out)?;
        for (values, level) in [tokens, mask].iter().zip(levels) {
            let ciphertext = client.encrypt(&key, values, level)?;
            client.write_ciphertext(&mut file, key.tag(), &ciphertext).in_file(&args.out)?;
        }
        file.commit()
    })?;
    output.json(&Report { sentences: sentences.len(), level: job.input_level, bytes: written })?;
    output.say(format!(
        "{}  {}  {} sentences of at most {} in one batch",
        args.out.display(),
        bytes(written),
        sentences.len(),
        job.layout.batch()
    ));
    Ok(())
}
