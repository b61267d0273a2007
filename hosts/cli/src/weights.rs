//! Encrypted weights in files: LoRA's matrices and the head, as the engine's slots.
//!
//! ```text
//! record: fingerprint, ciphertexts, whether each has an upper half; then the ciphertexts, lower before upper
//! ```

use crate::client::Client;
use crate::commands::{Described, open_described, read_described};
use crate::exit::{Exit, Failure, InFile};
use crate::rings::{Carrier, Rings};
use crate::work::Work;
use std::path::Path;
use veilformer::accel::Accelerator;
use veilformer::ckks::Ciphertext;
use veilformer::ckks::client::{PublicKey, SecretKey};
use veilformer::transformer::Parameter;
use veilformer::wire::{Expected, Reader, Sink, Source, write_record};
use veilformer_engine::algebra::Halves;
use veilformer_multicore::Multicore;

/// What their record says they are.
pub(crate) const WEIGHTS: u64 = u64::from_be_bytes(*b"weights ");

/// Encrypted weights: the ciphertexts of [`veilformer_engine::Engine::trained_places`].
pub(crate) type Encrypted<A> = Vec<Halves<Ciphertext<A>>>;

/// Limbs that the weights of a work take.
pub(crate) fn limbs(work: &Work, rings: &Rings) -> Result<usize, Failure> {
    let places = *work.trained_places(rings.degrees())?.places();
    let halves = places.ciphertexts() * if places.has_upper_half() { 2 } else { 1 };
    Ok(2 * halves * (rings.slot_level() + 1))
}

/// Writes weights after what is in the sink already.
pub(crate) fn write<A: Accelerator<Word = u64>>(
    sink: &mut impl Sink,
    carrier: &mut Carrier<'_, A>,
    fingerprint: u64,
    weights: &[Halves<Ciphertext<A>>],
) -> Result<(), Failure> {
    let both = weights.iter().any(|(_, upper)| upper.is_some());
    let numbers = [fingerprint, weights.len() as u64, u64::from(both)];
    write_record(sink, carrier.parameters, carrier.owner, WEIGHTS, &numbers)?;
    for (lower, upper) in weights {
        carrier.write(sink, lower)?;
        upper.iter().try_for_each(|upper| carrier.write(sink, upper))?;
    }
    Ok(())
}

/// Reads weights of this work from where the reader stands.
///
/// # Errors
/// Another work's or key's; other ciphertexts than the work's weights take.
pub(crate) fn read<A: Accelerator<Word = u64>, S: Source>(
    reader: &mut Reader<S>,
    work: &Work,
    rings: &Rings,
    carrier: &mut Carrier<'_, A>,
) -> Result<Encrypted<A>, Failure> {
    let expected = Expected { parameters: carrier.parameters, key: Some(carrier.owner) };
    let described = read_described(reader, &expected)?;
    let (count, both) = announced(&described, work, rings)?;
    let mut one = || carrier.read(reader, 1)?.pop().ok_or_else(|| Failure::new(Exit::BadFile, "cut short"));
    (0..count).map(|_| Ok((one()?, if both { Some(one()?) } else { None }))).collect()
}

/// How many ciphertexts there are, and whether each has an upper half.
fn announced(described: &Described, work: &Work, rings: &Rings) -> Result<(usize, bool), Failure> {
    let numbers = described.expect(WEIGHTS, "encrypted weights", work)?;
    let places = work.trained_places(rings.degrees())?;
    let (count, both) = (places.places().ciphertexts(), places.places().has_upper_half());
    if numbers[..] != [count, usize::from(both)] {
        let message = format!("says it holds {numbers:?}; the weights of this work are {count} ciphertexts");
        return Err(Failure::new(Exit::BadFile, message));
    }
    Ok((count, both))
}

/// Reads a file of weights alone, or that of a checkpoint, which begins with them.
pub(crate) fn load<A: Accelerator<Word = u64>>(
    path: &Path,
    work: &Work,
    rings: &Rings,
    carrier: &mut Carrier<'_, A>,
) -> Result<Encrypted<A>, Failure> {
    let mut reader = crate::commands::open_under(path, &rings.big)?;
    read(&mut reader, work, rings, carrier).in_file(path)
}

/// That a file holds weights of this work and this key.
pub(crate) fn check(
    path: &Path,
    work: &Work,
    rings: &Rings,
    owner: veilformer::ckks::client::KeyTag,
) -> Result<(), Failure> {
    let (_, described) = open_described(path, &rings.big, Some(owner))?;
    announced(&described, work, rings).map(drop).in_file(path)
}

/// Encrypts the weights a work starts from.
pub(crate) fn encrypt(
    client: &mut Client<'_>,
    key: &PublicKey<Multicore>,
    work: &Work,
    rings: &Rings,
) -> Result<Encrypted<Multicore>, Failure> {
    let trained = work.trained_places(rings.degrees())?;
    let both = trained.places().has_upper_half();
    let mut half = |ciphertext: usize, upper: bool| {
        let weight = |slot: usize| {
            let at = trained.weight(ciphertext, upper, slot);
            at.map_or(0.0, |(parameter, row, column)| {
                work.weights.get(parameter)[row * columns(work, parameter) + column]
            })
        };
        let values: Vec<f64> = (0..rings.degrees().slots()).map(weight).collect();
        client.encrypt(key, &values, rings.slot_level())
    };
    (0..trained.places().ciphertexts())
        .map(|c| Ok((half(c, false)?, if both { Some(half(c, true)?) } else { None })))
        .collect()
}

/// The work with the weights that were decrypted in place of its own.
pub(crate) fn decrypt(
    client: &mut Client<'_>,
    secret: &SecretKey<'_, Multicore>,
    mut work: Work,
    rings: &Rings,
    weights: &Encrypted<Multicore>,
) -> Result<Work, Failure> {
    let trained = work.trained_places(rings.degrees())?;
    for (ciphertext, (lower, upper)) in weights.iter().enumerate() {
        for (is_upper, half) in [(false, Some(lower)), (true, upper.as_ref())] {
            let Some(half) = half else { continue };
            for (slot, value) in client.decrypt(secret, half)?.into_iter().enumerate() {
                if let Some((parameter, row, column)) = trained.weight(ciphertext, is_upper, slot) {
                    let at = row * columns(&work, parameter) + column;
                    work.weights.get_mut(parameter)[at] = value;
                }
            }
        }
    }
    Ok(work)
}

fn columns(work: &Work, parameter: Parameter) -> usize {
    parameter.shape(&work.config).columns
}
