//! A model as the commands use it, and the sentences it reads.

use crate::exit::{Exit, Failure, InFile};
use crate::sentences::{SHIPPED_SENTENCES, Sentence};
use std::path::{Path, PathBuf};
use veilformer::approx::Approximation;
use veilformer::transformer::slots::{self, Layout};
use veilformer::transformer::{Config, Parameter, Site};
use veilformer_plain::data::Task;
use veilformer_plain::executor::Functions;
use veilformer_plain::model::{FILES, Model};
use veilformer_plain::parameters::Parameters;
use veilformer_plain::run::{Example, embed, observe};
use veilformer_plain::sites::Ranges;

/// The model that comes with the program.
const SHIPPED: [&[u8]; 3] = [
    include_bytes!("../assets/veil-mini/config.json"),
    include_bytes!("../assets/veil-mini/model.safetensors"),
    include_bytes!("../assets/veil-mini/vocab.txt"),
];
/// A loaded model.
pub(crate) struct LoadedModel {
    pub(crate) name: String,
    pub(crate) model: Model,
    pub(crate) weights: Parameters<f64>,
}

impl LoadedModel {
    /// From a folder, or the one that comes with the program.
    pub(crate) fn load(folder: Option<&Path>) -> Result<Self, Failure> {
        let Some(folder) = folder else {
            return Self::from_bytes("veil-mini", SHIPPED.map(<[u8]>::to_vec));
        };
        let read = |name: &str| {
            let path = folder.join(name);
            std::fs::read(&path).in_file(&path)
        };
        let files = [read(FILES[0])?, read(FILES[1])?, read(FILES[2])?];
        let name = folder.file_name().map_or_else(|| "model".into(), |name| name.to_string_lossy());
        Self::from_bytes(&name, files).in_file(folder)
    }

    fn from_bytes(name: &str, files: [Vec<u8>; 3]) -> Result<Self, Failure> {
        let text = |bytes: &[u8], name: &str| {
            String::from_utf8(bytes.to_vec())
                .map_err(|_| Failure::new(Exit::BadFile, format!("{name} is not UTF-8")))
        };
        let model = Model::from_parts(&text(&files[0], FILES[0])?, &files[1], &text(&files[2], FILES[2])?)?;
        let weights = model.parameters.convert();
        Ok(Self { name: name.to_owned(), model, weights })
    }

    pub(crate) fn config(&self) -> &Config {
        &self.model.config
    }

    /// Logits in the clear, with the functions themselves and with their
    /// polynomials. Tells the client when a sentence leaves a polynomial's interval.
    pub(crate) fn plain_logits(&self, sentences: &[Sentence]) -> Result<PlainLogits, Failure> {
        let data: Vec<Example> = sentences.iter().map(|s| s.example.clone()).collect();
        let run = |functions| observe(self.config(), &self.weights, &data, functions);
        let exact = run(Functions::Exact)?;
        let polynomial = run(Functions::Polynomial(&self.model.approximations))?;
        let escaped = |ranges: &Ranges| ranges.escape(&self.model.approximations);
        Ok(PlainLogits {
            exact: exact.logits,
            polynomial: polynomial.logits,
            escaped: escaped(&exact.ranges).or_else(|| escaped(&polynomial.ranges)),
        })
    }
}

/// What the model says in the clear.
pub(crate) struct PlainLogits {
    pub(crate) exact: Vec<Vec<f64>>,
    pub(crate) polynomial: Vec<Vec<f64>>,
    /// The first function that got an argument outside its interval.
    pub(crate) escaped: Option<Site>,
}

impl slots::Model for LoadedModel {
    fn config(&self) -> &Config {
        &self.model.config
    }

    fn weight(&self, parameter: Parameter, row: usize, column: usize) -> f64 {
        let values = self.weights.get(parameter);
        if values.is_empty() {
            return 0.0;
        }
        let columns = parameter.shape(&self.model.config).columns;
        values.get(row * columns + column).copied().unwrap_or(0.0)
    }

