//! Models with random weights, their sentences, and how they are encrypted.

use super::{Client, Toy, World};
use veilformer::ckks::{Ciphertext, KeyRequests};
use veilformer::transformer::{AdamWHe, Config, Kernel, Loss, Parameter, Site, Targets, Trainable};
use veilformer_engine::{Algebra, Batch, Engine, Matrix, Tensor, client};
use veilformer_multicore::Multicore;
use veilformer_plain::executor::{Functions, PlainExecutor};
use veilformer_plain::finetune::{FineTuner, Recipe};
use veilformer_plain::parameters::Parameters;
use veilformer_plain::random::Random;
use veilformer_plain::run::{Example, embed};
use veilformer_plain::sites::{Approximations, Budget};
use veilformer_plain::slots::Weights;
use veilformer_plain::tensor::Tensor as Plain;
use veilformer_plain::tokenizer::Sequence;

pub(crate) const LENGTH: usize = 16;
pub(crate) const SENTENCES: usize = 3;

pub(crate) fn config(layers: usize, first_norm: bool, lora_rank: usize) -> Config {
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

/// The same with a stream that fills its places, so that it is multiplied by the weights of the hidden layer in slots; the
/// last of its blocks there is not full.
pub(crate) fn full(layers: usize, first_norm: bool, lora_rank: usize) -> Config {
    Config { width: 128, feed_forward: 300, ..config(layers, first_norm, lora_rank) }
}

/// The same with softmax attention.
pub(crate) fn softmax(layers: usize, first_norm: bool, lora_rank: usize) -> Config {
    Config { kernel: Kernel::Softmax, ..config(layers, first_norm, lora_rank) }
}

pub(crate) fn budget(kernel: Kernel, site: Site) -> Budget {
    let squarings = if kernel == Kernel::Gaussian && matches!(site, Site::Kernel(_)) { 2 } else { 0 };
    let degree = match site {
        Site::LossInverse | Site::LossExp | Site::Optimizer => 7,
        // Sums of five tokens' scores and of sixteen's.
        Site::Normaliser(_) => 31,
        _ => 15,
    };
    Budget { degree, squarings, margin: 1.5 }
}

/// A model with random weights, gains and biases, its polynomials, and sentences of several lengths.
pub(crate) struct Sample {
    pub(crate) config: Config,
    pub(crate) parameters: Parameters<f64>,
    pub(crate) approximations: Approximations,
    pub(crate) data: Vec<Example>,
}

impl Sample {
    pub(crate) fn new(config: Config, seed: u64) -> Self {
        Self::with_trained(config, Trainable::Adapters, seed)
    }

    /// Calibrated for another set of trained weights.
    pub(crate) fn with_trained(config: Config, trained: Trainable, seed: u64) -> Self {
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
                let used = used.min(config.length);
                let token = |i| if i < used { 4 + (random.next_u64() % 26) as u32 } else { 0 };
                let tokens = (0..config.length).map(token).collect();
                Example { sequence: Sequence { tokens, used, truncated: false }, label: (used % 3) as f32 }
            })
            .collect();
        let recipe = Recipe {
            trained,
            optimizer: AdamWHe::paper(1e-3, 1e-2),
            steps: 1000,
            functions: Functions::Exact,
            noise: None,
        };
        let mut run = FineTuner::new(&config, parameters.clone(), recipe);
        for batch in data.chunks(SENTENCES) {
            run.step(batch).unwrap();
        }
        let budget = |site| budget(config.kernel, site);
        let mut approximations = Approximations::calibrate(&config, run.ranges(), budget).unwrap();
        approximations.fit(Site::training(&config), run.ranges(), budget).unwrap();
        Self { config, parameters, approximations, data }
    }

    pub(crate) fn weights(&self) -> Weights<'_> {
        Weights { config: &self.config, parameters: &self.parameters, approximations: &self.approximations }
    }

    /// The model's weights, those that are trained turned: what is encrypted must come from the client.
    pub(crate) fn with_other(&self, trained: Trainable) -> Parameters<f64> {
        let mut others = self.parameters.clone();
        for parameter in trained.parameters(&self.config) {
            others.get_mut(parameter).iter_mut().for_each(|w| *w = -*w);
        }
        others
    }

    pub(crate) fn executor(&self) -> PlainExecutor<'_, f64> {
        PlainExecutor::new(&self.config, &self.parameters, Functions::Polynomial(&self.approximations))
    }

    pub(crate) fn input(&self, sentence: usize) -> Plain<f64> {
        let tokens = &self.data[sentence].sequence.tokens;
        embed(&mut self.executor(), &self.config, &self.parameters, tokens).unwrap()
    }

    pub(crate) fn keys(&self, world: &World) -> [KeyRequests; 2] {
        world.keys(&self.config)
    }
}

pub(crate) type ToyEngine<'m, 's> = Engine<'m, Toy<'s>, Weights<'m>>;

/// Encrypts the batch and its labels.
pub(crate) fn batch<G: Algebra<Vector = Ciphertext<Multicore>>>(
    engine: &Engine<'_, G, Weights<'_>>,
    client: &Client<'_>,
    sample: &Sample,
    world: &World,
) -> Batch<Ciphertext<Multicore>> {
    let inputs: Vec<_> = (0..SENTENCES).map(|s| sample.input(s)).collect();
    let (places, scale) = (engine.input_places().unwrap(), engine.input_scale());
    let entry = |s: usize, row: usize, column: usize| inputs[s].row(column)[row];
    let input = client::coefficients(&places, scale, entry).unwrap();
    let scores = engine.score_places().unwrap();
    let counts = |s: usize, token: usize| token < sample.data[s].sequence.used;
    let level = world.parameters[0].max_level();
    let mask = client::mask(&scores, sample.config.heads, counts);
    let (places, scale) = (engine.target_places().unwrap(), engine.target_scale());
    let entry = |_: usize, class: usize, sentence: usize| {
        let label = sample.data.get(sentence).map_or(0.0, |example| example.label);
        match sample.config.loss {
            _ if sentence >= SENTENCES => 0.0,
            Loss::SquaredError => label.into(),
            Loss::CrossEntropy => f64::from(u8::from(label as usize == class)),
        }
    };
    let target = client::coefficients(&places, scale, entry).unwrap();
    let encrypt = |all: Vec<Vec<i64>>| all.iter().map(|one| client.encrypt(3, one)).collect();
    Batch {
        input: encrypt(input),
        mask: mask.map(|slots| client.encrypt_slots(level, &slots)).collect(),
        target: encrypt(target),
    }
}

/// The batch, with the server.
pub(crate) fn send<G: Algebra<Vector = Ciphertext<Multicore>>>(
    engine: &mut Engine<'_, G, Weights<'_>>,
    client: &Client<'_>,
    sample: &Sample,
    world: &World,
) -> [Tensor<G>; 2] {
    let Batch { input, mask, .. } = batch(engine, client, sample, world);
    [engine.input(&input).unwrap(), engine.mask(mask).unwrap()]
}

/// Encrypts the trained weights.
pub(crate) fn send_weights<G: Algebra<Vector = Ciphertext<Multicore>>>(
    engine: &mut Engine<'_, G, Weights<'_>>,
    client: &Client<'_>,
    sample: &Sample,
    world: &World,
) {
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
pub(crate) fn error(
    client: &Client<'_>,
    matrices: &[Matrix<<Toy<'_> as Algebra>::Piece>],
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
