//! What the batched network does to the rows of a matrix between two products: norms, the kernel's exp, the loss.

use ndarray::{Array2, ArrayView2, ArrayViewMut1};

/// eˣ for x ≤ 88, to 2 units in the last place and without a branch or a call, so that loops over it become vector code.
pub(super) fn exp(x: f32) -> f32 {
    /// 1.5·2²³: adding it to a small number leaves the nearest integer in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let x = x.max(-87.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let k = shifted - ROUND;
    // ln 2 in two parts, the first of which is exact when multiplied by k.
    let f = (x - k * 0.693_359_4) + k * 2.121_944_4e-4;
    let p = 1.0 + f * (1.0 + f * (0.5 + f * (1.0 / 6.0 + f * (1.0 / 24.0 + f * (1.0 / 120.0 + f / 720.0)))));
    let exponent = shifted.to_bits().wrapping_shl(23).wrapping_add(0x3f80_0000);
    p * f32::from_bits(exponent)
}

/// Σ x², in lanes.
pub(super) fn squares(x: &[f32]) -> f32 {
    sum(x, |x| x * x)
}

/// Σ f(x), in sixteen lanes so that it vectorises and always rounds the same way.
fn sum(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0; 16];
    let (chunks, tail) = x.as_chunks::<16>();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane += f(x);
        }
    }
    tail.iter().fold(lanes.iter().sum(), |total: f32, &x| total + f(x))
}

/// The rows of a matrix that owns its entries row by row.
pub(super) fn rows(x: &Array2<f32>) -> std::slice::ChunksExact<'_, f32> {
    x.as_slice().unwrap_or(&[]).chunks_exact(x.ncols().max(1))
}

/// The same, to change.
pub(super) fn rows_mut(x: &mut Array2<f32>) -> std::slice::ChunksExactMut<'_, f32> {
    let columns = x.ncols().max(1);
    x.as_slice_mut().unwrap_or(&mut []).chunks_exact_mut(columns)
}

/// A layer norm that has run.
pub(super) struct Normed {
    /// The rows before gain and bias.
    pub(super) normalised: Array2<f32>,
    /// Per row, 1/√(variance + ε).
    pub(super) factors: Vec<f32>,
    /// With gain and bias.
    pub(super) output: Array2<f32>,
}

/// Normalises rows. An empty gain is 1, an empty bias 0.
pub(super) fn norm(x: &Array2<f32>, gain: &[f32], bias: &[f32], epsilon: f32) -> Normed {
    let mut normalised = x.clone();
    let width = x.ncols() as f32;
    let mut factors = Vec::with_capacity(x.nrows());
    for row in rows_mut(&mut normalised) {
        let mean = sum(row, |x| x) / width;
        row.iter_mut().for_each(|x| *x -= mean);
        let factor = 1.0 / (squares(row) / width + epsilon).sqrt();
        row.iter_mut().for_each(|x| *x *= factor);
        factors.push(factor);
    }
    let mut output = normalised.clone();
    for row in rows_mut(&mut output) {
        row.iter_mut().zip(gain).for_each(|(y, g)| *y *= g);
        row.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
    }
    Normed { normalised, factors, output }
}

/// The gradient by the norm's input, in place of the one by its output. `penalty` is the derivative of the penalty by the
/// variance; gradients of gain and bias are added to.
pub(super) fn norm_backward(
    normed: &Normed,
    d: &mut Array2<f32>,
    gain: &[f32],
    (d_gain, d_bias): (&mut [f32], &mut [f32]),
    penalty: impl Fn(f32) -> f32,
) {
    let width = d.ncols() as f32;
    for ((d, x), &r) in rows_mut(d).zip(rows(&normed.normalised)).zip(&normed.factors) {
        for ((sum, &d), &x) in d_gain.iter_mut().zip(d.iter()).zip(x) {
            *sum += d * x;
        }
        d_bias.iter_mut().zip(d.iter()).for_each(|(sum, &d)| *sum += d);
        d.iter_mut().zip(gain).for_each(|(d, &g)| *d *= g);
        let mean = sum(d, |d| d) / width;
        let mut along = [0.0; 16];
        for (d, x) in d.chunks(16).zip(x.chunks(16)) {
            for ((sum, &d), &x) in along.iter_mut().zip(d).zip(x) {
                *sum += d * x;
            }
        }
        let along = along.iter().sum::<f32>() / width;
        // dv/dx = 2(x − mean)/width = 2·x̂/(r·width).
        let penalty = penalty(1.0 / (r * r)) * 2.0 / (r * width);
        for (d, &x) in d.iter_mut().zip(x) {
            *d = r * (*d - mean - x * along) + penalty * x;
        }
    }
}

