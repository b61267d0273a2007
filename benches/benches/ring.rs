//! The transform of one limb that stays in the cache: every kernel path this
//! processor has, beside `tfhe-ntt` on a prime of the same size.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use veilformer::ring::primes_below;
use veilformer_benches::words;
use veilformer_multicore::kernels::{Kernels, NttTable, Path, Prime};

const DEGREES: [usize; 3] = [1 << 12, 1 << 13, 1 << 16];

fn transform(
    c: &mut Criterion,
    name: &str,
    ours: fn(&NttTable, &mut [u64]),
    theirs: fn(&tfhe_ntt::prime64::Plan, &mut [u64]),
) {
    let mut group = c.benchmark_group(name);
    for degree in DEGREES {
        let q = primes_below(1 << 50, 2 * degree as u64).next().unwrap();
        let mut x = words(degree, q, 1);
        group.throughput(Throughput::Elements(degree as u64));
        for path in Path::available() {
            let kernels = Kernels::new(path).unwrap();
            let table = NttTable::new(kernels, Prime::new(q).unwrap(), degree).unwrap();
            let id = BenchmarkId::new(path.name(), degree);
            group.bench_function(id, |b| b.iter(|| ours(&table, black_box(&mut x))));
        }
        let plan = tfhe_ntt::prime64::Plan::try_new(degree, q).unwrap();
        let id = BenchmarkId::new("tfhe-ntt", degree);
        group.bench_function(id, |b| b.iter(|| theirs(&plan, black_box(&mut x))));
    }
    group.finish();
}

fn forward(c: &mut Criterion) {
    transform(c, "ntt_forward", |table, x| table.forward(x), |plan, x| plan.fwd(x));
}

/// Both divide by N: ours in the last stage, `tfhe-ntt` in a pass of its own.
fn inverse(c: &mut Criterion) {
    transform(
        c,
        "ntt_inverse",
        |table, x| table.inverse(x),
        |plan, x| {
            plan.inv(x);
            plan.normalize(x);
        },
    );
}

criterion_group!(benches, forward, inverse);
criterion_main!(benches);
