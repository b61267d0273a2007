//! No secret on an accelerator that is not trusted.

use veilformer::accel::engine::NttEngine;
use veilformer::accel::{Accelerator, Offload, Trusted};
use veilformer::ckks::client::SecretKey;

pub fn trusted<A: Trusted>(_: &A) {}

pub fn offload<E: NttEngine + Send, A: Trusted>(offload: &Offload<'_, E, A>) {
    trusted(offload); //~ E0277
}

pub fn any<A: Accelerator>(secret: SecretKey<'_, A>) {} //~ E0277

fn main() {}
