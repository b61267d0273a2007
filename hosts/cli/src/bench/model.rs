//! The slot executor on the shipped one-ciphertext model and a full batch, encrypted: one run of the server's half.

use super::{Figure, Setting};
use crate::args::named;
use crate::client::{Client, RELEASES};
use crate::exit::Failure;
use crate::job::Job;
use crate::model::{LoadedModel, pack, shipped_sentences, unpack};
use crate::server::Server;
use std::time::Instant;
use veilformer::ckks::{Parameters, PrecisionStats};
use veilformer_multicore::Multicore;
use veilformer_plain::run::Example;

pub(super) const NAME: &str = "infer/veil-mini";
const SET: &str = "n16/boot";

pub(super) fn measure(setting: &Setting) -> Result<Figure, Failure> {
    let model = LoadedModel::load(None)?;
    let parameters = named(SET)?;
    let job = Job::new(&parameters, &model)?;
    let sentences = shipped_sentences(&model, job.layout.batch())?;
    let (mut times, mut last) = (Vec::new(), None);
    for _ in 0..setting.runs.unwrap_or(1) {
        let answer = infer(&model, &parameters, &job, &sentences, setting.threads)?;
        times.push(answer.seconds);
        last = Some(answer);
    }
    times.sort_by(f64::total_cmp);
    let mut figure = setting.figure(NAME, SET, &times).levels(job.input_level - job.output_level);
    figure.bootstraps = Some(job.plan.refreshes);
    if let Some(answer) = last {
        let flat = |rows: Vec<Vec<f64>>| rows.into_iter().flatten().collect::<Vec<f64>>();
        let expected = flat(model.polynomial_logits(&sentences)?);
        let limb = 8 * parameters.degree() as u64;
        figure = figure
            .precise(PrecisionStats::of_slices(&expected, &flat(answer.logits)))
            .bytes(answer.peak_limbs as u64 * limb);
    }
    Ok(figure)
}

struct Answer {
    logits: Vec<Vec<f64>>,
    seconds: f64,
    peak_limbs: usize,
}

/// Keys, encryption, the model under encryption, which is what is timed, and decryption.
fn infer(
    model: &LoadedModel,
    parameters: &Parameters,
    job: &Job,
    sentences: &[Example],
    threads: usize,
) -> Result<Answer, Failure> {
    let accelerator = Multicore::new(parameters.chain(), threads, job.server_limbs(threads))?;
    let of_client = Multicore::new(parameters.chain(), threads, Client::limbs(parameters))?;
    accelerator.run(|| {
        let mut client = Client::new(&of_client, parameters)?;
        let mut server = Server::new(&accelerator, parameters);
        let (secret, _) = client.generate(RELEASES)?;
        let public = client.public_key(&secret)?;
        for request in job.plan.keys.iter() {
            let mut maker = Client::new(&accelerator, parameters)?;
            server.keys.insert(maker.switching_key(&secret, request.id, request.level)?);
        }
        let [tokens, mask] = pack(model, &job.layout, sentences)?;
        let tokens = client.encrypt(&public, &tokens, job.input_level)?;
        let mask = client.encrypt(&public, &mask, job.mask_level)?;
        let start = Instant::now();
        let logits = server.infer(model, tokens, mask)?;
        let seconds = start.elapsed().as_secs_f64();
        let values = client.decrypt(&secret, &logits)?;
        let logits = unpack(model, &job.layout, &values, sentences.len());
        Ok(Answer { logits, seconds, peak_limbs: accelerator.peak_limbs() })
    })
}
