//! The inner part of a linear transform at N = 2^16: 27 ordinary and nine special primes, three digits, eight baby
//! steps. `fused` is the accelerator's kernel, `composed` the same from kernels on whole limbs.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use veilformer::accel::{Accelerator, Error, Factors, KeyRow, Step};
use veilformer::ring::{Basis, ModulusChain, primes_below};
use veilformer_benches::words;
use veilformer_multicore::{Limb, Multicore};

const LOG_DEGREE: u32 = 16;
const ORDINARY: usize = 27;
const SPECIAL: usize = 9;
const DIGITS: usize = 3;
const STEPS: usize = 8;

/// Limbs of one run of words each: what they hold does not matter to the time.
fn limbs(accelerator: &Multicore, count: usize) -> Vec<Limb> {
    let row = words(1 << LOG_DEGREE, 1 << 48, 1);
    let limb = || {
        let mut limb = accelerator.allocate().unwrap();
        accelerator.write(&mut limb, &row).unwrap();
        limb
    };
    (0..count).map(|_| limb()).collect()
}

type Rows<'a> = [&'a [KeyRow<'a, Limb>]; 2];

struct Inputs<'a> {
    level: Basis,
    x: [&'a [Limb]; 2],
    digits: &'a [&'a [Limb]],
    keys: &'a [Rows<'a>],
    factors: Factors<'a, Limb>,
}

fn fused(a: &Multicore, inputs: &Inputs<'_>, sums: &mut [[&mut [Limb]; 2]]) -> Result<(), Error> {
    let steps: Vec<Step<'_, Limb>> =
        inputs.keys.iter().enumerate().map(|(b, &key)| Step { galois: galois(b), key: Some(key) }).collect();
    a.hoisted_sums(inputs.level, inputs.x, inputs.digits, &steps, &inputs.factors, sums)
}

fn galois(b: usize) -> usize {
    (0..=b).fold(1, |g, _| 5 * g % (2 << LOG_DEGREE))
}

fn composed(a: &Multicore, inputs: &Inputs<'_>, sums: &mut [[&mut [Limb]; 2]]) -> Result<(), Error> {
    let (level, special) = (inputs.level, Basis::new(0, 0, SPECIAL));
    let basis = level.with_special(SPECIAL);
    let p: Vec<u64> = a.chain().of(level).map(|m| a.chain().product_mod(special, m)).collect();
    let mut temporary: Vec<Vec<Limb>> = Vec::new();
    for _ in 0..4 {
        temporary.push((0..basis.len()).map(|_| a.allocate()).collect::<Result<_, _>>()?);
    }
    let [u0, u1, r0, r1] = &mut temporary[..] else { return Ok(()) };
    for sum in sums.iter_mut().flatten() {
        a.clear(sum)?;
    }
    for (b, key) in inputs.keys.iter().enumerate() {
        a.inner_product(level, [&mut *u0, &mut *u1], inputs.digits, *key)?;
        a.multiply_scalar_add(level, &mut u0[..level.len()], inputs.x[0], &p)?;
        a.automorphism(basis, r0, u0, galois(b))?;
        a.automorphism(basis, r1, u1, galois(b))?;
        for (g, sum) in sums.iter_mut().enumerate() {
            for (i, factor) in u0.iter_mut().enumerate() {
                let place = inputs.factors.locate(1 << LOG_DEGREE, i, g * STEPS + b);
                let (limb, offset) = place.ok_or(Error::Range)?;
                a.repeat(factor, limb, offset, inputs.factors.repeat)?;
            }
            let [sum0, sum1] = sum;
            a.multiply_add(basis, sum0, r0, u0)?;
            a.multiply_add(basis, sum1, r1, u0)?;
        }
    }
    Ok(())
}

fn transform(c: &mut Criterion) {
    let all: Vec<u64> = primes_below(1 << 50, 2 << LOG_DEGREE).take(ORDINARY + SPECIAL).collect();
    let chain = ModulusChain::new(LOG_DEGREE, &all[..ORDINARY], &all[ORDINARY..]).unwrap();
    let level = Basis::level(ORDINARY - 1);
    let full = ORDINARY + SPECIAL;
    for threads in [1, 2] {
        let accelerator = &Multicore::new(&chain, threads, 1 << 14).unwrap();
        let (x, digits) = (limbs(accelerator, 2 * ORDINARY), limbs(accelerator, DIGITS * full));
        let key_limbs = limbs(accelerator, 2 * STEPS * DIGITS * full);
        let row = |limbs| {
            let (ordinary, special) = <[Limb]>::split_at(limbs, ORDINARY);
            KeyRow { ordinary, special }
        };
        let rows: Vec<KeyRow<'_, Limb>> = key_limbs.chunks(full).map(row).collect();
        let keys: Vec<Rows<'_>> = rows.chunks(2 * DIGITS).map(|k| k.split_at(DIGITS).into()).collect();
        let digits: Vec<&[Limb]> = digits.chunks(full).collect();
        let stored = limbs(accelerator, 8 * STEPS * full);
        let mut group = c.benchmark_group(format!("transform/{threads} threads"));
        group.sample_size(10);
        for (count, repeat) in [(4, 1), (4, 32), (8, 1), (8, 32)] {
            let per_prime = (count * STEPS).div_ceil(repeat);
            let factors = Factors { repeat, count: count * STEPS, limbs: &stored[..per_prime * full] };
            let x = x.split_at(ORDINARY).into();
            let inputs = Inputs { level, x, digits: &digits, keys: &keys, factors };
            let mut sums = limbs(accelerator, 2 * count * full);
            let mut pairs: Vec<[&mut [Limb]; 2]> =
                sums.chunks_mut(2 * full).map(|pair| pair.split_at_mut(full).into()).collect();
            let id = |name: &str| BenchmarkId::new(name, format!("{count} sums, repeat {repeat}"));
            group.bench_function(id("fused"), |b| {
                b.iter(|| accelerator.run(|| fused(accelerator, &inputs, &mut pairs).unwrap()));
            });
            group.bench_function(id("composed"), |b| {
                b.iter(|| accelerator.run(|| composed(accelerator, &inputs, &mut pairs).unwrap()));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, transform);
criterion_main!(benches);
