//! The encoder's operations on slots.

use super::{Layout, LayoutError, Model, SlotArithmetic, linear};
use crate::approx::{Approximation, Interval};
use crate::ckks::Error;
use crate::transformer::{Config, Executor, Norm, Parameter, Projection, Site};

/// Why the encrypted program cannot go on.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum SlotError {
    /// The model does not fit the slots.
    Layout(LayoutError),
    /// The scheme refused.
    Scheme(Error),
    /// The model has no approximation for a site.
    NoApproximation(Site),
    /// A tensor came in a form the operation cannot use.
    Form,
}

impl core::fmt::Display for SlotError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Layout(error) => error.fmt(f),
            Self::Scheme(error) => error.fmt(f),
            Self::NoApproximation(site) => {
                write!(f, "the model has no approximation for {site:?}; calibrate it first")
            }
            Self::Form => write!(f, "a tensor came in a form this operation cannot use on slots"),
        }
    }
}

impl core::error::Error for SlotError {}

impl From<Error> for SlotError {
    fn from(error: Error) -> Self {
        Self::Scheme(error)
    }
}

impl From<LayoutError> for SlotError {
    fn from(error: LayoutError) -> Self {
        Self::Layout(error)
    }
}

/// Which lanes of a tensor mean something, and what the others hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lanes {
    /// Every token.
    All,
    /// The first lanes only, the others are zero.
    Clean,
    /// Lane 0 only, the others hold anything.
    Dirty,
}

/// A matrix in the slots: meaning = factor·slots, then the gain and bias of a
/// pending norm, which the next linear map takes in.
pub struct SlotTensor<V> {
    vector: V,
    /// The second half of a gate's input.
    second: Option<V>,
    factor: f64,
    lanes: Lanes,
    pending: Option<Norm>,
}

impl<V> SlotTensor<V> {
    /// A matrix with one row per token, as the client encrypts it.
    pub fn tokens(vector: V) -> Self {
        Self { vector, second: None, factor: 1.0, lanes: Lanes::All, pending: None }
    }

    /// The slots; the result of a whole forward pass has factor 1.
    pub fn vector(&self) -> &V {
        &self.vector
    }

    fn derived(vector: V, factor: f64, lanes: Lanes) -> Self {
        Self { vector, second: None, factor, lanes, pending: None }
    }
}

/// Executes the encoder on any [`SlotArithmetic`].
pub struct SlotExecutor<'m, S, M> {
    slots: S,
    model: &'m M,
    layout: Layout,
}

fn half(interval: Interval) -> f64 {
    0.5 * interval.width()
}

