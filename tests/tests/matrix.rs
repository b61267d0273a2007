//! Matrix products in the small ring, on every backend: the same bytes, and what f64 says.

mod backends;

use backends::{LIMBS, Message, Program, agree};
use chacha20::ChaCha20Rng;
use rand_core::SeedableRng;
use veilformer::accel::{Accelerator, Trusted};
use veilformer::ckks::client::{KeyTag, SecretKey};
use veilformer::ckks::server::Evaluator;
use veilformer::ckks::{Ciphertext, KeyRequests, Parameters, ParametersLiteral, SwitchingKey};
use veilformer::matrix::{EncryptedMatrix, EncryptedVector, Entries, Layout, PlainMatrix, Side, SmallRing};
use veilformer::ring::SecretSeed;
use veilformer::wire::{Codec, Reader};
use veilformer_multicore::Multicore;

const INSECURE: ParametersLiteral = ParametersLiteral::INSECURE_TOY_MATRIX;
const ROWS: usize = 20;
const INNER: usize = 37;
const COLUMNS: usize = 120;
const SCALE: f64 = (1u64 << 40) as f64;

fn value(seed: usize, i: usize, j: usize) -> f64 {
    ((seed * 7919 + i * 104_729 + j * 1_299_709 + 13) * 40_503 % 20_011) as f64 / 10_005.5 - 1.0
}

fn weight(o: usize, i: usize) -> f64 {
    value(2, o, i) / 6.0
}

fn secret<'a, A: Trusted>(accelerator: &'a A, parameters: &'a Parameters) -> SecretKey<'a, A> {
    let mut signed = vec![0; parameters.degree()];
    SecretKey::generate(accelerator, parameters, SecretSeed::take(&mut [9; 32]), &mut signed).unwrap()
}

/// What a client sends: keys, a matrix and a vector, as bytes.
struct Job {
    parameters: Parameters,
    layout: Layout,
    tag: KeyTag,
    keys: Vec<Vec<u8>>,
    matrix: Vec<Vec<u8>>,
    vector: Vec<Vec<u8>>,
}

impl Job {
    fn new() -> Self {
        let parameters = INSECURE.check().unwrap().small_ring().unwrap();
        let degree = parameters.degree();
        let layout = Layout::new(degree, INNER, COLUMNS).unwrap();
        let accelerator = Multicore::new(parameters.chain(), 1, LIMBS).unwrap();
        let secret = secret(&accelerator, &parameters);
        let mut requests = KeyRequests::new();
        type Ring<'a> = SmallRing<'a, Multicore, [SwitchingKey<Multicore>]>;
        Ring::packing_keys(layout.log_rank(), 1, &mut requests).unwrap();
        Ring::thin_keys(&parameters, layout.log_rank(), 2, &mut requests).unwrap();
        let (mut signed, mut words, mut scratch) = (vec![0; degree], vec![0; degree], vec![0; degree]);
        let mut codec = Codec::new(&accelerator, &parameters, &mut scratch).unwrap();
        let mut bytes = |write: &mut dyn FnMut(&mut Message, &mut Codec<'_, Multicore>)| {
            let mut message = Message::default();
            write(&mut message, &mut codec);
            message.0
        };
        let keys = requests
            .iter()
            .map(|request| {
                bytes(&mut |message, codec| {
                    codec.make_switching_key(message, &secret, *request, &mut signed, &mut words).unwrap();
                })
            })
            .collect();
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        let mut encrypt = |mut coefficients: Vec<i64>| {
            let mut words = vec![0; degree];
            let seeded = secret.encrypt_seeded(2, &mut coefficients, &mut rng, &mut words).unwrap();
            let ciphertext = seeded.expand(&accelerator, &mut words).unwrap();
            bytes(&mut |message, codec| {
                codec.write_ciphertext(message, secret.tag(), &ciphertext).unwrap();
            })
        };
        let mut matrix = vec![vec![0; degree]; layout.ciphertexts()];
        let mut vector = matrix.clone();
        for row in 0..INNER {
            for column in 0..COLUMNS {
                let (c, at) = layout.position(row, column);
                matrix[c][at] = (value(1, row, column) * SCALE) as i64;
            }
            let (c, at, negated) = Side::Gather.position(degree, &layout, row);
            vector[c][at] = (weight(99, row) * if negated { -SCALE } else { SCALE }) as i64;
        }
        let [matrix, vector] = [matrix, vector].map(|parts| parts.into_iter().map(&mut encrypt).collect());
        Self { layout, tag: secret.tag(), keys, matrix, vector, parameters: parameters.clone() }
    }
}

