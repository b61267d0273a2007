mod pair;

extern crate std;
use super::*;
use crate::accel::{Accelerator, Portable, RowSums};
use crate::ckks::client::SecretKey;
use crate::ckks::server::Evaluator;
use crate::ckks::{Ciphertext, KeyId, KeyRequests, Parameters, ParametersLiteral, SwitchingKey};
use crate::memory::{Arena, LimbPool};
use crate::ring::{Basis, RingTables, SecretSeed};
use chacha20::ChaCha20Rng;
use proptest::prelude::*;
use rand_core::SeedableRng;
use std::{vec, vec::Vec};

const LIMBS: usize = 8192;
type Toy<'p, 'm> = Portable<'p, 'm, u64, LIMBS>;

/// Two accelerators of one type: their memory lives equally long.
fn with_accelerators<R>(
    of: [&Parameters; 2],
    test: impl for<'p, 'm> FnOnce(&Toy<'p, 'm>, &Toy<'p, 'm>) -> R,
) -> R {
    let mut words = of.map(|p| vec![0; RingTables::<u64>::words_needed(p.chain())]);
    let mut limbs = of.map(|p| vec![0; LimbPool::<u64, LIMBS>::words_needed(p.degree(), LIMBS)]);
    let ([table0, table1], [limbs0, limbs1]) = (&mut words, &mut limbs);
    let tables = [(of[0], table0), (of[1], table1)]
        .map(|(p, words)| RingTables::new(p.chain(), &mut Arena::new(words)).unwrap());
    let pools = [(of[0], limbs0), (of[1], limbs1)]
        .map(|(p, words)| LimbPool::new(&mut Arena::new(words), p.degree(), LIMBS).unwrap());
    let accelerator = |i: usize| Portable::new(&tables[i], &pools[i]).unwrap();
    test(&accelerator(0), &accelerator(1))
}

fn with_accelerator<R>(parameters: &Parameters, test: impl FnOnce(&Toy<'_, '_>) -> R) -> R {
    with_accelerators([parameters; 2], |accelerator, _| test(accelerator))
}

fn small_parameters() -> Parameters {
    ParametersLiteral::INSECURE_TOY_MATRIX.check().unwrap().small_ring().unwrap()
}

/// One side's key and the keys of the server.
struct Ring<'a, A: crate::accel::Trusted> {
    accelerator: &'a A,
    parameters: &'a Parameters,
    secret: SecretKey<'a, A>,
    keys: Vec<SwitchingKey<A>>,
}

impl<'a, A: crate::accel::Trusted<Word = u64>> Ring<'a, A> {
    fn new(accelerator: &'a A, parameters: &'a Parameters, requests: &KeyRequests) -> Self {
        let degree = parameters.degree();
        let (mut signed, mut words) = (vec![0; degree], vec![0; degree]);
        let seed = SecretSeed::take(&mut [7; 32]);
        let secret = SecretKey::generate(accelerator, parameters, seed, &mut signed).unwrap();
        let keys = requests
            .iter()
            .map(|r| secret.switching_key(r.id, r.level, &mut signed, &mut words).unwrap())
            .collect();
        Self { accelerator, parameters, secret, keys }
    }

    fn encrypt(&self, coefficients: &[i64], level: usize) -> Ciphertext<A> {
        let mut words = vec![0; self.parameters.degree()];
        let mut rng = ChaCha20Rng::from_seed([level as u8; 32]);
        let mut message = coefficients.to_vec();
        let seeded = self.secret.encrypt_seeded(level, &mut message, &mut rng, &mut words).unwrap();
        seeded.expand(self.accelerator, &mut words).unwrap()
    }

    fn decrypt(&self, x: &Ciphertext<A>) -> Vec<f64> {
        let mut out = vec![0.0; self.parameters.degree()];
        let mut words = vec![0; 2 * self.parameters.degree()];
        self.secret.decrypt_coefficients(x, &mut words, &mut out).unwrap();
        out
    }

