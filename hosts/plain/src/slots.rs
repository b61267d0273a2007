//! The slot program without encryption: the model as the slot executor reads it, and exact slots to run it on.

use crate::model::Model;
use crate::parameters::Parameters;
use crate::sites::Approximations;
use veilformer::approx::{Approximation, clenshaw};
use veilformer::ckks::Error;
use veilformer::ckks::server::{BabyGiant, chebyshev_depth};
use veilformer::transformer::slots::{self, Refresh, SlotArithmetic};
use veilformer::transformer::{Config, Parameter, Site};

impl slots::Model for Model {
    fn config(&self) -> &Config {
        &self.config
    }

    fn weight(&self, parameter: Parameter, row: usize, column: usize) -> f64 {
        let columns = parameter.shape(&self.config).columns;
        self.parameters.get(parameter).get(row * columns + column).map_or(0.0, |&w| f64::from(w))
    }

    fn approximation(&self, site: Site) -> Option<Approximation<'_>> {
        self.approximations.get(site)
    }

    fn gradient_bound(&self, site: Site) -> Option<f64> {
        self.approximations.gradient_bound(site)
    }

    fn adapter_gradient_bound(&self, layer: usize) -> Option<f64> {
        self.approximations.adapter_gradient_bound(layer)
    }
}

/// Sizes, weights and polynomials in f64, without a tokenizer.
#[derive(Debug, Clone, Copy)]
pub struct Weights<'a> {
    /// The sizes.
    pub config: &'a Config,
    /// The weights.
    pub parameters: &'a Parameters<f64>,
    /// The polynomials.
    pub approximations: &'a Approximations,
}

impl slots::Model for Weights<'_> {
    fn config(&self) -> &Config {
        self.config
    }

    fn weight(&self, parameter: Parameter, row: usize, column: usize) -> f64 {
        let columns = parameter.shape(self.config).columns;
        self.parameters.get(parameter).get(row * columns + column).copied().unwrap_or(0.0)
    }

    fn approximation(&self, site: Site) -> Option<Approximation<'_>> {
        self.approximations.get(site)
    }

    fn gradient_bound(&self, site: Site) -> Option<f64> {
        self.approximations.gradient_bound(site)
    }

    fn adapter_gradient_bound(&self, layer: usize) -> Option<f64> {
        self.approximations.adapter_gradient_bound(layer)
    }
}

/// A vector of exact slots, and the level its ciphertext would have.
#[derive(Debug, Clone, PartialEq)]
pub struct PlainVector {
    values: Vec<f64>,
    level: usize,
}

impl PlainVector {
    /// As a client would encrypt it at `level`.
    pub fn new(values: Vec<f64>, level: usize) -> Self {
        Self { values, level }
    }

    /// The slots.
    pub fn values(&self) -> &[f64] {
        &self.values
    }
}

/// Slot arithmetic on f64 that keeps the scheme's books: levels, and |x| ≤ 1 where a vector is refreshed.
#[derive(Debug, Clone)]
pub struct PlainSlots {
    slots: usize,
    refresh: Option<Refresh>,
    refreshes: usize,
    lowest: usize,
    largest: f64,
}

impl PlainSlots {
    /// For vectors of `slots` entries, with bootstraps where `refresh` says what they do.
    pub fn new(slots: usize, refresh: Option<Refresh>) -> Self {
        Self { slots, refresh, refreshes: 0, lowest: usize::MAX, largest: 0.0 }
    }

    /// Bootstraps so far.
    pub fn refreshes(&self) -> usize {
        self.refreshes
    }

    /// The lowest level reached.
    pub fn lowest_level(&self) -> usize {
        self.lowest
    }

    /// The largest |x| refreshed.
    pub fn largest_refreshed(&self) -> f64 {
        self.largest
    }

    fn vector(&mut self, values: Vec<f64>, from: usize, levels: usize) -> Result<PlainVector, Error> {
        let level = from.checked_sub(levels).ok_or(Error::LevelsExhausted { have: from, need: levels })?;
        self.lowest = self.lowest.min(level);
        Ok(PlainVector { values, level })
    }

    fn renew(&mut self, vectors: [&PlainVector; 2]) -> Result<[PlainVector; 2], Error> {
        let have = vectors[0].level.min(vectors[1].level);
        let Refresh { floor, level } = self.refresh.ok_or(Error::LevelsExhausted { have, need: have + 1 })?;
        if have < floor {
            return Err(Error::Level { have, need: floor });
        }
        for x in vectors {
            self.largest = x.values.iter().fold(self.largest, |m, v| m.max(v.abs()));
            if let Some(index) = x.values.iter().position(|v| v.is_nan() || v.abs() > 1.0) {
                return Err(Error::NotEncodable { index });
            }
        }
        self.refreshes += 1;
        Ok(vectors.map(|x| PlainVector { values: x.values.clone(), level }))
    }
}

fn same_level(x: &PlainVector, y: &PlainVector) -> Result<(), Error> {
    if x.level == y.level { Ok(()) } else { Err(Error::Level { have: y.level, need: x.level }) }
}

fn turned(values: &[f64], steps: i64) -> Vec<f64> {
    let mut turned = values.to_vec();
    turned.rotate_left(steps.rem_euclid(values.len().max(1) as i64) as usize);
    turned
}

