//! The encrypted forward pass against the same polynomials in f64, on toy parameters, which are insecure.

use crate::world::sample::{LENGTH, SENTENCES, Sample, config, error, full, send, send_weights, softmax};
use crate::world::{Toy, World};
use veilformer::ckks::ParametersLiteral;
use veilformer::transformer::{Config, Executor, Norm, Parameter, Projection, forward};
use veilformer_engine::{Engine, Moment, Operation, Tensor, Watched};
use veilformer_plain::run::mask_tensor;
use veilformer_plain::tensor::Tensor as Plain;

#[test]
fn operation_by_operation() {
    let world = World::new(ParametersLiteral::INSECURE_TOY_MATRIX, [12000, 60000]);
    let sample = Sample::new(config(2, false, 0), 1);
    let client = world.client();
    world.serve(&client, &sample.keys(&world), |algebra| {
        let model = sample.weights();
        let mut engine = Engine::new(algebra, &model, SENTENCES).unwrap();
        let [x, mask] = send(&mut engine, &client, &sample, &world);
        let mut plain: Vec<_> = (0..SENTENCES).map(|_| sample.executor()).collect();
        let inputs: Vec<_> = (0..SENTENCES).map(|s| sample.input(s)).collect();
        let check = |name: &str, found: &Tensor<Toy<'_>>, expected: &[Plain<f64>], tolerance: f64| {
            let error =
                error(&client, found.matrices(), LENGTH, |s, row, column| expected[s].row(column)[row]);
            println!("{name}: {error:.2e}");
            assert!(error < tolerance, "{name}: {error}");
        };
        let each =
            |f: &mut dyn FnMut(usize) -> Plain<f64>| -> Vec<Plain<f64>> { (0..SENTENCES).map(f).collect() };
        check("input", &x, &inputs, 1e-6);
        let weight = |p| Parameter::Attention(p, 0);
        let v = engine.linear(&x, weight(Projection::Value)).unwrap();
        let value =
            each(&mut |s| plain[s].linear(&inputs[s], Parameter::Attention(Projection::Value, 0)).unwrap());
        check("value", &v, &value, 1e-3);
        let q = engine.linear(&x, weight(Projection::Query)).unwrap();
        let k = engine.linear(&x, weight(Projection::Key)).unwrap();
        let query =
            each(&mut |s| plain[s].linear(&inputs[s], Parameter::Attention(Projection::Query, 0)).unwrap());
        let key =
            each(&mut |s| plain[s].linear(&inputs[s], Parameter::Attention(Projection::Key, 0)).unwrap());
        let v = engine.mask_tokens(&v, &mask).unwrap();
        let scores = engine.gaussian_scores(&q, &k, 0).unwrap();
        let mixed = engine.mix(&scores, &v).unwrap();
        let mix = each(&mut |s| {
            let scores = plain[s].gaussian_scores(&query[s], &key[s], 0).unwrap();
            let mask = mask_tensor(&sample.data[s].sequence);
            let value = plain[s].mask_tokens(&value[s], &mask).unwrap();
            plain[s].mix(&scores, &value).unwrap()
        });
        check("mix", &mixed, &mix, 1e-2);
        let out = engine.linear(&mixed, Parameter::Output(0)).unwrap();
        let middle = engine.add(&x, &out).unwrap();
        let mid = each(&mut |s| {
            let out = plain[s].linear(&mix[s], Parameter::Output(0)).unwrap();
            plain[s].add(&inputs[s], &out).unwrap()
        });
        let normed = engine.layer_norm(&middle, Norm::Second(0)).unwrap();
        let hidden = engine.linear(&normed, Parameter::Expand(0)).unwrap();
        let gated = engine.gate(&hidden, 0).unwrap();
        let gate = each(&mut |s| {
            let normed = plain[s].layer_norm(&mid[s], Norm::Second(0)).unwrap();
            let hidden = plain[s].linear(&normed, Parameter::Expand(0)).unwrap();
            plain[s].gate(&hidden, 0).unwrap()
        });
        check("gate", &gated, &gate, 1e-2);
        let first = engine.first_token(&normed).unwrap();
        assert_eq!(first.matrices().len(), 1);
    });
}

