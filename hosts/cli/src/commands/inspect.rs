//! `inspect`: what a file says of itself. Reads headers and checksums; of a
//! secret key nothing beyond that it is one.

use super::{EVALUATION, EVALUATION_KEYS, EVALUATION_SMALL, PUBLIC_KEY, SECRET_KEY, SMALL_KEYS};
use crate::answer::ANSWER;
use crate::batch::BATCH;
use crate::exit::{Exit, Failure, InFile};
use crate::files::FileSource;
use crate::keyfile::{is_unfinished, unfinished};
use crate::output::{Output, Table, bytes};
use crate::weights::WEIGHTS;
use serde::Serialize;
use std::path::{Path, PathBuf};
use veilformer::ckks::{KeyId, Parameters};
use veilformer::wire::{self, Expected, Header, Kind, Reader, read_bundle, read_parameters, read_record};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Any file that this program wrote, or the folder of a key generation
    #[arg(value_name = "FILE|DIR")]
    file: PathBuf,
}

#[derive(Serialize)]
struct Object {
    kind: &'static str,
    detail: String,
    key: Option<String>,
    level: Option<u16>,
    bytes: u64,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Object {
    fn new(kind: &'static str, detail: String, header: &Header) -> Self {
        let key = (header.key.0 != [0; 16]).then(|| hex(&header.key.0));
        Self { kind, detail, key, level: None, bytes: header.object_len() }
    }
}

pub(crate) fn run(args: &Args, output: Output) -> Result<(), Failure> {
    let objects = if args.file.is_dir() { folder(&args.file)? } else { file(&args.file)? };
    objects.iter().try_for_each(|object| output.json(object))?;
    let mut table = Table::new(&["object", "detail", "key", ">level", ">size"]);
    for object in &objects {
        table.row(vec![
            object.kind.into(),
            object.detail.clone(),
            object.key.as_ref().map_or_else(String::new, |key| key[..16].to_owned()),
            object.level.map_or_else(String::new, |level| level.to_string()),
            bytes(object.bytes),
        ]);
    }
    output.say(table.render());
    Ok(())
}

/// The files of a key generation, one after the other.
fn folder(path: &Path) -> Result<Vec<Object>, Failure> {
    let [big, small] = [EVALUATION, EVALUATION_SMALL].map(|name| path.join(name));
    let [secret, public] = [SECRET_KEY, PUBLIC_KEY].map(|name| path.join(name));
    let paths = [secret, public, unfinished(&big), big, unfinished(&small), small];
    let there: Vec<&PathBuf> = paths.iter().filter(|path| path.exists()).collect();
    if there.is_empty() {
        let message = format!("there is none of {SECRET_KEY}, {PUBLIC_KEY} and {EVALUATION}");
        return Err(Failure::new(Exit::BadFile, message).during(path.display()));
    }
    let objects = there.into_iter().map(|path| file(path)).collect::<Result<Vec<_>, _>>()?;
    Ok(objects.into_iter().flatten().collect())
}

fn file(path: &Path) -> Result<Vec<Object>, Failure> {
    let mut objects = Vec::new();
    let whole = !is_unfinished(path);
    let read = read(&mut Reader::new(FileSource::open(path)?), whole, &mut objects).in_file(path);
    if whole {
        return read.map(|()| objects);
    }
    // Keys are made several at once: what follows a gap is not counted.
    let keys = objects.iter().filter(|object| object.kind == "switching key").count();
    let detail = format!("{keys} keys so far; `veilformer keygen --resume` goes on");
    objects.push(Object { kind: "UNFINISHED", detail, key: None, level: None, bytes: 0 });
    Ok(objects)
}

/// All objects; the bundle's announcement is believed only of a file that is whole.
fn read(reader: &mut Reader<FileSource>, whole: bool, objects: &mut Vec<Object>) -> Result<(), Failure> {
    let mut parameters: Option<Parameters> = None;
    loop {
        match reader.is_at_end() {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(error) => return Err(error.into()),
        }
        let header = match reader.header() {
            Err(wire::Error::SecretNotAllowed) => {
                objects.push(secret());
                return Ok(());
            }
            header => header?,
        };
        let object = match (header.kind, &parameters) {
            (Kind::Parameters, _) => {
                let found = read_parameters(reader, true)?;
                let detail = format!(
                    "{}, N = {}, log QP = {:.0}, {}",
                    found.name().unwrap_or("unnamed"),
                    found.degree(),
                    found.log_qp(),
                    if found.is_insecure() { "NO SECURITY" } else { "128-bit security" },
                );
                parameters = Some(found);
                Object::new("parameters", detail, &header)
            }
            (Kind::Bundle, Some(parameters)) if whole => {
                let (_, bundle) = read_bundle(reader, &Expected { parameters, key: None })?;
                let what = match bundle.tag {
                    EVALUATION_KEYS => "evaluation keys".to_owned(),
                    SMALL_KEYS => "evaluation keys of the small ring".to_owned(),
                    tag => format!("objects with tag {tag:016x}"),
                };
                Object::new("bundle", format!("{what}, {} objects", bundle.count), &header)
            }
            (Kind::Record, Some(parameters)) => {
                let mut numbers = [0; 16];
                let expected = Expected { parameters, key: None };
                let (_, tag, count) = read_record(reader, &expected, &mut numbers)?;
                Object::new("record", record(tag, &numbers[..count]), &header)
            }
            _ => {
                reader.skip()?;
                let (kind, detail) = describe(&header);
                Object { level: Some(header.level), ..Object::new(kind, detail, &header) }
            }
        };
        objects.push(object);
    }
}

/// What a record says, for people.
fn record(tag: u64, numbers: &[u64]) -> String {
    match (tag, numbers) {
        (BATCH, [work, first, sentences, size, _, _, targets]) => format!(
            "batch of {sentences} in {size} places, from sentence {}, {}, for work {work:016x}",
            first.saturating_add(1),
            if *targets > 0 { "labelled" } else { "without labels" }
        ),
        (ANSWER, [work, first, sentences, ..]) => {
            format!("logits of {sentences} from sentence {}, of work {work:016x}", first.saturating_add(1))
        }
        (WEIGHTS, [work, ..]) => format!("weights of work {work:016x}"),
        _ => format!("tag {tag:016x}, {} numbers", numbers.len()),
    }
}

fn secret() -> Object {
    let detail = "keep it on the client; nothing more is shown".to_owned();
    Object { kind: "SECRET KEY", detail, key: None, level: None, bytes: wire::SECRET_KEY_LEN }
}

fn describe(header: &Header) -> (&'static str, String) {
    match (header.kind, header.key_id()) {
        (Kind::Bundle, _) => ("bundle", String::new()),
        (Kind::PublicKey, _) => ("public key", String::new()),
        (Kind::Ciphertext, _) => ("ciphertext", String::new()),
        (Kind::SeededCiphertext, _) => ("ciphertext", "fresh, with a seed".into()),
        (_, Some(KeyId::Relinearization)) => ("switching key", "relinearisation".into()),
        (_, Some(KeyId::Galois(g))) => ("switching key", format!("automorphism {g}")),
        (_, Some(KeyId::DenseToSparse)) => ("switching key", "to the ephemeral secret".into()),
        (_, Some(KeyId::SparseToDense)) => ("switching key", "from the ephemeral secret".into()),
        (_, Some(KeyId::ToSmallRing)) => ("switching key", "to the small ring".into()),
        (_, Some(KeyId::FromSmallRing)) => ("switching key", "from the small ring".into()),
        (_, Some(KeyId::Component { log_rank, index })) => {
            ("switching key", format!("component {index} of {}", 1u32 << log_rank))
        }
        _ => ("object", format!("kind {:#06x}", header.kind.code())),
    }
}
