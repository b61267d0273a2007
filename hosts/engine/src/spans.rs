//! Where the vectors of encrypted weights lie.

use crate::whole::{blocks, is_whole};
use crate::{Error, Places};
use veilformer::transformer::{Config, Parameter, Shape, Trainable};

/// The vectors of one trained matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The matrix.
    pub parameter: Parameter,
    /// The place of its first vector.
    pub first: usize,
    /// Vectors.
    pub count: usize,
    /// Entries of each.
    pub length: usize,
    /// Which entry of a whole row of the matrix is the first.
    pub offset: usize,
}

impl Span {
    /// Whether vectors are rows of the matrix, not columns.
    fn by_rows(&self) -> bool {
        matches!(self.parameter, Parameter::LoraUp(..)) || is_whole(self.parameter)
    }

    /// (row, column) of the matrix that is entry `index` of vector `vector`.
    pub fn entry(&self, vector: usize, index: usize) -> (usize, usize) {
        if self.by_rows() { (vector, self.offset + index) } else { (index, vector) }
    }
}

/// Where the vectors of all trained matrices lie.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainedPlaces {
    places: Places,
    spans: Vec<Span>,
    columns: usize,
}

impl TrainedPlaces {
    /// Of LoRA's factors and the head, of a model whose tensors have such places as `tokens`.
    ///
    /// # Errors
    /// Those of [`Places::new`].
    pub fn new(config: &Config, tokens: &Places) -> Result<Self, Error> {
        Self::of(config, Trainable::Adapters, tokens)
    }

    /// Of a set of trained weights.
    ///
    /// # Errors
    /// Those of [`Places::new`].
    pub fn of(config: &Config, set: Trainable, tokens: &Places) -> Result<Self, Error> {
        let columns = tokens.layout().columns();
        let (mut spans, mut next, mut longest): (Vec<Span>, usize, usize) = (Vec::new(), 0, 1);
        for parameter in set.parameters(config) {
            if is_whole(parameter) {
                let count = parameter.shape(config).rows;
                for block in blocks(parameter, config, tokens.layout().rank()) {
                    next = next.next_multiple_of(columns);
                    longest = longest.max(block.len());
                    let (length, offset) = (block.len(), block.start);
                    spans.push(Span { parameter, first: next, count, length, offset });
                    next += count;
                }
                continue;
            }
            let Shape { rows, columns: outputs } = parameter.shape(config);
            let by_rows = matches!(parameter, Parameter::LoraUp(..));
            let (count, length) = if by_rows { (rows, outputs) } else { (outputs, rows) };
            // Vectors in one matrix are as long as each other, and those of the head come in whole matrices.
            let thin = matches!(parameter, Parameter::LoraDown(..) | Parameter::LoraUp(..));
            if !thin || spans.last().is_some_and(|last| last.length != length) {
                next = next.next_multiple_of(columns);
            }
            spans.push(Span { parameter, first: next, count, length, offset: 0 });
            next += count;
            longest = longest.max(length);
        }
        let places = Places::new(tokens.degrees(), next.div_ceil(columns).max(1), longest, columns)?;
        Ok(Self { places, spans, columns })
    }

    /// The places of the whole, a matrix for as many vectors as there are tokens.
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// The matrices.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// (ciphertext, upper vector, slot) of entry `index` of a matrix's vector.
    pub fn slot(&self, span: &Span, vector: usize, index: usize) -> (usize, bool, usize) {
        let (group, column) = self.at(span.first + vector);
        self.places.slot((group, index, column))
    }

    /// (matrix of the tensor, column) of a vector.
    pub(crate) fn at(&self, vector: usize) -> (usize, usize) {
        (vector / self.columns, vector % self.columns)
    }

    /// Vectors of one matrix of the tensor.
    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    pub(crate) fn span(&self, parameter: Parameter) -> Option<&Span> {
        self.spans.iter().find(|span| span.parameter == parameter)
    }

    /// The parameter, row and column of what is in a slot.
    pub fn weight(&self, ciphertext: usize, upper: bool, slot: usize) -> Option<(Parameter, usize, usize)> {
        let (group, index, column) = self.places.at(ciphertext, upper, slot)?;
        let vector = group * self.columns + column;
        let span = self.spans.iter().find(|span| (span.first..span.first + span.count).contains(&vector))?;
        let (row, column) = span.entry(vector - span.first, index);
        (index < span.length).then_some((span.parameter, row, column))
    }
}
