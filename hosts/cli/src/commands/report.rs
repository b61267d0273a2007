//! What `demo` and `decrypt` tell about a batch.

use crate::backend::ServerAccelerator;
use crate::model::{PlainLogits, best};
use crate::output::{Table, shorten};
use crate::sentences::{Naming, Sentence};
use serde::Serialize;
use veilformer::accel::OffloadCounters;
use veilformer::ckks::PrecisionStats;

/// Bits of agreement of two sets of logits.
#[derive(Clone, Copy, Serialize)]
pub(crate) struct Agreement {
    pub(crate) bits_mean: f64,
    pub(crate) bits_min: f64,
}

impl Agreement {
    pub(crate) fn of(expected: &[Vec<f64>], obtained: &[Vec<f64>]) -> Self {
        let flat = |rows: &[Vec<f64>]| rows.iter().flatten().copied().collect::<Vec<f64>>();
        let stats = PrecisionStats::of_slices(&flat(expected), &flat(obtained));
        Self { bits_mean: stats.mean_bits, bits_min: stats.min_bits }
    }
}

/// Share of sentences for which two sets of logits name the same class; none of scores.
pub(crate) fn same_class(naming: Naming, a: &[Vec<f64>], b: &[Vec<f64>]) -> Option<f64> {
    let same = a.iter().zip(b).filter(|(a, b)| best(a) == best(b)).count();
    (naming != Naming::Score && !a.is_empty()).then(|| same as f64 / a.len() as f64)
}

/// One sentence and what was made of it.
#[derive(Serialize)]
pub(crate) struct Row<'s> {
    #[serde(skip_serializing_if = "Option::is_none")]
    second: Option<&'s str>,
    sentence: Option<&'s str>,
    label: Option<String>,
    encrypted: Vec<f64>,
    polynomial: Option<Vec<f64>>,
    exact: Option<Vec<f64>>,
    predicted: String,
    bits_polynomial: Option<f64>,
    bits_exact: Option<f64>,
}

impl Row<'_> {
    /// Its sentences, or its number.
    fn shown(&self, number: usize) -> String {
        match (self.sentence, self.second) {
            (Some(text), Some(second)) => format!("{} | {}", shorten(text, 30), shorten(second, 30)),
            (Some(text), None) => shorten(text, 44),
            _ => format!("#{number}"),
        }
    }
}

/// Over the whole batch.
#[derive(Serialize)]
pub(crate) struct Summary {
    pub(crate) sentences: usize,
    /// Share of labelled sentences whose label was predicted.
    pub(crate) accuracy: Option<f64>,
    /// Share of sentences where encrypted and exact run predict the same class.
    pub(crate) same_class: Option<f64>,
    pub(crate) against_polynomial: Option<Agreement>,
    pub(crate) against_exact: Option<Agreement>,
}

/// The rows and the summary of a batch.
pub(crate) fn compare<'s>(
    naming: Naming,
    sentences: &'s [Sentence],
    encrypted: &[Vec<f64>],
    plain: Option<&PlainLogits>,
) -> (Vec<Row<'s>>, Summary) {
    let share = |hits: usize, of: usize| (of > 0).then(|| hits as f64 / of as f64);
    let rows = encrypted
        .iter()
        .enumerate()
        .map(|(i, logits)| {
            let sentence = sentences.get(i);
            let one = |rows: &[Vec<f64>]| rows.get(i).cloned();
            let (polynomial, exact) =
                (plain.and_then(|p| one(&p.polynomial)), plain.and_then(|p| one(&p.exact)));
            let bits = |expected: &Option<Vec<f64>>| {
                expected.as_ref().map(|e| PrecisionStats::of_slices(e, logits).min_bits)
            };
            Row {
                sentence: sentence.map(|s| s.text.as_str()),
                second: sentence.and_then(|s| s.second.as_deref()),
                label: sentence.and_then(|s| s.label).map(|label| naming.label(label)),
                bits_polynomial: bits(&polynomial),
                bits_exact: bits(&exact),
                encrypted: logits.clone(),
                polynomial,
                exact,
                predicted: naming.answer(logits),
            }
        })
        .collect();
    let classes = naming != Naming::Score;
    let labelled = || {
        encrypted
            .iter()
            .zip(sentences)
            .filter_map(move |(y, s)| Some((best(y), s.label.filter(|_| classes)? as usize)))
    };
    let summary = Summary {
        sentences: encrypted.len(),
        accuracy: share(labelled().filter(|(a, b)| a == b).count(), labelled().count()),
        same_class: plain.and_then(|p| same_class(naming, encrypted, &p.exact)),
        against_polynomial: plain.map(|p| Agreement::of(&p.polynomial, encrypted)),
        against_exact: plain.map(|p| Agreement::of(&p.exact, encrypted)),
    };
    (rows, summary)
}

