//! Formats: exact sizes, distinct errors in one order, every cut and every
//! flipped bit refused, the same bytes for both words, version 1 for good.

mod wire_fixture;

use chacha20::ChaCha20Rng;
use rand_core::SeedableRng;
use veilformer::accel::Accelerator;
use veilformer::ckks::encoding::words_to_read;
use veilformer::ckks::server::Evaluator;
use veilformer::ckks::{self, KeyId, KeyRequest, ParametersLiteral};
use veilformer::wire::*;
use wire_fixture::*;
use xxhash_rust::xxh3::xxh3_64;

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
fn sizes_are_exact_for_every_kind() {
    for literal in [TOY, TOY_32] {
        let parameters = parameters(literal);
        for (kind, file) in files::<u64>(parameters) {
            let need = match kind {
                Kind::Parameters => PARAMETERS_LEN,
                Kind::PublicKey => public_key_len(parameters),
                Kind::SwitchingKey => {
                    switching_key_len(parameters, KeyRequest { id: KeyId::Relinearization, level: 0 })
                }
                Kind::Ciphertext => ciphertext_len(parameters, 0),
                Kind::SeededCiphertext => seeded_ciphertext_len(parameters, 0),
                Kind::Bundle => BUNDLE_LEN,
                Kind::Record => record_len(2),
                _ => SECRET_KEY_LEN,
            };
            assert_eq!(file.len() as u64, need, "{kind:?}");
        }
    }
}

#[test]
fn version_2_stays_what_it_is() {
    // XXH3-64 of whole files, by this crate at version 2. A change here breaks every file
    // ever written: add a version instead.
    let golden: [(Kind, u64); 8] = [
        (Kind::Parameters, 0xc183_5c3b_d381_6e3a),
        (Kind::PublicKey, 0x5982_33e2_1da7_3768),
        (Kind::SwitchingKey, 0x1732_6553_2a29_3225),
        (Kind::Ciphertext, 0x8b29_8e38_6c21_190d),
        (Kind::SeededCiphertext, 0xef1e_5fdf_2a8b_2f16),
        (Kind::Bundle, 0x9e30_a868_4c7a_94b8),
        (Kind::Record, 0xa8de_47d2_2398_9f9e),
        (Kind::SecretKey, 0xd2b8_1dcc_d1f5_47c3),
    ];
    let parameters = parameters(TOY_32);
    let found: Vec<(Kind, u64)> =
        files::<u32>(parameters).iter().map(|(kind, file)| (*kind, xxh3_64(file))).collect();
    assert_eq!(found, golden);
    assert_eq!(files::<u32>(parameters), files::<u64>(parameters));
}

#[test]
fn a_device_and_a_server_of_other_words_understand_each_other() {
    // The device has 32-bit words, makes the key and the public key, and encrypts.
    let parameters = parameters(TOY_32);
    let device = machine::<u32>(parameters);
    let (mut w32, mut words) = (scratch::<u32>(parameters), scratch::<u32>(parameters));
    let mut codec = Codec::new(&device, parameters, &mut w32).unwrap();
    let secret = secret_key(&device, parameters);
    let mut signed = vec![0i64; parameters.degree()];
    let message: Vec<i64> = (0..parameters.degree() as i64).map(|i| (i - 512) << 12).collect();
    let mut rng = ChaCha20Rng::from_seed([3; 32]);
    let fresh = secret.encrypt_seeded(3, &mut message.clone(), &mut rng, &mut words).unwrap();
    let mut upload = Stream::default();
    codec.write_seeded_ciphertext(&mut upload, secret.tag(), &fresh).unwrap();
    let request = KeyRequest { id: KeyId::rotation(parameters, 1), level: 3 };
    codec.make_switching_key(&mut upload, &secret, request, &mut signed, &mut words).unwrap();
    let whole = secret.seeded_switching_key(request.id, 3, &mut signed, &mut words).unwrap();
    let mut file = Stream::default();
    codec.write_switching_key(&mut file, secret.tag(), &whole).unwrap();
    assert!(upload.0.ends_with(&file.0));

    // The server has 64-bit words; it reads, rotates, and answers.
    let server = machine::<u64>(parameters);
    let mut w64 = scratch::<u64>(parameters);
    let mut reader = Reader::new(Trickle(&upload.0));
    let mut large = Codec::new(&server, parameters, &mut w64).unwrap();
    let query = large.read_ciphertext(&mut reader, Some(secret.tag())).unwrap();
    assert_eq!(reader.header().unwrap().key_id(), Some(request.id));
    let key = large.read_switching_key(&mut reader, Some(secret.tag())).unwrap();
    reader.finish().unwrap();
    let mut expansion = scratch::<u64>(parameters);
    let keys = [key.expand(&server, parameters, &mut expansion).unwrap()];
    let evaluator = Evaluator::new(&server, parameters, keys.as_slice()).unwrap();
    let answer = evaluator.rotate(&query, 1).unwrap();
    let mut download = Stream::default();
    large.write_ciphertext(&mut download, secret.tag(), &answer).unwrap();

    // The device decrypts: X → X^5 of the message, up to noise.
    let answer = codec.read_ciphertext(&mut Reader::new(download.0.as_slice()), Some(secret.tag())).unwrap();
    let mut low = vec![0; words_to_read(parameters.degree(), 3)];
    let mut found = vec![0; parameters.degree()];
    secret.decrypt_integers(&answer, &mut low, &mut found).unwrap();
    let degree = parameters.degree();
    for (i, x) in message.iter().enumerate() {
        let k = 5 * i % (2 * degree);
        let expected = if k < degree { *x } else { -x };
        assert!((found[k % degree] - expected).abs() < 1 << 11, "{i}: {} {expected}", found[k % degree]);
    }
}

