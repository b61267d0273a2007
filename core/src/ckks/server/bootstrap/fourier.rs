//! The canonical embedding as a product of sparse matrices.
//!
//! The transform between slots and coefficients is log2 n butterfly layers
//! ([`crate::ckks::encoding`]). Some neighbouring layers together are one
//! stage: a matrix with few diagonals, which one baby-step giant-step product
//! applies in one level (Chen, Chillotti, Song, EUROCRYPT 2019; Cheon, Han,
//! Hhan 2019). The bit reversal is left out: slot brv(k) holds the coefficients
//! k and k + n, n = N/2, as its real and imaginary part.

use crate::ckks::Error;
use crate::ckks::encoding::Complex;
use crate::ckks::server::Turns;

/// From slots to coefficients or back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// w ↦ the slots of the polynomial with coefficients w.
    SlotToCoeff,
    /// The inverse.
    CoeffToSlot,
}

/// Some neighbouring layers as one matrix: layer t joins indices that differ in bit t.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Stage {
    pub(super) direction: Direction,
    pub(super) level: usize,
    /// Scale of the encoded factors.
    pub(super) scale: f64,
    pub(super) turns: Turns,
}

impl Stage {
    /// Stage `index` of `of`. The layers are shared out evenly; CoeffToSlot takes
    /// them from the largest blocks down, and more of them first: the matrix of
    /// the largest blocks is cyclic and has half the diagonals of another.
    pub(super) fn new(
        direction: Direction,
        slots: usize,
        index: usize,
        of: usize,
        level: usize,
        scale: f64,
    ) -> Result<Self, Error> {
        let layers = slots.trailing_zeros() as usize;
        // Counted from the small blocks up.
        let rank = if direction == Direction::CoeffToSlot { of - 1 - index } else { index };
        let (first, end) = (rank * layers / of, (rank + 1) * layers / of);
        let turns = Turns::new(slots, first as u32, (end - first) as u32)?;
        Ok(Self { direction, level, scale, turns })
    }

    /// Slot `j` of the factor of `baby` inside `giant`.
    pub(super) fn factor(&self, giant: i64, baby: i64, j: usize) -> Complex {
        match self.turns.entry(giant, baby, j) {
            Some((row, column)) => self.entry(row, column),
            None => Complex::default(),
        }
    }

    /// Between row and column only the bits of the stage differ, and each layer
    /// replaces one: a single path, whose factors are multiplied up.
    fn entry(&self, row: usize, column: usize) -> Complex {
        // Angles in units of π/N = π/2n.
        let (mut angle, mut magnitude) = (0usize, 1.0);
        let slots = self.turns.slots();
        for t in self.turns.first()..self.turns.first() + self.turns.count() {
            let half = 1usize << t;
            let (into, from) = (row >> t & 1, column >> t & 1);
            let twiddle = |index: usize| power_of_five(index, 8 * half) * (slots / (2 * half));
            match self.direction {
                // y = a ± b·c, the bits below already replaced.
                Direction::SlotToCoeff if from == 1 => {
                    angle += twiddle(row & (half - 1)) + into * 2 * slots;
                }
                Direction::SlotToCoeff => {}
                // y = (a + b)/2 or (a − b)·c̄/2, the bits below not yet replaced.
                Direction::CoeffToSlot => {
                    magnitude *= 0.5;
                    if into == 1 {
                        angle += 4 * slots - twiddle(column & (half - 1)) + from * 2 * slots;
                    }
                }
            }
        }
        let angle = angle & (4 * slots - 1);
        let (sine, cosine) = libm::sincos(core::f64::consts::PI * angle as f64 / (2 * slots) as f64);
        Complex::new(magnitude * cosine, magnitude * sine)
    }
}

