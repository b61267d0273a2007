use super::super::prime::bit_reverse;
use super::super::{KernelError, Kernels, NttTable, Path, Prime};
use super::{Words, every_path, prime_below};

const BITS: [u32; 8] = [21, 28, 36, 45, 47, 48, 49, 50];

fn oracle(prime: &Prime, x: &[u64]) -> Vec<u64> {
    let log = x.len().trailing_zeros();
    let psi = prime.root(x.len()).unwrap();
    (0..x.len())
        .map(|i| {
            let point = prime.power(psi, 2 * bit_reverse(i, log) as u64 + 1);
            x.iter().rev().fold(0, |sum, &c| prime.add(prime.multiply(sum, point), c))
        })
        .collect()
}

#[test]
fn small_degrees_match_naive_evaluation() {
    let mut words = Words(1);
    for log in 4..=10 {
        for bits in BITS {
            let prime = prime_below(bits, 1 << log, 0);
            let x = words.limb(prime.value(), 1 << log);
            let expected = oracle(&prime, &x);
            for kernels in every_path() {
                let table = NttTable::new(kernels, prime, 1 << log).unwrap();
                let mut y = x.clone();
                table.forward(&mut y);
                assert_eq!(y, expected, "{} log {log} bits {bits}", kernels.path());
                table.inverse(&mut y);
                assert_eq!(y, x, "{} log {log} bits {bits}", kernels.path());
            }
        }
    }
}

#[test]
fn every_path_matches_scalar_at_every_degree() {
    let mut words = Words(2);
    for log in 4..=17 {
        for bits in BITS {
            let prime = prime_below(bits.max(log + 10), 1 << log, usize::from(bits > 40));
            let q = prime.value();
            let scalar = NttTable::new(Kernels::new(Path::Scalar).unwrap(), prime, 1 << log).unwrap();
            let inputs = [
                words.limb(q, 1 << log),
                vec![q - 1; 1 << log],
                (0..1 << log).map(|i| if i % 2 == 0 { q - 1 } else { 0 }).collect(),
                vec![0; 1 << log],
            ];
            for kernels in every_path().filter(|kernels| kernels.path() != Path::Scalar) {
                let table = NttTable::new(kernels, prime, 1 << log).unwrap();
                for x in &inputs {
                    let (mut expected, mut y) = (x.clone(), x.clone());
                    scalar.forward(&mut expected);
                    table.forward(&mut y);
                    assert!(y == expected, "forward {} log {log} bits {bits}", kernels.path());
                    y.clone_from(x);
                    expected.clone_from(x);
                    scalar.inverse(&mut expected);
                    table.inverse(&mut y);
                    assert!(y == expected, "inverse {} log {log} bits {bits}", kernels.path());
                    for factor in [1, 2, q / 3, q - 1] {
                        let mut scaled = expected.clone();
                        scaled.iter_mut().for_each(|word| *word = prime.multiply(*word, factor));
                        y.fill(1);
                        table.inverse_scaled(Some(x), &mut y, factor);
                        assert!(y == scaled, "{factor} · inverse {} log {log}", kernels.path());
                        y.clone_from(x);
                        table.inverse_scaled(None, &mut y, factor);
                        assert!(y == scaled, "{factor} · inverse {} log {log}", kernels.path());
                    }
                }
            }
        }
    }
}

#[test]
fn outer_stages_and_blocks_are_the_transform() {
    let mut words = Words(4);
    for log in [4, 6, 9, 12, 13, 14, 16, 17] {
        for bits in BITS {
            let prime = prime_below(bits.max(log + 10), 1 << log, 0);
            let x = words.limb(prime.value(), 1 << log);
            for kernels in every_path() {
                let table = NttTable::new(kernels, prime, 1 << log).unwrap();
                let (mut expected, mut y) = (x.clone(), x.clone());
                table.forward(&mut expected);
                table.forward_outer(&mut y);
                let block = (1 << log) / table.blocks();
                for (b, block) in y.chunks_exact_mut(block).enumerate().collect::<Vec<_>>().into_iter().rev()
                {
                    table.forward_block(block, b, (b % 2 == 0).then_some([&x, &expected]));
                }
                assert!(y == expected, "{} log {log} bits {bits}", kernels.path());
            }
        }
    }
    let blocks = |path| {
        let kernels = Kernels::new(path).ok()?;
        Some(NttTable::new(kernels, prime_below(45, 1 << 16, 0), 1 << 16).unwrap().blocks())
    };
    assert_eq!(blocks(Path::Scalar), Some(1));
    assert!([Path::Avx512, Path::Avx512Madd].into_iter().filter_map(blocks).all(|blocks| blocks == 16));
}

#[test]
fn products_of_values_are_negacyclic_products() {
    let mut words = Words(3);
    let degree = 128;
    let prime = prime_below(50, degree, 0);
    let (a, b) = (words.limb(prime.value(), degree), words.limb(prime.value(), degree));
    let mut expected = vec![0; degree];
    for (i, &x) in a.iter().enumerate() {
        for (j, &y) in b.iter().enumerate() {
            let c = prime.multiply(x, y);
            let k = (i + j) % degree;
            expected[k] = if i + j < degree { prime.add(expected[k], c) } else { prime.sub(expected[k], c) };
        }
    }
    for kernels in every_path() {
        let table = NttTable::new(kernels, prime, degree).unwrap();
        let (mut x, mut y) = (a.clone(), b.clone());
        table.forward(&mut x);
        table.forward(&mut y);
        for (x, y) in x.iter_mut().zip(y) {
            *x = prime.multiply(*x, y);
        }
        table.inverse(&mut x);
        assert_eq!(x, expected, "{}", kernels.path());
    }
}

#[test]
fn refuses_what_it_cannot_transform() {
    let kernels = Kernels::detect();
    assert_eq!(Prime::new(1 << 30), Err(KernelError::Modulus(1 << 30)));
    assert_eq!(Prime::new((1 << 50) + 1), Err(KernelError::Modulus((1 << 50) + 1)));
    assert_eq!(Prime::new((1 << 20) - 1), Err(KernelError::Modulus((1 << 20) - 1)));
    let prime = prime_below(40, 1 << 10, 0);
    for degree in [0, 8, 1000, 1 << 18] {
        let error = NttTable::new(kernels, prime, degree).unwrap_err();
        assert_eq!(error, KernelError::Degree { degree, modulus: prime.value() });
    }
    // 2^11 divides q − 1 by construction, but only primes chosen for it offer 2^18.
    let narrow =
        (0..).map(|skip| prime_below(40, 1 << 10, skip)).find(|p| (p.value() - 1) % (1 << 18) != 0).unwrap();
    assert!(NttTable::new(kernels, narrow, 1 << 17).is_err());
}
