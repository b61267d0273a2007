//! The client's side of the model, in the clear: word piece and position to the vector that is encrypted.

/// The affine part of the embedding's layer norm, where it has one.
#[derive(Debug, Clone, Copy)]
pub struct EmbeddingNorm<'a> {
    /// Gain, one per feature; empty = 1.
    pub gain: &'a [f32],
    /// Bias, one per feature; empty = 0.
    pub bias: &'a [f32],
    /// Added to the variance.
    pub epsilon: f64,
}

/// Entry `feature` of the sinusoidal position `token`: sin or cos of token/10000^(2⌊feature/2⌋/width).
pub fn position(token: usize, feature: usize, width: usize) -> f64 {
    let rate = libm::pow(10_000.0, -((feature - feature % 2) as f64) / width.max(1) as f64);
    let angle = token as f64 * rate;
    if feature.is_multiple_of(2) { libm::sin(angle) } else { libm::cos(angle) }
}

/// LN(row + scale·position(token)), written to `out`: what the client encrypts for one token.
///
/// Extra entries of `row`, or of `out`, are left alone.
pub fn embed_token(row: &[f32], token: usize, scale: f64, norm: &EmbeddingNorm<'_>, out: &mut [f64]) {
    let width = row.len().min(out.len());
    let out = &mut out[..width];
    for (feature, (y, &x)) in out.iter_mut().zip(row).enumerate() {
        *y = f64::from(x) + scale * position(token, feature, width);
    }
    let count = width.max(1) as f64;
    let mean = out.iter().sum::<f64>() / count;
    let variance = out.iter().map(|y| (y - mean) * (y - mean)).sum::<f64>() / count;
    let factor = 1.0 / libm::sqrt(variance + norm.epsilon);
    for (feature, y) in out.iter_mut().enumerate() {
        let gain = norm.gain.get(feature).map_or(1.0, |&g| f64::from(g));
        let bias = norm.bias.get(feature).map_or(0.0, |&b| f64::from(b));
        *y = gain * (*y - mean) * factor + bias;
    }
}
