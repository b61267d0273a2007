//! The encoder's operations on slots.

use super::tensor::{Lanes, SlotError, SlotTensor};
use super::{Layout, Model, SlotArithmetic, attention, linear};
use crate::approx::{Approximation, Function, Interval};
use crate::ckks::Error;
use crate::transformer::{Config, Executor, Norm, Parameter, Projection, Site};

/// Executes the encoder on any [`SlotArithmetic`].
///
/// Where the arithmetic can refresh, vectors are refreshed at four kinds of
/// places, all bounded by a calibrated interval: the residual stream, the
/// output of a norm, and the arguments of the kernel and the gate (tanh alike).
/// Each is refreshed when the levels to the next such place are not there.
pub struct SlotExecutor<'m, S, M> {
    pub(super) slots: S,
    model: &'m M,
    pub(super) layout: Layout,
}

pub(super) fn half(interval: Interval) -> f64 {
    0.5 * interval.width()
}

pub(super) fn middle(interval: Interval) -> f64 {
    0.5 * (interval.low() + interval.high())
}

impl<'m, S: SlotArithmetic, M: Model> SlotExecutor<'m, S, M> {
    /// Lays the model out in the slots.
    ///
    /// # Errors
    /// [`SlotError::Layout`] or [`SlotError::NoApproximation`].
    pub fn new(slots: S, model: &'m M) -> Result<Self, SlotError> {
        let layout = Layout::new(model.config(), slots.slots())?;
        for site in Site::all(model.config()) {
            model.approximation(site).ok_or(SlotError::NoApproximation(site))?;
        }
        Ok(Self { slots, model, layout })
    }

    /// Where everything sits.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Gives the arithmetic back.
    pub fn into_slots(self) -> S {
        self.slots
    }

