//! What client and server must agree on: a model, its task, and the weights that are to be trained.

use crate::exit::{Exit, Failure, InFile};
use crate::model::PlainLogits;
use crate::rings::Rings;
use crate::sentences::{Naming, Sentence};
use std::path::{Path, PathBuf};
use veilformer::transformer::{Config, Loss, Parameter, Projection};
use veilformer_engine::{Degrees, Places, TrainedPlaces, stream_bound};
use veilformer_plain::data::Task;
use veilformer_plain::executor::Functions;
use veilformer_plain::model::{FILES, Model, Reached};
use veilformer_plain::parameters::Parameters as Weights;
use veilformer_plain::run::{Example, observe};
use veilformer_plain::sites::{Approximations, Ranges};
use veilformer_plain::slots::Weights as View;
use veilformer_plain::tiny;
use veilformer_plain::tokenizer::Tokenizer;
use xxhash_rust::xxh3::Xxh3;

/// The encoder that comes with the program.
const SHIPPED: [&[u8]; 3] = [
    include_bytes!("../assets/veil-tiny/config.json"),
    include_bytes!("../assets/veil-tiny/model.safetensors"),
    SHIPPED_VOCABULARY.as_bytes(),
];

/// Its word pieces.
pub(crate) const SHIPPED_VOCABULARY: &str = include_str!("../assets/veil-tiny/vocab.txt");

/// Names of tasks on the command line.
const TASKS: [(&str, Task); 6] = [
    ("cola", Task::Cola),
    ("mrpc", Task::Mrpc),
    ("rte", Task::Rte),
    ("sts-b", Task::StsB),
    ("sst-2", Task::Sst2),
    ("qnli", Task::Qnli),
];

/// The task of that name, in small or large letters, with or without its dash.
pub(crate) fn task(name: &str) -> Result<Task, String> {
    let plain = |name: &str| name.to_lowercase().replace('-', "");
    TASKS
        .iter()
        .find(|(known, _)| plain(known) == plain(name))
        .map(|(_, task)| *task)
        .ok_or_else(|| format!("{name:?} is no task; known: {}", TASKS.map(|(name, _)| name).join(", ")))
}

/// The same choices at every command make the same work.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct ModelArgs {
    /// Folder of the model; the encoder that comes with the program when left out
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// The task: cola, mrpc, rte, sts-b, sst-2, qnli. A pre-trained encoder gets a new head for it (when left
    /// out sst-2, or sts-b if it is calibrated to scores); a model that is trained already keeps its own
    #[arg(long, value_parser = task)]
    task: Option<Task>,
    /// Rank of LoRA's matrices of a pre-trained encoder; 0 for a head alone
    #[arg(long, value_name = "RANK", default_value_t = 2, value_parser = clap::value_parser!(u8).range(0..=16))]
    lora_rank: u8,
    /// What the new head and LoRA's matrices follow from
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl ModelArgs {
    /// What every command takes when nothing is said.
    pub(crate) fn shipped() -> Self {
        Self::of(None, None, 2)
    }

    /// With the seed that commands take when nothing is said.
    pub(crate) fn of(model: Option<&Path>, task: Option<Task>, lora_rank: u8) -> Self {
        Self { model: model.map(Path::to_owned), task, lora_rank, seed: 1 }
    }
}

/// A model for a task.
pub(crate) struct Work {
    pub(crate) task: Task,
    pub(crate) config: Config,
    pub(crate) weights: Weights<f64>,
    pub(crate) approximations: Approximations,
    pub(crate) tokenizer: Tokenizer,
    /// The targets that polynomials and bounds of training are for.
    pub(crate) trains: Loss,
    /// Tells works apart in files. Not a signature.
    pub(crate) fingerprint: u64,
}

impl Work {
    pub(crate) fn load(args: &ModelArgs) -> Result<Self, Failure> {
        let Some(folder) = &args.model else {
            return Self::from_bytes(SHIPPED.map(<[u8]>::to_vec), args);
        };
        let read = |name: &str| {
            let path = folder.join(name);
            std::fs::read(&path).in_file(&path)
        };
        let files = [read(FILES[0])?, read(FILES[1])?, read(FILES[2])?];
        Self::from_bytes(files, args).in_file(folder)
    }

