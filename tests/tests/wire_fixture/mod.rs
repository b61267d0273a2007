//! Objects to write and read: small rings, deterministic content.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

use veilformer::accel::{Accelerator, Evaluations, Polynomial, Portable, Trusted};
use veilformer::ckks::client::{KeyTag, ReleaseBudget, SecretKey};
use veilformer::ckks::{
    Ciphertext, KeyId, Parameters, ParametersLiteral, SeededCiphertext, SeededSwitchingKey,
};
use veilformer::memory::{Arena, LimbPool};
use veilformer::ring::{Basis, PublicSeed, RingTables, SecretSeed, Word};
use veilformer::wire::*;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

pub const KEY: KeyTag = KeyTag(*b"name of the key.");
pub const LIMBS: usize = 128;

pub type Machine<W> = Portable<'static, 'static, W, LIMBS>;

pub fn parameters(literal: ParametersLiteral) -> &'static Parameters {
    Box::leak(Box::new(literal.check().expect("named set")))
}

/// An accelerator that lives as long as the test.
pub fn machine<W: Word>(parameters: &Parameters) -> Machine<W> {
    let leak = |words: usize| Box::leak(vec![W::default(); words].into_boxed_slice());
    let tables = leak(RingTables::<W>::words_needed(parameters.chain()));
    let tables = RingTables::new(parameters.chain(), &mut Arena::new(tables)).expect("measured");
    let limbs = leak(parameters.degree() * LIMBS);
    let pool = LimbPool::new(&mut Arena::new(limbs), parameters.degree(), LIMBS).expect("measured");
    Portable::new(Box::leak(Box::new(tables)), Box::leak(Box::new(pool))).expect("one degree")
}

/// xorshift64*, enough for test data.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

pub fn polynomial<A: Accelerator>(accelerator: &A, basis: Basis, seed: u64) -> Polynomial<A, Evaluations> {
    let chain = accelerator.chain().clone();
    let mut random = Random::new(seed);
    let mut polynomial = Polynomial::allocate(accelerator, basis).expect("limbs");
    for (limb, modulus) in polynomial.limbs_mut().iter_mut().zip(chain.of(basis)) {
        let words: Vec<A::Word> =
            (0..chain.degree()).map(|_| A::Word::from_u64(random.next() % modulus.value())).collect();
        accelerator.write(limb, &words).expect("shape");
    }
    polynomial
}

pub fn ciphertext<A: Accelerator>(accelerator: &A, level: usize) -> Ciphertext<A> {
    let part = |seed| polynomial(accelerator, Basis::level(level), seed);
    Ciphertext::from_parts([part(1), part(2)]).expect("one basis")
}

/// All words of a polynomial, widened.
pub fn words<A: Accelerator>(accelerator: &A, polynomial: &Polynomial<A, Evaluations>) -> Vec<u64> {
    let mut all = Vec::new();
    let mut words = vec![A::Word::default(); accelerator.chain().degree()];
    for limb in polynomial.limbs() {
        accelerator.read(limb, &mut words).expect("shape");
        all.extend(words.iter().map(|word| word.to_u64()));
    }
    all
}

pub fn scratch<W: Word>(parameters: &Parameters) -> Vec<W> {
    vec![W::default(); parameters.degree()]
}

/// A relinearisation key's or Galois key's file form, with made-up content.
pub fn switching_key<A: Accelerator>(
    accelerator: &A,
    parameters: &Parameters,
    id: KeyId,
    level: usize,
) -> SeededSwitchingKey<A> {
    let digits = (0..parameters.digits(level) as u64)
        .map(|d| polynomial(accelerator, parameters.key_basis(level), 10 + d))
        .collect();
    SeededSwitchingKey::from_parts(parameters, id, level, PublicSeed::from_bytes([4; 32]), digits)
        .expect("fits")
}

/// A secret key that is the same in every run.
pub fn secret_key<'a, A: Trusted>(accelerator: &'a A, parameters: &'a Parameters) -> SecretKey<'a, A> {
    let mut signed = vec![0; parameters.degree()];
    SecretKey::generate(accelerator, parameters, SecretSeed::take(&mut [9; 32]), &mut signed).expect("fits")
}

pub fn budget() -> ReleaseBudget {
    ReleaseBudget::resume(1000, 3, 40).expect("in range")
}

/// One small file of every kind, all under the same parameters and key.
pub fn files<W: Word>(parameters: &Parameters) -> Vec<(Kind, Vec<u8>)> {
    let machine = machine::<W>(parameters);
    let mut scratch = scratch(parameters);
    let mut codec = Codec::new(&machine, parameters, &mut scratch).expect("fits");
    let secret = secret_key(&machine, parameters);
    let tag = secret.tag();
    let fresh = SeededCiphertext::from_parts(
        PublicSeed::from_bytes([5; 32]),
        polynomial(&machine, Basis::level(0), 3),
    );
    let (mut signed, mut words) = (vec![0; parameters.degree()], self::scratch::<W>(parameters));
    let public = secret.public_key(&mut signed, &mut words).expect("limbs");
    let rotation = switching_key(&machine, parameters, KeyId::Galois(5), 0);
    let bundle = Bundle { tag: 1, count: 0, bytes: 0 };
    let kinds = [
        Kind::Parameters,
        Kind::PublicKey,
        Kind::SwitchingKey,
        Kind::Ciphertext,
        Kind::SeededCiphertext,
        Kind::Bundle,
        Kind::Record,
        Kind::SecretKey,
    ];
    kinds
        .into_iter()
        .map(|kind| {
            let mut file = Stream::default();
            match kind {
                Kind::Parameters => write_parameters(&mut file, parameters),
                Kind::PublicKey => codec.write_public_key(&mut file, &public),
                Kind::SwitchingKey => codec.write_switching_key(&mut file, tag, &rotation),
                Kind::Ciphertext => codec.write_ciphertext(&mut file, tag, &ciphertext(&machine, 0)),
                Kind::SeededCiphertext => {
                    codec.write_seeded_ciphertext(&mut file, tag, fresh.as_ref().expect("one basis"))
                }
                Kind::Bundle => write_bundle(&mut file, parameters, tag, &bundle),
                Kind::Record => write_record(&mut file, parameters, tag, 1, &[2, 3]),
                _ => write_secret_key(&mut file, &secret, &budget()),
            }
            .expect("a vector has room");
            (kind, file.0)
        })
        .collect()
}

