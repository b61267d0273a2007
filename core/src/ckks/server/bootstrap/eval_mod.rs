//! x mod 1 near the integers, by a cosine and the double angle.

use super::{Bootstrap, DOUBLE_ANGLES, RANGE, SERIES_DEGREE, SHIFT};
use crate::accel::Accelerator;
use crate::ckks::{Ciphertext, Error, KeySource};
use core::f64::consts::PI;

/// Chebyshev coefficients of factor·sin(2π·RANGE·u/2^r), after which r double
/// angles give a sine again: odd ones only. Sampled at Chebyshev nodes; the
/// terms left out are below 2^−41.
fn sine_series(factor: f64) -> [f64; SERIES_DEGREE + 1] {
    const NODES: usize = 2 * (SERIES_DEGREE + 1);
    let bandwidth = 2.0 * PI * RANGE / (1 << DOUBLE_ANGLES) as f64;
    let mut series = [0.0; SERIES_DEGREE + 1];
    for j in 0..NODES {
        let angle = PI * (j as f64 + 0.5) / NODES as f64;
        let value = factor * libm::sin(bandwidth * libm::cos(angle)) / NODES as f64;
        for k in (1..=SERIES_DEGREE).step_by(2) {
            series[k] += 2.0 * value * libm::cos(k as f64 * angle);
        }
    }
    series
}

impl<A: Accelerator, K: KeySource<A> + ?Sized> Bootstrap<'_, A, K> {
    /// Slots (m + q_0·I)/(RANGE·q_0) at the working scale, m at its scale when
    /// it was raised, become m at the scale of level L.
    ///
    /// The series is an odd one, of sin((x − 1/4)·2π/2^r) with x = m/q_0 + I. Most
    /// x are small, and there an even one would suffer: noise of the argument's
    /// square is amplified by the slope against the square.
    ///
    /// The first double angle is γ' − d², d = γ·sin, the others d² − γ',
    /// d = γ·cos, γ' = γ²/2: no factor to be multiplied. The last γ is chosen so
    /// that the rescaled result is at the message's scale, which costs no level
    /// either. Without an arcsine it is a little larger than the slope at 0: sin t
    /// ≈ t − t³/6 is then as much too large inside as it is too small at the ends.
    ///
    /// # Errors
    /// [`Error::Level`] at another level than [`Bootstrap::coeff_to_slot`]'s.
    pub fn eval_mod(&self, x: Ciphertext<A>) -> Result<Ciphertext<A>, Error> {
        let ev = &self.evaluator;
        let need = self.plan.eval_mod_level();
        if x.level() != need {
            return Err(Error::Level { have: x.level(), need });
        }
        let gammas = self.gammas();
        let mut u = x;
        ev.add_constant_assign(&mut u, -SHIFT / RANGE)?;
        let mut y = ev.chebyshev(&u, &sine_series(gammas[0]))?;
        drop(u);
        for (i, next) in gammas[1..].iter().enumerate() {
            let mut square = ev.multiply(&y, &y)?;
            ev.add_constant_to_product(&mut square, -next)?;
            y = ev.rescale(square)?;
            if i == 0 {
                ev.negate_assign(&mut y)?;
            }
        }
        if self.plan.arcsine() { self.undo_sine(y) } else { Ok(y) }
    }

    /// y = sin(t·m)/t becomes m: arcsin(t·y)/t = y + t²y³/6 + 3t⁴y⁵/40 + …, the last
    /// term economised to a cubic with a sixteenth of its error.
    fn undo_sine(&self, y: Ciphertext<A>) -> Result<Ciphertext<A>, Error> {
        let (ev, t) = (&self.evaluator, self.angle());
        let fifth = 3.0 * libm::pow(t, 4.0) / 40.0;
        let (first, third) = (1.0 - fifth * 5.0 / 16.0, t * t / 6.0 + fifth * 5.0 / 4.0);
        let square = ev.multiply_rescale(&y, &y)?;
        let mut sum = ev.multiply(&square, &ev.multiply_constant(&y, third)?)?;
        drop(square);
        ev.multiply_constant_add(&mut sum, &y, first)?;
        ev.rescale(sum)
    }

    /// 2π/2^ratio: the argument of the last sine where m = 1.
    fn angle(&self) -> f64 {
        let q0 = self.evaluator.parameters.chain().moduli()[0].value() as f64;
        2.0 * PI * self.plan.message_scale(self.evaluator.parameters) / q0
    }

    /// γ before the first double angle, and after each.
    fn gammas(&self) -> [f64; DOUBLE_ANGLES + 1] {
        let (parameters, output) = (self.evaluator.parameters, self.plan.sine());
        let q = |level: usize| parameters.chain().moduli()[level].value() as f64;
        let working = parameters.scale(output + 1);
        let t = self.angle();
        let mut gammas = [0.0; DOUBLE_ANGLES + 1];
        // sin(t·m) ≈ t·m·(1 − t²/8) least in error up to m = 1, unless it is undone.
        // The last rescaling leaves scale S²/q.
        let slope = if self.plan.arcsine() { t } else { t * (1.0 - t * t / 8.0) };
        gammas[DOUBLE_ANGLES] = parameters.scale(output) * q(output + 1) / (slope * working * working);
        for i in (0..DOUBLE_ANGLES).rev() {
            gammas[i] = libm::sqrt(2.0 * gammas[i + 1]);
        }
        gammas
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_series_is_the_sine_wherever_a_coefficient_can_be() {
        let series = sine_series(1.0);
        let mut worst = 0.0f64;
        for step in -16 * 256..=16 * 256 {
            let x = step as f64 / 256.0;
            let u = (x - SHIFT) / RANGE;
            // Clenshaw's recurrence.
            let (mut next, mut after) = (0.0, 0.0);
            for &c in series[1..].iter().rev() {
                (next, after) = (2.0 * u * next - after + c, next);
            }
            let sine = u * next - after + series[0];
            let mut y = 1.0 - 2.0 * sine * sine;
            for _ in 1..DOUBLE_ANGLES {
                y = 2.0 * y * y - 1.0;
            }
            worst = worst.max((y - libm::sin(2.0 * PI * x)).abs() / (2.0 * PI));
        }
        assert!(libm::log2(worst) < -38.0, "{}", libm::log2(worst));
    }
}
