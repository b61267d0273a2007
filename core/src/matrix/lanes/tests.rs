extern crate std;
use super::fourier::Direction;
use super::*;
use crate::accel::{Limbs, Portable, Trusted};
use crate::ckks::client::SecretKey;
use crate::ckks::{Parameters, ParametersLiteral, PrecisionStats, SwitchingKey};
use crate::memory::{Arena, LimbPool};
use crate::ring::{Modulus, RingTables, SecretSeed};
use chacha20::ChaCha20Rng;
use proptest::prelude::*;
use rand_core::{Rng, SeedableRng};
use std::{vec, vec::Vec};

const LEVEL: usize = 2;
/// Enough for the longest contraction.
const LIMBS: usize = 8600;

/// A client and a server in one.
struct Bench<'a, A: Trusted> {
    accelerator: &'a A,
    parameters: &'a Parameters,
    lanes: Lanes,
    secret: SecretKey<'a, A>,
    keys: Vec<SwitchingKey<A>>,
}

/// On insecure toy parameters.
fn with_bench(width: usize, test: impl FnOnce(&Bench<'_, Portable<'_, '_, u64, LIMBS>>)) {
    let parameters = ParametersLiteral::INSECURE_TOY.check().unwrap();
    let mut tables = vec![0; RingTables::<u64>::words_needed(parameters.chain())];
    let tables = RingTables::new(parameters.chain(), &mut Arena::new(&mut tables)).unwrap();
    let degree = parameters.degree();
    let mut words = vec![0; degree * LIMBS];
    let pool = LimbPool::new(&mut Arena::new(&mut words), degree, LIMBS).unwrap();
    let accelerator = Portable::new(&tables, &pool).unwrap();
    let (mut signed, mut scratch) = (vec![0; degree], vec![0; 2 * degree]);
    let seed = SecretSeed::take(&mut [9; 32]);
    let secret = SecretKey::generate(&accelerator, &parameters, seed, &mut signed).unwrap();
    let lanes = Lanes::new(degree, width).unwrap();
    let mut requests = KeyRequests::new();
    lanes.required_keys(LEVEL, &mut requests).unwrap();
    requests.add(KeyId::Relinearization, LEVEL).unwrap();
    let keys = requests
        .iter()
        .map(|r| secret.switching_key(r.id, r.level, &mut signed, &mut scratch).unwrap())
        .collect();
    test(&Bench { accelerator: &accelerator, parameters: &parameters, lanes, secret, keys });
}

/// Residues by part and prime.
type Words = Vec<Vec<Vec<u64>>>;

/// One matrix to a lane: lane, row, column.
struct Matrices {
    rows: usize,
    columns: usize,
    values: Vec<f64>,
}

impl Matrices {
    fn random(lanes: usize, rows: usize, columns: usize, seed: u64) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let value = |_| (rng.next_u64() >> 11) as f64 / (1u64 << 52) as f64 - 1.0;
        Self { rows, columns, values: (0..lanes * rows * columns).map(value).collect() }
    }

    fn at(&self, lane: usize, row: usize, column: usize) -> f64 {
        self.values[(lane * self.rows + row) * self.columns + column]
    }
}

