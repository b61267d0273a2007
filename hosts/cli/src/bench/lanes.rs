//! Products of two encrypted matrices, for twelve heads at once.

use super::scheme::values;
use super::{Figure, Setting};
use crate::client::{Client, RELEASES, system_rng};
use crate::exit::Failure;
use crate::output::cpu_seconds;
use crate::server::KeyStore;
use veilformer::ckks::client::SecretKey;
use veilformer::ckks::server::Evaluator;
use veilformer::ckks::{Ciphertext, KeyId, KeyRequests, Parameters, ParametersLiteral, PrecisionStats};
use veilformer::matrix::lanes::{LaneEvaluator, Lanes};
use veilformer_multicore::Multicore;

/// Q·Kᵀ: both come as rows of features, which is what the product takes.
const SCORES: &str = "ccmm/scores-12x128x64x128";
/// P·V: V comes as rows of features and is transposed first.
const VALUES: &str = "ccmm/values-12x128x128x64";
/// The names, in the order they are measured.
pub(super) const NAMES: [&str; 2] = [SCORES, VALUES];

const SET: &str = "n13/3";
const LEVEL: usize = 1;
const HEADS: usize = 12;
const TOKENS: usize = 128;
const FEATURES: usize = 64;

type Rows = Vec<Ciphertext<Multicore>>;

/// `rows` rows of `TOKENS` entries for every head.
struct Matrices {
    rows: usize,
    values: Vec<f64>,
}

impl Matrices {
    fn new(rows: usize, seed: u64) -> Self {
        Self { rows, values: values(HEADS * rows * TOKENS, seed) }
    }

    fn at(&self, head: usize, row: usize, column: usize) -> f64 {
        self.values[(head * self.rows + row) * TOKENS + column]
    }
}

struct Bench<'b> {
    setting: &'b Setting,
    accelerator: &'b Multicore,
    parameters: &'b Parameters,
    lanes: Lanes,
    secret: SecretKey<'b, Multicore>,
    evaluator: LaneEvaluator<'b, Multicore, KeyStore<'b, Multicore>>,
}

/// Measures every wanted figure: the keys are made once.
pub(super) fn measure(
    setting: &Setting,
    names: &[&str],
    report: &mut impl FnMut(Figure) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let parameters = ParametersLiteral::N13_3.check()?;
    let accelerator = Multicore::new(parameters.chain(), setting.threads, 1 << 13)?;
    let mut figures = Vec::new();
    accelerator.run(|| -> Result<(), Failure> {
        let mut client = Client::new(&accelerator, &parameters)?;
        let (secret, _) = client.generate(RELEASES)?;
        let lanes = Lanes::new(parameters.degree(), TOKENS)?;
        let (mut requests, mut keys) = (KeyRequests::new(), KeyStore::new());
        lanes.required_keys(LEVEL, &mut requests)?;
        requests.add(KeyId::Relinearization, LEVEL)?;
        for request in requests.iter() {
            keys.insert(client.switching_key(&secret, request.id, request.level)?);
        }
        let evaluator = Evaluator::new(&accelerator, &parameters, &keys)?;
        let evaluator = LaneEvaluator::new(evaluator, lanes, LEVEL, &mut vec![0; parameters.degree()])?;
        let (accelerator, parameters) = (&accelerator, &parameters);
        let bench = Bench { setting, accelerator, parameters, lanes, secret, evaluator };
        for name in names {
            figures.push(bench.measure(name)?);
        }
        tracing::info!(peak_limbs = accelerator.peak_limbs(), "ccmm");
        Ok(())
    })?;
    figures.into_iter().try_for_each(report)
}

