//! Products of matrices in the small ring, from coefficients of the big ring to coefficients of the big ring.

use super::scheme::values;
use super::{Figure, Setting};
use crate::client::{Client, RELEASES, system_rng};
use crate::exit::Failure;
use crate::output::cpu_seconds;
use crate::server::KeyStore;
use veilformer::accel::Accelerator;
use veilformer::ckks::client::SecretKey;
use veilformer::ckks::encoding::words_to_read;
use veilformer::ckks::server::Evaluator;
use veilformer::ckks::{Ciphertext, KeyRequests, Parameters, ParametersLiteral, PrecisionStats};
use veilformer::matrix::{
    EncryptedMatrix, EncryptedVector, Entries, Layout, PlainMatrix, RingSwitch, Side, SmallRing,
};
use veilformer_multicore::Multicore;

/// The figures, and how many sequences of 128 tokens each works on.
const FIGURES: &[(&str, usize)] =
    &[("pcmm/128x768x768", 1), ("pcmm/layer", 1), ("pcmm/layer-batch16", 16), ("lora/128x768-r2", 1)];
/// Rows and contracted rows of the plaintext products of one encoder layer: Q, K and V at once, what follows the
/// attention, and the two of the feed-forward half.
const LAYER: &[(usize, usize)] = &[(2304, 768), (768, 768), (3072, 768), (768, 1536)];
const TOKENS: usize = 128;
const RANK: usize = 2;
/// log2 of the scale of a message where it is raised, and of everything before.
const SCALE_BITS: i32 = 38;
/// Ciphertexts of a result that are worked on at a time.
const CHUNK: usize = 12;

pub(super) fn is_name(name: &str) -> bool {
    FIGURES.iter().any(|(figure, _)| *figure == name)
}

type Keys = KeyStore<'static, Multicore>;
type Matrix = EncryptedMatrix<Vec<Ciphertext<Multicore>>>;

/// Measures every wanted figure.
pub(super) fn measure(
    setting: &Setting,
    names: &[&str],
    report: &mut impl FnMut(Figure) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let big = ParametersLiteral::N16_MATRIX.check()?;
    let small = big.small_ring()?;
    let big_accelerator = Multicore::new(big.chain(), setting.threads, 1 << 13)?;
    let small_accelerator = big_accelerator.beside(small.chain(), 1 << 17)?;
    for (name, batch) in FIGURES.iter().filter(|(name, _)| names.contains(name)) {
        let bench = small_accelerator.run(|| {
            Bench::new(setting, [&big, &small], [&big_accelerator, &small_accelerator], TOKENS * batch)
        })?;
        let products = if name.contains("layer") { LAYER } else { &LAYER[1..2] };
        report(small_accelerator.run(|| {
            if name.starts_with("lora") { bench.lora(name) } else { bench.plain(name, products, *batch) }
        })?)?;
    }
    Ok(())
}

