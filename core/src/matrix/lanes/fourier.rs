//! From d polynomials x_i to Σ_i (X·ζ^(∓t))^i·x_i for every t, and back.
//!
//! The X·ζ^c are the roots of Y^d = X^d, so that this is a transform of length d
//! over rows. Y^d − X^d splits in halves like the ring of a number-theoretic
//! transform does: node b of layer l stands for Y^(d/2^l) = X^e with
//! e = d/2^l·(1 + 2kc), c = brv(b) over l bits, and is split by X^(e/2). All
//! these are images of X^(d/2^(l+1)) under σ_c, so no table is needed, and a
//! multiplication by one is pointwise: no key.

use super::{LaneEvaluator, MAX_WIDTH};
use crate::accel::{Accelerator, Limbs};
use crate::ckks::{Ciphertext, Error, KeySource};
use crate::ring::{Basis, bit_reverse};
use core::{mem, slice};

/// log2 of the rows that one task takes through several layers: few enough
/// that a limb of each and the powers of X stay in a second-level cache.
const LAYERS: u32 = 3;

/// The two transforms. Rows are in natural order before the first and after
/// the second; in between, position p belongs to t = brv(p).
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
    parts: usize,
}

impl<A: Accelerator, K: KeySource<A> + ?Sized> LaneEvaluator<'_, A, K> {
    /// Transforms the first `parts` polynomials of d rows in place. Rows from
    /// `live` on count as zero; only the forward transform makes use of it.
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

    fn group(&self, pass: &Pass, group: &mut Group<'_, A>, node: usize, live: usize) -> Result<(), Error> {
        let accelerator = self.evaluator.accelerator();
        let level = group[0].level();
        let mut spare = accelerator.allocate()?;
        for prime in 0..=level {
            let twiddles = self.twiddles(pass, node, prime)?;
            for part in 0..pass.parts {
                let mut live = live;
                for step in 0..pass.layers {
                    let layer = match pass.direction {
                        Direction::Forward => step,
                        Direction::Inverse => pass.layers - 1 - step,
                    };
                    let half = group.len() >> (layer + 1);
                    for (pair, twiddle) in group.chunks_exact_mut(2 * half).zip(&twiddles[(1 << layer) - 1..])
                    {
                        let (upper, lower) = pair.split_at_mut(half);
                        for (j, (u, v)) in upper.iter_mut().zip(lower).take(live).enumerate() {
                            let [u, v] = [u, v].map(|row| &mut row.parts[part].limbs_mut()[prime]);
                            let zero = j + half >= live;
                            self.butterfly(
                                pass.direction,
                                Basis::new(prime, 1, 0),
                                zero,
                                [u, v, &mut spare],
                                twiddle,
                            )?;
                        }
                    }
                    live = match pass.direction {
                        Direction::Forward => live.min(half),
                        Direction::Inverse => live,
                    };
                }
            }
        }
        Ok(())
    }

    /// (u + w·v, u − w·v), or (u + v, w·(u − v)). `zero` says that v is.
    fn butterfly(
        &self,
        direction: Direction,
        prime: Basis,
        zero: bool,
        [u, v, spare]: [&mut A::Limb; 3],
        w: &A::Limb,
    ) -> Result<(), Error> {
        let accelerator = self.evaluator.accelerator();
        let [mut_u, mut_v, mut_spare] = [u, v, spare].map(slice::from_mut);
        let w = slice::from_ref(w);
        if zero {
            return Ok(accelerator.copy(mut_v, mut_u)?);
        }
        if direction == Direction::Forward {
            accelerator.multiply_assign(prime, mut_v, w)?;
        }
        accelerator.copy(mut_spare, mut_u)?;
        accelerator.add_assign(prime, mut_u, mut_v)?;
        accelerator.sub_assign(prime, mut_spare, mut_v)?;
        if direction == Direction::Inverse {
            accelerator.multiply_assign(prime, mut_spare, w)?;
        }
        mem::swap(&mut mut_v[0], &mut mut_spare[0]);
        Ok(())
    }

    /// The powers of X below `node`, layer by layer, modulo one prime.
    fn twiddles(&self, pass: &Pass, node: usize, prime: usize) -> Result<Limbs<A>, Error> {
        let accelerator = self.evaluator.accelerator();
        let order = 2 * self.lanes.degree;
        let mut twiddles = Limbs::<A>::new();
        for step in 0..pass.layers {
            let layer = pass.layer + step;
            let base = &self.powers[(self.powers.len() - 1).saturating_sub(layer as usize)];
            for b in node << step..(node + 1) << step {
                let c = bit_reverse(b, layer);
                let galois = match pass.direction {
                    Direction::Forward => self.lanes.galois(self.lanes.width - c),
                    Direction::Inverse => order - self.lanes.galois(c),
                };
                let mut twiddle = accelerator.allocate()?;
                accelerator.automorphism(
                    Basis::new(prime, 1, 0),
                    slice::from_mut(&mut twiddle),
                    &base.limbs()[prime..=prime],
                    galois,
                )?;
                // Cannot overflow: fewer than 2^LAYERS.
                let _ = twiddles.push(twiddle);
            }
        }
        Ok(twiddles)
    }
}
