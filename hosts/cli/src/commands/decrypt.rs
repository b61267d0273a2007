//! `decrypt`: the client reads the answer.

use super::report::{compare, table};
use super::{ANSWER, EVALUATION_KEYS, expect_bundle, open, same_model};
use crate::args::Threads;
use crate::client::Client;
use crate::exit::{Exit, Failure, InFile};
use crate::files::{NewFile, Readers};
use crate::model::{LoadedModel, SentenceArgs, unpack};
use crate::output::Output;
use serde::Serialize;
use std::path::PathBuf;
use veilformer::ckks::Parameters;
use veilformer::ckks::client::{ReleaseBudget, SecretKey, flood_deviation};
use veilformer::transformer::slots::Layout;
use veilformer::wire::{Expected, write_parameters, write_secret_key};
use veilformer_multicore::Multicore;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The secret key
    #[arg(long, value_name = "FILE")]
    secret: PathBuf,
    /// The server's answer
    #[arg(long = "in", value_name = "FILE")]
    input: PathBuf,
    /// Folder of the model; the one that comes with the program when left out
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// The sentences that were encrypted, to name the rows and to compare with the model in the clear
    #[command(flatten)]
    sentences: SentenceArgs,
    /// Flood the values with noise so that they may be shown to others. Spends one of the key's releases
    #[arg(long)]
    release: bool,
    /// Release even when the noise will drown the values
    #[arg(long, requires = "release")]
    drowned: bool,
    #[command(flatten)]
    threads: Threads,
}

/// log2 of what the noise of a slot is taken to be at most, for flooding.
/// The worst seen in runs of the one-layer model is 2^−14.9; this is nearly four times that.
const NOISE_BITS: i32 = -13;

/// Noise of a released slot up to which logits still tell something.
const READABLE: f64 = 0.5;

#[derive(Serialize)]
struct Released {
    releases_left: u32,
    slot_deviation: f64,
}

pub(crate) fn run(args: &Args, output: Output) -> Result<(), Failure> {
    let model = LoadedModel::load(args.model.as_deref())?;
    let (mut secret_file, parameters) = open(&args.secret)?;
    let (mut answer, theirs) = open(&args.input)?;
    if theirs.fingerprint() != parameters.fingerprint() {
        let message = "made under other parameters than the secret key";
        return Err(Failure::new(Exit::BadFile, message).during(args.input.display()));
    }
    let layout = Layout::new(model.config(), parameters.slots())
        .map_err(|error| Failure::new(Exit::BadFile, format!("the model does not fit the key: {error}")))?;
    let sentences =
        if args.sentences.is_given() { args.sentences.read(&model, layout.batch())? } else { Vec::new() };
    let limbs = Client::limbs(&parameters);
    let accelerator = Multicore::new(parameters.chain(), args.threads.count(), limbs)?;
    let mut client = Client::new(&accelerator, &parameters)?;
    let (secret, mut budget) = client.read_secret(&mut secret_file).in_file(&args.secret)?;
    secret_file.finish().in_file(&args.secret)?;
    let expected = Expected { parameters: &parameters, key: Some(secret.tag()) };
    let (_, bundle) = expect_bundle(&mut answer, &expected, "an answer from `infer`", |b| {
        b.count == ANSWER && b.tag != EVALUATION_KEYS
    })
    .in_file(&args.input)?;
    same_model(&bundle, model.fingerprint).in_file(&args.input)?;
    let ciphertext = client.read_ciphertext(&mut answer, Some(secret.tag())).in_file(&args.input)?;
    answer.finish().in_file(&args.input)?;

    let values = if args.release {
        let slot_deviation = flood_deviation(&budget, 2f64.powi(NOISE_BITS));
        if slot_deviation > READABLE && !args.drowned {
            let message = format!(
                "a safe release of these values needs noise of deviation {slot_deviation:.2e}, which drowns them: \
                 show others nothing, make keys with fewer --releases, or pass --drowned"
            );
            return Err(Failure::new(Exit::Security, message));
        }
        // A slot is a sum over N coefficients with independent noise.
        let noise = parameters.scale(ciphertext.level()) * 2f64.powi(NOISE_BITS)
            / (parameters.degree() as f64).sqrt();
        let values = client.release(&secret, &ciphertext, noise, &mut budget)?;
        // The budget is written down before anything is shown.
        keep(args, &parameters, &secret, &budget)?;
        let left = budget.allowed() - budget.used();
        output.json(&Released { releases_left: left, slot_deviation })?;
        output.say(format!(
            "released: values carry noise of deviation {slot_deviation:.2e}; {left} releases left for this key"
        ));
        values
    } else {
        client.decrypt(&secret, &ciphertext)?
    };
    let count = if sentences.is_empty() { layout.batch() } else { sentences.len() };
    let logits = unpack(&model, &layout, &values, count);
    let plain = if sentences.is_empty() { None } else { Some(model.plain_logits(&sentences)?) };
    let (rows, summary) = compare(&model, &sentences, &logits, plain.as_ref());
    rows.iter().try_for_each(|row| output.json(row))?;
    output.json(&summary)?;
    output.say(table(&rows));
    output.say(summary.describe());
    if !args.release {
        output.say("for your eyes only: values that others will see need --release");
    }
    Ok(())
}

/// Writes the secret key again with what is left of its budget.
fn keep(
    args: &Args,
    parameters: &Parameters,
    secret: &SecretKey<'_, Multicore>,
    budget: &ReleaseBudget,
) -> Result<(), Failure> {
    let mut file = NewFile::create(&args.secret, Readers::Owner, true)?;
    write_parameters(&mut file, parameters).in_file(&args.secret)?;
    write_secret_key(&mut file, secret, budget).in_file(&args.secret)?;
    file.commit()?;
    Ok(())
}
