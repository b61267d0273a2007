//! Baby steps, diagonals and giant-step sums of a linear transform in one pass over memory.
//!
//! For d digits, B steps and G sums a limb's worth of work cannot avoid reading 2·d·B key limbs, d + 2 limbs of
//! digits and input and G·B/repeat limbs of factors, and writing 2·G sums. At d = 3 and B = 8 that is 48 limbs of
//! keys: the digits come out of the third-level cache again for every step, the rest passes once.

use super::{Multicore, key_limbs};
use crate::kernels::{Automorphism, MAX_TILE, Transform, TransformStep};
use crate::memory::Limb;
use std::sync::Arc;
use veilformer::accel::{Accelerator, Error, Factors, Step, check_sums};
use veilformer::ring::Basis;

/// Tasks for each thread, so that none waits long for another.
const TASKS: usize = 4;

/// Some columns of one limb of every sum.
struct Task<'a, 's> {
    transform: &'a Transform<'a>,
    start: usize,
    sums: Vec<[&'s mut [u64]; 2]>,
}

impl Multicore {
    /// [`Accelerator::hoisted_sums`], every limb in as many runs of columns as keep the threads busy.
    pub(super) fn sums(
        &self,
        level: Basis,
        x: [&[Limb]; 2],
        digits: &[&[Limb]],
        steps: &[Step<'_, Limb>],
        factors: &Factors<'_, Limb>,
        sums: &mut [[&mut [Limb]; 2]],
    ) -> Result<(), Error> {
        let basis = check_sums(&self.chain, level, x, digits, steps, factors, sums)?;
        if steps.is_empty() || sums.is_empty() {
            return sums.iter_mut().flatten().try_for_each(|sum| self.clear(sum));
        }
        let degree = self.pool.degree();
        let maps: Vec<Arc<Automorphism>> = steps
            .iter()
            .map(|step| self.automorphisms.get(step.galois, || Automorphism::new(degree, step.galois)))
            .collect::<Result<_, _>>()?;
        let special = Basis::new(0, 0, basis.special());
        let transforms: Vec<Transform<'_>> = (0..basis.len())
            .map(|i| {
                let modulus = &self.chain.moduli()[basis.prime_index(&self.chain, i)];
                let product = self.chain.product_mod(special, modulus);
                // P is zero modulo its own primes, and so is the identity's image.
                let ordinary = i < level.len();
                let used = || (0..steps.len()).filter(|&b| ordinary || steps[b].key.is_some());
                let step = |b: usize| match steps[b].key {
                    None => TransformStep::Identity([&x[0][i], &x[1][i]], product),
                    Some(key) => {
                        TransformStep::Switch { map: &maps[b], key: key.map(|half| key_limbs(half, i)) }
                    }
                };
                let factor = |k| {
                    let (limb, from) = factors.locate(degree, i, k)?;
                    Some(&limb[from..from + degree / factors.repeat])
                };
                let order = (0..sums.len()).flat_map(|g| used().map(move |b| g * steps.len() + b));
                Transform {
                    prime: self.prime(basis, i),
                    x: ordinary.then(|| (&x[0][i][..], product)),
                    digits: digits.iter().map(|digit| &digit[i][..]).collect(),
                    steps: used().map(step).collect(),
                    repeat: factors.repeat,
                    factors: order.filter_map(factor).collect(),
                }
            })
            .collect();
        let pieces = (TASKS * self.threads()).div_ceil(basis.len()).next_power_of_two();
        let columns = (degree / pieces).max(MAX_TILE.min(degree));
        let starts = || (0..degree).step_by(columns);
        let mut tasks: Vec<Task<'_, '_>> = transforms
            .iter()
            .flat_map(|transform| starts().map(move |start| Task { transform, start, sums: Vec::new() }))
            .collect();
        for [first, second] in sums.iter_mut() {
            let first = first.iter_mut().flat_map(|limb| limb.chunks_mut(columns));
            let second = second.iter_mut().flat_map(|limb| limb.chunks_mut(columns));
            for (task, pair) in tasks.iter_mut().zip(first.zip(second)) {
                task.sums.push(pair.into());
            }
        }
        self.spread(&mut tasks, basis.len() * degree, |_, Task { transform, start, sums }| {
            let steps = transform.steps.len();
            if steps == 0 {
                sums.iter_mut().flatten().for_each(|sum| sum.fill(0));
                return Ok(());
            }
            let tile = MAX_TILE.min(columns);
            let mut scratch = self.limbs((2 * steps * tile).div_ceil(degree))?;
            let mut words = scratch.iter_mut().flat_map(|limb| limb.chunks_exact_mut(tile));
            let mut tiles = Vec::with_capacity(steps);
            while let (true, Some(first), Some(second)) = (tiles.len() < steps, words.next(), words.next()) {
                tiles.push([first, second]);
            }
            self.kernels.transform(transform, degree, *start, &mut tiles, sums);
            Ok(())
        })
    }
}
