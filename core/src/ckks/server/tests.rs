extern crate std;
use super::*;
use crate::accel::{Portable, Trusted};
use crate::ckks::client::{PublicKey, SecretKey};
use crate::ckks::encoding::{Complex, Encoder, plaintext};
use crate::ckks::{KeyId, KeyRequests, ParametersLiteral, Plaintext, PrecisionStats, SwitchingKey};
use crate::memory::{Arena, LimbPool};
use crate::ring::{RingTables, SecretSeed};
use chacha20::ChaCha20Rng;
use rand_core::SeedableRng;
use std::{vec, vec::Vec};

type Keys<A> = Vec<SwitchingKey<A>>;

/// A client and a server in one, over any trusted accelerator.
pub(super) struct Bench<'a, A: Trusted> {
    pub(super) accelerator: &'a A,
    pub(super) parameters: &'a Parameters,
    pub(super) encoder: Encoder<'a>,
    pub(super) secret: SecretKey<'a, A>,
    pub(super) public: PublicKey<A>,
    pub(super) keys: Keys<A>,
}

impl<A: Trusted> Bench<'_, A> {
    pub(super) fn slots(&self, seed: usize) -> Vec<Complex> {
        let value = |j: usize| ((j * 7919 + seed * 104_729 + 13) % 2003) as f64 / 1001.5 - 1.0;
        (0..self.parameters.slots()).map(|j| Complex::new(value(2 * j), value(2 * j + 1))).collect()
    }

    fn encode(&self, values: &[Complex], basis: Basis, scale: f64) -> Plaintext<A> {
        let degree = self.parameters.degree();
        let mut coefficients = vec![0; degree];
        self.encoder.encode(values, scale, &mut vec![0.0; degree], &mut coefficients).unwrap();
        plaintext(self.accelerator, basis, &coefficients).unwrap()
    }

    pub(super) fn encrypt(&self, values: &[Complex], level: usize) -> Ciphertext<A> {
        let plain = self.encode(values, Basis::level(level), self.parameters.scale(level));
        let mut signed = vec![0; self.parameters.degree()];
        let mut rng = ChaCha20Rng::from_seed([level as u8; 32]);
        self.public.encrypt(self.accelerator, &plain, &mut rng, &mut signed).unwrap()
    }

    /// With the secret key: at any level, those above a fresh ciphertext's too.
    pub(super) fn encrypt_secretly(&self, values: &[Complex], level: usize) -> Ciphertext<A> {
        let degree = self.parameters.degree();
        let (mut coefficients, mut words) = (vec![0; degree], vec![A::Word::default(); degree]);
        let scale = self.parameters.scale(level);
        self.encoder.encode(values, scale, &mut vec![0.0; degree], &mut coefficients).unwrap();
        let mut rng = ChaCha20Rng::from_seed([level as u8; 32]);
        let seeded = self.secret.encrypt_seeded(level, &mut coefficients, &mut rng, &mut words).unwrap();
        seeded.expand(self.accelerator, &mut words).unwrap()
    }

    pub(super) fn evaluator(&self) -> Evaluator<'_, A, [SwitchingKey<A>]>
    where
        A::Limb: Sync,
    {
        Evaluator::new(self.accelerator, self.parameters, &self.keys[..]).unwrap()
    }

    /// Bits against `expected`, slot by slot.
    pub(super) fn bits(&self, x: &Ciphertext<A>, expected: impl Fn(usize) -> Complex) -> PrecisionStats {
        let degree = self.parameters.degree();
        let mut coefficients = vec![0.0; degree];
        let mut words = vec![A::Word::default(); 2 * degree];
        self.secret.decrypt_coefficients(x, &mut words, &mut coefficients).unwrap();
        let mut out = vec![Complex::default(); degree / 2];
        self.encoder.decode(&mut coefficients, x.scale(self.parameters), &mut out).unwrap();
        PrecisionStats::of(
            out.iter().enumerate().flat_map(|(j, y)| [(expected(j).re, y.re), (expected(j).im, y.im)]),
        )
    }

    /// The bound every operation must keep: log2 scale − log2 N − 2 on average.
    fn check(&self, name: &str, x: &Ciphertext<A>, expected: impl Fn(usize) -> Complex) {
        self.check_amplified(name, x, 1, expected);
    }

    /// The same where the worst slot's error grows by `degree`², as it does
    /// for T_degree at the ends of its interval.
    fn check_amplified(
        &self,
        name: &str,
        x: &Ciphertext<A>,
        degree: usize,
        expected: impl Fn(usize) -> Complex,
    ) {
        let amplified = 2.0 * libm::log2(degree as f64);
        let stats = self.bits(x, expected);
        let bound = libm::log2(x.scale(self.parameters)) - libm::log2(self.parameters.degree() as f64) - 2.0;
        assert!(
            stats.mean_bits >= bound && stats.min_bits >= bound - 5.0 - amplified,
            "{name}: {stats} under {bound}"
        );
    }
}

