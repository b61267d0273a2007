use proptest::prelude::*;

use super::super::{Kernels, LaneTable, Line, NttTable, Path, Prime};
use super::{Words, every_path, prime_below};

fn lines(words: &mut Words, q: u64, count: usize) -> Vec<Line> {
    words.limb(q, 8 * count).as_chunks().0.to_vec()
}

fn outer_products(prime: &Prime, terms: usize, left: &[Line], right: &[Line]) -> Vec<Line> {
    let tiles = right.len() / terms;
    let entry = |i: usize, tile: usize, l: usize| {
        (0..terms).fold(0, |sum, r| {
            let left = left[(tile * terms + r) % left.len()][i];
            prime.add(sum, prime.multiply(left, right[tile * terms + r][l]))
        })
    };
    (0..8 * tiles).map(|at| core::array::from_fn(|l| entry(at / tiles, at % tiles, l))).collect()
}

fn check_outer_products(prime: &Prime, terms: usize, left: &[Line], right: &[Line]) {
    let expected = outer_products(prime, terms, left, right);
    for kernels in every_path() {
        let mut right = right.to_vec();
        let factor = kernels.outer_factor(prime);
        kernels.multiply_scalar_assign(prime, right.as_flattened_mut(), factor);
        let mut out = vec![[7; 8]; expected.len()];
        kernels.outer_products(prime, terms, left, &right, &mut out);
        assert!(out == expected, "{} {terms} terms", kernels.path());
    }
}

#[test]
fn the_largest_sums_of_outer_products_are_exact() {
    for bits in [22, 45, 48, 50] {
        let prime = prime_below(bits, 64, 0);
        for terms in [1, 5, 1024, 1025, 2500] {
            let top = vec![[prime.value() - 1; 8]; 2 * terms];
            check_outer_products(&prime, terms, &top, &top);
        }
    }
}

/// The cyclic transform by its definition, lane by lane.
fn transform(prime: &Prime, x: &[Line]) -> Vec<Line> {
    let log = x.len().trailing_zeros();
    let root = prime.root(x.len() / 2).unwrap();
    let value = |m: usize, lane: usize| {
        let w = prime.power(root, (m.reverse_bits() >> (usize::BITS - log)) as u64);
        x.iter().rev().fold(0, |sum, line| prime.add(prime.multiply(sum, w), line[lane]))
    };
    (0..x.len()).map(|m| core::array::from_fn(|lane| value(m, lane))).collect()
}

#[test]
fn lane_transforms_match_their_definition_and_invert() {
    let mut words = Words(5);
    for (log, bits) in (1..=9).flat_map(|log| [22, 45, 48, 50].map(|bits| (log, bits))) {
        let prime = prime_below(bits, 1 << 10, 1);
        let inputs = [lines(&mut words, prime.value(), 1 << log), vec![[prime.value() - 1; 8]; 1 << log]];
        for x in &inputs {
            let expected = transform(&prime, x);
            let length = 1 << log;
            for kernels in every_path() {
                let table = LaneTable::new(kernels, prime, log).unwrap();
                let mut y = x.clone();
                table.forward(&mut y);
                assert!(y == expected, "{} log {log} bits {bits}", kernels.path());
                table.inverse_half(&mut y);
                let scaled = |line: &Line| line.map(|word| prime.multiply(word, length));
                let scaled: Vec<Line> = x[..x.len() / 2].iter().map(scaled).collect();
                assert!(y[..x.len() / 2] == scaled, "inverse {} log {log} bits {bits}", kernels.path());
                // Canonical words of any kind come in, not only transforms of small sums.
                y.clone_from(x);
                table.inverse_half(&mut y);
                let scalar = LaneTable::new(Kernels::new(Path::Scalar).unwrap(), prime, log).unwrap();
                let mut reference = x.clone();
                scalar.inverse_half(&mut reference);
                assert!(y[..x.len() / 2] == reference[..x.len() / 2], "{} log {log}", kernels.path());
            }
        }
    }
}

#[test]
fn lane_transforms_need_a_root() {
    let kernels = Kernels::detect();
    let prime = prime_below(40, 1 << 4, 0);
    assert!(LaneTable::new(kernels, prime, 0).is_err() && LaneTable::new(kernels, prime, 17).is_err());
    assert!(LaneTable::new(kernels, prime, 5).is_ok());
}

