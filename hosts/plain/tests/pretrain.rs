//! The batched network against the plain executor and numeric gradients, and a run that is stopped and taken up.

use std::fs;

use veilformer::transformer::{Config, Executor, Kernel, Loss, Norm, Parameter, Projection, Site, Targets};
use veilformer_plain::executor::{Functions, PlainExecutor};
use veilformer_plain::parameters::{Parameters, parameter_name};
use veilformer_plain::pretrain::{
    Batch, Bound, Bounds, Masking, PretrainError, Pretraining, Recipe, Shares, segments, step, stream,
};
use veilformer_plain::random::Random;
use veilformer_plain::run::{embed, mask_tensor};
use veilformer_plain::tensor::Tensor;
use veilformer_plain::tokenizer::{FIRST, PAD, SEPARATOR, Sequence, Tokenizer};

fn config(first_norm: bool) -> Config {
    Config {
        layers: 2,
        width: 12,
        heads: 2,
        length: 5,
        feed_forward: 7,
        head_rank: 0,
        head_hidden: 4,
        classes: 2,
        vocabulary: 11,
        lora_rank: 0,
        lora_targets: Targets::ALL,
        kernel: Kernel::Gaussian,
        first_norm,
        embedding_affine: first_norm,
        norm_epsilon: 1e-5,
        loss: Loss::CrossEntropy,
    }
}

/// Narrow enough that every site is penalised somewhere.
fn bounds(config: &Config) -> Bounds {
    Bounds::new(config, |site| match site {
        Site::FirstNorm(_) | Site::SecondNorm(_) | Site::FinalNorm => {
            Bound { low: 0.9, high: 1.1, weight: 3.0 }
        }
        Site::Kernel(_) => Bound { low: -0.5, high: 0.0, weight: 2.0 },
        _ => Bound { low: -0.4, high: 0.4, weight: 1.0 },
    })
}

fn batch(config: &Config) -> Batch {
    let mut random = Random::new(8, 0);
    let tokens =
        (0..3 * config.length).map(|_| (random.next_u64() % config.vocabulary as u64) as u32).collect();
    Batch { tokens, used: vec![5, 3, 4], predictions: vec![(0, 4), (2, 7), (2, 3), (6, 1), (13, 10)] }
}

/// Weight · Σ distance² of arguments from a site's interval.
fn distance(bounds: &Bounds, site: Site, arguments: impl Iterator<Item = f64>) -> f64 {
    let bound = bounds.of(site);
    let squares = arguments.map(|u| (u - u.clamp(f64::from(bound.low), f64::from(bound.high))).powi(2));
    f64::from(bound.weight) * squares.sum::<f64>()
}

fn variances(config: &Config, x: &Tensor<f64>) -> Vec<f64> {
    (0..x.rows())
        .map(|i| {
            let (row, width) = (x.row(i), config.width as f64);
            let mean = row.iter().sum::<f64>() / width;
            row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / width + config.norm_epsilon
        })
        .collect()
}

