//! The forward pass.

use super::attention::{AttentionTape, attend};
use super::{Config, Executor, MAX_LAYERS, Norm, Parameter, Projection, Site};

/// Whether intermediate tensors are kept for the backward pass or dropped as soon as they have been used.
pub trait Keep {
    /// What is left of a tensor.
    type Kept<T>;
    /// Keeps it or drops it.
    fn keep<T>(tensor: T) -> Self::Kept<T>;
}

/// Keeps everything: training.
pub struct Record;

/// Drops everything at once: inference.
pub struct Discard;

impl Keep for Record {
    type Kept<T> = T;
    fn keep<T>(tensor: T) -> T {
        tensor
    }
}

impl Keep for Discard {
    type Kept<T> = ();
    fn keep<T>(_: T) {}
}

/// What one adapted projection leaves behind: x·A, where there is a LoRA.
pub struct ProjectionTape<K: Keep, T>(pub(super) Option<K::Kept<T>>);

/// What one layer leaves behind.
pub struct LayerTape<K: Keep, T> {
    pub(super) input: K::Kept<T>,
    /// After the first norm; `None` where the layer has none.
    pub(super) normed: Option<K::Kept<T>>,
    /// Row 0 of the (normed) input; `None` where all queries are needed.
    pub(super) first: Option<K::Kept<T>>,
    pub(super) lora: [ProjectionTape<K, T>; 3],
    pub(super) attention: AttentionTape<K, T>,
    pub(super) mixed: K::Kept<T>,
    /// The residual stream after attention.
    pub(super) middle: K::Kept<T>,
    pub(super) middle_normed: K::Kept<T>,
    pub(super) hidden: K::Kept<T>,
    pub(super) gated: K::Kept<T>,
}

/// What the last norm and the head leave behind.
pub struct HeadTape<K: Keep, T> {
    pub(super) input: K::Kept<T>,
    pub(super) normed: K::Kept<T>,
    /// After the low-rank matrix, where there is one.
    pub(super) low_rank: Option<K::Kept<T>>,
    pub(super) before_tanh: K::Kept<T>,
    pub(super) after_tanh: K::Kept<T>,
}

/// Everything the backward pass reads.
pub struct Tape<T> {
    pub(super) layers: heapless::Vec<LayerTape<Record, T>, MAX_LAYERS>,
    pub(super) head: HeadTape<Record, T>,
}

/// What a part of the program yields: its output, and what it leaves behind.
pub(super) type Outcome<E, R> = Result<(<E as Executor>::Tensor, R), <E as Executor>::Error>;

/// The logits (1×classes) of one sequence: `input` is the T×d normalised embedding, `mask` its tokens.
pub fn forward<E: Executor>(
    config: &Config,
    executor: &mut E,
    input: E::Tensor,
    mask: &E::Tensor,
) -> Result<E::Tensor, E::Error> {
    let mut x = input;
    for layer in 0..config.layers {
        x = forward_layer(config, executor, layer, x, mask)?;
    }
    Ok(head::<Discard, E>(config, executor, x)?.0)
}

/// The same, keeping what [`super::backward`] needs. Layers beyond [`MAX_LAYERS`] (which
/// [`Config::validate`] refuses) are not recorded.
pub fn forward_recorded<E: Executor>(
    config: &Config,
    executor: &mut E,
    input: E::Tensor,
    mask: &E::Tensor,
) -> Outcome<E, Tape<E::Tensor>> {
    let mut x = input;
    let mut layers = heapless::Vec::new();
    for layer in 0..config.layers {
        let (y, tape) = encoder_layer::<Record, E>(config, executor, layer, x, mask)?;
        x = y;
        let _ = layers.push(tape);
    }
    let (logits, head) = head::<Record, E>(config, executor, x)?;
    Ok((logits, Tape { layers, head }))
}

/// What a single encoder layer makes of its T×d input: T×d, or 1×d of token 0 where the layer is the last.
pub fn forward_layer<E: Executor>(
    config: &Config,
    executor: &mut E,
    layer: usize,
    input: E::Tensor,
    mask: &E::Tensor,
) -> Result<E::Tensor, E::Error> {
    Ok(encoder_layer::<Discard, E>(config, executor, layer, input, mask)?.0)
}

