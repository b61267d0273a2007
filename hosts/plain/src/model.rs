//! A model on disk: `config.json` (sizes, approximations, how it was trained), `model.safetensors`, `vocab.txt`.

use std::fs;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use veilformer::approx::{ApproxError, Interval};
use veilformer::transformer::{
    Config, ConfigError, Kernel, Loss, Parameter, Projection, Shape, Site, Targets,
};

use crate::parameters::{Parameters, describe, site_name};
use crate::sites::{Approximations, Entry};
use crate::tokenizer::{Tokenizer, TokenizerError};

/// The version of the format this crate writes, and the only one it reads.
pub const FORMAT: u32 = 1;

/// Files of a model folder.
pub const FILES: [&str; 3] = ["config.json", "model.safetensors", "vocab.txt"];

/// A model, ready to run.
pub struct Model {
    /// Its sizes.
    pub config: Config,
    /// Its weights.
    pub parameters: Parameters<f32>,
    /// Its polynomials; none where it has not been calibrated.
    pub approximations: Approximations,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Where it comes from.
    pub training: Training,
}

/// How a model was trained and what it reached.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Training {
    /// The task.
    pub task: String,
    /// The seed everything follows from.
    pub seed: u64,
    /// The command that trains it again.
    pub command: String,
    /// What it reached.
    #[serde(flatten)]
    pub reached: Reached,
}

/// What a training reached.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Reached {
    /// A model that answers.
    Scores(Scores),
    /// An encoder that is yet to be fine-tuned: its head's matrices are random.
    Pretrained {
        /// Tokens it has seen.
        tokens: u64,
        /// Optimizer steps.
        steps: u64,
        /// Mean loss of the hidden pieces of [`crate::pretrain::probe`].
        probe_loss: f64,
    },
}

/// What a classifier reached on its task's development set.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Accuracy on the task's development set with the exact functions.
    pub dev_accuracy_exact: f64,
    /// The same with the polynomials.
    pub dev_accuracy_polynomial: f64,
    /// Sentences in the development set.
    pub dev_sentences: usize,
    /// Of those, how many were longer than T tokens and lost their end.
    pub dev_truncated: usize,
    /// Largest |exact − polynomial| logit over the development set.
    pub worst_logit_difference: f64,
    /// Its mean.
    pub mean_logit_difference: f64,
    /// Largest |logit| over the development set.
    pub largest_logit: f64,
}

/// Why a model could not be loaded or saved.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file cannot be read or written.
    #[error("{path}: {source}; a model folder holds config.json, model.safetensors and vocab.txt")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// config.json is not what it should be.
    #[error("config.json: {0}; expected the file written with the model's weights")]
    Json(#[from] serde_json::Error),
    /// Another format.
    #[error(
        "config.json has format {found}, this program reads format {FORMAT}: convert the model or update"
    )]
    Format {
        /// The version found.
        found: u32,
    },
    /// The sizes do not make a model.
    #[error("config.json: {0}")]
    Config(#[from] ConfigError),
    /// The weights file is damaged.
    #[error("model.safetensors: {0}; the file is damaged or not a safetensors file, fetch it again")]
    Safetensors(#[from] safetensors::SafeTensorError),
    /// A weight is missing or has another shape or type.
    #[error(
        "model.safetensors: {name} is {found}, config.json asks for F32 {expected:?}: the files are not one model's"
    )]
    Weight {
        /// The weight.
        name: String,
        /// What is there.
        found: String,
        /// The shape that should be.
        expected: [usize; 2],
    },
    /// A weight is infinite or not a number.
    #[error("model.safetensors: {name} entry {index} is not finite: the training that wrote it diverged")]
    NotFinite {
        /// The weight.
        name: String,
        /// The entry.
        index: usize,
    },
    /// A polynomial is missing.
    #[error("config.json has no approximation for {site}: calibrate the model again")]
    MissingApproximation {
        /// The site.
        site: String,
    },
    /// A polynomial cannot be used.
    #[error("config.json, approximation for {site}: {source}")]
    Approximation {
        /// The site.
        site: String,
        /// What is wrong with it.
        source: ApproxError,
    },
    /// The vocabulary cannot be used.
    #[error("vocab.txt: {0}")]
    Tokenizer(#[from] TokenizerError),
    /// The vocabulary is another model's.
    #[error("vocab.txt has {found} pieces, config.json says {expected}: the files are not one model's")]
    Vocabulary {
        /// Lines in the file.
        found: usize,
        /// Rows of the embedding.
        expected: usize,
    },
}

/// config.json.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigFile {
    format: u32,
    layers: usize,
    width: usize,
    heads: usize,
    length: usize,
    feed_forward: usize,
    head_rank: usize,
    head_hidden: usize,
    classes: usize,
    vocabulary: usize,
    lora_rank: usize,
    #[serde(default = "all_targets")]
    lora_targets: Vec<TargetName>,
    #[serde(default)]
    kernel: KernelName,
    first_norm: bool,
    embedding_affine: bool,
    norm_epsilon: f64,
    loss: LossName,
    training: Training,
    approximations: Vec<ApproximationFile>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum LossName {
    CrossEntropy,
    SquaredError,
}

