//! The shipped pre-trained encoder: what it knows, the arguments its polynomials serve, and what fine-tuning starts from.

use std::path::{Path, PathBuf};

use veilformer::approx::{Function, Interval, fit};
use veilformer::transformer::{Loss, Parameter, Projection, Site};
use veilformer_plain::data::Task;
use veilformer_plain::executor::Functions;
use veilformer_plain::model::{Model, Reached};
use veilformer_plain::pretrain::{MASK, probe, stream};
use veilformer_plain::recipe::tokenise;
use veilformer_plain::run::{Example, observe};
use veilformer_plain::sites::Ranges;
use veilformer_plain::tiny;

fn assets() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../cli/assets")
}

fn shipped() -> Model {
    Model::load(&assets().join("veil-tiny")).unwrap()
}

fn sentences(model: &Model) -> Vec<Example> {
    let mut data =
        tokenise(&model.tokenizer, &Task::Sst2.read(&assets().join("sst2-excerpt.tsv")).unwrap(), 64)
            .unwrap();
    for task in Task::ALL {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/glue");
        let rows = task.read(&path.join(task.folder()).with_extension("tsv")).unwrap();
        data.extend(tokenise(&model.tokenizer, &rows, 64).unwrap());
    }
    data
}

#[test]
fn it_predicts_hidden_pieces() {
    let model = shipped();
    assert_eq!(model.config, tiny::config(tiny::PIECES));
    let Reached::Pretrained { probe_loss, .. } = model.training.reached else { panic!("it is an encoder") };
    let text = Task::Sst2.read(&assets().join("sst2-excerpt.tsv")).unwrap();
    let text: Vec<&str> = text.iter().map(|row| row.sentence.as_str()).collect();
    let tokens = stream(&model.tokenizer, &text.join("\n")).unwrap();
    let mask = model.tokenizer.piece(MASK).unwrap();
    // Reviews are not what it was trained on; guessing would come to ln 8192 = 9.
    let loss = probe(&model.config, &model.parameters, mask, &tokens, 20);
    assert!(loss < probe_loss + 1.0, "{loss} against {probe_loss}");
    let untrained = tiny::adapted(&model, Task::Sst2, 0, 5).1;
    let mut parameters = model.parameters.clone();
    for layer in 0..2 {
        let random = untrained.get(Parameter::HeadUp);
        parameters.get_mut(Parameter::Attention(Projection::Value, layer)).copy_from_slice(random);
    }
    let spoilt = probe(&model.config, &parameters, mask, &tokens, 20);
    assert!(spoilt > loss + 0.2, "without its values {spoilt}, with them {loss}");
}

#[test]
fn its_polynomials_serve_glue() {
    let model = shipped();
    let data = sentences(&model);
    let weights = model.parameters.convert::<f64>();
    let table = &model.approximations;
    let exact = observe(&model.config, &weights, &data, Functions::Exact).unwrap();
    let polynomial = observe(&model.config, &weights, &data, Functions::PolynomialModel(table)).unwrap();
    assert_eq!(exact.ranges.escape(table), None);
    assert_eq!(polynomial.ranges.escape(table), None);
    for site in Site::all(&model.config) {
        assert_eq!(table.get(site).unwrap().degree(), tiny::budget(&model.config, site).degree);
        let (low, high) = exact.ranges.get(site);
        match site {
            Site::Kernel(_) => assert!(low > -9.0 && high <= 0.0),
            Site::Gate(_) => assert!(low > -5.0 && high < 5.0),
            Site::Tanh => assert!(low > -4.5 && high < 4.5),
            _ => assert!(low > 0.3 && high < 5.0, "{site:?}: {low} to {high}"),
        }
    }
}

#[test]
fn a_hair_outside_is_no_escape() {
    let model = shipped();
    let site = Site::FinalNorm;
    let interval = model.approximations.get(site).unwrap().interval();
    let escape = |argument: f64| {
        let mut seen = Ranges::new(&model.config);
        seen.note(site, argument);
        seen.escape(&model.approximations)
    };
    let (low, high, width) = (interval.low(), interval.high(), interval.width());
    for inside in [low, high, low - 0.0009 * width, high + 0.0009 * width] {
        assert_eq!(escape(inside), None, "{inside}");
    }
    for outside in [low - 0.0011 * width, high + 0.0011 * width, f64::INFINITY] {
        assert_eq!(escape(outside), Some(site), "{outside}");
    }
}

#[test]
fn one_over_the_sums_of_a_softmax_is_right_to_a_hundredth() {
    // As its pre-trained encoder had them, with the margin: assets/PROVENANCE.md.
    let sums = Interval::new(0.632, 364.6).unwrap();
    let degree = tiny::budget(&shipped().config, Site::Normaliser(0)).degree;
    let mut coefficients = vec![0.0; degree + 1];
    let report = fit(Function::Inverse, sums, 0, 0, &mut coefficients).unwrap().measure(20_000);
    assert!(report.worst_relative < 0.011, "{report:?}");
}

#[test]
fn fine_tuning_starts_from_the_encoder_and_a_new_head() {
    let model = shipped();
    for (task, classes, loss) in [(Task::StsB, 1, Loss::SquaredError), (Task::Cola, 2, Loss::CrossEntropy)] {
        let (config, parameters) = tiny::adapted(&model, task, 2, 1);
        assert_eq!((config.classes, config.loss, config.lora_rank), (classes, loss, 2));
        let same = |p| parameters.get(p) == model.parameters.get(p);
        assert!(same(Parameter::TokenEmbedding) && same(Parameter::Contract(1)));
        assert!(!same(Parameter::HeadUp) && !same(Parameter::Classifier));
        assert!(parameters.get(Parameter::LoraUp(Projection::Key, 0)).iter().all(|&w| w == 0.0));
        assert!(parameters.get(Parameter::LoraDown(Projection::Key, 0)).iter().any(|&w| w != 0.0));
        assert_ne!(tiny::adapted(&model, task, 2, 2).1, parameters);
    }
}
