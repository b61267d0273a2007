//! The encrypted executor: a small model on a batch, and one layer of a large one on a single sentence.
//!
//! Weights and sentences are random, polynomials are calibrated on them. Measured is the server's half, from a client's
//! ciphertexts to those of the result; keys, constants and weights are there before.

use super::matrix::encrypt;
use super::tally::Tally;
use super::{Figure, Setting};
use super::{compare, step};
use crate::client::{Client, RELEASES, encoder};
use crate::exit::{Exit, Failure};
use crate::forecast::dry_run;
use crate::output::peak_memory;
use crate::server::KeyStore;
use crate::typical::budget;
use std::cell::RefCell;
use veilformer::ckks::client::SecretKey;
use veilformer::ckks::encoding::words_to_read;
use veilformer::ckks::server::bootstrap::BootstrapPlan;
use veilformer::ckks::{Ciphertext, Parameters, ParametersLiteral, PrecisionStats};
use veilformer::transformer::{Config, Executor, Parameter, Site, Trainable, forward, forward_layer};
use veilformer_engine::plan::Job;
use veilformer_engine::{Encrypted, Engine, Ring, Tensor, Watched, client, required_keys, with_algebra};
use veilformer_multicore::Multicore;
use veilformer_plain::executor::{Functions, PlainExecutor};
use veilformer_plain::finetune::FineTuner;
use veilformer_plain::parameters::Parameters as Model;
use veilformer_plain::random::Random;
use veilformer_plain::run::{Example, embed, mask_tensor, observe};
use veilformer_plain::sites::Approximations;
use veilformer_plain::slots::Weights;
use veilformer_plain::tensor::Tensor as Plain;
use veilformer_plain::tiny;
use veilformer_plain::tokenizer::Sequence;

/// Logits of sixteen sentences.
const INFER: &str = "infer/veil-tiny";
/// The first of two layers of BERT's width.
const LAYER: &str = "layer/bert2-768";
/// The names, in the order they are measured.
pub(super) const NAMES: [&str; 3] = [INFER, LAYER, step::NAME];

pub(super) const SET: &str = "n16/matrix";
const VOCABULARY: usize = 1000;
const SEED: u64 = 1;
/// Steps that training's polynomials are calibrated on.
const CALIBRATION: usize = 8;
/// Limbs of the big ring and of the small one: 8 GiB and 2 GiB.
const LIMBS: [usize; 2] = [1 << 14, 1 << 15];

type Keys = KeyStore<'static, Multicore>;
/// Ciphertexts of the big ring.
type Sent = Vec<Ciphertext<Multicore>>;
type Algebra<'s, F> = Watched<Encrypted<'s, Multicore, Keys>, F>;

/// What is measured.
pub(super) struct Subject {
    pub(super) name: &'static str,
    pub(super) config: Config,
    pub(super) sentences: usize,
    /// One layer instead of the whole model.
    layer: Option<usize>,
    /// What is trained, if anything.
    pub(super) trained: Option<Trainable>,
}

impl Subject {
    fn of(name: &str) -> Self {
        let tiny = tiny::config(VOCABULARY);
        if name == INFER {
            return Self { name: INFER, config: tiny, sentences: 16, layer: None, trained: None };
        }
        if name == step::NAME {
            let config = Config { lora_rank: 2, ..tiny };
            let trained = Some(Trainable::Adapters);
            return Self { name: step::NAME, config, sentences: 16, layer: None, trained };
        }
        if let Some(row) = compare::Row::of(name) {
            let (name, trained) = (row.name, Some(row.trained()));
            return Self { name, config: row.config(tiny), sentences: 16, layer: None, trained };
        }
        // A first norm, so that the layer is like every other one.
        let config =
            Config { width: 768, heads: 12, length: 128, feed_forward: 1536, first_norm: true, ..tiny };
        Self { name: LAYER, config, sentences: 1, layer: Some(0), trained: None }
    }

    /// The job, where it is a whole one.
    fn job(&self) -> Option<Job> {
        match (self.layer, self.trained) {
            (Some(_), _) => None,
            (None, None) => Some(Job::Inference(None)),
            (None, Some(trained)) => {
                Some(Job::Step(trained, step::recipe(trained, Functions::Exact, 1).optimizer))
            }
        }
    }

