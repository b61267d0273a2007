extern crate std;
use super::*;
use crate::accel::{Accelerator, Evaluations, Polynomial, Portable, digits};
use crate::ckks::encoding::{Complex, Encoder, FixedEncoder, Scale, SlotValue, words_to_read};
use crate::ckks::{Error, KeyId, Parameters, ParametersLiteral, PrecisionStats, SwitchingKey};
use crate::memory::{Arena, LimbPool};
use crate::ring::{Basis, RingTables, SecretSeed, Word};
use ::fixed::types::I16F16;
use chacha20::ChaCha20Rng;
use rand_core::SeedableRng;
use std::{vec, vec::Vec};

/// Everything a client needs, in memory handed over piece by piece.
fn with_client<W: Word>(
    literal: ParametersLiteral,
    limbs: usize,
    test: impl FnOnce(&Parameters, &Portable<'_, '_, W, 512>, &LimbPool<'_, W, 512>),
) {
    let parameters = literal.check().unwrap();
    let mut tables = vec![W::default(); RingTables::<W>::words_needed(parameters.chain())];
    let tables = RingTables::new(parameters.chain(), &mut Arena::new(&mut tables)).unwrap();
    let degree = parameters.degree();
    let mut words = vec![W::default(); LimbPool::<W, 512>::words_needed(degree, limbs)];
    let pool = LimbPool::new(&mut Arena::new(&mut words), degree, limbs).unwrap();
    let accelerator = Portable::new(&tables, &pool).unwrap();
    test(&parameters, &accelerator, &pool);
}

fn seed(byte: u8) -> SecretSeed {
    SecretSeed::take(&mut [byte; 32])
}

fn rng() -> ChaCha20Rng {
    ChaCha20Rng::from_seed([9; 32])
}

fn slots(count: usize) -> Vec<Complex> {
    (0..count)
        .map(|j| {
            Complex::new(((j * 37 + 11) % 101) as f64 / 50.5 - 1.0, ((j * 53 + 5) % 97) as f64 / 48.5 - 1.0)
        })
        .collect()
}

fn precision(expected: &[Complex], obtained: &[Complex]) -> PrecisionStats {
    PrecisionStats::of(expected.iter().zip(obtained).flat_map(|(x, y)| [(x.re, y.re), (x.im, y.im)]))
}

/// Public-key, symmetric and plaintext paths at every level.
fn round_trips<W: Word>(literal: ParametersLiteral) {
    with_client::<W>(literal, 80, |parameters, accelerator, pool| {
        let degree = parameters.degree();
        let mut twiddles = vec![0.0; Encoder::words_needed(degree)];
        let encoder = Encoder::new(degree, &mut Arena::new(&mut twiddles)).unwrap();
        let (mut signed, mut words) = (vec![0i64; degree], vec![W::default(); 2 * degree]);
        let (mut scratch, mut message, mut out) =
            (vec![0.0; degree], vec![0i64; degree], vec![Complex::default(); parameters.slots()]);
        let secret = SecretKey::generate(accelerator, parameters, seed(1), &mut signed).unwrap();
        let public = secret.public_key(&mut signed, &mut words).unwrap();
        assert_eq!(public.tag(), secret.tag());
        let values = slots(parameters.slots());
        let mut rng = rng();
        for level in 0..=parameters.max_level() {
            let scale = parameters.scale(level);
            encoder.encode(&values, scale, &mut scratch, &mut message).unwrap();
            let plain = crate::ckks::encoding::plaintext(accelerator, Basis::level(level), &message).unwrap();
            let fresh = public.encrypt(accelerator, &plain, &mut rng, &mut signed).unwrap();
            let fused =
                public.encrypt_coefficients(accelerator, level, &message, &mut rng, &mut signed).unwrap();
            let mut copy = message.clone();
            let seeded = secret.encrypt_seeded(level, &mut copy, &mut rng, &mut words).unwrap();
            assert!(copy.iter().all(|&x| x == 0), "the message is wiped");
            let symmetric = seeded.expand(accelerator, &mut words).unwrap();
            assert!(signed.iter().all(|&x| x == 0), "scratch is wiped");
            // Fresh noise: mean bits at least log2 scale − log2 N − 2 (public key)
            // and three more for symmetric encryption.
            let expected = libm::log2(scale) - libm::log2(degree as f64);
            let mut coefficients = vec![0.0; degree];
            let by_public = public_key_noise(degree);
            for (ciphertext, bits, noise) in
                [(&fresh, -2.0, by_public), (&fused, -2.0, by_public), (&symmetric, 3.0, SECRET_KEY_NOISE)]
            {
                assert_eq!(ciphertext.level(), level);
                secret.decrypt_coefficients(ciphertext, &mut words, &mut coefficients).unwrap();
                let copy = coefficients.clone();
                encoder.decode(&mut coefficients, scale, &mut out).unwrap();
                let stats = precision(&values, &out);
                assert!(stats.mean_bits >= expected + bits, "level {level}: {stats}");
                // Decrypting every limb first comes to the same.
                let whole = secret.decrypt(ciphertext).unwrap();
                assert_eq!(whole.level(), level);
                crate::ckks::encoding::plaintext_coefficients(
                    accelerator,
                    &whole,
                    &mut words,
                    &mut coefficients,
                )
                .unwrap();
                assert_eq!(coefficients, copy);
                let mut integers = vec![0i64; degree];
                secret.decrypt_integers(ciphertext, &mut words, &mut integers).unwrap();
                let squares: f64 = integers.iter().zip(&message).map(|(x, m)| ((x - m) as f64).powi(2)).sum();
                let ratio = (squares / degree as f64).sqrt() / noise;
                assert!((0.85..1.15).contains(&ratio), "level {level}: noise is {ratio} of {noise}");
                assert!(integers.iter().zip(&copy).all(|(&a, &b)| a as f64 == b));
            }
        }
        assert_eq!(words_to_read(degree, 0), degree);
        let free = pool.available();
        drop((secret, public));
        assert!(pool.available() > free);
    });
}

#[test]
fn encryption_round_trips_with_the_precision_of_fresh_noise() {
    round_trips::<u64>(ParametersLiteral { levels: 2, ..ParametersLiteral::INSECURE_TOY });
    round_trips::<u64>(ParametersLiteral::N13_3);
}

#[test]
fn a_sensor_with_32_bit_words_round_trips() {
    round_trips::<u32>(ParametersLiteral::N12_EDGE);
}

#[test]
fn a_sensor_encrypts_and_decrypts_in_fixed_point_on_a_small_stack() {
    with_client::<u32>(ParametersLiteral::N12_EDGE, 20, |parameters, accelerator, _| {
        let degree = parameters.degree();
        let mut twiddles = vec![0i64; FixedEncoder::words_needed(degree)];
        let (mut coefficients, mut words) = (vec![0i64; degree], vec![0u32; 2 * degree]);
        let mut values = [SlotValue::ZERO; 100];
        let readings: Vec<I16F16> = (0..100).map(|i| I16F16::from_num(i) / 32).collect();
        let work = || -> Result<(), Error> {
            let encoder = FixedEncoder::new(degree, &mut Arena::new(&mut twiddles))?;
            let secret = SecretKey::generate(accelerator, parameters, seed(1), &mut coefficients)?;
            let scale = Scale::from_num(1u64 << parameters.literal().scale_bits);
            encoder.encode_real(&readings, scale, &mut coefficients)?;
            let level = parameters.max_level();
            let seeded = secret.encrypt_seeded(level, &mut coefficients, &mut rng(), &mut words)?;
            let ciphertext = seeded.expand(accelerator, &mut words)?;
            secret.decrypt_integers(&ciphertext, &mut words, &mut coefficients)?;
            encoder.decode_real(&mut coefficients, scale, &mut values)
        };
        std::thread::scope(|scope| {
            std::thread::Builder::new()
                .stack_size(64 << 10)
                .spawn_scoped(scope, work)
                .unwrap()
                .join()
                .unwrap()
        })
        .unwrap();
        for (value, reading) in values.iter().zip(&readings) {
            assert!((*value - SlotValue::from_num(*reading)).abs() < SlotValue::from_num(2e-5));
        }
    });
}

#[test]
fn both_word_types_expand_the_same_ciphertext() {
    fn residues<W: Word>() -> Vec<u64> {
        let mut all = Vec::new();
        with_client::<W>(ParametersLiteral::N12_EDGE, 16, |parameters, accelerator, _| {
            let degree = parameters.degree();
            let (mut signed, mut words) = (vec![0i64; degree], vec![W::default(); degree]);
            let secret = SecretKey::generate(accelerator, parameters, seed(1), &mut signed).unwrap();
            let mut message = vec![1 << 20; degree];
            let seeded = secret.encrypt_seeded(2, &mut message, &mut rng(), &mut words).unwrap();
            let ciphertext = seeded.expand(accelerator, &mut words).unwrap();
            for limb in ciphertext.parts().iter().flat_map(|p| p.limbs()) {
                accelerator.read(limb, &mut words).unwrap();
                all.extend(words.iter().map(|w| w.to_u64()));
            }
        });
        all
    }
    assert_eq!(residues::<u32>(), residues::<u64>());
}

#[test]
fn a_key_follows_from_seed_and_parameters() {
    with_client::<u64>(ParametersLiteral::INSECURE_TOY, 60, |parameters, accelerator, _| {
        let mut signed = vec![0i64; parameters.degree()];
        let make = |byte, signed: &mut [i64]| {
            SecretKey::generate(accelerator, parameters, seed(byte), signed).unwrap().tag()
        };
        let tag = make(1, &mut signed);
        assert_eq!(tag, make(1, &mut signed));
        assert_ne!(tag, make(2, &mut signed));
        with_client::<u64>(
            ParametersLiteral { levels: 6, ..ParametersLiteral::INSECURE_TOY },
            60,
            |parameters, accelerator, _| {
                let other = SecretKey::generate(accelerator, parameters, seed(1), &mut signed).unwrap();
                assert_ne!(tag, other.tag());
            },
        );
    });
}

#[test]
fn dropping_clears_every_secret_limb() {
    with_client::<u64>(ParametersLiteral::INSECURE_TOY, 40, |parameters, accelerator, pool| {
        let degree = parameters.degree();
        let (mut signed, mut words) = (vec![0i64; degree], vec![0u64; degree]);
        let secret = SecretKey::generate(accelerator, parameters, seed(1), &mut signed).unwrap();
        drop(secret.seeded_switching_key(KeyId::Galois(5), 0, &mut signed, &mut words).unwrap());
        let secret_words: Vec<Vec<u64>> = secret.secret.limbs().iter().map(|l| l.words().to_vec()).collect();
        drop(secret);
        assert_eq!(pool.available(), 40);
        let all: Vec<_> = core::iter::from_fn(|| pool.take()).collect();
        for limb in &all {
            assert!(secret_words.iter().all(|s| s != limb.words()));
        }
        // The limbs of s, of its automorphism and of s' are zero; those of b and a were public.
        let public = 2 * parameters.key_basis(0).len();
        assert!(all.iter().filter(|l| l.words().iter().any(|&w| w != 0)).count() <= public);
    });
}

#[test]
fn switching_keys_hold_the_defining_equation() {
    with_client::<u64>(ParametersLiteral::INSECURE_TOY, 200, |parameters, accelerator, _| {
        let (degree, chain) = (parameters.degree(), parameters.chain());
        let (mut signed, mut words) = (vec![0i64; degree], vec![0u64; 3 * degree]);
        let secret = SecretKey::generate(accelerator, parameters, seed(3), &mut signed).unwrap();
        let g = 25u32;
        for (id, level) in
            [(KeyId::Relinearization, 7), (KeyId::Galois(g), 4), (KeyId::Galois(2 * degree as u32 - 1), 0)]
        {
            let key = secret.switching_key(id, level, &mut signed, &mut words).unwrap();
            let basis = parameters.key_basis(level);
            let s = Polynomial::<_, Evaluations>::from_limbs(
                parameters.key_basis(7),
                secret.secret.limbs().iter().map(|l| copy(accelerator, l)).collect(),
            )
            .unwrap();
            let s = s.duplicate_to(accelerator, basis).unwrap();
            // The automorphism by g brings the target back to s.
            let (target, source) = match id {
                KeyId::Relinearization => {
                    let mut square = s.duplicate(accelerator).unwrap();
                    square.multiply_assign(accelerator, &s).unwrap();
                    (s.duplicate(accelerator).unwrap(), square)
                }
                KeyId::Galois(g) => {
                    let inverse = (1..2 * degree).step_by(2).find(|h| h * g as usize % (2 * degree) == 1);
                    (
                        s.automorphism(accelerator, inverse.unwrap()).unwrap(),
                        s.duplicate(accelerator).unwrap(),
                    )
                }
                _ => unreachable!("not in the list"),
            };
            for ([b, a], digit) in
                key.digits().iter().zip(digits(Basis::level(level), parameters.digit_size()))
            {
                let mut error = b.duplicate(accelerator).unwrap();
                error.multiply_add(accelerator, a, &target).unwrap();
                let gadget: Vec<u64> = (0..basis.len())
                    .map(|i| {
                        let m = &chain.moduli()[basis.prime_index(chain, i)];
                        let own = i >= digit.start() && i < digit.start() + digit.len();
                        if own { chain.product_mod(Basis::new(0, 0, chain.special()), m) } else { 0 }
                    })
                    .collect();
                let mut share = source.duplicate(accelerator).unwrap();
                share.multiply_scalar_assign(accelerator, &gadget).unwrap();
                error.sub_assign(accelerator, &share).unwrap();
                let error = error.into_coefficients(accelerator).unwrap();
                // The same small error in every limb.
                let mut first: Vec<i64> = Vec::new();
                for (i, limb) in error.limbs().iter().enumerate() {
                    let q = chain.moduli()[basis.prime_index(chain, i)].value() as i64;
                    let centred: Vec<i64> = limb
                        .words()
                        .iter()
                        .map(|&x| if x as i64 > q / 2 { x as i64 - q } else { x as i64 })
                        .collect();
                    assert!(centred.iter().all(|e| e.abs() <= 21));
                    assert!(centred.iter().any(|e| e.abs() >= 8));
                    if i == 0 {
                        first = centred;
                    } else {
                        assert_eq!(first, centred);
                    }
                }
            }
        }
    });
}

fn copy<A: Accelerator>(accelerator: &A, limb: &A::Limb) -> A::Limb {
    let mut out = accelerator.allocate().unwrap();
    accelerator.copy(core::slice::from_mut(&mut out), core::slice::from_ref(limb)).unwrap();
    out
}

#[test]
fn a_seeded_key_expands_to_the_key_and_a_trimmed_one_is_part_of_it() {
    with_client::<u64>(ParametersLiteral::INSECURE_TOY, 300, |parameters, accelerator, _| {
        let degree = parameters.degree();
        let mut signed = vec![0i64; degree];
        let secret = SecretKey::generate(accelerator, parameters, seed(3), &mut signed).unwrap();
        let id = KeyId::rotation(parameters, 3);
        let mut one = vec![0u64; degree];
        let mut many = vec![0u64; 5 * degree];
        let full = secret.switching_key(id, 7, &mut signed, &mut many).unwrap();
        let seeded = secret.seeded_switching_key(id, 4, &mut signed, &mut one).unwrap();
        let trimmed = seeded.expand(accelerator, parameters, &mut many).unwrap();
        assert_eq!((trimmed.digits().len(), full.digits().len()), (2, 3));
        for (pair, whole) in trimmed.digits().iter().zip(full.digits()) {
            for (part, whole) in pair.iter().zip(whole) {
                let part_of_whole = whole.duplicate_to(accelerator, part.basis()).unwrap();
                for (x, y) in part.limbs().iter().zip(part_of_whole.limbs()) {
                    assert_eq!(x.words(), y.words());
                }
            }
        }
    });
}

#[test]
fn a_copy_has_the_primes_asked_for_or_none() {
    with_client::<u64>(ParametersLiteral::INSECURE_TOY, 100, |parameters, accelerator, _| {
        let (degree, chain) = (parameters.degree(), parameters.chain());
        let value = |prime: usize| 1000 + prime as u64;
        let of = |basis: Basis| {
            let mut whole = Polynomial::<_, Evaluations>::zero(accelerator, basis).unwrap();
            for (i, limb) in whole.limbs_mut().iter_mut().enumerate() {
                accelerator.write(limb, &vec![value(basis.prime_index(chain, i)); degree]).unwrap();
            }
            whole
        };
        let whole = of(Basis::new(2, 4, 2));
        for part in [(2, 4, 2), (3, 2, 1), (5, 1, 0), (0, 0, 2), (2, 0, 0)] {
            let basis = Basis::new(part.0, part.1, part.2);
            let copy = whole.duplicate_to(accelerator, basis).unwrap();
            let found: Vec<u64> = copy.limbs().iter().map(|limb| limb.words()[degree - 1]).collect();
            let expected: Vec<u64> = (0..basis.len()).map(|i| value(basis.prime_index(chain, i))).collect();
            assert_eq!(found, expected, "{part:?}");
        }
        for part in [(1, 2, 0), (2, 5, 0), (6, 1, 0), (2, 4, 3)] {
            let refused = whole.duplicate_to(accelerator, Basis::new(part.0, part.1, part.2));
            assert!(matches!(refused, Err(crate::accel::Error::Shape { .. })), "{part:?}");
        }
    });
}

#[test]
fn one_limb_less_than_needed_is_a_typed_error() {
    let literal = ParametersLiteral::INSECURE_TOY;
    let (whole, seeded) = {
        let p = literal.check().unwrap();
        let key = SwitchingKey::<Portable<'_, '_, u64, 512>>::limbs_needed(&p, 3);
        // Secret, key, target and source.
        let need = p.chain().moduli().len() + key + p.key_basis(3).len() + 4;
        (need, need - key / 2 + p.key_basis(3).len())
    };
    for (limbs, fits) in [(seeded, true), (seeded - 1, false)] {
        with_client::<u64>(literal, limbs, |parameters, accelerator, _| {
            let (mut signed, mut words) = (vec![0i64; parameters.degree()], vec![0u64; parameters.degree()]);
            let secret = SecretKey::generate(accelerator, parameters, seed(3), &mut signed).unwrap();
            let key = secret.seeded_switching_key(KeyId::Galois(5), 3, &mut signed, &mut words);
            assert_eq!(key.is_ok(), fits);
        });
    }
    for (limbs, fits) in [(whole, true), (whole - 1, false)] {
        with_client::<u64>(literal, limbs, |parameters, accelerator, pool| {
            let (mut signed, mut words) = (vec![0i64; parameters.degree()], vec![0u64; parameters.degree()]);
            let secret = SecretKey::generate(accelerator, parameters, seed(3), &mut signed).unwrap();
            assert_eq!(
                pool.capacity() - pool.available(),
                SecretKey::<Portable<'_, '_, u64, 512>>::limbs_needed(parameters)
            );
            let key = secret.switching_key(KeyId::Galois(5), 3, &mut signed, &mut words);
            match key {
                Ok(_) => assert!(fits),
                Err(error) => {
                    let expected = crate::accel::Error::OutOfLimbs { capacity: limbs };
                    assert!(!fits && error == Error::Accelerator(expected), "{error}");
                    assert_eq!(pool.capacity() - pool.available(), parameters.chain().moduli().len());
                }
            }
        });
    }
}

#[test]
fn wrong_arguments_are_typed_errors() {
    with_client::<u64>(ParametersLiteral::INSECURE_TOY, 120, |parameters, accelerator, _| {
        let degree = parameters.degree();
        let (mut signed, mut words) = (vec![0i64; degree], vec![0u64; degree]);
        let secret = SecretKey::generate(accelerator, parameters, seed(1), &mut signed).unwrap();
        let short = Error::Length { have: degree - 1, need: degree };
        let message = vec![0i64; degree];
        let mut rng = rng();
        let key = |id, level, signed: &mut [i64], words: &mut [u64]| {
            secret.seeded_switching_key(id, level, signed, words).err()
        };
        let relin = KeyId::Relinearization;
        assert_eq!(key(relin, 8, &mut signed, &mut words), Some(Error::Level { have: 8, need: 7 }));
        assert_eq!(key(relin, 0, &mut signed[1..], &mut words), Some(short));
        assert_eq!(key(relin, 0, &mut signed, &mut words[1..]), Some(short));
        for g in [0, 2, 2 * degree as u32 + 1] {
            let id = KeyId::Galois(g);
            assert_eq!(key(id, 1, &mut signed, &mut words), Some(Error::MissingKey { id, level: 1 }));
        }
        let mut encrypt = |level, message: &[i64], words: &mut [u64]| {
            secret.encrypt_seeded(level, &mut message.to_vec(), &mut rng, words).err()
        };
        assert_eq!(encrypt(0, &message[1..], &mut words), Some(short));
        assert_eq!(encrypt(0, &message, &mut words[1..]), Some(short));
        let level = Error::Level { have: 9, need: 7 };
        assert_eq!(encrypt(9, &message, &mut words), Some(level));
        let range = Error::Accelerator(crate::accel::Error::Range);
        for extreme in [i64::MAX, i64::MIN, 1 << 62, -(1 << 62)] {
            assert_eq!(encrypt(0, &vec![extreme; degree], &mut words), Some(range));
        }
        let public = secret.public_key(&mut signed, &mut words).unwrap();
        let error = public.encrypt_coefficients(accelerator, 9, &message, &mut rng, &mut signed).err();
        assert_eq!(error, Some(level));
        let error = public.encrypt_coefficients(accelerator, 1, &message[1..], &mut rng, &mut signed).err();
        assert_eq!(error, Some(short));
        let error = public.encrypt_coefficients(accelerator, 1, &message, &mut rng, &mut signed[1..]).err();
        assert_eq!(error, Some(short));
        let other = ParametersLiteral { levels: 6, ..ParametersLiteral::INSECURE_TOY }.check().unwrap();
        let error = SecretKey::generate(accelerator, &other, seed(1), &mut signed).err();
        assert_eq!(error, Some(Error::OtherChain));
    });
    with_client::<u32>(ParametersLiteral::N12_EDGE, 20, |parameters, accelerator, _| {
        let (mut signed, mut words) = (vec![0i64; 4096], vec![0u32; 4096]);
        let secret = SecretKey::generate(accelerator, parameters, seed(1), &mut signed).unwrap();
        let error = secret.seeded_switching_key(KeyId::Galois(5), 0, &mut signed, &mut words).err();
        assert!(matches!(error, Some(Error::Parameter { given: 0, .. })));
    });
}

#[test]
fn releases_are_flooded_and_counted() {
    with_client::<u64>(ParametersLiteral::N13_3, 40, |parameters, accelerator, _| {
        let degree = parameters.degree();
        let (mut signed, mut words) = (vec![0i64; degree], vec![0u64; 2 * degree]);
        let secret = SecretKey::generate(accelerator, parameters, seed(1), &mut signed).unwrap();
        let message: Vec<i64> = (0..degree as i64).map(|k| k << 30).collect();
        let mut rng = rng();
        let seeded = secret.encrypt_seeded(1, &mut message.clone(), &mut rng, &mut words).unwrap();
        let ciphertext = seeded.expand(accelerator, &mut words).unwrap();
        let mut budget = ReleaseBudget::new(3, 30).unwrap();
        let sigma = flood_deviation(&budget, 3.2);
        assert!((sigma / (6.0 * 32768.0 * 3.2) - 1.0).abs() < 1e-12);
        let mut out = vec![0.0; degree];
        let mut last = Vec::new();
        for used in 1..=3 {
            secret.release(&ciphertext, 3.2, &mut budget, &mut rng, &mut words, &mut out).unwrap();
            assert_eq!(budget.used(), used);
            let variance =
                out.iter().zip(&message).map(|(x, &m)| (x - m as f64).powi(2)).sum::<f64>() / degree as f64;
            assert!((variance.sqrt() / sigma - 1.0).abs() < 0.05);
            assert_ne!(out, last);
            last = out.clone();
        }
        let error = secret.release(&ciphertext, 3.2, &mut budget, &mut rng, &mut words, &mut out).err();
        assert_eq!(error, Some(Error::ReleasesExhausted { allowed: 3 }));
        let mut fresh = ReleaseBudget::new(3, 30).unwrap();
        for noise in [0.0, -1.0, f64::NAN, 1e30] {
            let error = secret.release(&ciphertext, noise, &mut fresh, &mut rng, &mut words, &mut out).err();
            assert_eq!(error, Some(Error::NotEncodable { index: 0 }));
        }
        assert_eq!(fresh.used(), 0);
        assert!(matches!(ReleaseBudget::new(1, 29), Err(Error::Parameter { given: 29, min: 30, .. })));
    });
}
