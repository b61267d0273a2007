//! The backward pass, by hand: [`super::forward`] read from the last line to the first.
//!
//! It asks the executor for nothing that no trained weight needs: with LoRA, no gradient of a frozen matrix is summed, and
//! layer 0 stops at its LoRA factors, without a gradient by its input.

use super::attention::attention_backward;
use super::forward::{HeadTape, LayerTape, Record, Tape};
use super::{Config, Loss, Norm, Parameter, Projection, Site, Targets, Trainable, TrainingExecutor};

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
            let probabilities = softmax(executor, logits)?;
            executor.subtract(&probabilities, target)
        }
        Loss::SquaredError => executor.subtract(logits, target),
    }
}

/// exp(y − mean(y)) over its sum. Centring the logits does for polynomials what subtracting the largest does for floating
/// point, and is linear; the sums are never below the number of classes. Within ±1, exponentials are held as multiples of the
/// largest that the interval of [`Site::LossExp`] allows, inverses as multiples of one over the smallest sum.
fn softmax<E: TrainingExecutor>(ex: &mut E, logits: &E::Tensor) -> Result<E::Tensor, E::Error> {
    let centred = ex.centre(logits)?;
    let exponentials = ex.apply(&centred, Site::LossExp)?;
    let sums = ex.row_sums(&exponentials)?;
    let inverses = ex.apply(&sums, Site::LossInverse)?;
    ex.multiply(&exponentials, &inverses)
}

/// Adds the gradients of the trained weights of the encoder and the head to the executor's. The gradient by the input
/// (the normalised embedding) comes back where the embedding is trained.
pub fn backward<E: TrainingExecutor>(
    config: &Config,
    executor: &mut E,
    tape: Tape<E::Tensor>,
    d_logits: &E::Tensor,
    mask: &E::Tensor,
) -> Result<Option<E::Tensor>, E::Error> {
    let Tape { mut layers, head } = tape;
    let mut pass = Backward { config, trained: executor.trained(), ex: executor, mask };
    let mut gradient = pass.head(&head, d_logits)?;
    drop(head);
    while let Some(tape) = layers.pop() {
        let Some(dy) = gradient else { return Ok(None) };
        gradient = pass.layer(layers.len(), &tape, dy)?;
    }
    Ok(gradient)
}

/// A backward pass under way.
struct Backward<'a, E: TrainingExecutor> {
    config: &'a Config,
    trained: Trainable,
    ex: &'a mut E,
    mask: &'a E::Tensor,
}

/// A gradient, or `None` where nobody wants it.
type Wanted<E> = Result<Option<<E as super::Executor>::Tensor>, <E as super::Executor>::Error>;

