//! Where an entry of a tensor lies: in which ciphertext of the small ring, and in which slot once those are together
//! in the big ring.
//!
//! A tensor is one matrix for every sentence, rows = features, columns = tokens, in pieces (ciphertexts of the small
//! ring) of k rows. f pieces make one ciphertext of the big ring: coefficient i + f·a of it is coefficient a of piece i.
//! After a bootstrap that coefficient is slot brv of its number, the upper half of them in a vector of its own. So the
//! rows of a sentence are scattered over the upper bits of a slot's number, and its columns are in the lower ones.

use crate::Error;
use veilformer::matrix::Layout;
use veilformer::ring::bit_reverse;

/// The two rings, as far as places go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Degrees {
    /// N.
    pub big: usize,
    /// N'.
    pub small: usize,
}

impl Degrees {
    /// f: pieces to a ciphertext of the big ring.
    pub fn factor(self) -> usize {
        self.big / self.small
    }

    /// Slots of a vector.
    pub fn slots(self) -> usize {
        self.big / 2
    }

    /// That sequences of so many tokens fill the columns of a packed matrix: products of two encrypted matrices take
    /// whole ones.
    ///
    /// # Errors
    /// [`Error::Tokens`]; those of [`Layout::new`].
    pub fn check_length(self, length: usize) -> Result<(), Error> {
        let least = self.small / Layout::new(self.small, 1, length)?.rank();
        if length == least { Ok(()) } else { Err(Error::Tokens { length, least }) }
    }
}

/// Sentence, row, column.
pub type Place = (usize, usize, usize);

/// The places of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places {
    degrees: Degrees,
    layout: Layout,
    sentences: usize,
    used: usize,
    /// Pieces of a sentence that lie together; those that follow are in ciphertexts after those of all sentences.
    block: Option<usize>,
}

impl Places {
    /// `sentences` matrices of `rows` by `columns`.
    ///
    /// # Errors
    /// Those of [`Layout::new`].
    pub fn new(degrees: Degrees, sentences: usize, rows: usize, columns: usize) -> Result<Self, Error> {
        let layout = Layout::new(degrees.small, rows, columns)?;
        Ok(Self { degrees, layout, sentences, used: columns, block: None })
    }

    /// The same columns with other rows.
    ///
    /// # Errors
    /// Those of [`Layout::with_rows`].
    pub fn with_rows(&self, rows: usize) -> Result<Self, Error> {
        Ok(Self { layout: self.layout.with_rows(rows)?, block: None, ..*self })
    }

    /// The same columns with other rows, as many of which lie together as these are, where these are: what a product of the
    /// slots with weights gives, block by block.
    ///
    /// # Errors
    /// Those of [`Layout::with_rows`].
    pub fn with_blocks(&self, rows: usize) -> Result<Self, Error> {
        Ok(Self { block: Some(self.together()), ..self.with_rows(rows)? })
    }

    /// The same with only the first `used` columns holding anything.
    #[must_use]
    pub fn with_used(&self, used: usize) -> Self {
        Self { used: used.min(self.layout.columns()), ..*self }
    }

    /// Columns that hold anything.
    pub fn used(&self) -> usize {
        self.used
    }

    /// The layout of one sentence.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The rings.
    pub fn degrees(&self) -> Degrees {
        self.degrees
    }

    /// Matrices.
    pub fn sentences(&self) -> usize {
        self.sentences
    }

    /// Pieces of one sentence that lie together.
    fn together(&self) -> usize {
        self.block.unwrap_or(self.layout.ciphertexts())
    }

    /// Places for them, a power of two or a multiple of f: no sentence is torn apart.
    fn stride(&self) -> usize {
        let (pieces, factor) = (self.together(), self.degrees.factor());
        if pieces >= factor { pieces.next_multiple_of(factor) } else { pieces.next_power_of_two() }
    }

    /// Blocks of pieces that lie together.
    pub fn blocks(&self) -> usize {
        self.layout.ciphertexts().div_ceil(self.together())
    }

