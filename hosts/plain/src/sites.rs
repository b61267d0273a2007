//! What is known about each non-linear site: the range of arguments seen there, and the polynomial that serves it.

use veilformer::approx::{ApproxError, Approximation, Interval, fit as chebyshev_fit};
use veilformer::transformer::{Config, Kernel, Site};

use crate::remez::relu_minimax;
use crate::scalar::Scalar;

/// Smallest and largest argument seen at every site, and the largest gradient that came back to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranges {
    config: Config,
    seen: Vec<(f64, f64)>,
    gradients: Vec<f64>,
    adapters: Vec<f64>,
}

impl Ranges {
    /// Nothing seen yet.
    pub fn new(config: &Config) -> Self {
        let count = Site::count(config);
        let (seen, gradients) = (vec![(f64::INFINITY, f64::NEG_INFINITY); count], vec![0.0; count]);
        Self { config: *config, seen, gradients, adapters: vec![0.0; config.layers] }
    }

    /// Notes an argument.
    pub fn note(&mut self, site: Site, argument: f64) {
        let (low, high) = &mut self.seen[site.index(&self.config)];
        *low = low.min(argument);
        *high = high.max(argument);
    }

    /// Notes gradients of the loss by what a site's function returned (by the gate's product, a norm's output, all scores);
    /// at [`Site::Optimizer`], those by the weights, averaged over a batch.
    pub fn note_gradients<F: Scalar>(&mut self, site: Site, gradients: &[F]) {
        let largest = &mut self.gradients[site.index(&self.config)];
        *largest = gradients.iter().fold(*largest, |m, g| m.max(g.to_f64().abs()));
    }

    /// Notes gradients of the loss by what a layer's LoRA matrices A give.
    pub fn note_adapter_gradients<F: Scalar>(&mut self, layer: usize, gradients: &[F]) {
        let largest = &mut self.adapters[layer];
        *largest = gradients.iter().fold(*largest, |m, g| m.max(g.to_f64().abs()));
    }

    /// The largest of those; 0 where there was none.
    pub fn adapter_gradient(&self, layer: usize) -> f64 {
        self.adapters[layer]
    }

    /// The largest |gradient| seen; 0 where there was none.
    pub fn gradient(&self, site: Site) -> f64 {
        self.gradients[site.index(&self.config)]
    }

    /// Adds what another run saw.
    pub fn merge(&mut self, other: &Self) {
        for (a, b) in self.seen.iter_mut().zip(&other.seen) {
            *a = (a.0.min(b.0), a.1.max(b.1));
        }
        self.gradients.iter_mut().zip(&other.gradients).for_each(|(a, &b)| *a = a.max(b));
        self.adapters.iter_mut().zip(&other.adapters).for_each(|(a, &b)| *a = a.max(b));
    }

    /// (smallest, largest) argument seen; an empty range is (∞, −∞).
    pub fn get(&self, site: Site) -> (f64, f64) {
        self.seen[site.index(&self.config)]
    }

    /// The first site whose arguments left its interval by more than a hair: a thousandth of its width, where a polynomial is
    /// still as good, and which noise at the kernel's end, 0, may take.
    pub fn escape(&self, table: &Approximations) -> Option<Site> {
        Site::all(&self.config).chain(Site::training(&self.config)).find(|&site| {
            let (low, high) = self.get(site);
            let serves = |a: Approximation<'_>| {
                let (interval, hair) = (a.interval(), a.interval().width() / 1000.0);
                low >= interval.low() - hair && high <= interval.high() + hair
            };
            low <= high && !table.get(site).is_some_and(serves)
        })
    }
}

/// The degree and the squarings a site may spend, and its margin.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Budget {
    /// Degree of the polynomial.
    pub degree: usize,
    /// Squarings after it (the kernel).
    pub squarings: u32,
    /// How far beyond the calibrated range the interval reaches, as a factor on the far end(s).
    pub margin: f64,
}

/// One site's polynomial and where it comes from.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The interval.
    pub interval: Interval,
    /// Squarings after the polynomial.
    pub squarings: u32,
    /// Chebyshev coefficients.
    pub coefficients: Vec<f64>,
    /// The range of arguments it was calibrated on.
    pub observed: (f64, f64),
}

/// The model's table of approximations.
#[derive(Debug, Clone, PartialEq)]
pub struct Approximations {
    config: Config,
    entries: Vec<Option<Entry>>,
    gradients: Vec<Option<f64>>,
    adapters: Vec<Option<f64>>,
}

impl Approximations {
    /// An empty table.
    pub fn new(config: &Config) -> Self {
        let count = Site::count(config);
        Self {
            config: *config,
            entries: vec![None; count],
            gradients: vec![None; count],
            adapters: vec![None; config.layers],
        }
    }

    /// Stores a site's polynomial, after checking that it is usable.
    pub fn insert(&mut self, site: Site, entry: Entry) -> Result<(), ApproxError> {
        Approximation::new(site.function(), entry.interval, entry.squarings, &entry.coefficients)?;
        self.entries[site.index(&self.config)] = Some(entry);
        Ok(())
    }

