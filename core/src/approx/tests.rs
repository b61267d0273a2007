extern crate std;

use super::*;
use proptest::prelude::*;
use std::vec::Vec;

fn fitted(function: Function, low: f64, high: f64, squarings: u32, degree: usize) -> (Vec<f64>, Interval) {
    let interval = Interval::new(low, high).unwrap();
    let mut c = std::vec![0.0; degree + 1];
    fit(function, interval, squarings, 0, &mut c).unwrap();
    (c, interval)
}

/// The naive oracle: T_j(t) = cos(j·arccos t).
fn by_cosines(coefficients: &[f64], t: f64) -> f64 {
    coefficients.iter().enumerate().map(|(j, c)| c * (j as f64 * t.acos()).cos()).sum()
}

proptest! {
    #[test]
    fn clenshaw_is_the_sum_of_chebyshev_polynomials(
        c in prop::collection::vec(-1.0..1.0f64, 1..64), t in -1.0..1.0f64
    ) {
        prop_assert!((clenshaw(&c, t) - by_cosines(&c, t)).abs() < 1e-11);
    }

    #[test]
    fn slope_is_the_limit_of_difference_quotients(
        c in prop::collection::vec(-1.0..1.0f64, 1..12), x in -2.9..4.9f64
    ) {
        let interval = Interval::new(-3.0, 5.0).unwrap();
        let p = Approximation::new(Function::Exp, interval, 1, &c).unwrap();
        let quotient = (p.evaluate(x + 1e-6) - p.evaluate(x - 1e-6)) / 2e-6;
        prop_assert!((p.slope(x) - quotient).abs() < 1e-4 * (1.0 + quotient.abs()));
    }

    #[test]
    fn the_derivatives_coefficients_give_the_slope(
        c in prop::collection::vec(-1.0..1.0f64, 0..40), t in -1.0..1.0f64
    ) {
        let mut d = std::vec![9.0; c.len() + 1];
        derivative(&c, &mut d);
        let slope = clenshaw_with_slope(&c, t).1;
        prop_assert!((clenshaw(&d, t) - slope).abs() < 1e-10 * (1.0 + slope.abs()));
    }

    #[test]
    fn unit_maps_are_inverse(low in -9.0..0.0f64, width in 0.1..20.0f64, t in -1.0..1.0f64) {
        let interval = Interval::new(low, low + width).unwrap();
        prop_assert!((interval.to_unit(interval.from_unit(t)) - t).abs() < 1e-10);
    }
}

#[test]
fn interpolation_reproduces_the_nodes() {
    let (c, interval) = fitted(Function::Tanh, -4.0, 4.0, 0, 15);
    for i in 0..16 {
        let t = ((i as f64 + 0.5) * std::f64::consts::PI / 16.0).cos();
        assert!((clenshaw(&c, t) - interval.from_unit(t).tanh()).abs() < 1e-13);
    }
    assert!(c.iter().step_by(2).all(|&even| even == 0.0));
}

#[test]
fn errors_follow_theory() {
    // Error rate of 1/√x: ((√κ − 1)/(√κ + 1))^degree; κ = 16, degree 31 is about 2^−23.
    let (c, interval) = fitted(Function::InverseSqrt, 1.0, 16.0, 0, 31);
    let p = Approximation::new(Function::InverseSqrt, interval, 0, &c).unwrap();
    assert!(p.measure(4001).worst_bits() > 21.0);
    assert_eq!(p.depth(), 5);
    // Squarings multiply the error by at most 2^s and the range by 2^s.
    let (c, interval) = fitted(Function::Exp, -16.0, 0.0, 3, 7);
    let p = Approximation::new(Function::Exp, interval, 3, &c).unwrap();
    assert!(p.measure(4001).worst < 1e-6);
    assert_eq!(p.depth(), 6);
    // |x| has a corner: the error only falls like 1/degree.
    let (c, interval) = fitted(Function::Relu, -1.0, 1.0, 0, 14);
    let worst = Approximation::new(Function::Relu, interval, 0, &c).unwrap().measure(4001).worst;
    assert!(worst > 0.28 / 28.0 && worst < 0.05);
}

/// PAPER.md, tables 13–14: functions, intervals and degrees of loss and head, and the worst error there in bits.
/// Interpolation, on the whole interval, is within a bit of them or better.
#[test]
fn loss_and_head_have_the_papers_precision() {
    for (function, low, high, degree, bits) in [
        (Function::Exp, -2.0, 2.0, 15, 21.2),
        (Function::Exp, -13.0, 1.0, 15, 21.2),
        (Function::Inverse, 0.04, 1.0, 63, 19.8),
        (Function::Inverse, 0.8, 3.0, 15, 23.7),
        (Function::Tanh, -5.0, 5.0, 63, 24.7),
        (Function::Tanh, -16.0, 16.0, 127, 18.6),
    ] {
        let (c, interval) = fitted(function, low, high, 0, degree);
        let reached = Approximation::new(function, interval, 0, &c).unwrap().measure(20_001).worst_bits();
        assert!(reached > bits - 1.0, "{function:?} on [{low}, {high}]: {reached} bits, not {bits}");
    }
}

#[test]
fn oversampling_gives_the_truncated_series() {
    // |x| = 2/π + (4/π)·Σ (−1)^(k+1)/(4k² − 1)·T_2k, and ReLU = (x + |x|)/2.
    let interval = Interval::new(-1.0, 1.0).unwrap();
    let mut c = [0.0; 8];
    fit(Function::Relu, interval, 0, 100_000, &mut c).unwrap();
    assert!((c[0] - std::f64::consts::FRAC_1_PI).abs() < 1e-6);
    assert!((c[1] - 0.5).abs() < 1e-6);
    assert!((c[2] - 2.0 / (3.0 * std::f64::consts::PI)).abs() < 1e-6);
    assert!(c[3].abs() < 1e-6);
}

#[test]
fn what_cannot_be_used_is_refused() {
    assert!(matches!(Interval::new(1.0, 1.0), Err(ApproxError::Interval { .. })));
    assert!(matches!(Interval::new(f64::NAN, 1.0), Err(ApproxError::Interval { .. })));
    let i = Interval::new(-1.0, 1.0).unwrap();
    let mut c = [0.0; 4];
    assert!(matches!(fit(Function::InverseSqrt, i, 0, 0, &mut c), Err(ApproxError::Domain { .. })));
    assert_eq!(fit(Function::Relu, i, 1, 0, &mut c), Err(ApproxError::Squarings { given: 1 }));
    assert_eq!(fit(Function::Exp, i, 0, 0, &mut []), Err(ApproxError::Coefficients { given: 0 }));
    let bad = [0.0, f64::INFINITY];
    assert_eq!(Approximation::new(Function::Exp, i, 0, &bad), Err(ApproxError::NotFinite { index: 1 }));
    assert_eq!(
        Approximation::new(Function::Exp, i, 0, &[0.0; 257]),
        Err(ApproxError::Coefficients { given: 257 })
    );
}