    /// Ciphertexts of the big ring for one block of all sentences.
    fn ciphertexts_of_block(&self) -> usize {
        (self.sentences * self.stride()).div_ceil(self.degrees.factor())
    }

    /// Ciphertexts of the big ring.
    pub fn ciphertexts(&self) -> usize {
        self.blocks() * self.ciphertexts_of_block()
    }

    /// Ciphertexts of the big ring that one sentence spreads over.
    pub fn ciphertexts_of_one(&self) -> usize {
        self.blocks() * self.stride().div_ceil(self.degrees.factor())
    }

    /// The bits of a slot's number that tell the rows of a sentence apart, where all of them are in one ciphertext and
    /// fill their places there: the first and how many.
    pub fn row_bits(&self) -> Option<(u32, u32)> {
        let (stride, factor) = (self.stride(), self.degrees.factor());
        // Several pieces of several sentences have the sentences between two parts of a row's number.
        let by_themselves = self.blocks() == 1 && (stride == 1 || stride == factor);
        if !by_themselves || self.layout.rows() != stride * self.layout.rank() {
            return None;
        }
        // Below them the columns of one half, above them the sentences.
        let count = stride.trailing_zeros() + self.layout.log_rank();
        Some((
            self.degrees.slots().trailing_zeros() - factor.trailing_zeros() - self.layout.log_rank(),
            count,
        ))
    }

    /// Whether any column lies in the upper half of the coefficients, and so in the second vector of a ciphertext.
    pub fn has_upper_half(&self) -> bool {
        2 * self.used > self.degrees.small / self.layout.rank()
    }

    /// (ciphertext of the big ring, place in it) of a piece.
    pub fn of_piece(&self, sentence: usize, piece: usize) -> (usize, usize) {
        let (block, piece) = (piece / self.together(), piece % self.together());
        let (at, factor) = (sentence * self.stride() + piece, self.degrees.factor());
        (block * self.ciphertexts_of_block() + at / factor, at % factor)
    }

    /// (sentence, piece) at a place in a ciphertext of the big ring, if there is one.
    pub fn piece_at(&self, ciphertext: usize, place: usize) -> Option<(usize, usize)> {
        let (of_block, together) = (self.ciphertexts_of_block(), self.together());
        let at = ciphertext % of_block * self.degrees.factor() + place;
        let (sentence, inner) = (at / self.stride(), at % self.stride());
        let piece = ciphertext / of_block * together + inner;
        let exists = sentence < self.sentences && inner < together && piece < self.layout.ciphertexts();
        exists.then_some((sentence, piece))
    }

    /// What is in a slot of a ciphertext's lower or upper vector.
    pub fn at(&self, ciphertext: usize, upper: bool, slot: usize) -> Option<Place> {
        let (slots, factor) = (self.degrees.slots(), self.degrees.factor());
        let coefficient = bit_reverse(slot, slots.trailing_zeros()) + if upper { slots } else { 0 };
        let (sentence, piece) = self.piece_at(ciphertext, coefficient % factor)?;
        let (rank, inner) = (self.layout.rank(), coefficient / factor);
        let (row, column) = (piece * rank + inner % rank, inner / rank);
        (row < self.layout.rows() && column < self.used).then_some((sentence, row, column))
    }

    /// (ciphertext, upper vector, slot) of an entry.
    pub fn slot(&self, (sentence, row, column): Place) -> (usize, bool, usize) {
        let (piece, inner) = self.layout.position(row, column);
        let (ciphertext, place) = self.of_piece(sentence, piece);
        let (coefficient, slots) = (place + self.degrees.factor() * inner, self.degrees.slots());
        let slot = bit_reverse(coefficient % slots, slots.trailing_zeros());
        (ciphertext, coefficient >= slots, slot)
    }