#[derive(Clone, Copy, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum KernelName {
    #[default]
    Gaussian,
    Softmax,
}

#[derive(Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum TargetName {
    Query,
    Key,
    Value,
}

/// What files without the entry mean.
fn all_targets() -> Vec<TargetName> {
    vec![TargetName::Query, TargetName::Key, TargetName::Value]
}

/// One approximation. The errors are for the reader; they are measured again when needed.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ApproximationFile {
    site: String,
    function: String,
    interval: [f64; 2],
    observed: [f64; 2],
    squarings: u32,
    levels: u32,
    worst_error: f64,
    mean_error: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gradient_bound: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    adapter_gradient_bound: Option<f64>,
    chebyshev_coefficients: Vec<f64>,
}

impl ConfigFile {
    fn config(&self) -> Config {
        Config {
            layers: self.layers,
            width: self.width,
            heads: self.heads,
            length: self.length,
            feed_forward: self.feed_forward,
            head_rank: self.head_rank,
            head_hidden: self.head_hidden,
            classes: self.classes,
            vocabulary: self.vocabulary,
            lora_rank: self.lora_rank,
            lora_targets: Targets {
                query: self.lora_targets.contains(&TargetName::Query),
                key: self.lora_targets.contains(&TargetName::Key),
                value: self.lora_targets.contains(&TargetName::Value),
            },
            kernel: match self.kernel {
                KernelName::Gaussian => Kernel::Gaussian,
                KernelName::Softmax => Kernel::Softmax,
            },
            first_norm: self.first_norm,
            embedding_affine: self.embedding_affine,
            norm_epsilon: self.norm_epsilon,
            loss: match self.loss {
                LossName::CrossEntropy => Loss::CrossEntropy,
                LossName::SquaredError => Loss::SquaredError,
            },
        }
    }

    fn of(model: &Model) -> Self {
        let &Config {
            layers,
            width,
            heads,
            length,
            feed_forward,
            head_rank,
            head_hidden,
            classes,
            vocabulary,
            lora_rank,
            lora_targets,
            kernel,
            first_norm,
            embedding_affine,
            norm_epsilon,
            loss,
        } = &model.config;
        let lora_targets = all_targets()
            .into_iter()
            .zip([Projection::Query, Projection::Key, Projection::Value])
            .filter(|(_, p)| lora_targets.includes(*p))
            .map(|(name, _)| name)
            .collect();
        let kernel = match kernel {
            Kernel::Gaussian => KernelName::Gaussian,
            Kernel::Softmax => KernelName::Softmax,
        };
        let loss = match loss {
            Loss::CrossEntropy => LossName::CrossEntropy,
            Loss::SquaredError => LossName::SquaredError,
        };
        let approximations = Site::all(&model.config)
            .chain(Site::training(&model.config))
            .filter_map(|site| approximation_file(&model.approximations, site))
            .collect();
        Self {
            format: FORMAT,
            layers,
            width,
            heads,
            length,
            feed_forward,
            head_rank,
            head_hidden,
            classes,
            vocabulary,
            lora_rank,
            lora_targets,
            kernel,
            first_norm,
            embedding_affine,
            norm_epsilon,
            loss,
            training: model.training.clone(),
            approximations,
        }
    }
}

fn approximation_file(table: &Approximations, site: Site) -> Option<ApproximationFile> {
    let (entry, polynomial) = (table.entry(site)?, table.get(site)?);
    let error = polynomial.measure(4001);
    Some(ApproximationFile {
        site: site_name(site),
        function: format!("{:?}", site.function()),
        interval: [entry.interval.low(), entry.interval.high()],
        observed: [entry.observed.0, entry.observed.1],
        squarings: entry.squarings,
        levels: polynomial.depth(),
        worst_error: error.worst,
        mean_error: error.mean,
        gradient_bound: table.gradient_bound(site),
        adapter_gradient_bound: match site {
            Site::Kernel(layer) => table.adapter_gradient_bound(layer),
            _ => None,
        },
        chebyshev_coefficients: entry.coefficients.clone(),
    })
}