struct Bench<'b> {
    setting: &'b Setting,
    parameters: [&'b Parameters; 2],
    accelerators: [&'b Multicore; 2],
    /// Of the small ring; the layout of one row.
    row: Layout,
    secret: SecretKey<'b, Multicore>,
    small_secret: SecretKey<'b, Multicore>,
    keys: [Keys; 2],
}

impl<'b> Bench<'b> {
    fn new(
        setting: &'b Setting,
        parameters: [&'b Parameters; 2],
        accelerators: [&'b Multicore; 2],
        columns: usize,
    ) -> Result<Self, Failure> {
        let [big, small] = parameters;
        let row = Layout::new(small.degree(), 1, columns)?;
        let mut client = Client::new(accelerators[0], big)?;
        let (secret, _) = client.generate(RELEASES)?;
        let mut requests = [KeyRequests::new(), KeyRequests::new()];
        RingSwitch::<Multicore, Keys>::required_keys(big, 0, &mut requests[0])?;
        SmallRing::<Multicore, Keys>::packing_keys(row.log_rank(), 0, &mut requests[1])?;
        SmallRing::<Multicore, Keys>::thin_keys(small, row.log_rank(), 2, &mut requests[1])?;
        let small_secret = secret.small_ring(accelerators[1], small, &mut vec![0; small.degree()])?;
        let mut keys = [Keys::new(), Keys::new()];
        for request in requests[0].iter() {
            keys[0].insert(client.switching_key(&secret, request.id, request.level)?);
        }
        let mut client = Client::new(accelerators[1], small)?;
        for request in requests[1].iter() {
            keys[1].insert(client.switching_key(&small_secret, request.id, request.level)?);
        }
        Ok(Self { setting, parameters, accelerators, row, secret, small_secret, keys })
    }

    fn scale() -> f64 {
        2f64.powi(SCALE_BITS)
    }

    fn entries(&self, rows: usize) -> Result<Entries, Failure> {
        // Noise of a fresh encryption and of the switch into the small ring.
        Ok(Entries { layout: self.row.with_rows(rows)?, scale: Self::scale(), bound: 1.0, noise: 2000.0 })
    }

    /// Encrypts a matrix as coefficients of the big ring.
    fn encrypt(
        &self,
        layout: &Layout,
        x: &[f64],
        level: usize,
    ) -> Result<Vec<Ciphertext<Multicore>>, Failure> {
        let (degree, factor) = (self.parameters[0].degree(), self.factor());
        let mut coefficients = vec![vec![0; degree]; layout.ciphertexts().div_ceil(factor)];
        for (i, value) in x.iter().enumerate() {
            let (c, at) = layout.position(i / layout.columns(), i % layout.columns());
            coefficients[c / factor][c % factor + factor * at] = (value * Self::scale()) as i64;
        }
        coefficients.iter_mut().map(|c| encrypt(&self.secret, self.accelerators[0], c, level)).collect()
    }

    fn decrypt(&self, entries: &Entries, x: &[Ciphertext<Multicore>]) -> Result<Vec<f64>, Failure> {
        let (degree, factor) = (self.parameters[0].degree(), self.factor());
        let mut words = vec![0; words_to_read(degree, 1)];
        let mut plain = vec![vec![0.0; degree]; x.len()];
        for (x, plain) in x.iter().zip(&mut plain) {
            self.secret.decrypt_coefficients(x, &mut words, plain)?;
        }
        let (rows, columns) = entries.layout.shape();
        let value = |i: usize| {
            let (c, at) = entries.layout.position(i / columns, i % columns);
            plain[c / factor][c % factor + factor * at] / entries.scale
        };
        Ok((0..rows * columns).map(value).collect())
    }

    fn factor(&self) -> usize {
        self.parameters[0].degree() / self.parameters[1].degree()
    }

    fn switch(&self) -> Result<RingSwitch<'_, Multicore, Keys>, Failure> {
        let evaluator = Evaluator::new(self.accelerators[0], self.parameters[0], &self.keys[0])?;
        Ok(RingSwitch::new(evaluator, self.accelerators[1])?)
    }

    fn ring(&self) -> Result<SmallRing<'_, Multicore, Keys>, Failure> {
        Ok(SmallRing::new(Evaluator::new(self.accelerators[1], self.parameters[1], &self.keys[1])?))
    }

    fn down(
        &self,
        x: &[Ciphertext<Multicore>],
        entries: Entries,
        words: &mut [u64],
    ) -> Result<Matrix, Failure> {
        let switch = self.switch()?;
        let mut small = places(entries.layout.ciphertexts());
        for (x, out) in x.iter().zip(small.chunks_mut(switch.factor())) {
            switch.to_small(x, words, out)?;
        }
        Ok(EncryptedMatrix::new(entries, small.into_iter().flatten().collect())?)
    }

    fn up(
        &self,
        x: Vec<Option<Ciphertext<Multicore>>>,
        words: &mut [u64],
    ) -> Result<Vec<Ciphertext<Multicore>>, Failure> {
        let switch = self.switch()?;
        let x: Vec<_> = x.into_iter().flatten().collect();
        x.chunks(switch.factor()).map(|x| Ok(switch.to_big(x, words)?)).collect()
    }

    /// Some plaintext products, each from the big ring to the big ring.
    fn plain(&self, name: &str, products: &[(usize, usize)], batch: usize) -> Result<Figure, Failure> {
        let ring = self.ring()?;
        let mut words = vec![0; self.switch()?.words_needed()];
        let mut jobs = Vec::new();
        for &(rows, inner) in products {
            let entries = self.entries(inner)?;
            let output = self.row.with_rows(rows)?;
            let values = values(inner * self.row.columns(), 7);
            let x = self.encrypt(&entries.layout, &values, 1)?;
            let integers = vec![0; PlainMatrix::words_needed(&output, &entries.layout)];
            jobs.push((integers, output, Input { entries, values, x }));
        }
        let limbs = |input: &Input| SmallRing::<Multicore, Keys>::scratch_limbs(&input.entries, 1, CHUNK);
        let most = jobs.iter().map(|(_, _, input)| limbs(input)).max().unwrap_or(0);
        let mut scratch =
            (0..most).map(|_| self.accelerators[1].allocate()).collect::<Result<Vec<_>, _>>()?;
        let mut plain = Vec::new();
        for (integers, output, input) in &mut jobs {
            let w = weights(output.rows(), input.entries.layout.rows());
            let inner = input.entries.layout.rows();
            let quantized =
                PlainMatrix::quantize(output, &input.entries.layout, integers, |o, i| w[o * inner + i])?;
            // Six standard deviations of a sum of random entries.
            plain.push((quantized.with_bound(6.0 * quantized.norm()), &*input));
        }
        let (mut results, mut cpu) = (Vec::new(), Vec::new());
        let figure = self.setting.measure(
            name,
            "n16/matrix",
            batch,
            || Ok(()),
            |()| {
                let before = cpu_seconds();
                results.clear();
                for (w, input) in &plain {
                    let x = self.down(&input.x, input.entries, &mut words)?;
                    let mut out = places(self.row.with_rows(w.shape().0)?.ciphertexts());
                    let entries = ring.multiply_plain(w, &x, Self::scale(), &mut scratch, &mut out)?;
                    results.push((entries, self.up(out, &mut words)?));
                }
                cpu.extend(before.zip(cpu_seconds()).map(|(before, after)| after - before));
                Ok(())
            },
        )?;
        let mut pairs = Vec::new();
        for ((w, input), (entries, y)) in plain.iter().zip(&results) {
            let ((rows, inner), values) = (w.shape(), &input.values);
            let weights = weights(rows, inner);
            let found = self.decrypt(entries, y)?;
            let columns = self.row.columns();
            // A seventh of the rows will do.
            let exact = |i: usize| -> f64 {
                let (o, t) = (i / columns, i % columns);
                (0..inner).map(|f| weights[o * inner + f] * values[f * columns + t]).sum()
            };
            let chosen: Vec<usize> =
                (0..rows).step_by(7).flat_map(|o| (0..columns).map(move |t| o * columns + t)).collect();
            let exact: Vec<f64> = chosen.iter().map(|&i| exact(i)).collect();
            let largest = exact.iter().fold(0.0f64, |m, x| m.max(x.abs()));
            pairs.extend(chosen.iter().zip(&exact).map(|(&i, x)| (x / largest, found[i] / largest)));
        }
        let cpu = cpu.into_iter().skip(1).fold(f64::INFINITY, f64::min) / batch as f64;
        Ok(figure.precise(PrecisionStats::of(pairs.into_iter())).cpu(cpu))
    }

    /// X·A·B of rank two, everything encrypted.
    fn lora(&self, name: &str) -> Result<Figure, Failure> {
        let (ring, features) = (self.ring()?, 768);
        let mut words = vec![0; self.switch()?.words_needed()];
        let entries = self.entries(features)?;
        let (layout, columns) = (entries.layout, self.row.columns());
        let x_values = values(features * columns, 7);
        let x = self.encrypt(&layout, &x_values, 2)?;
        let vector = |side: Side, level: usize, scalars: &[f64]| {
            let degree = self.parameters[1].degree();
            let mut coefficients = vec![vec![0; degree]; layout.ciphertexts()];
            for (row, value) in scalars.iter().enumerate() {
                let (c, at, negated) = side.position(degree, &layout, row);
                coefficients[c][at] = (if negated { -value } else { *value } * Self::scale()) as i64;
            }
            let ciphertexts = coefficients
                .iter_mut()
                .map(|c| encrypt(&self.small_secret, self.accelerators[1], c, level))
                .collect::<Result<Vec<_>, _>>()?;
            Ok::<_, Failure>(EncryptedVector::new(side, entries, ciphertexts)?)
        };
        let a: Vec<Vec<f64>> = (0..RANK as u64)
            .map(|r| values(features, 11 + r).iter().map(|a| a / (features as f64).sqrt()).collect())
            .collect();
        let b: Vec<Vec<f64>> = (0..RANK as u64).map(|r| values(features, 21 + r)).collect();
        let down = a.iter().map(|a| vector(Side::Gather, 2, a)).collect::<Result<Vec<_>, _>>()?;
        let up = b.iter().map(|b| vector(Side::Scatter, 1, b)).collect::<Result<Vec<_>, _>>()?;
        let (mut result, mut cpu) = (None, Vec::new());
        let figure = self.setting.measure(
            name,
            "n16/matrix",
            1,
            || Ok(()),
            |()| {
                let before = cpu_seconds();
                let x = self.down(&x, entries, &mut words)?;
                let rows = down.iter().map(|a| ring.gather(a, &x, 4.0)).collect::<Result<Vec<_>, _>>()?;
                let terms: Vec<_> = up.iter().zip(&rows).collect();
                let mut out = places(layout.ciphertexts());
                let entries = ring.scatter(&terms, 8.0, &mut out)?;
                result = Some((entries, self.up(out, &mut words)?));
                cpu.extend(before.zip(cpu_seconds()).map(|(before, after)| after - before));
                Ok(())
            },
        )?;
        let Some((entries, y)) = result else { return Ok(figure) };
        let found = self.decrypt(&entries, &y)?;
        let middle: Vec<Vec<f64>> = a
            .iter()
            .map(|a| {
                (0..columns).map(|t| (0..features).map(|f| a[f] * x_values[f * columns + t]).sum()).collect()
            })
            .collect();
        let exact: Vec<f64> = (0..features * columns)
            .map(|i| (0..RANK).map(|r| b[r][i / columns] * middle[r][i % columns]).sum())
            .collect();
        let largest = exact.iter().fold(0.0f64, |m, x: &f64| m.max(x.abs()));
        let stats = PrecisionStats::of(exact.iter().zip(&found).map(|(x, y)| (x / largest, y / largest)));
        let cpu = cpu.into_iter().skip(1).fold(f64::INFINITY, f64::min);
        Ok(figure.precise(stats).cpu(cpu))
    }
}

/// An operand, encrypted in the big ring.
struct Input {
    entries: Entries,
    values: Vec<f64>,
    x: Vec<Ciphertext<Multicore>>,
}

/// Weights that keep the size of what they map.
fn weights(rows: usize, inner: usize) -> Vec<f64> {
    values(rows * inner, 5).iter().map(|w| w / (inner as f64).sqrt()).collect()
}

/// Places for results.
pub(super) fn places<T>(count: usize) -> Vec<Option<T>> {
    (0..count).map(|_| None).collect()
}

/// Encrypts coefficients, which are wiped.
pub(super) fn encrypt(
    secret: &SecretKey<'_, Multicore>,
    accelerator: &Multicore,
    coefficients: &mut [i64],
    level: usize,
) -> Result<Ciphertext<Multicore>, Failure> {
    let mut words = vec![0; coefficients.len()];
    let seeded = secret.encrypt_seeded(level, coefficients, &mut system_rng()?, &mut words)?;
    Ok(seeded.expand(accelerator, &mut words)?)
}