#[test]
fn interleaving_puts_every_word_in_its_place() {
    let (count, stride, at) = (3, 16, 8);
    let rows: Vec<Line> = (0..8 * count).map(|i| core::array::from_fn(|l| (8 * i + l) as u64)).collect();
    for kernels in every_path() {
        let mut limbs = vec![vec![u64::MAX; 8 * stride]; 2];
        let mut out: Vec<&mut [u64]> = limbs.iter_mut().map(Vec::as_mut_slice).collect();
        kernels.interleave(&rows, &mut out, at, stride);
        for (j, limb) in limbs.iter().enumerate() {
            for (word, &found) in limb.iter().enumerate() {
                let (lane, i) = (word / stride, word % stride);
                let expected = if i < at { u64::MAX } else { rows[(i - at) * count + j][lane] };
                assert_eq!(found, expected, "{} limb {j} word {word}", kernels.path());
            }
        }
    }
}

#[test]
fn partial_transforms_match_their_definition() {
    let mut words = Words(6);
    for (log, bits) in (4..=13).flat_map(|log| [22, 48, 50].map(|bits| (log, bits))) {
        let (degree, prime) = (1usize << log, prime_below(bits, 1 << log, 0));
        let x = words.limb(prime.value(), degree);
        let psi = prime.root(degree).unwrap();
        for block in (3..=log).map(|log| 1usize << log) {
            let blocks = degree / block;
            let value = |at: usize| {
                let (j, t) = (at / block, at % block);
                let reversed =
                    if blocks > 1 { j.reverse_bits() >> (64 - blocks.trailing_zeros()) } else { 0 };
                let zeta = prime.power(psi, (block * (2 * reversed + 1)) as u64);
                (0..blocks).rev().fold(0, |sum, z| prime.add(prime.multiply(sum, zeta), x[t + block * z]))
            };
            let expected: Vec<(usize, u64)> =
                (0..degree).step_by(1 + degree / 97).map(|at| (at, value(at))).collect();
            for kernels in every_path() {
                let mut y = x.clone();
                NttTable::new(kernels, prime, degree).unwrap().forward_to(&mut y, block);
                assert!(y.iter().all(|&word| word < prime.value()));
                for &(at, expected) in &expected {
                    assert_eq!(y[at], expected, "{} log {log} block {block}", kernels.path());
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn outer_products_agree(
        terms in 1usize..=40, tiles in 0usize..=5, shared: bool, bits in 21u32..=50, seed: u64
    ) {
        let prime = prime_below(bits, 16, 2);
        let mut words = Words(seed);
        let right = lines(&mut words, prime.value(), terms * tiles);
        let left = lines(&mut words, prime.value(), if shared { terms } else { terms * tiles });
        check_outer_products(&prime, terms, &left, &right);
    }
}

/// Whole groups of lines and what is left of them, at the ends of the range.
#[test]
fn odd_powers_are_those_of_every_word() {
    for bits in [22, 38, 48, 50] {
        let prime = prime_below(bits, 64, 0);
        let (q, mut words) = (prime.value(), Words(bits.into()));
        for (length, count) in [(8, 1), (64, 5), (136, 64), (136, 0)] {
            let mut x = words.limb(q, length);
            x[..3].copy_from_slice(&[0, 1, q - 1]);
            let mut rows: Vec<Vec<u64>> = (0..count).map(|_| words.limb(q, length)).collect();
            rows.iter_mut().for_each(|row| row[2..6].fill(q - 1));
            let expected = |a: u64, at: usize| {
                rows.iter().enumerate().fold(0, |sum, (i, row)| {
                    let power = prime.power(x[at], i as u64 * (2 * a + 1));
                    prime.add(sum, prime.multiply(power, row[at]))
                })
            };
            for kernels in every_path() {
                let rows: Vec<&[u64]> = rows.iter().map(|row| &row[..]).collect();
                let mut sums = vec![vec![7; length]; 9];
                let mut out: Vec<&mut [u64]> = sums.iter_mut().map(|sum| &mut sum[..]).collect();
                kernels.odd_power_sums(&prime, &x, &rows, &mut out);
                for (a, sum) in sums.iter().enumerate() {
                    for (at, &word) in sum.iter().enumerate() {
                        assert_eq!(word, expected(a as u64, at), "{} {bits} {a} {at}", kernels.path());
                    }
                }
            }
        }
    }
}
