//! All weights of a model in one vector, found by name.

use std::ops::Range;

use veilformer::transformer::{Config, Norm, Parameter, Projection, Shape, Site};

use crate::random::Random;
use crate::scalar::Scalar;

/// The weights, in the order of [`Parameter::all`].
#[derive(Debug, Clone, PartialEq)]
pub struct Parameters<F> {
    layout: Vec<(Parameter, Range<usize>)>,
    values: Vec<F>,
}

impl<F: Scalar> Parameters<F> {
    /// All zero: also the shape of a gradient.
    pub fn zeros(config: &Config) -> Self {
        let mut end = 0;
        let layout = Parameter::all(config)
            .map(|p| {
                let start = end;
                end += p.shape(config).len();
                (p, start..end)
            })
            .collect();
        Self { layout, values: vec![F::default(); end] }
    }

    /// Random weights to start training from: normal with variance 1/inputs, gains 1, biases and LoRA's B zero, and
    /// queries and keys at half that size so that the kernel starts well inside (0, 1), and W_O, behind a sum over
    /// all tokens, at a fifth.
    pub fn random(config: &Config, seed: u64) -> Self {
        let mut this = Self::zeros(config);
        for (index, (parameter, range)) in this.layout.clone().into_iter().enumerate() {
            let mut random = Random::new(seed, index as u64);
            let fan_in = 1.0 / (parameter.shape(config).rows as f64).sqrt();
            let (mean, deviation) = match parameter {
                Parameter::TokenEmbedding => (0.0, 1.0),
                Parameter::PositionScale => (0.3, 0.0),
                Parameter::Gain(_) => (1.0, 0.0),
                Parameter::Bias(_) | Parameter::LoraUp(..) => (0.0, 0.0),
                Parameter::Attention(Projection::Query | Projection::Key, _) => (0.0, 0.5 * fan_in),
                Parameter::Output(_) => (0.0, 0.2 * fan_in),
                _ => (0.0, fan_in),
            };
            for value in &mut this.values[range] {
                *value = F::from_f64(mean + deviation * random.normal());
            }
        }
        this
    }

    /// The names and where each one lies.
    pub fn layout(&self) -> &[(Parameter, Range<usize>)] {
        &self.layout
    }

    /// Every weight.
    pub fn values(&self) -> &[F] {
        &self.values
    }

    /// Every weight.
    pub fn values_mut(&mut self) -> &mut [F] {
        &mut self.values
    }

    /// One parameter, row by row; empty where the model has none of that name.
    pub fn get(&self, parameter: Parameter) -> &[F] {
        self.range(parameter).map_or(&[], |range| &self.values[range])
    }

    /// One parameter, row by row; empty where the model has none of that name.
    pub fn get_mut(&mut self, parameter: Parameter) -> &mut [F] {
        match self.range(parameter) {
            Some(range) => &mut self.values[range],
            None => &mut [],
        }
    }

    fn range(&self, parameter: Parameter) -> Option<Range<usize>> {
        self.layout.iter().find(|(p, _)| *p == parameter).map(|(_, range)| range.clone())
    }

    /// The same weights in another precision.
    pub fn convert<G: Scalar>(&self) -> Parameters<G> {
        let values = self.values.iter().map(|x| G::from_f64(x.to_f64())).collect();
        Parameters { layout: self.layout.clone(), values }
    }
}

/// The name of a weight in a model file.
pub fn parameter_name(parameter: Parameter) -> String {
    let projection = |p| match p {
        Projection::Query => "query",
        Projection::Key => "key",
        Projection::Value => "value",
    };
    let norm = |n| match n {
        Norm::Embedding => "embedding.norm".to_owned(),
        Norm::First(l) => format!("layer.{l}.first_norm"),
        Norm::Second(l) => format!("layer.{l}.second_norm"),
        Norm::Final => "final_norm".to_owned(),
    };
    match parameter {
        Parameter::TokenEmbedding => "embedding.token".to_owned(),
        Parameter::PositionScale => "embedding.position_scale".to_owned(),
        Parameter::Gain(n) => norm(n) + ".gain",
        Parameter::Bias(n) => norm(n) + ".bias",
        Parameter::Attention(p, l) => format!("layer.{l}.attention.{}", projection(p)),
        Parameter::LoraDown(p, l) => format!("layer.{l}.attention.{}.lora_a", projection(p)),
        Parameter::LoraUp(p, l) => format!("layer.{l}.attention.{}.lora_b", projection(p)),
        Parameter::Output(l) => format!("layer.{l}.attention.output"),
        Parameter::Expand(l) => format!("layer.{l}.feed_forward.expand"),
        Parameter::Contract(l) => format!("layer.{l}.feed_forward.contract"),
        Parameter::HeadDown => "head.down".to_owned(),
        Parameter::HeadUp => "head.up".to_owned(),
        Parameter::Classifier => "head.classifier".to_owned(),
    }
}

/// The name of a site in a model file.
pub fn site_name(site: Site) -> String {
    match site {
        Site::FirstNorm(l) => format!("layer.{l}.first_norm"),
        Site::Kernel(l) => format!("layer.{l}.kernel"),
        Site::SecondNorm(l) => format!("layer.{l}.second_norm"),
        Site::Gate(l) => format!("layer.{l}.gate"),
        Site::FinalNorm => "final_norm".to_owned(),
        Site::Tanh => "tanh".to_owned(),
        Site::Normaliser(l) => format!("layer.{l}.normaliser"),
        Site::LossExp => "loss.exp".to_owned(),
        Site::LossInverse => "loss.inverse".to_owned(),
        Site::Optimizer => "optimizer".to_owned(),
    }
}

/// The shape and name of every weight, for files and messages.
pub fn describe(config: &Config) -> impl Iterator<Item = (Parameter, String, Shape)> + use<> {
    let config = *config;
    Parameter::all(&config).map(move |p| (p, parameter_name(p), p.shape(&config)))
}
