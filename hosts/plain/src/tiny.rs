//! How `veil-tiny` is made: two layers of width 128, pre-trained on English text, for fine-tuning on GLUE's tasks.

use std::path::Path;

use veilformer::transformer::{Config, Kernel, Loss, Site, Targets};

use crate::data::{DataError, Task};
use crate::pretrain::{Bounds, Masking, Recipe};

/// Word pieces in its vocabulary.
pub const PIECES: usize = 8192;

/// Its sizes, for a vocabulary.
pub fn config(vocabulary: usize) -> Config {
    Config {
        layers: 2,
        width: 128,
        heads: 2,
        length: 64,
        feed_forward: 256,
        head_rank: 0,
        head_hidden: 128,
        classes: 2,
        vocabulary,
        lora_rank: 0,
        lora_targets: Targets::ALL,
        kernel: Kernel::Gaussian,
        first_norm: false,
        embedding_affine: false,
        norm_epsilon: 1e-5,
        loss: Loss::CrossEntropy,
    }
}

/// The intervals penalties pull towards: fine-tuning may leave them by the margin of the polynomials.
pub fn bounds(config: &Config) -> Bounds {
    Bounds::new(config, |site| match site {
        Site::FirstNorm(_) | Site::SecondNorm(_) | Site::FinalNorm => (0.9, 2.2),
        Site::Kernel(_) => (-6.0, 0.0),
        Site::Gate(_) => (-3.0, 3.0),
        _ => (f32::NEG_INFINITY, f32::INFINITY),
    })
}

/// The pre-training recipe.
pub fn recipe(mask: u32, vocabulary: u32, steps: u64, seed: u64) -> Recipe {
    Recipe {
        batch: 64,
        part: 16,
        steps,
        learning_rate: 2e-3,
        rise: 0.1,
        betas: (0.9, 0.98),
        epsilon: 1e-8,
        weight_decay: 0.01,
        clip: 0.5,
        masking: Masking { share: 0.25, mask, vocabulary },
        penalty: 2.0,
        seed,
    }
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