fn add_product(sum: &mut [f64], x: &[f64], y: &[f64]) {
    for ((sum, x), y) in sum.iter_mut().zip(x).zip(y) {
        *sum += x * y;
    }
}

impl SlotArithmetic for PlainSlots {
    type Vector = PlainVector;
    type Known = PlainVector;

    fn slots(&self) -> usize {
        self.slots
    }

    fn level(&self, x: &PlainVector) -> usize {
        x.level
    }

    fn duplicate(&mut self, x: &PlainVector) -> Result<PlainVector, Error> {
        Ok(x.clone())
    }

    fn add_assign(&mut self, x: &mut PlainVector, y: &PlainVector) -> Result<(), Error> {
        same_level(x, y)?;
        x.values.iter_mut().zip(&y.values).for_each(|(x, y)| *x += y);
        Ok(())
    }

    fn subtract_assign(&mut self, x: &mut PlainVector, y: &PlainVector) -> Result<(), Error> {
        same_level(x, y)?;
        x.values.iter_mut().zip(&y.values).for_each(|(x, y)| *x -= y);
        Ok(())
    }

    fn negate_assign(&mut self, x: &mut PlainVector) -> Result<(), Error> {
        x.values.iter_mut().for_each(|x| *x = -*x);
        Ok(())
    }

    fn add_known_assign(&mut self, x: &mut PlainVector, known: &dyn Fn(usize) -> f64) -> Result<(), Error> {
        x.values.iter_mut().enumerate().for_each(|(slot, x)| *x += known(slot));
        Ok(())
    }

    fn products(&mut self, pairs: &[(&PlainVector, &PlainVector)]) -> Result<PlainVector, Error> {
        let level = pairs.iter().map(|(x, y)| x.level.min(y.level)).min().unwrap_or(0);
        let mut sum = vec![0.0; self.slots];
        pairs.iter().for_each(|(x, y)| add_product(&mut sum, &x.values, &y.values));
        self.vector(sum, level, 1)
    }

    fn prepare(&mut self, known: &dyn Fn(usize) -> f64, level: usize) -> Result<PlainVector, Error> {
        Ok(PlainVector::new((0..self.slots).map(known).collect(), level))
    }

    fn weigh(&mut self, pairs: &[(&PlainVector, &PlainVector)]) -> Result<PlainVector, Error> {
        let level = pairs.first().map_or(0, |(x, _)| x.level);
        let mut sum = PlainVector::new(vec![0.0; self.slots], level);
        for (x, known) in pairs {
            same_level(&sum, x)?;
            same_level(&sum, known)?;
            add_product(&mut sum.values, &x.values, &known.values);
        }
        self.vector(sum.values, level, 1)
    }

    fn multiply_known(
        &mut self,
        x: &PlainVector,
        known: &dyn Fn(usize) -> f64,
        level: usize,
    ) -> Result<PlainVector, Error> {
        let mut y = self.scale(x, 1.0, level)?;
        y.values.iter_mut().enumerate().for_each(|(slot, y)| *y *= known(slot));
        Ok(y)
    }

    fn scale(&mut self, x: &PlainVector, factor: f64, level: usize) -> Result<PlainVector, Error> {
        if level >= x.level {
            return Err(Error::Level { have: x.level, need: level + 1 });
        }
        self.vector(x.values.iter().map(|v| factor * v).collect(), level, 0)
    }

    fn rotate(&mut self, x: &PlainVector, steps: i64) -> Result<PlainVector, Error> {
        Ok(PlainVector::new(turned(&x.values, steps), x.level))
    }

    fn chebyshev(&mut self, x: &PlainVector, coefficients: &[f64]) -> Result<PlainVector, Error> {
        let depth = chebyshev_depth(coefficients.len().saturating_sub(1)).max(1);
        self.vector(x.values.iter().map(|&t| clenshaw(coefficients, t)).collect(), x.level, depth)
    }

    fn transform(
        &mut self,
        x: &PlainVector,
        rotations: BabyGiant<'_>,
        diagonal: &(dyn Fn(usize, usize, &mut [f64]) -> bool + Sync),
    ) -> Result<PlainVector, Error> {
        let (mut total, mut factor) = (vec![0.0; self.slots], vec![0.0; self.slots]);
        for (g, &giant) in rotations.giant.iter().enumerate() {
            let mut sum = vec![0.0; self.slots];
            for (b, &baby) in rotations.baby.iter().enumerate() {
                if diagonal(g, b, &mut factor) {
                    add_product(&mut sum, &factor, &turned(&x.values, baby));
                }
            }
            total.iter_mut().zip(turned(&sum, giant)).for_each(|(t, s)| *t += s);
        }
        self.vector(total, x.level, 1)
    }

    fn floor(&self) -> usize {
        self.refresh.map_or(0, |refresh| refresh.floor)
    }

    fn refresh(&mut self, x: &PlainVector) -> Result<PlainVector, Error> {
        self.renew([x, x]).map(|[x, _]| x)
    }

    fn refresh_pair(
        &mut self,
        x: &PlainVector,
        y: &PlainVector,
    ) -> Result<(PlainVector, PlainVector), Error> {
        self.renew([x, y]).map(|[x, y]| (x, y))
    }
}
