//! Formats: exact sizes, distinct errors in one order, every cut and every
//! flipped bit refused, the same bytes for both words, version 1 for good.

mod wire_fixture;

use veilformer::accel::Accelerator;
use veilformer::ckks::client::KeyTag;
use veilformer::ckks::{self, Parameters, ParametersLiteral};
use veilformer::ring::Word;
use veilformer::wire::*;
use wire_fixture::*;

const TOY: ParametersLiteral = ParametersLiteral::INSECURE_TOY;
const TOY_32: ParametersLiteral = ParametersLiteral::INSECURE_TOY_32;

fn ciphertext_file<W: Word>(literal: ParametersLiteral, level: usize) -> Vec<u8> {
    let parameters = parameters(literal);
    let machine = machine::<W>(parameters);
    let (mut scratch, mut file) = (scratch(parameters), Stream::default());
    let mut codec = Codec::new(&machine, parameters, &mut scratch).unwrap();
    codec.write_ciphertext(&mut file, KEY, &ciphertext(&machine, level)).unwrap();
    assert_eq!(file.0.len() as u64, ciphertext_len(parameters, level));
    file.0
}

fn parameters_file(literal: ParametersLiteral) -> Vec<u8> {
    let mut file = Stream::default();
    write_parameters(&mut file, parameters(literal)).unwrap();
    assert_eq!(file.0.len() as u64, PARAMETERS_LEN);
    file.0
}

/// Reads one ciphertext that must be alone, and gives it up at once.
fn try_ciphertext<A: Accelerator>(
    codec: &mut Codec<'_, A>,
    key: Option<KeyTag>,
    source: impl Source,
) -> Result<usize, Error> {
    let mut reader = Reader::new(source);
    let level = codec.read_ciphertext(&mut reader, key)?.level();
    reader.finish()?;
    Ok(level)
}

fn read_ciphertext(expected: &'static Parameters, key: Option<KeyTag>, bytes: &[u8]) -> Result<usize, Error> {
    let machine = machine::<u64>(expected);
    let mut scratch = scratch(expected);
    try_ciphertext(&mut Codec::new(&machine, expected, &mut scratch).unwrap(), key, bytes)
}

/// The header with some bytes replaced and its checksum made right again; the
/// payload's too.
fn forged(file: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut file = file.to_vec();
    file[at..at + bytes.len()].copy_from_slice(bytes);
    wire_fixture::seal(&mut file);
    file
}

#[test]
fn ciphertexts_come_back_word_for_word_at_every_level() {
    let parameters = parameters(TOY);
    let machine = machine::<u64>(parameters);
    let mut scratch = scratch(parameters);
    let mut codec = Codec::new(&machine, parameters, &mut scratch).unwrap();
    for level in 0..=parameters.max_level() {
        let written = ciphertext(&machine, level);
        let mut file = Stream::default();
        codec.write_ciphertext(&mut file, KEY, &written).unwrap();
        assert_eq!(file.0.len() as u64, ciphertext_len(parameters, level));
        let mut reader = Reader::new(Trickle(&file.0));
        let read = codec.read_ciphertext(&mut reader, Some(KEY)).unwrap();
        reader.finish().unwrap();
        for (a, b) in written.parts().iter().zip(read.parts()) {
            assert_eq!(words(&machine, a), words(&machine, b));
        }
    }
}

#[test]
fn both_words_exchange_the_same_bytes() {
    let narrow = ciphertext_file::<u32>(TOY_32, 3);
    assert_eq!(narrow, ciphertext_file::<u64>(TOY_32, 3));
    let parameters = parameters(TOY_32);
    let (small, large) = (machine::<u32>(parameters), machine::<u64>(parameters));
    let (mut w32, mut w64) = (scratch(parameters), scratch(parameters));
    let x = Codec::new(&small, parameters, &mut w32)
        .unwrap()
        .read_ciphertext(&mut Reader::new(narrow.as_slice()), None)
        .unwrap();
    let y = Codec::new(&large, parameters, &mut w64)
        .unwrap()
        .read_ciphertext(&mut Reader::new(narrow.as_slice()), None)
        .unwrap();
    for (a, b) in x.parts().iter().zip(y.parts()) {
        assert_eq!(words(&small, a), words(&large, b));
    }
}