/// Reads one object of `kind` that must be alone, and gives it up at once.
pub fn read_one<A: Trusted>(
    codec: &mut Codec<'_, A>,
    (accelerator, parameters): (&A, &Parameters),
    kind: Kind,
    key: Option<KeyTag>,
    source: impl Source,
) -> Result<(), Error> {
    let mut reader = Reader::new(source);
    match kind {
        Kind::Parameters => read_parameters(&mut reader, true).map(drop)?,
        Kind::PublicKey => codec.read_public_key(&mut reader, key).map(drop)?,
        Kind::SwitchingKey => codec.read_switching_key(&mut reader, key).map(drop)?,
        Kind::Ciphertext => codec.read_ciphertext(&mut reader, key).map(drop)?,
        Kind::SeededCiphertext => codec.read_seeded_ciphertext(&mut reader, key).map(drop)?,
        Kind::Bundle => read_bundle(&mut reader, &Expected { parameters, key }).map(drop)?,
        Kind::Record => read_record(&mut reader, &Expected { parameters, key }, &mut [0; 2]).map(drop)?,
        _ => {
            let mut signed = vec![0; parameters.degree()];
            read_secret_key(&mut reader, accelerator, parameters, key, &mut signed).map(drop)?;
        }
    }
    reader.finish()
}

/// A vector that grows is a sink of unknown room; a reader of it, a source of unknown length.
#[derive(Default)]
pub struct Stream(pub Vec<u8>);

impl veilformer::wire::Sink for Stream {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, veilformer::wire::Fault> {
        // A socket may take less than it is given.
        let count = bytes.len().min(1000);
        self.0.extend_from_slice(&bytes[..count]);
        Ok(count)
    }
}

/// Hands out bytes a few at a time and does not tell how many are left.
pub struct Trickle<'a>(pub &'a [u8]);

impl veilformer::wire::Source for Trickle<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize, veilformer::wire::Fault> {
        let count = bytes.len().min(self.0.len()).min(997);
        bytes[..count].copy_from_slice(&self.0[..count]);
        self.0 = &self.0[count..];
        Ok(count)
    }
}

/// Makes both checksums of a file of one object right, as far as its length allows.
pub fn seal(file: &mut [u8]) {
    if file.len() < HEADER_LEN {
        return;
    }
    let checksum = xxh3_64(&file[..HEADER_LEN - 8]);
    file[HEADER_LEN - 8..HEADER_LEN].copy_from_slice(&checksum.to_le_bytes());
    if let Some(end) = file.len().checked_sub(TRAILER_LEN as usize)
        && end >= HEADER_LEN
    {
        let trailer = xxh3_64_with_seed(&file[HEADER_LEN..end], checksum);
        file[end..].copy_from_slice(&trailer.to_le_bytes());
    }
}

pub const TOY: ParametersLiteral = ParametersLiteral::INSECURE_TOY;
pub const TOY_32: ParametersLiteral = ParametersLiteral::INSECURE_TOY_32;

pub fn ciphertext_file<W: Word>(literal: ParametersLiteral, level: usize) -> Vec<u8> {
    let parameters = parameters(literal);
    let machine = machine::<W>(parameters);
    let (mut scratch, mut file) = (scratch(parameters), Stream::default());
    let mut codec = Codec::new(&machine, parameters, &mut scratch).unwrap();
    codec.write_ciphertext(&mut file, KEY, &ciphertext(&machine, level)).unwrap();
    assert_eq!(file.0.len() as u64, ciphertext_len(parameters, level));
    file.0
}

pub fn parameters_file(literal: ParametersLiteral) -> Vec<u8> {
    let mut file = Stream::default();
    write_parameters(&mut file, parameters(literal)).unwrap();
    assert_eq!(file.0.len() as u64, PARAMETERS_LEN);
    file.0
}

/// Reads one ciphertext that must be alone, and gives it up at once.
pub fn try_ciphertext<A: Accelerator>(
    codec: &mut Codec<'_, A>,
    key: Option<KeyTag>,
    source: impl Source,
) -> Result<usize, Error> {
    let mut reader = Reader::new(source);
    let level = codec.read_ciphertext(&mut reader, key)?.level();
    reader.finish()?;
    Ok(level)
}

pub fn read_ciphertext(
    expected: &'static Parameters,
    key: Option<KeyTag>,
    bytes: &[u8],
) -> Result<usize, Error> {
    let machine = machine::<u64>(expected);
    let mut scratch = scratch(expected);
    try_ciphertext(&mut Codec::new(&machine, expected, &mut scratch).unwrap(), key, bytes)
}

/// The header with some bytes replaced and its checksum made right again; the
/// payload's too.
pub fn forged(file: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut file = file.to_vec();
    file[at..at + bytes.len()].copy_from_slice(bytes);
    seal(&mut file);
    file
}
