//! Secrets are neither copied nor printed.

use veilformer::accel::Trusted;
use veilformer::ckks::client::SecretKey;
use veilformer::ring::SecretSeed;

pub fn print<A: Trusted>(secret: &SecretKey<'_, A>) {
    println!("{secret:?}"); //~ E0277
}

pub fn copy<A: Trusted>(secret: SecretKey<'_, A>) -> [SecretKey<'_, A>; 2] {
    let other = secret;
    [secret, other] //~ E0382
}

fn clone<T: Clone>() {}
fn debug<T: std::fmt::Debug>() {}

pub fn key<A: Trusted>() {
    clone::<SecretKey<'_, A>>(); //~ E0277
}

pub fn seed() {
    clone::<SecretSeed>(); //~ E0277
    debug::<SecretSeed>(); //~ E0277
}

fn main() {}
