//! Products of packed matrices for twelve heads, as they follow projections and are followed by them.

use super::matrix::{encrypt, places};
use super::scheme::values;
use super::{Figure, Setting};
use crate::client::{Client, RELEASES};
use crate::exit::Failure;
use crate::output::cpu_seconds;
use crate::server::KeyStore;
use veilformer::ckks::client::SecretKey;
use veilformer::ckks::encoding::words_to_read;
use veilformer::ckks::server::Evaluator;
use veilformer::ckks::{Ciphertext, KeyRequests, ParametersLiteral, PrecisionStats};
use veilformer::matrix::{
    EncryptedMatrix, EncryptedRow, EncryptedVector, Entries, Layout, PairEvaluator, Side, SmallRing,
};
use veilformer_multicore::Multicore;

pub(super) const NAMES: [&str; 3] =
    ["packed/scores-12x128x64x128", "packed/values-12x128x128x64", "packed/exponents-12x128x64x128"];

const HEADS: usize = 12;
const TOKENS: usize = 128;
const FEATURES: usize = 64;
/// log2 of the scale of a factor; the one whose columns are taken is T times smaller.
const SCALE_BITS: i32 = 38;

type Keys = KeyStore<'static, Multicore>;
type Matrix = EncryptedMatrix<Vec<Ciphertext<Multicore>>>;
type Column = EncryptedVector<[Ciphertext<Multicore>; 1]>;
type Pair<'p> = PairEvaluator<'p, 'p, Multicore, Keys>;

/// Measures every wanted figure, from level 1 to level 0 of the small ring.
pub(super) fn measure(
    setting: &Setting,
    names: &[&str],
    report: &mut impl FnMut(Figure) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let parameters = ParametersLiteral::N16_MATRIX.check()?.small_ring()?;
    let accelerator = Multicore::new(parameters.chain(), setting.threads, 1 << 17)?;
    let figures = accelerator.run(|| -> Result<Vec<Figure>, Failure> {
        let row = Layout::new(parameters.degree(), 1, TOKENS)?;
        let mut client = Client::new(&accelerator, &parameters)?;
        let (secret, _) = client.generate(RELEASES)?;
        let (mut requests, mut keys) = (KeyRequests::new(), Keys::new());
        Pair::required_keys(&parameters, row.log_rank(), 1, &mut requests)?;
        for request in requests.iter() {
            keys.insert(client.switching_key(&secret, request.id, request.level)?);
        }
        let ring = SmallRing::new(Evaluator::new(&accelerator, &parameters, &keys)?);
        let pair = PairEvaluator::new(&ring, 1, &mut vec![0; parameters.degree()])?;
        let bench = Bench { setting, accelerator: &accelerator, row, secret: &secret, ring: &ring, pair };
        names.iter().map(|name| bench.figure(name)).collect()
    })?;
    figures.into_iter().try_for_each(report)
}

/// What is measured of two matrices.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// Lᵀ·R.
    Scores,
    /// L·R.
    Values,
    /// −½ of the squared distances of columns.
    Exponents,
}

struct Bench<'b> {
    setting: &'b Setting,
    accelerator: &'b Multicore,
    row: Layout,
    secret: &'b SecretKey<'b, Multicore>,
    ring: &'b SmallRing<'b, Multicore, Keys>,
    pair: Pair<'b>,
}

