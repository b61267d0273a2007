//! Plaintext matrix times encrypted matrix.

use super::{EncryptedMatrix, Entries, Error, PlainMatrix};
use crate::accel::{Accelerator, KeyRow, Limbs, MAX_DIGITS, Polynomial, RowSums, digits};
use crate::ckks::server::Evaluator;
use crate::ckks::{self, Ciphertext, KeyId, KeyRequests, KeySource, SwitchingKey};
use crate::ring::{Basis, MAX_LIMBS};

/// Most ciphertexts of one operand: 4096 rows of a full batch.
const MAX_OPERANDS: usize = 4096;
/// Most ciphertexts of a result that are worked on at a time.
const MAX_CHUNK: usize = 16;

/// Matrix algebra in the small ring, with its accelerator and keys.
pub struct SmallRing<'a, A: Accelerator, K: KeySource<A> + ?Sized> {
    evaluator: Evaluator<'a, A, K>,
}

/// One ciphertext of a product on its way: body and masks, then the result.
struct Pack<'s, A: Accelerator> {
    body: &'s mut [A::Limb],
    masks: &'s mut [A::Limb],
    out: &'s mut Option<Ciphertext<A>>,
}

impl<'a, A: Accelerator, K: KeySource<A> + ?Sized> SmallRing<'a, A, K> {
    /// With an evaluator of the small ring's parameters.
    pub fn new(evaluator: Evaluator<'a, A, K>) -> Self {
        Self { evaluator }
    }

