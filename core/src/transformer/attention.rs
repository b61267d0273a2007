//! Attention, from the projections to what W_O takes, forward and backward.
//!
//! With the scores S (exponentials of the kernel's exponents z) and the mask m, the Gaussian kernel gives S·V, V masked.
//! Softmax gives the same, divided by the sums of the scores over unmasked keys: with M the mask repeated for every
//! feature, (S·V) ⊘ (S·M). Nothing is subtracted from its scores: they stay in a calibrated interval instead.

use super::forward::{Keep, LayerTape, Outcome, Record};
use super::{Config, Executor, Kernel, Site, Targets, TrainingExecutor};

/// What attention leaves behind.
pub struct AttentionTape<K: Keep, T> {
    query: K::Kept<T>,
    key: K::Kept<T>,
    /// After the mask.
    value: K::Kept<T>,
    scores: K::Kept<T>,
    /// 1/(S·M), where there is one.
    inverse: Option<K::Kept<T>>,
}

/// S·V, normalised or not: T×d, or 1×d where the queries are token 0's.
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
        Kernel::Softmax => ex.product_scores(&query, &key, layer)?,
    };
    let (query, key) = (K::keep(query), K::keep(key));
    let mut mixed = ex.mix(&scores, &value)?;
    let value = K::keep(value);
    let mut inverse = None;
    if config.kernel == Kernel::Softmax {
        let tokens = ex.spread_mask(mask)?;
        let sums = ex.mix(&scores, &tokens)?;
        let inverses = ex.apply(&sums, Site::Normaliser(layer))?;
        mixed = ex.multiply(&mixed, &inverses)?;
        inverse = Some(K::keep(inverses));
    }
    Ok((mixed, AttentionTape { query, key, value, scores: K::keep(scores), inverse }))
}

/// Gradients by queries, keys and values.
pub(super) struct AttentionGradients<T> {
    pub(super) query: Option<T>,
    pub(super) key: Option<T>,
    pub(super) value: Option<T>,
}

/// The gradients that are wanted, from that of the output `mixed`.
///
/// Values: dV = m ⊙ Sᵀ·dU, with U = S·V. Scores: dS = dU·Vᵀ; where U is divided by the sums S·M, with R = 1/(S·M) and
/// O = U ⊙ R, dU = dO ⊙ R, and the quotient's other half takes (dU ⊙ O)·Mᵀ off dS.
pub(super) fn attention_backward<E: TrainingExecutor>(
    config: &Config,
    ex: &mut E,
    layer: usize,
    LayerTape { attention: tape, mixed, .. }: &LayerTape<Record, E::Tensor>,
    d_mixed: E::Tensor,
    mask: &E::Tensor,
    wanted: Targets,
) -> Result<AttentionGradients<E::Tensor>, E::Error> {
    let d_mixed = match &tape.inverse {
        Some(inverse) => ex.multiply(&d_mixed, inverse)?,
        None => d_mixed,
    };
    let mut gradients = AttentionGradients { query: None, key: None, value: None };
    if wanted.value {
        let d_value = ex.mix_transposed(&tape.scores, &d_mixed)?;
        gradients.value = Some(ex.mask_tokens(&d_value, mask)?);
    }
    if wanted.query || wanted.key {
        let mut d_scores = ex.head_products(&d_mixed, &tape.value)?;
        if tape.inverse.is_some() {
            let along = ex.multiply(&d_mixed, mixed)?;
            let tokens = ex.spread_mask(mask)?;
            let shared = ex.head_products(&along, &tokens)?;
            d_scores = ex.subtract(&d_scores, &shared)?;
        }
        let e = ex.kernel_backward(&tape.scores, &d_scores, layer)?;
        let by = [&tape.query, &tape.key];
        [gradients.query, gradients.key] =
            ex.exponents_backward(config, &e, by, [wanted.query, wanted.key])?;
    }
    Ok(gradients)
}
