//! GLUE files: split on tabs, as published, no quoting.

use std::fs;
use std::path::{Path, PathBuf};

use veilformer::transformer::Loss;

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
    /// A line is not one of the task's.
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
    /// The first line, for the tasks that have one.
    header: Option<&'static str>,
    count: usize,
    sentence: usize,
    second: Option<usize>,
    label: usize,
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

    /// The file with its development rows.
    pub fn development_file(self) -> &'static str {
        "dev.tsv"
    }

    /// Outputs of a model for it, and what they are trained on.
    pub fn outputs(self) -> (usize, Loss) {
        if self == Self::StsB { (1, Loss::SquaredError) } else { (2, Loss::CrossEntropy) }
    }

    fn columns(self) -> Columns {
        let one = |header, count, sentence, label| Columns { header, count, sentence, second: None, label };
        let pair = |header, count, sentence, label| Columns {
            header: Some(header),
            count,
            sentence,
            second: Some(sentence + 1),
            label,
        };
        match self {
            Self::Cola => one(None, 4, 3, 1),
            Self::Sst2 => one(Some("sentence\tlabel"), 2, 0, 1),
            Self::Mrpc => pair("Quality\t#1 ID\t#2 ID\t#1 String\t#2 String", 5, 3, 0),
            Self::Rte => pair("index\tsentence1\tsentence2\tlabel", 4, 1, 3),
            Self::Qnli => pair("index\tquestion\tsentence\tlabel", 4, 1, 3),
            Self::StsB => pair(
                "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore",
                10,
                7,
                9,
            ),
        }
    }

    /// What a label must be.
    fn labels(self) -> &'static str {
        match self {
            Self::Cola | Self::Mrpc | Self::Sst2 => "0 or 1",
            Self::Rte | Self::Qnli => "entailment or not_entailment",
            Self::StsB => "a score from 0 to 5",
        }
    }

    fn label(self, text: &str) -> Option<f32> {
        match (self, text) {
            (Self::StsB, score) => score.parse().ok().filter(|score| (0.0..=5.0).contains(score)),
            (Self::Rte | Self::Qnli, "entailment") => Some(0.0),
            (Self::Rte | Self::Qnli, "not_entailment") => Some(1.0),
            (Self::Cola | Self::Mrpc | Self::Sst2, "0") => Some(0.0),
            (Self::Cola | Self::Mrpc | Self::Sst2, "1") => Some(1.0),
            _ => None,
        }
    }

    /// Reads a file of this task.
    pub fn read(self, path: &Path) -> Result<Vec<Row>, DataError> {
        let text =
            fs::read_to_string(path).map_err(|source| DataError::Read { path: path.to_owned(), source })?;
        self.parse(&text, path)
    }

    /// Reads the text of a file; `path` is for messages.
    ///
    /// # Errors
    /// [`DataError::Line`] for another task's header, a line with too few or too many columns, an empty sentence or a label
    /// the task does not have; [`DataError::Empty`] where there are no rows.
    pub fn parse(self, text: &str, path: &Path) -> Result<Vec<Row>, DataError> {
        let columns = self.columns();
        let mut lines = text.lines().enumerate().peekable();
        if let Some(expected) = columns.header {
            let (_, found) = lines.next().ok_or_else(|| DataError::Empty { path: path.to_owned() })?;
            if found != expected {
                let what = format!("the first line is {:?}", found.chars().take(60).collect::<String>());
                return Err(DataError::Line { path: path.to_owned(), line: 1, what, expected });
            }
        }
        let rows: Vec<Row> = lines
            .filter(|(_, line)| !line.is_empty())
            .map(|(i, line)| {
                self.parse_line(line, &columns).map_err(|(what, expected)| DataError::Line {
                    path: path.to_owned(),
                    line: i + 1,
                    what,
                    expected,
                })
            })
            .collect::<Result<_, _>>()?;
        if rows.is_empty() { Err(DataError::Empty { path: path.to_owned() }) } else { Ok(rows) }
    }

    /// One row, or what is wrong with it and what was expected.
    fn parse_line(self, line: &str, columns: &Columns) -> Result<Row, (String, &'static str)> {
        let fields: Vec<&str> = line.split('\t').map(str::trim).collect();
        if fields.len() != columns.count {
            let what = format!("{} columns", fields.len());
            return Err((what, "the columns of the task, split by tabs"));
        }
        let sentence = |index: usize| match fields[index] {
            "" => Err(("an empty sentence".to_owned(), "a text")),
            text => Ok(text.to_owned()),
        };
        let text = fields[columns.label];
        let label = self.label(text).ok_or_else(|| (format!("label {text:?}"), self.labels()))?;
        let second = columns.second.map(sentence).transpose()?;
        Ok(Row { sentence: sentence(columns.sentence)?, second, label })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn excerpt(task: Task) -> Vec<Row> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/glue");
        task.read(&folder.join(task.folder()).with_extension("tsv")).unwrap()
    }

    #[test]
    fn every_task_is_read() {
        for task in Task::ALL {
            let rows = excerpt(task);
            assert_eq!(rows.len(), 4, "{task:?}");
            let two = !matches!(task, Task::Cola | Task::Sst2);
            assert!(rows.iter().all(|row| row.second.is_some() == two), "{task:?}");
            assert!(rows.iter().any(|row| row.label != rows[0].label), "{task:?}");
        }
        let first = |task| excerpt(task).swap_remove(0);
        assert_eq!(first(Task::Cola).sentence, "The sailors rode the breeze clear of the rocks.");
        assert_eq!(first(Task::Sst2).label, 1.0);
        // Quotes are text, not syntax.
        assert!(excerpt(Task::Mrpc)[0].second.as_deref().unwrap().starts_with("\" The foodservice"));
        let rte = first(Task::Rte);
        assert_eq!(rte.second.as_deref(), Some("Christopher Reeve had an accident."));
        assert_eq!((rte.label, excerpt(Task::Rte)[1].label), (1.0, 0.0));
        assert!(first(Task::Qnli).sentence.starts_with("What came into force"));
    }

    #[test]
    fn bad_files_say_what_was_expected() {
        let path = Path::new("x.tsv");
        let message = |task: Task, lines: &str| {
            let header = task.columns().header.map_or(String::new(), |header| header.to_owned() + "\n");
            task.parse(&(header + lines), path).unwrap_err().to_string()
        };
        let cases = [
            (Task::Sst2, "only one column", "x.tsv, line 2: 1 columns; expected the columns"),
            (Task::Sst2, "fine\t1\t", "line 2: 3 columns"),
            (Task::Sst2, "fine\t1\nfine\tmaybe", "line 3: label \"maybe\"; expected 0 or 1"),
            (Task::Sst2, "fine\tentailment", "label \"entailment\"; expected 0 or 1"),
            (Task::Sst2, " \t1", "an empty sentence"),
            (Task::Sst2, "", "has no rows"),
            (Task::Cola, "gj04\t2\t*\tThey sailed.", "line 1: label \"2\""),
            (Task::Rte, "0\ta\tb\t1", "label \"1\"; expected entailment or not_entailment"),
            (Task::Rte, "0\ta\t\tentailment", "an empty sentence"),
            (Task::StsB, "0\tg\tf\ty\to\ts\ts\ta\tb\t5.01", "label \"5.01\"; expected a score from 0 to 5"),
            (Task::StsB, "0\tg\tf\ty\to\ts\ts\ta\tb\t-1", "label \"-1\""),
            (Task::StsB, "0\tg\tf\ty\to\ts\ts\ta\tb\tNaN", "label \"NaN\""),
        ];
        for (task, lines, expected) in cases {
            let message = message(task, lines);
            assert!(message.contains(expected), "{message:?} lacks {expected:?}");
        }
        let other = Task::Qnli.parse("sentence\tlabel\nfine\t1\n", path).unwrap_err().to_string();
        assert!(other.contains("line 1: the first line is \"sentence\\tlabel\"; expected index"), "{other}");
        assert!(Task::Mrpc.parse("", path).unwrap_err().to_string().contains("has no rows"));
        let missing = Task::Sst2.read(Path::new("/nonexistent/x.tsv")).unwrap_err().to_string();
        assert!(missing.contains("SST-2/train.tsv"), "{missing}");
    }
}
