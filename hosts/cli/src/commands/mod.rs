//! One file per command.

pub(crate) mod calibrate;
pub(crate) mod decrypt;
pub(crate) mod demo;
pub(crate) mod encrypt;
pub(crate) mod evaluate;
pub(crate) mod finetune;
pub(crate) mod infer;
pub(crate) mod inspect;
pub(crate) mod keygen;
pub(crate) mod plan;
pub(crate) mod pretrain;
pub(crate) mod rehearse;
mod report;

use crate::args::Command;
use crate::exit::{Exit, Failure, InFile};
use crate::files::FileSource;
use crate::output::Output;
use crate::work::Work;
use std::path::Path;
use veilformer::ckks::Parameters;
use veilformer::ckks::client::KeyTag;
use veilformer::wire::{Bundle, Expected, Header, Reader, Source, read_bundle, read_parameters, read_record};

/// Tag of the bundle of evaluation keys.
pub(crate) const EVALUATION_KEYS: u64 = u64::from_be_bytes(*b"evalkeys");
/// The same of those of the small ring.
pub(crate) const SMALL_KEYS: u64 = u64::from_be_bytes(*b"smallkey");
/// Names of the files of one key generation.
pub(crate) const SECRET_KEY: &str = "secret.key";
pub(crate) const PUBLIC_KEY: &str = "public.key";
pub(crate) const EVALUATION: &str = "evaluation.keys";
pub(crate) const EVALUATION_SMALL: &str = "evaluation-small.keys";

/// Carries a command out.
pub(crate) fn dispatch(command: &Command, output: Output) -> Result<(), Failure> {
    match command {
        Command::Demo(args) => demo::run(args, output),
        Command::Pretrain(args) => pretrain::run(args, output),
        Command::Calibrate(args) => calibrate::run(args, output),
        Command::Keygen(args) => keygen::run(args, output),
        Command::Encrypt(args) => encrypt::run(args, output),
        Command::Finetune(args) => finetune::run(args, output),
        Command::Infer(args) => infer::run(args, output),
        Command::Decrypt(args) => decrypt::run(args, output),
        Command::Evaluate(args) => evaluate::run(args, output),
        Command::Rehearse(args) => rehearse::run(args, output),
        Command::Plan(args) => plan::run(args, output),
        Command::Inspect(args) => inspect::run(args, output),
        Command::Bench(args) => crate::bench::run(args, output),
    }
}

/// Opens one of our files: every one starts with the parameters it was made under.
pub(crate) fn open(path: &Path) -> Result<(Reader<FileSource>, Parameters), Failure> {
    let mut reader = Reader::new(FileSource::open(path)?);
    let parameters = read_parameters(&mut reader, true).in_file(path)?;
    crate::args::warn_if_insecure(&parameters);
    Ok((reader, parameters))
}

/// Reads a bundle's announcement and checks that it is the expected one.
pub(crate) fn expect_bundle(
    reader: &mut Reader<FileSource>,
    expected: &Expected<'_>,
    what: &str,
    accept: impl Fn(&Bundle) -> bool,
) -> Result<(Header, Bundle), Failure> {
    let (header, bundle) = read_bundle(reader, expected)?;
    if accept(&bundle) {
        Ok((header, bundle))
    } else {
        Err(Failure::new(Exit::BadFile, format!("this file holds something else; expected {what}")))
    }
}

/// Opens one of our files, which must be made under these parameters.
pub(crate) fn open_under(path: &Path, parameters: &Parameters) -> Result<Reader<FileSource>, Failure> {
    let (reader, theirs) = open(path)?;
    if theirs.fingerprint() == parameters.fingerprint() {
        return Ok(reader);
    }
    let name = |p: &Parameters| p.name().unwrap_or("other parameters");
    let message = format!("made under {}, the keys under {}", name(&theirs), name(parameters));
    Err(Failure::new(Exit::BadFile, message).during(path.display()))
}

/// What a record says.
pub(crate) struct Described {
    tag: u64,
    numbers: Vec<u64>,
}

impl Described {
    /// The numbers after the fingerprint, if the record is of this kind and this work.
    pub(crate) fn expect(&self, tag: u64, what: &str, work: &Work) -> Result<Vec<usize>, Failure> {
        match self.numbers[..] {
            [fingerprint, ref rest @ ..] if self.tag == tag && fingerprint == work.fingerprint => {
                Ok(rest.iter().map(|&number| number as usize).collect())
            }
            [fingerprint, ..] if self.tag == tag => {
                let message = format!(
                    "made for another model, task, LoRA rank or seed: fingerprint {fingerprint:016x}, these give \
                     {:016x}; client and server must use the same --model, --task, --lora-rank and --seed",
                    work.fingerprint
                );
                Err(Failure::new(Exit::BadFile, message))
            }
            _ => Err(Failure::new(Exit::BadFile, format!("this file holds something else; expected {what}"))),
        }
    }
}

/// Reads the record that comes next.
pub(crate) fn read_described<S: Source>(
    reader: &mut Reader<S>,
    expected: &Expected<'_>,
) -> Result<Described, Failure> {
    let mut numbers = [0; 16];
    let (_, tag, count) = read_record(reader, expected, &mut numbers)?;
    Ok(Described { tag, numbers: numbers[..count].to_vec() })
}

/// Opens a file that a record follows the parameters of; of `key`, or of any.
pub(crate) fn open_described(
    path: &Path,
    parameters: &Parameters,
    key: Option<KeyTag>,
) -> Result<(Reader<FileSource>, Described), Failure> {
    let mut reader = open_under(path, parameters)?;
    let described = read_described(&mut reader, &Expected { parameters, key }).in_file(path)?;
    Ok((reader, described))
}
