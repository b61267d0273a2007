extern crate std;
use super::constants::ConstantScratch;
use super::*;
use crate::accel::{Portable, Trusted};
use crate::ckks::encoding::Complex;
use crate::ckks::server::tests::{Bench, with_keys};
use crate::ckks::{Parameters, ParametersLiteral, SwitchingKey};
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
    let scratch = ConstantScratch {
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
            std::println!("{stats}");
            assert!(stats.mean_bits > 18.0 && stats.min_bits > 15.0, "{stats}");
        }
    });
}

#[test]
fn slots_become_coefficients_and_back() {
    with_bootstrap(|bench, bootstrap| {
        let (z, n) = (bench.slots(4), bench.parameters.slots());
        let x = bench.encrypt(&z, bootstrap.plan().floor());
        let y = bootstrap.slot_to_coeff(&x).unwrap();
        let degree = bench.parameters.degree();
        let (mut coefficients, mut words) = (vec![0.0; degree], vec![0; 2 * degree]);
        bench.secret.decrypt_coefficients(&y, &mut words, &mut coefficients).unwrap();
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
