//! Polynomials with rows as coefficients at many points of every word.

use super::path::avx512_or;
use super::{Kernels, Prime};

impl Kernels {
    /// `sums[a] = Σ_i x^(i·(2a + 1)) ⊙ rows[i]` on words of one prime, all canonical.
    ///
    /// # Panics
    /// If the lengths differ or are no multiple of 8 words.
    pub fn odd_power_sums(self, prime: &Prime, x: &[u64], rows: &[&[u64]], sums: &mut [&mut [u64]]) {
        assert!(
            x.len().is_multiple_of(8) && rows.iter().all(|row| row.len() == x.len()),
            "rows of one length"
        );
        assert!(sums.iter().all(|sum| sum.len() == x.len()), "sums of one length");
        avx512_or!(self, powers::odd_power_sums(prime, x, rows, sums), {
            let (mut power, mut square) = (x.to_vec(), x.to_vec());
            self.multiply_assign(prime, &mut square, x);
            for sum in sums {
                sum.fill(0);
                for row in rows.iter().rev() {
                    self.multiply_assign(prime, sum, &power);
                    self.add_assign(prime, sum, row);
                }
                self.multiply_assign(prime, &mut power, &square);
            }
        });
    }
}