    /// The evaluator.
    pub fn evaluator(&self) -> &Evaluator<'a, A, K> {
        &self.evaluator
    }

    /// The keys that pack rows of rank 2^`log_rank` into ciphertexts at `level`.
    ///
    /// # Errors
    /// [`ckks::Error::Full`].
    pub fn packing_keys(log_rank: u32, level: usize, keys: &mut KeyRequests) -> Result<(), ckks::Error> {
        let id = |index| KeyId::Component { log_rank: log_rank as u8, index };
        // Rows of rank one are ciphertexts as they are.
        (0..1u16 << log_rank).filter(|_| log_rank > 0).try_for_each(|index| keys.add(id(index), level))
    }

    /// Limbs of scratch that a product needs, working on `chunk` ciphertexts of the result at a time.
    pub fn scratch_limbs(x: &Entries, level: usize, chunk: usize) -> usize {
        (level + 1) * (2 * x.layout.ciphertexts() + chunk * (x.layout.rank() + 1))
    }

    /// w·x, one level below x and at a scale close to `scale`: x is multiplied by the integer that brings it there.
    /// `scratch` has the limbs of [`SmallRing::scratch_limbs`] for one ciphertext at a time or more, `out` a place
    /// for every ciphertext of the result.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::Room`], [`Error::Overflow`]; [`ckks::Error::LevelsExhausted`] at level 0;
    /// [`ckks::Error::MissingKey`] before any work.
    pub fn multiply_plain<S: AsRef<[Ciphertext<A>]>>(
        &self,
        w: &PlainMatrix<'_>,
        x: &EncryptedMatrix<S>,
        scale: f64,
        scratch: &mut [A::Limb],
        out: &mut [Option<Ciphertext<A>>],
    ) -> Result<Entries, Error> {
        let ev = &self.evaluator;
        let (accelerator, entries) = (ev.accelerator(), x.entries());
        let (input, ciphertexts) = (entries.layout, x.ciphertexts().as_ref());
        let (rows, columns) = w.shape();
        if columns != input.rows() {
            return Err(Error::Shape { have: (columns, input.columns()), need: input.shape() });
        }
        let output = input.with_rows(rows)?;
        let level = ciphertexts.iter().map(Ciphertext::level).min().unwrap_or(0);
        if level == 0 {
            return Err(ckks::Error::LevelsExhausted { have: 0, need: 1 }.into());
        }
        let (primes, count, rank) = (level + 1, output.ciphertexts(), input.rank());
        let (have, need) = (out.len(), count);
        let out = out.get_mut(..need).ok_or(Error::Room { have, need })?;
        let q = ev.parameters().chain().moduli()[level].value() as f64;
        let lift = libm::round(scale * q / (entries.scale * w.scale())).max(1.0);
        let result = self.predict(w, entries, lift, level)?;
        let (have, need) = (scratch.len(), Self::scratch_limbs(entries, level, 1));
        if have < need {
            return Err(Error::Room { have, need });
        }
        let mut keys = KeyRequests::new();
        Self::packing_keys(input.log_rank(), level - 1, &mut keys)?;
        keys.iter().try_for_each(|key| ev.check_key(key.id, key.level))?;
        let (operand, scratch) = scratch.split_at_mut(2 * primes * input.ciphertexts());
        let basis = Basis::level(level);
        let lifts = ev.scalars(basis, lift, 1.0)?;
        let halves = ciphertexts.iter().flat_map(|c| c.parts());
        for (limbs, half) in operand.chunks_exact_mut(primes).zip(halves) {
            accelerator.copy(limbs, &half.limbs()[..primes])?;
            accelerator.multiply_scalar_assign(basis, limbs, &lifts)?;
            accelerator.ntt_inverse(basis, limbs)?;
        }
        let mut pairs: heapless::Vec<[&[A::Limb]; 2], MAX_OPERANDS> = heapless::Vec::new();
        for pair in operand.chunks_exact(2 * primes) {
            let (b, a) = pair.split_at(primes);
            pairs.push([b, a]).map_err(|_| ckks::Error::Full { capacity: MAX_OPERANDS })?;
        }
        let each = primes * (rank + 1);
        let chunk = (scratch.len() / each).min(MAX_CHUNK);
        let stride = rank * rank * input.ciphertexts();
        for (i, out) in out.chunks_mut(chunk).enumerate() {
            let mut packs: heapless::Vec<Pack<'_, A>, MAX_CHUNK> = heapless::Vec::new();
            for (limbs, out) in scratch.chunks_exact_mut(each).zip(&mut *out) {
                let (body, masks) = limbs.split_at_mut(primes);
                // Not full: there are at most as many places.
                let _ = packs.push(Pack { body, masks, out });
            }
            let weights = &w.weights()[i * chunk * stride..][..packs.len() * stride];
            let mut sums: heapless::Vec<RowSums<'_, A::Limb>, MAX_CHUNK> =
                packs.iter_mut().map(|p| RowSums { body: &mut *p.body, masks: &mut *p.masks }).collect();
            accelerator.row_products(basis, rank, weights, &pairs, &mut sums)?;
            drop(sums);
            accelerator.for_each(&mut packs, |_, pack| -> Result<(), Error> {
                for limbs in [&mut *pack.body].into_iter().chain(pack.masks.chunks_exact_mut(primes)) {
                    self.rescale(level, limbs)?;
                }
                *pack.out = Some(self.pack(level - 1, input.log_rank(), primes, pack.body, pack.masks)?);
                Ok(())
            })?;
        }
        Ok(result)
    }

    /// x + y: a residual connection. Both at one level and scale.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::Scale`], [`Error::Overflow`]; [`ckks::Error::Level`].
    pub fn add<S, T>(&self, x: &mut EncryptedMatrix<S>, y: &EncryptedMatrix<T>) -> Result<(), Error>
    where
        S: AsRef<[Ciphertext<A>]> + AsMut<[Ciphertext<A>]>,
        T: AsRef<[Ciphertext<A>]>,
    {
        let entries = x.entries().plus(y.entries())?;
        let level = x.ciphertexts().as_ref().first().map_or(0, Ciphertext::level);
        entries.check(self.evaluator.parameters(), level)?;
        x.update(entries, |x| {
            x.iter_mut().zip(y.ciphertexts().as_ref()).try_for_each(|(x, y)| self.evaluator.add_assign(x, y))
        })?;
        Ok(())
    }

    /// Layout, scale, bound and noise of w·x, refused when they do not fit.
    fn predict(&self, w: &PlainMatrix<'_>, x: &Entries, lift: f64, level: usize) -> Result<Entries, Error> {
        let parameters = self.evaluator.parameters();
        let q = parameters.chain().moduli()[level].value() as f64;
        let (n, rank) = (parameters.degree() as f64, x.layout.rank() as f64);
        let layout = x.layout.with_rows(w.shape().0)?;
        let product = Entries {
            layout,
            scale: x.scale * lift * w.scale(),
            bound: x.bound * w.bound(),
            noise: x.noise * lift * w.scale() * w.norm(),
        };
        product.check(parameters, level)?;
        // Weights are rounded to integers; the rescaling rounds mask and body; the switches add theirs.
        let weights = x.scale * lift * x.bound * libm::sqrt(w.shape().1 as f64 / 12.0) / q;
        let rounding = libm::sqrt((2.0 * n / 3.0 + 1.0) / 12.0);
        let switches = self.switch_noise(level - 1) * libm::sqrt(rank);
        let noise = [product.noise / q, weights, rounding, switches].map(|e| e * e).iter().sum::<f64>();
        let result = Entries { scale: product.scale / q, noise: libm::sqrt(noise), ..product };
        result.check(parameters, level - 1)?;
        Ok(result)
    }

    /// Divides coefficients over Q_level by q_level, with rounding; the last limb is left over.
    fn rescale(&self, level: usize, limbs: &mut [A::Limb]) -> Result<(), Error> {
        let ev = &self.evaluator;
        let (accelerator, keep, last) = (ev.accelerator(), Basis::level(level - 1), Basis::new(level, 1, 0));
        let (kept, dropped) = limbs.split_at_mut(level);
        let mut rounded: Limbs<A> = Limbs::<A>::new();
        for _ in 0..level {
            // Not full: fewer than a chain's primes.
            let _ = rounded.push(accelerator.allocate()?);
        }
        accelerator.convert(last, dropped, keep, &mut rounded)?;
        accelerator.sub_assign(keep, kept, &rounded)?;
        let chain = ev.parameters().chain();
        let inverses: heapless::Vec<u64, MAX_LIMBS> =
            chain.of(keep).map(|m| m.inverse(chain.product_mod(last, m))).collect();
        Ok(accelerator.multiply_scalar_assign(keep, kept, &inverses)?)
    }

    /// k samples, interleaved, into one ciphertext: component j of the secret is switched to the secret itself.
    /// `stride` limbs belong to a mask, of which those of `level` are used.
    fn pack(
        &self,
        level: usize,
        log_rank: u32,
        stride: usize,
        body: &mut [A::Limb],
        masks: &[A::Limb],
    ) -> Result<Ciphertext<A>, Error> {
        let ev = &self.evaluator;
        let (accelerator, parameters) = (ev.accelerator(), ev.parameters());
        let basis = Basis::level(level);
        let transformed = |limbs: &[A::Limb]| -> Result<Polynomial<A, _>, Error> {
            let mut copy = Polynomial::<A, crate::accel::Coefficients>::allocate(accelerator, basis)?;
            accelerator.copy(copy.limbs_mut(), &limbs[..basis.len()])?;
            Ok(copy.into_evaluations(accelerator)?)
        };
        let b = transformed(body)?;
        if log_rank == 0 {
            return Ok(Ciphertext::from_parts([b, transformed(masks)?])?);
        }
        let extended = parameters.key_basis(level);
        let zero = || Polynomial::zero(accelerator, extended);
        let (mut total, mut part) = ([zero()?, zero()?], [zero()?, zero()?]);
        let together = MAX_DIGITS / parameters.digits(level);
        for (group, masks) in masks.chunks(stride * together).enumerate() {
            let (mut keys, mut raised) = (KeyList::<'_, A, K>::new(), heapless::Vec::<_, MAX_DIGITS>::new());
            for (j, mask) in masks.chunks_exact(stride).enumerate() {
                let id = KeyId::Component { log_rank: log_rank as u8, index: (group * together + j) as u16 };
                let full = |_| ckks::Error::Full { capacity: MAX_DIGITS };
                keys.push(ev.key(id, level)?).map_err(|_| ckks::Error::Full { capacity: MAX_DIGITS })?;
                let x = transformed(mask)?;
                for digit in digits(basis, parameters.digit_size()) {
                    let mut out =
                        Polynomial::<A, crate::accel::Evaluations>::allocate(accelerator, extended)?;
                    let own = &mask[digit.start()..digit.start() + digit.len()];
                    accelerator.mod_up(basis, digit, x.limbs(), own, out.limbs_mut())?;
                    raised.push(out).map_err(full)?;
                }
            }
            let rows: [heapless::Vec<KeyRow<'_, A::Limb>, MAX_DIGITS>; 2] =
                [0, 1].map(|half| keys.iter().flat_map(|key| half_rows(key, half, level)).collect());
            let raised: heapless::Vec<&[A::Limb], MAX_DIGITS> =
                raised.iter().map(Polynomial::limbs).collect();
            let [part0, part1] = &mut part;
            let sums = [part0.limbs_mut(), part1.limbs_mut()];
            accelerator.inner_product(basis, sums, &raised, [&rows[0], &rows[1]])?;
            for (total, part) in total.iter_mut().zip(&part) {
                total.add_assign(accelerator, part)?;
            }
        }
        Ok(ev.divide_add(total, basis, [Some(&b), None])?)
    }
}

/// Keys that are held while a group of masks is switched.
type KeyList<'k, A, K> = heapless::Vec<<K as KeySource<A>>::Held<'k>, MAX_DIGITS>;

fn half_rows<A: Accelerator>(
    key: &SwitchingKey<A>,
    half: usize,
    level: usize,
) -> impl Iterator<Item = KeyRow<'_, A::Limb>> {
    let [b, a] = key.rows(level);
    if half == 0 { b.into_iter() } else { a.into_iter() }
}