    fn matrix(
        &self,
        layout: Layout,
        level: usize,
        scale: f64,
        entry: impl Fn(usize, usize) -> f64,
    ) -> EncryptedMatrix<Vec<Ciphertext<A>>> {
        let mut coefficients = vec![vec![0; self.parameters.degree()]; layout.ciphertexts()];
        for row in 0..layout.rows() {
            for column in 0..layout.columns() {
                let (ciphertext, at) = layout.position(row, column);
                coefficients[ciphertext][at] = (entry(row, column) * scale) as i64;
            }
        }
        let ciphertexts = coefficients.iter().map(|c| self.encrypt(c, level)).collect();
        EncryptedMatrix::new(Entries { layout, scale, bound: 1.0, noise: 4.0 }, ciphertexts).unwrap()
    }

    fn evaluator(&self) -> Evaluator<'_, A, [SwitchingKey<A>]> {
        Evaluator::new(self.accelerator, self.parameters, &self.keys[..]).unwrap()
    }

    /// w·x with results at a scale of 2^40.
    fn product(
        &self,
        w: &PlainMatrix<'_>,
        x: &EncryptedMatrix<Vec<Ciphertext<A>>>,
    ) -> Result<EncryptedMatrix<Vec<Ciphertext<A>>>, Error> {
        self.product_at(w, x, 2f64.powi(40))
    }

    fn product_at(
        &self,
        w: &PlainMatrix<'_>,
        x: &EncryptedMatrix<Vec<Ciphertext<A>>>,
        scale: f64,
    ) -> Result<EncryptedMatrix<Vec<Ciphertext<A>>>, Error> {
        let ring = SmallRing::new(self.evaluator());
        let level = x.ciphertexts()[0].level();
        let need = SmallRing::<A, [SwitchingKey<A>]>::scratch_limbs(x.entries(), level, 2);
        let mut scratch: Vec<A::Limb> = (0..need).map(|_| self.accelerator.allocate().unwrap()).collect();
        let count = x.entries().layout.with_rows(w.shape().0).unwrap().ciphertexts();
        let mut out: Vec<Option<Ciphertext<A>>> = (0..count).map(|_| None).collect();
        let entries = ring.multiply_plain(w, x, scale, &mut scratch, &mut out)?;
        EncryptedMatrix::new(entries, out.into_iter().map(Option::unwrap).collect())
    }

    /// The largest error of an entry.
    fn error(&self, x: &EncryptedMatrix<Vec<Ciphertext<A>>>, expected: impl Fn(usize, usize) -> f64) -> f64 {
        let layout = x.entries().layout;
        let plain: Vec<Vec<f64>> = x.ciphertexts().iter().map(|c| self.decrypt(c)).collect();
        let mut worst = 0.0f64;
        for row in 0..layout.rows() {
            for column in 0..layout.columns() {
                let (ciphertext, at) = layout.position(row, column);
                let obtained = plain[ciphertext][at] / x.entries().scale;
                worst = worst.max((obtained - expected(row, column)).abs());
            }
        }
        worst
    }
}

/// Pseudo-random in (−1, 1).
fn value(seed: u64, i: usize, j: usize) -> f64 {
    let x = (seed * 7919 + i as u64 * 104_729 + j as u64 * 1_299_709 + 13) * 2_654_435_761 % 20_011;
    x as f64 / 10_005.5 - 1.0
}

fn requests(log_rank: u32, level: usize) -> KeyRequests {
    let mut keys = KeyRequests::new();
    SmallRing::<Toy<'_, '_>, [SwitchingKey<Toy<'_, '_>>]>::packing_keys(log_rank, level, &mut keys).unwrap();
    keys
}

fn product_of_shape(rows: usize, inner: usize, columns: usize, level: usize) {
    let parameters = small_parameters();
    with_accelerator(&parameters, |accelerator| {
        let layout = Layout::new(parameters.degree(), inner, columns).unwrap();
        let ring = Ring::new(accelerator, &parameters, &requests(layout.log_rank(), level - 1));
        let x = ring.matrix(layout, level, 2f64.powi(40), |i, j| value(1, i, j));
        let output = layout.with_rows(rows).unwrap();
        let mut words = vec![0; PlainMatrix::words_needed(&output, &layout)];
        let weight = |o: usize, i: usize| value(2, o, i) / (inner as f64).sqrt();
        let w = PlainMatrix::quantize(&output, &layout, &mut words, weight).unwrap();
        let y = ring.product(&w, &x).unwrap();
        let exact = |o: usize, j: usize| (0..inner).map(|i| weight(o, i) * value(1, i, j)).sum();
        let (error, largest) = (ring.error(&y, exact), y.entries().bound);
        assert!(-(error / largest).log2() > 12.0, "{rows}×{inner}×{columns}: error {error}, bound {largest}");
        let sigma = y.entries().noise / y.entries().scale;
        assert!(error < 8.0 * sigma, "{error} is not what {sigma} predicts");
    });
}

