//! The shipped model, its loader's errors, and a tiny training run.

use std::fs;
use std::path::{Path, PathBuf};

use veilformer::transformer::{
    Config, EmbeddingNorm, Kernel, Loss, Norm, Parameter, Site, Targets, embed_token,
};
use veilformer_plain::data::Task;
use veilformer_plain::executor::{Functions, PlainExecutor};
use veilformer_plain::gradient::Penalties;
use veilformer_plain::model::{FILES, Model, Reached};
use veilformer_plain::optimizer::AdamW;
use veilformer_plain::random::Random;
use veilformer_plain::run::{Example, embed, observe};
use veilformer_plain::sites::Budget;
use veilformer_plain::tokenizer::Sequence;
use veilformer_plain::train::{Options, Progress, TrainError, train};

fn assets() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../cli/assets")
}

fn shipped() -> Model {
    Model::load(&assets().join("veil-mini")).unwrap()
}

fn excerpt(model: &Model) -> Vec<Example> {
    let rows = Task::Sst2.read(&assets().join("sst2-excerpt.tsv")).unwrap();
    let encode = |text: &str| model.tokenizer.encode(text, None, model.config.length).unwrap();
    rows.iter().map(|row| Example { sequence: encode(&row.sentence), label: row.label }).collect()
}

#[test]
fn the_shipped_polynomials_serve_the_shipped_sentences() {
    let model = shipped();
    let data = excerpt(&model);
    assert_eq!(data.len(), 64);
    assert!(data.iter().all(|e| !e.sequence.truncated));
    let weights = model.parameters.convert::<f64>();
    let exact = observe(&model.config, &weights, &data, Functions::Exact).unwrap();
    let table = &model.approximations;
    let polynomial = observe(&model.config, &weights, &data, Functions::Polynomial(table)).unwrap();
    assert_eq!(exact.ranges.escape(table), None);
    assert_eq!(polynomial.ranges.escape(table), None);
    assert!(polynomial.accuracy(&data) >= 0.75, "{}", polynomial.accuracy(&data));
    let (worst, mean) = exact.difference(&polynomial);
    let Reached::Scores(scores) = &model.training.reached else { panic!("veil-mini answers") };
    let size = scores.largest_logit;
    assert!(worst < size / 20.0 && mean < size / 80.0, "{worst} {mean} of {size}");
}

#[test]
fn the_clients_embedding_is_the_trainers() {
    let model = shipped();
    let weights = model.parameters.convert::<f64>();
    let mut executor = PlainExecutor::new(&model.config, &weights, Functions::Exact);
    let tokens = &excerpt(&model)[0].sequence.tokens;
    let expected = embed(&mut executor, &model.config, &weights, tokens).unwrap();
    let norm = EmbeddingNorm {
        gain: model.parameters.get(Parameter::Gain(Norm::Embedding)),
        bias: model.parameters.get(Parameter::Bias(Norm::Embedding)),
        epsilon: model.config.norm_epsilon,
    };
    let scale = f64::from(model.parameters.get(Parameter::PositionScale)[0]);
    for (i, &token) in tokens.iter().enumerate() {
        let mut out = vec![0.0; model.config.width];
        embed_token(model.token_row(token), i, scale, &norm, &mut out);
        for (a, b) in out.iter().zip(expected.row(i)) {
            assert!((a - b).abs() < 1e-12);
        }
    }
}

#[test]
fn a_model_survives_the_disk() {
    let model = shipped();
    let folder = std::env::temp_dir().join(format!("veilformer-model-{}", std::process::id()));
    model.save(&folder).unwrap();
    let again = Model::load(&folder).unwrap();
    fs::remove_dir_all(&folder).unwrap();
    assert_eq!(model.parameters, again.parameters);
    assert_eq!(model.approximations, again.approximations);
    assert_eq!((model.config, model.training), (again.config, again.training));
}

