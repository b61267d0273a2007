//! What the device does, free of any device: the same file runs in a test on the host, which computes the
//! answer that the device must give.

use chacha20::ChaCha20Rng;
use fixed::types::I16F16;
use rand_core::SeedableRng;
use veilformer::accel::{Accelerator, Portable};
use veilformer::ckks::client::SecretKey;
use veilformer::ckks::encoding::{FixedEncoder, Scale, SlotValue};
use veilformer::ckks::{Error, ParametersLiteral};
use veilformer::memory::{Arena, LimbPool};
use veilformer::ring::{RingTables, SecretSeed};
use xxhash_rust::xxh3::xxh3_64;

/// The parameters of a sensor that only encrypts.
pub const PARAMETERS: ParametersLiteral = ParametersLiteral::N12_EDGE;
/// N.
pub const DEGREE: usize = 1 << PARAMETERS.log_degree;
/// Primes.
const PRIMES: usize = PARAMETERS.levels as usize + 1;
/// Limbs: the secret key, a ciphertext, and the working space of decryption.
const LIMBS: usize = 3 * PRIMES + 2;
/// Readings of the sensor.
pub const READINGS: usize = 128;

/// 32-bit words the scenario works in: tables, limbs, two limbs of scratch.
pub const WORDS: usize = PRIMES * 2 * DEGREE + LIMBS * DEGREE + 2 * DEGREE;
/// 64-bit integers: twiddles of the encoder, and the message.
pub const INTEGERS: usize = 2 * DEGREE;

/// Hash of the ciphertext's words; the same on every machine.
pub const CIPHERTEXT: u64 = 0xdd99_9cee_bf56_db2f;
/// Hash of the decoded readings' bits; the same on every machine.
pub const READINGS_BACK: u64 = 0x11a1_0a09_6ea2_e8ea;

/// What came out.
pub struct Outcome {
    /// Hash of the ciphertext's words.
    pub ciphertext: u64,
    /// Hash of the decoded readings' bits.
    pub readings: u64,
    /// Largest error of a reading, in units of 2^−60.
    pub worst: u64,
    /// Largest reading, in units of 2^−60: not zero.
    pub largest: u64,
    /// Most limbs in use at once.
    pub peak: usize,
    /// Bytes to be sent.
    pub sent: usize,
}

fn reading(index: usize) -> I16F16 {
    I16F16::from_num((index as i32 * 37 + 11) % 101 - 50) / 32
}

/// Sets up, encodes, encrypts, hashes what would be sent, decrypts and decodes. `step` is called after each.
pub fn run(
    words: &mut [u32],
    integers: &mut [i64],
    step: &mut impl FnMut(&'static str),
) -> Result<Outcome, Error> {
    let parameters = PARAMETERS.check()?;
    step("parameters checked");
    let mut arena = Arena::new(words);
    let tables = RingTables::<u32>::new(parameters.chain(), &mut arena)?;
    let pool = LimbPool::<u32, LIMBS>::new(&mut arena, DEGREE, LIMBS)?;
    let scratch = arena.take(2 * DEGREE)?;
    let accelerator = Portable::new(&tables, &pool)?;
    let mut arena = Arena::new(integers);
    let encoder = FixedEncoder::new(DEGREE, &mut arena)?;
    let message = arena.take(DEGREE)?;
    step("tables computed");

    // A device draws both from its own generator; here they are fixed, to have one right answer.
    let (mut secret_bytes, mut rng) = ([42; 32], ChaCha20Rng::from_seed([7; 32]));
    let seed = SecretSeed::take(&mut secret_bytes);
    let secret = SecretKey::generate(&accelerator, &parameters, seed, message)?;
    step("secret key made");

    let readings: [I16F16; READINGS] = core::array::from_fn(reading);
    // The scale of the top level is a power of two: exact without floating point.
    let scale = Scale::from_num(1u64 << PARAMETERS.scale_bits);
    encoder.encode_real(&readings, scale, message)?;
    step("readings encoded");
    let level = parameters.max_level();
    let small = secret.encrypt_seeded(level, message, &mut rng, scratch)?;
    step("encrypted");

    let mut ciphertext = xxh3_64(small.seed().as_bytes());
    for limb in small.body().limbs() {
        accelerator.read(limb, &mut scratch[..DEGREE])?;
        for word in &scratch[..DEGREE] {
            ciphertext = ciphertext.rotate_left(5) ^ xxh3_64(&word.to_le_bytes());
        }
    }
    let sent = 32 + small.body().limbs().len() * DEGREE * 4;
    step("hashed");

    let full = small.expand(&accelerator, scratch)?;
    secret.decrypt_integers(&full, scratch, message)?;
    step("decrypted");
    let mut back = [SlotValue::ZERO; READINGS];
    encoder.decode_real(message, scale, &mut back)?;
    step("decoded");

    let mut outcome = Outcome { ciphertext, readings: 0, worst: 0, largest: 0, peak: pool.peak(), sent };
    for (value, reading) in back.iter().zip(&readings) {
        let expected = SlotValue::from_num(*reading);
        outcome.worst = outcome.worst.max(value.to_bits().abs_diff(expected.to_bits()));
        outcome.largest = outcome.largest.max(value.to_bits().unsigned_abs());
        outcome.readings = outcome.readings.rotate_left(5) ^ xxh3_64(&value.to_bits().to_le_bytes());
    }
    Ok(outcome)
}