/// x + Attn(LN(x)), then x + FFN(LN(x)).
fn encoder_layer<K: Keep, E: Executor>(
    config: &Config,
    ex: &mut E,
    layer: usize,
    input: E::Tensor,
    mask: &E::Tensor,
) -> Outcome<E, LayerTape<K, E::Tensor>> {
    let last = config.is_last(layer);
    let normed =
        if config.has_first_norm(layer) { Some(ex.layer_norm(&input, Norm::First(layer))?) } else { None };
    let x = normed.as_ref().unwrap_or(&input);
    let first = if last { Some(ex.first_token(x)?) } else { None };

    let (query, lora_query) =
        project::<K, E>(config, ex, first.as_ref().unwrap_or(x), Projection::Query, layer)?;
    let (key, lora_key) = project::<K, E>(config, ex, x, Projection::Key, layer)?;
    let (value, lora_value) = project::<K, E>(config, ex, x, Projection::Value, layer)?;
    let (mixed, attention_tape) = attend::<K, E>(config, ex, layer, [query, key, value], mask)?;
    let attention = ex.linear(&mixed, Parameter::Output(layer))?;
    let middle = if last {
        let residual = ex.first_token(&input)?;
        ex.add(&residual, &attention)?
    } else {
        ex.add(&input, &attention)?
    };
    drop(attention);
    let (input, normed, first) = (K::keep(input), normed.map(K::keep), first.map(K::keep));

    let middle_normed = ex.layer_norm(&middle, Norm::Second(layer))?;
    let hidden = ex.linear(&middle_normed, Parameter::Expand(layer))?;
    let middle_normed = K::keep(middle_normed);
    let gated = ex.gate(&hidden, layer)?;
    let hidden = K::keep(hidden);
    let contracted = ex.linear(&gated, Parameter::Contract(layer))?;
    let output = ex.add(&middle, &contracted)?;
    let tape = LayerTape {
        input,
        normed,
        first,
        lora: [lora_query, lora_key, lora_value],
        attention: attention_tape,
        mixed: K::keep(mixed),
        middle: K::keep(middle),
        middle_normed,
        hidden,
        gated: K::keep(gated),
    };
    Ok((output, tape))
}

/// x·W, plus (x·A)·B where there is a LoRA.
fn project<K: Keep, E: Executor>(
    config: &Config,
    ex: &mut E,
    x: &E::Tensor,
    projection: Projection,
    layer: usize,
) -> Outcome<E, ProjectionTape<K, E::Tensor>> {
    let y = ex.linear(x, Parameter::Attention(projection, layer))?;
    if Parameter::LoraDown(projection, layer).shape(config).is_empty() {
        return Ok((y, ProjectionTape(None)));
    }
    let down = ex.linear(x, Parameter::LoraDown(projection, layer))?;
    let up = ex.linear(&down, Parameter::LoraUp(projection, layer))?;
    Ok((ex.add(&y, &up)?, ProjectionTape(Some(K::keep(down)))))
}

/// The last norm and the head, on token 0.
fn head<K: Keep, E: Executor>(
    config: &Config,
    ex: &mut E,
    input: E::Tensor,
) -> Outcome<E, HeadTape<K, E::Tensor>> {
    let normed = ex.layer_norm(&input, Norm::Final)?;
    let low_rank = if config.head_rank > 0 { Some(ex.linear(&normed, Parameter::HeadDown)?) } else { None };
    let before_tanh = ex.linear(low_rank.as_ref().unwrap_or(&normed), Parameter::HeadUp)?;
    let after_tanh = ex.apply(&before_tanh, Site::Tanh)?;
    let logits = ex.linear(&after_tanh, Parameter::Classifier)?;
    let tape = HeadTape {
        input: K::keep(input),
        normed: K::keep(normed),
        low_rank: low_rank.map(K::keep),
        before_tanh: K::keep(before_tanh),
        after_tanh: K::keep(after_tanh),
    };
    Ok((logits, tape))
}