#[test]
fn products_agree_with_f64_for_every_shape() {
    for (rows, inner, columns, level) in
        [(1, 1, 1, 1), (5, 7, 100, 1), (40, 33, 128, 2), (3, 20, 300, 1), (4, 3, 1100, 1), (2, 5, 2048, 1)]
    {
        product_of_shape(rows, inner, columns, level);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]
    #[test]
    fn products_of_random_shapes(rows in 1usize..60, inner in 1usize..60, columns in 64usize..600) {
        product_of_shape(rows, inner, columns, 1);
    }
}

/// The module sample that a row is decrypts to the row, exactly, for every combination of rows.
#[test]
fn samples_are_exact() {
    let parameters = small_parameters();
    with_accelerator(&parameters, |accelerator| {
        let (degree, rank, basis) = (parameters.degree(), 16, Basis::level(0));
        let q = parameters.chain().moduli()[0];
        let row = |seed: u64| -> Vec<u64> {
            (0..degree).map(|i| q.reduce_wide((value(seed, i, 0).to_bits() as u128) << 20)).collect()
        };
        let (a, b, s) = (row(1), row(2), row(3));
        let limb = |words: &[u64]| {
            let mut limb = accelerator.allocate().unwrap();
            accelerator.write(&mut limb, words).unwrap();
            [limb]
        };
        let (x_b, x_a) = (limb(&b), limb(&a));
        let weights: Vec<i16> = (0..rank * rank).map(|i| (value(4, i, 1) * 32_767.0) as i16).collect();
        let mut body = limb(&b);
        let mut masks: Vec<_> = (0..rank).flat_map(|_| limb(&a)).collect();
        let mut sums = [RowSums { body: &mut body, masks: &mut masks }];
        accelerator.row_products(basis, rank, &weights, &[[&x_b, &x_a]], &mut sums).unwrap();
        let read = |limb| {
            let mut words = vec![0; degree];
            accelerator.read(limb, &mut words).unwrap();
            words
        };
        let (body, masks): (Vec<u64>, Vec<Vec<u64>>) = (read(&body[0]), masks.iter().map(read).collect());
        // m = b + a·s, then the weights; and body_i + Σ_j a_{i,j}·s_j over Z_q[Y].
        let mut m = b.clone();
        for (i, &x) in a.iter().enumerate() {
            for (j, &y) in s.iter().enumerate() {
                let (k, p) = ((i + j) % degree, q.multiply(x, y));
                m[k] = if i + j < degree { q.add(m[k], p) } else { q.sub(m[k], p) };
            }
        }
        let columns = degree / rank;
        for (o, t) in [(0, 0), (3, 1), (15, columns - 1), (7, 60)] {
            let expected = (0..rank).fold(0, |sum, i| {
                q.add(sum, q.multiply(q.reduce_signed(weights[o * rank + i] as i64), m[i + rank * t]))
            });
            let obtained = (0..rank).fold(body[o + rank * t], |sum, j| {
                (0..columns).fold(sum, |sum, l| {
                    let (from, wraps) = if l <= t { (t - l, false) } else { (columns + t - l, true) };
                    let p = q.multiply(masks[j][o + rank * l], s[j + rank * from]);
                    if wraps { q.sub(sum, p) } else { q.add(sum, p) }
                })
            });
            assert_eq!(obtained, expected, "row {o}, coefficient {t}");
        }
    });
}

