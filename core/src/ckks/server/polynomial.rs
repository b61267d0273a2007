//! Polynomials in the Chebyshev basis, Paterson–Stockmeyer style, with the
//! least depth: degree d costs ⌈log2(d + 1)⌉ levels.
//!
//! A node at level t is one sum of products at level t + 1: Σ q_i·T_{g_i} plus
//! a leaf Σ c_j·T_j, relinearised and rescaled once. The split
//! p = q·T_g + r uses T_{g+i} = 2·T_g·T_i − T_{g−i}.

use super::Evaluator;
use super::arithmetic::MAX_TERMS;
use crate::accel::Accelerator;
use crate::ckks::{Ciphertext, Error, KeySource, Product};

/// Largest degree.
pub const MAX_DEGREE: usize = 127;

/// Levels that a Chebyshev series of `degree` consumes: ⌈log2(degree + 1)⌉.
pub const fn chebyshev_depth(degree: usize) -> usize {
    (usize::BITS - degree.leading_zeros()) as usize
}

/// Baby steps below 2^⌈log2(MAX_DEGREE + 1) / 2⌉ and powers of two up to MAX_DEGREE.
const MAX_POWERS: usize = 24;

/// T_i of the argument, computed when first asked for.
struct Powers<A: Accelerator> {
    known: heapless::Vec<(usize, Ciphertext<A>), MAX_POWERS>,
    top: usize,
}

impl<A: Accelerator> Powers<A> {
    fn get(&self, i: usize) -> Option<&Ciphertext<A>> {
        self.known.iter().find(|(known, _)| *known == i).map(|(_, power)| power)
    }
}

type Series = heapless::Vec<f64, { MAX_DEGREE + 1 }>;

/// Drops vanishing leading coefficients.
fn trim(series: &mut Series) {
    while series.len() > 1 && series.last() == Some(&0.0) {
        series.pop();
    }
}

