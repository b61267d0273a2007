//! Text to pre-train on: the vocabulary it deserves, the stream of its pieces, and the segments a batch is made of.

use rayon::prelude::*;

use crate::pretrain::{Batch, PretrainError};
use crate::random::Random;
use crate::tokenizer::{FIRST, PAD, SEPARATOR, Sequence, Tokenizer};

/// The piece that stands for the one to be predicted; part of the full vocabulary.
pub const MASK: &str = "[MASK]";

/// Lines that are tokenised at once.
const LINES: usize = 4096;

/// The word pieces of every line, each line followed by [`SEPARATOR`]; blank lines leave nothing.
///
/// # Errors
/// [`PretrainError::Vocabulary`] where the vocabulary does not fit 16 bits, or what the tokenizer says.
pub fn stream(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u16>, PretrainError> {
    let pieces = tokenizer.vocabulary().len();
    let separator = SEPARATOR as u16;
    if u16::try_from(pieces).is_err() {
        return Err(PretrainError::Vocabulary { pieces });
    }
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let parts: Vec<Vec<u16>> = lines
        .par_chunks(LINES)
        .map(|lines| {
            let mut part = Vec::new();
            for line in lines {
                part.extend(tokenizer.pieces(line)?.into_iter().map(|token| token as u16));
                part.push(separator);
            }
            Ok(part)
        })
        .collect::<Result<_, PretrainError>>()?;
    Ok(parts.concat())
}

/// How many tokens a segment has at least before a line's end may end it.
const SHORTEST: usize = 8;
/// The chance that a line's end ends it.
const END_AT_LINE: f64 = 1.0 / 3.0;

/// Cuts a stream into segments that follow each other and cover it: each is at most `length` − 1 tokens, and ends early
/// at some ends of lines, so that short sentences, several sentences and padding all occur. (start, tokens) of each,
/// in random order; every `epoch` cuts and shuffles anew.
pub fn segments(stream: &[u16], length: usize, seed: u64, epoch: u64) -> Vec<(u32, u8)> {
    let mut random = Random::new(seed, 0x5e60_0000 + epoch);
    let most = length.saturating_sub(1).clamp(1, usize::from(u8::MAX));
    let mut out = Vec::new();
    let mut start = (random.next_u64() % most as u64) as usize;
    while start < stream.len() {
        let window = &stream[start..(start + most).min(stream.len())];
        let end = (0..window.len()).find(|&i| {
            i + 1 >= SHORTEST && u32::from(window[i]) == SEPARATOR && random.uniform() < END_AT_LINE
        });
        let taken = end.map_or(window.len(), |i| i + 1);
        out.push((start as u32, taken as u8));
        start += taken;
    }
    random.shuffle(&mut out);
    out
}

/// At most so many segments of a stream as sequences, nothing hidden: text to calibrate on.
pub fn sequences(stream: &[u16], length: usize, most: usize) -> Vec<Sequence> {
    let sequence = |&(start, taken): &(u32, u8)| {
        let mut tokens = vec![FIRST];
        tokens.extend(stream[start as usize..][..usize::from(taken)].iter().map(|&piece| u32::from(piece)));
        let used = tokens.len();
        tokens.resize(length, PAD);
        Sequence { tokens, used, truncated: false }
    };
    segments(stream, length, 0, 0).iter().take(most).map(sequence).collect()
}

/// How tokens are hidden.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Masking {
    /// Share of the tokens that must be predicted.
    pub share: f64,
    /// The number of the [`MASK`] piece.
    pub mask: u32,
    /// Number of pieces.
    pub vocabulary: u32,
    /// Pieces of a sequence, hidden or not, that its token 0 predicts.
    pub first: usize,
}

impl Masking {
    /// `[CLS]` and each segment, padded to `length`. Of the tokens to be predicted 80 % become [`MASK`], 10 % a random
    /// piece, and 10 % stay (Devlin et al. 2019). Token 0, which the head will read, predicts some of all pieces: this makes
    /// it gather what the sentence is about.
    pub fn batch(self, stream: &[u16], segments: &[(u32, u8)], length: usize, random: &mut Random) -> Batch {
        let mut batch = Batch::default();
        for &(start, taken) in segments {
            let first_row = batch.tokens.len();
            let pieces = &stream[start as usize..][..usize::from(taken)];
            // The separator at a segment's end says nothing.
            let end = pieces.len() - usize::from(pieces.last().is_some_and(|&p| u32::from(p) == SEPARATOR));
            batch.tokens.push(FIRST);
            batch.tokens.extend(pieces[..end].iter().map(|&p| u32::from(p)));
            let used = batch.tokens.len() - first_row;
            batch.used.push(used);
            batch.tokens.resize(first_row + length, PAD);
            let mut hidden = Vec::new();
            for row in first_row + 1..first_row + used {
                let token = batch.tokens[row];
                if token == SEPARATOR || random.uniform() >= self.share {
                    continue;
                }
                hidden.push((row, token));
                let kind = random.uniform();
                if kind < 0.8 {
                    batch.tokens[row] = self.mask;
                } else if kind < 0.9 {
                    batch.tokens[row] = (random.next_u64() % u64::from(self.vocabulary)) as u32;
                }
            }
            let words: Vec<u32> =
                pieces[..end].iter().map(|&p| u32::from(p)).filter(|&token| token != SEPARATOR).collect();
            if !words.is_empty() {
                let draw = |_| (first_row, words[(random.next_u64() % words.len() as u64) as usize]);
                batch.predictions.extend((0..self.first).map(draw));
            }
            batch.predictions.append(&mut hidden);
        }
        batch
    }
}
