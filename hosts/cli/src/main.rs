//! The program `veilformer`.

fn main() {}
