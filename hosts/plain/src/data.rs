//! GLUE files: split on tabs, as published, no quoting.

use std::fs;
use std::path::{Path, PathBuf};

/// A GLUE task (Wang et al. 2018).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Linguistic acceptability; one sentence, 2 classes.
    Cola,
    /// Paraphrase; two sentences, 2 classes.
    Mrpc,
    /// Entailment; two sentences, 2 classes.
    Rte,
    /// Similarity; two sentences, a score from 0 to 5.
    StsB,
    /// Sentiment (Socher et al. 2013); one sentence, 2 classes.
    Sst2,
    /// Question and answer; two sentences, 2 classes.
    Qnli,
}

/// One row of a data set.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The sentence, or the first of two.
    pub sentence: String,
    /// The second sentence, where the task has one.
    pub second: Option<String>,
    /// The class (0 or 1) or the score.
    pub label: f32,
}

/// Why a data file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The file cannot be opened or is not UTF-8.
    #[error(
        "cannot read {path}: {source}; expected the data folder to hold GLUE as published, e.g. SST-2/train.tsv"
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A line lacks a column or has an unknown label.
    #[error("{path}, line {line}: {what}; expected {expected}")]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        what: String,
        /// What should be there.
        expected: &'static str,
    },
    /// No rows at all.
    #[error("{path} has no rows: is it the right file?")]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

/// Where the columns of a task are.
struct Columns {
    header: bool,
    sentence: usize,
    second: Option<usize>,
    /// From the start, or from the end where negative.
    label: isize,
}

impl Task {
    /// The six tasks of the paper.
    pub const ALL: [Self; 6] = [Self::Cola, Self::Mrpc, Self::Rte, Self::StsB, Self::Sst2, Self::Qnli];

    /// The file with its training rows. Of QNLI only a part of the training set is at hand.
    pub fn training_file(self) -> &'static str {
        if self == Self::Qnli { "train_subset.tsv" } else { "train.tsv" }
    }

    /// Its folder in a GLUE download.
    pub fn folder(self) -> &'static str {
        match self {
            Self::Cola => "CoLA",
            Self::Mrpc => "MRPC",
            Self::Rte => "RTE",
            Self::StsB => "STS-B",
            Self::Sst2 => "SST-2",
            Self::Qnli => "QNLI",
        }
    }

    fn columns(self) -> Columns {
        let pair = |sentence, second, label| Columns { header: true, sentence, second: Some(second), label };
        match self {
            Self::Cola => Columns { header: false, sentence: 3, second: None, label: 1 },
            Self::Sst2 => Columns { header: true, sentence: 0, second: None, label: 1 },
            Self::Mrpc => pair(3, 4, 0),
            Self::Rte | Self::Qnli => pair(1, 2, -1),
            Self::StsB => pair(7, 8, -1),
        }
    }

    /// Reads a file of this task.
    pub fn read(self, path: &Path) -> Result<Vec<Row>, DataError> {
        let text =
            fs::read_to_string(path).map_err(|source| DataError::Read { path: path.to_owned(), source })?;
        self.parse(&text, path)
    }

    /// Reads the text of a file; `path` is for messages.
    pub fn parse(self, text: &str, path: &Path) -> Result<Vec<Row>, DataError> {
        let columns = self.columns();
        let rows: Vec<Row> = text
            .lines()
            .enumerate()
            .skip(usize::from(columns.header))
            .filter(|(_, line)| !line.is_empty())
            .map(|(i, line)| self.parse_line(line, &columns, path, i + 1))
            .collect::<Result<_, _>>()?;
        if rows.is_empty() { Err(DataError::Empty { path: path.to_owned() }) } else { Ok(rows) }
    }

    fn parse_line(self, line: &str, columns: &Columns, path: &Path, number: usize) -> Result<Row, DataError> {
        let fields: Vec<&str> = line.split('\t').collect();
        let bad =
            |what: String, expected| DataError::Line { path: path.to_owned(), line: number, what, expected };
        let field = |index: usize| {
            fields.get(index).map(|s| s.trim().to_owned()).ok_or_else(|| {
                bad(format!("{} columns", fields.len()), "the columns of the task, split by tabs")
            })
        };
        let label_index = match usize::try_from(columns.label) {
            Ok(index) => index,
            Err(_) => fields.len().saturating_sub(columns.label.unsigned_abs()),
        };
        let text = field(label_index)?;
        let label = match (self, text.as_str()) {
            (Self::StsB, score) => score.parse().ok().filter(|s| (0.0..=5.0).contains(s)),
            (_, "0" | "entailment") => Some(0.0),
            (_, "1" | "not_entailment") => Some(1.0),
            _ => None,
        }
        .ok_or_else(|| {
            bad(format!("label {text:?}"), "0, 1, entailment, not_entailment or a score from 0 to 5")
        })?;
        let second = columns.second.map(field).transpose()?;
        Ok(Row { sentence: field(columns.sentence)?, second, label })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_layout_is_read() {
        let path = Path::new("x.tsv");
        let rows = Task::Sst2.parse("sentence\tlabel\na \"good film \t1\n", path).unwrap();
        assert_eq!(rows, [Row { sentence: "a \"good film".into(), second: None, label: 1.0 }]);
        let rows = Task::Cola.parse("gj04\t0\t*\tThey sailed.\n", path).unwrap();
        assert_eq!((rows[0].sentence.as_str(), rows[0].label), ("They sailed.", 0.0));
        let rows = Task::Qnli.parse("h\n0\tWhy?\tSo.\tnot_entailment\n", path).unwrap();
        assert_eq!((rows[0].second.as_deref(), rows[0].label), (Some("So."), 1.0));
        let rows = Task::StsB.parse("h\n0\t1\t2\t3\t4\t5\t6\ta\tb\t2.5\n", path).unwrap();
        assert_eq!((rows[0].sentence.as_str(), rows[0].label), ("a", 2.5));
    }

    #[test]
    fn bad_files_say_what_was_expected() {
        let path = Path::new("x.tsv");
        let message = |text| Task::Sst2.parse(text, path).unwrap_err().to_string();
        assert!(message("h\nonly one column").contains("line 2: 1 columns; expected the columns"));
        assert!(message("h\nfine\tmaybe").contains("label \"maybe\"; expected 0, 1"));
        assert!(message("h\n").contains("has no rows"));
        assert!(
            Task::Sst2
                .read(Path::new("/nonexistent/x.tsv"))
                .unwrap_err()
                .to_string()
                .contains("SST-2/train.tsv")
        );
    }
}
