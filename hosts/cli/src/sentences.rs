//! The sentences a client reads: rows of a task's file, or typed in.

use crate::exit::{Exit, Failure};
use crate::model::best;
use crate::work::Work;
use std::path::{Path, PathBuf};
use veilformer_plain::data::{Row, Task};
use veilformer_plain::run::Example;

/// Sentences of the SST-2 development set that come with the program.
pub(crate) const SHIPPED_SENTENCES: &str = include_str!("../assets/sst2-excerpt.tsv");

/// A sentence, or two, as text and as tokens.
pub(crate) struct Sentence {
    pub(crate) text: String,
    pub(crate) second: Option<String>,
    /// The class or the score.
    pub(crate) label: Option<f32>,
    pub(crate) example: Example,
}

impl Sentence {
    fn new(work: &Work, row: Row, labelled: bool) -> Result<Self, Failure> {
        let Row { sentence, second, label } = row;
        let length = work.config.length;
        let sequence = work.tokenizer.encode(&sentence, second.as_deref(), length)?;
        if sequence.truncated {
            tracing::warn!("a sentence is longer than {length} tokens and loses its end");
        }
        let example = Example { sequence, label };
        Ok(Self { text: sentence, second, label: labelled.then_some(label), example })
    }

    /// For people.
    pub(crate) fn shown(&self) -> String {
        self.second.as_ref().map_or_else(|| self.text.clone(), |second| format!("{} | {second}", self.text))
    }
}

/// Where sentences come from.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct TextArgs {
    /// A sentence of your own, without a label; may be given more than once
    #[arg(long, value_name = "SENTENCE")]
    text: Vec<String>,
    /// The second sentence, for tasks that have two: as many as --text
    #[arg(long, value_name = "SENTENCE", requires = "text")]
    second: Vec<String>,
    /// Sentences and labels in the layout of the task's GLUE file
    #[arg(long, value_name = "TSV", conflicts_with = "text")]
    file: Option<PathBuf>,
}

impl TextArgs {
    /// The sentences of a file.
    pub(crate) fn of_file(path: PathBuf) -> Self {
        Self { file: Some(path), ..Self::default() }
    }

    /// Whether any were given.
    pub(crate) fn is_given(&self) -> bool {
        self.file.is_some() || !self.text.is_empty()
    }

    /// The sentences given, in their order; for SST-2 those that come with the program when none were.
    ///
    /// # Errors
    /// Usage for one sentence where the task has two, or the other way round, and where nothing was given; those of the
    /// task's reader.
    pub(crate) fn read(&self, work: &Work) -> Result<Vec<Sentence>, Failure> {
        let rows = match &self.file {
            Some(path) => work.task.read(path)?,
            None if !self.text.is_empty() => return self.typed(work),
            None if work.task == Task::Sst2 => {
                work.task.parse(SHIPPED_SENTENCES, Path::new("sst2-excerpt.tsv"))?
            }
            None => {
                let message = format!("no sentences of {} given; pass --file or --text", work.task.folder());
                return Err(Failure::new(Exit::Usage, message));
            }
        };
        rows.into_iter().map(|row| Sentence::new(work, row, true)).collect()
    }

    fn typed(&self, work: &Work) -> Result<Vec<Sentence>, Failure> {
        let two = !matches!(work.task, Task::Cola | Task::Sst2);
        let need = if two { self.text.len() } else { 0 };
        if self.second.len() != need {
            let (task, have) = (work.task.folder(), self.second.len());
            let message =
                format!("{have} times --second where {task} needs {need}, one for every --text or none");
            return Err(Failure::new(Exit::Usage, message));
        }
        if let Some(empty) = self.text.iter().chain(&self.second).find(|text| text.trim().is_empty()) {
            return Err(Failure::new(Exit::Usage, format!("{empty:?} is no sentence; expected a text")));
        }
        let rows = self.text.iter().enumerate().map(|(i, text)| Row {
            sentence: text.clone(),
            second: self.second.get(i).cloned(),
            label: 0.0,
        });
        rows.map(|row| Sentence::new(work, row, false)).collect()
    }
}

/// What answers are called, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Naming {
    /// Negative or positive.
    Sentiment,
    /// By number.
    Classes,
    /// The output itself.
    Score,
}

impl Naming {
    pub(crate) fn of(task: Task) -> Self {
        match task {
            Task::Sst2 => Self::Sentiment,
            Task::StsB => Self::Score,
            _ => Self::Classes,
        }
    }

    /// What logits say.
    pub(crate) fn answer(self, logits: &[f64]) -> String {
        match self {
            Self::Score => logits.first().map_or_else(String::new, |score| format!("{score:.2}")),
            _ => self.label(best(logits) as f32),
        }
    }

    /// What a label says.
    pub(crate) fn label(self, label: f32) -> String {
        match (self, label) {
            (Self::Sentiment, 0.0) => "negative".into(),
            (Self::Sentiment, 1.0) => "positive".into(),
            (Self::Score, score) => format!("{score:.2}"),
            (_, class) => class.to_string(),
        }
    }
}
