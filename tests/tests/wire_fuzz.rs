//! Mutated files: whatever the bytes, reading ends in an object or a typed
//! error, gives every limb back, and accepts nothing but what it would write.
//!
//! Checksums are made right again after most mutations, so that they reach the
//! checks behind. Deterministic; `VEILFORMER_FUZZ_SECONDS` runs longer, with
//! other mutations, and `VEILFORMER_FUZZ_SEED` starts elsewhere.

mod wire_fixture;

use std::time::{Duration, Instant};
use veilformer::accel::Accelerator;
use veilformer::ckks::{Parameters, ParametersLiteral};
use veilformer::ring::Word;
use veilformer::wire::*;
use wire_fixture::*;

const ROUNDS: u64 = 20_000;

/// Values that live at the edges of fields.
const EDGES: [u64; 12] =
    [0, 1, 2, 0x7f, 0xff, 0x7fff, 0x8001, 0xffff, 0x7fff_ffff, 0xffff_ffff, u64::MAX >> 1, u64::MAX];

fn mutate(random: &mut Random, file: &mut Vec<u8>, others: &[(Kind, Vec<u8>)]) {
    let length = file.len().max(1);
    // Half of the mutations hit the header, where the decisions are.
    let at = |random: &mut Random| {
        let bound = if random.below(2) == 0 { length.min(HEADER_LEN) } else { length };
        random.below(bound)
    };
    match random.below(9) {
        0 => {
            let at = at(random);
            file.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << random.below(8));
        }
        1 => {
            let at = at(random);
            file.iter_mut().skip(at).take(1).for_each(|byte| *byte = random.next() as u8);
        }
        2 => {
            // An edge value in a field of any width.
            let (at, width) = (at(random), 1 << random.below(4));
            let value = EDGES[random.below(EDGES.len())].to_le_bytes();
            file.iter_mut().skip(at).zip(&value[..width]).for_each(|(byte, edge)| *byte = *edge);
        }
        3 => file.truncate(random.below(length + 1)),
        4 => file.extend((0..random.below(100)).map(|_| random.next() as u8)),
        5 => {
            // Bytes go missing, or come twice.
            let (from, to) = (random.below(length), random.below(length));
            let piece: Vec<u8> = file.drain(from.min(to)..from.max(to).min(file.len())).collect();
            if random.below(2) == 0 {
                let at = random.below(file.len() + 1);
                file.splice(at..at, piece.iter().chain(&piece).copied());
            }
        }
        6 => {
            // The head of this file, the tail of another.
            let other = &others[random.below(others.len())].1;
            file.truncate(random.below(length + 1));
            file.extend_from_slice(&other[random.below(other.len())..]);
        }
        7 => {
            // The payload becomes as long as there are bytes, or nearly.
            let payload = (file.len() as u64).saturating_sub(HEADER_LEN as u64 + TRAILER_LEN);
            let payload = payload.wrapping_add(random.below(3) as u64).wrapping_sub(1);
            file.iter_mut().skip(56).zip(payload.to_le_bytes()).for_each(|(byte, new)| *byte = new);
        }
        _ => {
            // Another kind of object altogether.
            file.iter_mut().skip(10).take(1).for_each(|byte| *byte = random.below(8) as u8);
        }
    }
}

/// Reads `bytes` as every kind. What is accepted must be what a writer writes.
fn read_all<W: Word>(machine: &Machine<W>, parameters: &'static Parameters, bytes: &[u8]) -> usize {
    let mut scratch = scratch(parameters);
    let mut codec = Codec::new(machine, parameters, &mut scratch).expect("fits");
    let mut accepted = 0;
    let mut again = Stream::default();
    let mut reader = Reader::new(bytes);
    let Ok(header) = reader.header() else {
        // Secrets, too, are read without a panic; a seed that makes its key is no accident.
        let secret = read_one(&mut codec, (machine, parameters), Kind::SecretKey, None, bytes);
        return secret.is_ok() as usize;
    };
    let key = header.key;
    let written = match header.kind {
        Kind::Parameters => match read_parameters(&mut reader, true) {
            Ok(read) => write_parameters(&mut again, &read),
            Err(_) => return 0,
        },
        Kind::PublicKey => match codec.read_public_key(&mut reader, None) {
            Ok(read) => codec.write_public_key(&mut again, &read),
            Err(_) => return 0,
        },
        Kind::SwitchingKey => match codec.read_switching_key(&mut reader, None) {
            Ok(read) => codec.write_switching_key(&mut again, key, &read),
            Err(_) => return 0,
        },
        Kind::Ciphertext => match codec.read_ciphertext(&mut reader, None) {
            Ok(read) => codec.write_ciphertext(&mut again, key, &read),
            Err(_) => return 0,
        },
        Kind::SeededCiphertext => match codec.read_seeded_ciphertext(&mut reader, None) {
            Ok(read) => codec.write_seeded_ciphertext(&mut again, key, &read),
            Err(_) => return 0,
        },
        Kind::Bundle => match read_bundle(&mut reader, &Expected { parameters, key: None }) {
            Ok((_, read)) => write_bundle(&mut again, parameters, key, &read),
            Err(_) => return 0,
        },
        Kind::Record => {
            let mut numbers = [0; 8];
            match read_record(&mut reader, &Expected { parameters, key: None }, &mut numbers) {
                Ok((_, tag, count)) => write_record(&mut again, parameters, key, tag, &numbers[..count]),
                Err(_) => return 0,
            }
        }
        kind => panic!("{kind:?} came through a reader of public objects"),
    };
    written.expect("what was read can be written");
    let differs = again.0.iter().zip(bytes).position(|(a, b)| a != b);
    assert_eq!(differs, None, "{:?}: accepted bytes that no writer writes", header.kind);
    accepted += 1;
    let rest = bytes.len() - again.0.len();
    assert_eq!(reader.finish().is_ok(), rest == 0);
    accepted
}

