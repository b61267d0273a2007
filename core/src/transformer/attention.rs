//! Attention, from the projections to what W_O takes, forward and backward.
//!
//! With the scores S and the mask m, attention is S·V, V masked. The Gaussian kernel's scores are exponentials of its
//! exponents z, softmax's the same divided by their sums over unmasked keys. Nothing is subtracted from its exponents:
//! they stay in a calibrated interval instead.

use super::forward::{Keep, LayerTape, Outcome, Record};
use super::{Config, Executor, Kernel, Targets, TrainingExecutor};

/// What attention leaves behind.
pub struct AttentionTape<K: Keep, T> {
    query: K::Kept<T>,
    key: K::Kept<T>,
    /// After the mask.
    value: K::Kept<T>,
    scores: K::Kept<T>,
}

/// S·V: T×d, or 1×d where the queries are token 0's.
pub(super) fn attend<K: Keep, E: Executor>(
    config: &Config,
    ex: &mut E,
    layer: usize,
    [query, key, value]: [E::Tensor; 3],
    mask: &E::Tensor,
) -> Outcome<E, AttentionTape<K, E::Tensor>> {
    let value = ex.mask_tokens(&value, mask)?;
    let scores = match config.kernel {
        Kernel::Gaussian => ex.gaussian_scores(&query, &key, layer)?,
        Kernel::Softmax => ex.softmax_scores(&query, &key, mask, layer)?,
    };
    let (query, key) = (K::keep(query), K::keep(key));
    let mixed = ex.mix(&scores, &value)?;
    let value = K::keep(value);
    Ok((mixed, AttentionTape { query, key, value, scores: K::keep(scores) }))
}

/// Gradients by queries, keys and values.
pub(super) struct AttentionGradients<T> {
    pub(super) query: Option<T>,
    pub(super) key: Option<T>,
    pub(super) value: Option<T>,
}

/// The gradients that are wanted, from that of the output `mixed`.
///
/// Values: dV = m ⊙ Sᵀ·dU, with U = S·V. Scores: dS = dU·Vᵀ, from which the kernel makes the gradient by its exponents.
pub(super) fn attention_backward<E: TrainingExecutor>(
    config: &Config,
    ex: &mut E,
    layer: usize,
    LayerTape { attention: tape, .. }: &LayerTape<Record, E::Tensor>,
    d_mixed: E::Tensor,
    mask: &E::Tensor,
    wanted: Targets,
) -> Result<AttentionGradients<E::Tensor>, E::Error> {
    let mut gradients = AttentionGradients { query: None, key: None, value: None };
    if wanted.value {
        let d_value = ex.mix_transposed(&tape.scores, &d_mixed)?;
        gradients.value = Some(ex.mask_tokens(&d_value, mask)?);
    }
    if wanted.query || wanted.key {
        let d_scores = ex.head_products(&d_mixed, &tape.value)?;
        let e = ex.kernel_backward(&tape.scores, &d_scores, layer)?;
        let by = [&tape.query, &tape.key];
        [gradients.query, gradients.key] =
            ex.exponents_backward(config, &e, by, [wanted.query, wanted.key])?;
    }
    Ok(gradients)
}