impl Program for Job {
    /// A plaintext product, then the gathered row, as one stream.
    fn answer<A: Accelerator<Word = u64>>(&self, accelerator: &A) -> Vec<u8> {
        let (parameters, degree) = (&self.parameters, self.parameters.degree());
        let (mut words, mut scratch) = (vec![0; degree], vec![0; degree]);
        let mut codec = Codec::new(accelerator, parameters, &mut scratch).unwrap();
        let mut keys: Vec<SwitchingKey<A>> = Vec::new();
        for bytes in &self.keys {
            let key = codec.read_switching_key(&mut Reader::new(&bytes[..]), Some(self.tag)).unwrap();
            keys.push(key.expand(accelerator, parameters, &mut words).unwrap());
        }
        let mut read = |parts: &[Vec<u8>]| -> Vec<Ciphertext<A>> {
            let read = |b: &Vec<u8>| codec.read_ciphertext(&mut Reader::new(&b[..]), Some(self.tag)).unwrap();
            parts.iter().map(read).collect()
        };
        let entries = Entries { layout: self.layout, scale: SCALE, bound: 1.0, noise: 4.0 };
        let x = EncryptedMatrix::new(entries, read(&self.matrix)).unwrap();
        let v = EncryptedVector::new(Side::Gather, entries, read(&self.vector)).unwrap();
        let ring = SmallRing::new(Evaluator::new(accelerator, parameters, &keys[..]).unwrap());
        let output = self.layout.with_rows(ROWS).unwrap();
        let mut weights = vec![0; PlainMatrix::words_needed(&output, &self.layout)];
        let w = PlainMatrix::quantize(&output, &self.layout, &mut weights, weight).unwrap();
        let need = SmallRing::<A, [SwitchingKey<A>]>::scratch_limbs(&entries, 2, 1);
        let mut limbs: Vec<A::Limb> = (0..need).map(|_| accelerator.allocate().unwrap()).collect();
        let mut out: Vec<_> = (0..output.ciphertexts()).map(|_| None).collect();
        ring.multiply_plain(&w, &x, SCALE, &mut limbs, &mut out).unwrap();
        let row = ring.gather(&v, &x, 8.0).unwrap();
        let mut message = Message::default();
        for ciphertext in out.iter().flatten().chain([row.ciphertext()]) {
            codec.write_ciphertext(&mut message, self.tag, ciphertext).unwrap();
        }
        message.0
    }
}

#[test]
fn products_are_the_same_bit_for_bit_on_every_backend() {
    let job = Job::new();
    let answer = agree(&job.parameters, &job);
    let degree = job.parameters.degree();
    let accelerator = Multicore::new(job.parameters.chain(), 1, 256).unwrap();
    let secret = secret(&accelerator, &job.parameters);
    let (mut scratch, mut words) = (vec![0; degree], vec![0; 2 * degree]);
    let mut codec = Codec::new(&accelerator, &job.parameters, &mut scratch).unwrap();
    let mut reader = Reader::new(&answer[..]);
    let output = job.layout.with_rows(ROWS).unwrap();
    let mut decrypt = || {
        let x = codec.read_ciphertext(&mut reader, Some(job.tag)).unwrap();
        let mut coefficients = vec![0.0; degree];
        secret.decrypt_coefficients(&x, &mut words, &mut coefficients).unwrap();
        coefficients
    };
    let product: Vec<Vec<f64>> = (0..output.ciphertexts()).map(|_| decrypt()).collect();
    let row = decrypt();
    for column in 0..COLUMNS {
        let exact = |o: usize| -> f64 { (0..INNER).map(|i| weight(o, i) * value(1, i, column)).sum() };
        for o in 0..ROWS {
            let (c, at) = output.position(o, column);
            assert!((product[c][at] / SCALE - exact(o)).abs() < 2f64.powi(-10), "row {o}, column {column}");
        }
        let (_, at) = output.position(0, column);
        assert!((row[at] / SCALE - exact(99)).abs() < 2f64.powi(-10), "column {column}");
    }
}
