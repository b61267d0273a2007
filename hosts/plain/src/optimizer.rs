//! AdamW, with ε outside the root as usual or inside as the encrypted optimizer needs it (PAPER.md, AdamW-HE).

use std::ops::Range;

/// The constants of AdamW.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Bounds the denominator from below.
    pub epsilon: f64,
    /// m̂/√(v̂ + ε) instead of m̂/(√v̂ + ε).
    pub epsilon_inside: bool,
    /// θ ← θ − lr·wd·θ.
    pub weight_decay: f64,
}

impl Default for AdamW {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, epsilon_inside: false, weight_decay: 0.01 }
    }
}

/// The moments of every weight.
#[derive(Debug, Clone)]
pub struct Moments {
    first: Vec<f32>,
    second: Vec<f32>,
    steps: i32,
}

impl Moments {
    /// All zero, for this many weights.
    pub fn new(weights: usize) -> Self {
        Self { first: vec![0.0; weights], second: vec![0.0; weights], steps: 0 }
    }

    /// One step. Weights in `decayed` ranges also decay. The gradient is multiplied by `gradient_scale` first.
    pub fn step(
        &mut self,
        constants: &AdamW,
        learning_rate: f64,
        weights: &mut [f32],
        gradient: &[f32],
        gradient_scale: f32,
        decayed: &[Range<usize>],
    ) {
        let &AdamW { beta1, beta2, epsilon, epsilon_inside, weight_decay } = constants;
        self.steps = self.steps.saturating_add(1);
        for range in decayed {
            let keep = (1.0 - learning_rate * weight_decay) as f32;
            weights[range.clone()].iter_mut().for_each(|w| *w *= keep);
        }
        let correct1 = 1.0 - beta1.powi(self.steps);
        let correct2 = (1.0 / (1.0 - beta2.powi(self.steps))) as f32;
        let rate = (learning_rate / correct1) as f32;
        let (beta1, beta2) = (beta1 as f32, beta2 as f32);
        let (inside, outside) = if epsilon_inside { (epsilon as f32, 0.0) } else { (0.0, epsilon as f32) };
        let moments = self.first.iter_mut().zip(&mut self.second);
        for ((w, &g), (m, v)) in weights.iter_mut().zip(gradient).zip(moments) {
            let g = g * gradient_scale;
            *m = beta1 * *m + (1.0 - beta1) * g;
            *v = beta2 * *v + (1.0 - beta2) * g * g;
            *w -= rate * *m / ((*v * correct2 + inside).sqrt() + outside);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_step_is_the_sign_of_the_gradient_and_decay_is_decoupled() {
        let constants = AdamW { weight_decay: 0.5, ..AdamW::default() };
        let mut w = [1.0, 1.0, 1.0];
        Moments::new(3).step(&constants, 0.1, &mut w, &[4.0, -0.25, 0.0], 1.0, std::slice::from_ref(&(2..3)));
        for (w, expected) in w.iter().zip([0.9, 1.1, 0.95]) {
            assert!((w - expected).abs() < 1e-6);
        }
    }

    #[test]
    fn epsilon_inside_the_root() {
        let constants = AdamW { epsilon: 3.0, epsilon_inside: true, ..AdamW::default() };
        let mut w = [0.0];
        Moments::new(1).step(&constants, 1.0, &mut w, &[1.0], 1.0, &[]);
        assert!((w[0] + 0.5).abs() < 1e-6); // 1/√(1 + 3)
    }
}
