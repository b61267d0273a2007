//! The shipped model on a full batch, encrypted: one run of the server's half.

use super::{Figure, Setting};
use crate::args::named;
use crate::commands::demo;
use crate::exit::Failure;
use crate::job::Job;
use crate::model::{LoadedModel, SentenceArgs};
use veilformer::ckks::PrecisionStats;

pub(super) const NAME: &str = "infer/veil-mini";
const SET: &str = "n16/boot";

pub(super) fn measure(setting: &Setting) -> Result<Figure, Failure> {
    let model = LoadedModel::load(None)?;
    let parameters = named(SET)?;
    let job = Job::new(&parameters, &model)?;
    let sentences = SentenceArgs::default().read(&model, job.layout.batch())?;
    let mut times = Vec::new();
    let mut last = None;
    for _ in 0..setting.runs.unwrap_or(1) {
        let told = demo::tell(&demo::Telling {
            parameters: &parameters,
            model: &model,
            job: &job,
            sentences: &sentences,
            threads: setting.threads,
            backend: Default::default(),
            output: setting.output,
        })?;
        times.extend(told.phases.get("infer"));
        last = Some(told);
    }
    times.sort_by(f64::total_cmp);
    let mut figure = setting.figure(NAME, SET, &times).levels(job.input_level - job.output_level);
    figure.bootstraps = Some(job.plan.refreshes);
    if let Some(told) = last {
        let flat = |rows: Vec<Vec<f64>>| rows.into_iter().flatten().collect::<Vec<f64>>();
        let expected = flat(model.plain_logits(&sentences)?.polynomial);
        let limb = 8 * parameters.degree() as u64;
        figure = figure
            .precise(PrecisionStats::of_slices(&expected, &flat(told.logits)))
            .bytes(told.peak_limbs as u64 * limb);
    }
    Ok(figure)
}
