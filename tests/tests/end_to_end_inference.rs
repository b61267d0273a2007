//! The encoder under encryption against its f64 twins: a trained model on real
//! sentences, and full attention in a random model of two layers.

use chacha20::ChaCha20Rng;
use rand_core::SeedableRng;
use veilformer::ckks::client::SecretKey;
use veilformer::ckks::encoding::Encoder;
use veilformer::ckks::server::Evaluator;
use veilformer::ckks::{Parameters, ParametersLiteral, SwitchingKey};
use veilformer::memory::Arena;
use veilformer::ring::SecretSeed;
use veilformer::transformer::slots::{
    EncryptedSlots, Layout, Plan, PlanSlots, Scratch, SlotExecutor, SlotTensor,
};
use veilformer::transformer::{Config, Kernel, Loss, Parameter, Site, Targets, forward};
use veilformer_multicore::Multicore;
use veilformer_plain::executor::{Functions, PlainExecutor};
use veilformer_plain::model::Model;
use veilformer_plain::parameters::Parameters as Values;
use veilformer_plain::random::Random;
use veilformer_plain::run::{Example, embed, mask_tensor, observe};
use veilformer_plain::sites::{Approximations, Budget};
use veilformer_plain::slots::Weights;
use veilformer_plain::tokenizer::Sequence;

const ASSETS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../hosts/cli/assets");

fn sequences(model: &Model, count: usize) -> Vec<Sequence> {
    let text = std::fs::read_to_string(format!("{ASSETS}/sst2-excerpt.tsv")).unwrap();
    let sentences = text.lines().skip(1).filter_map(|line| line.split('\t').next());
    sentences.take(count).map(|s| model.tokenizer.encode(s, None, model.config.length).unwrap()).collect()
}

fn plan(parameters: &Parameters, model: &Weights<'_>) -> Plan {
    let slots = PlanSlots::new(parameters);
    let input = |level| SlotTensor::tokens(slots.input(level));
    let (x, mask) = (input(parameters.max_level()), input(parameters.max_level()));
    let mut executor = SlotExecutor::new(slots, model).unwrap();
    forward(model.config, &mut executor, x, &mask).unwrap();
    executor.into_slots().finish()
}

/// The embedding and the logits in f64.
fn twin(model: &Weights<'_>, functions: Functions<'_>, sequence: &Sequence) -> (Vec<f64>, Vec<f64>) {
    let mut executor = PlainExecutor::new(model.config, model.parameters, functions);
    let x = embed(&mut executor, model.config, model.parameters, &sequence.tokens).unwrap();
    let y = forward(model.config, &mut executor, x.clone(), &mask_tensor(sequence)).unwrap();
    (x.data().to_vec(), y.data().to_vec())
}

/// Runs the sentences, a batch at most; returns the worst difference of a logit from
/// the polynomial twin, in bits, and the share of classes equal to the exact model's.
fn compare(
    model: &Weights<'_>,
    sequences: &[Sequence],
    literal: ParametersLiteral,
    limbs: usize,
) -> (f64, f64) {
    let parameters = literal.check().unwrap();
    let plan = plan(&parameters, model);
    let accelerator = Multicore::new(parameters.chain(), 2, limbs).unwrap();
    let layout = Layout::new(model.config, parameters.slots()).unwrap();
    let polynomial = Functions::Polynomial(model.approximations);
    let expected: Vec<_> = sequences.iter().map(|s| twin(model, polynomial, s)).collect();

    let degree = parameters.degree();
    let (mut signed, mut words) = (vec![0i64; degree], vec![0u64; 2 * degree]);
    let (mut reals, mut integers) = (vec![0.0; degree + degree / 2], vec![0i64; degree]);
    let mut twiddles = vec![0.0; Encoder::words_needed(degree)];
    let encoder = Encoder::new(degree, &mut Arena::new(&mut twiddles)).unwrap();
    let seed = SecretSeed::take(&mut [7; 32]);
    let secret = SecretKey::generate(&accelerator, &parameters, seed, &mut signed).unwrap();
    let public = secret.public_key(&mut signed, &mut words).unwrap();
    let keys: Vec<SwitchingKey<Multicore>> = plan
        .keys
        .iter()
        .map(|r| secret.switching_key(r.id, r.level, &mut signed, &mut words).unwrap())
        .collect();

    let mut rng = ChaCha20Rng::from_seed([8; 32]);
    let top = parameters.max_level();
    let mut encrypt = |value: &dyn Fn(usize, usize, usize) -> f64| {
        let mut slots = vec![0.0; parameters.slots()];
        for sentence in 0..sequences.len() {
            for token in 0..model.config.length {
                for feature in 0..model.config.width {
                    slots[layout.slot(feature, token, sentence)] = value(feature, token, sentence);
                }
            }
        }
        encoder.encode_real(&slots, parameters.scale(top), &mut reals[..degree], &mut integers).unwrap();
        let x = public.encrypt_coefficients(&accelerator, top, &integers, &mut rng, &mut signed).unwrap();
        SlotTensor::tokens(x)
    };
    let x = encrypt(&|feature, token, sentence| expected[sentence].0[token * model.config.width + feature]);
    let mask = encrypt(&|_, token, sentence| f64::from(u8::from(token < sequences[sentence].used)));

    let evaluator = Evaluator::new(&accelerator, &parameters, &keys[..]).unwrap();
    let scratch = Scratch::new(degree, &mut reals, &mut integers).unwrap();
    let slots = EncryptedSlots::new(evaluator, &encoder, scratch);
    let mut executor = SlotExecutor::new(slots, model).unwrap();
    let logits = accelerator.run(|| forward(model.config, &mut executor, x, &mask)).unwrap();
    let logits = logits.vector();
    assert_eq!(logits.level(), plan.lowest_level, "the plan knows the level");

    let mut coefficients = vec![0.0; degree];
    secret.decrypt_coefficients(logits, &mut words, &mut coefficients).unwrap();
    let mut slots = vec![0.0; parameters.slots()];
    encoder.decode_real(&mut coefficients, parameters.scale(logits.level()), &mut slots).unwrap();
    let (mut worst, mut agree) = (0.0f64, 0);
    for (sentence, (_, twin_logits)) in expected.iter().enumerate() {
        let got: Vec<f64> =
            (0..model.config.classes).map(|class| slots[layout.slot(class, 0, sentence)]).collect();
        let difference = got.iter().zip(twin_logits).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        worst = worst.max(difference);
        let (_, exact) = twin(model, Functions::Exact, &sequences[sentence]);
        agree += usize::from((got[1] > got[0]) == (exact[1] > exact[0]));
    }
    (-worst.log2(), agree as f64 / sequences.len() as f64)
}

