//! The multicore accelerator under the conformance suite of the core: every kernel path of this processor,
//! on one, two and three threads.

use veilformer::accel::conformance::{Failure, Report, Suite};
use veilformer::accelerator_conformance;
use veilformer::ring::ModulusChain;
use veilformer_multicore::Multicore;
use veilformer_multicore::kernels::{Kernels, Path};

/// What the suite itself does not see: the limbs that fused kernels take for themselves.
const SCRATCH: usize = 128;

fn multicore(
    path: Path,
    threads: usize,
    chain: &ModulusChain,
    limbs: usize,
    suite: Suite<'_>,
) -> Result<Report, Failure> {
    let Ok(kernels) = Kernels::new(path) else {
        println!("{path} is not available on this processor");
        return Ok(Report::default());
    };
    let accelerator = Multicore::with_kernels(chain, kernels, threads, limbs + SCRATCH).unwrap();
    assert_eq!(accelerator.kernels(), path.name());
    suite.run(&accelerator, &mut vec![0; chain.degree()])
}

macro_rules! threads {
    ($path:expr, $one:ident, $two:ident, $three:ident) => {
        accelerator_conformance!($one, |chain, limbs, suite| multicore($path, 1, chain, limbs, suite));
        accelerator_conformance!($two, |chain, limbs, suite| multicore($path, 2, chain, limbs, suite));
        accelerator_conformance!($three, |chain, limbs, suite| multicore($path, 3, chain, limbs, suite));
    };
}

threads!(Path::Scalar, scalar_on_one_thread, scalar_on_two_threads, scalar_on_three_threads);
threads!(Path::Avx2, avx2_on_one_thread, avx2_on_two_threads, avx2_on_three_threads);
threads!(Path::Avx512, avx512_on_one_thread, avx512_on_two_threads, avx512_on_three_threads);
threads!(
    Path::Avx512Madd,
    avx512_madd_on_one_thread,
    avx512_madd_on_two_threads,
    avx512_madd_on_three_threads
);
threads!(Path::Neon, neon_on_one_thread, neon_on_two_threads, neon_on_three_threads);