/// The loss of a batch with its penalties, one operation of the plain executor after the other.
fn reference(config: &Config, weights: &Parameters<f64>, batch: &Batch, bounds: &Bounds) -> f64 {
    let mut ex = PlainExecutor::new(config, weights, Functions::Exact);
    let (mut loss, mut penalty) = (0.0, 0.0);
    for (sequence, &used) in batch.used.iter().enumerate() {
        let first_row = sequence * config.length;
        let tokens = batch.tokens[first_row..][..config.length].to_vec();
        let mut x = embed(&mut ex, config, weights, &tokens).unwrap();
        let mask = mask_tensor(&Sequence { tokens, used, truncated: false });
        for layer in 0..config.layers {
            let mut normed = x.clone();
            if config.has_first_norm(layer) {
                let v = variances(config, &x);
                penalty += distance(bounds, Site::FirstNorm(layer), v.into_iter());
                normed = ex.layer_norm(&x, Norm::First(layer)).unwrap();
            }
            let [q, k, v] = [Projection::Query, Projection::Key, Projection::Value]
                .map(|p| ex.linear(&normed, Parameter::Attention(p, layer)).unwrap());
            let v = ex.mask_tokens(&v, &mask).unwrap();
            let scores = if config.kernel == Kernel::Softmax {
                let scale = 2.0 * config.kernel_scale();
                let product = |i: usize, j: usize, h: usize| -> f64 {
                    let columns = h * config.head_width()..(h + 1) * config.head_width();
                    columns.map(|c| scale * q.row(i)[c] * k.row(j)[c]).sum()
                };
                let of_head = |h| (0..config.length).flat_map(move |i| (0..used).map(move |j| (i, j, h)));
                let exponents = (0..config.heads).flat_map(of_head).map(|(i, j, h)| product(i, j, h));
                penalty += distance(bounds, Site::Kernel(layer), exponents);
                ex.softmax_scores(&q, &k, &mask, layer).unwrap()
            } else {
                let scores = ex.gaussian_scores(&q, &k, layer).unwrap();
                penalty += distance(bounds, Site::Kernel(layer), scores.data().iter().map(|s| s.ln()));
                scores
            };
            let mixed = ex.mix(&scores, &v).unwrap();
            let attention = ex.linear(&mixed, Parameter::Output(layer)).unwrap();
            let middle = ex.add(&x, &attention).unwrap();
            penalty += distance(bounds, Site::SecondNorm(layer), variances(config, &middle).into_iter());
            let normed = ex.layer_norm(&middle, Norm::Second(layer)).unwrap();
            let hidden = ex.linear(&normed, Parameter::Expand(layer)).unwrap();
            for i in 0..hidden.rows() {
                let b = hidden.row(i)[config.feed_forward..].iter().copied();
                penalty += distance(bounds, Site::Gate(layer), b);
            }
            let gated = ex.gate(&hidden, layer).unwrap();
            let contracted = ex.linear(&gated, Parameter::Contract(layer)).unwrap();
            x = ex.add(&middle, &contracted).unwrap();
        }
        let spread = variances(config, &x);
        let y = ex.layer_norm(&x, Norm::Final).unwrap();
        for &(row, target) in &batch.predictions {
            let Some(i) = row.checked_sub(first_row).filter(|&i| i < config.length) else { continue };
            let table = weights.get(Parameter::TokenEmbedding).chunks_exact(config.width);
            let logits: Vec<f64> = table.map(|e| e.iter().zip(y.row(i)).map(|(e, y)| e * y).sum()).collect();
            loss += logits.iter().map(|y| y.exp()).sum::<f64>().ln() - logits[target as usize];
            penalty += distance(bounds, Site::FinalNorm, spread[i..=i].iter().copied());
        }
    }
    loss / batch.predictions.len() as f64 + 0.5 * penalty / batch.tokens.len() as f64
}

#[test]
fn loss_and_gradients_are_the_plain_executors() {
    for (first_norm, kernel) in [
        (false, Kernel::Gaussian),
        (true, Kernel::Gaussian),
        (false, Kernel::Softmax),
        (true, Kernel::Softmax),
    ] {
        let config = Config { kernel, ..config(first_norm) };
        let (bounds, batch) = (bounds(&config), batch(&config));
        let mut weights = Parameters::<f64>::random(&config, 4);
        let mut random = Random::new(4, 99);
        weights.values_mut().iter_mut().for_each(|w| *w += 0.2 * random.normal());
        // Rounded, so that both compute with the same weights.
        let single = weights.convert::<f32>();
        weights = single.convert();
        let shares = Shares {
            prediction: 1.0 / batch.predictions.len() as f32,
            penalty: 1.0 / batch.tokens.len() as f32,
        };
        let mut gradients = Parameters::zeros(&config);
        let outcome = step(&config, &single, &batch, (&bounds, shares), &mut gradients);
        let free = Bounds::new(&config, |_| Bound::NONE);
        let expected = reference(&config, &weights, &batch, &free);
        let loss = outcome.loss / batch.predictions.len() as f64;
        assert!((loss - expected).abs() < 1e-5, "{loss} against {expected}");

        let layout = weights.layout().to_vec();
        for (parameter, range) in layout {
            let found = &gradients.values()[range.clone()];
            let size = found.iter().fold(0.0f32, |m, g| m.max(g.abs()));
            for (i, &g) in range.zip(found) {
                let w = weights.values()[i];
                let mut at = |x: f64| {
                    weights.values_mut()[i] = x;
                    reference(&config, &weights, &batch, &bounds)
                };
                let numeric = (at(w + 1e-5) - at(w - 1e-5)) / 2e-5;
                weights.values_mut()[i] = w;
                let error = (numeric - f64::from(g)).abs();
                let name = parameter_name(parameter);
                assert!(error <= 2e-4 * f64::from(size.max(0.02)), "{name} {i}: {g} against {numeric}");
            }
        }
    }
}

const VOCABULARY: &str = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\nc\nd\ne\n.";

fn masking(share: f64) -> Masking {
    Masking { share, mask: 4, vocabulary: 11, first: 3 }
}