impl<A: Trusted> Bench<'_, A> {
    fn evaluator(&self) -> LaneEvaluator<'_, A, [SwitchingKey<A>]> {
        let evaluator = Evaluator::new(self.accelerator, self.parameters, &self.keys[..]).unwrap();
        let degree = self.parameters.degree();
        LaneEvaluator::new(evaluator, self.lanes, LEVEL, &mut vec![0; degree]).unwrap()
    }

    /// Rows of which entry `t` of lane h in row f is value(h, f, t).
    fn encrypt(
        &self,
        lanes: usize,
        rows: usize,
        level: usize,
        value: impl Fn(usize, usize, usize) -> f64,
    ) -> Vec<Ciphertext<A>> {
        let (n, width) = (self.parameters.degree(), self.lanes.width());
        let (mut work, mut coefficients, mut words) = (vec![0.0; n], vec![0; n], vec![A::Word::default(); n]);
        let mut rng = ChaCha20Rng::seed_from_u64(rows as u64);
        (0..rows)
            .map(|f| {
                let values: Vec<f64> = (0..lanes * width).map(|i| value(i / width, f, i % width)).collect();
                let scale = self.parameters.scale(level);
                self.lanes.encode(&values, scale, &mut work, &mut coefficients).unwrap();
                let seeded = self.secret.encrypt_seeded(level, &mut coefficients, &mut rng, &mut words);
                seeded.unwrap().expand(self.accelerator, &mut words).unwrap()
            })
            .collect()
    }

    fn zeros(&self, rows: usize, level: usize) -> Vec<Ciphertext<A>> {
        (0..rows).map(|_| Ciphertext::zero(self.accelerator, level).unwrap()).collect()
    }

    /// All lanes' entries against value(h, row, t).
    fn bits(&self, rows: &[Ciphertext<A>], value: impl Fn(usize, usize, usize) -> f64) -> PrecisionStats {
        let (n, width, lanes) = (self.parameters.degree(), self.lanes.width(), self.lanes.count());
        let (mut words, mut coefficients) = (vec![A::Word::default(); 2 * n], vec![0.0; n]);
        let mut pairs = Vec::new();
        for (f, row) in rows.iter().enumerate() {
            self.secret.decrypt_coefficients(row, &mut words, &mut coefficients).unwrap();
            let mut values = vec![0.0; lanes * width];
            self.lanes.decode(&coefficients, row.scale(self.parameters), &mut values).unwrap();
            let one = values.iter().enumerate().map(|(i, x)| (value(i / width, f, i % width), *x));
            pairs.extend(one);
        }
        PrecisionStats::of(pairs.into_iter())
    }

    /// Rows of uniform residues, both parts, in coefficient form too.
    fn random_rows(&self, rows: usize, seed: u64) -> (Vec<Words>, Vec<Ciphertext<A>>) {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let moduli: Vec<Modulus> = self.parameters.chain().of(Basis::level(LEVEL)).copied().collect();
        let mut limb = |m: &Modulus| -> Vec<u64> {
            (0..self.parameters.degree()).map(|_| rng.next_u64() % m.value()).collect()
        };
        let words: Vec<Words> =
            (0..rows).map(|_| (0..2).map(|_| moduli.iter().map(&mut limb).collect()).collect()).collect();
        let load = |part: &Vec<Vec<u64>>| {
            let mut limbs = Limbs::<A>::new();
            for words in part {
                let mut limb = self.accelerator.allocate().unwrap();
                let words: Vec<A::Word> = words.iter().map(|&w| crate::ring::Word::from_u64(w)).collect();
                self.accelerator.write(&mut limb, &words).unwrap();
                assert!(limbs.push(limb).is_ok());
            }
            let basis = Basis::level(LEVEL);
            self.accelerator.ntt_forward(basis, &mut limbs).unwrap();
            Polynomial::from_limbs(basis, limbs).unwrap()
        };
        let ciphertexts =
            words.iter().map(|row| Ciphertext::from_parts([load(&row[0]), load(&row[1])]).unwrap()).collect();
        (words, ciphertexts)
    }

    /// Coefficients of limb `prime` of a part.
    fn coefficients(&self, part: &Polynomial<A, Evaluations>, prime: usize) -> Vec<u64> {
        let part = part.duplicate(self.accelerator).unwrap().into_coefficients(self.accelerator).unwrap();
        let mut words = vec![A::Word::default(); self.parameters.degree()];
        self.accelerator.read(&part.limbs()[prime], &mut words).unwrap();
        words.iter().map(|w| crate::ring::Word::to_u64(*w)).collect()
    }

    fn modulus(&self, prime: usize) -> Modulus {
        self.parameters.chain().moduli()[prime]
    }
}

/// sum += X^exponent·x, coefficients modulo X^N + 1.
fn add_shifted(m: &Modulus, sum: &mut [u64], x: &[u64], exponent: i64) {
    let n = x.len();
    for (i, &value) in x.iter().enumerate() {
        let to = (i as i64 + exponent).rem_euclid(2 * n as i64) as usize;
        let slot = &mut sum[to % n];
        *slot = if to < n { m.add(*slot, value) } else { m.sub(*slot, value) };
    }
}

/// X → X^galois of coefficients.
fn image(m: &Modulus, x: &[u64], galois: usize) -> Vec<u64> {
    let n = x.len();
    let mut image = vec![0; n];
    for (i, &value) in x.iter().enumerate() {
        let to = i * galois % (2 * n);
        image[to % n] = if to < n { value } else { m.negate(value) };
    }
    image
}