#[test]
fn rings_are_switched_and_a_product_is_in_between() {
    let big = ParametersLiteral::INSECURE_TOY_MATRIX.check().unwrap();
    let small = big.small_ring().unwrap();
    with_accelerators([&big, &small], |big_accelerator, small_accelerator| {
        let mut keys = KeyRequests::new();
        RingSwitch::<Toy<'_, '_>, [SwitchingKey<Toy<'_, '_>>]>::required_keys(&big, 0, &mut keys).unwrap();
        let upper = Ring::new(big_accelerator, &big, &keys);
        let layout = Layout::new(small.degree(), 30, 128).unwrap();
        let lower = Ring::new(small_accelerator, &small, &requests(layout.log_rank(), 0));
        let switch = RingSwitch::new(upper.evaluator(), small_accelerator).unwrap();
        let (scale, degree, factor) = (2f64.powi(40), big.degree(), switch.factor());
        let mut coefficients = vec![0; degree];
        for row in 0..30 {
            for column in 0..128 {
                let (ciphertext, at) = layout.position(row, column);
                coefficients[ciphertext + factor * at] = (value(1, row, column) * scale) as i64;
            }
        }
        let x = upper.encrypt(&coefficients, 1);
        let (mut words, mut out) = (vec![0; switch.words_needed()], [None, None]);
        switch.to_small(&x, &mut words, &mut out).unwrap();
        let entries = Entries { layout, scale, bound: 1.0, noise: 2000.0 };
        let x = EncryptedMatrix::new(entries, out.into_iter().map(Option::unwrap).collect()).unwrap();
        assert!(lower.error(&x, |i, j| value(1, i, j)) < 2f64.powi(-25));
        let mut weights = vec![0; PlainMatrix::words_needed(&layout, &layout)];
        // A permutation and a scaling, folded into the weights.
        let entry = |o: usize, i: usize| if i == (o + 5) % 30 { 0.5 } else { 0.0 };
        let w = PlainMatrix::quantize(&layout, &layout, &mut weights, entry).unwrap();
        let y = lower.product(&w, &x).unwrap();
        let result = switch.to_big(y.ciphertexts(), &mut words).unwrap();
        assert_eq!(result.level(), 0);
        let plain = upper.decrypt(&result);
        for row in 0..30 {
            for column in 0..128 {
                let (ciphertext, at) = layout.position(row, column);
                let obtained = plain[ciphertext + factor * at] / y.entries().scale;
                assert!((obtained - value(1, (row + 5) % 30, column) / 2.0).abs() < 2f64.powi(-20));
            }
        }
    });
}

#[test]
fn refusals_name_the_numbers() {
    let parameters = small_parameters();
    with_accelerator(&parameters, |accelerator| {
        let layout = Layout::new(parameters.degree(), 20, 128).unwrap();
        let ring = Ring::new(accelerator, &parameters, &requests(layout.log_rank(), 0));
        let mut words = vec![0; PlainMatrix::words_needed(&layout, &layout)];
        let one = |o, i| f64::from(o == i);
        let w = PlainMatrix::quantize(&layout, &layout, &mut words, one).unwrap();
        let at = |level| ring.matrix(layout, level, 2f64.powi(40), |_, _| 0.5);
        let exhausted = crate::ckks::Error::LevelsExhausted { have: 0, need: 1 };
        assert_eq!(ring.product(&w, &at(0)).err().unwrap(), Error::Scheme(exhausted));
        let missing =
            crate::ckks::Error::MissingKey { id: KeyId::Component { log_rank: 4, index: 0 }, level: 1 };
        assert_eq!(ring.product(&w, &at(2)).err().unwrap(), Error::Scheme(missing));
        let other = layout.with_rows(21).unwrap();
        let x = ring.matrix(other, 1, 2f64.powi(40), |_, _| 0.5);
        assert_eq!(ring.product(&w, &x).err().unwrap(), Error::Shape { have: (20, 128), need: (21, 128) });
        let huge = ring.matrix(layout, 1, 2f64.powi(40), |_, _| 0.5);
        let entries = Entries { bound: 4096.0, ..*huge.entries() };
        let huge = EncryptedMatrix::new(entries, huge.into_ciphertexts()).unwrap();
        assert!(matches!(
            ring.product(&w, &huge).err().unwrap(),
            Error::Overflow { bits: 92..=93, max: 88..=89 }
        ));
        let mut few = vec![0; 9];
        let error = PlainMatrix::quantize(&layout, &layout, &mut few, one).err().unwrap();
        assert_eq!(error, Error::Room { have: 9, need: 32 * 32 });
        let mut more = words.clone();
        let nothing = PlainMatrix::quantize(&layout, &layout, &mut more, |_, _| 0.0);
        assert_eq!(nothing.err().unwrap(), Error::Weights);
        assert_eq!(Layout::new(1024, 3, 1025).err().unwrap(), Error::Columns { have: 1025, max: 1024 });
    });
}

