//! The program's operations on tensors.

use crate::algebra::{Algebra, Matrix};
use crate::gradient::Gradients;
use crate::tensor::{Kept, Slots, Waiting};
use crate::trained::Trained;
use crate::{Error, Places, Tensor};
use std::collections::HashMap;
use std::rc::Rc;
use veilformer::approx::{Approximation, Function};
use veilformer::matrix::Entries;
use veilformer::transformer::slots::{Model, SlotArithmetic};
use veilformer::transformer::{Config, Executor, Kernel, Norm, Parameter, Site, Trainable};

/// Room for the error of a norm's polynomial in the bound on what it returns.
pub(crate) const NORM_MARGIN: f64 = 1.1;

/// Executes the transformer on any [`Algebra`].
pub struct Engine<'m, G: Algebra, M: Model> {
    pub(crate) algebra: G,
    pub(crate) model: &'m M,
    sentences: usize,
    stream: f64,
    /// The weights that are trained.
    pub(crate) set: Trainable,
    pub(crate) trained: Option<Trained<G>>,
    pub(crate) gradients: Gradients<G::Piece>,
    /// Rows whose bootstrap nobody has needed yet.
    pub(crate) waiting: Vec<Rc<Waiting<G>>>,
    /// m̂ and v̂ of the optimizer.
    pub(crate) moments: Option<[Rc<Slots<G::Vector>>; 2]>,
    /// What functions leave for the backward pass, while one is to follow.
    tape: Option<Tape<G::Vector>>,
}

type Tape<V> = HashMap<Site, Rc<Kept<V>>>;

impl<'m, G: Algebra, M: Model> Engine<'m, G, M> {
    /// For batches of so many sentences.
    ///
    /// # Errors
    /// [`Error::NoApproximation`]; those of [`crate::Degrees::check_length`]; [`Error::Size`] for more sentences than tokens, or a
    /// head wider than a piece has rows; [`Error::Keys`] for softmax over a number of tokens that it cannot add up.
    pub fn new(algebra: G, model: &'m M, sentences: usize) -> Result<Self, Error> {
        let config = model.config();
        let stream = stream_bound(model)?;
        algebra.rings().degrees.check_length(config.length)?;
        let rank = Places::new(algebra.rings().degrees, 1, 1, config.length)?.layout().rank();
        for (what, given, max) in
            [("the width of a head", config.head_width(), rank), ("the batch", sentences, config.length)]
        {
            if given > max {
                return Err(Error::Size { what, given, max });
            }
        }
        let (length, max) = (config.length, rank * algebra.rings().degrees.factor());
        if config.kernel == Kernel::Softmax && !(length.is_power_of_two() && length <= max) {
            return Err(Error::Keys { length, max });
        }
        for site in Site::all(config) {
            model.approximation(site).ok_or(Error::NoApproximation(site))?;
        }
        Ok(Self {
            algebra,
            model,
            sentences,
            stream,
            set: Trainable::Adapters,
            trained: None,
            gradients: Gradients::default(),
            waiting: Vec::new(),
            moments: None,
            tape: None,
        })
    }

    /// The same for another set of trained weights: [`Trainable::Adapters`], as at first, or [`Trainable::Matrices`].
    ///
    /// # Errors
    /// [`Error::Trainable`] for a set with gains, biases or the embedding.
    pub fn with_trained(self, set: Trainable) -> Result<Self, Error> {
        match set {
            Trainable::Adapters | Trainable::Matrices => Ok(Self { set, ..self }),
            Trainable::Server | Trainable::Everything => Err(Error::Trainable(set)),
        }
    }

    /// The algebra.
    pub fn algebra(&mut self) -> &mut G {
        &mut self.algebra
    }

