//! An algebra under observation computes the same, and its observer misses nothing. On toy parameters, which are insecure.

use crate::world::sample::config;
use crate::world::{Client, World};
use std::cell::RefCell;
use std::rc::Rc;
use veilformer::ckks::{Ciphertext, ParametersLiteral};
use veilformer::transformer::slots::SlotArithmetic;
use veilformer_engine::{Algebra, Moment, Operation, Watched};
use veilformer_multicore::Multicore;

/// Some slots, squared, lowered and bootstrapped again.
fn squared<G: Algebra>(algebra: &mut G, x: &G::Vector) -> (Vec<Rc<G::Piece>>, usize) {
    let slots = algebra.slots();
    let y = slots.multiply(x, x).unwrap();
    let level = slots.level(&y);
    let y = slots.scale(&y, 0.5, level - 1).unwrap();
    let pieces: Vec<_> =
        algebra.lower(&(y, None)).unwrap().into_iter().map(|piece| Some(Rc::new(piece))).collect();
    let (lower, upper) = algebra.raise(&pieces, true).unwrap();
    let again = algebra.lower(&(lower, upper)).unwrap();
    (again.into_iter().map(Rc::new).collect(), level)
}

fn decrypt(client: &Client<'_>, pieces: &[Rc<Ciphertext<Multicore>>]) -> Vec<f64> {
    pieces.iter().flat_map(|piece| client.decrypt(piece)).collect()
}

#[test]
fn watching_changes_nothing_and_misses_nothing() {
    let world = World::new(ParametersLiteral::INSECURE_TOY_MATRIX, [12000, 60000]);
    let client = world.client();
    let values: Vec<f64> = (0..world.degrees().slots()).map(|i| (i % 17) as f64 / 17.0).collect();
    let x = client.encrypt_slots(world.parameters[0].max_level(), &values);
    let seen = RefCell::new(Vec::new());
    world.serve(&client, &world.keys(&config(1, false, 0)), |mut algebra| {
        let (plain, level) = squared(&mut algebra, &x);
        let expected = decrypt(&client, &plain);
        let mut watched =
            Watched::new(algebra, |operation, moment| seen.borrow_mut().push((operation, moment)));
        let (pieces, same_level) = squared(&mut watched, &x);
        assert_eq!(level, same_level);
        assert_eq!(decrypt(&client, &pieces), expected);
    });
    let seen = seen.into_inner();
    let begun: Vec<_> = seen.iter().filter(|(_, moment)| *moment == Moment::Begin).map(|(o, _)| *o).collect();
    use Operation::{Bootstrap, Lower, SlotFactor, SlotProduct};
    assert_eq!(begun, [SlotProduct, SlotFactor, Lower, Bootstrap, Lower]);
    for pair in seen.chunks(2) {
        assert_eq!(*pair, [(pair[0].0, Moment::Begin), (pair[0].0, Moment::End)]);
    }
}