/// An encrypted vector with its scalars where `side` has them.
fn vector<A: crate::accel::Trusted<Word = u64>>(
    ring: &Ring<'_, A>,
    side: Side,
    layout: Layout,
    level: usize,
    scalar: impl Fn(usize) -> f64,
) -> EncryptedVector<Vec<Ciphertext<A>>> {
    let (degree, scale) = (ring.parameters.degree(), 2f64.powi(40));
    let mut coefficients = vec![vec![0; degree]; layout.ciphertexts()];
    for row in 0..layout.rows() {
        let (ciphertext, at, negated) = side.position(degree, &layout, row);
        coefficients[ciphertext][at] = (if negated { -scalar(row) } else { scalar(row) } * scale) as i64;
    }
    let ciphertexts: Vec<_> = coefficients.iter().map(|c| ring.encrypt(c, level)).collect();
    EncryptedVector::new(side, Entries { layout, scale, bound: 1.0, noise: 4.0 }, ciphertexts).unwrap()
}

/// LoRA forward, x ↦ Bᵀ·(Aᵀ·x), and the gradient of A: everything encrypted.
#[test]
fn thin_products_agree_with_f64() {
    let parameters = small_parameters();
    let (rows, outputs, columns, rank) = (37, 21, 120, 2);
    with_accelerator(&parameters, |accelerator| {
        let layout = Layout::new(parameters.degree(), rows, columns).unwrap();
        let mut keys = KeyRequests::new();
        SmallRing::<Toy<'_, '_>, [SwitchingKey<Toy<'_, '_>>]>::thin_keys(
            &parameters,
            layout.log_rank(),
            2,
            &mut keys,
        )
        .unwrap();
        let ring = Ring::new(accelerator, &parameters, &keys);
        let small = SmallRing::new(ring.evaluator());
        let x = ring.matrix(layout, 2, 2f64.powi(40), |i, j| value(1, i, j) / 4.0);
        let down = |r: usize, i: usize| value(2, r, i) / 6.0;
        let rows_of: Vec<_> = (0..rank)
            .map(|r| {
                let a = vector(&ring, Side::Gather, layout, 2, |i| down(r, i));
                small.gather(&a, &x, 2.0).unwrap()
            })
            .collect();
        let middle =
            |r: usize, j: usize| -> f64 { (0..rows).map(|i| down(r, i) * value(1, i, j) / 4.0).sum() };
        for (r, row) in rows_of.iter().enumerate() {
            let plain = ring.decrypt(row.ciphertext());
            for (at, obtained) in plain.iter().enumerate() {
                let expected = match at % layout.rank() {
                    0 if at / layout.rank() < columns => middle(r, at / layout.rank()),
                    _ => 0.0,
                };
                assert!((obtained / row.entries().scale - expected).abs() < 2f64.powi(-18), "{r}, {at}");
            }
        }
        let output = layout.with_rows(outputs).unwrap();
        let up = |r: usize, o: usize| value(3, r, o);
        let b: Vec<_> = (0..rank).map(|r| vector(&ring, Side::Scatter, output, 1, |o| up(r, o))).collect();
        let terms: Vec<_> = b.iter().zip(&rows_of).collect();
        let mut out: Vec<Option<Ciphertext<_>>> = (0..output.ciphertexts()).map(|_| None).collect();
        let entries = small.scatter(&terms, 4.0, &mut out).unwrap();
        let y = EncryptedMatrix::new(entries, out.into_iter().map(Option::unwrap).collect()).unwrap();
        let error = ring.error(&y, |o, j| (0..rank).map(|r| up(r, o) * middle(r, j)).sum());
        assert!(error < 2f64.powi(-16), "{error}");

        let x = ring.matrix(layout, 1, 2f64.powi(40), |i, j| value(1, i, j) / 4.0);
        let mut out: Vec<Option<Ciphertext<_>>> = (0..layout.ciphertexts()).map(|_| None).collect();
        let entries = small.outer(&x, &rows_of[1], 8.0, &mut out).unwrap();
        let plain: Vec<Vec<f64>> = out.iter().map(|c| ring.decrypt(c.as_ref().unwrap())).collect();
        for i in 0..rows {
            let (ciphertext, at, _) = Side::Scatter.position(parameters.degree(), &layout, i);
            let expected: f64 = (0..columns).map(|j| value(1, i, j) / 4.0 * middle(1, j)).sum();
            let obtained = plain[ciphertext][at] / entries.scale;
            assert!((obtained - expected).abs() < 2f64.powi(-16), "{i}: {obtained} is not {expected}");
        }
        let wrong = vector(&ring, Side::Scatter, layout, 1, |_| 0.5);
        let refused = small.gather(&wrong, &x, 1.0).err().unwrap();
        assert_eq!(refused, Error::Side { have: Side::Scatter, need: Side::Gather });
    });
}