    /// How the rows of a sentence are added up in its slots.
    pub fn rows_in_slots(&self) -> RowSum {
        let slots = self.degrees.slots();
        let log_factor = self.degrees.factor().trailing_zeros();
        // Bit b of a coefficient's number is worth this many slots.
        let stride = |bit: u32| slots >> (bit + 1);
        let outer = self.stride().min(self.degrees.factor()).trailing_zeros();
        let inner = log_factor..log_factor + self.layout.log_rank();
        let whole = outer == log_factor;
        let all = (0..outer).chain(inner.clone());
        RowSum {
            cyclic: all.clone().filter(|bit| whole || *bit < outer).map(stride).collect(),
            bounded: all.filter(|bit| !whole && *bit >= outer).map(stride).collect(),
        }
    }

    /// The turn for every bit of a row's number below that of `count` rows, a power of two: from the slot of a row without
    /// the bit to that of the row with it, in the same ciphertext.
    pub fn row_turns(&self, count: usize) -> Vec<usize> {
        let (log_factor, log_rank) = (self.degrees.factor().trailing_zeros(), self.layout.log_rank());
        let coefficient = |bit: u32| if bit < log_rank { log_factor + bit } else { bit - log_rank };
        (0..count.trailing_zeros()).map(|bit| self.degrees.slots() >> (coefficient(bit) + 1)).collect()
    }

    /// Turns between the slots that hold the same row: one for every bit that tells columns of one half or sentences of
    /// one ciphertext apart.
    pub fn spread_turns(&self) -> Vec<usize> {
        let slots = self.degrees.slots();
        let log_factor = self.degrees.factor().trailing_zeros();
        let outer = self.stride().min(self.degrees.factor()).trailing_zeros();
        let columns = log_factor + self.layout.log_rank();
        (outer..log_factor).chain(columns..slots.trailing_zeros()).map(|bit| slots >> (bit + 1)).collect()
    }
}

