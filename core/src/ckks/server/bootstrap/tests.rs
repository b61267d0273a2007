extern crate std;
use super::*;
use crate::accel::{Portable, Trusted};
use crate::ckks::KeyId;
use crate::ckks::encoding::Complex;
use crate::ckks::server::FactorScratch;
use crate::ckks::server::tests::{Bench, with_keys};
use crate::ckks::{BootstrapLiteral, KeyRequest, Parameters, ParametersLiteral, SwitchingKey};
use crate::ring::bit_reverse;
use std::{vec, vec::Vec};

const LITERAL: ParametersLiteral = ParametersLiteral::INSECURE_TOY_BOOT;

fn keys(parameters: &Parameters, requests: &mut KeyRequests) {
    BootstrapPlan::new(parameters).unwrap().required_keys(parameters, requests).unwrap();
}

fn constants<A: Trusted>(bench: &Bench<'_, A>) -> Vec<A::Limb> {
    let plan = BootstrapPlan::new(bench.parameters).unwrap();
    let degree = bench.parameters.degree();
    let mut limbs: Vec<A::Limb> = (0..plan.limbs()).map(|_| bench.accelerator.allocate().unwrap()).collect();
    let (mut values, mut coefficients) = (vec![0.0; degree], vec![0; degree]);
    let (mut residues, mut gathered) = (vec![A::Word::default(); degree], vec![A::Word::default(); degree]);
    let scratch = FactorScratch {
        values: &mut values,
        coefficients: &mut coefficients,
        words: [&mut residues, &mut gathered],
    };
    plan.prepare(bench.accelerator, bench.parameters, &bench.encoder, scratch, &mut limbs).unwrap();
    limbs
}

type Machine<'t, 'm> = Portable<'t, 'm, u64, 8192>;
type Keys<'t, 'm> = [SwitchingKey<Machine<'t, 'm>>];

/// Runs `test` with a bootstrap on the reference accelerator.
fn with_bootstrap(
    test: impl for<'r, 'a, 't, 'm> FnOnce(
        &'r Bench<'r, Machine<'t, 'm>>,
        &'r Bootstrap<'r, Machine<'t, 'm>, Keys<'t, 'm>>,
    ),
) {
    with_keys::<8192>(LITERAL, 8192, keys, |bench| {
        let limbs = constants(bench);
        test(bench, &Bootstrap::new(bench.evaluator(), &limbs).unwrap());
    });
}

#[test]
fn slots_come_back_with_levels() {
    with_bootstrap(|bench, bootstrap| {
        let z = bench.slots(3);
        let floor = bootstrap.plan().floor();
        for level in [floor, floor + 2] {
            let x = bench.encrypt(&z, level);
            let y = bootstrap.refresh(&x).unwrap();
            assert_eq!(y.level(), bench.parameters.max_level());
            let stats = bench.bits(&y, |j| z[j]);
            assert!(stats.mean_bits > 22.0 && stats.min_bits > 18.5, "{stats}");
        }
    });
}

#[test]
fn slots_become_coefficients_and_back() {
    with_bootstrap(|bench, bootstrap| {
        let (z, n) = (bench.slots(4), bench.parameters.slots());
        let x = bench.encrypt(&z, bootstrap.plan().floor());
        let y = bootstrap.slot_to_coeff(&x).unwrap();
        let coefficients = coefficients(bench, &y);
        let scale = bootstrap.plan().message_scale(bench.parameters);
        let bits = n.trailing_zeros();
        let worst = (0..n)
            .map(|k| {
                let Complex { re, im } = z[bit_reverse(k, bits)];
                (coefficients[k] / scale - re).abs().max((coefficients[k + n] / scale - im).abs())
            })
            .fold(0.0, f64::max);
        assert!(worst < 2f64.powi(-24), "{worst}");
    });
}

