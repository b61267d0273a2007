//! A batch of sentences as it travels: embeddings, mask and, for training, targets, all encrypted in the big ring.
//!
//! ```text
//! parameters, record: fingerprint, first, sentences, size, inputs, masks, targets; then as many ciphertexts
//! ```
//!
//! Embeddings and targets are coefficients, because packed matrices are made of them; the mask is slots, because it
//! meets the scores there. A last batch that is not full repeats its sentences, targets and all: an empty place would
//! leave the polynomials' intervals. `sentences` says how many count.

use crate::client::Client;
use crate::commands::{Described, open_described};
use crate::exit::{Exit, Failure, InFile};
use crate::files::{NewFile, Readers};
use crate::rings::{Carrier, Rings};
use crate::sentences::Sentence;
use crate::work::{BatchPlaces, Work};
use std::fs;
use std::path::{Path, PathBuf};
use veilformer::accel::Accelerator;
use veilformer::ckks::Ciphertext;
use veilformer::ckks::client::{KeyTag, PublicKey};
use veilformer::transformer::Loss;
use veilformer::wire::{write_parameters, write_record};
use veilformer_engine::client;
use veilformer_multicore::Multicore;
use veilformer_plain::executor::{Functions, PlainExecutor};
use veilformer_plain::run::embed;

/// What its record says it is.
pub(crate) const BATCH: u64 = u64::from_be_bytes(*b"batch   ");
/// Numbers in the record.
const NUMBERS: usize = 7;
/// How files of batches begin and end.
const NAME: (&str, &str) = ("batch-", "vfb");

/// Ciphertexts of the big ring, and what they hold.
pub(crate) struct Batch<A: Accelerator> {
    /// The number of its first sentence among all that were encrypted together.
    pub(crate) first: usize,
    /// Sentences that count.
    pub(crate) sentences: usize,
    /// Places for sentences.
    pub(crate) size: usize,
    /// Normalised embeddings: coefficients.
    pub(crate) input: Vec<Ciphertext<A>>,
    /// 1 where a token counts: slots of the scores.
    pub(crate) mask: Vec<Ciphertext<A>>,
    /// What is wanted of the outputs: coefficients; none for inference.
    pub(crate) target: Vec<Ciphertext<A>>,
}

impl<A: Accelerator<Word = u64>> Batch<A> {
    /// Reads a batch of the key that `carrier` is for.
    ///
    /// # Errors
    /// Other parameters, another key, another work; whatever a writer of ours would not have written.
    pub(crate) fn read(
        path: &Path,
        work: &Work,
        rings: &Rings,
        carrier: &mut Carrier<'_, A>,
    ) -> Result<Self, Failure> {
        let (mut reader, described) = open_described(path, &rings.big, Some(carrier.owner))?;
        let [first, sentences, size, counts @ ..] = announced(&described, work, rings).in_file(path)?;
        let [inputs, masks, targets] = counts;
        let mut read = |count: usize, level: usize| -> Result<Vec<Ciphertext<A>>, Failure> {
            let ciphertexts = carrier.read(&mut reader, count)?;
            match ciphertexts.iter().find(|x| x.level() != level) {
                None => Ok(ciphertexts),
                Some(other) => {
                    let message = format!("a ciphertext at level {}, expected {level}", other.level());
                    Err(Failure::new(Exit::BadFile, message))
                }
            }
        };
        let input = read(inputs, rings.coefficient_level()).in_file(path)?;
        let mask = read(masks, rings.slot_level()).in_file(path)?;
        let target = read(targets, rings.coefficient_level()).in_file(path)?;
        reader.finish().in_file(path)?;
        Ok(Self { first, sentences, size, input, mask, target })
    }

    /// What the executor takes.
    pub(crate) fn into_sent(self) -> veilformer_engine::Batch<Ciphertext<A>> {
        veilformer_engine::Batch { input: self.input, mask: self.mask, target: self.target }
    }

