//! x mod 1 near the integers, by a cosine and the double angle.

use super::{Bootstrap, DOUBLE_ANGLES};
use crate::accel::Accelerator;
use crate::ckks::{Ciphertext, Error, KeySource};
use core::f64::consts::PI;

/// Chebyshev coefficients of cos(2π(K·u − 1/4)/8), K = 16 + 1/64, least in
/// error where K·u is within 2^−8 of an integer: 2^−36.2. After three double
/// angles sin(2πK·u)/2π is off by 2^−33.5. Made by `cosine_series` of the
/// plain host.
const SERIES: [f64; 32] = [
    0.1563282890634738,
    -0.059477775822065954,
    0.3601998599402578,
    -0.03669369326545358,
    0.4481926560935234,
    0.020006264739866712,
    0.36823308592805304,
    0.08988291335150057,
    -0.13469931669990315,
    0.05580183018749699,
    -0.5361437026012453,
    -0.11376434289434242,
    0.46416324375325646,
    0.0623967520444272,
    -0.18423192853419737,
    -0.019177095111907745,
    0.045704890096550134,
    0.00395104208047679,
    -0.007985308780472041,
    -0.0005948827616415383,
    0.0010495094986028332,
    6.897387461246092e-05,
    -0.00010830337265647569,
    -6.382948687873111e-06,
    9.046641533165534e-06,
    4.840305216752149e-07,
    -6.262655923780502e-07,
    -3.070840727316821e-08,
    3.6230207889342836e-08,
    1.6418855008119512e-09,
    -2.027894317746526e-09,
    -8.515083908092777e-11,
];

impl<A: Accelerator, K: KeySource<A> + ?Sized> Bootstrap<'_, A, K> {
    /// Slots (m + q_0·I)/(K·q_0) at the working scale, m at its scale when it
    /// was raised, become m at the scale of level L.
    ///
    /// With d = γ·cos and γ' = γ²/2 the double angle is d' = d² − γ', no factor
    /// to be multiplied. The last γ is chosen so that the rescaled result is at
    /// the message's scale, which costs no level either.
    ///
    /// # Errors
    /// [`Error::Level`] at another level than [`Bootstrap::coeff_to_slot`]'s.
    pub fn eval_mod(&self, x: Ciphertext<A>) -> Result<Ciphertext<A>, Error> {
        let (ev, output) = (&self.evaluator, self.plan.output());
        let need = output + super::BOOTSTRAP_DEPTH as usize;
        if x.level() != need {
            return Err(Error::Level { have: x.level(), need });
        }
        let gammas = self.gammas();
        let series = SERIES.map(|c| gammas[0] * c);
        let mut y = ev.chebyshev(&x, &series)?;
        drop(x);
        for next in &gammas[1..] {
            let mut square = ev.multiply(&y, &y)?;
            ev.add_constant_to_product(&mut square, -next)?;
            y = ev.rescale(square)?;
        }
        Ok(y)
    }

    /// γ before the first double angle, and after each.
    fn gammas(&self) -> [f64; DOUBLE_ANGLES + 1] {
        let (parameters, output) = (self.evaluator.parameters, self.plan.output());
        let q = |level: usize| parameters.chain().moduli()[level].value() as f64;
        let working = parameters.scale(output + 1);
        let ratio = self.plan.message_scale(parameters) / q(0);
        let mut gammas = [0.0; DOUBLE_ANGLES + 1];
        // sin(2π·m·ratio) ≈ 2π·ratio·m, at scale S²/q after the last rescaling.
        gammas[DOUBLE_ANGLES] =
            parameters.scale(output) * q(output + 1) / (2.0 * PI * ratio * working * working);
        for i in (0..DOUBLE_ANGLES).rev() {
            gammas[i] = libm::sqrt(2.0 * gammas[i + 1]);
        }
        gammas
    }
}

#[cfg(test)]
mod tests {
    use super::super::RANGE;
    use super::*;

    #[test]
    fn the_series_is_the_sine_near_the_integers() {
        let mut worst = 0.0f64;
        for integer in -16..=16 {
            for step in -16..=16 {
                let x = integer as f64 + step as f64 / 4096.0;
                let u = x / RANGE;
                // Clenshaw's recurrence.
                let (mut next, mut after) = (0.0, 0.0);
                for &c in SERIES[1..].iter().rev() {
                    (next, after) = (2.0 * u * next - after + c, next);
                }
                let mut y = u * next - after + SERIES[0];
                for _ in 0..DOUBLE_ANGLES {
                    y = 2.0 * y * y - 1.0;
                }
                worst = worst.max((y - libm::sin(2.0 * PI * x)).abs() / (2.0 * PI));
            }
        }
        assert!(libm::log2(worst) < -33.3, "{}", libm::log2(worst));
    }
}