#[test]
fn sums_joins_and_heads() {
    let parameters = small_parameters();
    with_accelerator(&parameters, |accelerator| {
        let layout = Layout::new(parameters.degree(), 32, 128).unwrap();
        let ring = Ring::new(accelerator, &parameters, &KeyRequests::new());
        let small = SmallRing::new(ring.evaluator());
        let (scale, other) = (2f64.powi(40), layout.with_rows(20).unwrap());
        let mut x = ring.matrix(layout, 1, scale, |i, j| value(1, i, j));
        let y = ring.matrix(layout, 1, scale, |i, j| value(2, i, j));
        small.add(&mut x, &y).unwrap();
        let sum = |i: usize, j: usize| value(1, i, j) + value(2, i, j);
        assert!(ring.error(&x, sum) < 2f64.powi(-30));
        assert_eq!(x.entries().bound, 2.0);
        let head = x.rows(16, 16).unwrap();
        assert_eq!((head.entries().layout.shape(), head.ciphertexts().len()), ((16, 128), 1));
        let obtained = ring.decrypt(&head.ciphertexts()[0])[3 + 16 * 50] / scale;
        assert!((obtained - sum(19, 50)).abs() < 2f64.powi(-30));
        assert!(matches!(x.rows(8, 8).err(), Some(Error::Shape { .. })));
        assert!(matches!(x.rows(16, 17).err(), Some(Error::Shape { have: (33, 128), need: (32, 128) })));
        let z = ring.matrix(other, 1, scale, |i, j| value(3, i, j));
        let entries = x.entries().above(z.entries()).unwrap();
        assert!(matches!(z.entries().above(x.entries()), Err(Error::Shape { need: (32, 128), .. })));
        let all: Vec<_> = x.into_ciphertexts().into_iter().chain(z.into_ciphertexts()).collect();
        let joined = EncryptedMatrix::new(entries, all).unwrap();
        let expected = |i: usize, j: usize| if i < 32 { sum(i, j) } else { value(3, i - 32, j) };
        assert!(ring.error(&joined, expected) < 2f64.powi(-30));
        let mut x = ring.matrix(layout, 1, 2.0 * scale, |_, _| 0.5);
        assert_eq!(small.add(&mut x, &y), Err(Error::Scale { have: scale, need: 2.0 * scale }));
    });
}

#[test]
fn keys_of_the_small_ring_go_no_higher_than_it_is_safe() {
    let secure = ParametersLiteral::N16_MATRIX.check().unwrap().small_ring().unwrap();
    assert_eq!((secure.degree(), secure.top_level(), secure.is_insecure()), (1 << 13, 3, false));
    let cap = crate::ckks::max_log_qp(13).unwrap() as f64;
    assert!(secure.log_qp() <= cap && secure.log_qp() > crate::ckks::max_log_qp(12).unwrap() as f64);
    let big = ParametersLiteral::INSECURE_TOY_MATRIX.check().unwrap();
    with_accelerator(&big, |accelerator| {
        let ring = Ring::new(accelerator, &big, &KeyRequests::new());
        let (mut signed, mut words) = (vec![0; big.degree()], vec![0; big.degree()]);
        for id in [KeyId::ToSmallRing, KeyId::FromSmallRing] {
            let mut make = |level| ring.secret.switching_key(id, level, &mut signed, &mut words);
            let key = make(3).unwrap();
            // One special prime: what the security of the small ring was checked with.
            assert_eq!((key.level(), key.special()), (3, 1));
            assert_eq!(make(4).err(), Some(crate::ckks::Error::MissingKey { id, level: 4 }));
        }
        let mut none = |id| ring.secret.switching_key(id, 0, &mut signed, &mut words).err();
        let id = KeyId::Component { log_rank: 4, index: 16 };
        assert_eq!(none(id), Some(crate::ckks::Error::MissingKey { id, level: 0 }));
    });
}
