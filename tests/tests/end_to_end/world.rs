//! A client that holds the secret, and a server on the same accelerator that does not.

use chacha20::ChaCha20Rng;
use rand_core::SeedableRng;
use veilformer::accel::Accelerator;
use veilformer::ckks::client::{PublicKey, SecretKey};
use veilformer::ckks::encoding::{Complex, Encoder, plaintext};
use veilformer::ckks::server::Evaluator;
use veilformer::ckks::{
    Ciphertext, KeyRequests, Parameters, ParametersLiteral, Plaintext, PrecisionStats, SwitchingKey,
};
use veilformer::memory::Arena;
use veilformer::ring::{Basis, SecretSeed};
use veilformer_multicore::Multicore;
use veilformer_multicore::kernels::Kernels;

pub(crate) type Server<'a> = Evaluator<'a, Multicore, [SwitchingKey<Multicore>]>;

/// What one test needs.
pub(crate) struct World<'a> {
    pub(crate) accelerator: &'a Multicore,
    pub(crate) parameters: &'a Parameters,
    pub(crate) keys: &'a [SwitchingKey<Multicore>],
    secret: SecretKey<'a, Multicore>,
    public: PublicKey<Multicore>,
    encoder: Encoder<'a>,
}

/// How a world is set up.
pub(crate) struct Setup {
    pub(crate) literal: ParametersLiteral,
    pub(crate) kernels: Kernels,
    pub(crate) threads: usize,
    pub(crate) limbs: usize,
}

impl Setup {
    /// On two threads with the best kernels.
    pub(crate) fn of(literal: ParametersLiteral) -> Self {
        Self { literal, kernels: Kernels::from_environment().unwrap(), threads: 2, limbs: 4096 }
    }
}

/// Makes the keys that `requests` asks for and runs `test`.
pub(crate) fn with_world<R>(
    setup: Setup,
    requests: impl FnOnce(&Parameters, &mut KeyRequests),
    test: impl FnOnce(&World<'_>) -> R,
) -> R {
    let parameters = setup.literal.check().unwrap();
    let degree = parameters.degree();
    let accelerator =
        Multicore::with_kernels(parameters.chain(), setup.kernels, setup.threads, setup.limbs).unwrap();
    let mut twiddles = vec![0.0; Encoder::words_needed(degree)];
    let encoder = Encoder::new(degree, &mut Arena::new(&mut twiddles)).unwrap();
    let (mut signed, mut words) = (vec![0; degree], vec![0; 2 * degree]);
    let seed = SecretSeed::take(&mut [3; 32]);
    let secret = SecretKey::generate(&accelerator, &parameters, seed, &mut signed).unwrap();
    let public = secret.public_key(&mut signed, &mut words).unwrap();
    let mut list = KeyRequests::new();
    requests(&parameters, &mut list);
    let keys: Vec<_> =
        list.iter().map(|r| secret.switching_key(r.id, r.level, &mut signed, &mut words).unwrap()).collect();
    let world =
        World { accelerator: &accelerator, parameters: &parameters, keys: &keys, secret, public, encoder };
    test(&world)
}

/// Slots in [−1, 1], both parts, from a seed.
pub(crate) fn slots(count: usize, seed: u64) -> Vec<Complex> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut draw = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    };
    (0..count).map(|_| Complex::new(draw(), draw())).collect()
}

pub(crate) fn plus(x: Complex, y: Complex) -> Complex {
    Complex::new(x.re + y.re, x.im + y.im)
}

pub(crate) fn times(x: Complex, y: Complex) -> Complex {
    Complex::new(x.re * y.re - x.im * y.im, x.re * y.im + x.im * y.re)
}

impl World<'_> {
    pub(crate) fn encoder(&self) -> &Encoder<'_> {
        &self.encoder
    }

    pub(crate) fn server(&self) -> Server<'_> {
        Evaluator::new(self.accelerator, self.parameters, self.keys).unwrap()
    }

    pub(crate) fn encode(&self, values: &[Complex], basis: Basis, scale: f64) -> Plaintext<Multicore> {
        let degree = self.parameters.degree();
        let (mut scratch, mut coefficients) = (vec![0.0; degree], vec![0; degree]);
        self.encoder.encode(values, scale, &mut scratch, &mut coefficients).unwrap();
        plaintext(self.accelerator, basis, &coefficients).unwrap()
    }

    /// Under the public key.
    pub(crate) fn encrypt(&self, values: &[Complex], level: usize) -> Ciphertext<Multicore> {
        let message = self.encode(values, Basis::level(level), self.parameters.scale(level));
        let mut signed = vec![0; self.parameters.degree()];
        let mut rng = ChaCha20Rng::from_seed([level as u8; 32]);
        self.public.encrypt(self.accelerator, &message, &mut rng, &mut signed).unwrap()
    }

    pub(crate) fn decrypt(&self, x: &Ciphertext<Multicore>) -> Vec<Complex> {
        let degree = self.parameters.degree();
        let (mut words, mut coefficients) = (vec![0; 2 * degree], vec![0.0; degree]);
        self.secret.decrypt_coefficients(x, &mut words, &mut coefficients).unwrap();
        let mut values = vec![Complex::default(); degree / 2];
        self.encoder.decode(&mut coefficients, x.scale(self.parameters), &mut values).unwrap();
        values
    }

    /// Every word of a ciphertext.
    pub(crate) fn words(&self, x: &Ciphertext<Multicore>) -> Vec<u64> {
        let degree = self.parameters.degree();
        let limbs = x.parts().iter().flat_map(|part| part.limbs());
        limbs
            .flat_map(|limb| {
                let mut words = vec![0; degree];
                self.accelerator.read(limb, &mut words).unwrap();
                words
            })
            .collect()
    }

    /// Mean bits at least log2 scale − log2 N − 2, and the worst slot at most `slack` bits below that.
    #[track_caller]
    pub(crate) fn check(
        &self,
        what: &str,
        x: &Ciphertext<Multicore>,
        slack: f64,
        expected: impl Fn(usize) -> Complex,
    ) {
        let found = self.decrypt(x);
        let pairs = found.iter().enumerate().map(|(j, y)| (expected(j), *y));
        let stats = PrecisionStats::of(pairs.flat_map(|(x, y)| [(x.re, y.re), (x.im, y.im)]));
        let bound = x.scale(self.parameters).log2() - f64::from(self.parameters.chain().log_degree()) - 2.0;
        println!("{what} at level {}: {stats}; bound {bound:.1}", x.level());
        assert!(stats.mean_bits >= bound && stats.min_bits >= bound - slack, "{what}: {stats} under {bound}");
    }
}
