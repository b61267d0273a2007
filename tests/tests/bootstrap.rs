//! Bootstrapping on every backend: the same bytes, and hundreds in a row.

mod backends;

use backends::{LIMBS, Message, Program, agree};
use chacha20::ChaCha20Rng;
use rand_core::SeedableRng;
use veilformer::accel::{Accelerator, Trusted};
use veilformer::ckks::client::{KeyTag, SecretKey};
use veilformer::ckks::encoding::{Complex, Encoder};
use veilformer::ckks::server::Evaluator;
use veilformer::ckks::server::FactorScratch;
use veilformer::ckks::server::bootstrap::{Bootstrap, BootstrapPlan};
use veilformer::ckks::{Ciphertext, KeyRequests, Parameters, ParametersLiteral, SwitchingKey};
use veilformer::memory::Arena;
use veilformer::ring::SecretSeed;
use veilformer::wire::{Codec, Reader};
use veilformer_multicore::Multicore;

const INSECURE: ParametersLiteral = ParametersLiteral::INSECURE_TOY_BOOT;

/// What a client sends: keys and one ciphertext, as bytes.
struct Sent {
    tag: KeyTag,
    keys: Vec<Vec<u8>>,
    question: Vec<u8>,
    values: Vec<Complex>,
}

fn encoder(degree: usize, words: &mut Vec<f64>) -> Encoder<'_> {
    words.resize(Encoder::words_needed(degree), 0.0);
    Encoder::new(degree, &mut Arena::new(words)).unwrap()
}

fn secret<'a, A: Trusted>(accelerator: &'a A, parameters: &'a Parameters) -> SecretKey<'a, A> {
    let mut signed = vec![0; parameters.degree()];
    SecretKey::generate(accelerator, parameters, SecretSeed::take(&mut [9; 32]), &mut signed).unwrap()
}

fn send(parameters: &Parameters) -> Sent {
    let degree = parameters.degree();
    let accelerator = Multicore::new(parameters.chain(), 1, 1024).unwrap();
    let secret = secret(&accelerator, parameters);
    let mut requests = KeyRequests::new();
    BootstrapPlan::new(parameters).unwrap().required_keys(parameters, &mut requests).unwrap();
    let (mut signed, mut words, mut scratch) = (vec![0; degree], vec![0; degree], vec![0; degree]);
    let mut codec = Codec::new(&accelerator, parameters, &mut scratch).unwrap();
    let keys = requests
        .iter()
        .map(|request| {
            let mut bytes = Message::default();
            codec.make_switching_key(&mut bytes, &secret, *request, &mut signed, &mut words).unwrap();
            bytes.0
        })
        .collect();
    let value = |j: usize| ((j * 7919 + 13) % 2003) as f64 / 1001.5 - 1.0;
    let values: Vec<Complex> =
        (0..parameters.slots()).map(|j| Complex::new(value(2 * j), value(2 * j + 1))).collect();
    let (mut twiddles, mut coefficients) = (Vec::new(), vec![0; degree]);
    let level = 4;
    encoder(degree, &mut twiddles)
        .encode(&values, parameters.scale(level), &mut vec![0.0; degree], &mut coefficients)
        .unwrap();
    let mut rng = ChaCha20Rng::from_seed([1; 32]);
    let seeded = secret.encrypt_seeded(level, &mut coefficients, &mut rng, &mut words).unwrap();
    let ciphertext = seeded.expand(&accelerator, &mut words).unwrap();
    let mut question = Message::default();
    codec.write_ciphertext(&mut question, secret.tag(), &ciphertext).unwrap();
    Sent { tag: secret.tag(), keys, question: question.0, values }
}