    /// Bounds the gradients that come back to a site: what an encrypted backward pass scales them by.
    ///
    /// # Errors
    /// [`ApproxError::Interval`] unless the bound is positive and finite.
    pub fn bound_gradient(&mut self, site: Site, bound: f64) -> Result<(), ApproxError> {
        Interval::new(-bound, bound)?;
        self.gradients[site.index(&self.config)] = Some(bound);
        Ok(())
    }

    /// Bounds the gradients by what a layer's LoRA matrices A give.
    ///
    /// # Errors
    /// [`ApproxError::Interval`] unless the bound is positive and finite.
    pub fn bound_adapter_gradient(&mut self, layer: usize, bound: f64) -> Result<(), ApproxError> {
        Interval::new(-bound, bound)?;
        self.adapters[layer] = Some(bound);
        Ok(())
    }

    /// That bound, if the table was made for training.
    pub fn adapter_gradient_bound(&self, layer: usize) -> Option<f64> {
        self.adapters.get(layer).copied().flatten()
    }

    /// The bound on gradients that come back to a site, if the table was made for training.
    pub fn gradient_bound(&self, site: Site) -> Option<f64> {
        self.gradients.get(site.index(&self.config)).copied().flatten()
    }

    /// A site's polynomial.
    pub fn get(&self, site: Site) -> Option<Approximation<'_>> {
        let entry = self.entry(site)?;
        Approximation::new(site.function(), entry.interval, entry.squarings, &entry.coefficients).ok()
    }

    /// A site's polynomial and its provenance.
    pub fn entry(&self, site: Site) -> Option<&Entry> {
        self.entries.get(site.index(&self.config))?.as_ref()
    }

    /// Fits a polynomial for every site the program visits, on the range seen there widened by the budget's margin.
    pub fn calibrate(
        config: &Config,
        ranges: &Ranges,
        budget: impl Fn(Site) -> Budget,
    ) -> Result<Self, ApproxError> {
        let mut table = Self::new(config);
        table.fit(Site::all(config), ranges, budget)?;
        Ok(table)
    }

    /// The same for some sites, and so for those of [`Site::training`], once ranges of a training run are known. Bounds on
    /// gradients, where any were seen, are widened by the same margin.
    pub fn fit(
        &mut self,
        sites: impl IntoIterator<Item = Site>,
        ranges: &Ranges,
        budget: impl Fn(Site) -> Budget,
    ) -> Result<(), ApproxError> {
        for site in sites {
            let budget = budget(site);
            let observed = ranges.get(site);
            let interval = widen(&self.config, site, observed, budget.margin)?;
            let mut coefficients = vec![0.0; budget.degree + 1];
            match site {
                Site::Gate(_) => coefficients = relu_minimax(interval, budget.degree),
                _ => chebyshev_fit(site.function(), interval, budget.squarings, 0, &mut coefficients)
                    .map(drop)?,
            }
            self.insert(site, Entry { interval, squarings: budget.squarings, coefficients, observed })?;
            if ranges.gradient(site) > 0.0 {
                self.bound_gradient(site, budget.margin * ranges.gradient(site))?;
            }
            if let Site::Kernel(layer) = site
                && ranges.adapter_gradient(layer) > 0.0
            {
                self.bound_adapter_gradient(layer, budget.margin * ranges.adapter_gradient(layer))?;
            }
        }
        Ok(())
    }
}

/// The interval of a site. Positive arguments of 1/√x and 1/x get the factor at both ends; the Gaussian kernel's exponent
/// at its far end (it ends at 0); the gate and tanh symmetrically (so that odd and even parts stay odd and even); other
/// exponents both ways from their middle. Two lower ends are known and reached sooner or later, or missed by a little with
/// noise: 1 of the optimizer's 1 + v̂/ε, and c of the sum of exponentials of c centred logits.
fn widen(config: &Config, site: Site, (low, high): (f64, f64), margin: f64) -> Result<Interval, ApproxError> {
    let reach = margin * high.abs().max(low.abs());
    match site {
        Site::FirstNorm(_) | Site::SecondNorm(_) | Site::FinalNorm | Site::Normaliser(_) => {
            Interval::new(low / margin, high * margin)
        }
        Site::LossInverse => Interval::new(0.95 * config.classes as f64, high * margin),
        Site::Kernel(_) if config.kernel == Kernel::Gaussian => Interval::new(margin * low, 0.0),
        Site::Kernel(_) | Site::LossExp => {
            let (middle, half) = (0.5 * (low + high), 0.5 * margin * (high - low));
            Interval::new(middle - half, middle + half)
        }
        Site::Gate(_) | Site::Tanh => Interval::new(-reach, reach),
        Site::Optimizer => Interval::new(0.9, 1.0 + margin * (high - 1.0)),
    }
}
