//! Text to word pieces, at the client: lower-cased WordPiece with a vocabulary trimmed to a model's training data.

use std::collections::{HashMap, HashSet};

use rayon::prelude::*;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::bert::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;

/// The pieces every vocabulary starts with, in this order: padding, unknown, first token, separator.
pub const SPECIAL: [&str; 4] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"];
/// Fills a sequence up.
pub const PAD: u32 = 0;
/// A piece that is not in the vocabulary.
pub const UNKNOWN: u32 = 1;
/// Token 0 of every sequence: the one the head reads.
pub const FIRST: u32 = 2;
/// Between two sentences.
pub const SEPARATOR: u32 = 3;

/// A vocabulary that cannot be used, or a text that cannot be split.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The first lines are not the special pieces.
    #[error(
        "vocabulary line {line} is {found:?}, expected {expected:?}: use the vocab.txt that came with the model"
    )]
    Special {
        /// Counted from 1.
        line: usize,
        /// What is there.
        found: String,
        /// What should be.
        expected: &'static str,
    },
    /// A piece occurs twice.
    #[error("vocabulary line {line} repeats {piece:?}")]
    Duplicate {
        /// Counted from 1.
        line: usize,
        /// The piece.
        piece: String,
    },
    /// The tokenizer refused.
    #[error("tokenizer: {0}")]
    Inner(String),
}

/// A sequence of exactly T tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    /// Piece numbers, padded with [`PAD`].
    pub tokens: Vec<u32>,
    /// How many are not padding.
    pub used: usize,
    /// Whether the text was longer and lost its end.
    pub truncated: bool,
}

impl Sequence {
    /// 1 for a token, 0 for padding.
    pub fn mask(&self) -> impl Iterator<Item = f64> + use<> {
        let used = self.used;
        (0..self.tokens.len()).map(move |i| f64::from(u8::from(i < used)))
    }
}

/// WordPiece over a given vocabulary.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    vocabulary: Vec<String>,
}

impl Tokenizer {
    /// From the text of a vocab.txt: one piece per line, the [`SPECIAL`] ones first.
    pub fn from_vocabulary(text: &str) -> Result<Self, TokenizerError> {
        Self::new(text.lines().map(str::to_owned).collect())
    }

    fn new(vocabulary: Vec<String>) -> Result<Self, TokenizerError> {
        for (i, expected) in SPECIAL.into_iter().enumerate() {
            let found = vocabulary.get(i).map_or("", String::as_str);
            if found != expected {
                return Err(TokenizerError::Special { line: i + 1, found: found.to_owned(), expected });
            }
        }
        let inner = word_piece(&vocabulary)?;
        Ok(Self { inner, vocabulary })
    }

    /// From a full WordPiece vocabulary, the pieces that occur at least `least` times in the texts, in its order.
    pub fn trimmed<'t>(
        full: &str,
        texts: impl Iterator<Item = &'t str>,
        least: usize,
    ) -> Result<Self, TokenizerError> {
        let pieces: Vec<&str> = full.lines().collect();
        let whole = word_piece(&pieces)?;
        let mut counts: HashMap<u32, usize> = HashMap::new();
        for text in texts {
            for &id in encode_pieces(&whole, text)?.get_ids() {
                *counts.entry(id).or_default() += 1;
            }
        }
        let kept = (0u32..).zip(&pieces).filter(|(id, piece)| {
            !SPECIAL.contains(piece) && counts.get(id).is_some_and(|&count| count >= least)
        });
        Self::new(SPECIAL.into_iter().chain(kept.map(|(_, &piece)| piece)).map(str::to_owned).collect())
    }

    /// From a full WordPiece vocabulary, in its order: the [`SPECIAL`] pieces, those `always` kept, single letters and
    /// digits with their continuations (so that every other word can be spelt), and of the rest the ones that occur most
    /// often in the texts, `count` pieces in all. Of pieces that occur equally often the earlier is kept.
    pub fn most_frequent(
        full: &str,
        texts: &[&str],
        always: &[&str],
        count: usize,
    ) -> Result<Self, TokenizerError> {
        let pieces: Vec<&str> = full.lines().collect();
        let whole = word_piece(&pieces)?;
        let counts = texts
            .par_chunks(4096)
            .map(|texts| {
                let mut counts = vec![0u64; pieces.len()];
                for text in texts {
                    for &id in encode_pieces(&whole, text)?.get_ids() {
                        counts[id as usize] += 1;
                    }
                }
                Ok(counts)
            })
            .try_reduce(
                || vec![0; pieces.len()],
                |mut a, b| {
                    a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
                    Ok(a)
                },
            )?;
        let spells = |piece: &str| {
            let mut characters = piece.strip_prefix("##").unwrap_or(piece).chars();
            characters.next().is_some_and(|c| c.is_ascii_alphanumeric()) && characters.next().is_none()
        };
        let rank = |i: usize| {
            let piece = pieces[i];
            let kept = SPECIAL.contains(&piece) || always.contains(&piece) || spells(piece);
            (!kept, std::cmp::Reverse(counts[i]), i)
        };
        let mut order: Vec<usize> = (0..pieces.len()).collect();
        order.sort_unstable_by_key(|&i| rank(i));
        order.truncate(count);
        order.sort_unstable();
        let rest = order.into_iter().map(|i| pieces[i]).filter(|piece| !SPECIAL.contains(piece));
        Self::new(SPECIAL.into_iter().chain(rest).map(str::to_owned).collect())
    }

    /// The number of a piece.
    pub fn piece(&self, piece: &str) -> Option<u32> {
        self.inner.token_to_id(piece)
    }

    /// The pieces of a text, with nothing added or cut.
    pub fn pieces(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        Ok(encode_pieces(&self.inner, text)?.get_ids().to_vec())
    }

    /// The pieces, in order.
    pub fn vocabulary(&self) -> &[String] {
        &self.vocabulary
    }

    /// `[CLS] text` or `[CLS] text [SEP] second`, cut or padded to `length` tokens.
    pub fn encode(
        &self,
        text: &str,
        second: Option<&str>,
        length: usize,
    ) -> Result<Sequence, TokenizerError> {
        let mut tokens = vec![FIRST];
        tokens.extend_from_slice(encode_pieces(&self.inner, text)?.get_ids());
        if let Some(second) = second {
            tokens.push(SEPARATOR);
            tokens.extend_from_slice(encode_pieces(&self.inner, second)?.get_ids());
        }
        let truncated = tokens.len() > length;
        let used = tokens.len().min(length);
        tokens.resize(length, PAD);
        Ok(Sequence { tokens, used, truncated })
    }
}

