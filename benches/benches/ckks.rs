//! The scheme's operations on one thread and on two.

use chacha20::ChaCha20Rng;
use chacha20::rand_core::SeedableRng;
use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use veilformer::ckks::client::{PublicKey, SecretKey};
use veilformer::ckks::encoding::{Encoder, plaintext};
use veilformer::ckks::server::Evaluator;
use veilformer::ckks::{Ciphertext, KeyId, Parameters, ParametersLiteral, SwitchingKey};
use veilformer::memory::Arena;
use veilformer::ring::{Basis, SecretSeed};
use veilformer_benches::slots;
use veilformer_multicore::Multicore;

const SETS: [(&str, ParametersLiteral); 2] =
    [("n13/3", ParametersLiteral::N13_3), ("n16/24", ParametersLiteral::N16_24)];

/// A client, its keys, and two ciphertexts at the top level.
struct Bench<'b> {
    parameters: &'b Parameters,
    accelerator: &'b Multicore,
    encoder: Encoder<'b>,
    rng: ChaCha20Rng,
    public: PublicKey<Multicore>,
    keys: Vec<SwitchingKey<Multicore>>,
    values: Vec<f64>,
    scratch: Vec<f64>,
    coefficients: Vec<i64>,
    signed: Vec<i64>,
    encrypted: Vec<Ciphertext<Multicore>>,
}

impl<'b> Bench<'b> {
    fn new(accelerator: &'b Multicore, parameters: &'b Parameters, twiddles: &'b mut [f64]) -> Self {
        let (degree, level) = (parameters.degree(), parameters.max_level());
        let mut rng = ChaCha20Rng::from_seed([7; 32]);
        let (mut signed, mut words) = (vec![0i64; degree], vec![0u64; degree]);
        let seed = SecretSeed::draw(&mut rng);
        let secret = SecretKey::generate(accelerator, parameters, seed, &mut signed).unwrap();
        let public = secret.public_key(&mut signed, &mut words).unwrap();
        let mut key = |id| secret.switching_key(id, level, &mut signed, &mut words).unwrap();
        let keys = vec![key(KeyId::Relinearization), key(KeyId::rotation(parameters, 1))];
        let mut this = Self {
            parameters,
            accelerator,
            encoder: Encoder::new(degree, &mut Arena::new(twiddles)).unwrap(),
            rng,
            public,
            keys,
            values: slots(parameters.slots(), 1),
            scratch: vec![0.0; degree],
            coefficients: vec![0; degree],
            signed,
            encrypted: Vec::new(),
        };
        this.encode();
        this.encrypted = vec![this.encrypt(), this.encrypt()];
        this
    }

    fn encode(&mut self) {
        let scale = self.parameters.scale(self.parameters.max_level());
        self.encoder.encode_real(&self.values, scale, &mut self.scratch, &mut self.coefficients).unwrap();
    }

    fn encrypt(&mut self) -> Ciphertext<Multicore> {
        let level = self.parameters.max_level();
        let (coefficients, signed) = (&self.coefficients, &mut self.signed);
        self.public
            .encrypt_coefficients(self.accelerator, level, coefficients, &mut self.rng, signed)
            .unwrap()
    }
}

fn operations(c: &mut Criterion) {
    for (set, literal) in SETS {
        let parameters = literal.check().unwrap();
        for threads in [1, 2] {
            let accelerator = Multicore::new(parameters.chain(), threads, 1 << 12).unwrap();
            let mut twiddles = vec![0.0; Encoder::words_needed(parameters.degree())];
            measure(c, set, threads, Bench::new(&accelerator, &parameters, &mut twiddles));
        }
    }
}

fn measure(c: &mut Criterion, set: &str, threads: usize, mut bench: Bench<'_>) {
    let accelerator = bench.accelerator;
    let mut group = c.benchmark_group(set);
    group.sample_size(10);
    let id = |name: &str| BenchmarkId::new(name, format!("{threads} threads"));
    let level = bench.parameters.max_level();
    {
        let evaluator = Evaluator::new(bench.accelerator, bench.parameters, &bench.keys[..]).unwrap();
        let (x, y) = (&bench.encrypted[0], &bench.encrypted[1]);
        group.bench_function(id("rotate"), |b| {
            b.iter(|| accelerator.run(|| evaluator.rotate(black_box(x), 1).unwrap()))
        });
        group.bench_function(id("mul_relin_rescale"), |b| {
            b.iter(|| accelerator.run(|| evaluator.multiply_rescale(black_box(x), y).unwrap()));
        });
        let product = || {
            let mut product = evaluator.product(level).unwrap();
            evaluator.multiply_constant_add(&mut product, x, 1.0).unwrap();
            product
        };
        group.bench_function(id("rescale"), |b| {
            let rescale = |product| accelerator.run(|| evaluator.rescale(product).unwrap());
            b.iter_batched(product, rescale, BatchSize::PerIteration);
        });
    }
    group.bench_function(id("encode"), |b| {
        b.iter(|| {
            bench.encode();
            let coefficients = &bench.coefficients;
            accelerator.run(|| plaintext(accelerator, Basis::level(level), coefficients).unwrap())
        });
    });
    group.bench_function(id("encrypt"), |b| b.iter(|| accelerator.run(|| bench.encrypt())));
    group.finish();
}

criterion_group!(benches, operations);
criterion_main!(benches);
