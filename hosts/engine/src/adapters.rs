//! LoRA's products: few rows for every sentence, which share what costs by the ciphertext.
//!
//! x·A is computed in slots, beside the norm that made x; the rows of all projections of x are lowered together. Backward,
//! Bᵀ·dy is bootstrapped for all of them at once, when the first is used.

use crate::algebra::{Algebra, Halves, Matrix};
use crate::executor::Engine;
use crate::tensor::{Waiting, at_most, half_of};
use crate::trained::{SPREAD_LEVELS, UP_SCALE};
use crate::{Error, Places, Tensor};
use std::cell::RefCell;
use std::rc::Rc;
use veilformer::matrix::Entries;
use veilformer::transformer::slots::{Model, SlotArithmetic};
use veilformer::transformer::{Parameter, Projection, Shape, Site};

impl<G: Algebra, M: Model> Engine<'_, G, M> {
    /// x·A, from the slots of x: a row for every column of A, at the scale at which B brings it to that of x·W. Those of
    /// all projections of x are lowered together, below each other, when the first is asked for.
    pub(crate) fn lora_down(
        &mut self,
        x: &Tensor<G>,
        projection: Projection,
        layer: usize,
    ) -> Result<Tensor<G>, Error> {
        let rank = Parameter::LoraDown(projection, layer).shape(self.config()).columns;
        let places = x.places.with_rows(rank)?;
        if let Some(packed) = x.adapters.borrow_mut().remove(&projection) {
            return Ok(Tensor::packed(places, packed, x.first));
        }
        let wanted = self.adapters_of(x, projection, layer);
        let (slots, of_piece) = (self.slots_of(x)?, x.places.layout().rank());
        let wanted = if wanted.len() * rank <= of_piece { wanted } else { vec![projection] };
        let mut scales = Vec::with_capacity(wanted.len());
        for &projection in &wanted {
            let rings = self.algebra.rings();
            let top = rings.moduli[rings.level];
            scales.push(self.projection_scale(x, projection, layer)? * top / UP_SCALE);
        }
        let message = self.algebra.rings().message_scale * slots.factor;
        let constants: Vec<f64> = scales.iter().map(|scale| scale / message).collect();
        let together = x.places.ciphertexts_of_one();
        let mut pieces = Vec::new();
        for (group, of_one) in slots.halves.chunks(together).enumerate() {
            let of_one = self.dropped(of_one)?;
            let mut rows = Vec::with_capacity(wanted.len() * rank);
            for (&projection, &constant) in wanted.iter().zip(&constants) {
                for row in 0..rank {
                    let weight = (Parameter::LoraDown(projection, layer), row);
                    rows.push(self.contracted(&x.places, &of_one, weight, group * together, constant)?);
                }
            }
            let below_each_other = self.below_each_other(&x.places, rows)?;
            pieces.push(self.algebra.lower(&(below_each_other, None))?.into_iter().map(Rc::new).collect());
        }
        for ((i, &projection), &scale) in wanted.iter().enumerate().zip(&scales) {
            let packed = self.first_pieces(&x.places, &pieces, i * rank, rank, scale)?;
            x.adapters.borrow_mut().insert(projection, packed);
        }
        let packed = x.adapters.borrow_mut().remove(&projection);
        Ok(Tensor::packed(places, packed.ok_or(Error::Form { operation: "LoRA" })?, x.first))
    }

    /// The projections that read the same tensor: in the last layer queries are those of first tokens.
    fn adapters_of(&self, x: &Tensor<G>, projection: Projection, layer: usize) -> Vec<Projection> {
        let queries_apart = self.config().is_last(layer);
        let reads = |other: &Projection| {
            let query = *other == Projection::Query;
            self.is_trained(Parameter::LoraDown(*other, layer)) && (!queries_apart || query == x.first)
        };
        let all = [Projection::Query, Projection::Key, Projection::Value].into_iter().filter(reads);
        let all: Vec<_> = all.collect();
        if all.contains(&projection) { all } else { vec![projection] }
    }

    /// The vectors of one sentence's ciphertexts, no higher than what they are multiplied by.
    fn dropped(&mut self, halves: &[Halves<G::Vector>]) -> Result<Vec<Halves<G::Vector>>, Error> {
        let arithmetic = self.algebra.slots();
        let level = arithmetic.floor() + SPREAD_LEVELS;
        let mut drop = |x: &G::Vector| at_most(arithmetic, x, level);
        let mut dropped = Vec::with_capacity(halves.len());
        for (lower, upper) in halves {
            dropped.push((drop(lower)?, upper.as_ref().map(&mut drop).transpose()?));
        }
        Ok(dropped)
    }

    /// constant·(a column of A) times x, where row 0 of every sentence is: lower and upper half as one vector.
    fn contracted(
        &mut self,
        places: &Places,
        halves: &[Halves<G::Vector>],
        weight: (Parameter, usize),
        ciphertext: usize,
        constant: f64,
    ) -> Result<G::Vector, Error> {
        let mut both = Vec::with_capacity(2);
        for upper in [false, true] {
            let spread = self.trained.as_ref().and_then(|trained| trained.spread.get(&weight));
            let spread = spread.ok_or(Error::MissingWeights(weight.0))?;
            let parts = halves.iter().filter_map(|halves| half_of(halves, upper));
            let pairs: Vec<_> = parts.zip(spread).collect();
            if !pairs.is_empty() {
                both.push(self.algebra.slots().products(&pairs)?);
            }
        }
        let mut product = match &both[..] {
            [lower, upper] => self.algebra.pair(lower, upper)?,
            _ => both.pop().ok_or(Error::Form { operation: "LoRA" })?,
        };
        let (arithmetic, turns, of_piece) =
            (self.algebra.slots(), places.rows_in_slots(), places.layout().rank());
        for &turn in turns.cyclic.iter().chain(&turns.bounded) {
            let turned = arithmetic.rotate(&product, turn as i64)?;
            arithmetic.add_assign(&mut product, &turned)?;
        }
        // Wherever the upper half has an entry, the lower one has.
        let first = |slot: usize| match places.at(ciphertext, false, slot) {
            Some((_, at, _)) if at % of_piece == 0 && at < of_piece => constant,
            _ => 0.0,
        };
        let level = arithmetic.level(&product).saturating_sub(1);
        Ok(arithmetic.multiply_known(&product, &first, level)?)
    }

    /// Vectors with something in row 0 only: that of vector i goes to row i.
    fn below_each_other(&mut self, places: &Places, mut rows: Vec<G::Vector>) -> Result<G::Vector, Error> {
        let origin = places.slot((0, 0, 0)).2;
        let mut stride = 1;
        while rows.len() > 1 {
            let turn = places.slot((0, stride, 0)).2 ^ origin;
            let (mut pairs, mut merged) = (rows.into_iter(), Vec::new());
            while let Some(mut row) = pairs.next() {
                if let Some(other) = pairs.next() {
                    let arithmetic = self.algebra.slots();
                    let turned = arithmetic.rotate(&other, -(turn as i64))?;
                    arithmetic.add_assign(&mut row, &turned)?;
                }
                merged.push(row);
            }
            (rows, stride) = (merged, 2 * stride);
        }
        rows.pop().ok_or(Error::Form { operation: "LoRA" })
    }

    /// Rows `from` to `from + count` of the first piece of every sentence, as rows 0 to `count`; what is in the others is
    /// of no use.
    fn first_pieces(
        &mut self,
        places: &Places,
        pieces: &[Vec<Rc<G::Piece>>],
        from: usize,
        count: usize,
        scale: f64,
    ) -> Result<Vec<Matrix<G::Piece>>, Error> {
        let rings = self.algebra.rings();
        let (level, noise, turn) = (rings.level, rings.noise, 2 * rings.degrees.small);
        let layout = places.layout().with_rows(count)?;
        let entries = Entries { layout, scale, bound: self.stream(), noise };
        let together = places.ciphertexts_of_one();
        let mut packed = Vec::with_capacity(places.sentences());
        for sentence in 0..places.sentences() {
            let (ciphertext, at) = places.of_piece(sentence, 0);
            let piece = pieces.get(ciphertext / together).and_then(|pieces| pieces.get(at));
            let piece = piece.ok_or(Error::Form { operation: "LoRA" })?.clone();
            let piece =
                if from == 0 { piece } else { Rc::new(self.algebra.add_shifted(&[(piece, turn - from)])?) };
            packed.push(Matrix { entries, level, pieces: vec![piece] });
        }
        Ok(packed)
    }

    /// (x·A)·B.
    pub(crate) fn lora_up(&mut self, down: &Tensor<G>, weight: Parameter) -> Result<Tensor<G>, Error> {
        let Shape { rows: rank, columns: width } = weight.shape(self.config());
        let places = down.places.with_rows(width)?;
        let bound = self.stream();
        let mut packed = Vec::with_capacity(down.packed.len());
        for matrix in &down.packed {
            let rows = self.algebra.first_rows(matrix, rank)?;
            packed.push(self.combine_vectors(weight, rank, &rows, &places, bound)?);
        }
        Ok(Tensor::packed(places, packed, down.first))
    }

    /// Bᵀ·dy, row by row, to be bootstrapped with the rows of other projections.
    pub(crate) fn lora_up_backward(&mut self, dy: &Tensor<G>, weight: Parameter) -> Result<Tensor<G>, Error> {
        let form = Error::Form { operation: "LoRA's gradient" };
        let Parameter::LoraUp(_, layer) = weight else { return Err(form) };
        let count = weight.shape(self.config()).rows;
        let bound = self.model.adapter_gradient_bound(layer).ok_or(Error::NoAdapterBound(layer))?;
        let mut rows = Vec::new();
        for matrix in &dy.packed {
            for vector in 0..count {
                let columns = self.sides(weight, vector)?.gather.clone();
                rows.push(self.algebra.gather(&columns, matrix, bound)?);
            }
        }
        let mut whole = Self::tempered(self.algebra.pack(&rows)?);
        // A bootstrap's error is that of its whole range, which the gradients are to fill.
        let room = self.algebra.rings().message_scale / (bound * whole.entries.scale);
        if room >= 2.0 {
            whole = self.algebra.lift(&whole, room.min(f64::from(i32::MAX)) as i32)?;
        }
        // At the scale at which A brings it to that of the projections' own gradient.
        let rings = self.algebra.rings();
        let factor = match self.model.gradient_bound(Site::FirstNorm(layer)) {
            Some(bound) => {
                let replicas = (rings.degrees.small / dy.places.layout().rank()) as f64;
                let stream = rings.message_scale / bound;
                let wanted = if dy.first { stream / replicas } else { stream };
                wanted * rings.moduli[rings.level] / UP_SCALE / rings.message_scale
            }
            // Nothing below is trained.
            None => whole.entries.scale / rings.message_scale,
        };
        let (used, rows) = (dy.places.used(), RefCell::new(None));
        let waiting = Rc::new(Waiting { whole, count, bound, factor, used, rows });
        self.waiting.push(waiting.clone());
        let tensor = Tensor::packed(dy.places.with_rows(count)?, Vec::new(), dy.first);
        Ok(Tensor { waiting: Some(waiting), ..tensor })
    }

    /// Bootstraps all rows that wait, in as few ciphertexts as they fill.
    pub(crate) fn raise_waiting(&mut self) -> Result<(), Error> {
        let waiting = std::mem::take(&mut self.waiting);
        let most = |of: fn(&Waiting<G>) -> usize| waiting.iter().map(|rows| of(rows)).max().unwrap_or(1);
        let places = Places::new(
            self.algebra.rings().degrees,
            waiting.len(),
            most(|rows| rows.whole.entries.layout.rows()),
            self.config().length,
        )?;
        let places = places.with_used(most(|rows| rows.used));
        let packed: Vec<_> = waiting.iter().map(|rows| rows.whole.clone()).collect();
        let message = self.algebra.rings().message_scale;
        let constant = |rows: &Rc<Waiting<G>>| rows.factor * message / rows.whole.entries.scale;
        let constants: Vec<f64> = waiting.iter().map(constant).collect();
        let slots = self.raise(&places, &packed)?;
        let scaled = self.each(&slots, |slots, ciphertext, upper, x| {
            let constant = |slot: usize| places.at(ciphertext, upper, slot).map_or(0.0, |at| constants[at.0]);
            let level = slots.level(x).saturating_sub(1);
            Ok(slots.multiply_known(x, &constant, level)?)
        })?;
        let lowered = self.lower(&places, &scaled, 1.0)?;
        for (rows, matrix) in waiting.iter().zip(lowered) {
            let entries = Entries {
                layout: rows.whole.entries.layout,
                scale: message * rows.factor,
                bound: rows.bound,
                ..matrix.entries
            };
            let pieces = matrix.pieces.into_iter().take(entries.layout.ciphertexts()).collect();
            let mut each = self.algebra.split(&Matrix { entries, pieces, ..matrix })?.into_iter();
            let sentences = entries.layout.rows() / rows.count;
            let by_sentence = (0..sentences).map(|_| each.by_ref().take(rows.count).collect()).collect();
            *rows.rows.borrow_mut() = Some(Rc::new(by_sentence));
        }
        Ok(())
    }
}
