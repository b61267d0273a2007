//! Dry runs count what encrypted runs do. On toy parameters, which are insecure.

use crate::world::sample::{SENTENCES, Sample, batch as send_batch, config, send_weights};
use crate::world::{Toy, World};
use std::cell::RefCell;
use std::collections::BTreeMap;
use veilformer::ckks::ParametersLiteral;
use veilformer::transformer::AdamWHe;
use veilformer_engine::plan::{Job, Subject, count, job_keys};
use veilformer_engine::{Engine, Moment, Operation, Watched};

const LIMBS: [usize; 2] = [14000, 80000];

/// Operations of a job on ciphertexts, and the most limbs of both rings.
fn carry_out(sample: &Sample, world: &World, job: &Job) -> (BTreeMap<Operation, usize>, [usize; 2]) {
    let client = world.client();
    let seen = RefCell::new(BTreeMap::new());
    world.serve(&client, &sample.keys(world), |algebra| {
        let watched: Watched<Toy<'_>, _> = Watched::new(algebra, |operation, moment| {
            *seen.borrow_mut().entry(operation).or_insert(0) += usize::from(moment == Moment::End);
        });
        let model = sample.weights();
        let mut engine = Engine::new(watched, &model, SENTENCES).unwrap();
        if sample.config.lora_rank > 0 {
            send_weights(&mut engine, &client, sample, world);
        }
        let batch = send_batch(&engine, &client, sample, world);
        match job {
            Job::Inference => engine.infer(batch).unwrap(),
            Job::Step(optimizer) => engine.train(batch, optimizer, 1, 2).unwrap(),
        };
    });
    (seen.into_inner(), world.peak_limbs())
}

#[test]
fn a_dry_run_counts_what_an_encrypted_one_does() {
    let step = Job::Step(AdamWHe::paper(2e-2, 1e-2));
    for (layers, first_norm, rank, job) in
        [(1, false, 0, Job::Inference), (2, true, 2, Job::Inference), (1, true, 2, step)]
    {
        let world = World::new(ParametersLiteral::INSECURE_TOY_MATRIX, LIMBS);
        let sample = Sample::new(config(layers, first_norm, rank), 2);
        let (operations, peak) = carry_out(&sample, &world, &job);
        let (model, parameters) = (sample.weights(), &world.parameters[0]);
        let keys = sample.keys(&world);
        let subject = Subject { parameters, keys: &keys, threads: 2, limbs: LIMBS };
        let dry = count(&subject, &model, SENTENCES, &job).unwrap();
        let found: BTreeMap<Operation, usize> =
            operations.keys().map(|&operation| (operation, dry.operations(operation))).collect();
        assert_eq!(found, operations);
        for (dry, real) in dry.peak.into_iter().zip(peak) {
            let ratio = dry as f64 / real as f64;
            println!("{layers} layers, rank {rank}: limbs {dry} for {real}, {ratio:.3}");
            assert!((0.9..1.1).contains(&ratio), "{dry} limbs for {real}");
        }
        for (used, requested) in dry.used.iter().zip(&keys) {
            assert!(!used.keys.is_empty());
            for (id, level) in &used.keys {
                let request = requested.iter().find(|request| request.id == *id).unwrap();
                assert!(request.level >= *level, "{id:?} at {level}");
            }
        }
        // Without encrypted weights fewer keys do.
        let keys = job_keys(parameters, &model, SENTENCES, &job).unwrap();
        let fewer = count(&Subject { keys: &keys, ..subject }, &model, SENTENCES, &job).unwrap();
        assert_eq!(fewer.used, dry.used);
    }
}
