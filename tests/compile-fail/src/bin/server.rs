//! A server has no place for a secret.

use veilformer::accel::Trusted;
use veilformer::ckks::client::SecretKey;
use veilformer::ckks::server::Evaluator;
use veilformer::ckks::{Ciphertext, Parameters};

pub fn keys<A: Trusted>(a: &A, parameters: &Parameters, secret: &SecretKey<'_, A>) {
    let _ = Evaluator::new(a, parameters, secret); //~ E0277
}

pub fn decrypt<A: Trusted>(
    evaluator: &Evaluator<'_, A, [veilformer::ckks::SwitchingKey<A>]>,
    x: &Ciphertext<A>,
) {
    let _ = evaluator.decrypt(x); //~ E0599
}

fn main() {}
