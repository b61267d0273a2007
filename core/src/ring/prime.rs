//! NTT-friendly primes: q ≡ 1 (mod 2N).

use super::Modulus;

/// Whether `n` < 2^50 is prime (Miller–Rabin with the first twelve primes as
/// bases, deterministic below 3.3·10^24: Sorenson and Webster 2015).
pub const fn is_prime(n: u64) -> bool {
    const BASES: [u64; 12] = [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37];
    let mut i = 0;
    while i < BASES.len() {
        if n.is_multiple_of(BASES[i]) {
            return n == BASES[i];
        }
        i += 1;
    }
    let Some(m) = Modulus::new(n) else { return false };
    let twos = (n - 1).trailing_zeros();
    let odd = (n - 1) >> twos;
    let mut i = 0;
    while i < BASES.len() {
        let mut x = m.power(BASES[i], odd);
        let mut composite = x != 1 && x != n - 1;
        let mut round = 1;
        while composite && round < twos {
            x = m.multiply(x, x);
            if x == n - 1 {
                composite = false;
            }
            round += 1;
        }
        if composite {
            return false;
        }
        i += 1;
    }
    true
}

/// The primes ≡ 1 (mod `step`) below `bound`, from the largest down.
pub fn primes_below(bound: u64, step: u64) -> impl Iterator<Item = u64> {
    let first = bound.saturating_sub(2) / step * step + 1;
    (0..)
        .map_while(move |i: u64| first.checked_sub(i.checked_mul(step)?))
        .take_while(|&n| n > 1)
        .filter(|&n| is_prime(n))
}

/// The prime ≡ 1 (mod `step`) nearest to `target`, below `bound`, for which
/// `free` holds; ties go down.
pub fn prime_near(target: u64, step: u64, bound: u64, free: impl Fn(u64) -> bool) -> Option<u64> {
    let centre = target / step * step + 1;
    for i in 0..bound / step {
        let below = centre.checked_sub(i * step).filter(|&n| n > step);
        let above = centre.checked_add((i + 1) * step).filter(|&n| n < bound);
        if below.is_none() && above.is_none() {
            return None;
        }
        if let Some(n) = below.filter(|&n| n < bound && is_prime(n) && free(n)) {
            return Some(n);
        }
        if let Some(n) = above.filter(|&n| is_prime(n) && free(n)) {
            return Some(n);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_trial_division() {
        for n in 2u64..20_000 {
            let naive = (2..n).take_while(|d| d * d <= n).all(|d| n % d != 0);
            assert_eq!(is_prime(n), naive, "{n}");
        }
    }

    #[test]
    fn primes_are_ntt_friendly_distinct_and_descending() {
        let mut last = 1 << 50;
        for q in primes_below(1 << 50, 1 << 17).take(20) {
            assert!(q < last && q % (1 << 17) == 1 && is_prime(q));
            last = q;
        }
    }

    #[test]
    fn nearest_is_near() {
        let q = prime_near(1 << 40, 1 << 17, 1 << 50, |_| true).unwrap();
        assert!(is_prime(q) && q % (1 << 17) == 1 && q.abs_diff(1 << 40) < 1 << 24);
    }
}
