//! Parameters without any security, small enough to try everything.

use super::world::{Setup, World, plus, slots, times, with_world};
use proptest::prelude::*;
use veilformer::accel;
use veilformer::ckks::encoding::Complex;
use veilformer::ckks::server::{BabyGiant, DiagonalSource, Evaluator, chebyshev_depth};
use veilformer::ckks::{Ciphertext, Error, KeyId, KeyRequests, Parameters, ParametersLiteral, Plaintext};
use veilformer_multicore::Multicore;
use veilformer_multicore::kernels::{Kernels, Path};

const TOY: ParametersLiteral = ParametersLiteral::INSECURE_TOY;
const STEPS: [i64; 7] = [1, -1, 2, 8, 31, 256, -100];

fn some_keys(parameters: &Parameters, keys: &mut KeyRequests) {
    let top = parameters.max_level();
    keys.add(KeyId::Relinearization, top).unwrap();
    keys.add(KeyId::conjugation(parameters), top).unwrap();
    for steps in STEPS {
        keys.add(KeyId::rotation(parameters, steps), top).unwrap();
    }
}

#[test]
fn fresh_ciphertexts_at_every_level() {
    with_world(
        Setup::of(TOY),
        |_, _| {},
        |w| {
            for level in 0..=w.parameters.max_level() {
                let u = slots(w.parameters.slots(), level as u64);
                w.check("fresh", &w.encrypt(&u, level), 4.0, |j| u[j]);
            }
        },
    );
}

#[test]
fn rotations_and_conjugation_at_every_level() {
    with_world(Setup::of(TOY), some_keys, |w| {
        let (s, n) = (w.server(), w.parameters.slots() as i64);
        for level in 0..=w.parameters.max_level() {
            let u = slots(n as usize, 7);
            let x = w.encrypt(&u, level);
            let hoisted = s.hoist(&x).unwrap();
            for steps in STEPS {
                let moved = |j: usize| u[(j as i64 + steps).rem_euclid(n) as usize];
                w.check("rotate", &s.rotate(&x, steps).unwrap(), 5.0, moved);
                w.check("rotate hoisted", &s.rotate_hoisted(&hoisted, steps).unwrap(), 5.0, moved);
                // Any number of turns is the same rotation.
                w.check("rotate", &s.rotate(&x, steps - 3 * n).unwrap(), 5.0, moved);
            }
            w.check("no rotation", &s.rotate(&x, 0).unwrap(), 5.0, |j| u[j]);
            w.check("conjugate", &s.conjugate(&x).unwrap(), 5.0, |j| Complex::new(u[j].re, -u[j].im));
        }
    });
}

#[test]
fn products_down_to_the_last_level() {
    with_world(Setup::of(TOY), some_keys, |w| {
        let s = w.server();
        let u: Vec<Complex> = slots(w.parameters.slots(), 9);
        // Unit circle: the product of any number of them stays on it.
        let u: Vec<Complex> = u.iter().map(|z| Complex::new(z.re.cos(), z.re.sin())).collect();
        let (mut x, mut expected) = (w.encrypt(&u, w.parameters.max_level()), u.clone());
        while x.level() > 0 {
            let factor = w.encrypt(&u, x.level());
            x = s.multiply_rescale(&x, &factor).unwrap();
            expected = expected.iter().zip(&u).map(|(&e, &u)| times(e, u)).collect();
            w.check("product", &x, 6.0, |j| expected[j]);
        }
        assert_eq!(s.multiply(&x, &x).err(), Some(Error::LevelsExhausted { have: 0, need: 1 }));
    });
}

#[test]
fn dropping_levels_changes_nothing() {
    with_world(
        Setup::of(TOY),
        |_, _| {},
        |w| {
            let (s, u) = (w.server(), slots(w.parameters.slots(), 11));
            for from in 0..=w.parameters.max_level() {
                let x = w.encrypt(&u, from);
                for to in 0..=from {
                    let dropped = s.drop_to(&x, to).unwrap();
                    assert_eq!(dropped.level(), to);
                    w.check("drop", &dropped, 5.0, |j| u[j]);
                }
                let above = Some(Error::Level { have: from, need: from + 1 });
                assert_eq!(s.drop_to(&x, from + 1).err(), above);
            }
        },
    );
}

/// A matrix by its diagonals; some are zero and left out.
struct Diagonals<'w, 'a>(&'w World<'a>);

