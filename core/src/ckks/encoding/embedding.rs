//! The canonical embedding, written once for floating and fixed point.
//!
//! With ζ = e^{iπ/N} and n = N/2, slot j of a real polynomial m is
//! m(ζ^{5^j}). Since ζ^{n·5^j} = i, folding w_k = m_k + i·m_{k+n} leaves a
//! complex polynomial of degree below n evaluated at the roots of X^n = i. In
//! the order 5^j these split in halves that differ in sign, and their squares
//! are the same roots at half the size (Cheon, Han, Kim, Kim, Song, SAC 2018):
//! a radix-2 transform with contiguous twiddles.

use crate::memory::{Arena, OutOfMemory};
use crate::ring::bit_reverse;

/// Arithmetic that the transform needs. `Word` is how a value lies in memory.
pub(super) trait Real: Copy {
    type Word: Copy + Default;
    fn load(word: Self::Word) -> Self;
    fn store(self) -> Self::Word;
    fn plus(self, y: Self) -> Self;
    fn minus(self, y: Self) -> Self;
    fn times(self, y: Self) -> Self;
    /// Halves where the range is fixed; the identity in floating point, which
    /// divides once at the end.
    fn shrink(self) -> Self;
    /// cos and sin of 2π·numerator/2^log_order, an angle of at most π/4.
    fn octant(numerator: u32, log_order: u32) -> (Self, Self);
    fn negate(self) -> Self;
}

/// cos and sin of 2π·numerator/2^log_order, log_order ≥ 3, from the first octant.
fn root<R: Real>(numerator: u32, log_order: u32) -> (R, R) {
    let eighth = 1 << (log_order - 3);
    let (octant, rest) = (numerator / eighth, numerator % eighth);
    let (quarter, cosine, sine) = if octant % 2 == 0 {
        let (c, s) = R::octant(rest, log_order);
        (octant / 2, c, s)
    } else {
        let (c, s) = R::octant(eighth - rest, log_order);
        (octant / 2 + 1, c, s.negate())
    };
    match quarter % 4 {
        0 => (cosine, sine),
        1 => (sine.negate(), cosine),
        2 => (cosine.negate(), sine.negate()),
        _ => (sine, cosine.negate()),
    }
}

/// The twiddles of one ring degree.
pub(super) struct Embedding<'a, R: Real> {
    // Entry half + j is e^{2πi·5^j/(8·half)}, for half = 1, 2, …, n/2.
    cosines: &'a [R::Word],
    sines: &'a [R::Word],
}

impl<'a, R: Real> Embedding<'a, R> {
    pub(super) fn new(degree: usize, arena: &mut Arena<'a, R::Word>) -> Result<Self, OutOfMemory> {
        let misfit = OutOfMemory { have: arena.remaining(), need: usize::MAX };
        if !degree.is_power_of_two() || !(4..=1 << 17).contains(&degree) {
            return Err(misfit);
        }
        if arena.remaining() < degree {
            return Err(OutOfMemory { have: arena.remaining(), need: degree });
        }
        let slots = degree / 2;
        let (cosines, sines) = (arena.take(slots)?, arena.take(slots)?);
        (cosines[0], sines[0]) = Default::default();
        let mut half = 1;
        while half < slots {
            let log_order = (8 * half).trailing_zeros();
            let mut power = 1u32;
            for j in 0..half {
                let (cosine, sine) = root::<R>(power, log_order);
                (cosines[half + j], sines[half + j]) = (cosine.store(), sine.store());
                power = (power * 5) & ((1 << log_order) - 1);
            }
            half *= 2;
        }
        Ok(Self { cosines, sines })
    }

    pub(super) fn slots(&self) -> usize {
        self.cosines.len()
    }

    /// That of fewer slots, a power of two: its twiddles are the first of these.
    pub(super) fn narrow(&self, slots: usize) -> Embedding<'_, R> {
        Embedding { cosines: &self.cosines[..slots], sines: &self.sines[..slots] }
    }

    /// Coefficients w_k to slots, in place.
    pub(super) fn evaluate(&self, re: &mut [R::Word], im: &mut [R::Word]) {
        permute(re);
        permute(im);
        let mut half = 1;
        while half < self.slots() {
            self.stage(half, re, im, |(ar, ai), (br, bi), (c, s)| {
                let (tr, ti) = (br.times(c).minus(bi.times(s)), br.times(s).plus(bi.times(c)));
                ((ar.plus(tr), ai.plus(ti)), (ar.minus(tr), ai.minus(ti)))
            });
            half *= 2;
        }
    }

    /// Slots to coefficients w_k, in place: n times them unless `shrink` halves.
    pub(super) fn interpolate(&self, re: &mut [R::Word], im: &mut [R::Word]) {
        let mut half = self.slots() / 2;
        while half > 0 {
            self.stage(half, re, im, |(ar, ai), (br, bi), (c, s)| {
                let (ar, ai, br, bi) = (ar.shrink(), ai.shrink(), br.shrink(), bi.shrink());
                let (tr, ti) = (ar.minus(br), ai.minus(bi));
                let (ur, ui) = (tr.times(c).plus(ti.times(s)), ti.times(c).minus(tr.times(s)));
                ((ar.plus(br), ai.plus(bi)), (ur, ui))
            });
            half /= 2;
        }
        permute(re);
        permute(im);
    }

    #[inline(always)]
    fn stage(
        &self,
        half: usize,
        re: &mut [R::Word],
        im: &mut [R::Word],
        butterfly: impl Fn((R, R), (R, R), (R, R)) -> ((R, R), (R, R)),
    ) {
        let (cosines, sines) = (&self.cosines[half..2 * half], &self.sines[half..2 * half]);
        for (re, im) in re.chunks_exact_mut(2 * half).zip(im.chunks_exact_mut(2 * half)) {
            let ((ar, br), (ai, bi)) = (re.split_at_mut(half), im.split_at_mut(half));
            // Equal lengths known to the compiler: no bounds checks inside.
            let (br, ai, bi) = (&mut br[..half], &mut ai[..half], &mut bi[..half]);
            for (j, ar) in ar.iter_mut().enumerate() {
                let (a, b) = butterfly(
                    (R::load(*ar), R::load(ai[j])),
                    (R::load(br[j]), R::load(bi[j])),
                    (R::load(cosines[j]), R::load(sines[j])),
                );
                (*ar, ai[j]) = (a.0.store(), a.1.store());
                (br[j], bi[j]) = (b.0.store(), b.1.store());
            }
        }
    }
}

fn permute<W>(x: &mut [W]) {
    let bits = x.len().trailing_zeros();
    for i in 0..x.len() {
        let j = bit_reverse(i, bits);
        if i < j {
            x.swap(i, j);
        }
    }
}
