//! Matrix products in the small ring, on every backend: the same bytes, and what f64 says.

mod backends;

use backends::{LIMBS, Message, Program, agree};
use chacha20::ChaCha20Rng;
use rand_core::SeedableRng;
use veilformer::accel::{Accelerator, Trusted};
use veilformer::ckks::client::{KeyTag, SecretKey};
use veilformer::ckks::server::Evaluator;
use veilformer::ckks::{
    Ciphertext, KeyId, KeyRequest, KeyRequests, Parameters, ParametersLiteral, SwitchingKey,
};
use veilformer::matrix::lanes::{LaneEvaluator, Lanes};
use veilformer::matrix::{
    EncryptedMatrix, EncryptedVector, Entries, Layout, PairEvaluator, PlainMatrix, Side, SmallRing,
};
use veilformer::ring::SecretSeed;
use veilformer::transformer::Parameter;
use veilformer::wire::{Codec, Error, Field, Reader};
use veilformer_multicore::Multicore;
use veilformer_plain::model::Model;

const INSECURE: ParametersLiteral = ParametersLiteral::INSECURE_TOY_MATRIX;
const ROWS: usize = 20;
const INNER: usize = 37;
const COLUMNS: usize = 120;
const SCALE: f64 = (1u64 << 40) as f64;

fn value(seed: usize, i: usize, j: usize) -> f64 {
    ((seed * 7919 + i * 104_729 + j * 1_299_709 + 13) * 40_503 % 20_011) as f64 / 10_005.5 - 1.0
}

