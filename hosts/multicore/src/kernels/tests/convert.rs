use super::super::{ConvertTable, KernelError, Prime};
use super::{Words, every_path, prime_below};

const N: usize = 320;

/// A big integer in 32-bit digits, least significant first: just enough for the Chinese remainder theorem.
#[derive(Clone, PartialEq, Debug)]
struct Big(Vec<u32>);

impl Big {
    const DIGITS: usize = 28;

    fn from(x: u64) -> Self {
        let mut digits = vec![0; Self::DIGITS];
        (digits[0], digits[1]) = (x as u32, (x >> 32) as u32);
        Self(digits)
    }

    fn multiply(&self, y: u64) -> Self {
        let half = |factor: u64, shift: usize| {
            let mut carry = 0;
            let mut digits = vec![0; Self::DIGITS];
            for k in 0..Self::DIGITS - shift {
                let t = u64::from(self.0[k]) * factor + carry;
                digits[k + shift] = t as u32;
                carry = t >> 32;
            }
            assert_eq!(carry, 0);
            Self(digits)
        };
        half(y & 0xFFFF_FFFF, 0).add(&half(y >> 32, 1))
    }

    fn add(&self, other: &Self) -> Self {
        let mut carry = 0;
        let digits = self.0.iter().zip(&other.0).map(|(&x, &y)| {
            let t = u64::from(x) + u64::from(y) + carry;
            carry = t >> 32;
            t as u32
        });
        Self(digits.collect())
    }

    /// `self − other`, or nothing if that is negative.
    fn sub(&self, other: &Self) -> Option<Self> {
        let mut borrow = 0;
        let digits = self.0.iter().zip(&other.0).map(|(&x, &y)| {
            let t = i64::from(x) - i64::from(y) - borrow;
            borrow = i64::from(t < 0);
            t as u32
        });
        let digits = digits.collect();
        (borrow == 0).then_some(Self(digits))
    }

    fn modulo(&self, p: u64) -> u64 {
        let step = |r: u128, &digit: &u32| ((r << 32) + u128::from(digit)) % u128::from(p);
        self.0.iter().rev().fold(0, step) as u64
    }
}

fn primes(bits: u32, count: usize) -> Vec<Prime> {
    (0..count).map(|skip| prime_below(bits, 1 << 10, skip)).collect()
}

/// The formula of the module, in big integers where it is exact and 128 bits where it rounds.
fn oracle(sources: &[Prime], target: &Prime, residues: &[u64]) -> u64 {
    let product = sources.iter().fold(Big::from(1), |d, q| d.multiply(q.value()));
    let weight = sources.iter().map(Prime::bits).min().unwrap() - 1;
    let (mut sum, mut quotients) = (Big::from(0), 1u64 << (weight - 1));
    for (i, q) in sources.iter().enumerate() {
        let others = sources.iter().enumerate().filter(|&(j, _)| j != i);
        let others = others.fold(Big::from(1), |d, (_, q)| d.multiply(q.value()));
        let y = q.multiply(residues[i], q.inverse(others.modulo(q.value())));
        sum = sum.add(&others.multiply(y));
        let ratio = (1u128 << (52 + weight)) / u128::from(q.value());
        quotients += ((u128::from(y) * ratio) >> 52) as u64;
    }
    let wraps = product.multiply(quotients >> weight);
    match sum.sub(&wraps) {
        Some(value) => value.modulo(target.value()),
        None => target.negate(wraps.sub(&sum).unwrap().modulo(target.value())),
    }
}

#[test]
fn conversions_match_big_integers() {
    let mut words = Words(23);
    for (bits, count) in [(50, 1), (50, 3), (50, 4), (50, 5), (50, 16), (21, 3), (30, 7), (45, 8), (36, 16)] {
        let sources = primes(bits, count);
        let mut targets: Vec<Prime> =
            [50, 48, 31, 22].into_iter().map(|bits| prime_below(bits, 1 << 12, 20)).collect();
        targets.retain(|p| !sources.contains(p));
        let table = ConvertTable::new(&sources, &targets).unwrap();
        let mut x: Vec<Vec<u64>> = sources.iter().map(|q| words.limb(q.value(), N)).collect();
        for (x, q) in x.iter_mut().zip(&sources) {
            // 0, −1 and 1 as whole numbers, then every scaled residue at its largest.
            x[..3].copy_from_slice(&[0, q.value() - 1, 1]);
            let others = sources.iter().filter(|other| *other != q);
            x[3] = q.negate(others.fold(1, |d, other| q.multiply(d, other.value() % q.value())));
        }
        let x: Vec<&[u64]> = x.iter().map(Vec::as_slice).collect();
        for kernels in every_path() {
            let mut out = vec![vec![0; N]; targets.len()];
            let mut limbs: Vec<&mut [u64]> = out.iter_mut().map(Vec::as_mut_slice).collect();
            kernels.convert(&table, &x, &mut limbs);
            for (out, target) in out.iter().zip(&targets) {
                assert_eq!(out[..3], [0, target.value() - 1, 1], "{}", kernels.path());
                for i in 0..N {
                    let residues: Vec<u64> = x.iter().map(|x| x[i]).collect();
                    assert_eq!(
                        out[i],
                        oracle(&sources, target, &residues),
                        "{} {bits} {count}",
                        kernels.path()
                    );
                }
            }
            // The two halves on whole limbs are the same conversion.
            let mut y = vec![vec![0; N]; count];
            let mut wraps = vec![0; N];
            let mut limbs: Vec<&mut [u64]> = y.iter_mut().map(Vec::as_mut_slice).collect();
            kernels.scale_sources(&table, &x, &mut limbs, &mut wraps);
            let y: Vec<&[u64]> = y.iter().map(Vec::as_slice).collect();
            for (j, expected) in out.iter().enumerate() {
                let mut limb = vec![0; N];
                kernels.combine(&table, j, &y, &wraps, &mut limb, [y[0], &[]]);
                assert_eq!(&limb, expected, "{}", kernels.path());
            }
        }
    }
}

#[test]
fn one_source_is_the_centred_lift() {
    let (q, p) = (prime_below(40, 1 << 10, 0), prime_below(50, 1 << 10, 0));
    let table = ConvertTable::new(&[q], &[p]).unwrap();
    let half = q.value() / 2;
    let x = [0, 1, half - 1, half, half + 2, q.value() - 1, 12345, 7];
    for kernels in every_path() {
        let mut out = [0; 8];
        kernels.convert(&table, &[&x], &mut [&mut out]);
        for (x, out) in x.into_iter().zip(out) {
            assert_eq!(out, if x <= half { x } else { p.value() - (q.value() - x) }, "{}", kernels.path());
        }
    }
}

#[test]
fn refuses_no_sources_many_sources_and_repeated_ones() {
    let q = primes(40, 17);
    assert_eq!(ConvertTable::new(&[], &q).unwrap_err(), KernelError::Count(0));
    assert_eq!(ConvertTable::new(&q, &q).unwrap_err(), KernelError::Count(17));
    assert_eq!(ConvertTable::new(&[q[0], q[1], q[0]], &[]).unwrap_err(), KernelError::Modulus(q[0].value()));
}
