//! Compiles: what the other programs get wrong, done right.

use veilformer::accel::{Accelerator, Coefficients, Error, Evaluations, Polynomial, Trusted};
use veilformer::ckks::client::SecretKey;
use veilformer::ckks::server::Evaluator;
use veilformer::ckks::{self, Parameters, SwitchingKey};

pub fn sum<A: Accelerator>(
    a: &A,
    x: Polynomial<A, Coefficients>,
    y: &Polynomial<A, Evaluations>,
) -> Result<Polynomial<A, Evaluations>, Error> {
    let mut x = x.into_evaluations(a)?;
    x.add_assign(a, y)?;
    x.multiply_assign(a, y)?;
    Ok(x)
}

pub fn server<'a, A: Trusted>(
    secret: SecretKey<'a, A>,
    a: &'a A,
    parameters: &'a Parameters,
    keys: &'a [SwitchingKey<A>],
) -> Result<(), ckks::Error> {
    println!("{:?}", secret.tag());
    Evaluator::new(a, parameters, keys).map(|_| ())
}

fn main() {}
