//! The model of the slot executor, its sentences in one ciphertext, and what models say.

use crate::exit::{Exit, Failure, InFile};
use crate::sentences::SHIPPED_SENTENCES;
use std::path::Path;
use veilformer::transformer::slots::Layout;
use veilformer::transformer::{Config, Site};
use veilformer_plain::data::{Row, Task};
use veilformer_plain::executor::Functions;
use veilformer_plain::model::{FILES, Model};
use veilformer_plain::parameters::Parameters;
use veilformer_plain::run::{Example, embed, observe};
use veilformer_plain::slots::Weights;

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

    /// As executors take it.
    pub(crate) fn view(&self) -> Weights<'_> {
        let Model { config, approximations, .. } = &self.model;
        Weights { config, parameters: &self.weights, approximations }
    }

    /// Logits in the clear, with its polynomials.
    pub(crate) fn polynomial_logits(&self, sentences: &[Example]) -> Result<Vec<Vec<f64>>, Failure> {
        let functions = Functions::Polynomial(&self.model.approximations);
        Ok(observe(self.config(), &self.weights, sentences, functions)?.logits)
    }
}

/// What the model says in the clear.
pub(crate) struct PlainLogits {
    pub(crate) exact: Vec<Vec<f64>>,
    pub(crate) polynomial: Vec<Vec<f64>>,
    /// The first function that got an argument outside its interval.
    pub(crate) escaped: Option<Site>,
}

/// The first sentences that come with the program.
pub(crate) fn shipped_sentences(model: &LoadedModel, most: usize) -> Result<Vec<Example>, Failure> {
    let rows = Task::Sst2.parse(SHIPPED_SENTENCES, Path::new("sst2-excerpt.tsv"))?;
    let example = |row: Row| {
        let sequence = model.model.tokenizer.encode(&row.sentence, None, model.config().length)?;
        Ok(Example { sequence, label: row.label })
    };
    rows.into_iter().take(most).map(example).collect()
}

/// The slots of the embedded tokens and of the mask. Places beyond the last
/// sentence repeat earlier ones: an empty place would leave the polynomials' intervals.
pub(crate) fn pack(
    model: &LoadedModel,
    layout: &Layout,
    sentences: &[Example],
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
        .map(|s| embed(&mut plain, config, &model.weights, &s.sequence.tokens))
        .collect::<Result<Vec<_>, _>>()?;
    for place in 0..layout.batch() {
        let i = place % sentences.len();
        for (token, m) in sentences[i].sequence.mask().enumerate() {
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