#[test]
fn loader_errors_say_what_was_expected() {
    let folder = assets().join("veil-mini");
    let json = fs::read_to_string(folder.join(FILES[0])).unwrap();
    let weights = fs::read(folder.join(FILES[1])).unwrap();
    let vocabulary = fs::read_to_string(folder.join(FILES[2])).unwrap();
    let message = |json: &str, weights: &[u8], vocabulary: &str| {
        Model::from_parts(json, weights, vocabulary).err().map(|e| e.to_string()).unwrap_or_default()
    };
    let with_json = |from: &str, to: &str| {
        assert!(json.contains(from), "{from}");
        message(&json.replacen(from, to, 1), &weights, &vocabulary)
    };
    let cases = [
        (with_json("\"format\": 1", "\"format\": 9"), "format 9, this program reads format 1"),
        (with_json("\"heads\": 2", "\"heads\": 3"), "3 heads do not divide a width of 32"),
        (with_json("\"layers\": 2", "\"layers\": 0"), "0 layers given, 1 to 12 expected"),
        (with_json("\"layers\": 2", "\"layer\": 1"), "expected the file written with the model's weights"),
        (
            with_json("\"classes\": 2", "\"classes\": 3"),
            "head.classifier is F32 [32, 2], config.json asks for F32 [32, 3]",
        ),
        (with_json("\"site\": \"tanh\"", "\"site\": \"sigmoid\""), "no approximation for tanh"),
        (
            message(&json.replace("\"squarings\": 0", "\"squarings\": 1"), &weights, &vocabulary),
            "only exp takes any",
        ),
        (message(&json, &weights[..weights.len() - 1], &vocabulary), "the file is damaged"),
        (message(&json, &[0xff; 64], &vocabulary), "the file is damaged"),
        (message(&json, &weights, "[PAD]\n[UNK]\n[CLS]\n[SEP]\na"), "vocab.txt has 5 pieces"),
        (message(&json, &weights, &vocabulary.replacen("[PAD]", "[PAX]", 1)), "expected \"[PAD]\""),
        (message("", &weights, &vocabulary), "expected the file written with"),
    ];
    for (message, expected) in cases {
        assert!(message.contains(expected), "{message:?} lacks {expected:?}");
    }
    let mut broken = weights.clone();
    let end = broken.len();
    broken[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    assert!(message(&json, &broken, &vocabulary).contains("not finite"));
    let missing = Model::load(Path::new("/nonexistent")).err().unwrap().to_string();
    assert!(missing.contains("a model folder holds config.json"));
}

/// A toy language: the label is whether token 4 or token 5 occurs.
fn toy() -> (Config, Vec<Example>, Options) {
    let config = Config {
        layers: 1,
        width: 8,
        heads: 2,
        length: 6,
        feed_forward: 8,
        head_rank: 0,
        head_hidden: 8,
        classes: 2,
        vocabulary: 20,
        lora_rank: 0,
        lora_targets: Targets::ALL,
        kernel: Kernel::Gaussian,
        first_norm: false,
        embedding_affine: false,
        norm_epsilon: 1e-5,
        loss: Loss::CrossEntropy,
    };
    let mut random = Random::new(5, 0);
    let data = (0..512)
        .map(|i| {
            let mut tokens: Vec<u32> = (0..6).map(|_| 6 + (random.next_u64() % 14) as u32).collect();
            tokens[0] = 2;
            tokens[1 + i % 5] = 4 + (i % 2) as u32;
            Example { sequence: Sequence { tokens, used: 6, truncated: false }, label: (i % 2) as f32 }
        })
        .collect();
    let options = Options {
        exact_epochs: 2,
        polynomial_epochs: 1,
        batch: 16,
        learning_rate: 1e-2,
        optimizer: AdamW::default(),
        word_dropout: 0.0,
        seed: 3,
    };
    (config, data, options)
}

fn budget(site: Site) -> Budget {
    Budget { degree: 15, squarings: u32::from(matches!(site, Site::Kernel(_))), margin: 1.5 }
}

#[test]
fn a_tiny_training_run_learns_and_repeats_itself() {
    let (config, data, options) = toy();
    let mut seen = Vec::new();
    let mut note = |p: Progress| seen.push(p);
    let none = Penalties::none(&config);
    let first = train(&config, &data, &options, &none, budget, &mut note).unwrap();
    assert!(seen[2].loss < 0.6 * seen[0].loss, "{seen:?}");
    assert!(seen[2].polynomial && !seen[1].polynomial);
    // The same on one thread as on several.
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let second = one.install(|| train(&config, &data, &options, &none, budget, &mut |_| {})).unwrap();
    assert_eq!(first.parameters, second.parameters);
    assert_eq!(first.approximations, second.approximations);
}

#[test]
fn training_says_why_it_stops() {
    let (config, data, options) = toy();
    let none = Penalties::none(&config);
    let run =
        |data: &[Example], options: &Options| train(&config, data, options, &none, budget, &mut |_| {}).err();
    assert_eq!(run(&[], &options), Some(TrainError::NoData));
    let wild = Options { learning_rate: f64::INFINITY, ..options };
    assert!(matches!(run(&data, &wild), Some(TrainError::Diverged { epoch: 1, .. })));
}