#[test]
fn lanes_are_checked_and_encoded() {
    assert!(matches!(
        Lanes::new(1 << 13, 256),
        Err(Error::Parameter { field: ParameterField::LaneWidth, given: 256, min: 8, max: 128 })
    ));
    assert!(Lanes::new(1 << 13, 96).is_err() && Lanes::new(1 << 13, 4).is_err());
    assert!(Lanes::new(1000, 8).is_err() && Lanes::new(0, 0).is_err());
    let lanes = Lanes::new(1 << 10, 16).unwrap();
    assert_eq!((lanes.count(), Lanes::new(1 << 13, 128).unwrap().count()), (32, 32));
    let values: Vec<f64> = (0..5 * 16).map(|i| (i * 37 % 101) as f64 / 50.0 - 1.0).collect();
    let (mut work, mut coefficients) = (vec![0.0; 1 << 10], vec![0; 1 << 10]);
    let scale = (1u64 << 40) as f64;
    lanes.encode(&values, scale, &mut work, &mut coefficients).unwrap();
    // From the definition: at Z = exp(iπ(2h + 1)/k), k = 64.
    for (h, t) in [(0, 0), (3, 7), (4, 15), (31, 2)] {
        let angle = std::f64::consts::PI * (2 * h + 1) as f64 / 64.0;
        let at = |f: fn(f64) -> f64| {
            (0..64).map(|p| coefficients[t + 16 * p] as f64 / scale * f(angle * p as f64)).sum::<f64>()
        };
        let value = if h < 5 { values[h * 16 + t] } else { 0.0 };
        assert!((at(f64::cos) - value).abs() < 1e-9 && at(f64::sin).abs() < 1e-9);
    }
    let real: Vec<f64> = coefficients.iter().map(|&c| c as f64).collect();
    let mut decoded = vec![1.0; 6 * 16];
    lanes.decode(&real, scale, &mut decoded).unwrap();
    assert!(PrecisionStats::of_slices(&values, &decoded).min_bits > 33.0);
    assert!(decoded[80..].iter().all(|x| x.abs() < 1e-9));
    let mut ones = vec![0.0; 3 * 16];
    ones[2 * 16] = 1.0;
    let mut idempotent = vec![1; 1 << 10];
    lanes.encode(&ones, scale, &mut work, &mut coefficients).unwrap();
    lanes.idempotent(2, scale, &mut idempotent).unwrap();
    assert_eq!(idempotent, coefficients);
    assert_eq!(lanes.idempotent(32, scale, &mut idempotent), Err(Error::Length { have: 32, need: 32 }));
    let error = lanes.encode(&[f64::NAN; 16], scale, &mut work, &mut coefficients);
    assert_eq!(error, Err(Error::NotEncodable { index: 0 }));
    assert_eq!(
        lanes.encode(&[0.0; 15], 1.0, &mut work, &mut coefficients),
        Err(Error::Length { have: 15, need: 512 })
    );
}

#[test]
fn transforms_agree_with_their_sums() {
    for (width, live) in [(16, 16), (16, 5), (8, 1), (32, 20)] {
        with_bench(width, |b| {
            let e = b.evaluator();
            let (k, m) = (b.parameters.degree() / width, b.modulus(1));
            let (words, mut rows) = b.random_rows(width, 3);
            e.transform(Direction::Forward, &mut rows, 2, live).unwrap();
            for (position, part) in [(0, 0), (1, 1), (width - 1, 0), (3, 1)] {
                let t = b.lanes.conjugate(position) as i64;
                let mut sum = vec![0; b.parameters.degree()];
                for (i, x) in words[..live].iter().enumerate() {
                    add_shifted(&m, &mut sum, &x[part][1], i as i64 * (1 - 2 * k as i64 * t));
                }
                assert_eq!(b.coefficients(&rows[position].parts[part], 1), sum, "{width} {live} {position}");
            }
            let (words, mut rows) = b.random_rows(width, 4);
            let untouched = b.coefficients(&rows[0].parts[1], 1);
            e.transform(Direction::Inverse, &mut rows, 1, width).unwrap();
            for j in [0, 1, width - 1] {
                let mut sum = vec![0; b.parameters.degree()];
                for (position, y) in words.iter().enumerate() {
                    let t = b.lanes.conjugate(position) as i64;
                    add_shifted(&m, &mut sum, &y[0][1], -(j as i64) * (1 + 2 * k as i64 * t));
                }
                assert_eq!(b.coefficients(&rows[j].parts[0], 1), sum, "{width} {j}");
            }
            assert_eq!(b.coefficients(&rows[0].parts[1], 1), untouched);
        });
    }
}

