//! A batch's logits as they travel back: one packed matrix of the small ring, a column for every sentence.
//!
//! ```text
//! parameters, record: fingerprint, first, sentences, size, scale, bound, pieces; then the pieces, in the small ring
//! ```
//!
//! What a polynomial makes of an argument outside its interval is no small error: it grows with the power of its
//! degree, and once it no longer fits the modulus it comes back as noise over all entries that were in a bootstrap
//! with it. The client sees that in the answer, where everything beside the logits has to be zero and no logit can be
//! larger than the weights behind tanh allow. It does not see an argument so little outside that the result still fits:
//! only the model in the clear shows that, for sentences that the client has.

use crate::batch::numbered;
use crate::commands::open_described;
use crate::exit::{Exit, Failure, InFile};
use crate::files::{NewFile, Readers};
use crate::rings::{Carrier, Rings};
use crate::work::Work;
use std::path::{Path, PathBuf};
use veilformer::accel::Accelerator;
use veilformer::ckks::Ciphertext;
use veilformer::ckks::client::KeyTag;
use veilformer::matrix::Layout;
use veilformer::wire::{write_parameters, write_record};
use veilformer_engine::{Algebra, Tensor};

/// What its record says it is.
pub(crate) const ANSWER: u64 = u64::from_be_bytes(*b"answer  ");
/// How files of answers begin and end.
const NAME: (&str, &str) = ("answer-", "vfa");

/// Most of the bound on logits that places beside them may hold: far above noise, far below what overflows.
const STRAY: f64 = 1.0 / 64.0;

/// An encrypted answer.
pub(crate) struct Answer<A: Accelerator> {
    /// The number of its first sentence among all that were encrypted together.
    pub(crate) first: usize,
    /// Sentences that count.
    pub(crate) sentences: usize,
    /// Places for sentences.
    pub(crate) size: usize,
    /// What a logit is multiplied by.
    pub(crate) scale: f64,
    /// The most a logit can be.
    pub(crate) bound: f64,
    /// Ciphertexts of the small ring.
    pub(crate) pieces: Vec<Ciphertext<A>>,
}

impl<A: Accelerator<Word = u64>> Answer<A> {
    /// The logits of a batch: of its first sentence, those that count, and its size.
    pub(crate) fn of<G: Algebra<Piece = Ciphertext<A>>>(
        logits: &Tensor<G>,
        [first, sentences, size]: [usize; 3],
        accelerator: &A,
    ) -> Result<Self, Failure> {
        let none = || Failure::new(Exit::Failure, "the model gave no logits");
        let matrix = logits.matrices().first().ok_or_else(none)?;
        let (scale, bound) = (matrix.entries.scale, matrix.entries.bound);
        // The engine shares pieces; an answer has its own.
        let pieces = matrix.pieces.iter().map(|piece| piece.duplicate(accelerator));
        let pieces = pieces.collect::<Result<_, _>>()?;
        Ok(Self { first, sentences, size, scale, bound, pieces })
    }

    /// Reads an answer for the key `owner` of the big ring; `carrier` is for the small one.
    ///
    /// # Errors
    /// Other parameters, another key, another work; whatever a writer of ours would not have written.
    pub(crate) fn read(
        path: &Path,
        work: &Work,
        rings: &Rings,
        owner: KeyTag,
        carrier: &mut Carrier<'_, A>,
    ) -> Result<Self, Failure> {
        let (mut reader, described) = open_described(path, &rings.big, Some(owner))?;
        let numbers = described.expect(ANSWER, "an answer from `infer`", work).in_file(path)?;
        let refuse = || {
            let message = "intact but malformed: its numbers are not those of an answer to this work";
            Failure::new(Exit::BadFile, message).during(path.display())
        };
        let [first, sentences, size, scale, bound, count] = numbers[..] else { return Err(refuse()) };
        let pieces = work.places(rings, size).map_err(|_| refuse())?.target.layout().ciphertexts();
        let [scale, bound] = [scale, bound].map(|bits| f64::from_bits(bits as u64));
        // Signed coefficients fit a bootstrap's message, and so the modulus.
        let room = 2.0 * rings.message_scale();
        let usable = scale >= 1.0 && bound > 0.0 && scale * bound <= room;
        if !(1..=size).contains(&sentences) || count != pieces || !usable {
            return Err(refuse());
        }
        let pieces = carrier.read(&mut reader, count).in_file(path)?;
        reader.finish().in_file(path)?;
        Ok(Self { first, sentences, size, scale, bound, pieces })
    }

