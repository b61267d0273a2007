extern crate std;
use super::*;
use crate::accel::{Portable, Trusted};
use crate::ckks::client::SecretKey;
use crate::ckks::encoding::Encoder;
use crate::ckks::server::Evaluator;
use crate::ckks::{Ciphertext, KeyRequest, KeySource, ParametersLiteral, SwitchingKey};
use crate::memory::{Arena, LimbPool};
use crate::ring::{RingTables, SecretSeed};
use chacha20::ChaCha20Rng;
use proptest::prelude::*;
use rand_core::SeedableRng;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{vec, vec::Vec};

const LIMBS: usize = 4096;
type Toy<'p, 'm> = Portable<'p, 'm, u64, LIMBS>;

/// Keys that count how often they are asked for.
struct Counting<A: Trusted> {
    keys: Vec<SwitchingKey<A>>,
    uses: AtomicUsize,
}

impl<A: Trusted<Limb: Sync>> KeySource<A> for Counting<A> {
    type Held<'k>
        = &'k SwitchingKey<A>
    where
        A: 'k;

    fn key(&self, id: KeyId, level: usize) -> Result<&SwitchingKey<A>, ckks::Error> {
        self.uses.fetch_add(1, Ordering::Relaxed);
        self.keys.as_slice().key(id, level)
    }
}

/// Client and server in one.
struct World<'a, A: Trusted> {
    accelerator: &'a A,
    parameters: &'a Parameters,
    packing: Packing,
    encoder: Encoder<'a>,
    secret: SecretKey<'a, A>,
    keys: Counting<A>,
}

fn parameters(log_degree: u32) -> Parameters {
    ParametersLiteral { log_degree, ..ParametersLiteral::INSECURE_TOY }.check().unwrap()
}

fn with_world<R>(
    parameters: &Parameters,
    packing: Packing,
    requests: &KeyRequests,
    test: impl for<'p, 'm> FnOnce(&World<'_, Toy<'p, 'm>>) -> R,
) -> R {
    let degree = parameters.degree();
    let mut tables = vec![0; RingTables::<u64>::words_needed(parameters.chain())];
    let tables = RingTables::new(parameters.chain(), &mut Arena::new(&mut tables)).unwrap();
    let mut words = vec![0; LimbPool::<u64, LIMBS>::words_needed(degree, LIMBS)];
    let pool = LimbPool::new(&mut Arena::new(&mut words), degree, LIMBS).unwrap();
    let accelerator = Portable::new(&tables, &pool).unwrap();
    let mut twiddles = vec![0.0; Encoder::words_needed(degree)];
    let encoder = Encoder::new(degree, &mut Arena::new(&mut twiddles)).unwrap();
    let (mut signed, mut scratch) = (vec![0; degree], vec![0; degree]);
    let seed = SecretSeed::take(&mut [11; 32]);
    let secret = SecretKey::generate(&accelerator, parameters, seed, &mut signed).unwrap();
    let mut key = |r: &KeyRequest| secret.switching_key(r.id, r.level, &mut signed, &mut scratch).unwrap();
    let keys = Counting { keys: requests.iter().map(&mut key).collect(), uses: AtomicUsize::new(0) };
    test(&World { accelerator: &accelerator, parameters, packing, encoder, secret, keys })
}

/// Matrices by lane, row and column.
type Entries<'e> = &'e dyn Fn(usize, usize, usize) -> f64;

impl<A: Trusted<Word = u64, Limb: Sync>> World<'_, A> {
    fn encrypt(&self, level: usize, entries: Entries<'_>) -> Ciphertext<A> {
        let degree = self.parameters.degree();
        let (mut work, mut coefficients, mut words) = (vec![0.0; degree], vec![0; degree], vec![0; degree]);
        let places = (0..degree / 2).map(|s| self.packing.entry(s));
        let values: Vec<f64> = places.map(|(lane, row, column)| entries(lane, row, column)).collect();
        let scale = self.parameters.scale(level);
        self.encoder.encode_real(&values, scale, &mut work, &mut coefficients).unwrap();
        let mut rng = ChaCha20Rng::from_seed([level as u8; 32]);
        let seeded = self.secret.encrypt_seeded(level, &mut coefficients, &mut rng, &mut words).unwrap();
        seeded.expand(self.accelerator, &mut words).unwrap()
    }

    /// The largest error of an entry of any lane.
    fn error(&self, x: &Ciphertext<A>, expected: Entries<'_>) -> f64 {
        let degree = self.parameters.degree();
        let (mut words, mut work) = (vec![0; 2 * degree], vec![0.0; degree]);
        self.secret.decrypt_coefficients(x, &mut words, &mut work).unwrap();
        let mut values = vec![0.0; degree / 2];
        self.encoder.decode_real(&mut work, x.scale(self.parameters), &mut values).unwrap();
        let entry = |s| self.packing.entry(s);
        let exact = (0..values.len()).map(entry).map(|(lane, row, column)| expected(lane, row, column));
        exact.zip(&values).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max)
    }

    /// Runs `test`; says how many keys were used.
    fn serve<R>(&self, test: impl FnOnce(&mut SlotMatrices<'_, A, Counting<A>>) -> R) -> (R, usize) {
        let degree = self.parameters.degree();
        let evaluator = Evaluator::new(self.accelerator, self.parameters, &self.keys).unwrap();
        let (mut work, mut coefficients) = (vec![0.0; degree], vec![0; degree]);
        let mut matrices =
            SlotMatrices::new(evaluator, self.packing, &self.encoder, &mut work, &mut coefficients).unwrap();
        self.keys.uses.store(0, Ordering::Relaxed);
        let result = test(&mut matrices);
        (result, self.keys.uses.load(Ordering::Relaxed))
    }
}

