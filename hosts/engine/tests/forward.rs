//! The encrypted forward pass against the same polynomials in f64, on toy parameters, which are insecure.

mod world;

use veilformer::ckks::ParametersLiteral;
use veilformer::transformer::{
    Config, Executor, Kernel, Loss, Norm, Parameter, Projection, Site, Targets, forward,
};
use veilformer_engine::{Engine, Matrix, Places, Tensor, client};
use veilformer_plain::executor::{Functions, PlainExecutor};
use veilformer_plain::parameters::Parameters;
use veilformer_plain::random::Random;
use veilformer_plain::run::{Example, embed, mask_tensor, observe};
use veilformer_plain::sites::{Approximations, Budget};
use veilformer_plain::slots::Weights;
use veilformer_plain::tensor::Tensor as Plain;
use veilformer_plain::tokenizer::Sequence;
use world::{Client, Toy, World};

const LENGTH: usize = 16;
const SENTENCES: usize = 3;

fn config(layers: usize, first_norm: bool, lora_rank: usize) -> Config {
    Config {
        layers,
        width: 16,
        heads: 2,
        length: LENGTH,
        feed_forward: 24,
        head_rank: 0,
        head_hidden: 20,
        classes: 3,
        vocabulary: 30,
        lora_rank,
        lora_targets: Targets::ALL,
        kernel: Kernel::Gaussian,
        first_norm,
        embedding_affine: false,
        norm_epsilon: 1e-5,
        loss: Loss::CrossEntropy,
    }
}

fn budget(site: Site) -> Budget {
    let squarings = if matches!(site, Site::Kernel(_)) { 2 } else { 0 };
    Budget { degree: 15, squarings, margin: 1.5 }
}

/// A model with random weights, gains and biases, its polynomials, and sentences of several lengths.
struct Sample {
    config: Config,
    parameters: Parameters<f64>,
    approximations: Approximations,
    data: Vec<Example>,
}

impl Sample {
    fn new(config: Config, seed: u64) -> Self {
        let mut parameters = Parameters::<f64>::random(&config, seed);
        let mut random = Random::new(seed, 9);
        for (parameter, range) in parameters.layout().to_vec() {
            if matches!(parameter, Parameter::Gain(_) | Parameter::Bias(_) | Parameter::LoraUp(..)) {
                parameters.values_mut()[range].iter_mut().for_each(|w| *w += 0.1 * random.normal());
            }
        }
        let data: Vec<Example> = [LENGTH, 5, 11]
            .into_iter()
            .cycle()
            .take(40)
            .map(|used| {
                let token = |i| if i < used { 4 + (random.next_u64() % 26) as u32 } else { 0 };
                let tokens = (0..config.length).map(token).collect();
                Example { sequence: Sequence { tokens, used, truncated: false }, label: 0.0 }
            })
            .collect();
        let seen = observe(&config, &parameters, &data, Functions::Exact).unwrap();
        let approximations = Approximations::calibrate(&config, &seen.ranges, budget).unwrap();
        Self { config, parameters, approximations, data }
    }

    fn weights(&self) -> Weights<'_> {
        Weights { config: &self.config, parameters: &self.parameters, approximations: &self.approximations }
    }

    fn executor(&self) -> PlainExecutor<'_, f64> {
        PlainExecutor::new(&self.config, &self.parameters, Functions::Polynomial(&self.approximations))
    }

    fn input(&self, sentence: usize) -> Plain<f64> {
        let tokens = &self.data[sentence].sequence.tokens;
        embed(&mut self.executor(), &self.config, &self.parameters, tokens).unwrap()
    }

    fn places(&self, world: &World) -> Places {
        Places::new(world.degrees(), SENTENCES, self.config.width, LENGTH).unwrap()
    }
}

type ToyEngine<'m, 's> = Engine<'m, Toy<'s>, Weights<'m>>;