impl Bench<'_> {
    fn encrypt(&self, rows: usize, x: &[f64], scale: f64) -> Result<Matrix, Failure> {
        let layout = self.row.with_rows(rows)?;
        let degree = layout.rank() * TOKENS;
        let mut coefficients = vec![vec![0; degree]; layout.ciphertexts()];
        for (i, value) in x.iter().enumerate() {
            let (c, at) = layout.position(i / TOKENS, i % TOKENS);
            coefficients[c][at] = (value * scale) as i64;
        }
        let encrypted = coefficients.iter_mut().map(|c| encrypt(self.secret, self.accelerator, c, 1));
        let ciphertexts = encrypted.collect::<Result<_, _>>()?;
        Ok(EncryptedMatrix::new(Entries { layout, scale, bound: 1.0, noise: 4.0 }, ciphertexts)?)
    }

    fn split(&self, x: &Matrix) -> Result<Vec<EncryptedRow<Multicore>>, Failure> {
        let mut rows = Vec::new();
        for ciphertext in x.ciphertexts() {
            let mut out = places(self.row.rank());
            self.pair.split(ciphertext, x.entries(), &mut out)?;
            rows.extend(out.into_iter().flatten());
        }
        Ok(rows)
    }

    fn columns(&self, x: &Matrix, side: Side) -> Result<Vec<Column>, Failure> {
        let mut columns = places(TOKENS);
        self.pair.columns(&self.split(x)?, side, &mut columns)?;
        Ok(columns.into_iter().flatten().collect())
    }

    fn zeros(&self, count: usize) -> Result<Vec<Ciphertext<Multicore>>, Failure> {
        (0..count).map(|_| Ok(Ciphertext::zero(self.accelerator, 0)?)).collect()
    }

    /// One head.
    fn product(&self, left: &Matrix, right: &Matrix, kind: Kind) -> Result<Matrix, Failure> {
        let (entries, out) = match kind {
            Kind::Scores => {
                let (columns, mut out) =
                    (self.columns(left, Side::Gather)?, places(TOKENS / self.row.rank()));
                let mut work = self.zeros(self.row.rank())?;
                (self.pair.multiply_transposed(&columns, right, 64.0, &mut work, &mut out)?, out)
            }
            Kind::Values => {
                let (columns, rows) = (self.columns(left, Side::Scatter)?, self.split(right)?);
                let terms: Vec<_> = columns.iter().zip(&rows).collect();
                let mut out = places(1);
                (self.ring.scatter(&terms, 64.0, &mut out)?, out)
            }
            Kind::Exponents => {
                let [keys, queries] = [self.columns(left, Side::Gather)?, self.columns(right, Side::Gather)?];
                let mut rows = self.zeros(TOKENS)?;
                let mut entries = self.pair.exponents(&keys, right, &queries, 64.0, &mut rows)?;
                let mut out = Vec::new();
                for rows in rows.chunks_mut(self.row.rank()) {
                    let packed = self.pair.pick(&entries, rows)?;
                    entries = *packed.entries();
                    out.extend(packed.into_ciphertexts().map(Some));
                }
                (Entries { layout: entries.layout.with_rows(TOKENS)?, ..entries }, out)
            }
        };
        Ok(EncryptedMatrix::new(entries, out.into_iter().flatten().collect())?)
    }

    fn figure(&self, name: &str) -> Result<Figure, Failure> {
        let (kind, inner) = match name {
            "packed/values-12x128x128x64" => (Kind::Values, TOKENS),
            "packed/scores-12x128x64x128" => (Kind::Scores, FEATURES),
            _ => (Kind::Exponents, FEATURES),
        };
        let scale = 2f64.powi(SCALE_BITS);
        // Columns have T times the scale: of both factors of exponents they are taken.
        let low = scale / TOKENS as f64;
        let other = if kind == Kind::Exponents { low } else { scale };
        let mut heads = Vec::new();
        for h in 0..HEADS as u64 {
            let (l, r) = (values(FEATURES * TOKENS, 2 * h), values(inner * TOKENS, 2 * h + 1));
            let left = self.encrypt(FEATURES, &l, low)?;
            heads.push((left, self.encrypt(inner, &r, other)?, l, r));
        }
        let (mut results, mut cpu) = (Vec::new(), Vec::new());
        let figure = self.setting.measure(
            name,
            "n16/matrix",
            1,
            || Ok(()),
            |()| {
                let before = cpu_seconds();
                results.clear();
                for (left, right, ..) in &heads {
                    results.push(self.product(left, right, kind)?);
                }
                cpu.extend(before.zip(cpu_seconds()).map(|(before, after)| after - before));
                Ok(())
            },
        )?;
        let mut pairs = Vec::new();
        for ((.., l, r), result) in heads.iter().zip(&results) {
            let found = self.decrypt(result)?;
            let at = |m: &[f64], i: usize, j: usize| m[i * TOKENS + j];
            let exact = |i: usize, u: usize| -> f64 {
                match kind {
                    Kind::Scores => (0..FEATURES).map(|f| at(l, f, i) * at(r, f, u)).sum(),
                    Kind::Values => (0..TOKENS).map(|t| at(l, i, t) * at(r, t, u)).sum(),
                    Kind::Exponents => {
                        (0..FEATURES).map(|f| (at(l, f, i) - at(r, f, u)).powi(2)).sum::<f64>() / -2.0
                    }
                }
            };
            let exact: Vec<f64> = (0..found.len()).map(|i| exact(i / TOKENS, i % TOKENS)).collect();
            let largest = exact.iter().fold(0.0f64, |m, x| m.max(x.abs()));
            pairs.extend(exact.iter().zip(&found).map(|(x, y)| (x / largest, y / largest)));
        }
        let cpu = cpu.into_iter().skip(1).fold(f64::INFINITY, f64::min);
        Ok(figure.precise(PrecisionStats::of(pairs.into_iter())).cpu(cpu))
    }

    fn decrypt(&self, x: &Matrix) -> Result<Vec<f64>, Failure> {
        let layout = x.entries().layout;
        let degree = layout.rank() * TOKENS;
        let mut words = vec![0; words_to_read(degree, 1)];
        let mut plain = vec![vec![0.0; degree]; layout.ciphertexts()];
        for (x, plain) in x.ciphertexts().iter().zip(&mut plain) {
            self.secret.decrypt_coefficients(x, &mut words, plain)?;
        }
        let value = |i: usize| {
            let (c, at) = layout.position(i / TOKENS, i % TOKENS);
            plain[c][at] / x.entries().scale
        };
        Ok((0..layout.rows() * TOKENS).map(value).collect())
    }
}