    /// Writes an answer to a new file; returns its length.
    pub(crate) fn write(
        &self,
        path: &Path,
        work: &Work,
        rings: &Rings,
        owner: KeyTag,
        carrier: &mut Carrier<'_, A>,
        force: bool,
    ) -> Result<u64, Failure> {
        let mut file = NewFile::create(path, Readers::Anyone, force)?;
        let [first, sentences, size, count] =
            [self.first, self.sentences, self.size, self.pieces.len()].map(|n| n as u64);
        let [scale, bound] = [self.scale, self.bound].map(f64::to_bits);
        let numbers = [work.fingerprint, first, sentences, size, scale, bound, count];
        write_parameters(&mut file, &rings.big).in_file(path)?;
        write_record(&mut file, &rings.big, owner, ANSWER, &numbers).in_file(path)?;
        for piece in &self.pieces {
            carrier.write(&mut file, piece).in_file(path)?;
        }
        file.commit()
    }

    /// The logits in the decrypted coefficients of its pieces, and what became of the places that hold none.
    pub(crate) fn open(&self, layout: &Layout, pieces: &[Vec<f64>]) -> Opened {
        let mut opened = Opened { logits: vec![vec![0.0; layout.rows()]; self.size], stray: 0.0, reach: 0.0 };
        for (piece, coefficients) in pieces.iter().enumerate() {
            for (at, x) in coefficients.iter().map(|x| x / self.scale).enumerate() {
                let (row, column) = (piece * layout.rank() + at % layout.rank(), at / layout.rank());
                if row < layout.rows() && column < self.size {
                    opened.logits[column][row] = x;
                    opened.reach = opened.reach.max(x.abs() / self.bound);
                } else {
                    opened.stray = opened.stray.max(x.abs() / self.bound);
                }
            }
        }
        opened.logits.truncate(self.sentences);
        opened
    }
}

/// Decrypted logits.
pub(crate) struct Opened {
    /// Those of every sentence that counts.
    pub(crate) logits: Vec<Vec<f64>>,
    /// The largest value where there should be none, over the bound on logits.
    pub(crate) stray: f64,
    /// The largest logit over that bound.
    pub(crate) reach: f64,
}

impl Opened {
    /// Whether a value certainly left its polynomial's interval on the way; that none did does not follow from `false`.
    pub(crate) fn is_escaped(&self) -> bool {
        // Not a number is neither.
        !(self.stray <= STRAY && self.reach <= 1.0 + STRAY)
    }
}

/// The file of answer number `index` in a folder.
pub(crate) fn file_of(folder: &Path, index: usize) -> PathBuf {
    folder.join(format!("{}{index:05}.{}", NAME.0, NAME.1))
}

/// The answers that a path names: a file, or all of a folder in their order.
///
/// # Errors
/// A folder without any.
pub(crate) fn files_in(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    numbered(path, NAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_believed_within_its_bound_only() {
        let opened = |stray, reach| Opened { logits: Vec::new(), stray, reach };
        for (stray, reach, escaped) in [
            (0.0, 0.5, false),
            (0.9 * STRAY, 1.0, false),
            (1.1 * STRAY, 0.5, true),
            (0.0, 1.0 + 1.1 * STRAY, true),
            (f64::NAN, 0.5, true),
            (0.0, f64::INFINITY, true),
        ] {
            assert_eq!(opened(stray, reach).is_escaped(), escaped, "{stray}, {reach}");
        }
    }
}