    fn from_bytes(files: [Vec<u8>; 3], args: &ModelArgs) -> Result<Self, Failure> {
        let model = parse(&files)?;
        let (task, is_new) = choose(&model, args.task)?;
        let rank = if is_new { usize::from(args.lora_rank) } else { model.config.lora_rank };
        let mut hash = Xxh3::new();
        for file in &files {
            hash.update(&(file.len() as u64).to_le_bytes());
            hash.update(file);
        }
        let seed = if is_new { args.seed } else { 0 };
        hash.update(task.folder().as_bytes());
        hash.update(&[seed, rank as u64, u64::from(is_new)].map(u64::to_le_bytes).concat());
        let trains = model.config.loss;
        let (config, weights) = match is_new {
            true => tiny::adapted(&model, task, rank, args.seed),
            false => (model.config, model.parameters),
        };
        let work = Self {
            task,
            config,
            weights: weights.convert(),
            approximations: model.approximations,
            tokenizer: model.tokenizer,
            trains,
            fingerprint: hash.digest(),
        };
        work.check()?;
        Ok(work)
    }

    /// What the encrypted executor could not run is refused by everybody who touches the model.
    fn check(&self) -> Result<(), Failure> {
        stream_bound(&self.view()).map(drop).map_err(|error| Failure::new(Exit::BadFile, error.to_string()))
    }

    /// The same function with LoRA's matrices multiplied into the projections they adapt: what a server runs that has
    /// them in the clear.
    pub(crate) fn merged(mut self) -> Self {
        let (old, rank) = (self.config, self.config.lora_rank);
        if rank == 0 {
            return self;
        }
        self.config.lora_rank = 0;
        let mut weights = Weights::zeros(&self.config);
        for parameter in Parameter::all(&self.config) {
            weights.get_mut(parameter).copy_from_slice(self.weights.get(parameter));
        }
        let projections = [Projection::Query, Projection::Key, Projection::Value];
        for (layer, projection) in (0..old.layers).flat_map(|l| projections.map(|p| (l, p))) {
            let down = self.weights.get(Parameter::LoraDown(projection, layer));
            let up = self.weights.get(Parameter::LoraUp(projection, layer));
            let width = old.width;
            let target = weights.get_mut(Parameter::Attention(projection, layer));
            for (row, a) in down.chunks_exact(rank).enumerate() {
                for (a, b) in a.iter().zip(up.chunks_exact(width)) {
                    let row = &mut target[row * width..][..width];
                    row.iter_mut().zip(b).for_each(|(w, b)| *w += a * b);
                }
            }
        }
        self.weights = weights;
        self
    }

    /// As executors take it.
    pub(crate) fn view(&self) -> View<'_> {
        View { config: &self.config, parameters: &self.weights, approximations: &self.approximations }
    }

    /// Whether there is a score instead of classes.
    pub(crate) fn naming(&self) -> Naming {
        Naming::of(self.task)
    }

    /// Where everything of a batch of so many sentences lies.
    ///
    /// # Errors
    /// Usage for more sentences than a matrix of outputs has columns; what the layout says.
    pub(crate) fn places(&self, rings: &Rings, sentences: usize) -> Result<BatchPlaces, Failure> {
        let length = self.check_length(rings)?;
        if sentences == 0 || sentences > length {
            let message = format!("{sentences} sentences in a batch; 1 to {length} fit, one for every token");
            return Err(Failure::new(Exit::Usage, message));
        }
        let degrees = rings.degrees();
        let of_tokens = |rows| Places::new(degrees, sentences, rows, length);
        let target = Places::new(degrees, 1, self.config.classes, length)?.with_used(sentences);
        Ok(BatchPlaces {
            input: of_tokens(self.config.width)?,
            mask: of_tokens(self.config.heads * length)?,
            target,
            input_scale: rings.message_scale() / stream_bound(&self.view())?,
            target_scale: rings.message_scale() / self.config.loss.largest_target(),
        })
    }

    /// T, if its tokens can be packed under these rings.
    pub(crate) fn check_length(&self, rings: &Rings) -> Result<usize, Failure> {
        let length = self.config.length;
        let refused = |error: veilformer_engine::Error| Failure::new(Exit::Usage, error.to_string());
        rings.degrees().check_length(length).map_err(refused)?;
        Ok(length)
    }

    /// Where encrypted weights lie.
    pub(crate) fn trained_places(&self, degrees: Degrees) -> Result<TrainedPlaces, Failure> {
        let tokens = Places::new(degrees, 1, self.config.width, self.config.length)?;
        Ok(TrainedPlaces::new(&self.config, &tokens)?)
    }

    /// Logits in the clear, with the functions themselves and with their polynomials. Tells the client when a
    /// sentence leaves a polynomial's interval.
    pub(crate) fn plain_logits(&self, sentences: &[Sentence]) -> Result<PlainLogits, Failure> {
        let data: Vec<Example> = sentences.iter().map(|s| s.example.clone()).collect();
        let run = |functions| observe(&self.config, &self.weights, &data, functions);
        let exact = run(Functions::Exact)?;
        let polynomial = run(Functions::PolynomialModel(&self.approximations))?;
        let escaped = |ranges: &Ranges| ranges.escape(&self.approximations);
        Ok(PlainLogits {
            exact: exact.logits,
            escaped: escaped(&exact.ranges).or_else(|| escaped(&polynomial.ranges)),
            polynomial: polynomial.logits,
        })
    }
}