#[test]
fn hidden_layers_out_of_slots() {
    let world = World::new(ParametersLiteral::INSECURE_TOY_MATRIX, [28000, 60000]);
    let client = world.client();
    let wide = full(2, false, 0);
    let whole = Config { feed_forward: 128, ..wide };
    for (config, in_slots) in [(wide, true), (whole, true), (config(2, false, 0), false)] {
        let sample = Sample::new(config, 1);
        world.serve(&client, &sample.keys(&world), |algebra| {
            let model = sample.weights();
            let mut operations = Vec::new();
            let watched = Watched::new(algebra, |operation, moment| {
                if moment == Moment::Begin {
                    operations.push(operation);
                }
            });
            let mut engine = Engine::new(watched, &model, SENTENCES).unwrap();
            let [x, _] = send(&mut engine, &client, &sample, &world);
            for recording in [false, true] {
                engine.record(recording);
                let normed = engine.layer_norm(&x, Norm::Second(0)).unwrap();
                assert_eq!(normed.matrices().is_empty(), in_slots);
                let hidden = engine.linear(&normed, Parameter::Expand(0)).unwrap();
                let gated = engine.gate(&hidden, 0).unwrap();
                let expected: Vec<_> = (0..SENTENCES)
                    .map(|s| {
                        let mut plain = sample.executor();
                        let normed = plain.layer_norm(&sample.input(s), Norm::Second(0)).unwrap();
                        let hidden = plain.linear(&normed, Parameter::Expand(0)).unwrap();
                        plain.gate(&hidden, 0).unwrap()
                    })
                    .collect();
                let value = |s: usize, row: usize, column: usize| expected[s].row(column)[row];
                let error = error(&client, gated.matrices(), LENGTH, value);
                println!("{} of {}, recording {recording}: {error:.2e}", config.feed_forward, config.width);
                assert!(error < 1e-3, "{error}");
            }
            drop(engine);
            assert_eq!(operations.contains(&Operation::Transform), in_slots);
        });
    }
}

#[test]
fn logits_of_whole_models() {
    for config in [
        config(1, false, 0),
        config(2, false, 0),
        config(2, true, 0),
        config(2, false, 2),
        config(2, true, 3),
        softmax(1, false, 0),
        softmax(2, true, 2),
    ] {
        let world = World::new(ParametersLiteral::INSECURE_TOY_MATRIX, [12000, 60000]);
        let sample = Sample::new(config, 2);
        let client = world.client();
        world.serve(&client, &sample.keys(&world), |algebra| {
            let model = sample.weights();
            let mut engine = Engine::new(algebra, &model, SENTENCES).unwrap();
            let [x, mask] = send(&mut engine, &client, &sample, &world);
            if config.lora_rank > 0 {
                send_weights(&mut engine, &client, &sample, &world);
            }
            let logits = forward(&sample.config, &mut engine, x, &mask).unwrap();
            let expected: Vec<_> = (0..SENTENCES)
                .map(|s| {
                    let mask = mask_tensor(&sample.data[s].sequence);
                    forward(&sample.config, &mut sample.executor(), sample.input(s), &mask).unwrap()
                })
                .collect();
            let error = error(&client, logits.matrices(), SENTENCES, |_, class, s| expected[s].data()[class]);
            let largest = expected.iter().flat_map(|y| y.data()).fold(0.0f64, |m, y| m.max(y.abs()));
            let Config { layers, lora_rank, kernel, .. } = config;
            println!("{kernel:?}, {layers} layers, rank {lora_rank}: {error:.2e} of {largest:.2e}");
            assert!(error < largest / 256.0, "{error} of {largest}");
        });
    }
}
