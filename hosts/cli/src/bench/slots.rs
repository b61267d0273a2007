//! Products of encrypted matrices in slots: what the small ring's are to be compared with.
//!
//! One call multiplies a matrix in every lane; the figure is for one of them.

use super::scheme::values;
use super::{Figure, Setting};
use crate::client::{Client, RELEASES};
use crate::exit::Failure;
use crate::output::cpu_seconds;
use crate::server::KeyStore;
use veilformer::ckks::server::Evaluator;
use veilformer::ckks::{KeyRequests, ParametersLiteral, PrecisionStats, SwitchingKey};
use veilformer::matrix::slots::{Packing, SlotMatrices};
use veilformer_multicore::Multicore;

pub(super) const NAME: &str = "jkls/128x128x128";
const DIMENSION: usize = 128;

/// The whole product from the lowest level there is: three above the last.
pub(super) fn measure(setting: &Setting) -> Result<Figure, Failure> {
    let parameters = ParametersLiteral::N16_12.check()?;
    let accelerator = Multicore::new(parameters.chain(), setting.threads, 1 << 12)?;
    accelerator.run(|| {
        let packing = Packing::new(&parameters, DIMENSION, DIMENSION)?;
        let (cost, lanes) = (packing.product_cost(), packing.lanes());
        let mut requests = KeyRequests::new();
        packing.required_keys(&parameters, cost.levels, &mut requests)?;
        let mut client = Client::new(&accelerator, &parameters)?;
        let (secret, _) = client.generate(RELEASES)?;
        let public = client.public_key(&secret)?;
        let mut keys = KeyStore::<'_, Multicore>::new();
        for request in requests.iter() {
            keys.insert(client.switching_key(&secret, request.id, request.level)?);
        }
        // Such entries keep the size of what they map.
        let entries = |seed| -> Vec<f64> {
            let size = (DIMENSION as f64).sqrt();
            values(parameters.slots(), seed).iter().map(|x| x / size).collect()
        };
        let (a, b) = (values(parameters.slots(), 1), entries(2));
        let x = client.encrypt(&public, &a, cost.levels)?;
        let y = client.encrypt(&public, &b, cost.levels - 1)?;
        let encoder = crate::client::encoder(parameters.degree())?;
        let (mut work, mut coefficients) = (vec![0.0; parameters.degree()], vec![0; parameters.degree()]);
        let evaluator = Evaluator::new(&accelerator, &parameters, &keys)?;
        let mut matrices = SlotMatrices::new(evaluator, packing, &encoder, &mut work, &mut coefficients)?;
        let (mut product, mut cpu) = (None, Vec::new());
        let figure = setting.measure(
            NAME,
            "n16/12",
            lanes,
            || Ok(()),
            |()| {
                let before = cpu_seconds();
                product = Some(matrices.multiply(&x, &y)?);
                cpu.extend(before.zip(cpu_seconds()).map(|(before, after)| after - before));
                Ok(())
            },
        )?;
        let cpu = cpu.into_iter().skip(1).fold(f64::INFINITY, f64::min) / lanes as f64;
        let limbs: usize =
            requests.iter().map(|r| SwitchingKey::<Multicore>::limbs_needed(&parameters, r.level)).sum();
        let figure = figure.cpu(cpu).levels(cost.levels).bytes((limbs * parameters.degree() * 8) as u64);
        let Some(product) = product else { return Ok(figure) };
        let found = client.decrypt(&secret, &product)?;
        let mut exact = vec![0.0; found.len()];
        for (slot, sum) in exact.iter_mut().enumerate() {
            let (lane, row, column) = packing.entry(slot);
            *sum = (0..DIMENSION)
                .map(|i| a[packing.slot(lane, row, i)] * b[packing.slot(lane, i, column)])
                .sum();
        }
        let largest = exact.iter().fold(0.0f64, |m, x| m.max(x.abs()));
        let pairs = exact.iter().zip(&found).map(|(x, y)| (x / largest, y / largest));
        Ok(figure.precise(PrecisionStats::of(pairs)))
    })
}
