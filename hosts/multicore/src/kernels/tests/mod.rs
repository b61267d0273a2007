//! Every kernel on every available path against the scalar path and against a naive oracle.

mod convert;
mod matrix;
mod ntt;
mod properties;
mod transform;
mod vector;

use super::{Kernels, Path, Prime};

/// The largest prime of at most `bits` bits that is 1 modulo `2·degree`, and further down `skip` of them.
fn prime_below(bits: u32, degree: usize, skip: usize) -> Prime {
    let step = 2 * degree as u64;
    let top = (((1u64 << bits) - 2) / step) * step + 1;
    let q = (0..).map(|k| top - k * step).filter(|&q| is_prime(q)).nth(skip).unwrap();
    Prime::new(q).unwrap()
}

/// Miller–Rabin with bases that decide every 64-bit number.
fn is_prime(q: u64) -> bool {
    let power = |mut base: u64, mut exponent: u64| {
        let mut result = 1u64;
        while exponent > 0 {
            if exponent & 1 == 1 {
                result = (u128::from(result) * u128::from(base) % u128::from(q)) as u64;
            }
            base = (u128::from(base) * u128::from(base) % u128::from(q)) as u64;
            exponent >>= 1;
        }
        result
    };
    let twos = (q - 1).trailing_zeros();
    [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37].into_iter().all(|base| {
        let mut x = power(base, (q - 1) >> twos);
        x == 1
            || (0..twos).any(|_| {
                let hit = x == q - 1;
                x = (u128::from(x) * u128::from(x) % u128::from(q)) as u64;
                hit
            })
    })
}

/// A small generator of test words: splitmix64.
struct Words(u64);

impl Words {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Canonical residues with plenty of 0, 1 and q − 1.
    fn limb(&mut self, q: u64, count: usize) -> Vec<u64> {
        (0..count)
            .map(|_| match self.next() % 16 {
                0 => 0,
                1 => q - 1,
                2 => 1,
                _ => self.next() % q,
            })
            .collect()
    }
}

fn every_path() -> impl Iterator<Item = Kernels> {
    Path::available().map(|path| Kernels::new(path).unwrap())
}