    pub(crate) fn config(&self) -> &'m Config {
        self.model.config()
    }

    pub(crate) fn approximation(&self, site: Site) -> Result<Approximation<'m>, Error> {
        self.model.approximation(site).ok_or(Error::NoApproximation(site))
    }

    /// The bound on every entry of the residual stream.
    pub(crate) fn stream(&self) -> f64 {
        self.stream
    }

    /// Places of a matrix of so many features for all tokens, or for the first token of all sentences.
    pub(crate) fn places(&self, rows: usize, first: bool) -> Result<Places, Error> {
        let sentences = if first { 1 } else { self.sentences };
        let places = Places::new(self.algebra.rings().degrees, sentences, rows, self.config().length)?;
        Ok(if first { places.with_used(self.sentences) } else { places })
    }

    /// Keeps what the backward pass needs from now on, or forgets it.
    pub fn record(&mut self, recording: bool) {
        self.tape = recording.then(HashMap::new);
    }

    pub(crate) fn is_recording(&self) -> bool {
        self.tape.is_some()
    }

    pub(crate) fn keep(&mut self, site: Site, kept: Kept<G::Vector>) {
        if let Some(tape) = &mut self.tape {
            tape.insert(site, Rc::new(kept));
        }
    }

    pub(crate) fn kept(&self, site: Site) -> Option<Rc<Kept<G::Vector>>> {
        self.tape.as_ref()?.get(&site).cloned()
    }

    /// The bound on gradients by what a site's function leads to.
    pub(crate) fn gradient_bound(&self, site: Site) -> Result<f64, Error> {
        self.model.gradient_bound(site).ok_or(Error::NoGradientBound(site))
    }

    /// A size of the gradients by the residual stream: that of the largest by a norm's output.
    pub(crate) fn gradient_stream(&self) -> Result<f64, Error> {
        // There is none where nothing below is trained.
        let norms = Site::all(self.config()).filter(|site| site.function() == Function::InverseSqrt);
        let bounds = norms.filter_map(|site| self.model.gradient_bound(site));
        bounds.reduce(f64::max).ok_or(Error::NoGradientBound(Site::FinalNorm))
    }

    pub(crate) fn sentences(&self) -> usize {
        self.sentences
    }

    /// The slots of packed matrices: a bootstrap for every f pieces.
    pub(crate) fn raise(
        &mut self,
        places: &Places,
        packed: &[Matrix<G::Piece>],
    ) -> Result<Slots<G::Vector>, Error> {
        let [slots] = self.raise_all(places, [packed])?;
        Ok(slots)
    }

    /// The slots of tensors of the same places. Where columns fill no more than half of a ciphertext, two share one.
    pub(crate) fn raise_all<const TENSORS: usize>(
        &mut self,
        places: &Places,
        tensors: [&[Matrix<G::Piece>]; TENSORS],
    ) -> Result<[Slots<G::Vector>; TENSORS], Error> {
        let form = Error::Form { operation: "a bootstrap" };
        let (f, count) = (places.degrees().factor(), places.ciphertexts());
        let pieces = |index: usize| -> Vec<_> {
            let piece = |(sentence, piece): (usize, usize)| {
                tensors[index / count].get(sentence)?.pieces.get(piece).cloned()
            };
            (0..f).map(|at| places.piece_at(index % count, at).and_then(piece)).collect()
        };
        let mut halves = Vec::with_capacity(TENSORS * count);
        while halves.len() < TENSORS * count {
            let (at, mut together) = (halves.len(), pieces(halves.len()));
            if places.has_upper_half() || at + 1 == TENSORS * count {
                halves.push(self.algebra.raise(&together, places.has_upper_half())?);
                continue;
            }
            for (piece, other) in together.iter_mut().zip(pieces(at + 1)) {
                let Some(other) = other else { continue };
                let mut terms = vec![(other, places.degrees().small / 2)];
                terms.extend(piece.take().map(|piece| (piece, 0)));
                *piece = Some(Rc::new(self.algebra.add_shifted(&terms)?));
            }
            let (lower, upper) = self.algebra.raise(&together, true)?;
            halves.extend([(lower, None), (upper.ok_or(form)?, None)]);
        }
        let (mut halves, message) = (halves.into_iter(), self.algebra.rings().message_scale);
        let mut slots = tensors.map(|packed| {
            let scale = packed.first().map(|matrix| matrix.entries.scale);
            Slots { factor: scale.unwrap_or(0.0) / message, halves: halves.by_ref().take(count).collect() }
        });
        if slots.iter_mut().any(|slots| slots.factor == 0.0) {
            return Err(form);
        }
        Ok(slots)
    }

    /// The slots of a tensor, which keeps them.
    pub(crate) fn slots_of(&mut self, x: &Tensor<G>) -> Result<Rc<Slots<G::Vector>>, Error> {
        if let Some(slots) = &*x.slots.borrow() {
            return Ok(slots.clone());
        }
        let slots = Rc::new(self.raise(&x.places, &x.packed)?);
        *x.slots.borrow_mut() = Some(slots.clone());
        Ok(slots)
    }

    /// Packed matrices of slots whose entries are within `bound`.
    pub(crate) fn lower(
        &mut self,
        places: &Places,
        slots: &Slots<G::Vector>,
        bound: f64,
    ) -> Result<Vec<Matrix<G::Piece>>, Error> {
        let pieces = slots.halves.iter().map(|halves| self.algebra.lower(halves));
        let pieces = pieces.collect::<Result<Vec<_>, Error>>()?;
        Ok(self.matrices(places, pieces, slots.factor, bound))
    }

    /// The tensor of what a client encrypted: [`client::coefficients`](crate::client::coefficients) at
    /// [`Engine::input_scale`].
    ///
    /// # Errors
    /// From the scheme.
    pub fn input(&mut self, ciphertexts: &[G::Vector]) -> Result<Tensor<G>, Error> {
        let places = self.places(self.config().width, false)?;
        let pieces = ciphertexts.iter().map(|x| self.algebra.pieces(x));
        let pieces = pieces.collect::<Result<Vec<_>, Error>>()?;
        let bound = NORM_MARGIN * (self.config().width as f64).sqrt();
        let packed = self.matrices(&places, pieces, 1.0 / self.stream, bound);
        Ok(Tensor::packed(places, packed, false))
    }

    /// The tensor of the slots of [`client::mask`](crate::client::mask), one level below a fresh bootstrap or less.
    ///
    /// # Errors
    /// None of its own.
    pub fn mask(&self, vectors: Vec<G::Vector>) -> Result<Tensor<G>, Error> {
        Ok(Tensor::mask(self.score_places()?, vectors))
    }

    /// The tensor of what a client wants: a row for every output, a column for every sentence.
    ///
    /// # Errors
    /// From the scheme.
    pub fn target(&mut self, ciphertexts: &[G::Vector]) -> Result<Tensor<G>, Error> {
        let places = self.target_places()?;
        let pieces = ciphertexts.iter().map(|x| self.algebra.pieces(x));
        let pieces = pieces.collect::<Result<Vec<_>, Error>>()?;
        let bound = self.config().loss.largest_target();
        let packed = self.matrices(&places, pieces, 1.0 / bound, bound);
        Ok(Tensor::packed(places, packed, true))
    }

    /// The places of a client's targets.
    ///
    /// # Errors
    /// Those of [`Places::new`].
    pub fn target_places(&self) -> Result<Places, Error> {
        self.places(self.config().classes, true)
    }

    /// The scale of a client's targets.
    pub fn target_scale(&self) -> f64 {
        self.algebra.rings().message_scale / self.config().loss.largest_target()
    }

    /// The places of the scores of all tokens, and of their mask.
    ///
    /// # Errors
    /// Those of [`Places::new`].
    pub fn score_places(&self) -> Result<Places, Error> {
        self.places(self.config().heads * self.config().length, false)
    }

    /// The places of a client's tensor.
    ///
    /// # Errors
    /// Those of [`Places::new`].
    pub fn input_places(&self) -> Result<Places, Error> {
        self.places(self.config().width, false)
    }

    /// The scale of a client's tensor.
    pub fn input_scale(&self) -> f64 {
        self.algebra.rings().message_scale / self.stream
    }

    /// Pieces of ciphertexts of the big ring, sorted by sentence.
    fn matrices(
        &self,
        places: &Places,
        pieces: Vec<Vec<G::Piece>>,
        factor: f64,
        bound: f64,
    ) -> Vec<Matrix<G::Piece>> {
        let rings = self.algebra.rings();
        let scale = rings.message_scale * factor;
        let entries = Entries { layout: *places.layout(), scale, bound, noise: rings.noise };
        let mut packed: Vec<_> = (0..places.sentences())
            .map(|_| Matrix { entries, level: rings.level, pieces: Vec::new() })
            .collect();
        for (ciphertext, pieces) in pieces.into_iter().enumerate() {
            // In the order of the pieces of a sentence.
            for (at, piece) in pieces.into_iter().enumerate() {
                if let Some((sentence, _)) = places.piece_at(ciphertext, at) {
                    packed[sentence].pieces.push(Rc::new(piece));
                }
            }
        }
        packed
    }

    /// Every vector of slots changed in the same way; told its ciphertext and whether it is the upper one.
    pub(crate) fn each(
        &mut self,
        slots: &Slots<G::Vector>,
        mut change: impl FnMut(&mut G::Slots, usize, bool, &G::Vector) -> Result<G::Vector, Error>,
    ) -> Result<Slots<G::Vector>, Error> {
        let mut halves = Vec::with_capacity(slots.halves.len());
        for (ciphertext, (lower, upper)) in slots.halves.iter().enumerate() {
            let arithmetic = self.algebra.slots();
            let lower = change(arithmetic, ciphertext, false, lower)?;
            let upper =
                upper.as_ref().map(|upper| change(arithmetic, ciphertext, true, upper)).transpose()?;
            halves.push((lower, upper));
        }
        Ok(Slots { factor: slots.factor, halves })
    }
}