#[test]
fn without_keys_the_transpose_is_exact() {
    with_bench(32, |b| {
        let e = b.evaluator();
        let (width, m) = (32, b.modulus(2));
        let (words, mut rows) = b.random_rows(width, 5);
        e.divide_by_width(&mut rows).unwrap();
        e.transform(Direction::Forward, &mut rows, 1, width).unwrap();
        for (position, row) in rows.iter_mut().enumerate() {
            let galois = b.lanes.galois(b.lanes.conjugate(position));
            let x = b.coefficients(&row.parts[0], 2);
            row.parts[0] = row.parts[0].automorphism(b.accelerator, galois).unwrap();
            assert_eq!(b.coefficients(&row.parts[0], 2), image(&m, &x, galois));
        }
        e.transform(Direction::Inverse, &mut rows, 1, width).unwrap();
        for (j, row) in rows.iter().enumerate() {
            let transposed = b.coefficients(&row.parts[0], 2);
            for (at, value) in transposed.iter().enumerate() {
                assert_eq!(*value, words[at % width][0][2][at / width * width + j], "row {j}");
            }
        }
    });
}

#[test]
fn plain_products_are_exact() {
    with_bench(8, |b| {
        let (e, m, width, terms) = (b.evaluator(), b.modulus(0), 8, 3);
        let (left, l) = b.random_rows(terms, 6);
        let (right, r) = b.random_rows(terms, 7);
        let (mut split, mut out) = (b.zeros(terms, LEVEL), b.zeros(width, LEVEL));
        e.split(&mut split, |f| [None, Some(&l[f].parts[1])]).unwrap();
        e.multiply(&split, 1, &r, 0, &mut out, 1).unwrap();
        let k = b.parameters.degree() / width;
        for (t, row) in out.iter().enumerate().step_by(3) {
            let mut sum = vec![0; width * k];
            for (left, right) in left.iter().zip(&right) {
                for i in 0..k {
                    let entry = left[1][0][t + width * i];
                    let scaled: Vec<u64> = right[0][0].iter().map(|&x| m.multiply(x, entry)).collect();
                    // Z^i times all entries of the row.
                    add_shifted(&m, &mut sum, &scaled, (width * i) as i64);
                }
            }
            assert_eq!(b.coefficients(&row.parts[1], 0), sum, "row {t}");
        }
    });
}

#[test]
fn transposes_exchange_rows_and_columns() {
    for (width, rows) in [(16, 16), (32, 32), (32, 9), (8, 1), (16, 0)] {
        with_bench(width, |b| {
            for level in [0, 1, LEVEL] {
                let lanes = b.lanes.count();
                let m = Matrices::random(lanes, width, width, rows as u64);
                let mut x = b.encrypt(lanes, rows, level, |h, i, j| m.at(h, i, j));
                // What is beyond the matrix does not matter.
                x.extend(b.encrypt(1, width - rows, level, |_, _, _| 0.5));
                b.evaluator().transpose(&mut x, rows).unwrap();
                let expected = |h, j, i| if i < rows { m.at(h, i, j) } else { 0.0 };
                let stats = b.bits(&x, expected);
                std::println!("transpose {rows}×{width}, level {level}: {stats}");
                let worst = if rows == 0 { 60.0 } else { 28.0 };
                assert!(stats.min_bits > worst, "{width} {rows} {level}: {stats}");
            }
        });
    }
}

fn check_product(b: &Bench<'_, impl Trusted>, [t, f, u]: [usize; 3], level: usize, lanes: usize, seed: u64) {
    let e = b.evaluator();
    let width = b.lanes.width();
    let (l, r) = (Matrices::random(lanes, t, f, seed), Matrices::random(lanes, f, u, seed + 1));
    let left = b.encrypt(lanes, f, level, |h, f, i| if i < t { l.at(h, i, f) } else { 0.0 });
    let right = b.encrypt(lanes, f, level, |h, f, j| if j < u { r.at(h, f, j) } else { 0.0 });
    // Rows are taken as they are, of whatever level.
    let (mut work, mut out) = (b.zeros(b.lanes.work_rows(f), 1), b.zeros(width, 0));
    e.product(&left, &right, &mut work, &mut out).unwrap();
    assert!(out.iter().all(|row| row.level() == level - 1));
    let stats = b.bits(&out, |h, i, j| {
        if h < lanes && i < t && j < u { (0..f).map(|f| l.at(h, i, f) * r.at(h, f, j)).sum() } else { 0.0 }
    });
    let bound = b.parameters.literal().scale_bits as f64 - 8.0;
    assert!(stats.mean_bits > bound && stats.min_bits > bound - 5.0, "{t}×{f}×{u}: {stats} under {bound}");
    std::println!("product {t}×{f}×{u}, width {width}, level {level}: {stats}");
}

