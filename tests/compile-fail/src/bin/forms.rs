//! Coefficients and evaluations do not mix.

use veilformer::accel::{Accelerator, Coefficients, Error, Evaluations, Polynomial};

pub fn sum<A: Accelerator>(
    a: &A,
    x: &mut Polynomial<A, Coefficients>,
    y: &Polynomial<A, Evaluations>,
) -> Result<(), Error> {
    x.add_assign(a, y) //~ E0308
}

pub fn product<A: Accelerator>(
    a: &A,
    x: &mut Polynomial<A, Coefficients>,
    y: &Polynomial<A, Coefficients>,
) -> Result<(), Error> {
    x.multiply_assign(a, y) //~ E0599
}

pub fn twice<A: Accelerator>(
    a: &A,
    x: Polynomial<A, Evaluations>,
) -> Result<Polynomial<A, Evaluations>, Error> {
    x.into_evaluations(a) //~ E0599
}

fn main() {}
