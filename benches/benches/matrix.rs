//! The products of the matrix room at N = 2^13, modulo one 45-bit prime: `rows` of k = 64, 4 and 1 rows to a
//! ciphertext, `blocks` of 128 words. `direct` is the same from products entry by entry: the multiply-adds of whole
//! limbs that one output row needs, times the output rows.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use veilformer::accel::{Accelerator, RowSums};
use veilformer::ring::{Basis, ModulusChain, primes_below};
use veilformer_benches::words;
use veilformer_multicore::{Limb, Multicore};

const LOG_DEGREE: u32 = 13;

/// Limbs of one run of words each: what they hold does not matter to the time.
fn limbs(accelerator: &Multicore, count: usize) -> Vec<Limb> {
    let row = words(1 << LOG_DEGREE, 1 << 44, 1);
    let limb = || {
        let mut limb = accelerator.allocate().unwrap();
        accelerator.write(&mut limb, &row).unwrap();
        limb
    };
    (0..count).map(|_| limb()).collect()
}

fn accelerator(threads: usize) -> Multicore {
    let prime: Vec<u64> = primes_below(1 << 45, 2 << LOG_DEGREE).take(1).collect();
    let chain = ModulusChain::new(LOG_DEGREE, &prime, &[]).unwrap();
    Multicore::new(&chain, threads, 1 << 14).unwrap()
}

const BASIS: Basis = Basis::new(0, 1, 0);

fn rows(c: &mut Criterion) {
    for threads in [1, 2] {
        let a = &accelerator(threads);
        let mut group = c.benchmark_group(format!("rows/{threads} threads"));
        group.sample_size(10);
        for (k, count, sums) in [(64, 12, 1), (64, 12, 12), (64, 12, 48), (4, 192, 12), (1, 768, 12)] {
            let x = limbs(a, 2 * count);
            let x: Vec<[&[Limb]; 2]> = x.chunks(2).map(|pair| [&pair[..1], &pair[1..]]).collect();
            let weights: Vec<i16> = (0..k * k * count * sums).map(|i| (i * 40_503) as i16).collect();
            let mut out = limbs(a, sums * (1 + k));
            let mut out: Vec<RowSums<'_, Limb>> = out
                .chunks_mut(1 + k)
                .map(|limbs| limbs.split_at_mut(1))
                .map(|(body, masks)| RowSums { body, masks })
                .collect();
            group.bench_function(BenchmarkId::new(format!("k = {k}, {count} inputs"), sums), |b| {
                b.iter(|| a.run(|| a.row_products(BASIS, k, &weights, &x, &mut out).unwrap()));
            });
        }
        // One component of one output row is N/k words of k·count terms: as much as `count` whole limbs.
        let (x, mut out) = (limbs(a, 12), limbs(a, 1));
        group.bench_function("direct, one of 65 · 64 for each sum, k = 64, 12 inputs", |b| {
            b.iter(|| {
                for x in &x {
                    a.multiply_scalar_add(BASIS, &mut out, core::slice::from_ref(x), &[12345]).unwrap();
                }
            });
        });
        group.finish();
    }
}

fn blocks(c: &mut Criterion) {
    const BLOCK: usize = 128;
    for threads in [1, 2] {
        let a = &accelerator(threads);
        let mut group = c.benchmark_group(format!("blocks/{threads} threads"));
        group.sample_size(10);
        for terms in [64, 128, 1024] {
            let (left, right) = (limbs(a, terms), limbs(a, terms));
            let left: Vec<&[Limb]> = left.chunks(1).collect();
            let right: Vec<&[Limb]> = right.chunks(1).collect();
            let mut out = limbs(a, BLOCK);
            let mut out: Vec<&mut [Limb]> = out.chunks_mut(1).collect();
            group.bench_function(BenchmarkId::new("terms", terms), |b| {
                b.iter(|| a.run(|| a.block_products(BASIS, BLOCK, &left, &right, &mut out).unwrap()));
            });
        }
        // One product for each destination and term.
        let (x, mut out) = (limbs(a, 2), limbs(a, 1));
        group.bench_function("direct, one of 128 for each term", |b| {
            b.iter(|| a.multiply_add(BASIS, &mut out, &x[..1], &x[1..]).unwrap());
        });
        group.finish();
        let mut x = limbs(a, 1);
        c.bench_function(&format!("partial/{threads} threads"), |b| {
            b.iter(|| a.ntt_partial(BASIS, &mut x, BLOCK).unwrap());
        });
    }
}

criterion_group!(benches, rows, blocks);
criterion_main!(benches);