const ROTATIONS: [i64; 6] = [1, 2, 3, 4, 8, -5];

fn with_bench(literal: ParametersLiteral, test: impl FnOnce(&Bench<'_, Portable<'_, '_, u64, 4096>>)) {
    let keys = |parameters: &Parameters, requests: &mut KeyRequests| {
        let top = parameters.max_level();
        requests.add(KeyId::Relinearization, top).unwrap();
        requests.add(KeyId::conjugation(parameters), top).unwrap();
        for steps in ROTATIONS {
            requests.add(KeyId::rotation(parameters, steps), top).unwrap();
        }
    };
    with_keys(literal, 3000, keys, test);
}

/// With `limbs` limbs, at most `CAP`, and the keys that `request` asks for.
pub(super) fn with_keys<const CAP: usize>(
    literal: ParametersLiteral,
    limbs: usize,
    request: impl FnOnce(&Parameters, &mut KeyRequests),
    test: impl FnOnce(&Bench<'_, Portable<'_, '_, u64, CAP>>),
) {
    let parameters = literal.check().unwrap();
    let mut tables = vec![0; RingTables::<u64>::words_needed(parameters.chain())];
    let tables = RingTables::new(parameters.chain(), &mut Arena::new(&mut tables)).unwrap();
    let degree = parameters.degree();
    let mut words = vec![0; degree * limbs];
    let pool = LimbPool::new(&mut Arena::new(&mut words), degree, limbs).unwrap();
    let accelerator = Portable::new(&tables, &pool).unwrap();
    let mut twiddles = vec![0.0; Encoder::words_needed(degree)];
    let encoder = Encoder::new(degree, &mut Arena::new(&mut twiddles)).unwrap();
    let (mut signed, mut scratch) = (vec![0; degree], vec![0; 2 * degree]);
    let seed = SecretSeed::take(&mut [5; 32]);
    let secret = SecretKey::generate(&accelerator, &parameters, seed, &mut signed).unwrap();
    let public = secret.public_key(&mut signed, &mut scratch).unwrap();
    let mut requests = KeyRequests::new();
    request(&parameters, &mut requests);
    let keys = requests
        .iter()
        .map(|r| secret.switching_key(r.id, r.level, &mut signed, &mut scratch).unwrap())
        .collect();
    test(&Bench { accelerator: &accelerator, parameters: &parameters, encoder, secret, public, keys });
}

fn times(x: Complex, y: Complex) -> Complex {
    Complex::new(x.re * y.re - x.im * y.im, x.re * y.im + x.im * y.re)
}

#[test]
fn arithmetic_keeps_its_precision_at_every_level() {
    with_bench(ParametersLiteral::INSECURE_TOY, |b| {
        let e = b.evaluator();
        let (u, v) = (b.slots(1), b.slots(2));
        for level in 1..=b.parameters.max_level() {
            let (x, y) = (b.encrypt(&u, level), b.encrypt(&v, level));
            b.check("fresh", &x, |j| u[j]);
            let mut sum = x.duplicate(b.accelerator).unwrap();
            e.add_assign(&mut sum, &y).unwrap();
            b.check("add", &sum, |j| Complex::new(u[j].re + v[j].re, u[j].im + v[j].im));
            e.sub_assign(&mut sum, &x).unwrap();
            e.negate_assign(&mut sum).unwrap();
            b.check("negate", &sum, |j| Complex::new(-v[j].re, -v[j].im));
            e.add_constant_assign(&mut sum, 0.75).unwrap();
            b.check("add constant", &sum, |j| Complex::new(0.75 - v[j].re, -v[j].im));
            b.check("multiply", &e.multiply_rescale(&x, &y).unwrap(), |j| times(u[j], v[j]));
            let constant = e.multiply_constant(&x, -0.3).unwrap();
            b.check("multiply constant", &constant, |j| Complex::new(-0.3 * u[j].re, -0.3 * u[j].im));
            let mut product = e.product(level).unwrap();
            let plain = b.encode(&v, Basis::level(level), b.parameters.scale(level));
            e.multiply_plain_add(&mut product, &x, &plain).unwrap();
            e.multiply_add(&mut product, &x, &y).unwrap();
            let lazy = e.rescale(product).unwrap();
            b.check("lazy sum", &lazy, |j| times(Complex::new(2.0 * u[j].re, 2.0 * u[j].im), v[j]));
            b.check("drop", &e.drop_to(&x, 0).unwrap(), |j| u[j]);
        }
    });
}

#[test]
fn rotations_move_slots_left_and_hoisting_changes_nothing() {
    with_bench(ParametersLiteral::INSECURE_TOY, |b| {
        let e = b.evaluator();
        let u = b.slots(3);
        let n = u.len();
        for level in [0, 3, b.parameters.max_level()] {
            let x = b.encrypt(&u, level);
            let hoisted = e.hoist(&x).unwrap();
            for steps in ROTATIONS {
                let expected = |j: usize| u[(j as i64 + steps).rem_euclid(n as i64) as usize];
                b.check("rotate", &e.rotate(&x, steps).unwrap(), expected);
                b.check("hoisted", &e.rotate_hoisted(&hoisted, steps).unwrap(), expected);
            }
            b.check("conjugate", &e.conjugate(&x).unwrap(), |j| Complex::new(u[j].re, -u[j].im));
        }
    });
}

struct Matrix<'b, 'a, A: Trusted>(&'b Bench<'a, A>, &'b dyn Fn(usize, usize, usize) -> f64);

impl<A: Trusted> DiagonalSource<A> for Matrix<'_, '_, A> {
    fn diagonal(&mut self, giant: usize, baby: usize, level: usize) -> Result<Option<Plaintext<A>>, Error> {
        let values: Vec<Complex> =
            (0..self.0.parameters.slots()).map(|j| Complex::new((self.1)(giant, baby, j), 0.0)).collect();
        let basis = self.0.parameters.key_basis(level);
        Ok(Some(self.0.encode(&values, basis, self.0.parameters.scale(level))))
    }
}

#[test]
fn transforms_agree_with_their_definition() {
    with_bench(ParametersLiteral::INSECURE_TOY, |b| {
        let e = b.evaluator();
        let u = b.slots(4);
        let n = u.len();
        let (baby, giant) = ([0, 1, 2, 3], [0, 4, 8]);
        let factor = |g: usize, h: usize, j: usize| ((g * 5 + h * 3 + j * 17) % 29) as f64 / 29.0 - 0.5;
        let x = b.encrypt(&u, 4);
        let y = e.transform(&x, BabyGiant { baby: &baby, giant: &giant }, &mut Matrix(b, &factor)).unwrap();
        assert_eq!(y.level(), 3);
        b.check("transform", &y, |j| {
            let mut sum = Complex::default();
            for (g, &big) in giant.iter().enumerate() {
                for (h, &small) in baby.iter().enumerate() {
                    let inner = (j + big as usize) % n;
                    let value = u[(inner + small as usize) % n];
                    let f = factor(g, h, inner);
                    sum = Complex::new(sum.re + f * value.re, sum.im + f * value.im);
                }
            }
            sum
        });
    });
}

#[test]
fn blocks_are_multiplied_by_their_matrix() {
    let slots = 1u32 << (ParametersLiteral::INSECURE_TOY.log_degree - 1);
    let bits = slots.trailing_zeros();
    // Whole vectors, words that repeat twice and 16 times, single slots, and a matrix of one entry.
    for (first, count) in [(bits - 3, 3), (bits - 5, 4), (2, bits - 6), (0, 2), (3, 0)] {
        let turns = Turns::new(slots as usize, first, count).unwrap();
        let (level, rows) = (3, 1usize << count);
        let entry = |r: usize, c: usize| ((r * 29 + c * 11 + 5) % 17) as f64 / (17 * rows) as f64 - 0.02;
        let keys = |parameters: &Parameters, requests: &mut KeyRequests| {
            turns.required_keys(parameters, level, requests).unwrap();
        };
        with_keys::<4096>(ParametersLiteral::INSECURE_TOY, 4000, keys, |b| {
            let (e, u, degree) = (b.evaluator(), b.slots(7), b.parameters.degree());
            let take =
                |count: usize| -> Vec<_> { (0..count).map(|_| b.accelerator.allocate().unwrap()).collect() };
            let mut limbs = take(turns.limbs(b.parameters, level));
            let mut scratch = FactorScratch {
                values: &mut vec![0.0; degree],
                coefficients: &mut vec![0; degree],
                words: [&mut vec![0; degree], &mut vec![0; degree]],
            };
            let of = (b.accelerator, b.parameters, level);
            turns.prepare(of, &b.encoder, &entry, &mut scratch, &mut limbs).unwrap();
            let y = e.apply_turns(&b.encrypt(&u, level), &turns, &limbs).unwrap();
            assert_eq!(y.level(), level - 1);
            b.check(&std::format!("bits {first} to {}", first + count), &y, |j| {
                let row = j >> first & (rows - 1);
                let mut sum = Complex::default();
                for column in 0..rows {
                    let x = u[j & !((rows - 1) << first) | column << first];
                    let f = entry(row, column);
                    sum = Complex::new(sum.re + f * x.re, sum.im + f * x.im);
                }
                sum
            });
            limbs.pop();
            assert!(turns.prepare(of, &b.encoder, &entry, &mut scratch, &mut limbs).is_err());
            assert!(e.apply_turns(&b.encrypt(&u, level), &turns, &limbs).is_err());
            assert!(e.apply_turns(&b.encrypt(&u, 0), &turns, &limbs).is_err());
        });
    }
    let slots = slots as usize;
    assert_eq!(Turns::new(slots, 0, 10), Err(Error::Full { capacity: 512 }));
    assert!(Turns::new(slots, bits, 1).is_err() && Turns::new(slots, u32::MAX, 1).is_err());
    assert!(Turns::new(slots - 1, 0, 1).is_err());
}

#[test]
fn chebyshev_series_use_exactly_their_depth() {
    with_bench(ParametersLiteral::INSECURE_TOY, |b| {
        let e = b.evaluator();
        let u: Vec<Complex> = b.slots(5).iter().map(|z| Complex::new(z.re, 0.0)).collect();
        let x = b.encrypt(&u, b.parameters.max_level());
        for degree in [1usize, 2, 3, 5, 7, 8, 13, 15, 27, 31, 59, 63] {
            let c: Vec<f64> = (0..=degree).map(|i| ((i * 31 + 7) % 23) as f64 / 23.0 - 0.4).collect();
            let norm: f64 = c.iter().map(|c| c.abs()).sum();
            let c: Vec<f64> = c.iter().map(|c| c / norm).collect();
            let y = e.chebyshev(&x, &c).unwrap();
            assert_eq!(x.level() - y.level(), chebyshev_depth(degree));
            b.check_amplified(&std::format!("degree {degree}"), &y, degree, |j| {
                let angle = libm::acos(u[j].re);
                let value = c.iter().enumerate().map(|(i, c)| c * libm::cos(i as f64 * angle)).sum();
                Complex::new(value, 0.0)
            });
        }
        // An odd series skips the even powers and keeps its depth.
        let odd: Vec<f64> = (0..16).map(|i| if i % 2 == 1 { 0.1 } else { 0.0 }).collect();
        let y = e.chebyshev(&x, &odd).unwrap();
        assert_eq!(x.level() - y.level(), 4);
    });
}

#[test]
fn what_is_missing_is_named_before_any_work() {
    with_bench(ParametersLiteral::INSECURE_TOY, |b| {
        let u = b.slots(6);
        let none: [SwitchingKey<_>; 0] = [];
        let e = Evaluator::new(b.accelerator, b.parameters, &none[..]).unwrap();
        let x = b.encrypt(&u, 2);
        let missing = |error: Option<Error>, id| assert_eq!(error, Some(Error::MissingKey { id, level: 2 }));
        missing(e.rotate(&x, 7).err(), KeyId::rotation(b.parameters, 7));
        missing(e.multiply_rescale(&x, &x).err(), KeyId::Relinearization);
        let low = b.encrypt(&u, 0);
        assert_eq!(e.multiply(&low, &low).err(), Some(Error::LevelsExhausted { have: 0, need: 1 }));
        assert_eq!(e.chebyshev(&x, &[1.0; 9]).err(), Some(Error::LevelsExhausted { have: 2, need: 4 }));
        assert_eq!(e.multiply(&x, &low).err(), Some(Error::Level { have: 0, need: 2 }));
    });
}