fn read_approximations(config: &Config, files: &[ApproximationFile]) -> Result<Approximations, ModelError> {
    let mut table = Approximations::new(config);
    if files.is_empty() {
        return Ok(table);
    }
    for site in Site::all(config).chain(Site::training(config)) {
        let name = site_name(site);
        let Some(file) = files.iter().find(|a| a.site == name) else {
            if site.is_training() {
                continue;
            }
            return Err(ModelError::MissingApproximation { site: name });
        };
        let bad = |source| ModelError::Approximation { site: name.clone(), source };
        let [low, high] = file.interval;
        let entry = Entry {
            interval: Interval::new(low, high).map_err(bad)?,
            squarings: file.squarings,
            coefficients: file.chebyshev_coefficients.clone(),
            observed: (file.observed[0], file.observed[1]),
        };
        table.insert(site, entry).map_err(bad)?;
        if let Some(bound) = file.gradient_bound {
            table.bound_gradient(site, bound).map_err(bad)?;
        }
        if let (Site::Kernel(layer), Some(bound)) = (site, file.adapter_gradient_bound) {
            table.bound_adapter_gradient(layer, bound).map_err(bad)?;
        }
    }
    Ok(table)
}

fn read_weights(config: &Config, bytes: &[u8]) -> Result<Parameters<f32>, ModelError> {
    let file = SafeTensors::deserialize(bytes)?;
    let mut parameters = Parameters::zeros(config);
    for (parameter, name, Shape { rows, columns }) in describe(config) {
        let expected = [rows, columns];
        let tensor = file.tensor(&name).map_err(|_| ModelError::Weight {
            name: name.clone(),
            found: "missing".to_owned(),
            expected,
        })?;
        if tensor.dtype() != Dtype::F32 || tensor.shape() != expected {
            let found = format!("{:?} {:?}", tensor.dtype(), tensor.shape());
            return Err(ModelError::Weight { name, found, expected });
        }
        let (quads, _) = tensor.data().as_chunks::<4>();
        for (index, (w, quad)) in parameters.get_mut(parameter).iter_mut().zip(quads).enumerate() {
            *w = f32::from_le_bytes(*quad);
            if !w.is_finite() {
                return Err(ModelError::NotFinite { name, index });
            }
        }
    }
    Ok(parameters)
}

impl Model {
    /// From the contents of the three files.
    pub fn from_parts(config_json: &str, weights: &[u8], vocabulary: &str) -> Result<Self, ModelError> {
        /// Read first, so that another format is called that and not a syntax error.
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let Version { format: found } = serde_json::from_str(config_json)?;
        if found != FORMAT {
            return Err(ModelError::Format { found });
        }
        let file: ConfigFile = serde_json::from_str(config_json)?;
        let config = file.config();
        config.validate()?;
        let tokenizer = Tokenizer::from_vocabulary(vocabulary)?;
        let (found, expected) = (tokenizer.vocabulary().len(), config.vocabulary);
        if found != expected {
            return Err(ModelError::Vocabulary { found, expected });
        }
        Ok(Self {
            config,
            parameters: read_weights(&config, weights)?,
            approximations: read_approximations(&config, &file.approximations)?,
            tokenizer,
            training: file.training,
        })
    }

    /// From a folder.
    pub fn load(folder: &Path) -> Result<Self, ModelError> {
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read(&path).map_err(|source| ModelError::File { path, source })
        };
        let text = |name: &str| {
            let path = folder.join(name);
            fs::read_to_string(&path).map_err(|source| ModelError::File { path, source })
        };
        Self::from_parts(&text(FILES[0])?, &read(FILES[1])?, &text(FILES[2])?)
    }

    /// Writes the three files into a folder, which is created if need be.
    pub fn save(&self, folder: &Path) -> Result<(), ModelError> {
        let write = |name: &str, bytes: &[u8]| {
            let path = folder.join(name);
            fs::write(&path, bytes).map_err(|source| ModelError::File { path, source })
        };
        fs::create_dir_all(folder).map_err(|source| ModelError::File { path: folder.to_owned(), source })?;
        write(FILES[0], (serde_json::to_string_pretty(&ConfigFile::of(self))? + "\n").as_bytes())?;
        write(FILES[1], &self.weights_file()?)?;
        write(FILES[2], (self.tokenizer.vocabulary().join("\n") + "\n").as_bytes())
    }

    /// The contents of model.safetensors.
    pub fn weights_file(&self) -> Result<Vec<u8>, ModelError> {
        let bytes: Vec<(String, Shape, Vec<u8>)> = describe(&self.config)
            .map(|(parameter, name, shape)| {
                let data = self.parameters.get(parameter).iter().flat_map(|w| w.to_le_bytes()).collect();
                (name, shape, data)
            })
            .collect();
        let views = bytes
            .iter()
            .map(|(name, shape, data)| {
                Ok((name.as_str(), TensorView::new(Dtype::F32, vec![shape.rows, shape.columns], data)?))
            })
            .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
        Ok(safetensors::serialize(views, None)?)
    }

    /// The weights of the client's half, for [`veilformer::transformer::embed_token`].
    pub fn token_row(&self, token: u32) -> &[f32] {
        let table = self.parameters.get(Parameter::TokenEmbedding);
        table.chunks_exact(self.config.width).nth(token as usize).unwrap_or(&[])
    }
}
