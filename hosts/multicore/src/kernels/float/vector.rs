//! Products of limbs in double precision. Sums, permutations and conversions stay with the scalar path, which the
//! compiler vectorises where it pays.

use super::super::prime::Prime;
use super::{Field, Lanes};

#[inline(always)]
pub(in super::super) fn multiply<S: Lanes>(
    s: S,
    prime: &Prime,
    destination: &mut [u64],
    x: &[u64],
    y: &[u64],
) {
    let field = Field::new(s, prime);
    let sources = x.as_chunks().0.iter().zip(y.as_chunks().0);
    for (destination, (x, y)) in destination.as_chunks_mut().0.iter_mut().zip(sources) {
        s.write_words(destination, field.lift(field.multiply(s.read_words(x), s.read_words(y))));
    }
}

#[inline(always)]
pub(in super::super) fn multiply_assign<S: Lanes>(s: S, prime: &Prime, x: &mut [u64], y: &[u64]) {
    let field = Field::new(s, prime);
    for (x, y) in x.as_chunks_mut().0.iter_mut().zip(y.as_chunks().0) {
        let product = field.multiply(s.read_words(x), s.read_words(y));
        s.write_words(x, field.lift(product));
    }
}

#[inline(always)]
pub(in super::super) fn multiply_add<S: Lanes>(s: S, prime: &Prime, sum: &mut [u64], x: &[u64], y: &[u64]) {
    let field = Field::new(s, prime);
    let sources = x.as_chunks().0.iter().zip(y.as_chunks().0);
    for (sum, (x, y)) in sum.as_chunks_mut().0.iter_mut().zip(sources) {
        let product = field.multiply(s.read_words(x), s.read_words(y));
        let t = field.reduce(s.add(s.read_words(sum), product));
        s.write_words(sum, field.lift(t));
    }
}

#[inline(always)]
pub(in super::super) fn multiply_scalar_assign<S: Lanes>(s: S, prime: &Prime, x: &mut [u64], factor: u64) {
    let field = Field::new(s, prime);
    let w = field.factor(prime, factor);
    for x in x.as_chunks_mut().0 {
        let product = field.product(s.read_words(x), w);
        s.write_words(x, field.lift(product));
    }
}

#[inline(always)]
pub(in super::super) fn multiply_scalar_add<S: Lanes>(
    s: S,
    prime: &Prime,
    sum: &mut [u64],
    x: &[u64],
    factor: u64,
) {
    let field = Field::new(s, prime);
    let w = field.factor(prime, factor);
    for (sum, x) in sum.as_chunks_mut().0.iter_mut().zip(x.as_chunks().0) {
        let t = field.reduce(s.add(s.read_words(sum), field.product(s.read_words(x), w)));
        s.write_words(sum, field.lift(t));
    }
}

#[inline(always)]
pub(in super::super) fn sub_multiply_scalar<S: Lanes>(
    s: S,
    prime: &Prime,
    x: &mut [u64],
    y: &[u64],
    factor: u64,
) {
    let field = Field::new(s, prime);
    let w = field.factor(prime, factor);
    for (x, y) in x.as_chunks_mut().0.iter_mut().zip(y.as_chunks().0) {
        let product = field.product(s.sub(s.read_words(x), s.read_words(y)), w);
        s.write_words(x, field.lift(product));
    }
}

#[inline(always)]
pub(in super::super) fn tensor<S: Lanes>(
    s: S,
    prime: &Prime,
    d: [&mut [u64]; 3],
    a: [&[u64]; 2],
    b: [&[u64]; 2],
) {
    let field = Field::new(s, prime);
    let [d0, d1, d2] = d.map(|limb| limb.as_chunks_mut().0);
    let [a0, a1] = a.map(|limb| limb.as_chunks().0);
    let [b0, b1] = b.map(|limb| limb.as_chunks().0);
    let factors = a0.iter().zip(a1).zip(b0.iter().zip(b1));
    for (((d0, d1), d2), ((a0, a1), (b0, b1))) in d0.iter_mut().zip(d1).zip(d2).zip(factors) {
        let (a0, a1) = (s.read_words(a0), s.read_words(a1));
        let (b0, b1) = (s.read_words(b0), s.read_words(b1));
        s.write_words(d0, field.lift(field.multiply(a0, b0)));
        let cross = s.add(field.multiply(a0, b1), field.multiply(a1, b0));
        s.write_words(d1, field.lift(field.reduce(cross)));
        s.write_words(d2, field.lift(field.multiply(a1, b1)));
    }
}

#[inline(always)]
pub(in super::super) fn inner_product<S: Lanes, const ADD: bool>(
    s: S,
    prime: &Prime,
    sums: [&mut [u64]; 2],
    digits: &[&[u64]],
    keys: [&[&[u64]]; 2],
) {
    let field = Field::new(s, prime);
    for (sum, keys) in sums.into_iter().zip(keys) {
        for (line, sum) in sum.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let mut total = if ADD { s.read_words(sum) } else { s.splat(0.0) };
            for (digit, key) in digits.iter().zip(keys) {
                let (digit, key) = (&digit.as_chunks::<4>().0[line], &key.as_chunks::<4>().0[line]);
                total = field.reduce(s.add(total, field.multiply(s.read_words(digit), s.read_words(key))));
            }
            s.write_words(sum, field.lift(field.reduce(total)));
        }
    }
}
