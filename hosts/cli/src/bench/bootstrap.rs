//! Bootstraps, whole and stage by stage.

use super::scheme::values;
use super::{Figure, Setting};
use crate::bootstrap::refreshing_keys;
use crate::client::{Client, RELEASES};
use crate::exit::Failure;
use crate::output::cpu_seconds;
use crate::server::KeyStore;
use std::time::Instant;
use veilformer::ckks::client::SecretKey;
use veilformer::ckks::encoding::Complex;
use veilformer::ckks::server::Evaluator;
use veilformer::ckks::server::bootstrap::{Bootstrap, BootstrapPlan};
use veilformer::ckks::{Ciphertext, ParametersLiteral, PrecisionStats};
use veilformer::wire::switching_key_len;
use veilformer_multicore::Multicore;

/// Bootstraps of a chain.
const LINKS: usize = 100;

/// The parameters a name is measured under.
pub(super) fn literal_of(name: &str) -> Option<(&'static str, ParametersLiteral)> {
    match name.strip_prefix("bootstrap")?.rsplit('/').next()? {
        "n16" => Some(("n16/boot", ParametersLiteral::N16_BOOT)),
        "matrix" => Some(("n16/matrix", ParametersLiteral::N16_MATRIX)),
        _ => None,
    }
}

type Boot<'b> = Bootstrap<'b, Multicore, KeyStore<'b, Multicore>>;

/// Measures every wanted figure of one set: the keys are made once.
pub(super) fn measure(
    setting: &Setting,
    set: &'static str,
    literal: &ParametersLiteral,
    names: &[&str],
    report: &mut impl FnMut(Figure) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let parameters = literal.check()?;
    let plan = BootstrapPlan::new(&parameters)?;
    let accelerator = Multicore::new(parameters.chain(), setting.threads, 1 << 15)?;
    let mut figures = Vec::new();
    accelerator.run(|| -> Result<(), Failure> {
        let mut client = Client::new(&accelerator, &parameters)?;
        let (secret, _) = client.generate(RELEASES)?;
        let (requests, began) = (refreshing_keys(&parameters)?, Instant::now());
        let mut keys = KeyStore::new();
        for request in requests.iter() {
            keys.insert(client.switching_key(&secret, request.id, request.level)?);
        }
        let seconds = began.elapsed().as_secs_f64();
        let encoder = crate::client::encoder(parameters.degree())?;
        let constants = veilformer_engine::bootstrap_constants(&accelerator, &parameters, &encoder)?;
        let evaluator = Evaluator::new(&accelerator, &parameters, &keys)?;
        let bootstrap = Bootstrap::new(evaluator, &constants)?;
        let public = client.public_key(&secret)?;
        let values: Vec<Complex> = values(2 * parameters.slots(), 3)
            .chunks_exact(2)
            .map(|pair| Complex::new(pair[0], pair[1]))
            .collect();
        let x = client.encrypt_complex(&public, &values, plan.floor())?;
        let bench = Bench { setting, set, bootstrap, values, x };
        for name in names {
            let figure = match name.split('/').next().unwrap_or_default() {
                "bootstrap_keygen" => {
                    let bytes = requests.iter().map(|r| switching_key_len(&parameters, *r)).sum();
                    setting.figure(name, set, &[seconds]).bytes(bytes)
                }
                "bootstrap_chain" => bench.chain(name, &mut client, &secret)?,
                "bootstrap" => bench.whole(name, &mut client, &secret)?,
                stage => bench.stage(name, stage)?,
            };
            figures.push(figure);
        }
        tracing::info!(peak_limbs = accelerator.peak_limbs(), "bootstrap");
        Ok(())
    })?;
    figures.into_iter().try_for_each(report)
}

struct Bench<'b> {
    setting: &'b Setting,
    set: &'static str,
    bootstrap: Boot<'b>,
    values: Vec<Complex>,
    x: Ciphertext<Multicore>,
}

impl Bench<'_> {
    fn whole(
        &self,
        name: &str,
        client: &mut Client<'_>,
        secret: &SecretKey<'_, Multicore>,
    ) -> Result<Figure, Failure> {
        let (mut last, mut cpu) = (None, Vec::new());
        let figure = self.setting.measure(
            name,
            self.set,
            1,
            || Ok(()),
            |()| {
                let before = cpu_seconds();
                last = Some(self.bootstrap.refresh(&self.x)?);
                cpu.extend(before.zip(cpu_seconds()).map(|(before, after)| after - before));
                Ok(())
            },
        )?;
        let Some(last) = last else { return Ok(figure) };
        let stats = self.precision(client, secret, &last)?;
        // The first was the warm-up.
        let cpu = cpu.into_iter().skip(1).fold(f64::INFINITY, f64::min);
        let left = last.level() - self.bootstrap.plan().floor();
        Ok(figure.precise(stats).levels(left).cpu(cpu))
    }

    /// A hundred in a row: what one takes, and the precision after the last.
    fn chain(
        &self,
        name: &str,
        client: &mut Client<'_>,
        secret: &SecretKey<'_, Multicore>,
    ) -> Result<Figure, Failure> {
        let mut times = Vec::new();
        let mut x = self.x.duplicate(self.bootstrap.evaluator().accelerator())?;
        for _ in 0..LINKS {
            let start = Instant::now();
            x = self.bootstrap.refresh(&x)?;
            times.push(start.elapsed().as_secs_f64());
        }
        times.sort_by(f64::total_cmp);
        let figure = self.setting.figure(name, self.set, &times);
        Ok(figure.precise(self.precision(client, secret, &x)?))
    }

    fn precision(
        &self,
        client: &mut Client<'_>,
        secret: &SecretKey<'_, Multicore>,
        x: &Ciphertext<Multicore>,
    ) -> Result<PrecisionStats, Failure> {
        let found = client.decrypt_complex(secret, x)?;
        let pairs = self.values.iter().zip(&found);
        Ok(PrecisionStats::of(pairs.flat_map(|(x, y)| [(x.re, y.re), (x.im, y.im)])))
    }

    /// One stage, on what the stages before it leave.
    fn stage(&self, name: &str, stage: &str) -> Result<Figure, Failure> {
        let boot = &self.bootstrap;
        let measure = |work: &mut dyn FnMut(()) -> Result<(), Failure>| {
            self.setting.measure(name, self.set, 1, || Ok(()), work)
        };
        if stage == "bootstrap_stc" {
            return measure(&mut |()| Ok(boot.slot_to_coeff(&self.x).map(drop)?));
        }
        let bottom = boot.slot_to_coeff(&self.x)?;
        if stage == "bootstrap_raise" {
            return measure(&mut |()| Ok(boot.raise(&bottom).map(drop)?));
        }
        if stage == "bootstrap_cts" {
            let prepare = || Ok(boot.raise(&bottom)?);
            return self
                .setting
                .measure(name, self.set, 1, prepare, |x| Ok(boot.coeff_to_slot(x).map(drop)?));
        }
        let prepare = || Ok(boot.coeff_to_slot(boot.raise(&bottom)?)?);
        self.setting.measure(name, self.set, 1, prepare, |[re, im]| {
            boot.eval_mod(re)?;
            boot.eval_mod(im)?;
            Ok(())
        })
    }
}