/// Turns that add up the rows of a sentence.
///
/// Rows in the uppermost bits of a slot's number are added up cyclically, and every row then has the sum. Below them
/// sentences would run into each other: there only the slot of the first row has the sum, from which it is spread again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowSum {
    /// Turns after which all rows have the sum.
    pub cyclic: Vec<usize>,
    /// Turns after which the first row has it.
    pub bounded: Vec<usize>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEGREES: Degrees = Degrees { big: 1 << 12, small: 1 << 9 };

    #[test]
    fn slots_and_places_are_inverse() {
        // Less than a piece's rows, several pieces to a sentence, several ciphertexts to a sentence.
        for (sentences, rows, columns) in [(3, 5, 8), (5, 32, 16), (2, 40, 16), (3, 300, 32), (1, 700, 16)] {
            let used = columns - columns / 3;
            let places = Places::new(DEGREES, sentences, rows, columns).unwrap().with_used(used);
            let mut seen = 0;
            for ciphertext in 0..places.ciphertexts() {
                for (upper, slot) in (0..2 * DEGREES.slots()).map(|i| (i % 2 == 1, i / 2)) {
                    if let Some(place) = places.at(ciphertext, upper, slot) {
                        assert_eq!(places.slot(place), (ciphertext, upper, slot));
                        assert!(places.has_upper_half() || !upper);
                        seen += 1;
                    }
                }
            }
            assert_eq!(seen, sentences * rows * used);
        }
    }

    #[test]
    fn blocks_of_rows_lie_where_the_first_do() {
        // Three sentences of two pieces each; several ciphertexts to a sentence; a last block that is not full.
        for (sentences, rows, columns, more) in [(3, 64, 16, 256), (2, 300, 32, 900), (5, 32, 16, 80)] {
            let places = Places::new(DEGREES, sentences, rows, columns).unwrap();
            let blocked = places.with_blocks(more).unwrap();
            let (blocks, count) = (blocked.blocks(), places.ciphertexts());
            assert_eq!(
                (blocks * count, more.div_ceil(blocked.together() * blocked.layout().rank())),
                (blocked.ciphertexts(), blocks)
            );
            let mut seen = 0;
            for ciphertext in 0..blocked.ciphertexts() {
                for (upper, slot) in (0..2 * DEGREES.slots()).map(|i| (i % 2 == 1, i / 2)) {
                    let Some((sentence, row, column)) = blocked.at(ciphertext, upper, slot) else { continue };
                    assert_eq!(blocked.slot((sentence, row, column)), (ciphertext, upper, slot));
                    if row < rows {
                        assert_eq!(places.slot((sentence, row, column)), (ciphertext, upper, slot));
                    }
                    seen += 1;
                }
            }
            assert_eq!(seen, sentences * more * columns);
        }
    }

    #[test]
    fn rows_have_bits_of_their_own() {
        for (sentences, rows, columns) in [(3, 32, 16), (9, 16, 32), (9, 128, 32), (1, 256, 16)] {
            let places = Places::new(DEGREES, sentences, rows, columns).unwrap();
            let (first, count) = places.row_bits().unwrap();
            assert_eq!(1 << count, rows);
            let mask = (rows - 1) << first;
            for ciphertext in 0..places.ciphertexts() {
                for slot in 0..DEGREES.slots() {
                    let Some((sentence, row, column)) = places.at(ciphertext, false, slot) else { continue };
                    // The row is in these bits, sentence and column are in the others.
                    assert_eq!(places.at(0, false, slot & mask).unwrap().1, row);
                    let first = places.at(ciphertext, false, slot & !mask).unwrap();
                    assert_eq!((first.0, first.2), (sentence, column));
                }
            }
        }
        for (rows, columns) in [(64, 16), (300, 16), (24, 16), (512, 16)] {
            assert_eq!(Places::new(DEGREES, 1, rows, columns).unwrap().row_bits(), None);
        }
    }

    #[test]
    fn turns_of_rows() {
        // Heads in one piece, and over several.
        for (rows, columns, count) in [(32, 16, 16), (64, 16, 64), (256, 32, 64)] {
            let places = Places::new(DEGREES, 2, rows, columns).unwrap();
            for (bit, turn) in places.row_turns(count).into_iter().enumerate() {
                for row in (0..rows).filter(|row| row & (1 << bit) == 0) {
                    let (ciphertext, upper, slot) = places.slot((1, row, 3));
                    assert_eq!(places.slot((1, row | (1 << bit), 3)), (ciphertext, upper, slot + turn));
                }
            }
        }
    }

    #[test]
    fn sequences_fill_columns() {
        let degrees = Degrees { big: 1 << 16, small: 1 << 13 };
        for length in [64, 128, 256] {
            degrees.check_length(length).unwrap();
        }
        for (length, least) in [(16, 64), (63, 64), (100, 128)] {
            assert_eq!(degrees.check_length(length), Err(Error::Tokens { length, least }));
        }
    }

    #[test]
    fn sums_of_rows() {
        for (sentences, rows, columns) in [(3, 32, 16), (2, 64, 8), (3, 300, 16), (2, 512, 16)] {
            let places = Places::new(DEGREES, sentences, rows, columns).unwrap();
            let value = |place: Place| ((place.0 * 31 + place.1 * 7 + place.2 * 3) % 11) as f64;
            let sum = |(s, _, c): Place| (0..rows).map(|r| value((s, r, c))).sum::<f64>();
            let turns = places.rows_in_slots();
            let slots = DEGREES.slots();
            for upper in [false, true] {
                let vector = |ciphertext: usize| -> Vec<f64> {
                    (0..slots).map(|j| places.at(ciphertext, upper, j).map_or(0.0, value)).collect()
                };
                let together = places.ciphertexts_of_one();
                for first in (0..places.ciphertexts()).step_by(together) {
                    let mut x = vec![0.0; slots];
                    for ciphertext in first..first + together {
                        x.iter_mut().zip(vector(ciphertext)).for_each(|(x, y)| *x += y);
                    }
                    for &turn in turns.cyclic.iter().chain(&turns.bounded) {
                        x = (0..slots).map(|j| x[j] + x[(j + turn) % slots]).collect();
                    }
                    for (slot, &x) in x.iter().enumerate() {
                        let Some(place) = places.at(first, upper, slot) else { continue };
                        if turns.bounded.is_empty() || place.1 % places.layout().rank() == 0 {
                            assert_eq!(x, sum(place), "{sentences} {rows} {columns}: {place:?}");
                        }
                    }
                }
            }
        }
    }
}