/// 5^exponent modulo a power of two.
fn power_of_five(exponent: usize, modulus: usize) -> usize {
    let (mut result, mut base, mut rest) = (1usize, 5usize, exponent);
    while rest != 0 {
        if rest & 1 == 1 {
            result = result.wrapping_mul(base);
        }
        base = base.wrapping_mul(base);
        rest >>= 1;
    }
    result & (modulus - 1)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::ckks::encoding::Encoder;
    use crate::memory::Arena;
    use crate::ring::bit_reverse;
    use std::{vec, vec::Vec};

    fn multiply(x: Complex, y: Complex) -> Complex {
        Complex::new(x.re * y.re - x.im * y.im, x.re * y.im + x.im * y.re)
    }

    /// Applies a stage as the server does, without encryption.
    fn apply(stage: &Stage, x: &[Complex]) -> Vec<Complex> {
        let n = x.len() as i64;
        let at = |x: &[Complex], j: usize, steps: i64| x[(j as i64 + steps).rem_euclid(n) as usize];
        let mut out = vec![Complex::default(); x.len()];
        for giant in stage.turns.giants() {
            let mut sum = vec![Complex::default(); x.len()];
            for baby in stage.turns.babies() {
                for (j, sum) in sum.iter_mut().enumerate() {
                    let term = multiply(stage.factor(giant, baby, j), at(x, j, baby));
                    (sum.re, sum.im) = (sum.re + term.re, sum.im + term.im);
                }
            }
            for (j, out) in out.iter_mut().enumerate() {
                let term = at(&sum, j, giant);
                (out.re, out.im) = (out.re + term.re, out.im + term.im);
            }
        }
        out
    }

    #[test]
    fn stages_multiply_up_to_the_embedding() {
        for (degree, of) in [(1 << 8, 2), (1 << 10, 3), (1 << 11, 4)] {
            let slots = degree / 2;
            let mut words = vec![0.0; Encoder::words_needed(degree)];
            let encoder = Encoder::new(degree, &mut Arena::new(&mut words)).unwrap();
            let value = |j: usize| ((j * 7919 + 13) % 2003) as f64 / 1001.5 - 1.0;
            let z: Vec<Complex> = (0..slots).map(|j| Complex::new(value(2 * j), value(2 * j + 1))).collect();
            // Slot brv(k) holds coefficients k and k + n.
            let bits = slots.trailing_zeros();
            let mut coefficients: Vec<f64> = vec![0.0; degree];
            for (k, z) in (0..slots).map(|k| (k, z[bit_reverse(k, bits)])) {
                (coefficients[k], coefficients[k + slots]) = (z.re, z.im);
            }
            let mut expected = vec![Complex::default(); slots];
            encoder.decode(&mut coefficients, 1.0, &mut expected).unwrap();

            let stages =
                |direction| (0..of).map(move |i| Stage::new(direction, slots, i, of, 0, 1.0).unwrap());
            let down = stages(Direction::SlotToCoeff).fold(z.clone(), |x, stage| apply(&stage, &x));
            let up = stages(Direction::CoeffToSlot).fold(expected.clone(), |x, stage| apply(&stage, &x));
            for (ours, theirs) in [(down, expected), (up, z)] {
                let far = |(x, y): (&Complex, &Complex)| (x.re - y.re).abs().max((x.im - y.im).abs());
                let worst = ours.iter().zip(&theirs).map(far).fold(0.0, f64::max);
                assert!(worst < 1e-9, "N = {degree}, {of} stages: {worst}");
            }
        }
    }

    #[test]
    fn factors_repeat_with_the_period() {
        let stage = Stage::new(Direction::CoeffToSlot, 1 << 9, 1, 3, 0, 1.0).unwrap();
        assert!(stage.turns.period() < 1 << 9);
        for (giant, baby) in [(0, -64), (64, -32)] {
            for j in 0..(1 << 9) - stage.turns.period() {
                assert_eq!(stage.factor(giant, baby, j), stage.factor(giant, baby, j + stage.turns.period()));
            }
        }
    }
}
