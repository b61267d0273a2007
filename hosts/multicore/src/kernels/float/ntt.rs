//! The transform in double precision: radix-4 passes on four-lane columns, then the last two stages on transposed
//! blocks of sixteen words. Between passes the limb holds the bit patterns of signed numbers within `±5q/4`.

use super::super::KernelError;
use super::super::prime::{Prime, bit_reverse};
use super::{Field, Lanes, centred};

/// Twiddles and their quotients by q, in the order of `scalar_ntt`, except that the last stage's are unzipped in
/// blocks of eight: four transposed blocks need the even ones in one vector and the odd ones in another.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    forward: Twiddles,
    inverse: Twiddles,
    scale: u64,
}

#[derive(Clone, Debug)]
struct Twiddles {
    factors: Box<[f64]>,
    ratios: Box<[f64]>,
}

impl Twiddles {
    fn new(prime: &Prime, log: u32, exponent: impl Fn(usize) -> u64, psi: u64) -> Self {
        let degree = 1usize << log;
        let mut powers = Vec::with_capacity(2 * degree);
        let mut w = 1;
        for _ in 0..2 * degree {
            powers.push(w);
            w = prime.multiply(w, psi);
        }
        let pair = |k: usize| {
            let k = if k < degree / 2 { k } else { (k & !7) | ((2 * k) & 6) | ((k >> 2) & 1) };
            centred(prime, powers[exponent(k) as usize % (2 * degree)])
        };
        let (factors, ratios): (Vec<f64>, Vec<f64>) = (0..degree).map(pair).unzip();
        Self { factors: factors.into(), ratios: ratios.into() }
    }

    #[inline(always)]
    fn splat<S: Lanes>(&self, s: S, k: usize) -> (S::F, S::F) {
        (s.splat(self.factors[k]), s.splat(self.ratios[k]))
    }

    /// Four consecutive pairs from `4k` on.
    #[inline(always)]
    fn load<S: Lanes>(&self, s: S, k: usize) -> (S::F, S::F) {
        (s.load(&self.factors.as_chunks().0[k]), s.load(&self.ratios.as_chunks().0[k]))
    }
}

impl Table {
    pub(crate) fn new(prime: &Prime, log: u32) -> Result<Self, KernelError> {
        let degree = 1u64 << log;
        let psi = prime.root(1 << log)?;
        let exponent = |k: usize| bit_reverse(k, log) as u64;
        Ok(Self {
            forward: Twiddles::new(prime, log, exponent, psi),
            inverse: Twiddles::new(prime, log, |k| 2 * degree - exponent(k), psi),
            scale: prime.inverse(degree),
        })
    }

    /// ψ^brv(k) for k below N/2.
    pub(in super::super) fn root(&self, prime: &Prime, k: usize) -> u64 {
        (self.forward.factors[k] as i64).rem_euclid(prime.value() as i64) as u64
    }

    /// Natural order in, bit-reversed order out, canonical on both sides.
    #[inline(always)]
    pub(in super::super) fn forward<S: Lanes>(&self, s: S, prime: &Prime, x: &mut [u64]) {
        let table = &self.forward;
        let degree = table.factors.len();
        assert_eq!(x.len(), degree, "a limb has N words");
        let field = Field::new(s, prime);
        for line in x.as_chunks_mut().0 {
            let v = s.read_words(line);
            s.set(line, v);
        }
        let mut groups = 1;
        if degree.trailing_zeros() % 2 == 1 {
            let (low, high) = x.split_at_mut(degree / 2);
            let w = table.splat(s, 1);
            for (a, b) in low.as_chunks_mut().0.iter_mut().zip(high.as_chunks_mut().0) {
                let (u, v) = butterfly(field, s.get(a), s.get(b), w);
                s.set(a, u);
                s.set(b, v);
            }
            groups = 2;
        }
        while groups < degree / 4 {
            for (group, words) in x.chunks_exact_mut(degree / groups).enumerate() {
                let first = groups + group;
                let w = [table.splat(s, first), table.splat(s, 2 * first), table.splat(s, 2 * first + 1)];
                columns(s, words, |v| forward_four(field, v, w));
            }
            groups *= 4;
        }
        for (block, words) in x.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let (first, second) = (degree / 16 + block, degree / 8 + 2 * block);
            let w = [table.load(s, first), table.load(s, second), table.load(s, second + 1)];
            let lines = words.as_chunks_mut::<4>().0;
            let v = s.transpose([s.get(&lines[0]), s.get(&lines[1]), s.get(&lines[2]), s.get(&lines[3])]);
            let v = s.transpose(forward_four(field, v, w));
            for (line, v) in lines.iter_mut().zip(v) {
                s.write_words(line, field.lift(field.reduce(v)));
            }
        }
    }

    /// Bit-reversed order in, natural order out, scaled by 1/N, canonical on both sides.
    #[inline(always)]
    pub(in super::super) fn inverse<S: Lanes>(&self, s: S, prime: &Prime, x: &mut [u64]) {
        let table = &self.inverse;
        let degree = table.factors.len();
        assert_eq!(x.len(), degree, "a limb has N words");
        let field = Field::new(s, prime);
        for (block, words) in x.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let (first, second) = (degree / 16 + block, degree / 8 + 2 * block);
            let w = [table.load(s, first), table.load(s, second), table.load(s, second + 1)];
            let lines = words.as_chunks_mut::<4>().0;
            let [a, b, c, d] = [&lines[0], &lines[1], &lines[2], &lines[3]];
            let v = s.transpose([s.read_words(a), s.read_words(b), s.read_words(c), s.read_words(d)]);
            let v = s.transpose(inverse_four(field, v, w));
            for (line, v) in lines.iter_mut().zip(v) {
                s.set(line, v);
            }
        }
        let mut groups = degree / 4;
        while groups >= 4 {
            groups /= 4;
            for (group, words) in x.chunks_exact_mut(degree / groups).enumerate() {
                let first = groups + group;
                let w = [table.splat(s, first), table.splat(s, 2 * first), table.splat(s, 2 * first + 1)];
                columns(s, words, |v| inverse_four(field, v, w));
            }
        }
        if groups == 2 {
            let (low, high) = x.split_at_mut(degree / 2);
            let w = table.splat(s, 1);
            for (a, b) in low.as_chunks_mut().0.iter_mut().zip(high.as_chunks_mut().0) {
                let (u, v) = inverse_butterfly(field, s.get(a), s.get(b), w);
                s.set(a, u);
                s.set(b, v);
            }
        }
        let scale = field.factor(prime, self.scale);
        for line in x.as_chunks_mut().0 {
            let v = field.product(s.get(line), scale);
            s.write_words(line, field.lift(v));
        }
    }
}

