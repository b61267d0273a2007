//! Models to plan for: one in a folder, or one of given sizes that does not exist yet.
//!
//! What a job costs depends on sizes and degrees, hardly on weights. Where a model has none, or was not calibrated for
//! training, it gets random ones and the intervals that penalties keep models of this kind to, and the gradients seen in
//! fine-tuning of `veil-tiny`'s sizes; a job that is planned so still has to be planned again once its model exists.

use crate::exit::{Exit, Failure};
use crate::work::{ModelArgs, Work};
use std::path::Path;
use veilformer::approx::ApproxError;
use veilformer::transformer::{Config, Kernel, Site};
use veilformer_plain::data::Task;
use veilformer_plain::parameters::Parameters;
use veilformer_plain::sites::{Approximations, Budget, Ranges};
use veilformer_plain::slots::Weights;
use veilformer_plain::tiny;

/// A model to plan for.
pub(crate) struct Typical {
    pub(crate) name: String,
    pub(crate) config: Config,
    parameters: Parameters<f64>,
    approximations: Approximations,
    /// Whether anything of it is assumed.
    pub(crate) is_assumed: bool,
}

const SEED: u64 = 1;

/// Arguments that training keeps every site to, before the polynomials' margin. Nothing keeps softmax's sums of exponentials:
/// those are what an encoder of 64 tokens had (assets/PROVENANCE.md), in proportion.
fn arguments(config: &Config, site: Site) -> (f64, f64) {
    match site {
        Site::FirstNorm(_) | Site::SecondNorm(_) | Site::FinalNorm => (0.9, 2.2),
        Site::Kernel(_) => (-6.0, 0.0),
        Site::Gate(_) => (-3.0, 3.0),
        Site::Tanh | Site::LossExp => (-3.0, 3.0),
        Site::Normaliser(_) => (0.5, 4.0 * config.length as f64),
        Site::LossInverse => (config.classes as f64, 8.0 * config.classes as f64),
        Site::Optimizer => (1.0, 20.0),
    }
}

/// The largest gradients by what the sites return, of one sentence; by a weight at [`Site::Optimizer`].
fn gradients(site: Site) -> f64 {
    match site {
        Site::Kernel(_) | Site::Tanh => 0.5,
        Site::Gate(_) | Site::Optimizer => 0.1,
        _ => 0.3,
    }
}

/// As calibration has it, but for a Gaussian kernel that nothing was trained to keep in a narrow interval.
pub(crate) fn budget(config: &Config, site: Site) -> Budget {
    let Budget { degree, .. } = tiny::budget(config, site);
    let squarings = match site {
        Site::Kernel(_) if config.kernel == Kernel::Gaussian => 2,
        _ => 0,
    };
    Budget { degree, squarings, margin: 1.5 }
}

impl Typical {
    /// A model in a folder, as it is or for a task.
    pub(crate) fn load(folder: Option<&Path>, task: Option<Task>, lora_rank: u8) -> Result<Self, Failure> {
        let work = Work::load(&ModelArgs::of(folder, task, lora_rank))?;
        let name = folder
            .and_then(Path::file_name)
            .map_or_else(|| "veil-tiny".into(), |name| name.to_string_lossy());
        Self::complete(name.into_owned(), work.config, work.weights, work.approximations)
    }

    /// One of given sizes: `layers=2,width=768,…`, those of `veil-tiny` where nothing is said.
    pub(crate) fn of_sizes(sizes: &str, task: Option<Task>, lora_rank: usize) -> Result<Self, Failure> {
        let mut config = tiny::config(1);
        let mut narrow = true;
        for part in sizes.split(',').filter(|part| !part.is_empty()) {
            let usage = || {
                let message = format!(
                    "--config: {part:?} is no size; expected for instance layers=2,width=768,heads=12,length=128; \
                     there are layers, width, heads, length, feed_forward, head_rank, head_hidden, classes, \
                     first_norm and softmax (0 or 1)"
                );
                Failure::new(Exit::Usage, message)
            };
            let (name, value) = part.split_once('=').ok_or_else(usage)?;
            let value: usize = value.parse().ok().filter(|v| *v <= 1 << 16).ok_or_else(usage)?;
            match name.trim() {
                "layers" => config.layers = value,
                "width" => config.width = value,
                "heads" => config.heads = value,
                "length" => config.length = value,
                "feed_forward" => (config.feed_forward, narrow) = (value, false),
                "head_rank" => config.head_rank = value,
                "head_hidden" => config.head_hidden = value,
                "classes" => config.classes = value,
                "first_norm" => config.first_norm = value != 0,
                "softmax" if value != 0 => config.kernel = Kernel::Softmax,
                "softmax" => config.kernel = Kernel::Gaussian,
                _ => return Err(usage()),
            }
        }
        if narrow {
            config.feed_forward = 2 * config.width;
        }
        if let Some(task) = task {
            (config.classes, config.loss) = task.outputs();
        }
        config.lora_rank = lora_rank;
        config.validate().map_err(|error| Failure::new(Exit::Usage, format!("--config: {error}")))?;
        let parameters = Parameters::random(&config, SEED);
        Self::complete("random".into(), config, parameters, Approximations::new(&config))
    }

    fn complete(
        name: String,
        config: Config,
        parameters: Parameters<f64>,
        known: Approximations,
    ) -> Result<Self, Failure> {
        let unusable = |error: ApproxError| Failure::new(Exit::Failure, error.to_string());
        let (mut approximations, mut is_assumed) = (known, false);
        let mut ranges = Ranges::new(&config);
        for site in Site::all(&config).chain(Site::training(&config)) {
            let (low, high) = arguments(&config, site);
            ranges.note(site, low);
            ranges.note(site, high);
            if approximations.get(site).is_none() {
                approximations.fit([site], &ranges, |site| budget(&config, site)).map_err(unusable)?;
                is_assumed = true;
            }
            if approximations.gradient_bound(site).is_none() {
                approximations.bound_gradient(site, 1.5 * gradients(site)).map_err(unusable)?;
            }
        }
        for layer in 0..config.layers {
            if approximations.adapter_gradient_bound(layer).is_none() {
                approximations.bound_adapter_gradient(layer, 0.5).map_err(unusable)?;
            }
        }
        Ok(Self { name, config, parameters, approximations, is_assumed })
    }

    pub(crate) fn weights(&self) -> Weights<'_> {
        Weights { config: &self.config, parameters: &self.parameters, approximations: &self.approximations }
    }
}