fn entry(giant: usize, baby: usize, slot: usize) -> Option<f64> {
    let zero = (giant + baby) % 4 == 3;
    (!zero).then(|| ((giant * 7 + baby * 5 + slot * 13) % 31) as f64 / 31.0 - 0.5)
}

impl DiagonalSource<Multicore> for Diagonals<'_, '_> {
    fn diagonal(
        &mut self,
        giant: usize,
        baby: usize,
        level: usize,
    ) -> Result<Option<Plaintext<Multicore>>, Error> {
        let (w, n) = (self.0, self.0.parameters.slots());
        let values: Option<Vec<Complex>> =
            (0..n).map(|j| entry(giant, baby, j).map(|x| Complex::new(x, 0.0))).collect();
        Ok(values.map(|v| w.encode(&v, w.parameters.key_basis(level), w.parameters.scale(level))))
    }
}

#[test]
fn transforms_at_every_level() {
    const PLAN: BabyGiant<'_> = BabyGiant { baby: &[0, 1, 2, 3], giant: &[0, 4, 8, -4] };
    let keys = |p: &Parameters, keys: &mut KeyRequests| PLAN.required_keys(p, p.max_level(), keys).unwrap();
    with_world(Setup::of(TOY), keys, |w| {
        let (s, n) = (w.server(), w.parameters.slots());
        let u = slots(n, 13);
        let at = |j: i64| j.rem_euclid(n as i64) as usize;
        for level in 1..=w.parameters.max_level() {
            let y = s.transform(&w.encrypt(&u, level), PLAN, &mut Diagonals(w)).unwrap();
            assert_eq!(y.level(), level - 1);
            w.check("transform", &y, 5.0, |j| {
                let mut sum = Complex::default();
                for (g, &giant) in PLAN.giant.iter().enumerate() {
                    for (b, &baby) in PLAN.baby.iter().enumerate() {
                        let row = at(j as i64 + giant);
                        let factor = Complex::new(entry(g, b, row).unwrap_or(0.0), 0.0);
                        sum = plus(sum, times(factor, u[at(row as i64 + baby)]));
                    }
                }
                sum
            });
        }
        let none = Evaluator::new(w.accelerator, w.parameters, &w.keys[..1]).unwrap();
        let missing = none.transform(&w.encrypt(&u, 2), PLAN, &mut Diagonals(w)).err();
        assert!(matches!(missing, Some(Error::MissingKey { level: 2, .. })), "{missing:?}");
    });
}

#[test]
fn chebyshev_series_of_every_depth() {
    with_world(Setup::of(TOY), some_keys, |w| {
        let s = w.server();
        let u: Vec<Complex> =
            slots(w.parameters.slots(), 17).iter().map(|z| Complex::new(z.re, 0.0)).collect();
        let top = w.parameters.max_level();
        let x = w.encrypt(&u, top);
        for degree in [1, 2, 3, 4, 6, 7, 11, 15, 16, 23, 31, 40, 63, 100, 127] {
            // exp(x) to this degree: Chebyshev coefficients fall fast, the last ones are mere padding.
            let c: Vec<f64> = (0..=degree).map(|i| 0.5 / (1.0 + (i * i) as f64)).collect();
            let y = s.chebyshev(&x, &c).unwrap();
            assert_eq!(top - y.level(), chebyshev_depth(degree));
            // Where |T_n'| is largest, n², the argument's error grows with it.
            w.check(&format!("degree {degree}"), &y, 6.0 + 2.0 * (degree as f64).log2(), |j| {
                let angle = u[j].re.acos();
                Complex::new(c.iter().enumerate().map(|(i, c)| c * (i as f64 * angle).cos()).sum(), 0.0)
            });
        }
        let low = w.encrypt(&u, 3);
        assert_eq!(s.chebyshev(&low, &[1.0; 9]).err(), Some(Error::LevelsExhausted { have: 3, need: 4 }));
        assert_eq!(s.chebyshev(&x, &[]).err(), Some(Error::Length { have: 0, need: 128 }));
        assert_eq!(s.chebyshev(&x, &[1.0; 129]).err(), Some(Error::Length { have: 129, need: 128 }));
    });
}