/// Slots that are hard in some way.
fn adversarial(n: usize) -> [(&'static str, Vec<Complex>); 5] {
    let all = |f: &dyn Fn(usize) -> Complex| (0..n).map(f).collect::<Vec<_>>();
    let sign = |j: usize| if j.is_multiple_of(2) { 1.0 } else { -1.0 };
    [
        ("zeros", all(&|_| Complex::default())),
        ("ones", all(&|_| Complex::new(1.0, 1.0))),
        ("signs", all(&|j| Complex::new(sign(j), -sign(j / 2)))),
        ("one spike", all(&|j| if j == 5 { Complex::new(-1.0, 1.0) } else { Complex::default() })),
        ("one block", all(&|j| if j < n / 2 { Complex::new(1.0, -1.0) } else { Complex::default() })),
    ]
}

#[test]
fn extreme_slots_keep_their_precision() {
    with_bootstrap(|bench, bootstrap| {
        for (name, z) in adversarial(bench.parameters.slots()) {
            let y = bootstrap.refresh(&bench.encrypt(&z, bootstrap.plan().floor())).unwrap();
            let stats = bench.bits(&y, |j| z[j]);
            assert!(stats.mean_bits > 22.0 && stats.min_bits > 18.5, "{name}: {stats}");
        }
    });
}

#[test]
fn real_slots_take_half_the_work_to_the_same_end() {
    with_bootstrap(|bench, bootstrap| {
        let z: Vec<Complex> = bench.slots(6).into_iter().map(|z| Complex::new(z.re, 0.0)).collect();
        let x = bench.encrypt(&z, bootstrap.plan().floor());
        let y = bootstrap.refresh_real(&x).unwrap();
        assert_eq!(y.level(), bench.parameters.max_level());
        // What noise there is in the imaginary part is no part of the answer.
        let stats = bench.bits(&y, |j| z[j]);
        assert!(stats.mean_bits > 22.0 && stats.min_bits > 18.5, "{stats}");
        let other: Vec<Complex> = z.iter().rev().copied().collect();
        let [a, b] = bootstrap.refresh_pair(&x, &bench.encrypt(&other, 4)).unwrap();
        assert!(bench.bits(&a, |j| z[j]).min_bits > 18.5);
        assert!(bench.bits(&b, |j| other[j]).min_bits > 18.5);
        let [re, im] = bootstrap.refresh_parts(&x).unwrap();
        assert!(bench.bits(&re, |j| z[j]).min_bits > 18.5);
        assert!(bench.bits(&im, |_| Complex::default()).min_bits > 18.5);
    });
}

#[test]
fn two_real_vectors_are_one_for_a_while() {
    with_bootstrap(|bench, bootstrap| {
        let z = bench.slots(7);
        let [x, y] = [|z: Complex| z.re, |z: Complex| z.im].map(|part| {
            let part: Vec<Complex> = z.iter().map(|&z| Complex::new(part(z), 0.0)).collect();
            bench.encrypt(&part, bootstrap.plan().floor())
        });
        let pair = bootstrap.combine(&x, &y).unwrap();
        assert!(bench.bits(&pair, |j| z[j]).min_bits > 18.5);
        let [re, im] = bootstrap.apart(&pair).unwrap();
        assert!(bench.bits(&re, |j| Complex::new(2.0 * z[j].re, 0.0)).min_bits > 18.5);
        assert!(bench.bits(&im, |j| Complex::new(2.0 * z[j].im, 0.0)).min_bits > 18.5);
        let lower = bench.encrypt(&z, bootstrap.plan().floor() - 1);
        let refused = bootstrap.combine(&x, &lower).err();
        assert!(matches!(refused, Some(Error::Level { .. })), "{refused:?}");
    });
}

/// Decrypted coefficients.
fn coefficients<A: Trusted<Word = u64>>(bench: &Bench<'_, A>, x: &Ciphertext<A>) -> Vec<f64> {
    let degree = bench.parameters.degree();
    let (mut coefficients, mut words) = (vec![0.0; degree], vec![0; 2 * degree]);
    bench.secret.decrypt_coefficients(x, &mut words, &mut coefficients).unwrap();
    coefficients
}

#[test]
fn raising_adds_few_multiples_of_the_lowest_prime() {
    with_bootstrap(|bench, bootstrap| {
        let q0 = bench.parameters.chain().moduli()[0].value() as f64;
        let x = bootstrap.slot_to_coeff(&bench.encrypt(&bench.slots(7), 3)).unwrap();
        let y = bootstrap.raise(&x).unwrap();
        assert_eq!(y.level(), bench.parameters.top_level());
        let mut largest = 0.0f64;
        for (before, after) in coefficients(bench, &x).into_iter().zip(coefficients(bench, &y)) {
            let multiple = ((after - before) / q0).round();
            largest = largest.max(multiple.abs());
            assert!((after - before - multiple * q0).abs() < 4096.0, "noise of the two switches");
        }
        // A sum of 33 uniform numbers: 16 never, 2 almost certainly in so many.
        assert!((2.0..=16.0).contains(&largest), "{largest}");
        assert_eq!(bootstrap.raise(&y).err(), Some(Error::Level { have: y.level(), need: 0 }));
    });
}

#[test]
fn coefficients_come_into_slots() {
    with_bootstrap(|bench, bootstrap| {
        let (n, parameters) = (bench.parameters.slots(), bench.parameters);
        let q0 = parameters.chain().moduli()[0].value() as f64;
        let raised = bootstrap.raise(&bootstrap.slot_to_coeff(&bench.encrypt(&bench.slots(8), 2)).unwrap());
        let raised = raised.unwrap();
        let t = coefficients(bench, &raised);
        let [re, im] = bootstrap.coeff_to_slot(raised).unwrap();
        let bits = n.trailing_zeros();
        for (part, first) in [(re, 0), (im, n)] {
            let slot = |j: usize| t[first + bit_reverse(j, bits)] / (RANGE * q0);
            let stats = bench.bits(&part, |j| Complex::new(slot(j), 0.0));
            assert!(stats.min_bits > 30.0, "{stats}");
        }
    });
}

#[test]
fn multiples_are_taken_away() {
    with_bootstrap(|bench, bootstrap| {
        let level = bootstrap.plan().eval_mod_level();
        let ratio = 1.0 / (1 << LITERAL.bootstrap.unwrap().ratio_bits) as f64;
        let m = bench.slots(9);
        let multiple = |j: usize| (j % 33) as f64 - 16.0;
        let x: Vec<Complex> = m
            .iter()
            .enumerate()
            .map(|(j, m)| Complex::new((m.re * ratio + multiple(j)) / RANGE, 0.0))
            .collect();
        let y = bootstrap.eval_mod(bench.encrypt_secretly(&x, level)).unwrap();
        let stats = bench.bits(&y, |j| Complex::new(m[j].re, 0.0));
        assert!(stats.mean_bits > 22.0 && stats.min_bits > 18.5, "{stats}");
    });
}

#[test]
fn coefficients_can_be_worked_on_before_they_are_raised() {
    let bootstrap = BootstrapLiteral { coefficient_level: 3, ..LITERAL.bootstrap.unwrap() };
    let literal = ParametersLiteral { bootstrap: Some(bootstrap), ..LITERAL };
    with_keys::<8192>(literal, 8192, keys, |bench| {
        let limbs = constants(bench);
        let bootstrap = Bootstrap::new(bench.evaluator(), &limbs).unwrap();
        assert_eq!((bootstrap.plan().floor(), bootstrap.plan().coefficient_level()), (5, 3));
        let z = bench.slots(11);
        let mut x = bootstrap.slot_to_coeff(&bench.encrypt(&z, 6)).unwrap();
        assert_eq!(x.level(), 3);
        // −m, where three more primes are at hand.
        bench.evaluator().negate_assign(&mut x).unwrap();
        let [re, im] = bootstrap.refresh_coefficients(&x).unwrap();
        let stats = bench.bits(&re, |j| Complex::new(-z[j].re, 0.0));
        assert!(stats.min_bits > 18.5, "{stats}");
        let stats = bench.bits(&im, |j| Complex::new(-z[j].im, 0.0));
        assert!(stats.min_bits > 18.5, "{stats}");
    });
}

#[test]
fn wide_and_precise_bootstraps_correct_themselves() {
    with_bootstrap(|bench, bootstrap| {
        let floor = bootstrap.plan().floor();
        let z = bench.slots(10);
        for bits in [0, 7, MAX_RANGE_BITS] {
            let factor = (1u32 << bits) as f64;
            let wide: Vec<Complex> = z.iter().map(|z| Complex::new(z.re * factor, z.im * factor)).collect();
            let y = bootstrap.refresh_wide(&bench.encrypt(&wide, floor + 1), bits).unwrap();
            let stats = bench.bits(&y, |j| wide[j]);
            assert!(stats.mean_bits > 17.0 && stats.min_bits > 15.0, "2^{bits}: {stats}");
        }
        let y = bootstrap.refresh_precise(&bench.encrypt(&z, floor)).unwrap();
        assert_eq!(y.level(), bench.parameters.max_level() - 1);
        let stats = bench.bits(&y, |j| z[j]);
        assert!(stats.mean_bits > 25.0 && stats.min_bits > 22.0, "{stats}");

        let low = bench.encrypt(&z, floor);
        let exhausted = Error::LevelsExhausted { have: floor, need: floor + 1 };
        assert_eq!(bootstrap.refresh_wide(&low, 3).err(), Some(exhausted));
        assert!(matches!(bootstrap.refresh_wide(&low, 21), Err(Error::Parameter { given: 21, .. })));
        let lower = bench.encrypt(&z, floor - 1);
        let exhausted = Error::LevelsExhausted { have: floor - 1, need: floor };
        assert_eq!(bootstrap.refresh(&lower).err(), Some(exhausted));
    });
}

#[test]
fn a_missing_or_low_key_is_named_before_any_work() {
    for missing in [0, 5, usize::MAX] {
        let request = move |parameters: &Parameters, requests: &mut KeyRequests| {
            let mut all = KeyRequests::new();
            keys(parameters, &mut all);
            let last = all.len() - 1;
            for (i, request) in all.iter().enumerate() {
                if i == missing.min(last) {
                    // Too low, where there is a lower level.
                    if request.level > 0 && missing == 5 {
                        requests.add(request.id, request.level - 1).unwrap();
                    }
                    continue;
                }
                requests.add(request.id, request.level).unwrap();
            }
        };
        with_keys::<8192>(LITERAL, 8192, request, |bench| {
            let limbs = constants(bench);
            let mut all = KeyRequests::new();
            keys(bench.parameters, &mut all);
            let KeyRequest { id, level } = *all.iter().nth(missing.min(all.len() - 1)).unwrap();
            let error = Bootstrap::new(bench.evaluator(), &limbs).err();
            assert_eq!(error, Some(Error::MissingKey { id, level }));
            let short = Bootstrap::new(bench.evaluator(), &limbs[1..]).err();
            assert_eq!(short, Some(Error::Length { have: limbs.len() - 1, need: limbs.len() }));
        });
    }
}

#[test]
fn the_ephemeral_secret_is_used_at_the_bottom_only() {
    with_bootstrap(|bench, _| {
        let degree = bench.parameters.degree();
        let (mut signed, mut words) = (vec![0; degree], vec![0; degree]);
        let id = KeyId::DenseToSparse;
        for level in 1..=bench.parameters.top_level() {
            let key = bench.secret.switching_key(id, level, &mut signed, &mut words);
            assert_eq!(key.err(), Some(Error::MissingKey { id, level }));
        }
        let key = bench.secret.switching_key(id, 0, &mut signed, &mut words).unwrap();
        let basis = key.digits()[0][0].basis();
        assert_eq!((key.digits().len(), basis), (1, Basis::new(0, 1, 1)));
    });
    for (name, literal) in ParametersLiteral::NAMED {
        let (Some(bootstrap), false) = (literal.bootstrap, literal.check().unwrap().is_insecure()) else {
            continue;
        };
        let cap = crate::ckks::max_log_q_sparse(literal.log_degree, bootstrap.ephemeral_weight).unwrap();
        assert!(literal.base_bits + literal.special_bits <= cap, "{name}");
    }
    let weak = BootstrapLiteral { ephemeral_weight: 16, ..ParametersLiteral::N16_BOOT.bootstrap.unwrap() };
    let weak = ParametersLiteral { bootstrap: Some(weak), ..ParametersLiteral::N16_BOOT };
    assert_eq!(weak.check().err(), Some(Error::Insecure { log_degree: 16, log_qp: 100, cap: 0 }));
}

#[test]
fn parameters_without_bootstrapping_have_no_plan() {
    let parameters = ParametersLiteral::INSECURE_TOY.check().unwrap();
    assert!(matches!(BootstrapPlan::new(&parameters), Err(Error::NoBootstrap)));
    let plan = BootstrapPlan::new(&LITERAL.check().unwrap()).unwrap();
    assert_eq!((plan.failure_log2(), plan.floor(), plan.output()), (f64::NEG_INFINITY, 2, 14));
}
