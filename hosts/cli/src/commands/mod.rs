//! One file per command.

pub(crate) mod decrypt;
pub(crate) mod demo;
pub(crate) mod encrypt;
pub(crate) mod infer;
pub(crate) mod inspect;
pub(crate) mod keygen;
pub(crate) mod plan;
mod report;

use crate::exit::{Exit, Failure, InFile};
use crate::files::FileSource;
use std::path::Path;
use veilformer::ckks::Parameters;
use veilformer::wire::{Bundle, Expected, Header, Reader, read_bundle, read_parameters};

/// Tag of the bundle of evaluation keys.
pub(crate) const EVALUATION_KEYS: u64 = u64::from_be_bytes(*b"evalkeys");
/// Objects in the bundle a client sends: tokens and mask.
pub(crate) const QUESTION: u64 = 2;
/// Objects in the bundle a server answers with: logits.
pub(crate) const ANSWER: u64 = 1;
/// Names of the files of one key generation.
pub(crate) const SECRET_KEY: &str = "secret.key";
pub(crate) const PUBLIC_KEY: &str = "public.key";
pub(crate) const EVALUATION: &str = "evaluation.keys";

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

/// A question or an answer about another model is of no use.
pub(crate) fn same_model(bundle: &Bundle, fingerprint: u64) -> Result<(), Failure> {
    if bundle.tag == fingerprint {
        return Ok(());
    }
    let message = format!(
        "encrypted for another model: fingerprint {:016x}, this one has {fingerprint:016x}; \
         client and server must use the same model folder",
        bundle.tag
    );
    Err(Failure::new(Exit::BadFile, message))
}