impl<A: Accelerator, K: KeySource<A> + ?Sized> Evaluator<'_, A, K> {
    /// Σ c_i·T_i(x) for slots x in \[−1, 1\], exactly [`chebyshev_depth`] levels
    /// below x. `coefficients` start with c_0.
    ///
    /// # Errors
    /// [`Error::LevelsExhausted`] before any work when the depth is not there,
    /// [`Error::Length`] beyond [`MAX_DEGREE`], [`Error::MissingKey`].
    pub fn chebyshev(&self, x: &Ciphertext<A>, coefficients: &[f64]) -> Result<Ciphertext<A>, Error> {
        let misfit = Error::Length { have: coefficients.len(), need: MAX_DEGREE + 1 };
        let mut series = Series::from_slice(coefficients).map_err(|_| misfit)?;
        trim(&mut series);
        if series.is_empty() {
            return Err(misfit);
        }
        let degree = series.len() - 1;
        let depth = chebyshev_depth(degree).max(1);
        if depth > x.level() {
            return Err(Error::LevelsExhausted { have: x.level(), need: depth });
        }
        let mut powers = Powers { known: heapless::Vec::new(), top: x.level() };
        let full = |_| Error::Full { capacity: MAX_POWERS };
        powers.known.push((1, x.duplicate(self.accelerator)?)).map_err(full)?;
        let baby = 1 << chebyshev_depth(degree).div_ceil(2);
        self.chebyshev_node(series, x.level() - depth, baby, &mut powers)
    }

    fn chebyshev_node(
        &self,
        mut series: Series,
        target: usize,
        baby: usize,
        powers: &mut Powers<A>,
    ) -> Result<Ciphertext<A>, Error> {
        let mut sum: Option<Product<A>> = None;
        // Which T_i, times what, are added in the end.
        let mut terms: heapless::Vec<(usize, f64), MAX_TERMS> = heapless::Vec::new();
        let full = |_| Error::Full { capacity: MAX_TERMS };
        loop {
            trim(&mut series);
            let degree = series.len() - 1;
            // A leaf's T_degree must exist at the level of the sum.
            let reach = powers.top - (target + 1);
            if degree < baby && (degree < 2 || chebyshev_depth(degree - 1) <= reach) {
                break;
            }
            let g = 1 << (chebyshev_depth(degree) - 1);
            let mut quotient = Series::new();
            for i in g..=degree {
                let c = if i == g { series[i] } else { 2.0 * series[i] };
                // Shorter than the series it is taken from.
                let _ = quotient.push(c);
                if i > g {
                    series[2 * g - i] -= series[i];
                }
            }
            series.truncate(g);
            trim(&mut quotient);
            let power = self.chebyshev_power(g, powers)?;
            if let [constant] = quotient[..] {
                terms.push((g, constant)).map_err(full)?;
                continue;
            }
            // The power may be higher up: the quotient makes up for its scale.
            let ratio = self.factor_scale(target + 1, power.level()) / self.parameters.scale(target + 1);
            quotient.iter_mut().for_each(|c| *c *= ratio);
            let quotient = self.chebyshev_node(quotient, target + 1, baby, powers)?;
            let power = self.chebyshev_power(g, powers)?;
            match &mut sum {
                Some(sum) => self.multiply_at_add(sum, &[(&quotient, power)])?,
                none => *none = Some(self.multiply_at(target + 1, &quotient, power)?),
            }
        }
        for (i, &c) in series.iter().enumerate().skip(1).filter(|(_, c)| **c != 0.0) {
            self.chebyshev_power(i, powers)?;
            terms.push((i, c)).map_err(full)?;
        }
        let mut sum = sum.map_or_else(|| self.product(target + 1), Ok)?;
        let known: heapless::Vec<_, MAX_TERMS> =
            terms.iter().filter_map(|&(i, c)| Some((powers.get(i)?, c))).collect();
        self.multiply_constants_add(&mut sum, &known)?;
        if series[0] != 0.0 {
            self.add_constant_to_product(&mut sum, series[0])?;
        }
        self.rescale(sum)
    }

    /// T_i at level top − ⌈log2 i⌉.
    fn chebyshev_power<'p>(&self, i: usize, powers: &'p mut Powers<A>) -> Result<&'p Ciphertext<A>, Error> {
        let full = Error::Full { capacity: MAX_POWERS };
        if powers.get(i).is_none() {
            // i = a + b with a the largest power of two below i: T_i = 2·T_a·T_b − T_{a−b}.
            let a = 1 << (chebyshev_depth(i - 1) - 1);
            let b = i - a;
            let level = powers.top - chebyshev_depth(i - 1) + 1;
            self.chebyshev_power(a, powers)?;
            let right = self.chebyshev_power(b, powers)?;
            let dropped = if right.level() > level { Some(self.drop_to(right, level)?) } else { None };
            // T_a is at this level.
            let left = powers.get(a).ok_or(full)?;
            let right = dropped.as_ref().or(powers.get(b)).ok_or(full)?;
            let mut product = self.multiply(left, right)?;
            drop(dropped);
            self.double_product(&mut product)?;
            match a - b {
                0 => self.add_constant_to_product(&mut product, -1.0)?,
                d => self.multiply_constant_add(&mut product, self.chebyshev_power(d, powers)?, -1.0)?,
            }
            let power = self.rescale(product)?;
            powers.known.push((i, power)).map_err(|_| full)?;
        }
        powers.get(i).ok_or(full)
    }

    fn double_product(&self, product: &mut Product<A>) -> Result<(), Error> {
        let two = self.scalars(product.parts[0].basis(), 2.0, 1.0)?;
        for part in product.parts.iter_mut().chain(&mut product.square) {
            part.multiply_scalar_assign(self.accelerator, &two)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_is_the_least_possible() {
        let expected = [(1, 1), (2, 2), (3, 2), (4, 3), (7, 3), (8, 4), (15, 4), (31, 5), (63, 6)];
        for (degree, depth) in expected {
            assert_eq!(chebyshev_depth(degree), depth, "{degree}");
        }
    }
}