/// Encrypts the batch.
fn send<'s>(
    engine: &mut ToyEngine<'_, 's>,
    client: &Client<'_>,
    sample: &Sample,
    world: &World,
) -> [Tensor<Toy<'s>>; 2] {
    let inputs: Vec<_> = (0..SENTENCES).map(|s| sample.input(s)).collect();
    let (places, scale) = (engine.input_places().unwrap(), engine.input_scale());
    let entry = |s: usize, row: usize, column: usize| inputs[s].row(column)[row];
    let coefficients = client::coefficients(&places, scale, entry).unwrap();
    let ciphertexts: Vec<_> = coefficients.iter().map(|c| client.encrypt(3, c)).collect();
    let scores = engine.score_places().unwrap();
    let counts = |s: usize, token: usize| token < sample.data[s].sequence.used;
    let level = world.parameters[0].max_level();
    let masks = client::mask(&scores, sample.config.heads, counts)
        .map(|slots| client.encrypt_slots(level, &slots))
        .collect();
    [engine.input(&ciphertexts).unwrap(), engine.mask(masks).unwrap()]
}

/// Encrypts the trained weights.
fn send_weights(engine: &mut ToyEngine<'_, '_>, client: &Client<'_>, sample: &Sample, world: &World) {
    let places = engine.trained_places().unwrap();
    let level = world.parameters[0].max_level();
    let half = |ciphertext: usize, upper: bool| {
        let weight = |slot: usize| match places.weight(ciphertext, upper, slot) {
            Some((parameter, row, column)) => {
                let columns = parameter.shape(&sample.config).columns;
                sample.parameters.get(parameter)[row * columns + column]
            }
            None => 0.0,
        };
        let values: Vec<f64> = (0..world.degrees().slots()).map(weight).collect();
        client.encrypt_slots(level, &values)
    };
    let both = places.places().has_upper_half();
    let halves = 0..places.places().ciphertexts();
    let halves = halves.map(|c| (half(c, false), both.then(|| half(c, true)))).collect();
    engine.set_trained(halves).unwrap();
}