/// exp(2c·qᵢ·kⱼ − c·qᵢ² − c·kⱼ²) over the scores 2c·qᵢ·kⱼ of one head of one sequence, given the c·q² and c·k².
/// Returns the smallest exponent.
pub(super) fn kernel(scores: &mut ArrayViewMut1<'_, f32>, query: f32, keys: &[f32]) -> f32 {
    let mut least = 0.0f32;
    if let Some(scores) = scores.as_slice_mut() {
        for (s, &key) in scores.iter_mut().zip(keys) {
            let z = (*s - query - key).min(0.0);
            least = least.min(z);
            *s = exp(z);
        }
    }
    least
}

/// exp over its sum, of the scores of the first `used` keys; the others become 0. Returns the smallest and the largest
/// exponent, and the sum.
pub(super) fn softmax(scores: &mut [f32], used: usize) -> (f32, f32, f32) {
    let (scores, padding) = scores.split_at_mut(used);
    let (mut least, mut most) = (f32::INFINITY, f32::NEG_INFINITY);
    for s in scores.iter_mut() {
        least = least.min(*s);
        most = most.max(*s);
        *s = exp(*s);
    }
    let total = sum(scores, |s| s);
    scores.iter_mut().for_each(|s| *s /= total);
    padding.fill(0.0);
    (least, most, total)
}

/// Softmax cross-entropy of rows of logits against their targets: the logits become the gradients of `share` times the
/// sum of the losses. Returns that sum, unscaled.
pub(super) fn cross_entropy(logits: &mut Array2<f32>, targets: impl Iterator<Item = u32>, share: f32) -> f64 {
    let mut loss = 0.0;
    for (row, target) in rows_mut(logits).zip(targets) {
        let largest = row.iter().fold(f32::NEG_INFINITY, |m, &y| m.max(y));
        let logit = row[target as usize];
        row.iter_mut().for_each(|y| *y = exp(*y - largest));
        let total = sum(row, |y| y);
        loss += f64::from(largest - logit) + f64::from(total).ln();
        let scale = share / total;
        row.iter_mut().for_each(|y| *y *= scale);
        row[target as usize] -= share;
    }
    loss
}

/// The rows of a product's left side that a list names.
pub(super) fn gather(x: &Array2<f32>, places: impl Iterator<Item = usize>) -> Array2<f32> {
    let places: Vec<usize> = places.collect();
    x.select(ndarray::Axis(0), &places)
}

/// sum += xᵀ·dy.
pub(super) fn add_product(x: &ArrayView2<'_, f32>, dy: &ArrayView2<'_, f32>, sum: &mut [f32]) {
    let shape = (x.ncols(), dy.ncols());
    if let Ok(mut sum) = ndarray::ArrayViewMut2::from_shape(shape, sum) {
        ndarray::linalg::general_mat_mul(1.0, &x.t(), dy, 1.0, &mut sum);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn exp_is_exp() {
        for i in -8700..=8700 {
            let x = i as f32 / 100.0;
            let expected = f64::from(x).exp();
            let error = (f64::from(super::exp(x)) / expected - 1.0).abs();
            assert!(error < 3e-7, "exp({x}) is off by {error:e}");
        }
    }
}
