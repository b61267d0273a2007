//! Gradients of trained weights: summed over sentences and tokens, in the places that the weights have.

use crate::algebra::{Algebra, Halves, Matrix};
use crate::executor::Engine;
use crate::tensor::Slots;
use crate::{Error, Tensor};
use std::collections::HashMap;
use std::rc::Rc;
use veilformer::matrix::{Entries, Side};
use veilformer::transformer::slots::{Model, SlotArithmetic};
use veilformer::transformer::{Parameter, Site};

/// Gradients so far: for every matrix of the trained weights' tensor, pieces with only their own columns filled.
pub(crate) struct Gradients<P> {
    groups: HashMap<usize, Vec<Matrix<P>>>,
    /// What the gradient of a parameter is multiplied by.
    scales: HashMap<Parameter, f64>,
}

impl<P> Default for Gradients<P> {
    fn default() -> Self {
        Self { groups: HashMap::new(), scales: HashMap::new() }
    }
}

impl<P> Gradients<P> {
    /// Adds a matrix of a parameter's gradient, whose columns are where they belong.
    pub(crate) fn add(&mut self, weight: Parameter, group: usize, matrix: Matrix<P>) {
        self.scales.insert(weight, matrix.entries.scale);
        self.groups.entry(group).or_default().push(matrix);
    }
}

