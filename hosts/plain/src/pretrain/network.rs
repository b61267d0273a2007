//! The encoder over a batch of sequences, forward and backward, for masked language modelling.
//!
//! It computes what `veilformer::transformer` describes, with two differences that pre-training asks for: every token
//! goes through the last layer, and the last norm's rows are compared with the token embedding (tied weights) in place of the
//! head. Sequences are stacked, so that a linear map is one matrix product over all their tokens. The tests hold it
//! against the plain executor and numeric gradients.

use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, s};
use veilformer::transformer::{Config, Kernel, Norm, Parameter, Projection, Site, position};

use super::rows::{self, Normed};
use super::{Batch, Bound, Bounds};
use crate::parameters::Parameters;
use crate::sites::Ranges;
use crate::tokenizer::FIRST;

/// Rows of logits at a time: as many as stay in a second-level cache.
const LOGIT_ROWS: usize = 64;

/// What a batch came to.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Sum of the losses of its predictions, penalties not included.
    pub loss: f64,
    /// The arguments seen at every site but tanh.
    pub ranges: Ranges,
}

/// How much one prediction's loss and one token's penalties count.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shares {
    /// 1 over the predictions of a step.
    pub prediction: f32,
    /// 1 over the tokens of a step.
    pub penalty: f32,
}

/// A layer that has run.
struct Layer {
    first: Option<Normed>,
    input: Array2<f32>,
    query: Array2<f32>,
    key: Array2<f32>,
    value: Array2<f32>,
    /// One T×T block per (sequence, head).
    scores: Array2<f32>,
    /// Of softmax: the sum of exponentials of every row of scores.
    totals: Vec<f32>,
    mixed: Array2<f32>,
    second: Normed,
    hidden: Array2<f32>,
    gated: Array2<f32>,
}

/// A pass over one batch.
struct Pass<'a> {
    config: &'a Config,
    weights: &'a Parameters<f32>,
    batch: &'a Batch,
    bounds: &'a Bounds,
    shares: Shares,
    ranges: Ranges,
    /// The sinusoids, T×d row by row.
    positions: Vec<f32>,
}

/// Loss of a batch, its gradient added to `gradients` (LoRA and head get none), and the ranges of its arguments.
///
/// The sequences of `batch` have `config.length` tokens each; tokens and rows must be in range.
pub fn step(
    config: &Config,
    weights: &Parameters<f32>,
    batch: &Batch,
    (bounds, shares): (&Bounds, Shares),
    gradients: &mut Parameters<f32>,
) -> Outcome {
    let &Config { width, length, .. } = config;
    let positions = (0..length * width).map(|i| position(i / width, i % width, width) as f32).collect();
    let mut pass = Pass { config, weights, batch, bounds, shares, ranges: Ranges::new(config), positions };
    let embedding = pass.embed();
    let mut x = embedding.output.clone();
    let mut layers = Vec::with_capacity(config.layers);
    for layer in 0..config.layers {
        let (y, tape) = pass.layer(layer, x);
        x = y;
        layers.push(tape);
    }
    let (loss, mut d) = pass.predict(&x, gradients);
    for (layer, tape) in layers.iter().enumerate().rev() {
        d = pass.layer_backward(layer, tape, d, gradients);
    }
    pass.norm_backward(&embedding, &mut d, Norm::Embedding, gradients);
    pass.scatter(&d, gradients);
    Outcome { loss, ranges: pass.ranges }
}

/// A yardstick that nothing random enters: the mean loss of every fourth piece of the first `sequences` stretches of T − 1
/// pieces of a stream, hidden behind the piece `mask`. Token 0 predicts nothing here.
pub fn probe(config: &Config, weights: &Parameters<f32>, mask: u32, stream: &[u16], sequences: usize) -> f64 {
    let bounds = Bounds::new(config, |_| Bound::NONE);
    let (mut loss, mut count) = (0.0, 0.0);
    for pieces in stream.chunks_exact(config.length - 1).take(sequences) {
        let mut batch = Batch { used: vec![config.length], ..Batch::default() };
        batch.tokens.push(FIRST);
        batch.tokens.extend(pieces.iter().map(|&piece| u32::from(piece)));
        for row in (4..config.length).step_by(4) {
            batch.predictions.push((row, batch.tokens[row]));
            batch.tokens[row] = mask;
        }
        let shares = Shares { prediction: 1.0, penalty: 0.0 };
        count += batch.predictions.len() as f64;
        loss += step(config, weights, &batch, (&bounds, shares), &mut Parameters::zeros(config)).loss;
    }
    loss / count
}

