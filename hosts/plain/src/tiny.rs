//! How `veil-tiny` is made: two layers of width 128, pre-trained on English text, for fine-tuning on GLUE's tasks.

use std::path::Path;

use veilformer::transformer::{AdamWHe, Config, Kernel, Parameter, Site, Trainable};

use crate::data::{DataError, Task};
use crate::executor::Functions;
use crate::finetune::{self, FineTuner};
use crate::model::Model;
use crate::parameters::Parameters;
use crate::pretrain::{Bound, Bounds, Masking, Recipe};
use crate::recipe;
use crate::run::{Example, observe};
use crate::sites::{Approximations, Budget, Ranges};
use crate::tokenizer::Sequence;
use crate::train::TrainError;

/// Word pieces in its vocabulary.
pub const PIECES: usize = 8192;

/// Its sizes, for a vocabulary: `veil-mini`'s layers, wider and longer.
pub fn config(vocabulary: usize) -> Config {
    Config { width: 128, feed_forward: 256, head_hidden: 128, ..recipe::config(64, vocabulary) }
}

/// The intervals penalties pull towards: fine-tuning may leave them by the margin of the polynomials.
pub fn bounds(config: &Config) -> Bounds {
    Bounds::new(config, |site| {
        let (low, high, weight) = match site {
            Site::FirstNorm(_) | Site::SecondNorm(_) | Site::FinalNorm => (0.9, 2.2, 4.0),
            Site::Kernel(_) if config.kernel == Kernel::Softmax => (-3.0, 3.0, 2.0),
            Site::Kernel(_) => (-6.0, 0.0, 2.0),
            Site::Gate(_) => (-3.0, 3.0, 2.0),
            _ => return Bound::NONE,
        };
        Bound { low, high, weight }
    })
}

/// The pre-training recipe.
pub fn recipe(mask: u32, vocabulary: u32, steps: u64, seed: u64) -> Recipe {
    Recipe {
        batch: 64,
        part: 16,
        steps,
        learning_rate: 3e-3,
        position_scale: 3.0,
        rise: 0.1,
        betas: (0.9, 0.98),
        epsilon: 1e-8,
        weight_decay: 0.01,
        clip: 0.5,
        masking: Masking { share: 0.25, mask, vocabulary, first: 8 },
        seed,
    }
}

/// The degrees of its polynomials. Every interval reaches further than the arguments of the pre-trained encoder do,
/// because fine-tuning moves them; tanh, in the head, is bounded by what fine-tuning is expected to ask for.
///
/// A bootstrap leaves levels for higher degrees than 15; they cost products. ReLU, which has a corner, is worth them
/// most; of the last layer's gate, of the final norm and of tanh there are first tokens alone. Softmax's sums of exponentials
/// span a factor of 600 with margins: degree 15 serves one over them to a half, 63 to a hundredth.
pub fn budget(config: &Config, site: Site) -> Budget {
    let degree = match site {
        Site::Gate(layer) if layer + 1 == config.layers => 63,
        Site::Normaliser(_) => 63,
        Site::Gate(_) | Site::FinalNorm | Site::Tanh => 31,
        _ => 15,
    };
    Budget { degree, squarings: 0, margin: if site == Site::Tanh { 1.0 } else { 1.5 } }
}

/// The largest argument of tanh that its polynomial serves.
const TANH: f64 = 4.5;

/// Fits the model's polynomials to the arguments its encoder meets in these sequences.
///
/// # Errors
/// [`TrainError::NoData`] without sequences; what the executor or the fit says.
pub fn calibrate(
    model: &mut Model,
    sequences: &[Sequence],
    budget: impl Fn(Site) -> Budget,
) -> Result<(), TrainError> {
    if sequences.is_empty() {
        return Err(TrainError::NoData);
    }
    let data: Vec<Example> =
        sequences.iter().map(|sequence| Example { sequence: sequence.clone(), label: 0.0 }).collect();
    let mut seen = observe(&model.config, &model.parameters, &data, Functions::Exact)?.ranges;
    seen.note(Site::Tanh, TANH);
    model.approximations = Approximations::calibrate(&model.config, &seen, budget)?;
    Ok(())
}