/// Pseudo-random in (−1, 1).
fn value(seed: usize, lane: usize, row: usize, column: usize) -> f64 {
    let x = seed * 7919 + lane * 15_485_863 + row * 104_729 + column * 1_299_709 + 13;
    ((x as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 11) as f64 / (1u64 << 52) as f64 - 1.0
}

/// A matrix whose products keep the size of what they map.
fn dense(packing: &Packing, seed: usize) -> impl Fn(usize, usize, usize) -> f64 {
    let size = (packing.dimension() as f64).sqrt();
    move |lane, row, column| value(seed, lane, row, column) / size
}

fn times(packing: &Packing, a: Entries<'_>, b: Entries<'_>) -> impl Fn(usize, usize, usize) -> f64 {
    let (d, lanes) = (packing.dimension(), packing.lanes());
    let mut product = vec![0.0; lanes * d * d];
    for (slot, sum) in product.iter_mut().enumerate() {
        let (lane, row, column) = packing.entry(slot);
        *sum = (0..d).map(|i| a(lane, row, i) * b(lane, i, column)).sum();
    }
    let packing = *packing;
    move |lane, row, column| product[packing.slot(lane, row, column)]
}

/// What a scale of 2^40 leaves at N = 2^10 and 2^11.
const PRECISE: f64 = 1.0 / (1u64 << 22) as f64;

#[test]
fn encrypted_products_agree_with_f64_and_cost_what_was_said() {
    for (log_degree, rows, d) in
        [(10, 4, 4), (10, 8, 8), (10, 16, 16), (11, 32, 32), (10, 1, 8), (10, 2, 16), (10, 8, 16)]
    {
        let parameters = parameters(log_degree);
        let packing = Packing::new(&parameters, rows, d).unwrap();
        let mut keys = KeyRequests::new();
        packing.required_keys(&parameters, 4, &mut keys).unwrap();
        let cost = packing.product_cost();
        assert_eq!(cost.keys, keys.len(), "{packing:?}");
        with_world(&parameters, packing, &keys, |w| {
            let (full, b) = (dense(&packing, 1), dense(&packing, 2));
            let a = |lane, row: usize, column| full(lane, row % rows, column);
            let (x, y) = (w.encrypt(4, &a), w.encrypt(3, &b));
            let (product, uses) = w.serve(|m| m.multiply(&x, &y).unwrap());
            assert_eq!((product.level(), uses), (4 - cost.levels, cost.key_switches), "{packing:?}");
            let error = w.error(&product, &times(&packing, &a, &b));
            assert!(error < PRECISE, "{packing:?}: {error}");
        });
    }
}

#[test]
fn products_follow_products_and_a_skewed_factor_serves_many() {
    let parameters = parameters(10);
    let packing = Packing::new(&parameters, 16, 16).unwrap();
    let mut keys = KeyRequests::new();
    packing.required_keys(&parameters, 7, &mut keys).unwrap();
    with_world(&parameters, packing, &keys, |w| {
        let (a, b, c) = (dense(&packing, 1), dense(&packing, 2), dense(&packing, 3));
        let [x, y] = [(&a as Entries<'_>, 7), (&b, 5)].map(|(m, level)| w.encrypt(level, m));
        let z = w.encrypt(6, &c);
        let ab = times(&packing, &a, &b);
        let ((), uses) = w.serve(|m| {
            let xy = m.multiply(&x, &y).unwrap();
            let xyz = m.multiply(&xy, &z).unwrap();
            assert_eq!((xy.level(), xyz.level()), (3, 0));
            assert!(w.error(&xy, &ab) < PRECISE);
            assert!(w.error(&xyz, &times(&packing, &ab, &c)) < PRECISE);
        });
        assert_eq!(uses, 2 * packing.product_cost().key_switches);
        let ((), uses) = w.serve(|m| {
            let left = m.skew_left(&x).unwrap();
            for (matrix, right) in [(&b as Entries<'_>, &y), (&c, &z)] {
                let right = m.skew_right(right).unwrap();
                let product = m.multiply_skewed(&left, &right).unwrap();
                assert_eq!(product.level(), right.level().min(left.level() - 1) - 1);
                assert!(w.error(&product, &times(&packing, &a, matrix)) < PRECISE);
            }
        });
        let [left, right] = [Factor::Left, Factor::Right].map(|f| packing.skew_cost(f).key_switches);
        assert_eq!(uses, left + 2 * (right + packing.skewed_cost().key_switches));
    });
}

#[test]
fn known_weights_multiply_from_both_sides_in_one_level() {
    for (log_degree, d) in [(10, 4), (10, 8), (11, 32)] {
        let parameters = parameters(log_degree);
        let packing = Packing::new(&parameters, d, d).unwrap();
        for factor in [Factor::Left, Factor::Right] {
            let cost = packing.plain_cost(factor);
            let mut keys = KeyRequests::new();
            packing.plain_keys(&parameters, factor, 2, &mut keys).unwrap();
            assert_eq!(cost.keys, keys.len());
            with_world(&parameters, packing, &keys, |w| {
                let (a, b) = (dense(&packing, 4), dense(&packing, 5));
                let x = w.encrypt(3, &a);
                let mut store: Vec<_> = (0..packing.plaintexts_needed(factor)).map(|_| None).collect();
                assert_eq!(store.len(), cost.plaintext_products);
                let (result, uses) = w.serve(|m| {
                    let weights = m.prepare(factor, 2, &b, &mut store).unwrap();
                    m.multiply_plain(&weights, &x).unwrap()
                });
                assert_eq!((result.level(), uses), (2 - cost.levels, cost.key_switches));
                let (left, right): (Entries<'_>, Entries<'_>) =
                    if factor == Factor::Left { (&b, &a) } else { (&a, &b) };
                let error = w.error(&result, &times(&packing, left, right));
                assert!(error < PRECISE, "{packing:?} {factor:?}: {error}");
            });
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]
    /// Any shape that fits, padded with zeros.
    #[test]
    fn products_of_random_shapes(rows in 1usize..=16, inner in 1usize..=16, columns in 1usize..=16, seed in 0usize..1000) {
        let parameters = parameters(10);
        let packing = Packing::holding(&parameters, rows, inner, columns).unwrap();
        let mut keys = KeyRequests::new();
        packing.required_keys(&parameters, 3, &mut keys).unwrap();
        with_world(&parameters, packing, &keys, |w| {
            let at = |seed, inside, lane, i, j| if inside { value(seed, lane, i, j) / 4.0 } else { 0.0 };
            let left = |lane, i, j| at(seed, i < rows && j < inner, lane, i, j);
            let a = |lane, i: usize, j| left(lane, i % packing.rows(), j);
            let b = |lane, i, j| at(seed + 1, i < inner && j < columns, lane, i, j);
            let (x, y) = (w.encrypt(3, &a), w.encrypt(2, &b));
            let (product, _) = w.serve(|m| m.multiply(&x, &y).unwrap());
            let error = w.error(&product, &times(&packing, &a, &b));
            prop_assert!(product.level() == 0 && error < PRECISE, "{:?}: {}", packing, error);
            Ok(())
        })?;
    }
}

#[test]
fn packings_interleave_lanes_and_name_the_shape_to_pad_to() {
    let parameters = parameters(10);
    let refused = |rows, d| Packing::new(&parameters, rows, d).err().unwrap();
    assert_eq!(refused(3, 6), Error::Shape { have: (3, 6), need: (4, 8) });
    assert_eq!(refused(0, 2), Error::Shape { have: (0, 2), need: (1, 4) });
    assert_eq!(refused(16, 8), Error::Shape { have: (16, 8), need: (16, 16) });
    assert_eq!(refused(4, 32), Error::Room { have: 512, need: 1024 });
    assert_eq!(refused(usize::MAX, 4), Error::Room { have: 512, need: usize::MAX });
    let holding = |rows| Packing::holding(&parameters, rows, 9, 1);
    assert_eq!(holding(5).map(|p| (p.rows(), p.dimension())), Ok((8, 16)));
    assert_eq!(holding(17).err(), Some(Error::Room { have: 512, need: 1024 }));
    assert!(holding(usize::MAX).is_err());

    let packing = Packing::new(&parameters, 8, 8).unwrap();
    assert_eq!((packing.lanes(), packing.slot(3, 2, 5), packing.entry(171)), (8, 171, (3, 2, 5)));
}

#[test]
fn products_that_cannot_be_are_refused() {
    let parameters = parameters(10);
    let packing = Packing::new(&parameters, 4, 4).unwrap();
    let exhausted = |have, need| Some(Error::Scheme(ckks::Error::LevelsExhausted { have, need }));
    let mut keys = KeyRequests::new();
    assert_eq!(packing.required_keys(&parameters, 2, &mut keys).err(), exhausted(2, 3));
    packing.required_keys(&parameters, 3, &mut keys).unwrap();
    with_world(&parameters, packing, &keys, |w| {
        let evaluator = Evaluator::new(w.accelerator, w.parameters, &w.keys).unwrap();
        let (mut few, mut coefficients) = (vec![0.0; 1023], vec![0; 1024]);
        let refused = SlotMatrices::new(evaluator, packing, &w.encoder, &mut few, &mut coefficients);
        assert_eq!(refused.err(), Some(Error::Room { have: 1023, need: 1024 }));
        let a = dense(&packing, 1);
        let at = |level| w.encrypt(level, &a);
        w.serve(|m| {
            assert_eq!(m.multiply(&at(2), &at(2)).err(), exhausted(2, 3));
            assert_eq!(m.multiply(&at(3), &at(1)).err(), exhausted(1, 2));
            assert_eq!(m.skew_left(&at(0)).err(), exhausted(0, 1));
            let (left, right) = (m.skew_left(&at(2)).unwrap(), m.skew_right(&at(1)).unwrap());
            assert_eq!(m.multiply_skewed(&left, &right).err(), exhausted(1, 2));
            // Four columns back, the first turn of all, has a key for level 3 only.
            let id = KeyId::rotation(&parameters, packing.wrap());
            let missing = ckks::Error::MissingKey { id, level: 4 };
            assert_eq!(m.multiply(&at(4), &at(3)).err(), Some(Error::Scheme(missing)));
            let mut six = [const { None }; 6];
            let few = m.prepare(Factor::Right, 1, &a, &mut six);
            assert_eq!(few.err(), Some(Error::Room { have: 6, need: 7 }));
            let mut store = [const { None }; 4];
            let weights = m.prepare(Factor::Left, 2, &a, &mut store).unwrap();
            let below = Some(Error::Scheme(ckks::Error::Level { have: 1, need: 2 }));
            assert_eq!(m.multiply_plain(&weights, &at(1)).err(), below);
        });
    });
}
