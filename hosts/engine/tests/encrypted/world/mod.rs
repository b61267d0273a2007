//! A client and a server on toy parameters, which are insecure, and random models.

pub(crate) mod sample;

use rand::SeedableRng;
use rand::rngs::StdRng;
use veilformer::ckks::client::{PublicKey, SecretKey};
use veilformer::ckks::encoding::Encoder;
use veilformer::ckks::{Ciphertext, KeyRequests, Parameters, ParametersLiteral, SwitchingKey};
use veilformer::memory::Arena;
use veilformer::ring::SecretSeed;
use veilformer::transformer::Config;
use veilformer_engine::{Degrees, Encrypted, Ring, required_keys, with_algebra};
use veilformer_multicore::Multicore;

pub(crate) type Keys = [SwitchingKey<Multicore>];
pub(crate) type Toy<'s> = Encrypted<'s, Multicore, Keys>;

/// Both rings, the client's secrets and the server's keys.
pub(crate) struct World {
    pub(crate) parameters: [Parameters; 2],
    pub(crate) accelerators: [Multicore; 2],
}

/// The client.
pub(crate) struct Client<'w> {
    world: &'w World,
    secrets: [SecretKey<'w, Multicore>; 2],
    public: PublicKey<Multicore>,
}

impl World {
    pub(crate) fn new(literal: ParametersLiteral, limbs: [usize; 2]) -> Self {
        let big = literal.check().unwrap();
        let small = big.small_ring().unwrap();
        let of_big = Multicore::new(big.chain(), 2, limbs[0]).unwrap();
        let of_small = of_big.beside(small.chain(), limbs[1]).unwrap();
        let accelerators = [of_big, of_small];
        Self { parameters: [big, small], accelerators }
    }

    pub(crate) fn degrees(&self) -> Degrees {
        Degrees { big: self.parameters[0].degree(), small: self.parameters[1].degree() }
    }

    /// The most limbs of both rings at once.
    pub(crate) fn peak_limbs(&self) -> [usize; 2] {
        self.accelerators.each_ref().map(Multicore::peak_limbs)
    }

    pub(crate) fn client(&self) -> Client<'_> {
        let [big, small] = &self.parameters;
        let [accelerator, small_accelerator] = &self.accelerators;
        let degree = big.degree();
        let (mut signed, mut words) = (vec![0; degree], vec![0; 2 * degree]);
        let seed = SecretSeed::take(&mut [5; 32]);
        let secret = SecretKey::generate(accelerator, big, seed, &mut signed).unwrap();
        let small = secret.small_ring(small_accelerator, small, &mut vec![0; small.degree()]).unwrap();
        let public = secret.public_key(&mut signed, &mut words).unwrap();
        Client { world: self, secrets: [secret, small], public }
    }

    /// The keys that a model of such sizes needs.
    pub(crate) fn keys(&self, config: &Config) -> [KeyRequests; 2] {
        required_keys::<Multicore, Keys>(&self.parameters[0], config, true).unwrap()
    }

    /// Runs `work` with these keys.
    pub(crate) fn serve<R>(
        &self,
        client: &Client<'_>,
        requests: &[KeyRequests; 2],
        work: impl for<'s> FnOnce(Toy<'s>) -> R,
    ) -> R {
        let [big, small] = [0, 1].map(|i| -> Vec<SwitchingKey<Multicore>> {
            let degree = self.parameters[i].degree();
            let (mut signed, mut words) = (vec![0; degree], vec![0; 2 * degree]);
            let secret = &client.secrets[i];
            let make = |r: &veilformer::ckks::KeyRequest| {
                secret.switching_key(r.id, r.level, &mut signed, &mut words).unwrap()
            };
            requests[i].iter().map(make).collect()
        });
        let ring = |i: usize, keys| Ring {
            accelerator: &self.accelerators[i],
            parameters: &self.parameters[i],
            keys,
        };
        let (big, small) = (ring(0, &big[..]), ring(1, &small[..]));
        with_algebra(&big, &small, |algebra| Ok::<R, veilformer_engine::Error>(work(algebra))).unwrap()
    }
}

impl Client<'_> {
    /// Encrypts coefficients of the big ring.
    pub(crate) fn encrypt(&self, level: usize, coefficients: &[i64]) -> Ciphertext<Multicore> {
        let mut signed = vec![0; coefficients.len()];
        let mut rng = StdRng::seed_from_u64(level as u64);
        let accelerator = &self.world.accelerators[0];
        self.public.encrypt_coefficients(accelerator, level, coefficients, &mut rng, &mut signed).unwrap()
    }

    /// Encrypts slots.
    pub(crate) fn encrypt_slots(&self, level: usize, values: &[f64]) -> Ciphertext<Multicore> {
        let parameters = &self.world.parameters[0];
        let degree = parameters.degree();
        let mut twiddles = vec![0.0; Encoder::words_needed(degree)];
        let encoder = Encoder::new(degree, &mut Arena::new(&mut twiddles)).unwrap();
        let (mut work, mut coefficients) = (vec![0.0; degree], vec![0; degree]);
        encoder.encode_real(values, parameters.scale(level), &mut work, &mut coefficients).unwrap();
        self.encrypt(level, &coefficients)
    }

    /// Coefficients of a piece.
    pub(crate) fn decrypt(&self, piece: &Ciphertext<Multicore>) -> Vec<f64> {
        let degree = self.world.parameters[1].degree();
        let (mut out, mut words) = (vec![0.0; degree], vec![0; 2 * degree]);
        self.secrets[1].decrypt_coefficients(piece, &mut words, &mut out).unwrap();
        out
    }

    /// The slots of a vector.
    pub(crate) fn decrypt_slots(&self, x: &Ciphertext<Multicore>) -> Vec<f64> {
        let parameters = &self.world.parameters[0];
        let degree = parameters.degree();
        let mut twiddles = vec![0.0; Encoder::words_needed(degree)];
        let encoder = Encoder::new(degree, &mut Arena::new(&mut twiddles)).unwrap();
        let (mut out, mut words) = (vec![0.0; degree], vec![0; 2 * degree]);
        self.secrets[0].decrypt_coefficients(x, &mut words, &mut out).unwrap();
        let mut slots = vec![0.0; degree / 2];
        encoder.decode_real(&mut out, parameters.scale(x.level()), &mut slots).unwrap();
        slots
    }
}