fn word_piece<S: AsRef<str>>(pieces: &[S]) -> Result<tokenizers::Tokenizer, TokenizerError> {
    let inner = |e: tokenizers::Error| TokenizerError::Inner(e.to_string());
    let mut text = String::new();
    let mut seen = HashSet::new();
    for (i, piece) in pieces.iter().map(AsRef::as_ref).enumerate() {
        if !seen.insert(piece) {
            return Err(TokenizerError::Duplicate { line: i + 1, piece: piece.to_owned() });
        }
        text.push_str(piece);
        text.push('\n');
    }
    let vocabulary = WordPiece::read_bytes(text.as_bytes()).map_err(inner)?;
    let model =
        WordPiece::builder().vocab(vocabulary).unk_token("[UNK]".to_owned()).build().map_err(inner)?;
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    tokenizer.with_normalizer(Some(BertNormalizer::new(true, true, None, true)));
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    Ok(tokenizer)
}

fn encode_pieces(
    tokenizer: &tokenizers::Tokenizer,
    text: &str,
) -> Result<tokenizers::Encoding, TokenizerError> {
    tokenizer.encode(text, false).map_err(|e| TokenizerError::Inner(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = "[PAD]\n[unused0]\n[UNK]\n[CLS]\n[SEP]\na\ngood\nfilm\n##s\n.\nnever";

    #[test]
    fn trims_encodes_cuts_and_pads() {
        let t = Tokenizer::trimmed(FULL, ["A good film.", "Films!"].into_iter(), 1).unwrap();
        assert_eq!(t.vocabulary()[4..], ["a", "good", "film", "##s", "."].map(str::to_owned));
        let s = t.encode("Good FILMS xyz", None, 6).unwrap();
        assert_eq!(s, Sequence { tokens: vec![FIRST, 5, 6, 7, UNKNOWN, PAD], used: 5, truncated: false });
        assert_eq!(s.mask().sum::<f64>(), 5.0);
        let s = t.encode("a", Some("film a film"), 4).unwrap();
        assert_eq!((s.tokens, s.truncated), (vec![FIRST, 4, SEPARATOR, 6], true));
    }

    #[test]
    fn keeps_the_most_frequent_pieces_and_the_letters() {
        let texts = ["good film. good films", "never"];
        let t = Tokenizer::most_frequent(FULL, &texts, &["never"], 9).unwrap();
        assert_eq!(t.vocabulary()[4..], ["a", "good", "film", "##s", "never"].map(str::to_owned));
        assert_eq!(t.pieces("films!").unwrap(), [6, 7, UNKNOWN]);
        assert_eq!((t.piece("never"), t.piece(".")), (Some(8), None));
    }

    #[test]
    fn a_wrong_vocabulary_is_refused() {
        assert!(matches!(Tokenizer::from_vocabulary("a\nb"), Err(TokenizerError::Special { line: 1, .. })));
        let twice = "[PAD]\n[UNK]\n[CLS]\n[SEP]\na\na";
        assert!(matches!(Tokenizer::from_vocabulary(twice), Err(TokenizerError::Duplicate { line: 6, .. })));
    }
}
