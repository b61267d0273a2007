//! Known answers of every kernel on every accelerator, from `vectors/reference.py`, which computes them from the
//! definitions and shares no code with this project.

use serde_json::Value;
use sha2::{Digest, Sha256};
use veilformer::accel::conformance::{Bench, Fill, Kernel};
use veilformer::accel::{Accelerator, Portable};
use veilformer::memory::{Arena, LimbPool};
use veilformer::ring::{Basis, ModulusChain, RingTables, Word};
use veilformer_multicore::Multicore;
use veilformer_multicore::kernels::{Kernels, Path};

struct Answer {
    kernel: Kernel,
    chain: ModulusChain,
    digit_size: usize,
    fill: Fill,
    seed: u64,
    limbs: usize,
    sha256: String,
}

fn answers() -> Vec<Answer> {
    let all: Value = serde_json::from_str(include_str!("../vectors/kernels.json")).unwrap();
    let number = |value: &Value| value.as_u64().unwrap();
    let primes = |value: &Value| value.as_array().unwrap().iter().map(number).collect::<Vec<_>>();
    let answer = |value: &Value| Answer {
        kernel: Kernel::ALL.into_iter().find(|k| value["kernel"] == format!("{k:?}")).unwrap(),
        chain: ModulusChain::new(
            number(&value["log_degree"]) as u32,
            &primes(&value["ordinary"]),
            &primes(&value["special"]),
        )
        .unwrap(),
        digit_size: number(&value["digit_size"]) as usize,
        fill: Fill::ALL.into_iter().find(|f| value["fill"] == format!("{f:?}")).unwrap(),
        seed: number(&value["seed"]),
        limbs: number(&value["limbs"]) as usize,
        sha256: value["sha256"].as_str().unwrap().into(),
    };
    all.as_array().unwrap().iter().map(answer).collect()
}

fn check<A: Accelerator>(answer: &Answer, accelerator: &A, name: &str) {
    let n = answer.chain.degree();
    let (mut row, mut signed) = (vec![A::Word::from_u64(0); n], vec![0; n]);
    let basis = Basis::level(answer.chain.ordinary() - 1).with_special(answer.chain.special());
    let outputs = Bench::new(accelerator, &mut row, &mut signed, answer.fill, answer.seed)
        .run(answer.kernel, basis, answer.digit_size)
        .unwrap();
    assert_eq!(outputs.len(), answer.limbs);
    let mut hash = Sha256::new();
    for limb in &outputs {
        accelerator.read(limb, &mut row).unwrap();
        for word in &row {
            hash.update(word.to_u64().to_le_bytes());
        }
    }
    let found: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(found, answer.sha256, "{:?} of {:?} on {name}", answer.kernel, answer.fill);
}

fn portable<W: Word>(answer: &Answer) {
    const LIMBS: usize = 256;
    let (zero, n) = (W::from_u64(0), answer.chain.degree());
    let mut table_words = vec![zero; RingTables::<W>::words_needed(&answer.chain)];
    let tables = RingTables::new(&answer.chain, &mut Arena::new(&mut table_words)).unwrap();
    let mut pool_words = vec![zero; LIMBS * n];
    let pool = LimbPool::<W, LIMBS>::new(&mut Arena::new(&mut pool_words), n, LIMBS).unwrap();
    check(answer, &Portable::new(&tables, &pool).unwrap(), "Portable");
}

#[test]
fn portable_in_64_bits() {
    answers().iter().for_each(portable::<u64>);
}

#[test]
fn portable_in_32_bits() {
    let narrow = |answer: &&Answer| answer.chain.moduli().iter().all(|m| m.value() < 1 << 30);
    assert!(answers().iter().filter(narrow).map(portable::<u32>).count() >= 2 * Kernel::ALL.len());
}

#[test]
fn multicore_on_every_path() {
    for answer in &answers() {
        for path in Path::available() {
            for threads in [1, 2] {
                let kernels = Kernels::new(path).unwrap();
                let accelerator = Multicore::with_kernels(&answer.chain, kernels, threads, 256).unwrap();
                check(answer, &accelerator, path.name());
            }
        }
    }
}
