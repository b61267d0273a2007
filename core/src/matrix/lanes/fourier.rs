//! From d polynomials x_i to Σ_i (X·ζ^(∓t))^i·x_i for every t, and back.
//!
//! The X·ζ^c are the roots of Y^d = X^d, so that this is a transform of length d
//! over rows. Y^d − X^d splits in halves as X^N + 1 does in a number-theoretic
//! transform: node b of layer l stands for Y^(d/2^l) = X^e with
//! e = d/2^l·(1 + 2kc), c = brv(b) over l bits, and is split by X^(e/2), the
//! image of X^(d/2^(l+1)) under σ_c. So no table is needed, and multiplying by
//! it is pointwise: no key. The forward transform takes ζ^(−1) for ζ, so that
//! place p belongs to t = brv(p) in both.

use super::{LaneEvaluator, MAX_WIDTH};
use crate::accel::{Accelerator, Limbs};
use crate::ckks::{Ciphertext, Error, KeySource};
use crate::ring::{Basis, bit_reverse};
use core::slice;

/// log2 of the rows that one task takes through several layers: few enough
/// that a limb of each and the powers of X stay in a second-level cache.
const LAYERS: u32 = 3;

/// The two transforms.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// Row p becomes Σ_i (X·ζ^(−t))^i·x_i.
    Forward,
    /// Row j becomes Σ_t (X·ζ^t)^(−j)·y_t.
    Inverse,
}

type Group<'r, A> = heapless::Vec<&'r mut Ciphertext<A>, { 1 << LAYERS }>;

/// A run of layers over rows of one node.
struct Pass {
    direction: Direction,
    /// The first layer.
    layer: u32,
    /// How many layers.
    layers: u32,
    /// Polynomials of a row.
    parts: usize,
}

impl<A: Accelerator, K: KeySource<A> + ?Sized> LaneEvaluator<'_, A, K> {
    /// Transforms the first `parts` polynomials of d rows in place, a few layers
    /// at a time: rows evenly spaced in a node form a group. In the forward
    /// transform, rows from `live` on count as zero; the inverse takes all d.
    pub(super) fn transform(
        &self,
        direction: Direction,
        rows: &mut [Ciphertext<A>],
        parts: usize,
        live: usize,
    ) -> Result<(), Error> {
        let depth = self.lanes.width.ilog2();
        let mut layer = 0;
        while layer < depth {
            let layers = LAYERS.min(depth - layer);
            let first = match direction {
                Direction::Forward => layer,
                Direction::Inverse => depth - layer - layers,
            };
            self.pass(&Pass { direction, layer: first, layers, parts }, rows, live)?;
            layer += layers;
        }
        Ok(())
    }

    /// Takes all rows through the layers of `pass`.
    fn pass(&self, pass: &Pass, rows: &mut [Ciphertext<A>], live: usize) -> Result<(), Error> {
        let span = rows.len() >> pass.layer;
        let stride = span >> pass.layers;
        let mut groups: heapless::Vec<Group<'_, A>, { MAX_WIDTH / 2 }> = heapless::Vec::new();
        for (i, row) in rows.iter_mut().enumerate() {
            let group = i / span * stride + i % stride;
            if group == groups.len() {
                // Cannot overflow, nor can the next: a group has 2^layers rows, at least two.
                let _ = groups.push(Group::new());
            }
            let _ = groups[group].push(row);
        }
        self.evaluator.accelerator().for_each(&mut groups, |i, group| {
            let (node, offset) = (i / stride, i % stride);
            // Rows `offset`, `offset` + stride, … of the node: how many are not zero.
            let live = live.min(span).saturating_sub(offset).div_ceil(stride);
            self.group(pass, group, node, live)
        })
    }

    /// Takes a group of `node` through the layers; its first `live` rows are not zero.
    fn group(&self, pass: &Pass, group: &mut Group<'_, A>, node: usize, live: usize) -> Result<(), Error> {
        let mut spare = self.evaluator.accelerator().allocate()?;
        for prime in 0..=group[0].level() {
            let twiddles = self.twiddles(pass, node, prime)?;
            for part in 0..pass.parts {
                for step in 0..pass.layers {
                    let layer = match pass.direction {
                        Direction::Forward => step,
                        Direction::Inverse => pass.layers - 1 - step,
                    };
                    let twiddles = &twiddles[(1 << layer) - 1..(2 << layer) - 1];
                    self.layer(pass.direction, group, [part, prime], live, twiddles, &mut spare)?;
                }
            }
        }
        Ok(())
    }

    /// One layer of a group, which splits it once for every power of X.
    fn layer(
        &self,
        direction: Direction,
        group: &mut Group<'_, A>,
        [part, prime]: [usize; 2],
        live: usize,
        twiddles: &[A::Limb],
        spare: &mut A::Limb,
    ) -> Result<(), Error> {
        let span = group.len() / twiddles.len();
        let (half, live) = (span / 2, live.min(span));
        for (pair, twiddle) in group.chunks_exact_mut(span).zip(twiddles) {
            let (upper, lower) = pair.split_at_mut(half);
            for (j, (u, v)) in upper.iter_mut().zip(lower).take(live).enumerate() {
                let [u, v] = [u, v].map(|row| slice::from_mut(&mut row.parts[part].limbs_mut()[prime]));
                if j + half < live {
                    let prime = Basis::new(prime, 1, 0);
                    self.butterfly(
                        direction,
                        prime,
                        [u, v, slice::from_mut(spare)],
                        slice::from_ref(twiddle),
                    )?;
                } else {
                    self.evaluator.accelerator().copy(v, u)?;
                }
            }
        }
        Ok(())
    }

    /// (u + w·v, u − w·v), or (u + v, w·(u − v)), modulo one prime.
    fn butterfly(
        &self,
        direction: Direction,
        prime: Basis,
        [u, v, spare]: [&mut [A::Limb]; 3],
        w: &[A::Limb],
    ) -> Result<(), Error> {
        let accelerator = self.evaluator.accelerator();
        if direction == Direction::Forward {
            accelerator.multiply_assign(prime, v, w)?;
        }
        accelerator.copy(spare, u)?;
        accelerator.add_assign(prime, u, v)?;
        accelerator.sub_assign(prime, spare, v)?;
        if direction == Direction::Inverse {
            accelerator.multiply_assign(prime, spare, w)?;
        }
        v.swap_with_slice(spare);
        Ok(())
    }

    /// The powers of X below `node`, layer by layer, modulo one prime.
    fn twiddles(&self, pass: &Pass, node: usize, prime: usize) -> Result<Limbs<A>, Error> {
        let accelerator = self.evaluator.accelerator();
        let (lanes, order) = (self.lanes, 2 * self.lanes.degree);
        let mut twiddles = Limbs::<A>::new();
        for step in 0..pass.layers {
            let layer = pass.layer + step;
            let base = &self.powers[(lanes.width.ilog2() - 1 - layer) as usize].limbs()[prime..=prime];
            for b in node << step..(node + 1) << step {
                let c = bit_reverse(b, layer);
                let galois = match pass.direction {
                    Direction::Forward => lanes.galois(lanes.width - c),
                    Direction::Inverse => order - lanes.galois(c),
                };
                let mut twiddle = accelerator.allocate()?;
                let image = slice::from_mut(&mut twiddle);
                accelerator.automorphism(Basis::new(prime, 1, 0), image, base, galois)?;
                // Cannot overflow: fewer than 2^LAYERS.
                let _ = twiddles.push(twiddle);
            }
        }
        Ok(twiddles)
    }
}