    fn approximation(&self, site: Site) -> Option<Approximation<'_>> {
        self.model.approximations.get(site)
    }

    fn gradient_bound(&self, site: Site) -> Option<f64> {
        self.model.approximations.gradient_bound(site)
    }

    fn adapter_gradient_bound(&self, layer: usize) -> Option<f64> {
        self.model.approximations.adapter_gradient_bound(layer)
    }
}

/// Where sentences come from.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct SentenceArgs {
    /// A sentence of your own; may be given more than once
    #[arg(long, value_name = "SENTENCE")]
    pub(crate) text: Vec<String>,
    /// Sentences and labels in the layout of GLUE's SST-2
    #[arg(long, value_name = "TSV", conflicts_with = "text")]
    pub(crate) file: Option<PathBuf>,
}

impl SentenceArgs {
    /// The sentences given, or the ones that come with the program; at most `most`.
    pub(crate) fn read(&self, model: &LoadedModel, most: usize) -> Result<Vec<Sentence>, Failure> {
        let rows: Vec<(String, Option<f32>)> = if self.text.is_empty() {
            let rows = match &self.file {
                Some(path) => Task::Sst2.read(path)?,
                None => Task::Sst2.parse(SHIPPED_SENTENCES, Path::new("sst2-excerpt.tsv"))?,
            };
            rows.into_iter().map(|row| (row.sentence, Some(row.label))).collect()
        } else {
            self.text.iter().map(|text| (text.clone(), None)).collect()
        };
        if rows.len() > most && (self.file.is_some() || !self.text.is_empty()) {
            tracing::warn!("{} sentences given; the first {most} fit one ciphertext", rows.len());
        }
        rows.into_iter().take(most).map(|(text, label)| sentence(model, text, label)).collect()
    }
}

fn sentence(model: &LoadedModel, text: String, label: Option<f32>) -> Result<Sentence, Failure> {
    let sequence = model.model.tokenizer.encode(&text, None, model.config().length)?;
    if sequence.truncated {
        tracing::warn!("a sentence is longer than {} tokens and loses its end", model.config().length);
    }
    let example = Example { sequence, label: label.unwrap_or(0.0) };
    Ok(Sentence { text, second: None, label, example })
}

/// The slots of the embedded tokens and of the mask. Places beyond the last
/// sentence repeat earlier ones: an empty place would leave the polynomials' intervals.
pub(crate) fn pack(
    model: &LoadedModel,
    layout: &Layout,
    sentences: &[Sentence],
) -> Result<[Vec<f64>; 2], Failure> {
    let config = model.config();
    if sentences.is_empty() {
        return Err(Failure::new(Exit::Usage, "no sentence given"));
    }
    let slots = layout.width() * layout.length() * layout.batch();
    let (mut tokens, mut mask) = (vec![0.0; slots], vec![0.0; slots]);
    let mut plain = veilformer_plain::executor::PlainExecutor::new(config, &model.weights, Functions::Exact);
    let embedded = sentences
        .iter()
        .map(|s| embed(&mut plain, config, &model.weights, &s.example.sequence.tokens))
        .collect::<Result<Vec<_>, _>>()?;
    for place in 0..layout.batch() {
        let i = place % sentences.len();
        for (token, m) in sentences[i].example.sequence.mask().enumerate() {
            for feature in 0..layout.width() {
                let slot = layout.slot(feature, token, place);
                tokens[slot] = embedded[i].row(token)[feature];
                mask[slot] = m;
            }
        }
    }
    Ok([tokens, mask])
}

/// The logits of `count` sentences, from the slots of the answer.
pub(crate) fn unpack(model: &LoadedModel, layout: &Layout, values: &[f64], count: usize) -> Vec<Vec<f64>> {
    let logit = |place, class| values.get(layout.slot(class, 0, place)).copied().unwrap_or(f64::NAN);
    (0..count).map(|place| (0..model.config().classes).map(|class| logit(place, class)).collect()).collect()
}

/// The largest logit.
pub(crate) fn best(logits: &[f64]) -> usize {
    logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(i, _)| i)
}