    /// Writes a batch to a new file; returns its length.
    pub(crate) fn write(
        &self,
        path: &Path,
        work: &Work,
        carrier: &mut Carrier<'_, A>,
        force: bool,
    ) -> Result<u64, Failure> {
        let mut file = NewFile::create(path, Readers::Anyone, force)?;
        let counts = [self.input.len(), self.mask.len(), self.target.len()];
        let [first, sentences, size] = [self.first, self.sentences, self.size];
        let numbers = [first, sentences, size, counts[0], counts[1], counts[2]].map(|n| n as u64);
        let numbers = [&[work.fingerprint], &numbers[..]].concat();
        write_parameters(&mut file, carrier.parameters).in_file(path)?;
        write_record(&mut file, carrier.parameters, carrier.owner, BATCH, &numbers).in_file(path)?;
        for ciphertext in self.input.iter().chain(&self.mask).chain(&self.target) {
            carrier.write(&mut file, ciphertext).in_file(path)?;
        }
        file.commit()
    }
}

/// First sentence, sentences, size, inputs, masks, targets, once they are what a client of this work writes.
fn announced(described: &Described, work: &Work, rings: &Rings) -> Result<[usize; NUMBERS - 1], Failure> {
    let numbers = described.expect(BATCH, "sentences from `encrypt`", work)?;
    let size = numbers.get(2).copied().unwrap_or(0);
    let places = work.places(rings, size).map_err(|failure| Failure { exit: Exit::BadFile, ..failure })?;
    let targets = places.target.ciphertexts();
    let counts = [places.input.ciphertexts(), places.mask.ciphertexts()];
    match numbers[..] {
        [first, sentences, _, input, mask, target]
            if (1..=size).contains(&sentences)
                && [input, mask] == counts
                && (target == 0 || target == targets) =>
        {
            Ok([first, sentences, size, input, mask, target])
        }
        _ => {
            let message = format!(
                "says it holds {numbers:?}; a batch of {size} is {counts:?} ciphertexts and {targets} of targets"
            );
            Err(Failure::new(Exit::BadFile, message))
        }
    }
}

/// The one size that all batches have, from their fronts alone: each is looked at before hours of work.
///
/// # Errors
/// Batches of several sizes; without targets where `labelled` asks for them; as [`Batch::read`].
pub(crate) fn common_size(
    batches: &[PathBuf],
    work: &Work,
    rings: &Rings,
    owner: KeyTag,
    labelled: bool,
) -> Result<usize, Failure> {
    let mut common = None;
    for path in batches {
        let (_, described) = open_described(path, &rings.big, Some(owner))?;
        let [_, _, size, _, _, targets] = announced(&described, work, rings).in_file(path)?;
        let first = *common.get_or_insert(size);
        let message = if size != first {
            format!("a batch of {size} among batches of {first}; use them one size at a time")
        } else if labelled && targets == 0 {
            "was encrypted without labels; encrypt it again without --unlabelled".to_owned()
        } else {
            continue;
        };
        return Err(Failure::new(Exit::BadFile, message).during(path.display()));
    }
    common.ok_or_else(|| Failure::new(Exit::BadFile, "no batches"))
}

/// The file of batch number `index` in a folder.
pub(crate) fn file_of(folder: &Path, index: usize) -> PathBuf {
    folder.join(format!("{}{index:05}.{}", NAME.0, NAME.1))
}

/// The batches that a path names: a file, or all of a folder in their order.
///
/// # Errors
/// A folder without any.
pub(crate) fn files_in(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    numbered(path, NAME)
}

/// Files of a folder that begin and end alike, sorted; a file as it is.
pub(crate) fn numbered(path: &Path, (begin, end): (&str, &str)) -> Result<Vec<PathBuf>, Failure> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).in_file(path)? {
        let name = entry.in_file(path)?.file_name().to_string_lossy().into_owned();
        if name.starts_with(begin) && name.ends_with(&format!(".{end}")) {
            files.push(path.join(name));
        }
    }
    files.sort();
    if files.is_empty() {
        let message = format!("no files called {begin}….{end} in it");
        return Err(Failure::new(Exit::BadFile, message).during(path.display()));
    }
    Ok(files)
}

/// Encrypts batches.
pub(crate) struct Sealer<'s> {
    rings: &'s Rings,
    work: &'s Work,
    places: BatchPlaces,
    size: usize,
}

