//! A dry run: the same program on levels alone. Says which keys, levels and
//! operations a job needs before any key exists.

use super::SlotArithmetic;
use crate::ckks::server::bootstrap::BootstrapPlan;
use crate::ckks::server::{BabyGiant, chebyshev_depth};
use crate::ckks::{Error, KeyId, KeyRequests, Parameters};

/// What a job needs.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Every key, at the highest level of its use.
    pub keys: KeyRequests,
    /// Key switches: rotations and relinearisations.
    pub key_switches: usize,
    /// Products of two ciphertexts.
    pub products: usize,
    /// Plaintexts encoded for linear transforms and masks.
    pub diagonals: usize,
    /// Bootstraps; two vectors refreshed together count once.
    pub refreshes: usize,
    /// The lowest level reached.
    pub lowest_level: usize,
}

/// What a bootstrap does to levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Refresh {
    /// The lowest level it takes, at least 1.
    pub floor: usize,
    /// The level it leaves.
    pub level: usize,
}

/// A vector of the dry run: its level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned(usize);

/// Counts instead of computing.
pub struct PlanSlots<'a> {
    parameters: &'a Parameters,
    refresh: Option<Refresh>,
    plan: Plan,
}

impl<'a> PlanSlots<'a> {
    /// A dry run under `parameters`, with their bootstrapping if they have one.
    pub fn new(parameters: &'a Parameters) -> Self {
        let refresh = BootstrapPlan::new(parameters).ok();
        let refresh = refresh.map(|plan| Refresh { floor: plan.floor(), level: plan.output() });
        Self::with_refresh(parameters, refresh)
    }

    /// A dry run under `parameters`, with bootstraps where `refresh` says what they do.
    pub fn with_refresh(parameters: &'a Parameters, refresh: Option<Refresh>) -> Self {
        let plan = Plan { lowest_level: parameters.max_level(), ..Plan::default() };
        Self { parameters, refresh, plan }
    }

    /// A vector as a client would encrypt it at `level`.
    pub fn input(&self, level: usize) -> Planned {
        Planned(level.min(self.parameters.max_level()))
    }

    /// What was counted.
    pub fn finish(self) -> Plan {
        self.plan
    }

    fn down(&mut self, level: usize, count: usize) -> Result<Planned, Error> {
        let left = level.checked_sub(count).ok_or(Error::LevelsExhausted { have: level, need: count })?;
        self.plan.lowest_level = self.plan.lowest_level.min(left);
        Ok(Planned(left))
    }

    fn renew(&mut self, vectors: &[&Planned]) -> Result<Planned, Error> {
        let have = vectors.iter().map(|x| x.0).min().unwrap_or(0);
        match self.refresh {
            Some(Refresh { floor, level }) if have >= floor => {
                self.plan.refreshes += 1;
                if let Ok(bootstrap) = BootstrapPlan::new(self.parameters) {
                    bootstrap.required_keys(self.parameters, &mut self.plan.keys)?;
                }
                Ok(Planned(level))
            }
            Some(Refresh { floor, .. }) => Err(Error::Level { have, need: floor }),
            None => Err(Error::LevelsExhausted { have, need: have + 1 }),
        }
    }

    fn turn(&mut self, level: usize, steps: i64) -> Result<(), Error> {
        let id = KeyId::rotation(self.parameters, steps);
        if id != KeyId::Galois(1) {
            self.plan.key_switches += 1;
            self.plan.keys.add(id, level)?;
        }
        Ok(())
    }
}

impl SlotArithmetic for PlanSlots<'_> {
    type Vector = Planned;
    type Known = Planned;

    fn slots(&self) -> usize {
        self.parameters.slots()
    }

    fn level(&self, x: &Planned) -> usize {
        x.0
    }

    fn duplicate(&mut self, x: &Planned) -> Result<Planned, Error> {
        Ok(*x)
    }

    fn add_assign(&mut self, x: &mut Planned, y: &Planned) -> Result<(), Error> {
        if x == y { Ok(()) } else { Err(Error::Level { have: y.0, need: x.0 }) }
    }

    fn subtract_assign(&mut self, x: &mut Planned, y: &Planned) -> Result<(), Error> {
        self.add_assign(x, y)
    }

    fn negate_assign(&mut self, _: &mut Planned) -> Result<(), Error> {
        Ok(())
    }

    fn add_known_assign(&mut self, _: &mut Planned, _: &dyn Fn(usize) -> f64) -> Result<(), Error> {
        Ok(())
    }

    fn products(&mut self, pairs: &[(&Planned, &Planned)]) -> Result<Planned, Error> {
        let level = pairs.iter().map(|(x, y)| x.0.min(y.0)).min().unwrap_or(0);
        self.plan.keys.add(KeyId::Relinearization, level)?;
        self.plan.key_switches += 1;
        self.plan.products += pairs.len();
        self.down(level, 1)
    }

    fn prepare(&mut self, _: &dyn Fn(usize) -> f64, level: usize) -> Result<Planned, Error> {
        self.plan.diagonals += 1;
        Ok(Planned(level))
    }

    fn weigh(&mut self, pairs: &[(&Planned, &Planned)]) -> Result<Planned, Error> {
        let level = pairs.first().map_or(0, |(x, _)| x.0);
        match pairs.iter().flat_map(|&(x, known)| [x, known]).find(|v| v.0 != level) {
            Some(other) => Err(Error::Level { have: other.0, need: level }),
            None => self.down(level, 1),
        }
    }

    fn multiply_known(
        &mut self,
        x: &Planned,
        known: &dyn Fn(usize) -> f64,
        level: usize,
    ) -> Result<Planned, Error> {
        let _ = known;
        self.scale(x, 1.0, level)
    }

    fn scale(&mut self, x: &Planned, _: f64, level: usize) -> Result<Planned, Error> {
        if level < x.0 { self.down(level, 0) } else { Err(Error::Level { have: x.0, need: level + 1 }) }
    }

    fn rotate(&mut self, x: &Planned, steps: i64) -> Result<Planned, Error> {
        self.turn(x.0, steps)?;
        Ok(*x)
    }

    fn chebyshev(&mut self, x: &Planned, coefficients: &[f64]) -> Result<Planned, Error> {
        let degree = coefficients.len().saturating_sub(1);
        let depth = chebyshev_depth(degree).max(1);
        if depth > 1 {
            self.plan.keys.add(KeyId::Relinearization, x.0)?;
        }
        // Powers of two and baby steps, then one product per split: an upper bound.
        let products = depth + (1 << depth.div_ceil(2)) + (1 << (depth / 2));
        self.plan.products += products;
        self.plan.key_switches += products;
        self.down(x.0, depth)
    }

    fn transform(
        &mut self,
        x: &Planned,
        rotations: BabyGiant<'_>,
        _: &(dyn Fn(usize, usize, &mut [f64]) -> bool + Sync),
    ) -> Result<Planned, Error> {
        for &steps in rotations.baby.iter().chain(rotations.giant) {
            self.turn(x.0, steps)?;
        }
        self.plan.diagonals += rotations.baby.len() * rotations.giant.len();
        self.down(x.0, 1)
    }

    fn floor(&self) -> usize {
        self.refresh.map_or(0, |refresh| refresh.floor)
    }

    fn refresh(&mut self, x: &Planned) -> Result<Planned, Error> {
        self.renew(&[x])
    }

    fn refresh_pair(&mut self, x: &Planned, y: &Planned) -> Result<(Planned, Planned), Error> {
        let fresh = self.renew(&[x, y])?;
        Ok((fresh, fresh))
    }
}
