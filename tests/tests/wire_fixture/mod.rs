//! Objects to write and read: small rings, deterministic content.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

use veilformer::accel::{Accelerator, Evaluations, Polynomial, Portable};
use veilformer::ckks::client::KeyTag;
use veilformer::ckks::{Ciphertext, Parameters, ParametersLiteral};
use veilformer::memory::{Arena, LimbPool};
use veilformer::ring::{Basis, RingTables, Word};
use veilformer::wire::{HEADER_LEN, TRAILER_LEN};
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