impl<'s> Sealer<'s> {
    /// Of `size` sentences each.
    ///
    /// # Errors
    /// Usage for a size that does not fit.
    pub(crate) fn new(rings: &'s Rings, work: &'s Work, size: usize) -> Result<Self, Failure> {
        Ok(Self { rings, work, places: work.places(rings, size)?, size })
    }

    /// Encrypts at most `size` sentences, of which `first` is the number of the first; with their labels where
    /// `labelled`.
    ///
    /// # Errors
    /// No sentence or too many; a label that the model has no output for.
    pub(crate) fn seal(
        &self,
        client: &mut Client<'_>,
        key: &PublicKey<Multicore>,
        first: usize,
        sentences: &[Sentence],
        labelled: bool,
    ) -> Result<Batch<Multicore>, Failure> {
        if sentences.is_empty() || sentences.len() > self.size {
            let message = format!("{} sentences for a batch of {}", sentences.len(), self.size);
            return Err(Failure::new(Exit::Usage, message));
        }
        let (work, places) = (self.work, &self.places);
        let config = &work.config;
        let mut plain = PlainExecutor::new(config, &work.weights, Functions::Exact);
        let embedded = sentences
            .iter()
            .map(|s| embed(&mut plain, config, &work.weights, &s.example.sequence.tokens))
            .collect::<Result<Vec<_>, _>>()?;
        let at = |place: usize| place % sentences.len();
        let entry = |place: usize, row: usize, column: usize| embedded[at(place)].row(column)[row];
        let level = self.rings.coefficient_level();
        let mut input = Vec::new();
        for coefficients in client::coefficients(&places.input, places.input_scale, entry)? {
            input.push(client.encrypt_coefficients(key, &coefficients, level)?);
        }
        let counts = |place: usize, token: usize| token < sentences[at(place)].example.sequence.used;
        let mut mask = Vec::new();
        for slots in client::mask(&places.mask, config.heads, counts) {
            mask.push(client.encrypt(key, &slots, self.rings.slot_level())?);
        }
        let mut target = Vec::new();
        if labelled {
            let wanted = sentences.iter().map(|s| self.wanted(s)).collect::<Result<Vec<_>, _>>()?;
            let entry = |_: usize, class: usize, place: usize| match place < self.size {
                true => wanted[at(place)][class],
                false => 0.0,
            };
            for coefficients in client::coefficients(&places.target, places.target_scale, entry)? {
                target.push(client.encrypt_coefficients(key, &coefficients, level)?);
            }
        }
        Ok(Batch { first, sentences: sentences.len(), size: self.size, input, mask, target })
    }

    /// Limbs that a batch takes.
    pub(crate) fn limbs(&self) -> usize {
        let BatchPlaces { input, mask, target, .. } = &self.places;
        let coefficients =
            (input.ciphertexts() + target.ciphertexts()) * (self.rings.coefficient_level() + 1);
        2 * (coefficients + mask.ciphertexts() * (self.rings.slot_level() + 1))
    }

    /// Refuses early what [`Sealer::seal`] would refuse, before anything is written.
    pub(crate) fn check_labels(&self, sentences: &[Sentence]) -> Result<(), Failure> {
        sentences.iter().try_for_each(|sentence| self.wanted(sentence).map(drop))
    }

    /// What the outputs of a sentence should be: 1 for its class, or its score.
    fn wanted(&self, sentence: &Sentence) -> Result<Vec<f64>, Failure> {
        let classes = self.work.config.classes;
        let refuse = |what: String| {
            let message = format!("{:?}: {what}", crate::output::shorten(&sentence.shown(), 44));
            Failure::new(Exit::Usage, message)
        };
        let label = sentence.label.ok_or_else(|| refuse("has no label; pass --unlabelled".into()))?;
        if self.work.config.loss == Loss::SquaredError {
            return Ok(vec![f64::from(label)]);
        }
        if label < 0.0 || label.fract() != 0.0 || label as usize >= classes {
            return Err(refuse(format!("label {label}, the model has classes 0 to {}", classes - 1)));
        }
        Ok((0..classes).map(|class| f64::from(u8::from(class == label as usize))).collect())
    }
}
