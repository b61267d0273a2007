//! `decrypt`: the client reads the answers.

use super::open;
use super::report::{compare, table};
use crate::answer::{self, Answer, Opened};
use crate::args::Threads;
use crate::client::{Client, system_rng};
use crate::exit::{Exit, Failure, InFile};
use crate::files::{NewFile, Readers};
use crate::output::Output;
use crate::rings::{Carrier, Rings};
use crate::sentences::{Sentence, TextArgs};
use crate::weights;
use crate::work::{ModelArgs, Work};
use serde::Serialize;
use std::path::{Path, PathBuf};
use veilformer::ckks::client::{ReleaseBudget, SecretKey, flood_deviation};
use veilformer::ckks::encoding::words_to_read;
use veilformer::wire::{write_parameters, write_secret_key};
use veilformer_multicore::Multicore;

/// What `decrypt` and `evaluate` read.
#[derive(Debug, clap::Args)]
pub(crate) struct Input {
    #[command(flatten)]
    pub(crate) opening: Opening,
    /// The server's answer, or a folder of them
    #[arg(long = "in", value_name = "FILE|DIR")]
    pub(crate) input: PathBuf,
}

/// What it takes to read what is encrypted.
#[derive(Debug, clap::Args)]
pub(crate) struct Opening {
    /// The secret key
    #[arg(long, value_name = "FILE")]
    pub(crate) secret: PathBuf,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// The encrypted weights that the server was given, to compare with the model they make
    #[arg(long, value_name = "FILE")]
    pub(crate) weights: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) threads: Threads,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    input: Input,
    /// The sentences that were encrypted, to name the rows and to compare with the model in the clear
    #[command(flatten)]
    sentences: TextArgs,
    /// Flood the values with noise so that they may be shown to others. Spends a release of the key for every answer
    #[arg(long)]
    release: bool,
    /// Release even when the noise will drown the values
    #[arg(long, requires = "release")]
    drowned: bool,
}

/// log2 of what the noise of a logit is taken to be at most, over the bound on logits, for flooding.
const NOISE_BITS: i32 = -12;

/// Noise of a released logit up to which it still tells something.
const READABLE: f64 = 0.5;

#[derive(Serialize)]
struct Released {
    releases_left: u32,
    logit_deviation: f64,
}

/// What an answer says of itself beside its logits.
#[derive(Serialize)]
pub(crate) struct Witness {
    answer: String,
    /// The largest value where there should be none, and the largest logit, over the bound on logits.
    stray: f64,
    reach: f64,
    escaped: bool,
}

/// An opened answer: which sentences it is about, and what it says.
pub(crate) struct Part {
    pub(crate) path: PathBuf,
    pub(crate) first: usize,
    pub(crate) opened: Opened,
}

impl Part {
    pub(crate) fn witness(&self) -> Witness {
        let Opened { stray, reach, .. } = self.opened;
        Witness { answer: self.path.display().to_string(), stray, reach, escaped: self.opened.is_escaped() }
    }
}

/// Fails where a value certainly left its polynomial's interval, naming the answers.
pub(crate) fn check_escapes(parts: &[Part]) -> Result<(), Failure> {
    let escaped: Vec<String> =
        parts.iter().filter(|p| p.opened.is_escaped()).map(|p| p.path.display().to_string()).collect();
    if escaped.is_empty() {
        return Ok(());
    }
    let message = format!(
        "{}: a value left its polynomial's interval: this batch means nothing; fit the polynomials to sentences like \
         these with `veilformer calibrate`, or leave out the one that does it (`decrypt --file` names the function)",
        escaped.join(", ")
    );
    Err(Failure::new(Exit::Escaped, message))
}

/// What opens answers: both secrets and the memory for it.
pub(crate) struct Opener<'a> {
    rings: &'a Rings,
    secret: SecretKey<'a, Multicore>,
    small: SecretKey<'a, Multicore>,
    small_accelerator: &'a Multicore,
    budget: ReleaseBudget,
}

/// Values for others: where the secret key and its budget are, whether noise may drown them, and what became of both.
struct Release<'p> {
    path: &'p Path,
    drowned: bool,
    report: Released,
}

impl Release<'_> {
    /// Refuses to spend a release on noise.
    fn check(&mut self, budget: &ReleaseBudget, bound: f64) -> Result<(), Failure> {
        let deviation = flood_deviation(budget, 2f64.powi(NOISE_BITS)) * bound;
        if deviation > READABLE && !self.drowned {
            let message = format!(
                "a safe release of these values needs noise of deviation {deviation:.2e}, which drowns them: \
                 show others nothing, make keys with fewer --releases, or pass --drowned"
            );
            return Err(Failure::new(Exit::Security, message));
        }
        self.report.logit_deviation = self.report.logit_deviation.max(deviation);
        Ok(())
    }
}