impl<E: TrainingExecutor> Backward<'_, E> {
    /// y = x·W: adds xᵀ·dy to W's gradient where W is trained.
    fn weight(&mut self, x: &E::Tensor, dy: &E::Tensor, weight: Parameter) -> Result<(), E::Error> {
        if self.trained.includes(weight) { self.ex.accumulate(x, dy, weight) } else { Ok(()) }
    }

    /// The same, and returns dy·Wᵀ.
    fn linear(&mut self, x: &E::Tensor, dy: &E::Tensor, weight: Parameter) -> Result<E::Tensor, E::Error> {
        self.weight(x, dy, weight)?;
        self.ex.linear_transposed(dy, weight)
    }

    /// From the logits to the input of the last norm.
    fn head(&mut self, tape: &HeadTape<Record, E::Tensor>, d_logits: &E::Tensor) -> Wanted<E> {
        let d_tanh = self.linear(&tape.after_tanh, d_logits, Parameter::Classifier)?;
        let mut dy = self.ex.tanh_backward(&tape.before_tanh, &tape.after_tanh, &d_tanh)?;
        let mut first = Parameter::HeadUp;
        if let Some(low_rank) = &tape.low_rank {
            dy = self.linear(low_rank, &dy, Parameter::HeadUp)?;
            first = Parameter::HeadDown;
        }
        self.weight(&tape.normed, &dy, first)?;
        if !self.trained.reaches_encoder(self.config) {
            return Ok(None);
        }
        let d_normed = self.ex.linear_transposed(&dy, first)?;
        self.ex.layer_norm_backward(&tape.input, &d_normed, Norm::Final).map(Some)
    }

    /// Through both halves of an encoder layer.
    fn layer(&mut self, layer: usize, tape: &LayerTape<Record, E::Tensor>, dy: E::Tensor) -> Wanted<E> {
        // Feed-forward: y = m + (a ⊙ ReLU(b))·W.
        let d_gated = self.linear(&tape.gated, &dy, Parameter::Contract(layer))?;
        let d_hidden = self.ex.gate_backward(&tape.hidden, &d_gated, layer)?;
        let d_normed = self.linear(&tape.middle_normed, &d_hidden, Parameter::Expand(layer))?;
        let d_branch = self.ex.layer_norm_backward(&tape.middle, &d_normed, Norm::Second(layer))?;
        let d_middle = self.ex.add(&dy, &d_branch)?;

        // Attention: m = x + attend(LN(x))·W_O. In the last layer queries and residual are token 0's.
        let d_mixed = self.linear(&tape.mixed, &d_middle, Parameter::Output(layer))?;
        let Some(mut dx) = self.projections(layer, tape, d_mixed)? else { return Ok(None) };
        if self.config.has_first_norm(layer) {
            dx = self.ex.layer_norm_backward(&tape.input, &dx, Norm::First(layer))?;
        }
        if !self.trained.reaches_input_of(layer) {
            return Ok(None);
        }
        self.add_rows(&dx, &d_middle, tape.first.is_some()).map(Some)
    }

    /// From the output of attention to the (normed) input of the layer.
    fn projections(
        &mut self,
        layer: usize,
        tape: &LayerTape<Record, E::Tensor>,
        d_mixed: E::Tensor,
    ) -> Wanted<E> {
        let norm = Parameter::Gain(Norm::First(layer));
        let through = self.trained.reaches_input_of(layer)
            || (self.config.has_first_norm(layer) && self.trained.includes(norm));
        let wanted = |p| {
            let trains = |w: Parameter| !w.shape(self.config).is_empty() && self.trained.includes(w);
            through || trains(Parameter::Attention(p, layer)) || trains(Parameter::LoraUp(p, layer))
        };
        let wanted = Targets {
            query: wanted(Projection::Query),
            key: wanted(Projection::Key),
            value: wanted(Projection::Value),
        };
        let d = attention_backward(self.config, self.ex, layer, tape, d_mixed, self.mask, wanted)?;
        let x = tape.normed.as_ref().unwrap_or(&tape.input);
        let x_query = tape.first.as_ref().unwrap_or(x);
        let [lora_query, lora_key, lora_value] = &tape.lora;
        let inputs = [
            (x, lora_key, d.key, Projection::Key),
            (x, lora_value, d.value, Projection::Value),
            (x_query, lora_query, d.query, Projection::Query),
        ];
        // y = x·W + (x·A)·B. An executor may make all gradients by x·A at once, before the first is used.
        let (mut by_input, mut by_adapter) = ([None, None, None], [None, None, None]);
        let mut of = [None; 3];
        for (i, (x, lora, dy, projection)) in inputs.into_iter().enumerate() {
            let Some(dy) = dy else { continue };
            let weight = Parameter::Attention(projection, layer);
            self.weight(x, &dy, weight)?;
            if through {
                by_input[i] = Some(self.ex.linear_transposed(&dy, weight)?);
            }
            if let Some(down) = &lora.0 {
                by_adapter[i] = Some(self.linear(down, &dy, Parameter::LoraUp(projection, layer))?);
            }
            of[i] = Some((x, Parameter::LoraDown(projection, layer)));
        }
        for ((d_down, of), sum) in by_adapter.iter().zip(of).zip(&mut by_input) {
            let (Some(d_down), Some((x, weight))) = (d_down, of) else { continue };
            self.weight(x, d_down, weight)?;
            if let Some(sum) = sum {
                let more = self.ex.linear_transposed(d_down, weight)?;
                *sum = self.ex.add(sum, &more)?;
            }
        }
        let [Some(key), Some(value), Some(query)] = by_input else { return Ok(None) };
        let dx = self.ex.add(&key, &value)?;
        self.add_rows(&dx, &query, tape.first.is_some()).map(Some)
    }

    /// Adds gradients of all tokens, or of token 0.
    fn add_rows(
        &mut self,
        dx: &E::Tensor,
        more: &E::Tensor,
        first_only: bool,
    ) -> Result<E::Tensor, E::Error> {
        if first_only { self.ex.add_to_first_token(dx, more) } else { self.ex.add(dx, more) }
    }
}
