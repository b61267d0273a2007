//! What people and scripts read: tables or JSON on standard output, progress
//! and remarks on standard error.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Instant;

/// How to report.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    pub(crate) json: bool,
}

impl Output {
    /// One line or table for people; nothing when a script reads.
    pub(crate) fn say(&self, text: impl AsRef<str>) {
        if !self.json {
            line(text.as_ref());
        }
    }

    /// One JSON object on a line; nothing when a person reads.
    pub(crate) fn json(&self, value: &impl Serialize) -> Result<(), serde_json::Error> {
        if self.json {
            line(&serde_json::to_string(value)?);
        }
        Ok(())
    }

    /// A bar on standard error, where somebody is there to see it.
    pub(crate) fn progress(&self, what: &'static str, length: u64) -> ProgressBar {
        let bar = if self.json {
            ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::hidden())
        } else {
            ProgressBar::new(length)
        };
        let template = "{prefix:>12} [{bar:40}] {percent:>3} % {elapsed} (left: {eta}) {msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.with_prefix(what)
    }
}

/// Whoever closes standard output has heard enough; the work goes on.
fn line(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// Columns, aligned: text to the left, numbers to the right.
#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
    right: Vec<bool>,
}

impl Table {
    /// Heads; those that start with `>` are over numbers.
    pub(crate) fn new(heads: &[&str]) -> Self {
        let right = heads.iter().map(|head| head.starts_with('>')).collect();
        let heads = heads.iter().map(|head| head.trim_start_matches('>').to_owned()).collect();
        Self { rows: vec![heads], right }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    pub(crate) fn render(&self) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let mut out = String::new();
        for (i, row) in self.rows.iter().enumerate() {
            for (column, cell) in row.iter().enumerate() {
                let width = width(column);
                let gap = if column == 0 { "" } else { "  " };
                let _ = match self.right.get(column) {
                    Some(true) => write!(out, "{gap}{cell:>width$}"),
                    _ => write!(out, "{gap}{cell:<width$}"),
                };
            }
            out.truncate(out.trim_end().len());
            out.push('\n');
            if i == 0 {
                let total = (0..row.len()).map(width).sum::<usize>() + 2 * (row.len().max(1) - 1);
                out.push_str(&"─".repeat(total));
                out.push('\n');
            }
        }
        out
    }
}

/// The first characters of a text.
pub(crate) fn shorten(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(most - 1).collect();
    short.push('…');
    short
}

/// 1 batch, 2 batches: nouns in -ch get -es.
pub(crate) fn count(number: usize, noun: &str) -> String {
    let ending = if number == 1 {
        ""
    } else if noun.ends_with("ch") {
        "es"
    } else {
        "s"
    };
    format!("{number} {noun}{ending}")
}

/// 1.5 GiB.
pub(crate) fn bytes(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 || unit == "GiB" {
            return if unit == "B" { format!("{count} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    String::new()
}

/// 1.23 s, 4.56 ms, 7.89 µs.
pub(crate) fn seconds(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0} s"),
        v if v >= 1.0 => format!("{v:.2} s"),
        v if v >= 1e-3 => format!("{:.2} ms", v * 1e3),
        v => format!("{:.2} µs", v * 1e6),
    }
}

/// Seconds of consecutive phases.
pub(crate) struct Phases {
    start: Instant,
    pub(crate) list: Vec<(&'static str, f64)>,
}

impl Phases {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now(), list: Vec::new() }
    }

    /// Ends a phase.
    pub(crate) fn end(&mut self, name: &'static str) {
        self.list.push((name, self.start.elapsed().as_secs_f64()));
        self.start = Instant::now();
    }

    /// Seconds of a phase.
    pub(crate) fn get(&self, name: &str) -> Option<f64> {
        self.list.iter().find(|(phase, _)| *phase == name).map(|(_, seconds)| *seconds)
    }

    pub(crate) fn total(&self) -> f64 {
        self.list.iter().map(|(_, seconds)| seconds).sum()
    }
}

/// The most memory this process ever had, where the system tells.
pub(crate) fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    kibibytes(&status, "VmHWM:")
}

/// Memory that this machine could still give, where the system tells.
pub(crate) fn available_memory() -> Option<u64> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    kibibytes(&info, "MemAvailable:")
}

fn kibibytes(table: &str, name: &str) -> Option<u64> {
    let line = table.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// Processor time of all threads so far, in seconds, to a hundredth; `None` where the system does not say.
pub(crate) fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name, in parentheses, may hold anything; user and system time are fields 14 and 15.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |field: usize| fields.get(field - 3)?.parse::<f64>().ok();
    Some((ticks(14)? + ticks(15)?) / 100.0)
}

/// Processor time that the host of a virtual machine gives to others, from some moment on: what makes a job slower, and
/// by no fault of the job's.
pub(crate) struct Stolen {
    since: Instant,
    before_s: Option<f64>,
}

impl Stolen {
    pub(crate) fn start() -> Self {
        Self { since: Instant::now(), before_s: stolen_seconds() }
    }

    /// The share of all processors' time, from 0 to 1; `None` where the system does not say, and in the first second.
    pub(crate) fn share(&self) -> Option<f64> {
        share(stolen_seconds()? - self.before_s?, self.since.elapsed().as_secs_f64())
    }
}

/// `None` below a second: the system counts in hundredths.
fn share(stolen_s: f64, elapsed_s: f64) -> Option<f64> {
    (elapsed_s >= 1.0).then(|| (stolen_s / elapsed_s).clamp(0.0, 1.0))
}

/// For people: a share of processor time that others had.
pub(crate) fn taken(share: f64) -> String {
    format!("{:.0} % of the processors", 100.0 * share)
}

fn stolen_seconds() -> Option<f64> {
    stolen_ticks(&std::fs::read_to_string("/proc/stat").ok()?).map(|ticks| ticks / 100.0)
}

/// A processor's in the mean, in hundredths of a second: the eighth number of the first line is that of all, and each
/// has a line of its own.
fn stolen_ticks(stat: &str) -> Option<f64> {
    let processors = stat.lines().filter(|line| line.starts_with("cpu")).count().checked_sub(1)?;
    let all: f64 = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace().nth(7)?.parse().ok()?;
    (processors > 0).then(|| all / processors as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stolen_time_is_that_of_a_processor_in_the_mean() {
        let stat = "cpu  10 20 30 40 50 60 70 80 90 100\ncpu0 1 2 3 4\ncpu1 1 2 3 4\nintr 1 2\n";
        assert_eq!(stolen_ticks(stat), Some(40.0));
        let without = ["", "cpu  1 2 3 4 5 6 7 8\n", "cpu  1 2\ncpu0 1 2\n", "cpu0 1 2 3 4 5 6 7 8\n"];
        assert!(without.into_iter().all(|stat| stolen_ticks(stat).is_none()));
        assert_eq!([share(0.5, 2.0), share(3.0, 2.0), share(0.5, 0.5)], [Some(0.25), Some(1.0), None]);
        assert_eq!(taken(0.086), "9 % of the processors");
    }

    #[test]
    fn units() {
        assert_eq!([bytes(5), bytes(1536), bytes(3 << 30)], ["5 B", "1.5 KiB", "3.0 GiB"]);
        assert_eq!([seconds(123.4), seconds(1.234), seconds(0.0012)], ["123 s", "1.23 s", "1.20 ms"]);
        assert_eq!(shorten("abcdef", 4), "abc…");
    }

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["name", ">n"]);
        table.row(vec!["é".into(), "10".into()]);
        assert_eq!(table.render(), "name   n\n────────\né     10\n");
    }
}