/// Narrow rows: few keys.
fn lanes(parameters: &Parameters) -> Lanes {
    Lanes::new(parameters.degree(), 16).unwrap()
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
        type Pair<'r> = PairEvaluator<'r, 'r, Multicore, [SwitchingKey<Multicore>]>;
        Pair::required_keys(&parameters, layout.log_rank(), 1, &mut requests).unwrap();
        lanes(&parameters).required_keys(1, &mut requests).unwrap();
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
    /// A plaintext product, a gathered row, packed products of every kind, a product in lanes, as one stream.
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

        // Some columns of the first rows times these rows, packed; then the same ciphertexts as rows of lanes.
        let evaluator = ring.evaluator();
        let first = evaluator.drop_to(&x.ciphertexts()[0], 1).unwrap();
        let rank = self.layout.rank();
        let entries =
            Entries { layout: self.layout.with_rows(rank).unwrap(), scale: SCALE / 1024.0, ..entries };
        let pair = PairEvaluator::new(&ring, 1, &mut vec![0; degree]).unwrap();
        let mut rows: Vec<_> = (0..rank).map(|_| None).collect();
        pair.split(&first, &entries, &mut rows).unwrap();
        let rows: Vec<_> = rows.into_iter().flatten().collect();
        let mut columns: Vec<_> = (0..degree / rank).map(|_| None).collect();
        pair.columns(&rows, Side::Gather, &mut columns).unwrap();
        let columns: Vec<_> = columns.into_iter().flatten().collect();
        let zero = |level| Ciphertext::zero(accelerator, level).unwrap();
        let mut work: Vec<_> = (0..rank).map(|_| zero(0)).collect();
        let (mut packed, right) = ([None], EncryptedMatrix::new(entries, [first]).unwrap());
        pair.multiply_transposed(&columns[..rank], &right, 64.0, &mut work, &mut packed).unwrap();
        // The same rows as keys and as queries, then turned around, then with weights from the right.
        let pick = |entries: Entries, rows: &mut [Ciphertext<A>]| {
            let [picked] = pair.pick(&entries, rows).unwrap().into_ciphertexts();
            picked
        };
        let queries = &columns[..COLUMNS];
        let known = pair.exponents(&columns[..rank], &right, queries, 64.0, &mut work).unwrap();
        let exponents = pick(known, &mut work);
        let known = pair.transposed_rows(&[&columns], 0, &mut work).unwrap();
        let turned = pick(known, &mut work);
        let mut made: Vec<_> = columns.iter().map(|_| None).collect();
        pair.columns(&rows, Side::Scatter, &mut made).unwrap();
        let made: Vec<_> = made.into_iter().flatten().collect();
        let weighed = pair.multiply_right(&made, COLUMNS, weight, SCALE, 64.0, &mut vec![0; degree]).unwrap();
        let [weighed] = weighed.into_ciphertexts();
        let lanes = lanes(parameters);
        let lane = LaneEvaluator::new(*evaluator, lanes, 1, &mut vec![0; degree]).unwrap();
        let mut work: Vec<_> = (0..lanes.work_rows(1)).map(|_| zero(1)).collect();
        let mut tiles: Vec<_> = (0..lanes.width()).map(|_| zero(1)).collect();
        lane.product(right.ciphertexts(), right.ciphertexts(), &mut work, &mut tiles).unwrap();

        let mut message = Message::default();
        let answers = out.iter().flatten().chain([row.ciphertext()]).chain(packed.iter().flatten());
        let answers = answers.chain([&exponents, &turned, &weighed]).chain(&tiles);
        for ciphertext in answers {
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

/// w·x at 128-bit security, with `rows` × `inner` weights and `columns` tokens: the bits that are right of the
/// largest entry.
fn bits_at_128_bit_security(
    rows: usize,
    inner: usize,
    columns: usize,
    weight: impl Fn(usize, usize) -> f64,
) -> f64 {
    let parameters = ParametersLiteral::N16_MATRIX.check().unwrap().small_ring().unwrap();
    assert!(!parameters.is_insecure() && parameters.log_qp() < 214.0);
    let degree = parameters.degree();
    let accelerator = Multicore::new(parameters.chain(), 2, 1 << 16).unwrap();
    let secret = secret(&accelerator, &parameters);
    let layout = Layout::new(degree, inner, columns).unwrap();
    let mut requests = KeyRequests::new();
    type Ring<'a> = SmallRing<'a, Multicore, [SwitchingKey<Multicore>]>;
    Ring::packing_keys(layout.log_rank(), 0, &mut requests).unwrap();
    let (mut signed, mut words) = (vec![0; degree], vec![0; 2 * degree]);
    let keys: Vec<_> = requests
        .iter()
        .map(|r| secret.switching_key(r.id, r.level, &mut signed, &mut words).unwrap())
        .collect();
    let mut coefficients = vec![vec![0; degree]; layout.ciphertexts()];
    for (i, t) in (0..inner).flat_map(|i| (0..columns).map(move |t| (i, t))) {
        let (c, at) = layout.position(i, t);
        coefficients[c][at] = (value(1, i, t) * SCALE) as i64;
    }
    let mut rng = ChaCha20Rng::from_seed([3; 32]);
    let mut ciphertexts = Vec::new();
    for c in &mut coefficients {
        let seeded = secret.encrypt_seeded(1, c, &mut rng, &mut words).unwrap();
        ciphertexts.push(seeded.expand(&accelerator, &mut words).unwrap());
    }
    let x =
        EncryptedMatrix::new(Entries { layout, scale: SCALE, bound: 1.0, noise: 4.0 }, ciphertexts).unwrap();
    let output = layout.with_rows(rows).unwrap();
    let mut integers = vec![0; PlainMatrix::words_needed(&output, &layout)];
    let w = PlainMatrix::quantize(&output, &layout, &mut integers, &weight).unwrap();
    let w = w.with_bound(8.0 * w.norm());
    let mut limbs: Vec<_> =
        (0..Ring::scratch_limbs(x.entries(), 1, 2)).map(|_| accelerator.allocate().unwrap()).collect();
    let mut out: Vec<_> = (0..output.ciphertexts()).map(|_| None).collect();
    let ring = SmallRing::new(Evaluator::new(&accelerator, &parameters, &keys[..]).unwrap());
    let entries = ring.multiply_plain(&w, &x, SCALE, &mut limbs, &mut out).unwrap();
    let mut plain = vec![vec![0.0; degree]; out.len()];
    for (x, plain) in out.iter().flatten().zip(&mut plain) {
        secret.decrypt_coefficients(x, &mut words, plain).unwrap();
    }
    let (mut worst, mut largest) = (0.0f64, 0.0f64);
    for (o, t) in (0..rows).flat_map(|o| (0..columns).map(move |t| (o, t))) {
        let exact: f64 = (0..inner).map(|i| weight(o, i) * value(1, i, t)).sum();
        let (c, at) = output.position(o, t);
        worst = worst.max((plain[c][at] / entries.scale - exact).abs());
        largest = largest.max(exact.abs());
    }
    -(worst / largest).log2()
}

#[test]
fn products_at_128_bits_of_security() {
    for (rows, inner, columns) in [(800, 77, 100), (3, 800, 128), (65, 129, 300), (5, 6, 8000), (1, 1, 1)] {
        let bits = bits_at_128_bit_security(rows, inner, columns, weight);
        assert!(bits > 12.0, "{rows} × {inner} × {columns}: {bits} bits");
    }
}

#[test]
fn products_of_a_trained_model() {
    let assets = concat!(env!("CARGO_MANIFEST_DIR"), "/../hosts/cli/assets/veil-mini");
    let model = Model::load(assets.as_ref()).unwrap();
    let width = model.config.width;
    for (parameter, rows) in
        [(Parameter::Expand(1), 2 * model.config.feed_forward), (Parameter::TokenEmbedding, 700)]
    {
        let weights = model.parameters.get(parameter);
        // Expand maps rows to columns; an embedding has a row for every word piece.
        let entry = |o: usize, i: usize| match parameter {
            Parameter::TokenEmbedding => weights[o * width + i] as f64,
            _ => weights[i * rows + o] as f64,
        };
        let bits = bits_at_128_bit_security(rows, width, 128, entry);
        assert!(bits > 12.0, "{parameter:?}: {bits} bits");
    }
}

/// A file cannot bring in a key that the small ring's security was not checked for.
#[test]
fn a_key_file_above_the_small_ring_is_refused() {
    let parameters = INSECURE.check().unwrap();
    let degree = parameters.degree();
    let accelerator = Multicore::new(parameters.chain(), 1, 1024).unwrap();
    let secret = secret(&accelerator, &parameters);
    let (mut signed, mut words, mut scratch) = (vec![0; degree], vec![0; degree], vec![0; degree]);
    let mut codec = Codec::new(&accelerator, &parameters, &mut scratch).unwrap();
    for id in [KeyId::ToSmallRing, KeyId::FromSmallRing] {
        let mut make = |level| {
            let request = KeyRequest { id, level };
            codec.make_switching_key(&mut Message::default(), &secret, request, &mut signed, &mut words).err()
        };
        assert_eq!(make(3), None);
        assert_eq!(make(4), Some(Error::Field { field: Field::Level, have: 4, max: 3 }));
    }
}