impl Pass<'_> {
    fn matrix(&self, parameter: Parameter) -> ArrayView2<'_, f32> {
        let shape = parameter.shape(self.config);
        ArrayView2::from_shape((shape.rows, shape.columns), self.weights.get(parameter))
            .unwrap_or_else(|_| ArrayView2::from(&[[0.0f32; 0]; 0]))
    }

    fn norm(&mut self, x: &Array2<f32>, norm: Norm) -> Normed {
        let (gain, bias) = (self.weights.get(Parameter::Gain(norm)), self.weights.get(Parameter::Bias(norm)));
        let normed = rows::norm(x, gain, bias, self.config.norm_epsilon as f32);
        if let Some(site) = norm.site() {
            normed.factors.iter().for_each(|&r| self.ranges.note(site, f64::from(1.0 / (r * r))));
        }
        normed
    }

    fn norm_backward(
        &self,
        normed: &Normed,
        d: &mut Array2<f32>,
        norm: Norm,
        gradients: &mut Parameters<f32>,
    ) {
        let gain = self.weights.get(Parameter::Gain(norm));
        let (mut d_gain, mut d_bias) = (vec![0.0; gain.len()], vec![0.0; gain.len()]);
        let bound = norm.site().map_or(Bound::NONE, |site| self.bounds.of(site));
        let slope = |v| self.shares.penalty * bound.slope(v);
        rows::norm_backward(normed, d, gain, (&mut d_gain, &mut d_bias), slope);
        for (parameter, sum) in [(Parameter::Gain(norm), d_gain), (Parameter::Bias(norm), d_bias)] {
            gradients.get_mut(parameter).iter_mut().zip(sum).for_each(|(g, d)| *g += d);
        }
    }

    /// Tokens and positions, normalised.
    fn embed(&mut self) -> Normed {
        let &Config { width, length, .. } = self.config;
        let (table, scale) = (self.weights.get(Parameter::TokenEmbedding), self.position_scale());
        let mut x = Array2::zeros((self.batch.tokens.len(), width));
        for (row, (y, &token)) in rows::rows_mut(&mut x).zip(&self.batch.tokens).enumerate() {
            let places = &self.positions[row % length * width..][..width];
            let entry = &table[token as usize * width..][..width];
            for ((y, &e), &p) in y.iter_mut().zip(entry).zip(places) {
                *y = e + scale * p;
            }
        }
        self.norm(&x, Norm::Embedding)
    }

    fn position_scale(&self) -> f32 {
        self.weights.get(Parameter::PositionScale).first().copied().unwrap_or(0.0)
    }

    /// The gradients of token embeddings and of the positions' factor.
    fn scatter(&self, d: &Array2<f32>, gradients: &mut Parameters<f32>) {
        let &Config { width, length, .. } = self.config;
        let mut d_scale = 0.0;
        let table = gradients.get_mut(Parameter::TokenEmbedding);
        for (row, (d, &token)) in rows::rows(d).zip(&self.batch.tokens).enumerate() {
            let places = &self.positions[row % length * width..][..width];
            d_scale += d.iter().zip(places).map(|(d, p)| d * p).sum::<f32>();
            table[token as usize * width..][..width].iter_mut().zip(d).for_each(|(g, d)| *g += d);
        }
        gradients.get_mut(Parameter::PositionScale).iter_mut().for_each(|g| *g += d_scale);
    }

    /// x + Attn(LN(x)), then x + FFN(LN(x)).
    fn layer(&mut self, layer: usize, input: Array2<f32>) -> (Array2<f32>, Layer) {
        let first = self.config.has_first_norm(layer).then(|| self.norm(&input, Norm::First(layer)));
        let x = first.as_ref().map_or(&input, |normed| &normed.output);
        let [query, key, mut value] = [Projection::Query, Projection::Key, Projection::Value]
            .map(|p| x.dot(&self.matrix(Parameter::Attention(p, layer))));
        self.mask(&mut value);
        let (scores, totals, mixed) = self.attend(layer, &query, &key, &value);
        let mut middle = input.clone();
        general_mat_mul(1.0, &mixed, &self.matrix(Parameter::Output(layer)), 1.0, &mut middle);
        let second = self.norm(&middle, Norm::Second(layer));
        let hidden = second.output.dot(&self.matrix(Parameter::Expand(layer)));
        let gated = self.gate(layer, &hidden);
        let mut output = middle;
        general_mat_mul(1.0, &gated, &self.matrix(Parameter::Contract(layer)), 1.0, &mut output);
        (output, Layer { first, input, query, key, value, scores, totals, mixed, second, hidden, gated })
    }

    /// Values of padding are 0.
    fn mask(&self, value: &mut Array2<f32>) {
        let length = self.config.length;
        for (sequence, &used) in self.batch.used.iter().enumerate() {
            value.slice_mut(s![sequence * length + used..(sequence + 1) * length, ..]).fill(0.0);
        }
    }

    /// (first token, first score row, first column) of every head of every sequence.
    fn heads(&self) -> impl Iterator<Item = (usize, usize, usize)> + use<> {
        let &Config { heads, length, .. } = self.config;
        let n = self.config.head_width();
        (0..self.batch.used.len())
            .flat_map(move |b| (0..heads).map(move |h| (b * length, (b * heads + h) * length, h * n)))
    }

    fn attend(
        &mut self,
        layer: usize,
        query: &Array2<f32>,
        key: &Array2<f32>,
        value: &Array2<f32>,
    ) -> (Array2<f32>, Vec<f32>, Array2<f32>) {
        let (t, n, c) = (self.config.length, self.config.head_width(), self.config.kernel_scale() as f32);
        let mut scores = Array2::zeros((self.batch.used.len() * self.config.heads * t, t));
        let (mut totals, mut mixed) = (Vec::new(), Array2::zeros(query.raw_dim()));
        for (token, row, column) in self.heads() {
            let block = s![token..token + t, column..column + n];
            let (q, k, v) = (query.slice(block), key.slice(block), value.slice(block));
            let mut scores = scores.slice_mut(s![row..row + t, ..]);
            general_mat_mul(2.0 * c, &q, &k.t(), 0.0, &mut scores);
            match self.config.kernel {
                Kernel::Gaussian => self.gaussian(layer, [&q, &k], &mut scores),
                Kernel::Softmax => self.softmax(layer, self.batch.used[token / t], &mut scores, &mut totals),
            }
            general_mat_mul(1.0, &scores, &v, 0.0, &mut mixed.slice_mut(block));
        }
        (scores, totals, mixed)
    }

    /// exp(−c·(q − k)²) of one head, given 2c·q·k.
    fn gaussian(
        &mut self,
        layer: usize,
        [q, k]: [&ArrayView2<'_, f32>; 2],
        scores: &mut ArrayViewMut2<'_, f32>,
    ) {
        let c = self.config.kernel_scale() as f32;
        let sizes = |x: &ArrayView2<'_, f32>| -> Vec<f32> {
            x.rows().into_iter().map(|r| c * r.as_slice().map_or(0.0, rows::squares)).collect()
        };
        let (q_sizes, k_sizes) = (sizes(q), sizes(k));
        let mut least = 0.0f32;
        for (mut scores, q_size) in scores.rows_mut().into_iter().zip(q_sizes) {
            least = least.min(rows::kernel(&mut scores, q_size, &k_sizes));
        }
        self.ranges.note(Site::Kernel(layer), f64::from(least));
        self.ranges.note(Site::Kernel(layer), 0.0);
    }

    /// Softmax of one head over the keys that are no padding.
    fn softmax(
        &mut self,
        layer: usize,
        used: usize,
        scores: &mut ArrayViewMut2<'_, f32>,
        totals: &mut Vec<f32>,
    ) {
        for mut row in scores.rows_mut() {
            let Some(row) = row.as_slice_mut() else { continue };
            let (least, most, total) = rows::softmax(row, used);
            for (site, argument) in
                [(Site::Kernel(layer), least), (Site::Kernel(layer), most), (Site::Normaliser(layer), total)]
            {
                self.ranges.note(site, f64::from(argument));
            }
            totals.push(total);
        }
    }

    fn gate(&mut self, layer: usize, hidden: &Array2<f32>) -> Array2<f32> {
        let half = self.config.feed_forward;
        let mut gated = Array2::zeros((hidden.nrows(), half));
        let (mut least, mut most) = (0.0f32, 0.0f32);
        for (y, x) in rows::rows_mut(&mut gated).zip(rows::rows(hidden)) {
            let (a, b) = x.split_at(half);
            for ((y, &a), &b) in y.iter_mut().zip(a).zip(b) {
                *y = a * b.max(0.0);
                least = least.min(b);
                most = most.max(b);
            }
        }
        self.ranges.note(Site::Gate(layer), f64::from(least));
        self.ranges.note(Site::Gate(layer), f64::from(most));
        gated
    }

    /// The loss, and its gradient by the last layer's output.
    fn predict(&mut self, x: &Array2<f32>, gradients: &mut Parameters<f32>) -> (f64, Array2<f32>) {
        let batch = self.batch;
        let normed = self.norm(&rows::gather(x, batch.predictions.iter().map(|p| p.0)), Norm::Final);
        let table = self.matrix(Parameter::TokenEmbedding);
        let mut d = Array2::zeros(normed.output.raw_dim());
        let mut loss = 0.0;
        for (i, predictions) in batch.predictions.chunks(LOGIT_ROWS).enumerate() {
            let block = s![i * LOGIT_ROWS..i * LOGIT_ROWS + predictions.len(), ..];
            let y = normed.output.slice(block);
            let mut logits = y.dot(&table.t());
            let targets = predictions.iter().map(|p| p.1);
            loss += rows::cross_entropy(&mut logits, targets, self.shares.prediction);
            general_mat_mul(1.0, &logits, &table, 0.0, &mut d.slice_mut(block));
            rows::add_product(&logits.view(), &y, gradients.get_mut(Parameter::TokenEmbedding));
        }
        self.norm_backward(&normed, &mut d, Norm::Final, gradients);
        let mut dx = Array2::zeros(x.raw_dim());
        for (d, &(row, _)) in d.rows().into_iter().zip(&batch.predictions) {
            dx.row_mut(row).scaled_add(1.0, &d);
        }
        (loss, dx)
    }

    /// The gradient by a layer's input, from the one by its output.
    fn layer_backward(
        &self,
        layer: usize,
        tape: &Layer,
        mut d: Array2<f32>,
        gradients: &mut Parameters<f32>,
    ) -> Array2<f32> {
        let back = |dy: &Array2<f32>, parameter| dy.dot(&self.matrix(parameter).t());
        let mut add = |x: &Array2<f32>, dy: &Array2<f32>, parameter| {
            rows::add_product(&x.view(), &dy.view(), gradients.get_mut(parameter));
        };
        add(&tape.gated, &d, Parameter::Contract(layer));
        let d_hidden = self.gate_backward(layer, &tape.hidden, &back(&d, Parameter::Contract(layer)));
        add(&tape.second.output, &d_hidden, Parameter::Expand(layer));
        let mut d_normed = back(&d_hidden, Parameter::Expand(layer));
        self.norm_backward(&tape.second, &mut d_normed, Norm::Second(layer), gradients);
        d += &d_normed;

        let mut add = |x: &Array2<f32>, dy: &Array2<f32>, parameter| {
            rows::add_product(&x.view(), &dy.view(), gradients.get_mut(parameter));
        };
        add(&tape.mixed, &d, Parameter::Output(layer));
        let d_mixed = back(&d, Parameter::Output(layer));
        let d_projected = self.attend_backward(layer, tape, &d_mixed);
        let x = tape.first.as_ref().map_or(&tape.input, |normed| &normed.output);
        let mut dx = Array2::zeros(x.raw_dim());
        let projections = [Projection::Query, Projection::Key, Projection::Value];
        for (dy, p) in d_projected.iter().zip(projections) {
            let parameter = Parameter::Attention(p, layer);
            add(x, dy, parameter);
            general_mat_mul(1.0, dy, &self.matrix(parameter).t(), 1.0, &mut dx);
        }
        if let Some(first) = &tape.first {
            self.norm_backward(first, &mut dx, Norm::First(layer), gradients);
        }
        d += &dx;
        d
    }

    fn gate_backward(&self, layer: usize, hidden: &Array2<f32>, d_gated: &Array2<f32>) -> Array2<f32> {
        let half = self.config.feed_forward;
        let (bound, share) = (self.bounds.of(Site::Gate(layer)), self.shares.penalty);
        let mut d = hidden.clone();
        for (x, dy) in rows::rows_mut(&mut d).zip(rows::rows(d_gated)) {
            let (a, b) = x.split_at_mut(half);
            for ((a, b), &dy) in a.iter_mut().zip(b).zip(dy) {
                let slope = if *b > 0.0 { *a } else { 0.0 };
                *a = dy * b.max(0.0);
                *b = dy * slope + share * bound.slope(*b);
            }
        }
        d
    }

    /// The gradients by queries, keys and (masked) values.
    fn attend_backward(&self, layer: usize, tape: &Layer, d_mixed: &Array2<f32>) -> [Array2<f32>; 3] {
        let (t, n, c) = (self.config.length, self.config.head_width(), self.config.kernel_scale() as f32);
        let [mut dq, mut dk, mut dv] = [(); 3].map(|()| Array2::zeros(d_mixed.raw_dim()));
        let mut dz = Array2::zeros((t, t));
        for (token, row, column) in self.heads() {
            let block = s![token..token + t, column..column + n];
            let (q, k, v, d) = (
                tape.query.slice(block),
                tape.key.slice(block),
                tape.value.slice(block),
                d_mixed.slice(block),
            );
            let scores = tape.scores.slice(s![row..row + t, ..]);
            general_mat_mul(1.0, &scores.t(), &d, 0.0, &mut dv.slice_mut(block));
            general_mat_mul(1.0, &d, &v.t(), 0.0, &mut dz);
            let (mut dq, mut dk) = (dq.slice_mut(block), dk.slice_mut(block));
            match self.config.kernel {
                Kernel::Gaussian => self.gaussian_backward(layer, &scores, &mut dz),
                Kernel::Softmax => {
                    self.softmax_backward(layer, &scores, &tape.totals[row..row + t], &mut dz);
                }
            }
            // dz/dq = 2c·k, dz/dk = 2c·q; of the Gaussian kernel, z = −c·(q − k)², the squares follow.
            general_mat_mul(2.0 * c, &dz, &k, 0.0, &mut dq);
            general_mat_mul(2.0 * c, &dz.t(), &q, 0.0, &mut dk);
            if self.config.kernel == Kernel::Gaussian {
                let (by_query, by_key) = (dz.sum_axis(Axis(1)), dz.sum_axis(Axis(0)));
                for ((mut dq, q), &a) in dq.rows_mut().into_iter().zip(q.rows()).zip(&by_query) {
                    dq.scaled_add(-2.0 * c * a, &q);
                }
                for ((mut dk, k), &b) in dk.rows_mut().into_iter().zip(k.rows()).zip(&by_key) {
                    dk.scaled_add(-2.0 * c * b, &k);
                }
            }
        }
        self.mask(&mut dv);
        [dq, dk, dv]
    }

    /// The gradient by the exponents of one head, from the one by its scores, penalties included.
    fn gaussian_backward(&self, layer: usize, scores: &ArrayView2<'_, f32>, dz: &mut Array2<f32>) {
        let bound = self.bounds.of(Site::Kernel(layer));
        let floor = rows::exp(bound.low);
        *dz *= scores;
        for (dz, &s) in dz.iter_mut().zip(scores).filter(|(_, s)| **s < floor) {
            *dz += self.shares.penalty * bound.slope(s.max(f32::MIN_POSITIVE).ln());
        }
    }

    /// The same of softmax.
    fn softmax_backward(
        &self,
        layer: usize,
        scores: &ArrayView2<'_, f32>,
        totals: &[f32],
        dz: &mut Array2<f32>,
    ) {
        let bound = self.bounds.of(Site::Kernel(layer));
        for ((mut dz, scores), &total) in dz.rows_mut().into_iter().zip(scores.rows()).zip(totals) {
            let along = dz.dot(&scores);
            for (dz, &s) in dz.iter_mut().zip(&scores) {
                // Padding has a score of 0, and no exponent.
                let slope = if s > 0.0 { bound.slope((s * total).ln()) } else { 0.0 };
                *dz = (*dz - along) * s + self.shares.penalty * slope;
            }
        }
    }
}
