//! Chebyshev interpolation and its oversampled form, the truncated Chebyshev series.

use super::{ApproxError, Approximation, Function, Interval, check};

/// Fits `function` on `interval` by a polynomial of degree `coefficients.len() − 1`, written into `coefficients`.
///
/// The discrete orthogonality of the Chebyshev polynomials on `samples` nodes gives
/// c_j = (2 − δ_j0)/samples · Σ_i f(x_i)·T_j(t_i), t_i = cos((i + ½)π/samples). With as many samples as coefficients
/// (the least; fewer are raised to it) this interpolates; with many it is the least-squares fit for the Chebyshev
/// weight. Both are within a small factor of the best possible for a smooth function.
pub fn fit<'a>(
    function: Function,
    interval: Interval,
    squarings: u32,
    samples: usize,
    coefficients: &'a mut [f64],
) -> Result<Approximation<'a>, ApproxError> {
    check(function, interval, squarings, coefficients.len())?;
    let samples = samples.max(coefficients.len());
    let shrink = libm::scalbn(1.0, -(squarings as i32));
    coefficients.fill(0.0);
    for i in 0..samples {
        let t = libm::cos((i as f64 + 0.5) * core::f64::consts::PI / samples as f64);
        let value = function.evaluate(interval.from_unit(t) * shrink) * 2.0 / samples as f64;
        let (mut current, mut next) = (1.0, t);
        for c in coefficients.iter_mut() {
            *c += value * current;
            (current, next) = (next, 2.0 * t * next - current);
        }
    }
    coefficients[0] *= 0.5;
    if matches!(function, Function::Tanh | Function::Sign) && interval.low() == -interval.high() {
        // An odd function's even coefficients are zero: exactly, so that nobody pays for rounding errors.
        coefficients.iter_mut().step_by(2).for_each(|c| *c = 0.0);
    }
    Approximation::new(function, interval, squarings, coefficients)
}