/// The learning rate and ε of AdamW-HE for LoRA and the head.
///
/// lr/√ε is near the paper's (T11: 0.3 for SST-2); ε itself is larger, so that 1 + v̂/ε stays in an interval where degree 15
/// serves 1/√ to half a per cent.
pub fn constants(task: Task) -> (f64, f64) {
    if task == Task::StsB { (2.5e-2, 4.0e-1) } else { (2.0e-2, 1.0e-2) }
}

/// The size of a new head's first matrix, over what would keep the size of its input: tanh is to start where it is steep,
/// and to stay where its polynomial is good.
const HEAD: f32 = 0.5;

/// Sentences of a batch in a rehearsal.
const BATCH: usize = 16;
/// Rank of LoRA's matrices in a rehearsal.
const RANK: usize = 2;

/// Fits the polynomials of training, and bounds its gradients, to what so many exact steps of LoRA on every task meet: with the
/// rates of [`constants`], from the weights that seed 1 gives. The arguments of inference that those steps meet widen its intervals too.
///
/// # Errors
/// [`TrainError::NoData`] for a task without examples; what the executor or the fit says.
pub fn rehearse(
    model: &mut Model,
    tasks: &[(Task, Vec<Example>)],
    steps: u32,
    budget: impl Fn(Site) -> Budget,
) -> Result<(), TrainError> {
    let mut seen = Ranges::new(&model.config);
    for (task, examples) in tasks {
        if examples.is_empty() {
            return Err(TrainError::NoData);
        }
        let (config, parameters) = adapted(model, *task, RANK, 1);
        let (learning_rate, epsilon) = constants(*task);
        let recipe = finetune::Recipe {
            trained: Trainable::Adapters,
            optimizer: AdamWHe::paper(learning_rate, epsilon),
            steps,
            functions: Functions::Exact,
            noise: None,
        };
        let mut tuner = FineTuner::new(&config, parameters, recipe);
        for batch in examples.chunks(BATCH).cycle().take(steps as usize) {
            tuner.step(batch)?;
        }
        seen.merge(tuner.ranges());
    }
    // So that 1 + v̂/ε is served for every gradient within its bound, whichever step it comes in.
    let margin = budget(Site::Optimizer).margin;
    let epsilon = tasks.iter().map(|(task, _)| constants(*task).1).fold(f64::INFINITY, f64::min);
    seen.note(Site::Optimizer, 1.0 + margin * seen.gradient(Site::Optimizer).powi(2) / epsilon);
    for site in Site::all(&model.config) {
        if let Some(entry) = model.approximations.entry(site) {
            let (low, high) = entry.observed;
            seen.note(site, low);
            seen.note(site, high);
        }
    }
    model.approximations.fit(Site::all(&model.config), &seen, &budget)?;
    let met = |site: &Site| seen.get(*site).0 <= seen.get(*site).1;
    model.approximations.fit(Site::training(&model.config).filter(met), &seen, budget)?;
    Ok(())
}

/// The sizes and weights fine-tuning starts from: the encoder of a pre-trained model, and a head for the task, with LoRA of
/// this rank where it is not 0, that follow from the seed.
pub fn adapted(model: &Model, task: Task, lora_rank: usize, seed: u64) -> (Config, Parameters<f32>) {
    let (classes, loss) = task.outputs();
    let config = Config { classes, loss, lora_rank, ..model.config };
    let mut parameters = Parameters::random(&config, seed);
    let head = [Parameter::HeadDown, Parameter::HeadUp, Parameter::Classifier];
    for parameter in Parameter::all(&config).filter(|p| !head.contains(p)) {
        let (new, old) = (parameters.get_mut(parameter), model.parameters.get(parameter));
        if new.len() == old.len() {
            new.copy_from_slice(old);
        }
    }
    let head = parameters.get_mut(Parameter::HeadUp);
    head.iter_mut().for_each(|w| *w *= HEAD);
    (config, parameters)
}

/// The training sentences of GLUE's six tasks, a line each: they help to choose the vocabulary. `glue` is a GLUE
/// download.
pub fn glue_text(glue: &Path) -> Result<String, DataError> {
    let mut text = String::new();
    for task in Task::ALL {
        for row in task.read(&glue.join(task.folder()).join(task.training_file()))? {
            for sentence in [Some(row.sentence), row.second].into_iter().flatten() {
                text.push_str(&sentence);
                text.push('\n');
            }
        }
    }
    Ok(text)
}