    /// The part of the program that is measured.
    fn run<E: Executor>(
        &self,
        executor: &mut E,
        x: E::Tensor,
        mask: &E::Tensor,
    ) -> Result<E::Tensor, E::Error> {
        match self.layer {
            Some(layer) => forward_layer(&self.config, executor, layer, x, mask),
            None => forward(&self.config, executor, x, mask),
        }
    }
}

/// A random model, its polynomials, and the sentences they were calibrated on.
pub(super) struct Sample<'s> {
    subject: &'s Subject,
    pub(super) parameters: Model<f64>,
    pub(super) approximations: Approximations,
    pub(super) data: Vec<Example>,
}

impl<'s> Sample<'s> {
    fn new(subject: &'s Subject) -> Result<Self, Failure> {
        let config = &subject.config;
        let mut parameters = Model::<f64>::random(config, SEED);
        let mut random = Random::new(SEED, 1 << 20);
        for (parameter, range) in parameters.layout().to_vec() {
            // As after some steps: at first LoRA's B is zero.
            if matches!(parameter, Parameter::LoraUp(..)) {
                parameters.values_mut()[range].iter_mut().for_each(|w| *w += 0.1 * random.normal());
            }
        }
        let mut example = || {
            let mut below = |n: usize| (random.next_u64() % n as u64) as usize;
            let used = config.length / 2 + 1 + below(config.length / 2);
            let mut tokens = vec![0; config.length];
            tokens[..used].iter_mut().for_each(|token| *token = (4 + below(VOCABULARY - 4)) as u32);
            let label = below(config.classes) as f32;
            Example { sequence: Sequence { tokens, used, truncated: false }, label }
        };
        let data: Vec<_> = (0..subject.sentences + 1).map(|_| example()).collect();
        let unusable =
            |error: veilformer::approx::ApproxError| Failure::new(Exit::Failure, error.to_string());
        let budget = |site| budget(config, site);
        if let Some(trained) = subject.trained {
            let recipe = step::recipe(trained, Functions::Exact, 1000);
            let mut run = FineTuner::new(config, parameters.clone(), recipe);
            for batch in data.chunks(subject.sentences).cycle().take(CALIBRATION) {
                run.step(batch)?;
            }
            let mut approximations =
                Approximations::calibrate(config, run.ranges(), budget).map_err(unusable)?;
            approximations.fit(Site::training(config), run.ranges(), budget).map_err(unusable)?;
            return Ok(Self { subject, parameters, approximations, data });
        }
        let seen = observe(config, &parameters, &data, Functions::Exact)?;
        let approximations = Approximations::calibrate(config, &seen.ranges, budget).map_err(unusable)?;
        let seen = observe(config, &parameters, &data, Functions::Polynomial(&approximations))?;
        if let Some(site) = seen.ranges.escape(&approximations) {
            return Err(Failure::new(Exit::Failure, format!("arguments left the interval of {site:?}")));
        }
        Ok(Self { subject, parameters, approximations, data })
    }

    pub(super) fn weights(&self) -> Weights<'_> {
        Weights {
            config: &self.subject.config,
            parameters: &self.parameters,
            approximations: &self.approximations,
        }
    }

    fn twin(&self) -> PlainExecutor<'_, f64> {
        let functions = Functions::Polynomial(&self.approximations);
        PlainExecutor::new(&self.subject.config, &self.parameters, functions)
    }

    fn sentences(&self) -> impl Iterator<Item = &Sequence> {
        self.data.iter().take(self.subject.sentences).map(|example| &example.sequence)
    }

    /// The normalised embeddings.
    fn inputs(&self) -> Result<Vec<Plain<f64>>, Failure> {
        let input = |sequence: &Sequence| {
            embed(&mut self.twin(), &self.subject.config, &self.parameters, &sequence.tokens)
        };
        Ok(self.sentences().map(input).collect::<Result<_, _>>()?)
    }

    /// What the polynomials make of them in f64. Encrypted, the residual stream is kept centred, which every norm would
    /// do to it anyway.
    fn expected(&self) -> Result<Vec<Plain<f64>>, Failure> {
        let mut outputs = Vec::new();
        for (x, sequence) in self.inputs()?.into_iter().zip(self.sentences()) {
            let mut output = self.subject.run(&mut self.twin(), x, &mask_tensor(sequence))?;
            for token in (0..output.rows()).filter(|_| self.subject.layer.is_some()) {
                let row = output.row_mut(token);
                let mean = row.iter().sum::<f64>() / row.len() as f64;
                row.iter_mut().for_each(|x| *x -= mean);
            }
            outputs.push(output);
        }
        Ok(outputs)
    }
}

