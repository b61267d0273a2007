//! What the program asks of an executor, written down by one that does nothing else.

extern crate std;

use super::super::*;
use super::config;
use core::convert::Infallible;
use std::string::String;
use std::vec::Vec;

/// Notes every call. A tensor is nothing.
struct Trace {
    trained: Trainable,
    calls: Vec<String>,
}

impl Trace {
    fn note(&mut self, call: String) -> Result<(), Infallible> {
        self.calls.push(call);
        Ok(())
    }

    fn count(&self, start: &str) -> usize {
        self.calls.iter().filter(|call| call.starts_with(start)).count()
    }

    fn has(&self, call: &str) -> bool {
        self.calls.iter().any(|c| c == call)
    }
}

/// Operations that only leave their name and their last argument.
macro_rules! noted {
    ($($name:ident($($tensor:ident),*; $($what:ident: $kind:ty)?);)*) => {$(
        fn $name(&mut self, $($tensor: &(),)* $($what: $kind)?) -> Result<(), Infallible> {
            $(let () = $tensor;)*
            #[allow(unused_mut)]
            let mut call = String::from(stringify!($name));
            $(call += &std::format!(" {:?}", $what);)?
            self.note(call)
        }
    )*};
}

impl Executor for Trace {
    type Tensor = ();
    type Error = Infallible;
    noted! {
        linear(x; weight: Parameter);
        add(a, b;);
        multiply(a, b;);
        apply(x; site: Site);
        layer_norm(x; norm: Norm);
        first_token(x;);
        mask_tokens(x, mask;);
        gaussian_scores(query, key; layer: usize);
        softmax_scores(query, key, mask; layer: usize);
        mix(scores, value;);
        gate(hidden; layer: usize);
    }
}

impl TrainingExecutor for Trace {
    fn trained(&self) -> Trainable {
        self.trained
    }
    noted! {
        subtract(a, b;);
        scale(x; factor: f64);
        linear_transposed(dy; weight: Parameter);
        accumulate(x, dy; weight: Parameter);
        head_products(x, y;);
        mix_transposed(scores, x;);
        weigh_by_rows(scores, x;);
        weigh_by_columns(scores, x;);
        kernel_backward(scores, d_scores; layer: usize);
        layer_norm_backward(x, dy; norm: Norm);
        gate_backward(hidden, d_gated; layer: usize);
        tanh_backward(x, y, dy;);
        add_to_first_token(x, first;);
        centre(x;);
        row_sums(x;);
    }
}

/// One sequence, forward and backward; whether a gradient by the input came back.
fn trace(config: &Config, trained: Trainable) -> (Trace, bool) {
    let mut trace = Trace { trained, calls: Vec::new() };
    let Ok(((), tape)) = forward_recorded(config, &mut trace, (), &());
    let Ok(()) = loss_gradient(config, &mut trace, &(), &());
    let Ok(d_input) = backward(config, &mut trace, tape, &(), &());
    (trace, d_input.is_some())
}

/// PAPER.md: 12 LoRA factors and 3 head matrices.
#[test]
fn the_paper_trains_fifteen_matrices() {
    let config = config();
    assert_eq!(Trainable::Adapters.parameters(&config).count(), 15);
    let (trace, by_input) = trace(&config, Trainable::Adapters);
    assert_eq!(trace.count("accumulate"), 15);
    for parameter in Trainable::Adapters.parameters(&config) {
        assert!(trace.has(&std::format!("accumulate {parameter:?}")), "{parameter:?}");
    }
    // Layer 0 stops at its LoRA factors; layer 1 lets gradients through.
    assert!(!by_input);
    assert!(
        !trace.has("linear_transposed Attention(Key, 0)") && !trace.has("linear_transposed LoraDown(Key, 0)")
    );
    assert!(trace.has("linear_transposed LoraUp(Key, 0)") && !trace.has("layer_norm_backward First(0)"));
    assert!(trace.has("linear_transposed Attention(Key, 1)") && trace.has("layer_norm_backward First(1)"));
}

#[test]
fn nothing_is_computed_for_projections_without_factors() {
    let value = Targets { query: false, key: false, value: true };
    let one = Config { layers: 1, lora_targets: value, ..config() };
    let (trace, _) = trace(&one, Trainable::Adapters);
    // The values' gradient needs no gradient of the scores.
    assert_eq!(trace.count("accumulate"), 2 + 3);
    assert_eq!((trace.count("head_products"), trace.count("kernel_backward")), (0, 0));
    // Queries alone: no product for the keys.
    let query = Targets { query: true, key: false, value: false };
    let (trace, _) = super::trace::trace(&Config { lora_targets: query, ..one }, Trainable::Adapters);
    assert_eq!((trace.count("mix_transposed"), trace.count("weigh_by_columns")), (0, 0));
}

#[test]
fn without_factors_the_head_is_trained_alone() {
    let (trace, _) = trace(&Config { lora_rank: 0, ..config() }, Trainable::Adapters);
    assert_eq!((trace.count("accumulate"), trace.count("layer_norm_backward")), (3, 0));
}

#[test]
fn full_training_reaches_every_matrix() {
    let config = config();
    for (trained, by_input) in [(Trainable::Server, false), (Trainable::Everything, true)] {
        let (trace, reached) = trace(&config, trained);
        assert_eq!(reached, by_input);
        let matrices = trained.parameters(&config).filter(|p| p.decays() && *p != Parameter::TokenEmbedding);
        assert_eq!(trace.count("accumulate"), matrices.count());
        assert_eq!(trace.count("layer_norm_backward"), 2 * config.layers + 1);
    }
}

#[test]
fn softmax_needs_no_distances() {
    let (gaussian, _) = trace(&config(), Trainable::Adapters);
    assert_eq!((gaussian.count("gaussian_scores"), gaussian.count("softmax_scores")), (2, 0));
    let (softmax, _) = trace(&Config { kernel: Kernel::Softmax, ..config() }, Trainable::Adapters);
    assert_eq!((softmax.count("gaussian_scores"), softmax.count("softmax_scores")), (0, 2));
    assert_eq!((softmax.count("weigh_by_rows"), gaussian.count("weigh_by_rows")), (0, 2));
}
