//! The exponents of a Gaussian kernel: −½·‖k_t − q_u‖² for all keys and queries, without squares in slots.
//!
//! With K_t = Σ_i X^(−i)·k_{t,i} and σ: X → 1/X, the product K_t·σ(K_t) has ‖k_t‖² in row 0, at Y⁰ alone: X^(j−i) is
//! no power of Y unless j = i. Times J = Σ_c Y^c it is there in every column, so that row 0 of
//! K_t·(Q − ½·σ(K_t)·J) has k_t·q_u − ½·‖k_t‖² in column u, at the price of one product for both. What is left,
//! −½·Σ_u Y^u·Q_u·σ(Q_u), is the same for every key.
//!
//! Columns have T times the scale of rows, and halves are no integers: the sum is that of 2T·Q and −σ(K_t)·J, both
//! at 2T times the scale, and the norms of the queries come out at the same scale as they are.

use super::super::{EncryptedMatrix, Entries, Error, Side};
use super::{Columns, PairEvaluator};
use crate::accel::Accelerator;
use crate::ckks::{self, Ciphertext, KeySource, Product};

/// Sums of products that are worked on at a time.
const LANES: usize = 8;

impl<A: Accelerator, K: KeySource<A> + ?Sized> PairEvaluator<'_, '_, A, K> {
    /// −½·‖k_t − q_u‖² as row 0, column u of `out[t]`, whose other rows hold nothing of use, one level below and
    /// within `bound` in magnitude: rows for [`PairEvaluator::pick`]. Keys are given by their columns, queries as one
    /// ciphertext and by their columns, all for [`Side::Gather`] and at one level; there may be more or fewer of these
    /// than of those. Columns of queries may be missing at the end: beyond the next power of two there is then nothing. The scale of both is one before columns are taken (rows of one projection have the same).
    ///
    /// # Errors
    /// Those of [`PairEvaluator::row_products`]; [`Error::Scale`].
    pub fn exponents<S: AsRef<[Ciphertext<A>]>>(
        &self,
        keys: &Columns<A>,
        queries: &EncryptedMatrix<S>,
        query_columns: &Columns<A>,
        bound: f64,
        out: &mut [Ciphertext<A>],
    ) -> Result<Entries, Error> {
        let (ev, layout) = (self.ring.evaluator(), queries.entries().layout);
        let [query] = queries.ciphertexts().as_ref() else {
            return Err(Error::Shape { have: layout.shape(), need: (layout.rank(), layout.columns()) });
        };
        let (Some(key), Some(column)) = (keys.first(), query_columns.first()) else {
            return Err(Error::Room { have: 0, need: 1 });
        };
        if out.len() != keys.len() {
            return Err(Error::Room { have: out.len(), need: keys.len() });
        }
        if query_columns.len() > layout.columns() {
            let have = (layout.rows(), query_columns.len());
            return Err(Error::Shape { have, need: layout.shape() });
        }
        let columns = self.degree() >> layout.log_rank();
        let whole = Entries { scale: queries.entries().scale * columns as f64, ..*queries.entries() };
        let others = [key.entries(), column.entries()];
        others.into_iter().try_for_each(|other| whole.same_scale(other).map(drop))?;
        let level = query.level();
        let entries =
            self.predict_exponents(key.entries(), queries.entries(), column.entries(), level, bound)?;

        let norms = self.norms(query_columns, queries.entries())?;
        let ones = self.geometric(layout.rank(), query_columns.len().next_power_of_two(), level)?;
        let mut doubled = query.duplicate(ev.accelerator())?;
        ev.multiply_integer_assign(&mut doubled, 2 * columns as i32)?;
        ev.accelerator().for_each(out, |t, row| -> Result<(), Error> {
            let key = keys[t].only(Side::Gather, &layout)?;
            let (mut sum, mut turned) = (doubled.duplicate(ev.accelerator())?, ev.conjugate(key)?);
            for part in &mut turned.parts {
                part.multiply_assign(ev.accelerator(), &ones)?;
            }
            ev.sub_assign(&mut sum, &turned)?;
            *row = ev.multiply_rescale(key, &sum)?;
            Ok(ev.sub_assign(row, &norms)?)
        })?;
        Ok(Entries { layout: layout.with_rows(keys.len())?, ..entries })
    }

    /// ‖q_u‖² at Y^u of row 0, one level below: products are summed up before they are relinearised.
    fn norms(&self, queries: &Columns<A>, entries: &Entries) -> Result<Ciphertext<A>, Error> {
        let (ev, layout) = (self.ring.evaluator(), entries.layout);
        let mut lanes: [Option<Product<A>>; LANES] = [const { None }; LANES];
        ev.accelerator().for_each(&mut lanes, |first, lane| -> Result<(), Error> {
            for (u, query) in queries.iter().enumerate().skip(first).step_by(LANES) {
                let query = query.only(Side::Gather, &layout)?;
                let mut turned = ev.conjugate(query)?;
                self.shift(&mut turned, u * layout.rank())?;
                match lane {
                    Some(sum) => ev.multiply_add(sum, query, &turned)?,
                    None => *lane = Some(ev.multiply(query, &turned)?),
                }
            }
            Ok(())
        })?;
        let mut lanes = lanes.into_iter().flatten();
        let mut sum = lanes.next().ok_or(Error::Room { have: 0, need: 1 })?;
        for lane in lanes {
            let parts =
                sum.parts.iter_mut().chain(&mut sum.square).zip(lane.parts.iter().chain(&lane.square));
            parts.into_iter().try_for_each(|(x, y)| x.add_assign(ev.accelerator(), y))?;
        }
        Ok(ev.rescale(sum)?)
    }

    fn predict_exponents(
        &self,
        key: &Entries,
        queries: &Entries,
        column: &Entries,
        level: usize,
        bound: f64,
    ) -> Result<Entries, Error> {
        if level == 0 {
            return Err(ckks::Error::LevelsExhausted { have: 0, need: 1 }.into());
        }
        let layout = queries.layout;
        let columns = (self.degree() >> layout.log_rank()) as f64;
        let (rows, count) = (layout.rows() as f64, layout.columns() as f64);
        let turned = |x: &Entries| libm::hypot(x.noise, self.ring.switch_noise(level));
        let sum = Entries {
            scale: 2.0 * key.scale,
            bound: libm::hypot(queries.bound, key.bound / 2.0),
            noise: libm::hypot(2.0 * columns * queries.noise, libm::sqrt(columns) * turned(key)),
            ..*queries
        };
        let products = self.ring.predict_product(key, &sum, level, [rows * columns, rows], bound)?;
        let other = Entries { noise: turned(column), ..*column };
        let norms = self.ring.predict_product(column, &other, level, [rows * count; 2], bound)?;
        Ok(Entries { noise: libm::hypot(products.noise, norms.noise), ..products })
    }
}