#[test]
fn a_secret_key_comes_back_only_to_the_client() {
    let parameters = parameters(TOY);
    let machine = machine::<u64>(parameters);
    let secret = secret_key(&machine, parameters);
    let mut signed = vec![0i64; parameters.degree()];
    let mut file = Stream::default();
    write_secret_key(&mut file, &secret, &budget()).unwrap();
    let mut read = |bytes: &[u8], key| {
        let mut reader = Reader::new(bytes);
        let (secret, budget) = read_secret_key(&mut reader, &machine, parameters, key, &mut signed)?;
        reader.finish()?;
        Ok((secret.tag(), budget))
    };
    assert_eq!(read(&file.0, Some(secret.tag())), Ok((secret.tag(), budget())));
    assert!(matches!(read(&file.0, Some(KEY)), Err(Error::OtherKey { .. })));
    // A budget that was spent twice, one of no strength, and the seed of another key.
    let field = Error::Field { field: Field::Releases, have: 1001, max: 1000 };
    assert_eq!(read(&forged(&file.0, HEADER_LEN + 36, &1001u32.to_le_bytes()), None), Err(field));
    assert!(matches!(read(&forged(&file.0, HEADER_LEN + 40, &[0]), None), Err(Error::Scheme(_))));
    assert!(matches!(read(&forged(&file.0, HEADER_LEN, &[0]), None), Err(Error::OtherKey { .. })));

    assert_eq!(Reader::new(file.0.as_slice()).header().err(), Some(Error::SecretNotAllowed));
    assert_eq!(Reader::new(file.0.as_slice()).skip().err(), Some(Error::SecretNotAllowed));
    // Also after the client's reader has looked at it and turned away.
    let mut reader = Reader::new(file.0.as_slice());
    let mut signed = vec![0i64; parameters.degree()];
    read_secret_key(&mut reader, &machine, parameters, Some(KEY), &mut signed).err().unwrap();
    assert_eq!(reader.header().err(), Some(Error::SecretNotAllowed));
    let mut scratch = scratch(parameters);
    let mut codec = Codec::new(&machine, parameters, &mut scratch).unwrap();
    assert_eq!(codec.read_ciphertext(&mut reader, None).err(), Some(Error::SecretNotAllowed));
}

#[test]
fn switching_keys_of_no_automorphism_are_neither_written_nor_read() {
    let toy = parameters(TOY_32);
    let machine = machine::<u32>(toy);
    let mut scratch = scratch(toy);
    let mut codec = Codec::new(&machine, toy, &mut scratch).unwrap();
    let max = 2 * toy.degree() as u64 - 1;
    let mut file = Stream::default();
    codec.write_switching_key(&mut file, KEY, &switching_key(&machine, toy, KeyId::Galois(5), 0)).unwrap();
    for galois in [1u32, 6, 2 * toy.degree() as u32 + 1, u32::MAX] {
        let error = Error::Field { field: Field::Galois, have: galois as u64, max };
        let key = switching_key(&machine, toy, KeyId::Galois(galois), 0);
        assert_eq!(codec.write_switching_key(&mut Stream::default(), KEY, &key), Err(error));
        let file = forged(&file.0, 52, &galois.to_le_bytes());
        assert_eq!(codec.read_switching_key(&mut Reader::new(file.as_slice()), None).err(), Some(error));
    }
    let relinearization = forged(&file.0, 52, &[0]);
    let key = codec.read_switching_key(&mut Reader::new(relinearization.as_slice()), None).unwrap();
    assert_eq!(key.id(), KeyId::Relinearization);
    let edge = parameters(ParametersLiteral::N12_EDGE);
    let machine = wire_fixture::machine::<u32>(edge);
    let mut scratch = wire_fixture::scratch(edge);
    let mut codec = Codec::new(&machine, edge, &mut scratch).unwrap();
    let header = Header::new(Kind::SwitchingKey, edge, KEY, 0);
    let error = codec.read_switching_key(&mut Reader::new(header.encode().as_slice()), None).err();
    assert!(matches!(error, Some(Error::Scheme(ckks::Error::Parameter { given: 0, .. }))));
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