#[test]
fn products_are_those_of_every_lane() {
    with_bench(32, |b| {
        check_product(b, [32, 32, 32], LEVEL, 16, 1);
        check_product(b, [32, 8, 32], 1, 16, 3);
        check_product(b, [5, 1, 3], 1, 7, 5);
        check_product(b, [32, 70, 12], 1, 16, 7);
    });
    with_bench(8, |b| check_product(b, [8, 11, 8], 1, 64, 9));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    #[test]
    fn products_of_any_shape(t in 1usize..17, f in 1usize..40, u in 1usize..17, lanes in 1usize..33, seed: u64) {
        with_bench(16, |b| check_product(b, [t, f, u], 1, lanes, seed >> 1));
    }
}

#[test]
fn the_longest_contraction_works() {
    with_bench(8, |b| {
        let e = b.evaluator();
        let one = b.encrypt(2, 1, 1, |h, _, t| 0.01 * (h + t) as f64).remove(0);
        let rows =
            |count: usize| -> Vec<_> { (0..count).map(|_| one.duplicate(b.accelerator).unwrap()).collect() };
        let x = rows(MAX_CONTRACTION);
        let (mut work, mut out) = (b.zeros(b.lanes.work_rows(MAX_CONTRACTION), 1), b.zeros(8, 1));
        e.product(&x, &x, &mut work, &mut out).unwrap();
        let value = |h: usize, t: usize| if h < 2 { 0.01 * (h + t) as f64 } else { 0.0 };
        let stats = b.bits(&out, |h, t, u| 1024.0 * value(h, t) * value(h, u));
        assert!(stats.min_bits > 20.0, "{stats}");
    });
}

#[test]
fn what_does_not_fit_is_named_before_any_work() {
    with_bench(8, |b| {
        let e = b.evaluator();
        let (x, low, high) = (b.zeros(3, 1), b.zeros(3, 0), b.zeros(3, LEVEL + 1));
        let product = |l: &[_], r: &[_], work: usize, rows: usize| {
            e.product(l, r, &mut b.zeros(work, 1), &mut b.zeros(rows, 1)).err()
        };
        let length = |have, need| Some(Error::Length { have, need });
        assert_eq!(product(&x, &x, 16, 8), None);
        assert_eq!(product(&x, &x[..2], 16, 8), length(2, 3));
        assert_eq!(product(&[], &[], 16, 8), length(0, 1));
        assert_eq!(product(&x, &x, 15, 8), length(15, 16));
        assert_eq!(product(&x, &x, 16, 7), length(7, 8));
        assert_eq!(product(&x, &low, 16, 8), Some(Error::Level { have: 0, need: 1 }));
        assert_eq!(product(&low, &low, 16, 8), Some(Error::LevelsExhausted { have: 0, need: 1 }));
        let above = Some(Error::Level { have: LEVEL + 1, need: LEVEL });
        assert_eq!(product(&high, &high, 16, 8), above);
        let transpose = |rows, level, live| e.transpose(&mut b.zeros(rows, level), live).err();
        assert_eq!(transpose(8, 1, 8), None);
        assert_eq!(transpose(9, 1, 8), length(9, 8));
        assert_eq!(transpose(8, 1, 9), length(9, 8));
        assert_eq!(transpose(8, LEVEL + 1, 8), above);

        let inner = e.evaluator;
        let with = |keys: &[SwitchingKey<_>]| {
            let evaluator = Evaluator::new(b.accelerator, b.parameters, keys).unwrap();
            let e = LaneEvaluator::new(evaluator, b.lanes, 1, &mut vec![0; 1 << 10]).unwrap();
            e.product(&x, &x, &mut b.zeros(16, 1), &mut b.zeros(8, 1)).err()
        };
        let missing = |id| Some(Error::MissingKey { id, level: 1 });
        assert_eq!(with(&[]), missing(KeyId::Galois(257)));
        // The last key is the relinearisation's.
        assert_eq!(with(&b.keys[..7]), missing(KeyId::Relinearization));
        let other = Lanes::new(1 << 11, 8).unwrap();
        let refused =
            |lanes, level, words| LaneEvaluator::new(inner, lanes, level, &mut vec![0; words]).err();
        assert_eq!(refused(other, 1, 1 << 10), length(1 << 11, 1 << 10));
        assert_eq!(refused(b.lanes, 1, 7), length(7, 1 << 10));
        assert_eq!(refused(b.lanes, 99, 1 << 10), Some(Error::Level { have: 99, need: 7 }));
    });
}