/// Both rings and what the client keeps.
pub(super) struct World<'w> {
    pub(super) parameters: [&'w Parameters; 2],
    accelerators: [&'w Multicore; 2],
    pub(super) secrets: [SecretKey<'w, Multicore>; 2],
}

/// Measures every wanted figure.
pub(super) fn measure(
    setting: &Setting,
    names: &[&str],
    report: &mut impl FnMut(Figure) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let big = ParametersLiteral::N16_MATRIX.check()?;
    let small = big.small_ring()?;
    for name in names {
        let subject = Subject::of(name);
        let sample = Sample::new(&subject)?;
        if let Some(job) = subject.job() {
            // What cannot work is said with its place in the program, before keys are made.
            dry_run(&big, &sample.weights(), subject.sentences, &job, setting.threads)?;
        }
        let limbs = if subject.trained.is_some() { step::LIMBS } else { LIMBS };
        let of_big = Multicore::new(big.chain(), setting.threads, limbs[0])?;
        let accelerators = [&of_big, &of_big.beside(small.chain(), limbs[1])?];
        report(of_big.run(|| {
            let (secret, _) = Client::new(accelerators[0], &big)?.generate(RELEASES)?;
            let of_small = secret.small_ring(accelerators[1], &small, &mut vec![0; small.degree()])?;
            let parameters = [&big, &small];
            let world = World { parameters, accelerators, secrets: [secret, of_small] };
            match subject.trained {
                Some(trained) => step::figure(&world, setting, &sample, &subject, trained),
                None => world.figure(setting, &sample),
            }
        })?)?;
    }
    Ok(())
}

impl World<'_> {
    pub(super) fn ring<'r>(&'r self, keys: &'r [Keys; 2], i: usize) -> Ring<'r, Multicore, Keys> {
        Ring { accelerator: self.accelerators[i], parameters: self.parameters[i], keys: &keys[i] }
    }

    pub(super) fn note_peaks(&self, keys: &[Keys; 2]) {
        let peaks = self.accelerators.map(Multicore::peak_limbs);
        tracing::info!(?peaks, keys = ?keys.each_ref().map(Keys::len), "limbs and keys of both rings");
    }

    pub(super) fn keys(&self, subject: &Subject) -> Result<[Keys; 2], Failure> {
        let trained = subject.trained.is_some();
        let requests = required_keys::<Multicore, Keys>(self.parameters[0], &subject.config, trained)?;
        let mut stores = [Keys::new(), Keys::new()];
        for (i, store) in stores.iter_mut().enumerate() {
            let mut client = Client::new(self.accelerators[i], self.parameters[i])?;
            for request in requests[i].iter() {
                store.insert(client.switching_key(&self.secrets[i], request.id, request.level)?);
            }
        }
        Ok(stores)
    }

    fn figure(&self, setting: &Setting, sample: &Sample<'_>) -> Result<Figure, Failure> {
        let subject = sample.subject;
        let keys = self.keys(subject)?;
        let tally = RefCell::new(Tally::default());
        let weights = sample.weights();
        let (mut times, mut found) = (Vec::new(), Vec::new());
        with_algebra(&self.ring(&keys, 0), &self.ring(&keys, 1), |algebra| {
            let watched =
                Watched::new(algebra, |operation, moment| tally.borrow_mut().note(operation, moment));
            let mut engine = Engine::new(watched, &weights, subject.sentences)?;
            for _ in 0..setting.runs.unwrap_or(1) {
                let (input, mask) = self.send(&engine, sample)?;
                tally.borrow_mut().start();
                let (input, mask) = (engine.input(&input)?, engine.mask(mask)?);
                let output = subject.run(&mut engine, input, &mask)?;
                times.push(tally.borrow_mut().stop());
                found = self.read(&output, subject)?;
            }
            Ok::<_, Failure>(())
        })?;
        times.sort_by(f64::total_cmp);
        let expected = sample.expected()?;
        let largest = expected.iter().flat_map(Plain::data).fold(0.0f64, |m, x| m.max(x.abs()));
        let pairs = expected.iter().flat_map(Plain::data).zip(&found);
        let stats = PrecisionStats::of(pairs.map(|(x, y)| (x / largest, y / largest)));
        self.note_peaks(&keys);
        let tally = tally.into_inner();
        let mut figure = setting.figure(subject.name, SET, &times).precise(stats);
        figure = tally.complete(figure);
        figure.bytes = peak_memory();
        Ok(figure)
    }

    /// Encrypts coefficients for the small ring.
    pub(super) fn coefficients(&self, mut coefficients: Vec<i64>) -> Result<Ciphertext<Multicore>, Failure> {
        let level = BootstrapPlan::new(self.parameters[0])?.coefficient_level();
        encrypt(&self.secrets[0], self.accelerators[0], &mut coefficients, level)
    }

    /// Encrypts slots.
    pub(super) fn slots(&self, values: &[f64], level: usize) -> Result<Ciphertext<Multicore>, Failure> {
        let parameters = self.parameters[0];
        let (mut work, mut coefficients) = (vec![0.0; parameters.degree()], vec![0; parameters.degree()]);
        let encoder = encoder(parameters.degree())?;
        encoder.encode_real(values, parameters.scale(level), &mut work, &mut coefficients)?;
        encrypt(&self.secrets[0], self.accelerators[0], &mut coefficients, level)
    }

    /// What the client sends: embeddings and masks.
    pub(super) fn send<'m, F>(
        &self,
        engine: &Engine<'_, Algebra<'m, F>, Weights<'_>>,
        sample: &Sample<'_>,
    ) -> Result<(Sent, Sent), Failure>
    where
        F: FnMut(veilformer_engine::Operation, veilformer_engine::Moment),
    {
        let inputs = sample.inputs()?;
        let entry = |sentence: usize, row: usize, column: usize| inputs[sentence].row(column)[row];
        let coefficients = client::coefficients(&engine.input_places()?, engine.input_scale(), entry)?;
        let input = coefficients.into_iter().map(|c| self.coefficients(c));
        let used: Vec<usize> = sample.sentences().map(|sequence| sequence.used).collect();
        let counts = |sentence: usize, token: usize| token < used[sentence];
        let (scores, level) = (engine.score_places()?, BootstrapPlan::new(self.parameters[0])?.output());
        let mask = client::mask(&scores, sample.subject.config.heads, counts);
        let mask = mask.map(|slots| self.slots(&slots, level));
        Ok((input.collect::<Result<_, _>>()?, mask.collect::<Result<_, _>>()?))
    }

    /// The entries of a result, sentence by sentence, token by token.
    fn read<G>(&self, output: &Tensor<G>, subject: &Subject) -> Result<Vec<f64>, Failure>
    where
        G: veilformer_engine::Algebra<Piece = Ciphertext<Multicore>>,
    {
        let degree = self.parameters[1].degree();
        let mut words = vec![0; words_to_read(degree, 1)];
        let mut entries = Vec::new();
        for matrix in output.matrices() {
            let mut plain = vec![vec![0.0; degree]; matrix.pieces.len()];
            for (piece, plain) in matrix.pieces.iter().zip(&mut plain) {
                self.secrets[1].decrypt_coefficients(piece, &mut words, plain)?;
            }
            let layout = matrix.entries.layout;
            // Logits are one matrix, a column for every sentence.
            let columns = if subject.layer.is_some() { layout.columns() } else { subject.sentences };
            for (column, row) in (0..columns).flat_map(|c| (0..layout.rows()).map(move |r| (c, r))) {
                entries.push(client::entry(&layout, matrix.entries.scale, &plain, row, column));
            }
        }
        Ok(entries)
    }
}
