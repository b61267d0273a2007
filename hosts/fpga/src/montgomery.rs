//! The constants and twiddles a board wants, in its Montgomery form with `R = 2^64`.
//!
//! Moduli are odd and below `2^63`; factors are below `q`. Montgomery, "Modular multiplication without trial
//! division", 1985.

use veilformer::accel::engine::Table;

/// Twiddles are made and sent in runs of `2^CHUNK_LOG`, so that making them takes one power per run.
const CHUNK_LOG: u32 = 6;
/// Words in a run.
pub(crate) const CHUNK: usize = 1 << CHUNK_LOG;

/// `q` with what a reduction needs.
#[derive(Clone, Copy)]
pub(crate) struct Montgomery {
    q: u64,
    /// `-1/q mod 2^64`.
    pub(crate) neg_q_inv: u64,
    /// `2^128 mod q`: takes a residue to Montgomery form.
    r2: u64,
}

impl Montgomery {
    pub(crate) fn new(q: u64) -> Self {
        // Newton: each step doubles the number of right low bits; q·q ≡ 1 (mod 8) starts it with three.
        let mut inv = q;
        for _ in 0..5 {
            inv = inv.wrapping_mul(2_u64.wrapping_sub(q.wrapping_mul(inv)));
        }
        let r2 = (u128::MAX % u128::from(q) + 1) % u128::from(q);
        Self { q, neg_q_inv: inv.wrapping_neg(), r2: r2 as u64 }
    }

    /// `a·b/R mod q`, canonical.
    fn mul(self, a: u64, b: u64) -> u64 {
        let t = u128::from(a) * u128::from(b);
        let m = (t as u64).wrapping_mul(self.neg_q_inv);
        let u = ((t + u128::from(m) * u128::from(self.q)) >> 64) as u64;
        if u >= self.q { u - self.q } else { u }
    }

    fn to_form(self, a: u64) -> u64 {
        self.mul(a, self.r2)
    }

    /// The power of a number in Montgomery form, in Montgomery form.
    fn pow(self, mut base: u64, mut exponent: u64) -> u64 {
        let mut acc = self.to_form(1);
        while exponent != 0 {
            if exponent & 1 == 1 {
                acc = self.mul(acc, base);
            }
            base = self.mul(base, base);
            exponent >>= 1;
        }
        acc
    }
}

/// The twiddles of one table: word `i` is `ψ^brv(i)` in Montgomery form.
pub(crate) struct Twiddles {
    m: Montgomery,
    psi: u64,
    log_n: u32,
    /// Words of the first run: `ψ^brv(i)`, the factor that only the low bits of `i` decide.
    low: [u64; CHUNK],
}

impl Twiddles {
    /// `None` unless `psi` is a primitive `2N`-th root of unity, that is, canonical with `ψ^N = -1`.
    pub(crate) fn new(table: &Table) -> Option<Self> {
        let m = Montgomery::new(table.q);
        let psi = m.to_form(table.psi);
        let log_n = u32::from(table.log_n);
        let one = m.to_form(1);
        if table.psi >= table.q || m.pow(psi, 1 << log_n) != table.q - one {
            return None;
        }
        let mut low = [one; CHUNK];
        for bit in 0..log_n.min(CHUNK_LOG) {
            let factor = m.pow(psi, 1 << (log_n - 1 - bit));
            let (known, next) = low.split_at_mut(1 << bit);
            for (to, from) in next.iter_mut().zip(known.iter()) {
                *to = m.mul(*from, factor);
            }
        }
        Some(Self { m, psi, log_n, low })
    }

    pub(crate) fn neg_q_inv(&self) -> u64 {
        self.m.neg_q_inv
    }

    /// Runs in the table.
    pub(crate) fn runs(&self) -> u32 {
        1 << self.log_n.saturating_sub(CHUNK_LOG)
    }

    /// Run number `index`, in `buffer`.
    pub(crate) fn run<'a>(&self, index: u32, buffer: &'a mut [u64; CHUNK]) -> &'a [u64] {
        // The bits of `index` are the high bits of i, so reversed they are the low bits of the exponent.
        let high_bits = self.log_n.saturating_sub(CHUNK_LOG);
        let exponent = u64::from(index.reverse_bits()) >> (32 - high_bits);
        let high = self.m.pow(self.psi, exponent);
        for (to, &low) in buffer.iter_mut().zip(&self.low) {
            *to = self.m.mul(low, high);
        }
        &buffer[..CHUNK.min(1 << self.log_n)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pow(mut b: u64, mut e: u64, q: u64) -> u64 {
        let mut acc = 1;
        while e != 0 {
            if e & 1 == 1 {
                acc = (u128::from(acc) * u128::from(b) % u128::from(q)) as u64;
            }
            b = (u128::from(b) * u128::from(b) % u128::from(q)) as u64;
            e >>= 1;
        }
        acc
    }

    /// `(q, ψ)` for the contract's root: the smallest non-residue to the power `(q-1)/2N`.
    fn table(log_n: u8, mut q: u64) -> Table {
        let two_n = 2_u64 << log_n;
        q = q / two_n * two_n + 1;
        let prime = |q: u64| (3..).step_by(2).take_while(|d| d * d <= q).all(|d| !q.is_multiple_of(d));
        while !prime(q) {
            q -= two_n;
        }
        let g = (2..).find(|&g| pow(g, (q - 1) / 2, q) == q - 1).unwrap();
        Table { log_n, q, psi: pow(g, (q - 1) / two_n, q) }
    }

    #[test]
    fn every_twiddle_is_the_power_it_claims() {
        for (log_n, near) in [(3, 1 << 20), (5, 1 << 30), (6, 1 << 30), (7, 1 << 40), (10, 1 << 40)] {
            let t = table(log_n, near);
            let twiddles = Twiddles::new(&t).unwrap();
            let mut buffer = [0; CHUNK];
            let mut i = 0_u64;
            for run in 0..twiddles.runs() {
                for &word in twiddles.run(run, &mut buffer) {
                    let exponent = i.reverse_bits() >> (64 - u32::from(log_n));
                    let shifted = (u128::from(pow(t.psi, exponent, t.q)) << 64) % u128::from(t.q);
                    assert_eq!(u128::from(word), shifted, "log N {log_n}, word {i}");
                    i += 1;
                }
            }
            assert_eq!(i, 1 << log_n);
            assert_eq!(t.q.wrapping_mul(twiddles.neg_q_inv()), u64::MAX);
        }
    }

    #[test]
    fn a_false_root_is_refused() {
        let t = table(10, 1 << 40);
        for psi in [0, 1, t.q - 1, t.q, t.psi + t.q, pow(t.psi, 2, t.q), t.psi + 1] {
            assert!(Twiddles::new(&Table { psi, ..t }).is_none(), "{psi}");
        }
    }
}