#[test]
fn parameters_come_back_and_need_no_words_about_primes() {
    for (name, literal) in ParametersLiteral::NAMED {
        let file = parameters_file(*literal);
        let mut reader = Reader::new(file.as_slice());
        let read = read_parameters(&mut reader, true).unwrap();
        reader.finish().unwrap();
        assert_eq!(&read, parameters(*literal), "{name}");
        let strict = read_parameters(&mut Reader::new(file.as_slice()), false);
        assert_eq!(strict.err(), read.is_insecure().then_some(Error::InsecureMark), "{name}");
    }
}

#[test]
fn every_cut_is_refused_as_a_cut() {
    let parameters = parameters(TOY_32);
    let machine = machine::<u64>(parameters);
    let mut scratch = scratch(parameters);
    let mut codec = Codec::new(&machine, parameters, &mut scratch).unwrap();
    let file = ciphertext_file::<u64>(TOY_32, 0);
    for length in 0..file.len() {
        let need = if length < HEADER_LEN { HEADER_LEN } else { file.len() } as u64;
        let expected = Err(Error::Truncated { have: length as u64, need });
        assert_eq!(try_ciphertext(&mut codec, None, &file[..length]), expected);
        if length < 2 * HEADER_LEN || length % 61 == 0 || file.len() - length < 64 {
            assert_eq!(try_ciphertext(&mut codec, None, Trickle(&file[..length])), expected);
        }
    }
    assert_eq!(machine.available(), LIMBS);
    let file = parameters_file(TOY);
    for length in 0..file.len() {
        let error = read_parameters(&mut Reader::new(&file[..length]), true).err();
        assert!(matches!(error, Some(Error::Truncated { have, .. }) if have == length as u64));
    }
}

#[test]
fn every_flipped_bit_is_refused_where_it_is() {
    let parameters = parameters(TOY_32);
    let machine = machine::<u64>(parameters);
    let mut scratch = scratch(parameters);
    let mut codec = Codec::new(&machine, parameters, &mut scratch).unwrap();
    for mut file in [ciphertext_file::<u64>(TOY_32, 0), parameters_file(TOY_32)] {
        for bit in 0..8 * file.len() {
            file[bit / 8] ^= 1 << (bit % 8);
            let error = if file.len() as u64 == PARAMETERS_LEN {
                read_parameters(&mut Reader::new(file.as_slice()), true).err()
            } else {
                try_ciphertext(&mut codec, None, file.as_slice()).err()
            };
            let right = match bit / 8 {
                0..8 => matches!(error, Some(Error::NotOurs)),
                8..10 => matches!(error, Some(Error::Version { supported: VERSION, .. })),
                10..HEADER_LEN => error == Some(Error::Corrupt { part: Part::Header }),
                _ => error == Some(Error::Corrupt { part: Part::Payload }),
            };
            assert!(right, "bit {bit}: {error:?}");
            file[bit / 8] ^= 1 << (bit % 8);
        }
    }
    assert_eq!(machine.available(), LIMBS);
}