/// The table for people.
pub(crate) fn table(rows: &[Row<'_>]) -> String {
    let logits = |values: &[f64]| values.iter().map(|v| format!("{v:+.4}")).collect::<Vec<_>>().join(" ");
    let or_dash = |value: Option<String>| value.unwrap_or_else(|| "–".into());
    let full = rows.iter().any(|row| row.exact.is_some());
    let mut table = Table::new(if full {
        &[
            "sentence",
            "label",
            "predicted",
            ">encrypted",
            ">polynomial",
            ">exact",
            ">bits vs poly",
            ">vs exact",
        ]
    } else {
        &["sentence", "label", "predicted", ">logits"]
    });
    for (i, row) in rows.iter().enumerate() {
        let mut cells =
            vec![row.shown(i), or_dash(row.label.clone()), row.predicted.clone(), logits(&row.encrypted)];
        if full {
            cells.push(or_dash(row.polynomial.as_deref().map(logits)));
            cells.push(or_dash(row.exact.as_deref().map(logits)));
            cells.push(or_dash(row.bits_polynomial.map(|b| format!("{b:.1}"))));
            cells.push(or_dash(row.bits_exact.map(|b| format!("{b:.1}"))));
        }
        table.row(cells);
    }
    table.render()
}

impl Summary {
    /// For people.
    pub(crate) fn describe(&self) -> String {
        let mut lines = Vec::new();
        if let Some(accuracy) = self.accuracy {
            lines.push(format!(
                "accuracy             {:.1} % of {} sentences",
                100.0 * accuracy,
                self.sentences
            ));
        }
        if let Some(same) = self.same_class {
            lines.push(format!("class agreement      {:.1} % with the exact model", 100.0 * same));
        }
        for (what, agreement) in
            [("polynomials, in f64", self.against_polynomial), ("exact model", self.against_exact)]
        {
            if let Some(Agreement { bits_mean, bits_min }) = agreement {
                lines.push(format!(
                    "agreement            {bits_mean:.1} bits mean, {bits_min:.1} min, with the {what}"
                ));
            }
        }
        lines.join("\n")
    }
}

/// What went through the board.
#[derive(Clone, Copy, Serialize)]
pub(crate) struct Offloaded {
    limbs: u64,
    verified: u64,
    fallbacks: u64,
    declined: u64,
    mismatches: u64,
    retries: u64,
    bytes_sent: u64,
    bytes_received: u64,
    suspended: bool,
}

/// What went through the boards of both rings, where there are any.
pub(crate) fn offloads<A: ServerAccelerator>(accelerators: [&A; 2]) -> Option<[Offloaded; 2]> {
    match accelerators.map(ServerAccelerator::offloaded) {
        [Some(big), Some(small)] => Some([big.into(), small.into()]),
        _ => None,
    }
}

impl From<OffloadCounters> for Offloaded {
    fn from(c: OffloadCounters) -> Self {
        Self {
            limbs: c.limbs,
            verified: c.verified,
            fallbacks: c.fallbacks,
            declined: c.declined,
            mismatches: c.mismatches,
            retries: c.retries,
            bytes_sent: 8 * c.words_sent,
            bytes_received: 8 * c.words_received,
            suspended: c.suspended,
        }
    }
}

impl Offloaded {
    pub(crate) fn describe(&self) -> String {
        format!(
            "board                {} transforms: {} verified, {} wrong answers caught, {} retried, {} redone here, {} declined{}",
            self.limbs,
            self.verified,
            self.mismatches,
            self.retries,
            self.fallbacks,
            self.declined,
            if self.suspended { "; the board was given up" } else { "" },
        )
    }
}