impl<G: Algebra, M: Model> Engine<'_, G, M> {
    /// The largest sum of a batch's gradients that there is room for.
    pub(crate) fn gradient_room(&self) -> Result<f64, Error> {
        Ok(self.gradient_bound(Site::Optimizer)? * self.sentences() as f64)
    }

    /// Adds xᵀ·dy to the gradient of a trained weight.
    pub(crate) fn add_gradient(
        &mut self,
        x: &Tensor<G>,
        dy: &Tensor<G>,
        weight: Parameter,
    ) -> Result<(), Error> {
        if self.is_whole(weight) {
            return self.add_whole_gradient(x, dy, weight);
        }
        let (group, column) = self.gradient_place(weight)?;
        let thin = matches!(weight, Parameter::LoraUp(..) | Parameter::LoraDown(..));
        let matrices = match weight {
            // Of B the vectors are rows: one for each row of what A gives.
            Parameter::LoraUp(..) => self.thin_gradient(dy, x)?,
            Parameter::LoraDown(..) => self.thin_gradient(x, dy)?,
            _ => self.wide_gradient(x, dy)?,
        };
        let wanted = self.algebra.rings().message_scale / self.gradient_room()?;
        for (i, mut matrix) in matrices.into_iter().enumerate() {
            if matrix.level > 0 {
                matrix = self.algebra.rescale(&matrix, wanted)?;
            }
            // One column after another, or one block of columns after another.
            let rank = matrix.entries.layout.rank();
            let columns = self.algebra.rings().degrees.small / rank;
            let column = if thin { column + i } else { column + i * columns.min(rank) };
            let (group, column) = (group + column / columns, column % columns);
            let shift = rank * column;
            let mut pieces = Vec::with_capacity(matrix.pieces.len());
            for piece in &matrix.pieces {
                pieces.push(Rc::new(self.algebra.add_shifted(&[(piece.clone(), shift)])?));
            }
            self.gradients.add(weight, group, Matrix { pieces, ..matrix });
        }
        Ok(())
    }

    /// (matrix, first column) of a trained weight's vectors.
    fn gradient_place(&self, weight: Parameter) -> Result<(usize, usize), Error> {
        let places = self.trained().map(|trained| &trained.places);
        let missing = Error::MissingWeights(weight);
        let places = places.ok_or(missing)?;
        Ok(places.at(places.span(weight).ok_or(missing)?.first))
    }

    /// A column for every row of `thin`: Σ over sentences of wide·(row of thin)ᵀ.
    fn thin_gradient(&mut self, wide: &Tensor<G>, thin: &Tensor<G>) -> Result<Vec<Matrix<G::Piece>>, Error> {
        let form = Error::Form { operation: "a gradient of LoRA" };
        let bound = self.gradient_room()?;
        let wide_level = wide.packed.first().ok_or(form)?.level;
        let thin = self.thin_rows(wide, thin, bound)?;
        let count = thin.first().map_or(0, Vec::len);
        let mut columns = Vec::with_capacity(count);
        for vector in 0..count {
            let mut sum: Option<Matrix<G::Piece>> = None;
            for (matrix, rows) in wide.packed.iter().zip(&thin) {
                let matrix = Matrix { level: wide_level, ..matrix.clone() };
                let product = Self::tempered(self.algebra.outer(&matrix, &rows[vector], bound)?);
                sum = Some(match sum {
                    None => product,
                    Some(sum) => self.algebra.add(&sum, &product)?,
                });
            }
            columns.push(self.first_column(&sum.ok_or(form)?)?);
        }
        Ok(columns)
    }

    /// The rows of a thin tensor at the level of a wide one; where no level is left behind the product, at the scale that
    /// the gradient is wanted at.
    fn thin_rows(
        &mut self,
        wide: &Tensor<G>,
        thin: &Tensor<G>,
        room: f64,
    ) -> Result<Vec<Vec<G::Row>>, Error> {
        let form = Error::Form { operation: "a gradient of LoRA" };
        let entries = wide.packed.first().ok_or(form)?;
        if entries.level > 1 {
            let rows = self.rows_of(thin, entries.level)?;
            return Rc::try_unwrap(rows).or_else(|rows| self.copies(&rows));
        }
        let rings = self.algebra.rings();
        let columns = (rings.degrees.small / wide.places.layout().rank()) as f64;
        let wanted = rings.message_scale / room / columns * rings.moduli[1] / entries.entries.scale;
        let mut all = Vec::with_capacity(thin.packed.len());
        for matrix in &thin.packed {
            let scaled = self.algebra.rescale(matrix, wanted)?;
            all.push(self.algebra.split(&Matrix { level: 1, ..scaled })?);
        }
        Ok(all)
    }

    fn copies(&mut self, rows: &[Vec<G::Row>]) -> Result<Vec<Vec<G::Row>>, Error> {
        rows.iter()
            .map(|rows| rows.iter().map(|row| self.algebra.total(std::slice::from_ref(row))).collect())
            .collect()
    }

    /// Column 0 of a matrix, with nothing in the others, at as many times the scale as there are columns.
    fn first_column(&mut self, x: &Matrix<G::Piece>) -> Result<Matrix<G::Piece>, Error> {
        let rows = self.algebra.split(x)?;
        let (mut pieces, mut known) = (Vec::new(), None);
        for rows in rows.chunks(x.entries.layout.rank()) {
            let columns = self.algebra.columns(rows, Side::Scatter)?;
            let first = columns.first().ok_or(Error::Form { operation: "a column" })?;
            let matrix = self.algebra.column_matrix(first)?;
            pieces.extend(matrix.pieces.iter().cloned());
            known = Some(matrix);
        }
        let known = known.ok_or(Error::Form { operation: "a column" })?;
        let entries = Entries { layout: x.entries.layout, ..known.entries };
        Ok(Matrix { entries, level: known.level, pieces })
    }

    /// The gradient of a matrix of the head: Σ_s (column s of x) ⊗ (row s of dyᵀ), as many columns at a time as fit.
    fn wide_gradient(&mut self, x: &Tensor<G>, dy: &Tensor<G>) -> Result<Vec<Matrix<G::Piece>>, Error> {
        let form = Error::Form { operation: "a gradient of the head" };
        let (x, dy) = (x.packed.first().ok_or(form)?, dy.packed.first().ok_or(form)?);
        let (sentences, bound) = (self.sentences(), self.gradient_room()?);
        let rank = x.entries.layout.rank();
        let columns = self.algebra.rings().degrees.small / rank;
        let level = x.level.min(dy.level);
        let rows = self.algebra.split(&Matrix { level, ..x.clone() })?;
        let mut of_x: Vec<Vec<G::Column>> = Vec::new();
        for rows in rows.chunks(rank) {
            of_x.push(self.algebra.columns(rows, Side::Scatter)?);
        }
        let of_dy = self.algebra.split(&Matrix { level, ..dy.clone() })?;
        let mut results = Vec::new();
        for block in of_dy.chunks(columns.min(rank)) {
            let turned = self.algebra.columns(block, Side::Gather)?;
            let (waiting, rows) = self.algebra.transposed_rows(&[turned], sentences)?;
            let (entries, piece) = self.algebra.pick(&waiting, rows)?;
            let rows = self.algebra.split(&Matrix { entries, level, pieces: vec![Rc::new(piece)] })?;
            let (mut pieces, mut known) = (Vec::new(), None);
            for of_piece in &of_x {
                let terms: Vec<_> = of_piece.iter().take(sentences).zip(&rows).collect();
                let product = self.algebra.scatter(&terms, bound)?;
                pieces.extend(product.pieces.iter().cloned());
                known = Some(product);
            }
            let known = known.ok_or(form)?;
            let entries = Entries { layout: x.entries.layout, ..known.entries };
            results.push(Matrix { entries, level: known.level, pieces });
        }
        Ok(results)
    }

    /// What a gradient's slots are multiplied by to give the mean gradient of a batch.
    ///
    /// # Errors
    /// [`Error::NoGradientBound`].
    pub fn gradient_unit(&self) -> Result<f64, Error> {
        self.gradient_bound(Site::Optimizer)
    }

    /// The slots of all gradients, in units of [`Engine::gradient_unit`]: lower and upper vectors of
    /// [`Engine::trained_places`].
    ///
    /// # Errors
    /// From the scheme.
    pub fn gradients(&mut self) -> Result<Vec<Halves<G::Vector>>, Error> {
        Ok(self.take_gradients()?.halves)
    }

    /// The gradients of all trained weights, summed over the batch since the last call: in the weights' own places, in units
    /// of the bound on a batch's mean gradient times the sentences.
    ///
    /// # Errors
    /// From the scheme; [`Error::MissingWeights`] where none are trained.
    pub(crate) fn take_gradients(&mut self) -> Result<Slots<G::Vector>, Error> {
        let form = Error::Form { operation: "the gradients" };
        let Gradients { mut groups, scales } = std::mem::take(&mut self.gradients);
        let places = self.trained().map(|trained| trained.places.clone()).ok_or(form)?;
        let (whole, room) = (*places.places(), self.gradient_room()?);
        let degrees = whole.degrees();
        let mut halves = Vec::with_capacity(whole.ciphertexts());
        for ciphertext in 0..whole.ciphertexts() {
            let mut pieces: Vec<Option<Rc<G::Piece>>> = Vec::with_capacity(degrees.factor());
            for at in 0..degrees.factor() {
                let Some((group, piece)) = whole.piece_at(ciphertext, at) else {
                    pieces.push(None);
                    continue;
                };
                let matrices = groups.entry(group).or_default();
                let terms: Vec<_> = matrices
                    .iter()
                    .filter_map(|matrix| Some((matrix.pieces.get(piece)?.clone(), 0)))
                    .collect();
                pieces.push(if terms.is_empty() {
                    None
                } else {
                    Some(Rc::new(self.algebra.add_shifted(&terms)?))
                });
            }
            halves.push(self.algebra.raise(&pieces, whole.has_upper_half())?);
        }
        let message = self.algebra.rings().message_scale;
        let raised = Slots { factor: 1.0, halves };
        let scaled = self.each(&raised, |slots, ciphertext, upper, x| {
            let factor = |slot: usize| {
                let at = places.weight(ciphertext, upper, slot);
                at.and_then(|(parameter, ..)| scales.get(&parameter))
                    .map_or(0.0, |scale| message / (scale * room))
            };
            let level = slots.level(x).saturating_sub(1);
            Ok(slots.multiply_known(x, &factor, level)?)
        })?;
        Ok(Slots { factor: 1.0 / room, ..scaled })
    }
}
