//! Cut, damaged, forged and confused files: every one is refused, with the error that says why.

mod wire_fixture;

use veilformer::accel::Accelerator;
use veilformer::ckks::ParametersLiteral;
use veilformer::wire::*;
use wire_fixture::*;

#[test]
fn every_cut_of_every_kind_is_refused_as_a_cut() {
    let parameters = parameters(TOY_32);
    let machine = machine::<u64>(parameters);
    let mut scratch = scratch(parameters);
    let mut codec = Codec::new(&machine, parameters, &mut scratch).unwrap();
    for (kind, file) in files::<u64>(parameters) {
        for length in 0..file.len() {
            let (start, end) = (length < 2 * HEADER_LEN, file.len() - length < 64);
            let need = if length < HEADER_LEN { HEADER_LEN } else { file.len() } as u64;
            let expected = Err(Error::Truncated { have: length as u64, need });
            let (room, cut) = ((&machine, parameters), &file[..length]);
            assert_eq!(read_one(&mut codec, room, kind, None, cut), expected, "{kind:?}");
            if start || end || length % 997 == 0 {
                assert_eq!(read_one(&mut codec, room, kind, None, Trickle(cut)), expected, "{kind:?}");
            }
        }
    }
    assert_eq!(machine.available(), LIMBS);
}

#[test]
fn every_flipped_bit_of_every_kind_is_refused_where_it_is() {
    let parameters = parameters(TOY_32);
    let machine = machine::<u64>(parameters);
    let mut scratch = scratch(parameters);
    let mut codec = Codec::new(&machine, parameters, &mut scratch).unwrap();
    for (kind, mut file) in files::<u64>(parameters) {
        // All bits of files up to 8 KiB; of larger ones header, trailer and a sample.
        let length = file.len();
        let all = length < 9000;
        for bit in (0..8 * length)
            .filter(|bit| all || bit / 8 < 2 * HEADER_LEN || length - bit / 8 < 64 || bit % 101 == 0)
        {
            file[bit / 8] ^= 1 << (bit % 8);
            let error = read_one(&mut codec, (&machine, parameters), kind, None, file.as_slice()).err();
            let right = match bit / 8 {
                0..8 => matches!(error, Some(Error::NotOurs)),
                8..10 => matches!(error, Some(Error::Version { supported: VERSION, .. })),
                10..HEADER_LEN => error == Some(Error::Corrupt { part: Part::Header }),
                _ => error == Some(Error::Corrupt { part: Part::Payload }),
            };
            assert!(right, "{kind:?}, bit {bit}: {error:?}");
            file[bit / 8] ^= 1 << (bit % 8);
        }
        assert_eq!(read_one(&mut codec, (&machine, parameters), kind, None, file.as_slice()), Ok(()));
    }
    assert_eq!(machine.available(), LIMBS);
}

#[test]
fn every_kind_is_refused_as_every_other_kind_under_every_wrong_parameter_and_key() {
    let sets = [TOY_32, ParametersLiteral { levels: 6, ..TOY_32 }, TOY].map(parameters);
    for made in sets {
        let tag = secret_key(&machine::<u64>(made), made).tag();
        for expected in sets {
            let machine = machine::<u64>(expected);
            let mut scratch = scratch(expected);
            let mut codec = Codec::new(&machine, expected, &mut scratch).unwrap();
            for (kind, file) in files::<u64>(made) {
                for wanted in [Kind::Bundle, Kind::PublicKey, Kind::SwitchingKey, Kind::Ciphertext] {
                    let result = read_one(&mut codec, (&machine, expected), wanted, None, file.as_slice());
                    match kind {
                        _ if kind == wanted => assert_eq!(result.is_ok(), made == expected),
                        // Whoever reads ciphertexts takes fresh ones too.
                        Kind::SeededCiphertext if wanted == Kind::Ciphertext => {
                            assert_eq!(result.is_ok(), made == expected)
                        }
                        Kind::SecretKey => assert_eq!(result, Err(Error::SecretNotAllowed)),
                        _ => {
                            assert_eq!(result, Err(Error::Kind { have: kind.code(), expected: Some(wanted) }))
                        }
                    }
                }
                for key in [tag, KEY].into_iter().filter(|_| kind != Kind::Parameters) {
                    let room = (&machine, expected);
                    let result = read_one(&mut codec, room, kind, Some(key), file.as_slice());
                    match (made == expected, key == tag) {
                        (true, true) => assert_eq!(result, Ok(()), "{kind:?}"),
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
    for (kind, file) in files::<u64>(sets[0]).into_iter().filter(|(kind, _)| *kind != Kind::Parameters) {
        let result = read_one(&mut codec, (&machine, secure), kind, None, file.as_slice());
        assert_eq!(result, Err(Error::InsecureMark), "{kind:?}");
    }
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
        (8, vec![3, 0]),                       // version
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
        Error::Version { have: 3, supported: VERSION },
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
