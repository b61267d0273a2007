//! Dry runs count what encrypted runs do. On toy parameters, which are insecure.

use crate::world::sample::{SENTENCES, Sample, batch as send_batch, config, send_weights};
use crate::world::{Toy, World};
use std::cell::RefCell;
use std::collections::BTreeMap;
use veilformer::accel::Accelerator;
use veilformer::ckks::ParametersLiteral;
use veilformer::ring::Basis;
use veilformer::transformer::{AdamWHe, Config, Kernel, Trainable};
use veilformer_engine::plan::{Counting, Job, Rates, Refusal, Subject, count, job_keys};
use veilformer_engine::{Engine, Moment, Operation, Watched};
use veilformer_multicore::Multicore;
use veilformer_plain::random::Random;

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
            Job::Inference(_) => engine.infer(batch).unwrap(),
            Job::Step(_, optimizer) => engine.train(batch, optimizer, 1, 2).unwrap(),
        };
    });
    (seen.into_inner(), world.peak_limbs())
}

#[test]
fn a_dry_run_counts_what_an_encrypted_one_does() {
    let adapters = Trainable::Adapters;
    for (layers, first_norm, rank, job) in [
        (1, false, 0, Job::Inference(None)),
        (2, true, 2, Job::Inference(Some(adapters))),
        (1, true, 2, Job::Step(adapters, AdamWHe::paper(2e-2, 1e-2))),
    ] {
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
        let stands = dry.phases.iter().flat_map(|phase| &phase.bootstraps);
        let stood: usize = stands.map(|stand| stand.full + stand.half).sum();
        let bootstraps = [Operation::Bootstrap, Operation::HalfBootstrap].map(|o| dry.operations(o));
        assert_eq!(stood, bootstraps.into_iter().sum::<usize>());
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
        let keys = job_keys(parameters, &sample.config, &job).unwrap();
        let fewer = count(&Subject { keys: &keys, ..subject }, &model, SENTENCES, &job).unwrap();
        assert_eq!(fewer.used, dry.used);
    }
}

/// The paper's four, at the parameters and sizes of the benches: nothing overflows, no key is missing.
#[test]
fn baselines_fit_secure_parameters() {
    let parameters = ParametersLiteral::N16_MATRIX.check().unwrap();
    const BATCH: usize = 16;
    let optimizer = AdamWHe::paper(2e-2, 1e-2);
    for (kernel, trained) in [
        (Kernel::Gaussian, Trainable::Adapters),
        (Kernel::Softmax, Trainable::Adapters),
        (Kernel::Gaussian, Trainable::Matrices),
        (Kernel::Softmax, Trainable::Matrices),
    ] {
        let job = Job::Step(trained, optimizer);
        let lora_rank = if trained == Trainable::Matrices { 0 } else { 2 };
        let sizes =
            Config { width: 128, length: 64, feed_forward: 256, head_hidden: 128, ..config(2, false, 0) };
        let sample = Sample::with_trained(Config { kernel, lora_rank, classes: 2, ..sizes }, trained, 1);
        let model = sample.weights();
        let keys = job_keys(&parameters, &sample.config, &job).unwrap();
        let subject = Subject { parameters: &parameters, keys: &keys, threads: 2, limbs: [1 << 15, 1 << 16] };
        let dry =
            count(&subject, &model, BATCH, &job).unwrap_or_else(|e| panic!("{kernel:?}, {trained:?}: {e}"));
        let bootstraps = [Operation::Bootstrap, Operation::HalfBootstrap].map(|o| dry.operations(o));
        println!("{kernel:?}, {trained:?}: {bootstraps:?} bootstraps, {:?} limbs", dry.peak);
        println!("key switches by level: {:?}", dry.used.each_ref().map(|used| &used.switches));
        assert!(dry.peak[0] < subject.limbs[0] && dry.peak[1] < subject.limbs[1]);
        // Weights that are encrypted cannot be the factors of slots.
        let transforms = if trained == Trainable::Adapters { 4 } else { 0 };
        assert_eq!(dry.operations(Operation::Transform), transforms);
    }
}

#[test]
fn random_jobs_are_refused_or_succeed() {
    let (mut planned, mut refused) = (Vec::new(), 0);
    let world = World::new(ParametersLiteral::INSECURE_TOY_MATRIX, LIMBS);
    let parameters = &world.parameters[0];
    for seed in 0..24 {
        let mut random = Random::new(seed, 77);
        let mut of = |choices: &[usize]| choices[random.next_u64() as usize % choices.len()];
        let (heads, rank) = (of(&[1, 2, 3, 4]), of(&[0, 0, 1, 2, 3]));
        let config = Config {
            heads,
            width: heads * of(&[2, 8, 8, 16, 256]),
            length: of(&[8, 16, 16, 32]),
            feed_forward: of(&[8, 24, 40]),
            head_hidden: of(&[8, 20]),
            head_rank: of(&[0, 0, 0, 2]),
            ..config(of(&[1, 2, 3]), of(&[0, 1]) == 1, rank)
        };
        let encrypted = (rank > 0).then_some(Trainable::Adapters);
        let job = match encrypted {
            Some(set) if of(&[0, 1]) == 1 => Job::Step(set, AdamWHe::paper(2e-2, 1e-2)),
            _ => Job::Inference(encrypted),
        };
        let sample = Sample::new(config, seed);
        let model = sample.weights();
        let keys = job_keys(parameters, &sample.config, &job).map_err(Refusal::from);
        let dry = keys.and_then(|keys| {
            let subject = Subject { parameters, keys: &keys, threads: 2, limbs: LIMBS };
            count(&subject, &model, SENTENCES, &job)
        });
        match dry {
            Ok(dry) => planned.push((dry.peak, sample, job)),
            Err(error) => {
                println!("{config:?}: {error}");
                refused += 1;
            }
        }
    }
    println!("{} planned, {refused} refused", planned.len());
    assert!(planned.len() >= 4 && refused >= 1);
    // Two of them on ciphertexts: the smallest of each job.
    planned.sort_by_key(|(peak, ..)| *peak);
    for wanted in [true, false] {
        let of_job = planned.iter().find(|(.., job)| matches!(job, Job::Inference(_)) == wanted);
        let (_, sample, job) = of_job.unwrap();
        let world = World::new(ParametersLiteral::INSECURE_TOY_MATRIX, LIMBS);
        carry_out(sample, &world, job);
    }
}

#[test]
fn rates_are_measured_within_the_limbs_they_ask_for_and_scale_everything() {
    let big = ParametersLiteral::INSECURE_TOY_MATRIX.check().unwrap();
    let small = big.small_ring().unwrap();
    for (parameters, threads) in [(&big, 1), (&big, 3), (&small, 2)] {
        let limbs = Rates::limbs(parameters.degree(), threads);
        let accelerator = Multicore::new(parameters.chain(), threads, limbs).unwrap();
        let rates = accelerator.run(|| Rates::measure(&accelerator, threads)).unwrap();
        assert!(rates.together.is_finite() && rates.together > 0.0, "{rates:?}");
        let counting = Counting::new(parameters.chain(), threads, 8);
        let mut limb = [counting.allocate().unwrap()];
        counting.ntt_forward(Basis::level(0), &mut limb).unwrap();
        let (work, twice) = (counting.work(), Rates { together: 2.0 * rates.together, ..rates });
        assert!(rates.seconds(&work) > 0.0 && twice.seconds(&work) == 2.0 * rates.seconds(&work));
        let processors = |rates: &Rates| rates.processor_seconds(&work, threads);
        assert_eq!(processors(&twice), 2.0 * processors(&rates));
    }
}