#[test]
fn each_cause_has_its_own_error_in_one_order() {
    let toy = parameters(TOY);
    let file = ciphertext_file::<u64>(TOY, 1);
    let read = |bytes: &[u8]| read_ciphertext(toy, Some(KEY), bytes).err().unwrap();
    assert_eq!(read(b"PK\x03\x04"), Error::NotOurs);
    assert_eq!(read(b""), Error::Truncated { have: 0, need: HEADER_LEN as u64 });
    // What comes first in the order wins over everything that is wrong later.
    let wrong = [
        (0, vec![0x7f]),                       // magic
        (8, vec![2, 0]),                       // version
        (10, vec![1, 0x80]),                   // kind: secret key
        (10, vec![2, 0x80]),                   // kind: a secret not known yet
        (10, vec![99, 0]),                     // kind: not known
        (12, vec![2]),                         // flags
        (50, vec![1]),                         // reserved
        (10, vec![Kind::Bundle.code() as u8]), // kind: another
        (16, vec![0xaa; 16]),                  // parameters
        (32, vec![0xbb; 16]),                  // key
        (48, vec![200, 0]),                    // level
        (52, vec![5]),                         // automorphism
        (56, vec![0xff; 8]),                   // payload too long
    ];
    let first = |bytes: &[u8]| u64::from_be_bytes(bytes[..8].try_into().unwrap());
    let code = Kind::Bundle.code();
    let max = toy.max_level() as u64;
    let errors = [
        Error::NotOurs,
        Error::Version { have: 2, supported: VERSION },
        Error::SecretNotAllowed,
        Error::SecretNotAllowed,
        Error::Kind { have: 99, expected: None },
        Error::Field { field: Field::Flags, have: 2, max: 1 },
        Error::Field { field: Field::Reserved, have: 1, max: 0 },
        Error::Kind { have: code, expected: Some(Kind::Ciphertext) },
        Error::OtherParameters { have: 0xaaaa_aaaa_aaaa_aaaa, need: first(toy.fingerprint()) },
        Error::OtherKey { have: 0xbbbb_bbbb_bbbb_bbbb, need: first(&KEY.0) },
        Error::Field { field: Field::Level, have: 200, max },
        Error::Field { field: Field::Galois, have: 5, max: 0 },
        Error::TooLarge { have: u64::MAX, max: ciphertext_len(toy, 1) - HEADER_LEN as u64 - TRAILER_LEN },
    ];
    for (i, ((at, bytes), error)) in wrong.iter().zip(errors).enumerate() {
        let mut bad = forged(&file, *at, bytes);
        assert_eq!(read(&bad), error);
        for (at, bytes) in &wrong[i + 1..] {
            // Two kinds cannot be wrong at once.
            if *at != wrong[i].0 {
                bad = forged(&bad, *at, bytes);
            }
        }
        assert_eq!(read(&bad), error);
    }
    let short = forged(&file, 56, &[16, 0, 0, 0, 0, 0, 0, 0]);
    assert!(matches!(read(&short), Error::Truncated { have: 16, .. }));
    assert_eq!(read(&[&file[..], b"x"].concat()), Error::Trailing { bytes: 1 });
    assert_eq!(read(&[&file[..], &file[..]].concat()), Error::Trailing { bytes: file.len() as u64 });
    let mut damaged = file.clone();
    damaged[11] ^= 1;
    assert_eq!(read(&damaged), Error::Corrupt { part: Part::Header });
}

#[test]
fn malformed_residues_are_told_from_damage() {
    let toy = parameters(TOY);
    let file = ciphertext_file::<u64>(TOY, 1);
    let q0 = toy.chain().moduli()[0];
    let width = residue_len(&q0);
    let read = |bytes: &[u8]| read_ciphertext(toy, None, bytes);
    // The largest residue is fine, the prime itself is not.
    let largest = forged(&file, HEADER_LEN, &(q0.value() - 1).to_le_bytes()[..width]);
    assert_eq!(read(&largest), Ok(1));
    let prime = forged(&file, HEADER_LEN, &q0.value().to_le_bytes()[..width]);
    assert_eq!(read(&prime), Err(Error::ResidueOutOfRange { limb: 0 }));
    let width = residue_len(&toy.chain().moduli()[1]);
    let last = file.len() - TRAILER_LEN as usize - width;
    assert_eq!(read(&forged(&file, last, &vec![0xff; width])), Err(Error::ResidueOutOfRange { limb: 3 }));
    let mut damaged = file.clone();
    damaged[last..last + width].fill(0xff);
    assert_eq!(read(&damaged), Err(Error::Corrupt { part: Part::Payload }));
    // A whole payload and trailer under the header of a sibling.
    let other = forged(&file, 32, &[7; 16]);
    let spliced = [&other[..HEADER_LEN], &file[HEADER_LEN..]].concat();
    assert_eq!(read(&spliced), Err(Error::Corrupt { part: Part::Payload }));
}

#[test]
fn wrong_parameters_and_wrong_keys_in_every_combination() {
    let sets = [TOY, TOY_32, ParametersLiteral { levels: 6, ..TOY }].map(parameters);
    let keys = [KeyTag([1; 16]), KeyTag([2; 16])];
    for made in sets {
        let machine = machine::<u64>(made);
        let mut scratch = scratch(made);
        let mut codec = Codec::new(&machine, made, &mut scratch).unwrap();
        let sample = ciphertext(&machine, 2);
        for key in keys {
            let mut file = Stream::default();
            codec.write_ciphertext(&mut file, key, &sample).unwrap();
            for expected in sets {
                for wanted in keys {
                    let result = read_ciphertext(expected, Some(wanted), &file.0);
                    match (made == expected, key == wanted) {
                        (true, true) => assert_eq!(result, Ok(2)),
                        (true, false) => assert!(matches!(result, Err(Error::OtherKey { .. }))),
                        (false, _) => assert!(matches!(result, Err(Error::OtherParameters { .. }))),
                    }
                }
            }
        }
    }
    let secure = parameters(ParametersLiteral::N12_EDGE);
    let machine = machine::<u32>(secure);
    let mut scratch = scratch(secure);
    let mut codec = Codec::new(&machine, secure, &mut scratch).unwrap();
    let toy = ciphertext_file::<u64>(TOY_32, 1);
    assert_eq!(try_ciphertext(&mut codec, None, toy.as_slice()), Err(Error::InsecureMark));
}