#[test]
fn mutated_files_never_panic_and_are_never_misread() {
    let environment = |name| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let end = environment("VEILFORMER_FUZZ_SECONDS").map(|s| Instant::now() + Duration::from_secs(s));
    let mut random = Random::new(environment("VEILFORMER_FUZZ_SEED").unwrap_or(1));
    let parameters = parameters(ParametersLiteral::INSECURE_TOY_32);
    let (narrow, wide) = (machine::<u32>(parameters), machine::<u64>(parameters));
    let files = files::<u64>(parameters);
    let (mut rounds, mut accepted) = (0u64, 0);
    while end.map_or(rounds < ROUNDS, |end| Instant::now() < end) {
        let mut file = files[random.below(files.len())].1.clone();
        for _ in 0..=random.below(3) {
            mutate(&mut random, &mut file, &files);
        }
        if random.below(8) != 0 {
            seal(&mut file);
        }
        let found = read_all(&wide, parameters, &file);
        assert_eq!(found, read_all(&narrow, parameters, &file), "the words disagree");
        accepted += found;
        rounds += 1;
    }
    assert_eq!((narrow.available(), wide.available()), (LIMBS, LIMBS));
    // Both ways out are taken: payload bytes that changed under a right checksum are legal.
    assert!(accepted > 0 && (accepted as u64) < rounds, "{accepted} of {rounds} accepted");
    println!("{rounds} files, {accepted} accepted");
}

#[test]
fn noise_and_streams_of_objects_never_panic() {
    let parameters = parameters(ParametersLiteral::INSECURE_TOY_32);
    let machine = machine::<u32>(parameters);
    let files = files::<u32>(parameters);
    let mut random = Random::new(7);
    for round in 0..2_000 {
        // Pure noise, noise under our magic and version, and files in a row with a wound.
        let mut bytes: Vec<u8> = (0..random.below(300)).map(|_| random.next() as u8).collect();
        if round % 3 > 0 {
            bytes.splice(..0, MAGIC.into_iter().chain(VERSION.to_le_bytes()));
        }
        if round % 3 == 2 {
            bytes = (0..3).flat_map(|_| files[random.below(files.len())].1.clone()).collect();
            let at = random.below(bytes.len());
            bytes[at] ^= random.next() as u8 | 1;
        }
        read_all(&machine, parameters, &bytes);
        let mut reader = Reader::new(Trickle(&bytes));
        while matches!(reader.is_at_end(), Ok(false)) && reader.skip().is_ok() {}
        if round % 3 < 2 {
            seal(&mut bytes);
            read_all(&machine, parameters, &bytes);
        }
    }
    assert_eq!(machine.available(), LIMBS);
}

#[test]
fn parameters_of_any_content_end_in_an_error_or_in_checked_ones() {
    let file = &files::<u32>(parameters(ParametersLiteral::INSECURE_TOY_32))[0].1;
    // Smallest and largest values that the fields allow, and one beyond.
    let ranges = [(9, 18), (24, 51), (19, 50), (0, 64), (0, 20), (24, 51), (0, 17), (0, 1), (0, 2)];
    let mut random = Random::new(11);
    let (mut scheme, mut other) = (0, 0);
    for round in 0..400 {
        let mut file = file.clone();
        for (i, (min, max)) in ranges.into_iter().enumerate() {
            // From an honest file, to any.
            if random.below(1 + round / 40) > 0 {
                let field = (min + random.below(max - min + 1)) as u32;
                file[HEADER_LEN + 4 * i..][..4].copy_from_slice(&field.to_le_bytes());
            }
        }
        seal(&mut file);
        match read_parameters(&mut Reader::new(file.as_slice()), true).err() {
            Some(Error::Scheme(_)) => scheme += 1,
            Some(Error::OtherParameters { .. }) => other += 1,
            Some(Error::Field { .. }) | None => {}
            Some(error) => panic!("{error}"),
        }
    }
    assert!(scheme > 0 && other > 0, "{scheme} {other}");
}
