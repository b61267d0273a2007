//! The backward pass, by hand: [`super::forward`] read from the last line to the first.

use super::{
    Config, LayerTape, Loss, Norm, Parameter, Projection, ProjectionTape, Record, Tape, TrainingExecutor,
};

/// The gradient of the loss by the logits: softmax(y) − t, or y − t. The target is a tensor like the logits (one-hot
/// for cross-entropy), because labels are private too.
pub fn loss_gradient<E: TrainingExecutor>(
    config: &Config,
    executor: &mut E,
    logits: &E::Tensor,
    target: &E::Tensor,
) -> Result<E::Tensor, E::Error> {
    match config.loss {
        Loss::CrossEntropy => {
            let probabilities = executor.softmax(logits)?;
            executor.subtract(&probabilities, target)
        }
        Loss::SquaredError => executor.subtract(logits, target),
    }
}

/// Adds the gradients of all weights of the encoder and the head to the executor's, and returns the gradient by the
/// input (the normalised embedding).
pub fn backward<E: TrainingExecutor>(
    config: &Config,
    executor: &mut E,
    tape: Tape<E::Tensor>,
    d_logits: &E::Tensor,
    mask: &E::Tensor,
) -> Result<E::Tensor, E::Error> {
    let Tape { mut layers, head } = tape;
    let ex = executor;

    let dy = linear_backward(ex, &head.after_tanh, d_logits, Parameter::Classifier)?;
    let dy = ex.tanh_backward(&head.before_tanh, &head.after_tanh, &dy)?;
    let dy = match &head.low_rank {
        Some(low_rank) => {
            let dy = linear_backward(ex, low_rank, &dy, Parameter::HeadUp)?;
            linear_backward(ex, &head.normed, &dy, Parameter::HeadDown)?
        }
        None => linear_backward(ex, &head.normed, &dy, Parameter::HeadUp)?,
    };
    let mut dx = ex.layer_norm_backward(&head.input, &dy, Norm::Final)?;
    drop(head);

    while let Some(tape) = layers.pop() {
        dx = layer_backward(config, ex, layers.len(), tape, dx, mask)?;
    }
    Ok(dx)
}

/// y = x·W: adds xᵀ·dy to W's gradient, returns dy·Wᵀ.
fn linear_backward<E: TrainingExecutor>(
    ex: &mut E,
    x: &E::Tensor,
    dy: &E::Tensor,
    weight: Parameter,
) -> Result<E::Tensor, E::Error> {
    ex.accumulate(x, dy, weight)?;
    ex.linear_transposed(dy, weight)
}

/// y = x·W + (x·A)·B.
fn projection_backward<E: TrainingExecutor>(
    ex: &mut E,
    x: &E::Tensor,
    lora: &ProjectionTape<Record, E::Tensor>,
    dy: &E::Tensor,
    projection: Projection,
    layer: usize,
) -> Result<E::Tensor, E::Error> {
    let dx = linear_backward(ex, x, dy, Parameter::Attention(projection, layer))?;
    let Some(down) = &lora.0 else { return Ok(dx) };
    let d_down = linear_backward(ex, down, dy, Parameter::LoraUp(projection, layer))?;
    let dx_lora = linear_backward(ex, x, &d_down, Parameter::LoraDown(projection, layer))?;
    ex.add(&dx, &dx_lora)
}

/// Through both halves of an encoder layer.
fn layer_backward<E: TrainingExecutor>(
    config: &Config,
    ex: &mut E,
    layer: usize,
    tape: LayerTape<Record, E::Tensor>,
    dy: E::Tensor,
    mask: &E::Tensor,
) -> Result<E::Tensor, E::Error> {
    // Feed-forward: y = m + (a ⊙ ReLU(b))·W.
    let d_gated = linear_backward(ex, &tape.gated, &dy, Parameter::Contract(layer))?;
    let d_hidden = ex.gate_backward(&tape.hidden, &d_gated, layer)?;
    let d_normed = linear_backward(ex, &tape.middle_normed, &d_hidden, Parameter::Expand(layer))?;
    let d_feed_forward = ex.layer_norm_backward(&tape.middle, &d_normed, Norm::Second(layer))?;
    let d_middle = ex.add(&dy, &d_feed_forward)?;

    // Attention: m = x + (S·V)·W_O.
    let d_mixed = linear_backward(ex, &tape.mixed, &d_middle, Parameter::Output(layer))?;
    let d_scores = ex.head_products(&d_mixed, &tape.value)?;
    let d_value = ex.mix_transposed(&tape.scores, &d_mixed)?;
    let d_value = ex.mask_tokens(&d_value, mask)?;
    let (d_query, d_key) = kernel_backward(config, ex, &tape, &d_scores, layer)?;

    // The three projections, the first norm and the residual. In the last layer queries and residual are token 0's.
    let x = tape.normed.as_ref().unwrap_or(&tape.input);
    let [lora_query, lora_key, lora_value] = &tape.lora;
    let from_key = projection_backward(ex, x, lora_key, &d_key, Projection::Key, layer)?;
    let from_value = projection_backward(ex, x, lora_value, &d_value, Projection::Value, layer)?;
    let mut dx = ex.add(&from_key, &from_value)?;
    let x_query = tape.first.as_ref().unwrap_or(x);
    let from_query = projection_backward(ex, x_query, lora_query, &d_query, Projection::Query, layer)?;
    let first_only = tape.first.is_some();
    dx = add_rows(ex, &dx, &from_query, first_only)?;
    if config.has_first_norm(layer) {
        dx = ex.layer_norm_backward(&tape.input, &dx, Norm::First(layer))?;
    }
    add_rows(ex, &dx, &d_middle, first_only)
}

/// Adds gradients of all tokens, or of token 0.
fn add_rows<E: TrainingExecutor>(
    ex: &mut E,
    dx: &E::Tensor,
    more: &E::Tensor,
    first_only: bool,
) -> Result<E::Tensor, E::Error> {
    if first_only { ex.add_to_first_token(dx, more) } else { ex.add(dx, more) }
}

/// S_ij = exp(z_ij), z_ij = −c·‖q_i − k_j‖², c = 1/(2√n). With E = dS ⊙ S the gradient by z,
/// dq_i = −2c·Σ_j E_ij·(q_i − k_j) = −2c·((E·1)_i·q_i − (E·K)_i), and dk_j = −2c·((Eᵀ·1)_j·k_j − (Eᵀ·Q)_j).
fn kernel_backward<E: TrainingExecutor>(
    config: &Config,
    ex: &mut E,
    tape: &LayerTape<Record, E::Tensor>,
    d_scores: &E::Tensor,
    layer: usize,
) -> Result<(E::Tensor, E::Tensor), E::Error> {
    let factor = 2.0 * config.kernel_scale();
    let e = ex.kernel_backward(&tape.scores, d_scores, layer)?;

    let attracted = ex.mix(&e, &tape.key)?;
    let held = ex.weigh_by_rows(&e, &tape.query)?;
    let d_query = ex.subtract(&attracted, &held)?;
    let d_query = ex.scale(&d_query, factor)?;

    let attracted = ex.mix_transposed(&e, &tape.query)?;
    let held = ex.weigh_by_columns(&e, &tape.key)?;
    let d_key = ex.subtract(&attracted, &held)?;
    let d_key = ex.scale(&d_key, factor)?;
    Ok((d_query, d_key))
}