    pub(super) fn config(&self) -> &'m Config {
        self.model.config()
    }

    fn approximation(&self, site: Site) -> Result<Approximation<'m>, SlotError> {
        self.model.approximation(site).ok_or(SlotError::NoApproximation(site))
    }

    /// The levels a norm takes.
    fn norm_levels(&self, site: Site) -> Result<usize, SlotError> {
        Ok(self.approximation(site)?.depth() as usize + 2)
    }

    /// The power of two h for which a norm's input and output both stay within ±1 in the slots, whatever
    /// they are, as long as the variance v stays in its interval: |x| ≤ √(d·v) there, |x̂| ≤ √d (and a tenth for
    /// the polynomial's error), and slots hold x/(2ʰ·√(d·half)).
    fn norm_headroom(interval: Interval) -> u32 {
        let mut bits = 0;
        let mut room = half(interval);
        while room < f64::max(interval.high(), 1.21) && bits < 16 {
            room *= 4.0;
            bits += 1;
        }
        bits
    }

    /// The slots of a norm's input hold this many times the meaning: then the
    /// sum of squares is the variance on the polynomial's unit interval, up to
    /// a constant and 4ʰ.
    fn norm_scale(&self, norm: Norm) -> Result<f64, SlotError> {
        let interval = self.approximation(norm.site().ok_or(SlotError::Form)?)?.interval();
        let room = f64::from(1u32 << Self::norm_headroom(interval));
        Ok(1.0 / (room * libm::sqrt(self.config().width as f64 * half(interval))))
    }

    /// Refreshes vectors, all at one level and within ±1, that could not spend
    /// `levels` more and then still be refreshed. Without bootstrapping it does nothing.
    pub(super) fn ensure(&mut self, vectors: &mut [S::Vector], levels: usize) -> Result<(), SlotError> {
        let floor = self.slots.floor();
        if floor == 0 || vectors.iter().all(|x| self.slots.level(x) >= floor + levels) {
            return Ok(());
        }
        for pair in vectors.chunks_mut(2) {
            match pair {
                [x, y] => (*x, *y) = self.slots.refresh_pair(x, y)?,
                [x] => *x = self.slots.refresh(x)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// factor·x at `level`, which may be x's own where the factor is 1.
    pub(super) fn at_factor(
        &mut self,
        x: &S::Vector,
        factor: f64,
        level: usize,
    ) -> Result<S::Vector, SlotError> {
        if factor == 1.0 && self.slots.level(x) == level {
            return Ok(self.slots.duplicate(x)?);
        }
        Ok(self.slots.scale(x, factor, level)?)
    }

    /// The level below a vector's.
    pub(super) fn below(&self, x: &S::Vector) -> Result<usize, SlotError> {
        let have = self.slots.level(x);
        have.checked_sub(1).ok_or(SlotError::Scheme(Error::LevelsExhausted { have, need: 1 }))
    }

    /// What the output of a linear map is multiplied by, so that the function after it needs no affine map.
    fn output_scale(&self, weight: Parameter) -> Result<f64, SlotError> {
        Ok(match weight {
            Parameter::Attention(Projection::Query | Projection::Key, layer) => {
                let interval = self.approximation(Site::Kernel(layer))?.interval();
                libm::sqrt(self.config().kernel_scale() / half(interval))
            }
            Parameter::Output(layer) => self.norm_scale(Norm::Second(layer))?,
            Parameter::Contract(layer) if self.config().is_last(layer) => self.norm_scale(Norm::Final)?,
            Parameter::Contract(layer) => self.norm_scale(Norm::First(layer + 1))?,
            Parameter::HeadUp => 1.0 / half(self.approximation(Site::Tanh)?.interval()),
            _ => 1.0,
        })
    }

    /// Maps `x` by columns `first..first + width` of a weight, those beyond its
    /// shape being zero. `columns` and `rows` give the feature at a place.
    fn map(
        &mut self,
        x: &SlotTensor<S::Vector>,
        weight: Parameter,
        scale: f64,
        rows: impl Fn(usize, usize) -> Option<usize> + Sync,
        columns: impl Fn(usize, usize) -> Option<usize> + Sync,
        lanes: impl Fn(usize) -> bool + Sync,
    ) -> Result<S::Vector, SlotError> {
        let (model, shape) = (self.model, weight.shape(self.model.config()));
        // Centring the columns of what enters the residual stream keeps its mean at zero.
        let centred = matches!(weight, Parameter::Output(_) | Parameter::Contract(_));
        let mean = |row| {
            if !centred {
                return 0.0;
            }
            (0..shape.columns).map(|c| model.weight(weight, row, c)).sum::<f64>() / shape.columns as f64
        };
        let (factor, pending) = (x.factor * scale, x.pending);
        let entry = |input: usize, output: usize, lane: usize| {
            let (Some(row), Some(column)) = (rows(input, lane), columns(output, lane)) else { return 0.0 };
            if row >= shape.rows || column >= shape.columns {
                return 0.0;
            }
            let gain = pending.map_or(1.0, |norm| model.weight(Parameter::Gain(norm), 0, row));
            factor * gain * (model.weight(weight, row, column) - mean(row))
        };
        let mut y = linear::apply(&mut self.slots, &self.layout, &x.vector, &lanes, entry)?;
        if let Some(norm) = pending {
            let layout = self.layout;
            let bias = |slot: usize| {
                let (place, lane) = layout.place(slot);
                let Some(column) = columns(place, lane).filter(|c| *c < shape.columns && lanes(lane)) else {
                    return 0.0;
                };
                let bias = |row| model.weight(Parameter::Bias(norm), 0, row);
                scale * (0..shape.rows).map(|row| bias(row) * model.weight(weight, row, column)).sum::<f64>()
            };
            self.slots.add_known_assign(&mut y, &bias)?;
        }
        Ok(y)
    }

    /// Adds up `count` copies of x, each turned by `stride` more; `count` is a power of two.
    pub(super) fn fold(&mut self, x: &mut S::Vector, count: usize, stride: i64) -> Result<(), SlotError> {
        let mut step = 1;
        while step < count {
            let turned = self.slots.rotate(x, step as i64 * stride)?;
            self.slots.add_assign(x, &turned)?;
            step *= 2;
        }
        Ok(())
    }

    fn expand(
        &mut self,
        x: &SlotTensor<S::Vector>,
        layer: usize,
    ) -> Result<SlotTensor<S::Vector>, SlotError> {
        let config = self.config();
        let (width, f) = (config.width, config.feed_forward);
        let every = x.lanes == Lanes::All;
        let used = f.div_ceil(width);
        let gate = self.approximation(Site::Gate(layer))?;
        let interval = gate.interval();
        // Token 0 alone: copies of lane 0 in as many lanes as a half of the hidden layer takes.
        let mut spread = x.with(self.slots.duplicate(&x.vector)?);
        self.fold(&mut spread.vector, used.next_power_of_two(), -(self.layout.batch() as i64))?;
        let rows = |place: usize, _: usize| Some(place);
        let half_of = |start: usize| {
            move |place: usize, lane: usize| {
                let feature = if every { place } else { lane * width + place };
                (feature < f).then_some(start + feature)
            }
        };
        let lanes = |lane: usize| every || lane < used;
        let weight = Parameter::Expand(layer);
        let a = self.map(&spread, weight, 1.0, rows, half_of(0), lanes)?;
        let mut b = [self.map(&spread, weight, 1.0 / half(interval), rows, half_of(f), lanes)?];
        let offset = -middle(interval) / half(interval);
        if offset != 0.0 {
            self.slots.add_known_assign(&mut b[0], &|_| offset)?;
        }
        // The product with a, and the second matrix.
        self.ensure(&mut b, gate.depth() as usize + 2)?;
        let lanes = if every { Lanes::All } else { Lanes::Clean };
        Ok(SlotTensor { more: b.into_iter().collect(), ..SlotTensor::derived(a, 1.0, lanes) })
    }

    fn contract(
        &mut self,
        x: &SlotTensor<S::Vector>,
        layer: usize,
    ) -> Result<SlotTensor<S::Vector>, SlotError> {
        let config = self.config();
        let width = config.width;
        let every = x.lanes == Lanes::All;
        let weight = Parameter::Contract(layer);
        let scale = self.output_scale(weight)?;
        let mut sum: Option<S::Vector> = None;
        for lane in 0..config.feed_forward.div_ceil(width) {
            let part = x.with(self.slots.rotate(&x.vector, (lane * self.layout.batch()) as i64)?);
            let rows = |place: usize, _: usize| Some(lane * width + place);
            let y =
                self.map(&part, weight, scale, rows, |place, _| Some(place), |lane| every || lane == 0)?;
            match &mut sum {
                None => sum = Some(y),
                Some(sum) => self.slots.add_assign(sum, &y)?,
            }
        }
        let lanes = if every { Lanes::All } else { Lanes::Clean };
        Ok(SlotTensor::derived(sum.ok_or(SlotError::Form)?, 1.0 / scale, lanes))
    }
}

impl<S: SlotArithmetic, M: Model> Executor for SlotExecutor<'_, S, M> {
    type Tensor = SlotTensor<S::Vector>;
    type Error = SlotError;

    fn linear(&mut self, x: &Self::Tensor, weight: Parameter) -> Result<Self::Tensor, SlotError> {
        match weight {
            Parameter::Expand(layer) => return self.expand(x, layer),
            Parameter::Contract(layer) => return self.contract(x, layer),
            _ => {}
        }
        let scale = self.output_scale(weight)?;
        let (mut from_heads, mut to_heads) = (false, false);
        match weight {
            Parameter::Attention(..) => to_heads = true,
            Parameter::Output(_) => from_heads = true,
            _ => {}
        }
        let config = self.config();
        // In Q, K and V the heads are interleaved, so that a turn by a multiple
        // of their number stays within every head.
        let feature = move |place: usize| place % config.heads * config.head_width() + place / config.heads;
        let at = |heads: bool| move |place: usize, _: usize| Some(if heads { feature(place) } else { place });
        let every = x.lanes == Lanes::All;
        let y = self.map(x, weight, scale, at(from_heads), at(to_heads), |lane| every || lane == 0)?;
        let lanes = if every { Lanes::All } else { Lanes::Clean };
        Ok(SlotTensor::derived(y, 1.0 / scale, lanes))
    }

    /// The residual stream a takes the factor of b, which its producer chose for the norm that follows.
    fn add(&mut self, a: &Self::Tensor, b: &Self::Tensor) -> Result<Self::Tensor, SlotError> {
        let dirty = a.lanes == Lanes::Dirty && b.lanes == Lanes::Clean;
        if a.pending.is_some() || b.pending.is_some() || (a.lanes != b.lanes && !dirty) {
            return Err(SlotError::Form);
        }
        let ratio = a.factor / b.factor;
        let most = if dirty || ratio != 1.0 { self.below(&a.vector)? } else { self.slots.level(&a.vector) };
        let level = self.slots.level(&b.vector).min(most);
        let mut sum = if dirty {
            let layout = self.layout;
            let first = |slot: usize| if layout.place(slot).1 == 0 { ratio } else { 0.0 };
            self.slots.multiply_known(&a.vector, &first, level)?
        } else {
            self.at_factor(&a.vector, ratio, level)?
        };
        if self.slots.level(&b.vector) == level {
            self.slots.add_assign(&mut sum, &b.vector)?;
        } else {
            let b = self.at_factor(&b.vector, 1.0, level)?;
            self.slots.add_assign(&mut sum, &b)?;
        }
        let mut levels = 0;
        for site in Site::all(self.config()).filter(|site| site.function() == Function::InverseSqrt) {
            levels = levels.max(self.norm_levels(site)?);
        }
        let mut sum = [sum];
        self.ensure(&mut sum, levels)?;
        let [sum] = sum;
        Ok(SlotTensor::derived(sum, b.factor, b.lanes))
    }

    fn layer_norm(&mut self, x: &Self::Tensor, norm: Norm) -> Result<Self::Tensor, SlotError> {
        let site = norm.site().ok_or(SlotError::Form)?;
        let approximation = self.approximation(site)?;
        let scale = self.norm_scale(norm)?;
        if x.pending.is_some() || !matches!(x.lanes, Lanes::All | Lanes::Clean) {
            return Err(SlotError::Form);
        }
        let (config, layout, interval) = (self.config(), self.layout, approximation.interval());
        // Only the client's tensor comes with another factor.
        let ratio = x.factor * scale;
        let fits = (ratio - 1.0).abs() < 1e-9;
        let scaled =
            if fits { None } else { Some(self.at_factor(&x.vector, ratio, self.below(&x.vector)?)?) };
        let x_slots = scaled.as_ref().unwrap_or(&x.vector);
        let mut variance = self.slots.multiply(x_slots, x_slots)?;
        self.fold(&mut variance, config.width, layout.feature_stride() as i64)?;
        for _ in 0..2 * Self::norm_headroom(interval) {
            let copy = self.slots.duplicate(&variance)?;
            self.slots.add_assign(&mut variance, &copy)?;
        }
        let offset = (config.norm_epsilon - middle(interval)) / half(interval);
        let every = x.lanes == Lanes::All;
        // Empty lanes stay at 0, in the middle of the interval.
        let known = |slot: usize| if every || layout.place(slot).1 == 0 { offset } else { 0.0 };
        self.slots.add_known_assign(&mut variance, &known)?;
        let root = self.slots.chebyshev(&variance, approximation.coefficients())?;
        let mut vector = [self.slots.multiply(x_slots, &root)?];
        let levels = match norm {
            Norm::First(layer) => attention::value_levels(config.is_last(layer)),
            // Both matrices and the gate's product.
            Norm::Second(_) => 3,
            // The head's matrices up to tanh.
            Norm::Final | Norm::Embedding => 1 + usize::from(config.head_rank > 0),
        };
        self.ensure(&mut vector, levels)?;
        let [vector] = vector;
        Ok(SlotTensor { pending: Some(norm), ..SlotTensor::derived(vector, 1.0 / scale, x.lanes) })
    }

    fn first_token(&mut self, x: &Self::Tensor) -> Result<Self::Tensor, SlotError> {
        let lanes = if x.lanes == Lanes::All { Lanes::Dirty } else { x.lanes };
        Ok(SlotTensor { lanes, ..x.with(self.slots.duplicate(&x.vector)?) })
    }

    fn mask_tokens(&mut self, x: &Self::Tensor, mask: &Self::Tensor) -> Result<Self::Tensor, SlotError> {
        let vector = self.slots.multiply(&x.vector, &mask.vector)?;
        Ok(SlotTensor::derived(vector, x.factor * mask.factor, x.lanes))
    }

    fn gaussian_scores(
        &mut self,
        query: &Self::Tensor,
        key: &Self::Tensor,
        layer: usize,
    ) -> Result<Self::Tensor, SlotError> {
        let approximation = self.approximation(Site::Kernel(layer))?;
        match (query.lanes, key.lanes) {
            (Lanes::Clean, Lanes::All) => self.scores_of_first(&query.vector, &key.vector, &approximation),
            (Lanes::All, Lanes::All) => self.scores_of_all(&query.vector, &key.vector, &approximation),
            _ => Err(SlotError::Form),
        }
    }

    /// The softmax of the baseline has no slot form.
    fn softmax_scores(
        &mut self,
        _query: &Self::Tensor,
        _key: &Self::Tensor,
        _mask: &Self::Tensor,
        _layer: usize,
    ) -> Result<Self::Tensor, SlotError> {
        Err(SlotError::Form)
    }

    /// Only the softmax of the loss asks for it.
    fn multiply(&mut self, _a: &Self::Tensor, _b: &Self::Tensor) -> Result<Self::Tensor, SlotError> {
        Err(SlotError::Form)
    }

    fn mix(&mut self, scores: &Self::Tensor, value: &Self::Tensor) -> Result<Self::Tensor, SlotError> {
        let (mixed, lanes) = match scores.lanes {
            Lanes::All => self.mix_first(&scores.vector, &value.vector)?,
            Lanes::Shifts => self.mix_all(scores, &value.vector)?,
            _ => return Err(SlotError::Form),
        };
        Ok(SlotTensor::derived(mixed, scores.factor * value.factor, lanes))
    }

    fn gate(&mut self, hidden: &Self::Tensor, layer: usize) -> Result<Self::Tensor, SlotError> {
        let b = hidden.more.first().ok_or(SlotError::Form)?;
        let approximation = self.approximation(Site::Gate(layer))?;
        let relu = self.slots.chebyshev(b, approximation.coefficients())?;
        let vector = self.slots.multiply(&hidden.vector, &relu)?;
        Ok(SlotTensor::derived(vector, hidden.factor, hidden.lanes))
    }

    /// tanh: the only function the program asks for outside a norm, a kernel or a gate.
    fn apply(&mut self, x: &Self::Tensor, site: Site) -> Result<Self::Tensor, SlotError> {
        if site != Site::Tanh {
            return Err(SlotError::Form);
        }
        let approximation = self.approximation(Site::Tanh)?;
        let scale = 1.0 / half(approximation.interval());
        if (x.factor * scale - 1.0).abs() > 1e-9 || middle(approximation.interval()) != 0.0 {
            return Err(SlotError::Form);
        }
        let mut argument = [self.slots.duplicate(&x.vector)?];
        // The last matrix.
        self.ensure(&mut argument, approximation.depth() as usize + 1)?;
        let vector = self.slots.chebyshev(&argument[0], approximation.coefficients())?;
        Ok(SlotTensor::derived(vector, 1.0, x.lanes))
    }
}
