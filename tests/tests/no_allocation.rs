//! Core allocates nothing: a client and a server run from parameters to the answer while allocations are counted.

use chacha20::ChaCha20Rng;
use rand_core::SeedableRng;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use veilformer::accel::{Accelerator, Portable};
use veilformer::ckks::client::SecretKey;
use veilformer::ckks::encoding::{Encoder, plaintext};
use veilformer::ckks::server::{BabyGiant, DiagonalSource, Evaluator};
use veilformer::ckks::{Error, KeyId, Parameters, ParametersLiteral, Plaintext, SwitchingKey};
use veilformer::memory::{Arena, LimbPool};
use veilformer::ring::{RingTables, SecretSeed};

thread_local! {
    static WATCHED: Cell<bool> = const { Cell::new(false) };
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, which counts while this thread is watched. (To panic in an allocator is undefined.)
struct Counting;

// SAFETY: everything is handed to the system's allocator unchanged.
#[allow(unsafe_code, reason = "there is no safe global allocator")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if WATCHED.get() {
            ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        }
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What `work` returns, and how often it allocated.
fn watched<R>(work: impl FnOnce() -> R) -> (R, usize) {
    ALLOCATIONS.set(0);
    WATCHED.set(true);
    let result = work();
    WATCHED.set(false);
    (result, ALLOCATIONS.get())
}

const LIMBS: usize = 1024;
type Machine<'p, 'm> = Portable<'p, 'm, u64, LIMBS>;

struct Memory {
    words: Vec<u64>,
    floats: Vec<f64>,
    integers: Vec<i64>,
}

/// One plaintext for every diagonal.
struct Diagonal<'d, 'p, 'm> {
    machine: &'d Machine<'p, 'm>,
    parameters: &'d Parameters,
    coefficients: &'d [i64],
}

impl<'p, 'm> DiagonalSource<Machine<'p, 'm>> for Diagonal<'_, 'p, 'm> {
    fn diagonal(
        &mut self,
        _: usize,
        _: usize,
        level: usize,
    ) -> Result<Option<Plaintext<Machine<'p, 'm>>>, Error> {
        plaintext(self.machine, self.parameters.key_basis(level), self.coefficients).map(Some)
    }
}

/// A client and a server, from parameters to the decrypted answer; the largest error.
fn everything(memory: &mut Memory) -> Result<f64, Error> {
    let parameters = ParametersLiteral::INSECURE_TOY.check()?;
    let (n, top) = (parameters.degree(), parameters.max_level());
    let mut arena = Arena::new(&mut memory.words);
    let tables = RingTables::new(parameters.chain(), &mut arena)?;
    let pool = LimbPool::new(&mut arena, n, LIMBS)?;
    let scratch = arena.take(2 * n)?;
    let machine: Machine<'_, '_> = Portable::new(&tables, &pool)?;
    let mut arena = Arena::new(&mut memory.floats);
    let encoder = Encoder::new(n, &mut arena)?;
    let (buffer, values) = (arena.take(n)?, arena.take(n / 2)?);
    let mut arena = Arena::new(&mut memory.integers);
    let (message, diagonal, signed) = (arena.take(n)?, arena.take(n)?, arena.take(n)?);

    let mut rng = ChaCha20Rng::from_seed([1; 32]);
    let secret = SecretKey::generate(&machine, &parameters, SecretSeed::draw(&mut rng), signed)?;
    let public = secret.public_key(signed, scratch)?;
    let rotation = KeyId::rotation(&parameters, 1);
    let keys: [SwitchingKey<_>; 3] = [
        secret.switching_key(KeyId::Relinearization, top, signed, scratch)?,
        secret.switching_key(rotation, top, signed, scratch)?,
        secret.switching_key(KeyId::conjugation(&parameters), top, signed, scratch)?,
    ];
    encoder.encode_real(&[0.5; 512], parameters.scale(top), buffer, message)?;
    let fresh = public.encrypt_coefficients(&machine, top, message, &mut rng, signed)?;
    let small = secret.encrypt_seeded(top, message, &mut rng, scratch)?;
    let other = small.expand(&machine, scratch)?;

    let server = Evaluator::new(&machine, &parameters, &keys[..])?;
    let mut x = server.multiply_rescale(&fresh, &other)?;
    x = server.conjugate(&server.rotate(&x, 1)?)?;
    server.add_constant_assign(&mut x, 0.25)?;
    encoder.encode_real(&[0.5; 512], parameters.scale(x.level()), buffer, diagonal)?;
    let plan = BabyGiant { baby: &[0, 1], giant: &[0, 1] };
    let mut source = Diagonal { machine: &machine, parameters: &parameters, coefficients: diagonal };
    x = server.transform(&x, plan, &mut source)?;
    x = server.chebyshev(&x, &[0.0, 0.5, 0.0, 0.25])?;
    x = server.drop_to(&x, 1)?;
    machine.sync()?;

    secret.decrypt_coefficients(&x, scratch, buffer)?;
    encoder.decode_real(buffer, x.scale(&parameters), values)?;
    // ¼ + ¼, four times a half of it, then ½·T_1(1) + ¼·T_3(1).
    Ok(values.iter().fold(0.0, |worst, value| worst.max((value - 0.75).abs())))
}

#[test]
fn from_parameters_to_the_decrypted_answer() {
    let n = 1 << ParametersLiteral::INSECURE_TOY.log_degree;
    let mut memory = Memory {
        words: vec![0; 2 * 11 * n + LIMBS * n + 2 * n],
        floats: vec![0.0; 3 * n],
        integers: vec![0; 3 * n],
    };
    let (worst, allocations) = watched(|| everything(&mut memory));
    assert!(worst.is_ok_and(|worst| worst < 1e-6), "{worst:?}");
    assert_eq!(allocations, 0);
}

#[test]
fn errors_allocate_nothing_either() {
    let mut words = vec![0; 1 << 12];
    let (error, allocations) = watched(|| {
        let parameters = ParametersLiteral::INSECURE_TOY.check().ok()?;
        RingTables::<u64>::new(parameters.chain(), &mut Arena::new(&mut words)).err()
    });
    assert!(error.is_some_and(|error| error.need > error.have));
    assert_eq!(allocations, 0);
    let (error, allocations) =
        watched(|| ParametersLiteral { levels: 60, ..ParametersLiteral::N12_EDGE }.check().err());
    assert!(error.is_some());
    assert_eq!(allocations, 0);
}

#[test]
fn allocations_are_seen() {
    let (_, allocations) = watched(|| std::hint::black_box(Box::new([0u8; 64])));
    assert_eq!(allocations, 1);
}