/// The largest difference between a tensor and what it should be, entry(sentence, row, column).
fn error(
    client: &Client<'_>,
    matrices: &[Matrix<<Toy<'_> as veilformer_engine::Algebra>::Piece>],
    columns: usize,
    entry: impl Fn(usize, usize, usize) -> f64,
) -> f64 {
    let mut worst = 0.0f64;
    for (sentence, matrix) in matrices.iter().enumerate() {
        let pieces: Vec<_> = matrix.pieces.iter().map(|piece| client.decrypt(piece)).collect();
        let layout = matrix.entries.layout;
        for (row, column) in (0..layout.rows()).flat_map(|r| (0..columns).map(move |c| (r, c))) {
            let found = client::entry(&layout, matrix.entries.scale, &pieces, row, column);
            worst = worst.max((found - entry(sentence, row, column)).abs());
        }
    }
    worst
}

#[test]
fn operation_by_operation() {
    let world = World::new(ParametersLiteral::INSECURE_TOY_MATRIX, [12000, 60000]);
    let sample = Sample::new(config(2, false, 0), 1);
    let client = world.client();
    world.serve(&client, &[sample.places(&world)], |algebra| {
        let model = sample.weights();
        let mut engine = Engine::new(algebra, &model, SENTENCES).unwrap();
        let [x, mask] = send(&mut engine, &client, &sample, &world);
        let mut plain: Vec<_> = (0..SENTENCES).map(|_| sample.executor()).collect();
        let inputs: Vec<_> = (0..SENTENCES).map(|s| sample.input(s)).collect();
        let check = |name: &str, found: &Tensor<Toy<'_>>, expected: &[Plain<f64>], tolerance: f64| {
            let error =
                error(&client, found.matrices(), LENGTH, |s, row, column| expected[s].row(column)[row]);
            println!("{name}: {error:.2e}");
            assert!(error < tolerance, "{name}: {error}");
        };
        let each =
            |f: &mut dyn FnMut(usize) -> Plain<f64>| -> Vec<Plain<f64>> { (0..SENTENCES).map(f).collect() };
        check("input", &x, &inputs, 1e-6);
        let weight = |p| Parameter::Attention(p, 0);
        let v = engine.linear(&x, weight(Projection::Value)).unwrap();
        let value =
            each(&mut |s| plain[s].linear(&inputs[s], Parameter::Attention(Projection::Value, 0)).unwrap());
        check("value", &v, &value, 1e-3);
        let q = engine.linear(&x, weight(Projection::Query)).unwrap();
        let k = engine.linear(&x, weight(Projection::Key)).unwrap();
        let query =
            each(&mut |s| plain[s].linear(&inputs[s], Parameter::Attention(Projection::Query, 0)).unwrap());
        let key =
            each(&mut |s| plain[s].linear(&inputs[s], Parameter::Attention(Projection::Key, 0)).unwrap());
        let v = engine.mask_tokens(&v, &mask).unwrap();
        let scores = engine.gaussian_scores(&q, &k, 0).unwrap();
        let mixed = engine.mix(&scores, &v).unwrap();
        let mix = each(&mut |s| {
            let scores = plain[s].gaussian_scores(&query[s], &key[s], 0).unwrap();
            let mask = mask_tensor(&sample.data[s].sequence);
            let value = plain[s].mask_tokens(&value[s], &mask).unwrap();
            plain[s].mix(&scores, &value).unwrap()
        });
        check("mix", &mixed, &mix, 1e-2);
        let out = engine.linear(&mixed, Parameter::Output(0)).unwrap();
        let middle = engine.add(&x, &out).unwrap();
        let mid = each(&mut |s| {
            let out = plain[s].linear(&mix[s], Parameter::Output(0)).unwrap();
            plain[s].add(&inputs[s], &out).unwrap()
        });
        let normed = engine.layer_norm(&middle, Norm::Second(0)).unwrap();
        let hidden = engine.linear(&normed, Parameter::Expand(0)).unwrap();
        let gated = engine.gate(&hidden, 0).unwrap();
        let gate = each(&mut |s| {
            let normed = plain[s].layer_norm(&mid[s], Norm::Second(0)).unwrap();
            let hidden = plain[s].linear(&normed, Parameter::Expand(0)).unwrap();
            plain[s].gate(&hidden, 0).unwrap()
        });
        check("gate", &gated, &gate, 1e-2);
        let first = engine.first_token(&normed).unwrap();
        assert_eq!(first.matrices().len(), 1);
    });
}

#[test]
fn logits_of_whole_models() {
    for (layers, first_norm, lora_rank) in
        [(1, false, 0), (2, false, 0), (2, true, 0), (2, false, 2), (2, true, 3)]
    {
        let world = World::new(ParametersLiteral::INSECURE_TOY_MATRIX, [12000, 60000]);
        let sample = Sample::new(config(layers, first_norm, lora_rank), 2);
        let client = world.client();
        world.serve(&client, &[sample.places(&world)], |algebra| {
            let model = sample.weights();
            let mut engine = Engine::new(algebra, &model, SENTENCES).unwrap();
            let [x, mask] = send(&mut engine, &client, &sample, &world);
            if lora_rank > 0 {
                send_weights(&mut engine, &client, &sample, &world);
            }
            let logits = forward(&sample.config, &mut engine, x, &mask).unwrap();
            let expected: Vec<_> = (0..SENTENCES)
                .map(|s| {
                    let mask = mask_tensor(&sample.data[s].sequence);
                    forward(&sample.config, &mut sample.executor(), sample.input(s), &mask).unwrap()
                })
                .collect();
            let error = error(&client, logits.matrices(), SENTENCES, |_, class, s| expected[s].data()[class]);
            println!("{layers} layers, rank {lora_rank}: {error:.2e}");
            assert!(error < 1e-2, "{error}");
        });
    }
}
