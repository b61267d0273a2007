//! Products of the matrix room at shapes that fill caches, span pieces and leave tiles unfinished, by samples of
//! their definition.

use crate::kernels::{Kernels, Path, Prime};
use crate::{Limb, Multicore};
use std::sync::Arc;
use veilformer::accel::{Accelerator, RowSums};
use veilformer::ring::{Basis, ModulusChain, primes_below};

const LOG: u32 = 10;
const N: usize = 1 << LOG;
const PRIMES: usize = 2;
const BASIS: Basis = Basis::new(0, PRIMES, 0);

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
        (self.0 >> 33) << 31 ^ self.0 >> 20
    }

    /// A limb for each prime, `count` times.
    fn limbs(&mut self, a: &Multicore, count: usize) -> Vec<Limb> {
        let limb = |i: usize| {
            let (mut limb, q) = (a.allocate().unwrap(), a.chain().moduli()[i % PRIMES].value());
            limb.iter_mut().for_each(|word| *word = self.next() % q);
            limb
        };
        (0..PRIMES * count).map(limb).collect()
    }
}

fn every_accelerator(check: impl Fn(&Multicore)) {
    let mut primes: Vec<u64> = primes_below(1 << 50, 2 << LOG).take(1).collect();
    primes.extend(primes_below(1 << 45, 2 << LOG).take(1));
    let chain = ModulusChain::new(LOG, &primes, &[]).unwrap();
    for path in Path::available() {
        for threads in [1, 2] {
            check(&Multicore::with_kernels(&chain, Kernels::new(path).unwrap(), threads, 4096).unwrap());
        }
    }
}

fn check_rows(a: &Multicore, rows: usize, count: usize, sums: usize) {
    let mut random = Random((rows * count * sums) as u64);
    let x = random.limbs(a, 2 * count);
    let x: Vec<[&[Limb]; 2]> = x.chunks(2 * PRIMES).map(|pair| pair.split_at(PRIMES).into()).collect();
    let inputs = rows * count;
    let weights: Vec<i16> = (0..rows * inputs * sums).map(|_| random.next() as i16).collect();
    let mut limbs = random.limbs(a, sums * (1 + rows));
    let mut out: Vec<RowSums<'_, Limb>> = limbs
        .chunks_mut(PRIMES * (1 + rows))
        .map(|limbs| limbs.split_at_mut(PRIMES))
        .map(|(body, masks)| RowSums { body, masks })
        .collect();
    a.row_products(BASIS, rows, &weights, &x, &mut out).unwrap();
    for _ in 0..400 {
        let (p, at) = (random.next() as usize % PRIMES, random.next() as usize % N);
        let (o, component) = (random.next() as usize % sums, random.next() as usize % (1 + rows));
        let prime = Prime::new(a.chain().moduli()[p].value()).unwrap();
        let (row, lane) = (at % rows, at / rows);
        let entry = |r: usize| {
            let ([b, a], i) = (x[r / rows], r % rows);
            let Some(j) = component.checked_sub(1) else { return b[p][at - row + i] };
            match (i >= j, lane) {
                (true, _) => a[p][at - row + i - j],
                (false, 0) => prime.negate(a[p][N + i - j]),
                (false, _) => a[p][at - row + i - j],
            }
        };
        let expected = (0..inputs).fold(0, |sum, r| {
            let weight = i64::from(weights[(o * rows + row) * inputs + r]);
            prime.add(sum, prime.multiply(entry(r), weight.rem_euclid(prime.value() as i64) as u64))
        });
        let found = limbs[(o * (1 + rows) + component) * PRIMES + p][at];
        assert_eq!(found, expected, "{} k = {rows}, component {component} of sum {o}", a.kernels());
    }
}

#[test]
fn row_products_match_their_definition() {
    for (rows, count, sums) in [(64, 12, 2), (128, 3, 1), (8, 40, 3), (4, 192, 5), (2, 9, 7), (1, 700, 9)] {
        every_accelerator(|a| check_rows(a, rows, count, sums));
    }
}

#[test]
fn no_inputs_make_zero() {
    every_accelerator(|a| {
        let mut limbs = Random(1).limbs(a, 3);
        let (body, masks) = limbs.split_at_mut(PRIMES);
        a.row_products(BASIS, 2, &[], &[], &mut [RowSums { body, masks }]).unwrap();
        assert!(limbs.iter().all(|limb| limb.iter().all(|&word| word == 0)));
        let mut limbs = Random(1).limbs(a, 8);
        let mut out: Vec<&mut [Limb]> = limbs.chunks_mut(PRIMES).collect();
        a.block_products(BASIS, 8, &[], &[], &mut out).unwrap();
        assert!(limbs.iter().all(|limb| limb.iter().all(|&word| word == 0)));
    });
}

#[test]
fn a_ring_beside_another_has_its_threads_and_limbs_of_its_own() {
    every_accelerator(|a| {
        let primes: Vec<u64> = primes_below(1 << 40, 4 << LOG).take(1).collect();
        let chain = ModulusChain::new(LOG + 1, &primes, &[]).unwrap();
        let b = a.beside(&chain, 1).unwrap();
        assert!(Arc::ptr_eq(&a.threads, &b.threads) && b.kernels() == a.kernels());
        let mut limb = [b.allocate().unwrap()];
        assert_eq!((b.available(), a.available(), limb[0].len()), (0, 4096, 2 * N));
        b.ntt_inverse(Basis::level(0), &mut limb).unwrap();
    });
}

#[test]
fn block_products_match_their_definition() {
    for (block, terms) in [(8, 3), (128, 600), (N, 2)] {
        every_accelerator(|a| {
            let mut random = Random(terms as u64);
            let (left, right) = (random.limbs(a, terms), random.limbs(a, terms));
            let left: Vec<&[Limb]> = left.chunks(PRIMES).collect();
            let right: Vec<&[Limb]> = right.chunks(PRIMES).collect();
            let mut limbs = random.limbs(a, block);
            let mut out: Vec<&mut [Limb]> = limbs.chunks_mut(PRIMES).collect();
            a.block_products(BASIS, block, &left, &right, &mut out).unwrap();
            for _ in 0..400 {
                let (p, at) = (random.next() as usize % PRIMES, random.next() as usize % N);
                let t = random.next() as usize % block;
                let prime = Prime::new(a.chain().moduli()[p].value()).unwrap();
                let expected = left.iter().zip(&right).fold(0, |sum, (left, right)| {
                    prime.add(sum, prime.multiply(left[p][at / block * block + t], right[p][at]))
                });
                assert_eq!(limbs[t * PRIMES + p][at], expected, "{} {block} {terms}", a.kernels());
            }
        });
    }
}