/// The encoder that comes with the program.
pub(crate) fn shipped_model() -> Result<Model, Failure> {
    parse(&SHIPPED)
}

fn parse<B: AsRef<[u8]>>(files: &[B; 3]) -> Result<Model, Failure> {
    let text = |i: usize| {
        std::str::from_utf8(files[i].as_ref())
            .map_err(|_| Failure::new(Exit::BadFile, format!("{} is not UTF-8", FILES[i])))
    };
    Ok(Model::from_parts(text(0)?, files[1].as_ref(), text(2)?)?)
}

/// The task, and whether the model gets a new head for it.
fn choose(model: &Model, asked: Option<Task>) -> Result<(Task, bool), Failure> {
    if matches!(model.training.reached, Reached::Pretrained { .. }) {
        let default = if model.config.loss == Loss::SquaredError { Task::StsB } else { Task::Sst2 };
        return Ok((asked.unwrap_or(default), true));
    }
    let own = task(&model.training.task).map_err(|error| Failure::new(Exit::BadFile, error))?;
    match asked {
        Some(asked) if asked != own => {
            let message = format!(
                "the model is trained for {}, not for {}; take a pre-trained encoder for a new head",
                own.folder(),
                asked.folder()
            );
            Err(Failure::new(Exit::Usage, message))
        }
        _ => Ok((own, false)),
    }
}

/// Places and scales of what a client sends.
pub(crate) struct BatchPlaces {
    pub(crate) input: Places,
    pub(crate) mask: Places,
    pub(crate) target: Places,
    pub(crate) input_scale: f64,
    pub(crate) target_scale: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(args: &[&str]) -> Result<Work, Failure> {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            model: ModelArgs,
        }
        let line = <Line as clap::Parser>::parse_from([&["x"], args].concat());
        Work::load(&line.model)
    }

    #[test]
    fn every_choice_makes_another_work() {
        let choices: [&[&str]; 5] =
            [&[], &["--task", "CoLA"], &["--task", "stsb"], &["--lora-rank", "0"], &["--seed", "2"]];
        let works = choices.map(|args| load(args).unwrap());
        for (i, work) in works.iter().enumerate() {
            assert!(works[..i].iter().all(|other| other.fingerprint != work.fingerprint));
        }
        assert_eq!(load(&["--task", "sst2"]).unwrap().fingerprint, works[0].fingerprint);
        assert_eq!((works[2].config.classes, works[3].config.lora_rank), (1, 0));
    }

    #[test]
    fn an_encoder_calibrated_to_scores_gets_a_head_for_them() {
        let mut model = shipped_model().unwrap();
        assert_eq!(choose(&model, None).unwrap(), (Task::Sst2, true));
        model.config.loss = Loss::SquaredError;
        assert_eq!(choose(&model, None).unwrap(), (Task::StsB, true));
        assert_eq!(choose(&model, Some(Task::Rte)).unwrap(), (Task::Rte, true));
    }

    #[test]
    fn a_trained_model_keeps_its_task() {
        let mini = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/veil-mini");
        let mini = mini.to_str().unwrap();
        assert_eq!(load(&["--model", mini, "--task", "sst-2"]).unwrap().config.lora_rank, 0);
        let failure = load(&["--model", mini, "--task", "cola"]).err().unwrap();
        assert!(failure.exit == Exit::Usage && failure.message.contains("trained for SST-2"));
        assert!(task("mnli").unwrap_err().contains("sts-b"));
    }

    #[test]
    fn merging_lora_changes_no_logit() {
        let mut work = load(&[]).unwrap();
        for (parameter, range) in work.weights.layout().to_vec() {
            if matches!(parameter, Parameter::LoraUp(..)) {
                let values = &mut work.weights.values_mut()[range];
                values.iter_mut().enumerate().for_each(|(i, w)| *w = 0.02 * (i as f64).sin());
            }
        }
        let sequence = work.tokenizer.encode("a fine film", None, work.config.length).unwrap();
        let example = Example { sequence, label: 0.0 };
        let sentences = [Sentence { text: String::new(), second: None, label: None, example }];
        let adapted = work.plain_logits(&sentences).unwrap().exact.remove(0);
        let merged = work.merged();
        assert_eq!(merged.config.lora_rank, 0);
        let merged = merged.plain_logits(&sentences).unwrap().exact.remove(0);
        assert!(adapted.iter().zip(&merged).all(|(a, b)| (a - b).abs() < 1e-9), "{adapted:?} {merged:?}");
    }
}