/// Reads the secret key, and hands over what opens answers and the work they are of, with the weights that the server
/// was given, where it was given any.
pub(crate) fn with_opener<R: Send>(
    opening: &Opening,
    open_and: impl FnOnce(Opener<'_>, Work) -> Result<R, Failure> + Send,
) -> Result<R, Failure> {
    let (path, mut work) = (&opening.secret, Work::load(&opening.model)?);
    let (mut file, parameters) = open(path)?;
    let rings = Rings::new(parameters)?;
    let threads = opening.threads.count();
    let held = opening.weights.as_ref().map_or(Ok(0), |_| weights::limbs(&work, &rings))?;
    let of_big = Multicore::new(rings.big.chain(), threads, Client::limbs(&rings.big) + held)?;
    let of_small = of_big.beside(rings.small.chain(), Client::limbs(&rings.small))?;
    let accelerators = [of_big, of_small];
    accelerators[0].run(|| {
        let mut client = Client::new(&accelerators[0], &rings.big)?;
        let (secret, budget) = client.read_secret(&mut file).in_file(path)?;
        file.finish().in_file(path)?;
        let small = secret.small_ring(&accelerators[1], &rings.small, &mut vec![0; rings.small.degree()])?;
        if let Some(path) = &opening.weights {
            let mut carrier = Carrier::new(&accelerators[0], &rings.big, secret.tag());
            let weights = weights::load(path, &work, &rings, &mut carrier)?;
            work = weights::decrypt(&mut client, &secret, work, &rings, &weights)?;
        }
        let small_accelerator = &accelerators[1];
        open_and(Opener { rings: &rings, secret, small, small_accelerator, budget }, work)
    })
}

impl Opener<'_> {
    /// Opens all answers.
    pub(crate) fn open(&mut self, input: &Path, work: &Work) -> Result<Vec<Part>, Failure> {
        self.open_for(input, work, None)
    }

    fn open_for(
        &mut self,
        input: &Path,
        work: &Work,
        mut release: Option<&mut Release<'_>>,
    ) -> Result<Vec<Part>, Failure> {
        let degree = self.rings.small.degree();
        let mut carrier = Carrier::new(self.small_accelerator, &self.rings.small, self.small.tag());
        let (mut words, mut parts) = (vec![0; words_to_read(degree, 1)], Vec::new());
        for path in answer::files_in(input)? {
            let answer = Answer::read(&path, work, self.rings, self.secret.tag(), &mut carrier)?;
            let mut pieces = vec![vec![0.0; degree]; answer.pieces.len()];
            for (piece, out) in answer.pieces.iter().zip(&mut pieces) {
                let Some(release) = &mut release else {
                    self.small.decrypt_coefficients(piece, &mut words, out)?;
                    continue;
                };
                release.check(&self.budget, answer.bound)?;
                let noise = 2f64.powi(NOISE_BITS) * answer.bound * answer.scale;
                let mut rng = system_rng()?;
                self.small.release(piece, noise, &mut self.budget, &mut rng, &mut words, out)?;
                // The budget is written down before anything is shown.
                self.keep(release.path)?;
                release.report.releases_left = self.budget.allowed() - self.budget.used();
            }
            let layout = *work.places(self.rings, answer.size)?.target.layout();
            parts.push(Part { path, first: answer.first, opened: answer.open(&layout, &pieces) });
        }
        parts.sort_by_key(|part| part.first);
        Ok(parts)
    }

    /// Writes the secret key again with what is left of its budget.
    fn keep(&self, path: &Path) -> Result<(), Failure> {
        let mut file = NewFile::create(path, Readers::Owner, true)?;
        write_parameters(&mut file, &self.rings.big).in_file(path)?;
        write_secret_key(&mut file, &self.secret, &self.budget).in_file(path)?;
        file.commit().map(drop)
    }
}

/// The sentences of an answer among all that were encrypted.
fn sentences_of<'s>(part: &Part, all: &'s [Sentence]) -> Result<&'s [Sentence], Failure> {
    let end = part.first.saturating_add(part.opened.logits.len());
    all.get(part.first..end).ok_or_else(|| {
        let message = format!(
            "answers sentences {} to {end}, {} are given; give the file that was encrypted",
            part.first + 1,
            all.len()
        );
        Failure::new(Exit::BadFile, message).during(part.path.display())
    })
}

pub(crate) fn run(args: &Args, output: Output) -> Result<(), Failure> {
    let Input { opening, input } = &args.input;
    with_opener(opening, |mut opener, work| {
        let sentences = if args.sentences.is_given() { Some(args.sentences.read(&work)?) } else { None };
        let report = Released { releases_left: 0, logit_deviation: 0.0 };
        let mut release = Release { path: &opening.secret, drowned: args.drowned, report };
        let parts = opener.open_for(input, &work, args.release.then_some(&mut release))?;
        if args.release {
            let Released { releases_left, logit_deviation } = release.report;
            output.json(&release.report)?;
            output.say(format!(
                "released: values carry noise of deviation {logit_deviation:.2e}; {releases_left} releases left \
                 for this key"
            ));
        }
        for part in &parts {
            let named = sentences.as_ref().map(|all| sentences_of(part, all)).transpose()?;
            show(&work, part, named, output)?;
        }
        if args.release {
            // Noise that hides the key hides everything else that should be zero, too.
            return Ok(());
        }
        parts.iter().try_for_each(|part| output.json(&part.witness()))?;
        output.say("for your eyes only: values that others will see need --release");
        check_escapes(&parts)
    })
}

/// The table of an answer, beside the model in the clear where its sentences are given.
fn show(work: &Work, part: &Part, sentences: Option<&[Sentence]>, output: Output) -> Result<(), Failure> {
    let plain = sentences.map(|sentences| work.plain_logits(sentences)).transpose()?;
    if let Some(site) = plain.as_ref().and_then(|plain| plain.escaped) {
        tracing::warn!("in the clear, too, a sentence drives {site:?} outside its polynomial's interval");
    }
    let (rows, summary) =
        compare(work.naming(), sentences.unwrap_or(&[]), &part.opened.logits, plain.as_ref());
    rows.iter().try_for_each(|row| output.json(row))?;
    output.json(&summary)?;
    output.say(table(&rows));
    output.say(summary.describe());
    Ok(())
}