#[test]
fn segments_cover_the_stream_once() {
    let tokenizer = Tokenizer::from_vocabulary(VOCABULARY).unwrap();
    let text = "a b c d e . a b c d e .\n\n a b\nc d e .\n".repeat(40);
    let stream = stream(&tokenizer, &text).unwrap();
    assert_eq!(stream[..13], [5, 6, 7, 8, 9, 10, 5, 6, 7, 8, 9, 10, SEPARATOR as u16]);
    let mut cut = segments(&stream, 24, 1, 0);
    assert_ne!(cut, segments(&stream, 24, 1, 1));
    cut.sort_unstable();
    for pair in cut.windows(2) {
        assert_eq!(pair[0].0 + u32::from(pair[0].1), pair[1].0);
        assert!(pair[0].1 <= 23);
    }
    assert!(cut[0].0 < 23 && cut.iter().any(|s| s.1 < 23));
    let last = cut.last().unwrap();
    assert_eq!(last.0 as usize + usize::from(last.1), stream.len());

    let batch = masking(0.5).batch(&stream, &cut, 24, &mut Random::new(1, 0));
    for (&(_, taken), (tokens, &used)) in cut.iter().zip(batch.tokens.chunks(24).zip(&batch.used)) {
        assert_eq!(tokens[0], FIRST);
        assert!(used == 1 + usize::from(taken) || used == usize::from(taken));
        assert!(tokens[used..].iter().all(|&t| t == PAD));
    }
    let (mut hidden, mut shown, mut drawn) = (0, 0, 0);
    for &(row, target) in &batch.predictions {
        let (start, taken) = cut[row / 24];
        if row % 24 == 0 {
            let pieces = &stream[start as usize..][..usize::from(taken)];
            assert!(target != SEPARATOR && pieces.contains(&(target as u16)));
            drawn += 1;
        } else {
            assert_eq!(target, u32::from(stream[start as usize + row % 24 - 1]));
            hidden += usize::from(batch.tokens[row] == 4);
            shown += usize::from(batch.tokens[row] == target);
        }
    }
    assert!(hidden > 2 * shown && shown > 0, "{hidden} {shown}");
    assert_eq!(drawn, 3 * cut.len());
}

fn recipe() -> Recipe {
    Recipe {
        batch: 8,
        part: 3,
        steps: 60,
        learning_rate: 2e-2,
        position_scale: 1.0,
        rise: 0.25,
        betas: (0.9, 0.98),
        epsilon: 1e-8,
        weight_decay: 0.01,
        clip: 1.0,
        // What token 0 draws cannot be known, only how often.
        masking: Masking { first: 1, ..masking(0.25) },
        seed: 2,
    }
}

#[test]
fn a_run_learns_and_a_stopped_one_goes_on_as_if_it_had_not() {
    let config = Config { length: 8, ..config(false) };
    let tokenizer = Tokenizer::from_vocabulary(VOCABULARY).unwrap();
    let stream = stream(&tokenizer, &"a b c d e . a b c d e .\n".repeat(50)).unwrap();
    let new = |recipe| Pretraining::new(&config, recipe, bounds(&config), &stream).unwrap();
    let path = std::env::temp_dir().join(format!("veilformer-pretrain-{}.safetensors", std::process::id()));
    let mut run = new(recipe());
    let first = run.step().unwrap().loss;
    while run.steps_done() < 30 {
        run.step().unwrap();
    }
    run.save(&path).unwrap();
    let mut last = 0.0;
    while run.steps_done() < 60 {
        last = run.step().unwrap().loss;
    }
    assert!(last < 0.6 * first, "{last} after {first}");

    let mut again = new(recipe());
    again.resume(&path).unwrap();
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    one.install(|| {
        while again.steps_done() < 60 {
            again.step().unwrap();
        }
    });
    assert_eq!(run.parameters(), again.parameters());

    let mut other = new(Recipe { seed: 3, ..recipe() });
    let message = other.resume(&path).unwrap_err().to_string();
    assert!(message.contains("another recipe"), "{message}");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 4]).unwrap();
    assert!(matches!(again.resume(&path), Err(PretrainError::Checkpoint { .. })));
    fs::remove_file(&path).unwrap();
    assert!(again.resume(&path).unwrap_err().to_string().contains("checkpoint"));
}

#[test]
fn pretraining_says_why_it_stops() {
    let config = config(false);
    let short = Pretraining::new(&config, recipe(), bounds(&config), &[5, 6]).err().unwrap().to_string();
    assert!(short.contains("2 tokens: give a text of at least 5"), "{short}");
    let tokens: Vec<u16> = (0..200).map(|i| 5 + i % 6).collect();
    let wild = Recipe { learning_rate: f64::INFINITY, ..recipe() };
    let mut run = Pretraining::new(&config, wild, bounds(&config), &tokens).unwrap();
    let error = (0..5).find_map(|_| run.step().err()).unwrap().to_string();
    assert!(error.contains("smaller learning rate"), "{error}");
}