/// The trained one-layer model on as many sentences as fit.
fn trained(literal: ParametersLiteral, limbs: usize) -> (f64, f64) {
    let model = Model::load(format!("{ASSETS}/veil-leveled").as_ref()).unwrap();
    let batch = Layout::new(&model.config, literal.check().unwrap().slots()).unwrap().batch();
    let parameters = model.parameters.convert::<f64>();
    let weights =
        Weights { config: &model.config, parameters: &parameters, approximations: &model.approximations };
    compare(&weights, &sequences(&model, batch), literal, limbs)
}

#[test]
fn toy_inference_agrees_with_the_polynomial_twin() {
    let (bits, agree) = trained(ParametersLiteral::INSECURE_TOY_DEEP, 60_000);
    assert!(bits >= 12.0, "{bits} bits");
    assert!(agree == 1.0, "{agree}");
}

#[test]
fn secure_inference_agrees_with_the_polynomial_twin() {
    let (bits, agree) = trained(ParametersLiteral::N16_LEVELED, 14_000);
    assert!(bits >= 10.0, "{bits} bits");
    assert!(agree >= 0.98, "{agree}");
}

/// Two random layers with polynomials of degree 3, which a deep toy ring carries without bootstrapping.
#[test]
fn attention_of_every_token_agrees_with_the_polynomial_twin() {
    let config = Config {
        layers: 2,
        width: 8,
        heads: 2,
        length: 8,
        feed_forward: 8,
        head_rank: 0,
        head_hidden: 8,
        classes: 2,
        vocabulary: 30,
        lora_rank: 0,
        lora_targets: Targets::ALL,
        kernel: Kernel::Gaussian,
        first_norm: false,
        embedding_affine: false,
        norm_epsilon: 1e-5,
        loss: Loss::CrossEntropy,
    };
    let literal = ParametersLiteral { levels: 45, ..ParametersLiteral::INSECURE_TOY_DEEP };
    let parameters = random(&config);
    let batch = Layout::new(&config, literal.check().unwrap().slots()).unwrap().batch();
    let mut random = Random::new(2, 0);
    let sequences: Vec<Sequence> = (0..batch)
        .map(|i| Sequence {
            tokens: (0..config.length).map(|_| 4 + (random.next_u64() % 26) as u32).collect(),
            used: 1 + i % config.length,
            truncated: false,
        })
        .collect();
    let examples: Vec<Example> =
        sequences.iter().map(|sequence| Example { sequence: sequence.clone(), label: 0.0 }).collect();
    let ranges = observe(&config, &parameters, &examples, Functions::Exact).unwrap().ranges;
    let budget = |_: Site| Budget { degree: 3, squarings: 0, margin: 2.0 };
    let approximations = Approximations::calibrate(&config, &ranges, budget).unwrap();
    let model = Weights { config: &config, parameters: &parameters, approximations: &approximations };
    let (bits, agree) = compare(&model, &sequences, literal, 60_000);
    assert!(bits >= 20.0, "{bits} bits");
    assert!(agree >= 0.75, "{agree}");
}

/// Random weights whose norms do something.
fn random(config: &Config) -> Values<f64> {
    let mut parameters = Values::random(config, 1);
    let mut random = Random::new(1, 1);
    for (parameter, range) in parameters.layout().to_vec() {
        if matches!(parameter, Parameter::Gain(_) | Parameter::Bias(_)) {
            parameters.values_mut()[range].iter_mut().for_each(|w| *w += 0.2 * random.normal());
        }
    }
    parameters
}
