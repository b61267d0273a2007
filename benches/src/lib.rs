//! Criterion benches, one file per layer; `README.md` has the figures.

/// Values of `count` words below `bound`, the same in every run.
pub fn words(count: usize, bound: u64, seed: u64) -> Vec<u64> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state ^ (state >> 29)) % bound
    };
    (0..count).map(|_| next()).collect()
}

/// Slots in [−1, 1], the same in every run.
pub fn slots(count: usize, seed: u64) -> Vec<f64> {
    words(count, 1 << 40, seed).into_iter().map(|w| w as f64 / (1u64 << 39) as f64 - 1.0).collect()
}