#[test]
fn nothing_is_written_where_it_cannot_fit_and_nothing_read_without_limbs() {
    let toy = parameters(TOY);
    let machine = machine::<u64>(toy);
    let mut scratch = scratch(toy);
    let mut codec = Codec::new(&machine, toy, &mut scratch).unwrap();
    let need = ciphertext_len(toy, 0);
    let sample = ciphertext(&machine, 0);
    let mut room = vec![0xee; need as usize];
    let mut short = &mut room[1..];
    assert_eq!(codec.write_ciphertext(&mut short, KEY, &sample), Err(Error::NoRoom { have: need - 1, need }));
    assert!(room.iter().all(|&byte| byte == 0xee));
    codec.write_ciphertext(&mut room.as_mut_slice(), KEY, &sample).unwrap();
    assert_eq!(try_ciphertext(&mut codec, Some(KEY), room.as_slice()), Ok(0));

    let held: Vec<_> = (0..LIMBS - 3).map(|_| machine.allocate().unwrap()).collect();
    let error = try_ciphertext(&mut codec, Some(KEY), room.as_slice());
    assert_eq!(
        error,
        Err(Error::Scheme(ckks::Error::Accelerator(veilformer::accel::Error::OutOfLimbs { capacity: 1 })))
    );
    drop(held);

    let mut words = vec![0u64; toy.degree() - 1];
    assert!(
        matches!(Codec::new(&machine, toy, &mut words).err(), Some(Error::Scheme(ckks::Error::Memory(m))) if m.need == 1024)
    );
}

#[test]
fn bundles_announce_skip_and_notice_what_is_missing() {
    let toy = parameters(TOY_32);
    let machine = machine::<u32>(toy);
    let mut scratch = scratch(toy);
    let mut codec = Codec::new(&machine, toy, &mut scratch).unwrap();
    let levels = [0usize, 3, 1];
    let bytes = levels.iter().map(|&level| ciphertext_len(toy, level)).sum();
    let bundle = Bundle { tag: 77, count: levels.len() as u64, bytes };
    let mut file = Stream::default();
    write_bundle(&mut file, toy, KEY, &bundle).unwrap();
    for level in levels {
        codec.write_ciphertext(&mut file, KEY, &ciphertext(&machine, level)).unwrap();
    }
    assert_eq!(file.0.len() as u64, BUNDLE_LEN + bytes);
    let expected = Expected { parameters: toy, key: Some(KEY) };

    let mut reader = Reader::new(Trickle(&file.0));
    assert_eq!(read_bundle(&mut reader, &expected).unwrap().1, bundle);
    let mut seen = Vec::new();
    while !reader.is_at_end().unwrap() {
        // Every second one is only looked at.
        let level = if seen.len() % 2 == 0 {
            reader.skip().unwrap().level as usize
        } else {
            codec.read_ciphertext(&mut reader, Some(KEY)).unwrap().level()
        };
        seen.push(level);
    }
    assert_eq!(seen, levels);
    reader.finish().unwrap();

    let mut reader = Reader::new(&file.0[..file.0.len() - 1]);
    let missing = Error::Truncated { have: bytes - 1, need: bytes };
    assert_eq!(read_bundle(&mut reader, &expected).err(), Some(missing));
    let mut reader = Reader::new(file.0.as_slice());
    read_bundle(&mut reader, &expected).unwrap();
    reader.header().unwrap();
    assert_eq!(reader.finish(), Err(Error::Trailing { bytes }));
    let mut tight = vec![0; BUNDLE_LEN as usize];
    assert!(matches!(write_bundle(&mut tight.as_mut_slice(), toy, KEY, &bundle), Err(Error::NoRoom { .. })));
}