/// Applies `f` to the four quarters of `words`, column by column.
#[inline(always)]
fn columns<S: Lanes>(s: S, words: &mut [u64], f: impl Fn([S::F; 4]) -> [S::F; 4]) {
    let (low, high) = words.split_at_mut(words.len() / 2);
    let (a, b) = low.split_at_mut(low.len() / 2);
    let (c, d) = high.split_at_mut(high.len() / 2);
    let low = a.as_chunks_mut().0.iter_mut().zip(b.as_chunks_mut().0);
    let high = c.as_chunks_mut().0.iter_mut().zip(d.as_chunks_mut().0);
    for ((a, b), (c, d)) in low.zip(high) {
        let v = f([s.get(a), s.get(b), s.get(c), s.get(d)]);
        s.set(a, v[0]);
        s.set(b, v[1]);
        s.set(c, v[2]);
        s.set(d, v[3]);
    }
}

/// `±2q` in, `±5q/4` out.
#[inline(always)]
fn butterfly<S: Lanes>(field: Field<S>, x: S::F, y: S::F, w: (S::F, S::F)) -> (S::F, S::F) {
    let (x, t) = (field.reduce(x), field.product(y, w));
    (field.s.add(x, t), field.s.sub(x, t))
}

/// Two forward stages, `±5q/4` in and out; only the second reduces.
#[inline(always)]
fn forward_four<S: Lanes>(field: Field<S>, [a, b, c, d]: [S::F; 4], w: [(S::F, S::F); 3]) -> [S::F; 4] {
    let s = field.s;
    let (c, d) = (field.product(c, w[0]), field.product(d, w[0]));
    let (a, c) = (s.add(a, c), s.sub(a, c));
    let (b, d) = (s.add(b, d), s.sub(b, d));
    let (a, b) = butterfly(field, a, b, w[1]);
    let (c, d) = butterfly(field, c, d, w[2]);
    [a, b, c, d]
}

/// `[0, q)` or `±q` in, `±3q/4` out: a difference stays within `±2q` either way.
#[inline(always)]
fn inverse_butterfly<S: Lanes>(field: Field<S>, x: S::F, y: S::F, w: (S::F, S::F)) -> (S::F, S::F) {
    (field.reduce(field.s.add(x, y)), field.product(field.s.sub(x, y), w))
}

/// Two inverse stages, `[0, q)` or `±q` in, `±3q/4` out.
#[inline(always)]
fn inverse_four<S: Lanes>(field: Field<S>, [a, b, c, d]: [S::F; 4], w: [(S::F, S::F); 3]) -> [S::F; 4] {
    let (a, b) = inverse_butterfly(field, a, b, w[1]);
    let (c, d) = inverse_butterfly(field, c, d, w[2]);
    let (a, c) = inverse_butterfly(field, a, c, w[0]);
    let (b, d) = inverse_butterfly(field, b, d, w[0]);
    [a, b, c, d]
}