fn middle(interval: Interval) -> f64 {
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

    fn config(&self) -> &'m Config {
        self.model.config()
    }

    fn approximation(&self, site: Site) -> Result<Approximation<'m>, SlotError> {
        self.model.approximation(site).ok_or(SlotError::NoApproximation(site))
    }

    /// The slots of a norm's input hold this many times the meaning: then the
    /// sum of squares is the variance on the polynomial's unit interval, up to
    /// a constant.
    fn norm_scale(&self, norm: Norm) -> Result<f64, SlotError> {
        let site = norm.site().ok_or(SlotError::Form)?;
        let half = half(self.approximation(site)?.interval());
        Ok(1.0 / libm::sqrt(self.config().width as f64 * half))
    }

    /// What the output of a linear map is multiplied by, so that the function after it needs no affine map.
    fn output_scale(&self, weight: Parameter) -> Result<f64, SlotError> {
        Ok(match weight {
            Parameter::Attention(Projection::Query | Projection::Key, layer) => {
                let interval = self.approximation(Site::Kernel(layer))?.interval();
                libm::sqrt(self.config().kernel_scale() / half(interval))
            }
            Parameter::Output(layer) => self.norm_scale(Norm::Second(layer))?,
            Parameter::Contract(_) => self.norm_scale(Norm::Final)?,
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
    fn fold(&mut self, x: &mut S::Vector, count: usize, stride: i64) -> Result<(), SlotError> {
        let mut step = 1;
        while step < count {
            let turned = self.slots.rotate(x, step as i64 * stride)?;
            self.slots.add_assign(x, &turned)?;
            step *= 2;
        }
        Ok(())
    }

    fn squared(&mut self, x: &S::Vector) -> Result<S::Vector, SlotError> {
        Ok(self.slots.multiply(x, x)?)
    }

    fn expand(
        &mut self,
        x: &SlotTensor<S::Vector>,
        layer: usize,
    ) -> Result<SlotTensor<S::Vector>, SlotError> {
        let config = self.config();
        let (width, f) = (config.width, config.feed_forward);
        let used = f.div_ceil(width);
        let interval = self.approximation(Site::Gate(layer))?.interval();
        // Copies of lane 0 in as many lanes as a half of the hidden layer takes.
        let mut spread = SlotTensor { vector: self.slots.duplicate(&x.vector)?, second: None, ..*x };
        self.fold(&mut spread.vector, used.next_power_of_two(), -(self.layout.batch() as i64))?;
        let rows = |place: usize, _: usize| Some(place);
        let half_of = |start: usize| {
            move |place: usize, lane: usize| {
                let feature = lane * width + place;
                (feature < f).then_some(start + feature)
            }
        };
        let lanes = |lane: usize| lane < used;
        let weight = Parameter::Expand(layer);
        let a = self.map(&spread, weight, 1.0, rows, half_of(0), lanes)?;
        let mut b = self.map(&spread, weight, 1.0 / half(interval), rows, half_of(f), lanes)?;
        let offset = -middle(interval) / half(interval);
        if offset != 0.0 {
            self.slots.add_known_assign(&mut b, &|_| offset)?;
        }
        Ok(SlotTensor { second: Some(b), ..SlotTensor::derived(a, 1.0, Lanes::Clean) })
    }

    fn contract(
        &mut self,
        x: &SlotTensor<S::Vector>,
        layer: usize,
    ) -> Result<SlotTensor<S::Vector>, SlotError> {
        let config = self.config();
        let width = config.width;
        let weight = Parameter::Contract(layer);
        let scale = self.output_scale(weight)?;
        let mut sum: Option<S::Vector> = None;
        for lane in 0..config.feed_forward.div_ceil(width) {
            let turned = self.slots.rotate(&x.vector, (lane * self.layout.batch()) as i64)?;
            let part = SlotTensor { vector: turned, second: None, ..*x };
            let rows = |place: usize, _: usize| Some(lane * width + place);
            let y = self.map(&part, weight, scale, rows, |place, _| Some(place), |lane| lane == 0)?;
            match &mut sum {
                None => sum = Some(y),
                Some(sum) => self.slots.add_assign(sum, &y)?,
            }
        }
        Ok(SlotTensor::derived(sum.ok_or(SlotError::Form)?, 1.0 / scale, Lanes::Clean))
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

    fn add(&mut self, a: &Self::Tensor, b: &Self::Tensor) -> Result<Self::Tensor, SlotError> {
        let (high, low) =
            if self.slots.level(&a.vector) > self.slots.level(&b.vector) { (a, b) } else { (b, a) };
        let level = self.slots.level(&low.vector);
        if a.pending.is_some() || b.pending.is_some() || low.lanes == Lanes::Dirty {
            return Err(SlotError::Form);
        }
        let ratio = high.factor / low.factor;
        let mut sum = if self.slots.level(&high.vector) == level {
            if ratio != 1.0 || high.lanes != low.lanes {
                return Err(SlotError::Form);
            }
            self.slots.duplicate(&high.vector)?
        } else if high.lanes == Lanes::Dirty {
            let layout = self.layout;
            let first = |slot: usize| if layout.place(slot).1 == 0 { ratio } else { 0.0 };
            self.slots.multiply_known(&high.vector, &first, level)?
        } else {
            self.slots.scale(&high.vector, ratio, level)?
        };
        self.slots.add_assign(&mut sum, &low.vector)?;
        Ok(SlotTensor::derived(sum, low.factor, low.lanes))
    }

    fn layer_norm(&mut self, x: &Self::Tensor, norm: Norm) -> Result<Self::Tensor, SlotError> {
        let site = norm.site().ok_or(SlotError::Form)?;
        let approximation = self.approximation(site)?;
        let scale = self.norm_scale(norm)?;
        if (x.factor * scale - 1.0).abs() > 1e-9 || x.pending.is_some() || x.lanes == Lanes::Dirty {
            return Err(SlotError::Form);
        }
        let (config, layout, interval) = (self.config(), self.layout, approximation.interval());
        let mut variance = self.squared(&x.vector)?;
        self.fold(&mut variance, config.width, layout.feature_stride() as i64)?;
        let offset = (config.norm_epsilon - middle(interval)) / half(interval);
        let every = x.lanes == Lanes::All;
        // Empty lanes stay at 0, in the middle of the interval.
        let known = |slot: usize| if every || layout.place(slot).1 == 0 { offset } else { 0.0 };
        self.slots.add_known_assign(&mut variance, &known)?;
        let root = self.slots.chebyshev(&variance, approximation.coefficients())?;
        let vector = self.slots.multiply(&x.vector, &root)?;
        Ok(SlotTensor { pending: Some(norm), ..SlotTensor::derived(vector, x.factor, x.lanes) })
    }

    fn first_token(&mut self, x: &Self::Tensor) -> Result<Self::Tensor, SlotError> {
        let lanes = if x.lanes == Lanes::All { Lanes::Dirty } else { x.lanes };
        Ok(SlotTensor { vector: self.slots.duplicate(&x.vector)?, second: None, lanes, ..*x })
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
        // One query per sentence, clean so that it can be spread over the tokens.
        if query.lanes != Lanes::Clean || key.lanes != Lanes::All {
            return Err(SlotError::Form);
        }
        let (config, layout) = (self.config(), self.layout);
        let approximation = self.approximation(Site::Kernel(layer))?;
        let mut difference = self.slots.duplicate(&query.vector)?;
        self.fold(&mut difference, layout.length(), -(layout.batch() as i64))?;
        self.slots.subtract_assign(&mut difference, &key.vector)?;
        let mut exponent = self.squared(&difference)?;
        let stride = (config.heads * layout.feature_stride()) as i64;
        self.fold(&mut exponent, config.head_width(), stride)?;
        self.slots.negate_assign(&mut exponent)?;
        let interval = approximation.interval();
        self.slots.add_known_assign(&mut exponent, &|_| -middle(interval) / half(interval))?;
        let mut scores = self.slots.chebyshev(&exponent, approximation.coefficients())?;
        for _ in 0..approximation.squarings() {
            scores = self.squared(&scores)?;
        }
        Ok(SlotTensor::derived(scores, 1.0, Lanes::All))
    }

    fn mix(&mut self, scores: &Self::Tensor, value: &Self::Tensor) -> Result<Self::Tensor, SlotError> {
        let layout = self.layout;
        let mut mixed = self.slots.multiply(&scores.vector, &value.vector)?;
        self.fold(&mut mixed, layout.length(), layout.batch() as i64)?;
        Ok(SlotTensor::derived(mixed, scores.factor * value.factor, Lanes::Dirty))
    }

    fn gate(&mut self, hidden: &Self::Tensor, layer: usize) -> Result<Self::Tensor, SlotError> {
        let b = hidden.second.as_ref().ok_or(SlotError::Form)?;
        let approximation = self.approximation(Site::Gate(layer))?;
        let relu = self.slots.chebyshev(b, approximation.coefficients())?;
        let vector = self.slots.multiply(&hidden.vector, &relu)?;
        Ok(SlotTensor::derived(vector, hidden.factor, hidden.lanes))
    }

    fn tanh(&mut self, x: &Self::Tensor) -> Result<Self::Tensor, SlotError> {
        let approximation = self.approximation(Site::Tanh)?;
        let scale = 1.0 / half(approximation.interval());
        if (x.factor * scale - 1.0).abs() > 1e-9 || middle(approximation.interval()) != 0.0 {
            return Err(SlotError::Form);
        }
        let vector = self.slots.chebyshev(&x.vector, approximation.coefficients())?;
        Ok(SlotTensor::derived(vector, 1.0, x.lanes))
    }
}
