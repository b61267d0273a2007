//! The model as the slot executor reads it.

use crate::model::Model;
use veilformer::approx::Approximation;
use veilformer::transformer::slots;
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
}