/// A server on some accelerator: reads keys, makes the constants, works.
fn serve<A: Accelerator<Word = u64>, R>(
    accelerator: &A,
    parameters: &Parameters,
    sent: &Sent,
    work: impl FnOnce(&Bootstrap<'_, A, [SwitchingKey<A>]>, Ciphertext<A>) -> R,
) -> R {
    let degree = parameters.degree();
    let (mut words, mut scratch) = (vec![0; degree], vec![0; degree]);
    let keys: Vec<SwitchingKey<A>> = sent
        .keys
        .iter()
        .map(|bytes| {
            let mut codec = Codec::new(accelerator, parameters, &mut scratch).unwrap();
            let key = codec.read_switching_key(&mut Reader::new(&bytes[..]), Some(sent.tag)).unwrap();
            key.expand(accelerator, parameters, &mut words).unwrap()
        })
        .collect();
    let plan = BootstrapPlan::new(parameters).unwrap();
    let mut constants: Vec<A::Limb> = (0..plan.limbs()).map(|_| accelerator.allocate().unwrap()).collect();
    let (mut values, mut coefficients) = (vec![0.0; degree], vec![0; degree]);
    let scratches = FactorScratch {
        values: &mut values,
        coefficients: &mut coefficients,
        words: [&mut words, &mut scratch],
    };
    let mut twiddles = Vec::new();
    plan.prepare(accelerator, parameters, &encoder(degree, &mut twiddles), scratches, &mut constants)
        .unwrap();
    let mut codec = Codec::new(accelerator, parameters, &mut scratch).unwrap();
    let x = codec.read_ciphertext(&mut Reader::new(&sent.question[..]), Some(sent.tag)).unwrap();
    let evaluator = Evaluator::new(accelerator, parameters, &keys[..]).unwrap();
    work(&Bootstrap::new(evaluator, &constants).unwrap(), x)
}

/// One refreshed ciphertext.
struct Refresh<'s> {
    parameters: &'s Parameters,
    sent: &'s Sent,
}

impl Program for Refresh<'_> {
    fn answer<A: Accelerator<Word = u64>>(&self, accelerator: &A) -> Vec<u8> {
        let Self { parameters, sent } = self;
        serve(accelerator, parameters, sent, |bootstrap, x| {
            let (mut bytes, mut scratch) = (Message::default(), vec![0; parameters.degree()]);
            let y = bootstrap.refresh(&x).unwrap();
            let mut codec = Codec::new(accelerator, parameters, &mut scratch).unwrap();
            codec.write_ciphertext(&mut bytes, sent.tag, &y).unwrap();
            bytes.0
        })
    }
}

/// Slot by slot, decrypted by a client of its own.
fn decrypt(parameters: &Parameters, bytes: &[u8], tag: KeyTag) -> Vec<Complex> {
    let degree = parameters.degree();
    let accelerator = Multicore::new(parameters.chain(), 1, 256).unwrap();
    let (mut scratch, mut words) = (vec![0; degree], vec![0; 2 * degree]);
    let mut codec = Codec::new(&accelerator, parameters, &mut scratch).unwrap();
    let x = codec.read_ciphertext(&mut Reader::new(bytes), Some(tag)).unwrap();
    let (mut coefficients, mut twiddles) = (vec![0.0; degree], Vec::new());
    let secret = secret(&accelerator, parameters);
    secret.decrypt_coefficients(&x, &mut words, &mut coefficients).unwrap();
    let mut values = vec![Complex::default(); parameters.slots()];
    let scale = parameters.scale(x.level());
    encoder(degree, &mut twiddles).decode(&mut coefficients, scale, &mut values).unwrap();
    values
}

fn worst(found: &[Complex], expected: &[Complex]) -> f64 {
    let far = |(x, y): (&Complex, &Complex)| (x.re - y.re).abs().max((x.im - y.im).abs());
    found.iter().zip(expected).map(far).fold(0.0, f64::max)
}

#[test]
fn a_bootstrap_is_the_same_bit_for_bit_on_every_backend() {
    let parameters = INSECURE.check().unwrap();
    let sent = send(&parameters);
    let reference = agree(&parameters, &Refresh { parameters: &parameters, sent: &sent });
    let error = worst(&decrypt(&parameters, &reference, sent.tag), &sent.values);
    assert!(error < 2f64.powi(-17), "{error}");
}

#[test]
fn a_hundred_bootstraps_in_a_row_do_not_drift() {
    let parameters = INSECURE.check().unwrap();
    let sent = send(&parameters);
    let multicore = Multicore::new(parameters.chain(), 2, LIMBS).unwrap();
    let errors: Vec<f64> = serve(&multicore, &parameters, &sent, |bootstrap, x| {
        let (mut x, mut scratch) = (x, vec![0; parameters.degree()]);
        (0..100)
            .map(|_| {
                x = bootstrap.refresh(&x).unwrap();
                let mut bytes = Message::default();
                let mut codec = Codec::new(&multicore, &parameters, &mut scratch).unwrap();
                codec.write_ciphertext(&mut bytes, sent.tag, &x).unwrap();
                worst(&decrypt(&parameters, &bytes.0, sent.tag), &sent.values)
            })
            .collect()
    });
    let (first, last) = (errors[0], errors[99]);
    // Independent errors add up like a walk: ten times as much after a hundred.
    assert!(first < 2f64.powi(-18) && last < 20.0 * first, "{first} at first, {last} at last");
}
