//! Where in the program a bootstrap stands.

use super::Recorder;
use std::fmt::Debug;
use veilformer::transformer::{Config, Executor, Norm, Parameter, Site, Trainable, TrainingExecutor};

/// Passes every operation of the program on and tells a [`Recorder`] which it is.
pub(super) struct Located<'r, E> {
    inner: E,
    recorder: &'r Recorder<'r>,
}

impl<'r, E> Located<'r, E> {
    pub(super) fn new(inner: E, recorder: &'r Recorder<'r>) -> Self {
        Self { inner, recorder }
    }

    pub(super) fn inner(&mut self) -> &mut E {
        &mut self.inner
    }

    fn doing(&mut self, what: &str) -> &mut E {
        self.recorder.at(what.to_owned());
        &mut self.inner
    }

    fn at(&mut self, what: &str, of: &dyn Debug) -> &mut E {
        self.recorder.at(format!("{what} {of:?}"));
        &mut self.inner
    }
}

impl<E: Executor> Executor for Located<'_, E> {
    type Tensor = E::Tensor;
    type Error = E::Error;

    fn linear(&mut self, x: &E::Tensor, weight: Parameter) -> Result<E::Tensor, E::Error> {
        self.at("product with", &weight).linear(x, weight)
    }

    fn add(&mut self, a: &E::Tensor, b: &E::Tensor) -> Result<E::Tensor, E::Error> {
        self.doing("sum").add(a, b)
    }

    fn multiply(&mut self, a: &E::Tensor, b: &E::Tensor) -> Result<E::Tensor, E::Error> {
        self.doing("product").multiply(a, b)
    }

    fn apply(&mut self, x: &E::Tensor, site: Site) -> Result<E::Tensor, E::Error> {
        self.at("function", &site).apply(x, site)
    }

    fn layer_norm(&mut self, x: &E::Tensor, norm: Norm) -> Result<E::Tensor, E::Error> {
        self.at("norm", &norm).layer_norm(x, norm)
    }

    fn first_token(&mut self, x: &E::Tensor) -> Result<E::Tensor, E::Error> {
        self.doing("first token").first_token(x)
    }

    fn mask_tokens(&mut self, x: &E::Tensor, mask: &E::Tensor) -> Result<E::Tensor, E::Error> {
        self.doing("mask").mask_tokens(x, mask)
    }

    fn gaussian_scores(&mut self, q: &E::Tensor, k: &E::Tensor, layer: usize) -> Result<E::Tensor, E::Error> {
        self.at("kernel", &layer).gaussian_scores(q, k, layer)
    }

    fn softmax_scores(
        &mut self,
        q: &E::Tensor,
        k: &E::Tensor,
        mask: &E::Tensor,
        layer: usize,
    ) -> Result<E::Tensor, E::Error> {
        self.at("softmax", &layer).softmax_scores(q, k, mask, layer)
    }

    fn mix(&mut self, scores: &E::Tensor, value: &E::Tensor) -> Result<E::Tensor, E::Error> {
        self.doing("scores times values").mix(scores, value)
    }

    fn gate(&mut self, hidden: &E::Tensor, layer: usize) -> Result<E::Tensor, E::Error> {
        self.at("gate", &layer).gate(hidden, layer)
    }
}

impl<E: TrainingExecutor> TrainingExecutor for Located<'_, E> {
    fn trained(&self) -> Trainable {
        self.inner.trained()
    }

    fn subtract(&mut self, a: &E::Tensor, b: &E::Tensor) -> Result<E::Tensor, E::Error> {
        self.doing("difference").subtract(a, b)
    }

    fn scale(&mut self, x: &E::Tensor, factor: f64) -> Result<E::Tensor, E::Error> {
        self.doing("scaling").scale(x, factor)
    }

    fn linear_transposed(&mut self, dy: &E::Tensor, weight: Parameter) -> Result<E::Tensor, E::Error> {
        self.at("gradient through", &weight).linear_transposed(dy, weight)
    }

    fn accumulate(&mut self, x: &E::Tensor, dy: &E::Tensor, weight: Parameter) -> Result<(), E::Error> {
        self.at("gradient of", &weight).accumulate(x, dy, weight)
    }

    fn head_products(&mut self, x: &E::Tensor, y: &E::Tensor) -> Result<E::Tensor, E::Error> {
        self.doing("products of heads").head_products(x, y)
    }

    fn mix_transposed(&mut self, scores: &E::Tensor, x: &E::Tensor) -> Result<E::Tensor, E::Error> {
        self.doing("transposed scores times").mix_transposed(scores, x)
    }

    fn weigh_by_rows(&mut self, scores: &E::Tensor, x: &E::Tensor) -> Result<E::Tensor, E::Error> {
        self.doing("weights by rows").weigh_by_rows(scores, x)
    }

    fn weigh_by_columns(&mut self, scores: &E::Tensor, x: &E::Tensor) -> Result<E::Tensor, E::Error> {
        self.doing("weights by columns").weigh_by_columns(scores, x)
    }

    fn kernel_backward(
        &mut self,
        scores: &E::Tensor,
        d_scores: &E::Tensor,
        layer: usize,
    ) -> Result<E::Tensor, E::Error> {
        self.at("gradient through kernel", &layer).kernel_backward(scores, d_scores, layer)
    }

    fn exponents_backward(
        &mut self,
        config: &Config,
        e: &E::Tensor,
        by: [&E::Tensor; 2],
        wanted: [bool; 2],
    ) -> Result<[Option<E::Tensor>; 2], E::Error> {
        self.doing("gradient through exponents").exponents_backward(config, e, by, wanted)
    }

    fn layer_norm_backward(
        &mut self,
        x: &E::Tensor,
        dy: &E::Tensor,
        norm: Norm,
    ) -> Result<E::Tensor, E::Error> {
        self.at("gradient through norm", &norm).layer_norm_backward(x, dy, norm)
    }

    fn gate_backward(
        &mut self,
        hidden: &E::Tensor,
        d_gated: &E::Tensor,
        layer: usize,
    ) -> Result<E::Tensor, E::Error> {
        self.at("gradient through gate", &layer).gate_backward(hidden, d_gated, layer)
    }

    fn tanh_backward(&mut self, x: &E::Tensor, y: &E::Tensor, dy: &E::Tensor) -> Result<E::Tensor, E::Error> {
        self.doing("gradient through tanh").tanh_backward(x, y, dy)
    }

    fn add_to_first_token(&mut self, x: &E::Tensor, first: &E::Tensor) -> Result<E::Tensor, E::Error> {
        self.doing("sum with first tokens").add_to_first_token(x, first)
    }

    fn centre(&mut self, x: &E::Tensor) -> Result<E::Tensor, E::Error> {
        self.doing("centring").centre(x)
    }

    fn row_sums(&mut self, x: &E::Tensor) -> Result<E::Tensor, E::Error> {
        self.doing("sum over outputs").row_sums(x)
    }
}
