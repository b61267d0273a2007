//! The paper's Table 2 on this engine: all weights encrypted or LoRA, softmax or Gaussian attention.
//!
//! All four are this engine's best: softmax needs no maximum where its exponents are calibrated, whole matrices are products
//! of packed ones, and their rows are taken apart once per step for all sentences. A step is that of sixteen sentences. The
//! paper charges a whole optimizer step to one sentence, which the last column does too.

use super::{Figure, Stage};
use crate::output::{Table, seconds};
use veilformer::transformer::{Config, Kernel, Trainable};

/// The model.
pub(super) const MODEL: &str = "veil-tiny";
/// The stage that is no part of a step.
pub(super) const INFERENCE: &str = "inference";
/// The names, in the order they are measured.
pub(super) const NAMES: [&str; 4] = [ROWS[0].name, ROWS[1].name, ROWS[2].name, ROWS[3].name];

const ROWS: [Row; 4] = [
    Row {
        name: "compare/lora-gaussian",
        title: "LoRA, Gaussian kernel",
        lora: true,
        kernel: Kernel::Gaussian,
        paper: Some(Seconds { inference: 26.5, step: 50.72, optimizer: 10.31 }),
    },
    Row {
        name: "compare/lora-softmax",
        title: "LoRA, softmax",
        lora: true,
        kernel: Kernel::Softmax,
        paper: Some(Seconds { inference: 42.44, step: 66.66, optimizer: 10.31 }),
    },
    Row {
        name: "compare/full-gaussian",
        title: "all weights, Gaussian kernel",
        lora: false,
        kernel: Kernel::Gaussian,
        paper: None,
    },
    Row {
        name: "compare/full-softmax",
        title: "all weights, softmax",
        lora: false,
        kernel: Kernel::Softmax,
        paper: Some(Seconds { inference: 61.84, step: 170.72, optimizer: 252.83 }),
    },
];

/// One line of the table.
pub(super) struct Row {
    pub(super) name: &'static str,
    title: &'static str,
    lora: bool,
    kernel: Kernel,
    /// One sentence on the paper's machine (PAPER.md, T2).
    paper: Option<Seconds>,
}

/// What a line is measured in.
#[derive(Clone, Copy)]
struct Seconds {
    inference: f64,
    /// Forward and backward.
    step: f64,
    optimizer: f64,
}

impl Row {
    /// The line of that name.
    pub(super) fn of(name: &str) -> Option<&'static Self> {
        ROWS.iter().find(|row| row.name == name)
    }

    /// The model of this line.
    pub(super) fn config(&self, model: Config) -> Config {
        Config { lora_rank: if self.lora { 2 } else { 0 }, kernel: self.kernel, ..model }
    }

    /// What is trained.
    pub(super) fn trained(&self) -> Trainable {
        if self.lora { Trainable::Adapters } else { Trainable::Matrices }
    }
}

/// What was measured of a line.
pub(super) struct Outcome {
    row: &'static Row,
    seconds: Seconds,
    /// Processor time, of all threads: other work on the machine does not change it.
    processor: Seconds,
}

impl Outcome {
    /// From a figure, if it is one of this table's.
    pub(super) fn of(figure: &Figure) -> Option<Self> {
        let row = Row::of(&figure.name)?;
        let stage = |name| figure.stages.iter().find(|stage| stage.name == name);
        let sum = |of: &dyn Fn(&Stage) -> f64| {
            let step = of(stage("forward")?) + of(stage("backward")?);
            Some(Seconds { inference: of(stage(INFERENCE)?), step, optimizer: of(stage("optimizer")?) })
        };
        Some(Self { row, seconds: sum(&|stage| stage.seconds)?, processor: sum(&|stage| stage.cpu_s)? })
    }
}

/// Sentences of a step.
const SENTENCES: f64 = 16.0;

/// The table, with ratios of processor time to the first line, and the paper's ratios beside them.
pub(super) fn table(outcomes: &[Outcome]) -> Table {
    let heads =
        ["", ">inference", ">ratio (paper)", ">step", ">ratio (paper)", ">optimizer", ">one with it (paper)"];
    let mut table = Table::new(&heads);
    let base = outcomes.iter().find(|outcome| outcome.row.name == ROWS[0].name);
    for Outcome { row, seconds: measured, processor } in outcomes {
        let ratio = |of: &dyn Fn(&Seconds, f64) -> f64| {
            let own = base.map(|base| of(processor, SENTENCES) / of(&base.processor, SENTENCES));
            let paper = row.paper.zip(ROWS[0].paper).map(|(row, base)| of(&row, 1.0) / of(&base, 1.0));
            let show = |x: Option<f64>| x.map_or_else(|| "–".to_owned(), |x| format!("{x:.2}"));
            format!("{} ({})", show(own), show(paper))
        };
        table.row(vec![
            row.title.to_owned(),
            seconds(measured.inference),
            ratio(&|x, _| x.inference),
            seconds(measured.step),
            ratio(&|x, _| x.step),
            seconds(measured.optimizer),
            ratio(&|x, sentences| x.step / sentences + x.optimizer),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_papers_ratios_are_those_it_gives() {
        let paper = |i: usize| ROWS[i].paper.unwrap();
        let outcomes = [0, 3].map(|i| Outcome { row: &ROWS[i], seconds: paper(i), processor: paper(i) });
        let table = table(&outcomes).render();
        assert!(table.contains("(2.33)") && table.contains("(6.94)"), "{table}");
        assert!(table.contains("1.00 (1.00)"), "{table}");
    }
}