#[test]
fn errors_say_what_is_missing() {
    with_world(
        Setup::of(TOY),
        |_, keys| keys.add(KeyId::Relinearization, 3).unwrap(),
        |w| {
            let (s, u) = (w.server(), slots(w.parameters.slots(), 19));
            let (x, y) = (w.encrypt(&u, 5), w.encrypt(&u, 3));
            let missing = |id, level| Some(Error::MissingKey { id, level });
            assert_eq!(s.rotate(&x, 3).err(), missing(KeyId::rotation(w.parameters, 3), 5));
            assert_eq!(s.conjugate(&y).err(), missing(KeyId::conjugation(w.parameters), 3));
            // There is a key, but not for this level.
            assert_eq!(s.multiply_rescale(&x, &x).err(), missing(KeyId::Relinearization, 5));
            assert!(s.multiply_rescale(&y, &y).is_ok());
            assert_eq!(s.multiply(&x, &y).err(), Some(Error::Level { have: 3, need: 5 }));
            let mut sum = w.encrypt(&u, 5);
            assert_eq!(s.add_assign(&mut sum, &y).err(), Some(Error::Level { have: 3, need: 5 }));
            assert!(matches!(s.add_constant_assign(&mut sum, f64::NAN), Err(Error::NotEncodable { .. })));
            assert!(matches!(s.multiply_constant(&x, 1e300), Err(Error::NotEncodable { .. })));
            let other = ParametersLiteral { levels: 6, ..TOY }.check().unwrap();
            assert_eq!(Evaluator::new(w.accelerator, &other, w.keys).err(), Some(Error::OtherChain));
        },
    );
}

/// A program with as many limbs as it needs runs; with one less it ends in an error that says so.
#[test]
fn one_limb_less_than_needed() {
    let run = |limbs| {
        with_world(Setup { limbs, threads: 1, ..Setup::of(TOY) }, some_keys, |w| {
            let (s, u) = (w.server(), slots(w.parameters.slots(), 23));
            let x = w.encrypt(&u, w.parameters.max_level());
            let y = s.multiply_rescale(&x, &x).and_then(|y| s.rotate(&y, 1));
            (y.map(|y| y.level()), w.accelerator.peak_limbs())
        })
    };
    let (result, peak) = run(4096);
    assert_eq!(result, Ok(TOY.levels as usize - 1));
    assert_eq!(run(peak), (result, peak));
    let (result, _) = run(peak - 1);
    assert_eq!(result, Err(Error::Accelerator(accel::Error::OutOfLimbs { capacity: peak - 1 })));
}

fn program(w: &World<'_>) -> Ciphertext<Multicore> {
    let (s, top) = (w.server(), w.parameters.max_level());
    let (x, y) =
        (w.encrypt(&slots(w.parameters.slots(), 1), top), w.encrypt(&slots(w.parameters.slots(), 2), top));
    let z = s.multiply_rescale(&x, &y).unwrap();
    let mut z = s.rotate(&z, 8).unwrap();
    let conjugate = s.conjugate(&z).unwrap();
    s.add_assign(&mut z, &conjugate).unwrap();
    s.chebyshev(&z, &[0.1, 0.2, 0.3, -0.1, 0.05]).unwrap()
}

#[test]
fn the_same_bits_on_any_path_and_any_number_of_threads() {
    let run = |path, threads| {
        let setup = Setup { kernels: Kernels::new(path).unwrap(), threads, ..Setup::of(TOY) };
        with_world(setup, some_keys, |w| w.words(&program(w)))
    };
    let expected = run(Path::Scalar, 1);
    for path in Path::available() {
        for threads in [1, 2, 4] {
            assert!(run(path, threads) == expected, "{path} on {threads} threads");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    /// (u + a)·v + b·w̄ on ciphertexts is what it is on numbers.
    #[test]
    fn expressions_are_homomorphic(seed in any::<u64>(), level in 1usize..8, a in -2.0..2.0f64, b in -2.0..2.0f64) {
        with_world(Setup::of(TOY), some_keys, |w| {
            let (s, n) = (w.server(), w.parameters.slots());
            let [u, v, z] = [1, 2, 3].map(|i| slots(n, seed ^ i));
            let (mut x, y, c) = (w.encrypt(&u, level), w.encrypt(&v, level), w.encrypt(&z, level));
            s.add_constant_assign(&mut x, a).unwrap();
            let mut product = s.multiply(&x, &y).unwrap();
            s.multiply_constant_add(&mut product, &s.conjugate(&c).unwrap(), b).unwrap();
            let result = s.rescale(product).unwrap();
            w.check("expression", &result, 7.0, |j| {
                let first = times(Complex::new(u[j].re + a, u[j].im), v[j]);
                plus(first, Complex::new(b * z[j].re, -b * z[j].im))
            });
        });
    }
}
