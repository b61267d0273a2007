//! The model's own arithmetic: slow, plain, and independent of the core.

/// `a·b mod q` by a 128-bit remainder.
#[must_use]
pub fn mul(a: u64, b: u64, q: u64) -> u64 {
    (u128::from(a) * u128::from(b) % u128::from(q)) as u64
}

/// `a + b mod q`.
#[must_use]
pub fn add(a: u64, b: u64, q: u64) -> u64 {
    ((u128::from(a) + u128::from(b)) % u128::from(q)) as u64
}

/// `a - b mod q`.
#[must_use]
pub fn sub(a: u64, b: u64, q: u64) -> u64 {
    add(a, q - b % q, q)
}

/// `base^exponent mod q`.
#[must_use]
pub fn pow(mut base: u64, mut exponent: u64, q: u64) -> u64 {
    let mut acc = 1 % q;
    while exponent != 0 {
        if exponent & 1 == 1 {
            acc = mul(acc, base, q);
        }
        base = mul(base, base, q);
        exponent >>= 1;
    }
    acc
}

/// The lowest `bits` bits of `i`, reversed.
#[must_use]
pub fn brv(i: usize, bits: u32) -> usize {
    if bits == 0 { 0 } else { i.reverse_bits() >> (usize::BITS - bits) }
}

/// Whether `q` is prime: Miller–Rabin with the bases that decide every 64-bit number.
#[must_use]
pub fn is_prime(q: u64) -> bool {
    const BASES: [u64; 12] = [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37];
    if q < 2 || BASES.iter().any(|&p| q != p && q.is_multiple_of(p)) {
        return false;
    }
    let twos = (q - 1).trailing_zeros();
    BASES.iter().filter(|&&base| base != q).all(|&base| {
        let mut x = pow(base, (q - 1) >> twos, q);
        if x == 1 || x == q - 1 {
            return true;
        }
        (1..twos).any(|_| {
            x = mul(x, x, q);
            x == q - 1
        })
    })
}

/// The largest prime below `limit` that is 1 modulo `2^(log_n + 1)`.
#[must_use]
pub fn ntt_prime(limit: u64, log_n: u8) -> Option<u64> {
    let step = 2_u64 << log_n;
    let mut q = limit.checked_sub(2)? / step * step + 1;
    while !is_prime(q) {
        q = q.checked_sub(step)?;
    }
    Some(q)
}

/// The root every back end uses: the smallest quadratic non-residue to the power `(q - 1)/2N`.
#[must_use]
pub fn root(q: u64, log_n: u8) -> u64 {
    let g = (2..q).find(|&g| pow(g, (q - 1) / 2, q) == q - 1).unwrap_or(1);
    pow(g, (q - 1) >> (log_n + 1), q)
}

/// The forward transform at one place, by its definition.
#[must_use]
pub fn evaluate(x: &[u64], psi: u64, q: u64, i: usize) -> u64 {
    let at = pow(psi, 2 * brv(i, x.len().ilog2()) as u64 + 1, q);
    x.iter().rev().fold(0, |acc, &c| add(mul(acc, at, q), c, q))
}

/// In-place forward transform; `twiddles[i] = ψ^brv(i)`, plain.
pub fn forward(x: &mut [u64], twiddles: &[u64], q: u64) {
    let mut groups = 1;
    while groups < x.len() {
        let half = x.len() / groups / 2;
        for (group, block) in x.chunks_exact_mut(2 * half).enumerate() {
            let w = twiddles[groups + group];
            let (low, high) = block.split_at_mut(half);
            for (a, b) in low.iter_mut().zip(high) {
                let t = mul(*b, w, q);
                (*a, *b) = (add(*a, t, q), sub(*a, t, q));
            }
        }
        groups *= 2;
    }
}

/// In-place inverse transform from the *forward* twiddles: the inverse of twiddle `m + j` is minus twiddle
/// `2m - 1 - j`. Halves in every stage, which divides by N in the end.
pub fn inverse(x: &mut [u64], twiddles: &[u64], q: u64) {
    let halve = |v: u64| if v & 1 == 0 { v / 2 } else { v / 2 + q / 2 + 1 };
    let mut groups = x.len() / 2;
    while groups > 0 {
        let half = x.len() / groups / 2;
        for (group, block) in x.chunks_exact_mut(2 * half).enumerate() {
            let w = twiddles[2 * groups - 1 - group];
            let (low, high) = block.split_at_mut(half);
            for (a, b) in low.iter_mut().zip(high) {
                (*a, *b) = (halve(add(*a, *b, q)), halve(mul(sub(*b, *a, q), w, q)));
            }
        }
        groups /= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(log_n: u8, bits: u32) -> (u64, u64, Vec<u64>, Vec<u64>) {
        let q = ntt_prime(1 << bits, log_n).unwrap();
        let psi = root(q, log_n);
        let n = 1_usize << log_n;
        let twiddles = (0..n).map(|i| pow(psi, brv(i, log_n.into()) as u64, q)).collect();
        let x = (0..n as u64).map(|i| i.wrapping_mul(0x9E37_79B9_7F4A_7C15) % q).collect();
        (q, psi, twiddles, x)
    }

    #[test]
    fn forward_is_evaluation() {
        for (log_n, bits) in [(1, 20), (4, 30), (7, 50), (10, 62)] {
            let (q, psi, twiddles, x) = case(log_n, bits);
            let mut y = x.clone();
            forward(&mut y, &twiddles, q);
            for (i, &v) in y.iter().enumerate() {
                assert_eq!(v, evaluate(&x, psi, q, i), "log N {log_n}, place {i}");
            }
        }
    }

    #[test]
    fn inverse_undoes_forward() {
        for (log_n, bits) in [(1, 20), (5, 30), (10, 50), (13, 62)] {
            let (q, _, twiddles, x) = case(log_n, bits);
            let mut y = x.clone();
            forward(&mut y, &twiddles, q);
            assert_ne!(x, y);
            inverse(&mut y, &twiddles, q);
            assert_eq!(x, y);
        }
    }

    #[test]
    fn primes_are_prime() {
        for (q, is) in
            [(2, true), (1, false), (41, true), (91, false), (3_215_031_751, false), (65_537, true)]
        {
            assert_eq!(is_prime(q), is, "{q}");
        }
        assert_eq!(ntt_prime(1 << 20, 12), Some(1_032_193));
    }
}