/// The largest entry that the residual stream can have where every variance is in its norm's interval.
///
/// # Errors
/// [`Error::NoApproximation`].
pub fn stream_bound<M: Model>(model: &M) -> Result<f64, Error> {
    let config = model.config();
    let mut largest = 1.0f64;
    for site in Site::all(config).filter(|site| site.function() == Function::InverseSqrt) {
        let approximation = model.approximation(site).ok_or(Error::NoApproximation(site))?;
        largest = largest.max(approximation.interval().high());
    }
    Ok((config.width as f64 * largest).sqrt())
}

impl<G: Algebra, M: Model> Executor for Engine<'_, G, M> {
    type Tensor = Tensor<G>;
    type Error = Error;

    fn linear(&mut self, x: &Tensor<G>, weight: Parameter) -> Result<Tensor<G>, Error> {
        self.multiply_weight(x, weight)
    }

    fn add(&mut self, a: &Tensor<G>, b: &Tensor<G>) -> Result<Tensor<G>, Error> {
        let mut sum = self.combine(a, b, false)?;
        // What both add up to is in the interval of the norm that follows.
        sum.packed.iter_mut().for_each(|sum| sum.entries.bound = sum.entries.bound.min(self.stream));
        Ok(sum)
    }

    fn layer_norm(&mut self, x: &Tensor<G>, norm: Norm) -> Result<Tensor<G>, Error> {
        self.normalise(x, norm)
    }

    fn first_token(&mut self, x: &Tensor<G>) -> Result<Tensor<G>, Error> {
        let (slots, places) = (self.slots_of(x)?, x.places);
        let mut firsts = Slots { factor: slots.factor, halves: Vec::new() };
        for (ciphertext, (lower, _)) in slots.halves.iter().enumerate() {
            // Column 0 is in the lower half.
            let first =
                |slot: usize| f64::from(places.at(ciphertext, false, slot).is_some_and(|at| at.2 == 0));
            let arithmetic = self.algebra.slots();
            let level = arithmetic.level(lower).saturating_sub(1);
            firsts.halves.push((arithmetic.multiply_known(lower, &first, level)?, None));
        }
        let bound = x.packed.first().map_or(self.stream, |matrix| matrix.entries.bound);
        let packed = self.lower(&places, &firsts, bound)?;
        let rank = places.layout().rank();
        let mut pieces = Vec::new();
        for piece in 0..places.layout().ciphertexts() {
            let terms: Vec<_> = packed
                .iter()
                .enumerate()
                .filter_map(|(sentence, matrix)| Some((matrix.pieces.get(piece)?.clone(), rank * sentence)))
                .collect();
            pieces.push(Rc::new(self.algebra.add_shifted(&terms)?));
        }
        let places = self.places(places.layout().rows(), true)?;
        let matrix = packed.into_iter().next().ok_or(Error::Form { operation: "a selection" })?;
        let packed = vec![Matrix { pieces, ..matrix }];
        Ok(Tensor::packed(places, packed, true))
    }

    fn mask_tokens(&mut self, x: &Tensor<G>, mask: &Tensor<G>) -> Result<Tensor<G>, Error> {
        Ok(Tensor { mask: mask.mask.clone(), ..Tensor::packed(x.places, x.packed.clone(), x.first) })
    }

    fn gaussian_scores(
        &mut self,
        query: &Tensor<G>,
        key: &Tensor<G>,
        layer: usize,
    ) -> Result<Tensor<G>, Error> {
        self.scores(query, key, layer)
    }

    fn mix(&mut self, scores: &Tensor<G>, value: &Tensor<G>) -> Result<Tensor<G>, Error> {
        self.values(scores, value)
    }

    fn gate(&mut self, hidden: &Tensor<G>, layer: usize) -> Result<Tensor<G>, Error> {
        self.gated(hidden, layer)
    }

    fn multiply(&mut self, a: &Tensor<G>, b: &Tensor<G>) -> Result<Tensor<G>, Error> {
        self.product(a, b)
    }

    fn apply(&mut self, x: &Tensor<G>, site: Site) -> Result<Tensor<G>, Error> {
        self.function(x, site)
    }

    fn softmax_scores(
        &mut self,
        query: &Tensor<G>,
        key: &Tensor<G>,
        mask: &Tensor<G>,
        layer: usize,
    ) -> Result<Tensor<G>, Error> {
        self.softmax(query, key, mask, layer)
    }
}