impl Bench<'_> {
    fn measure(&self, name: &str) -> Result<Figure, Failure> {
        if name == SCORES {
            let (queries, keys) = (Matrices::new(FEATURES, 1), Matrices::new(FEATURES, 2));
            let (left, right) = (self.encrypt(&queries)?, self.encrypt(&keys)?);
            let expected = |h: usize, t: usize, u: usize| {
                (0..FEATURES).map(|f| queries.at(h, f, t) * keys.at(h, f, u)).sum()
            };
            return self.product(name, &left, || Ok(()), |()| Ok(None), &right, expected);
        }
        // P is given by its columns.
        let (scores, features) = (Matrices::new(TOKENS, 3), Matrices::new(FEATURES, 4));
        let (left, given) = (self.encrypt(&scores)?, self.encrypt(&features)?);
        let expected = |h: usize, t: usize, u: usize| {
            let entry = |s| if u < FEATURES { scores.at(h, s, t) * features.at(h, u, s) } else { 0.0 };
            (0..TOKENS).map(entry).sum()
        };
        let prepare = || {
            let mut rows =
                given.iter().map(|x| x.duplicate(self.accelerator)).collect::<Result<Rows, _>>()?;
            rows.extend(self.zeros(TOKENS - FEATURES)?);
            Ok(rows)
        };
        let transpose = |mut rows: Rows| {
            self.evaluator.transpose(&mut rows, FEATURES)?;
            Ok(Some(rows))
        };
        self.product(name, &left, prepare, transpose, &[], expected)
    }

    /// Times `transpose`, which may make the right factor from what `prepare`
    /// gives, together with the product.
    fn product<T>(
        &self,
        name: &str,
        left: &[Ciphertext<Multicore>],
        prepare: impl FnMut() -> Result<T, Failure>,
        transpose: impl Fn(T) -> Result<Option<Rows>, Failure>,
        right: &[Ciphertext<Multicore>],
        expected: impl Fn(usize, usize, usize) -> f64,
    ) -> Result<Figure, Failure> {
        let (mut work, mut cpu) = (self.zeros(self.lanes.work_rows(left.len()))?, Vec::new());
        let mut out = self.zeros(TOKENS)?;
        let figure = self.setting.measure(name, SET, 1, prepare, |input| {
            let before = cpu_seconds();
            let made = transpose(input)?;
            self.evaluator.product(left, made.as_deref().unwrap_or(right), &mut work, &mut out)?;
            cpu.extend(before.zip(cpu_seconds()).map(|(before, after)| after - before));
            Ok(())
        })?;
        // The first was the warm-up.
        let cpu = cpu.into_iter().skip(1).fold(f64::INFINITY, f64::min);
        Ok(figure.precise(self.precision(&out, expected)?).levels(1).cpu(cpu))
    }

    fn zeros(&self, count: usize) -> Result<Rows, Failure> {
        Ok((0..count).map(|_| Ciphertext::zero(self.accelerator, LEVEL)).collect::<Result<_, _>>()?)
    }

    fn encrypt(&self, matrices: &Matrices) -> Result<Rows, Failure> {
        let degree = self.parameters.degree();
        let (mut work, mut coefficients, mut words) = (vec![0.0; degree], vec![0; degree], vec![0; degree]);
        let mut rng = system_rng()?;
        let row = |f: usize| -> Result<Ciphertext<Multicore>, Failure> {
            let values: Vec<f64> =
                (0..HEADS * TOKENS).map(|i| matrices.at(i / TOKENS, f, i % TOKENS)).collect();
            let scale = self.parameters.scale(LEVEL);
            self.lanes.encode(&values, scale, &mut work, &mut coefficients)?;
            let seeded = self.secret.encrypt_seeded(LEVEL, &mut coefficients, &mut rng, &mut words)?;
            Ok(seeded.expand(self.accelerator, &mut words)?)
        };
        (0..matrices.rows).map(row).collect()
    }

    /// Against the same products in double precision.
    fn precision(
        &self,
        rows: &[Ciphertext<Multicore>],
        expected: impl Fn(usize, usize, usize) -> f64,
    ) -> Result<PrecisionStats, Failure> {
        let degree = self.parameters.degree();
        let (mut words, mut coefficients) = (vec![0; 2 * degree], vec![0.0; degree]);
        let mut pairs = Vec::new();
        for (t, row) in rows.iter().enumerate() {
            self.secret.decrypt_coefficients(row, &mut words, &mut coefficients)?;
            let mut found = vec![0.0; HEADS * TOKENS];
            self.lanes.decode(&coefficients, row.scale(self.parameters), &mut found)?;
            let one = found.iter().enumerate().map(|(i, x)| (expected(i / TOKENS, t, i % TOKENS), *x));
            pairs.extend(one);
        }
        Ok(PrecisionStats::of(pairs.into_iter()))
    }
}
