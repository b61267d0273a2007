//! The scores GLUE reports: accuracy, F1, Matthews' correlation, Pearson's correlation.

use crate::data::Task;

/// How a task's predictions are scored; every score is at most 1, and higher is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// Share of right answers.
    Accuracy,
    /// Harmonic mean of precision and recall of class 1.
    F1,
    /// Matthews' correlation of two classes (Matthews 1975): 0 for a constant answer.
    Matthews,
    /// Pearson's correlation of two scores.
    Pearson,
}

impl Metric {
    /// The one PAPER.md reports for a task.
    pub fn of(task: Task) -> Self {
        match task {
            Task::Cola => Self::Matthews,
            Task::Mrpc => Self::F1,
            Task::StsB => Self::Pearson,
            Task::Rte | Task::Sst2 | Task::Qnli => Self::Accuracy,
        }
    }

    /// The score of predictions against labels: classes 0 and 1, or scores for [`Metric::Pearson`]. What one side has more
    /// than the other is left out. NaN where nothing is given; 0 where a quotient is not defined.
    pub fn score(self, predictions: &[f64], labels: &[f64]) -> f64 {
        let pairs = || predictions.iter().copied().zip(labels.iter().copied());
        let count = pairs().count() as f64;
        if count == 0.0 {
            return f64::NAN;
        }
        let with = |p: f64, l: f64| pairs().filter(|&pair| pair == (p, l)).count() as f64;
        let (tp, tn, fp, fn_) = (with(1.0, 1.0), with(0.0, 0.0), with(1.0, 0.0), with(0.0, 1.0));
        match self {
            Self::Accuracy => pairs().filter(|(p, l)| p == l).count() as f64 / count,
            Self::F1 => quotient(2.0 * tp, 2.0 * tp + fp + fn_),
            Self::Matthews => {
                let product = (tp + fp) * (tp + fn_) * (tn + fp) * (tn + fn_);
                quotient(tp * tn - fp * fn_, product.sqrt())
            }
            Self::Pearson => {
                let mean = |f: fn((f64, f64)) -> f64| pairs().map(f).sum::<f64>() / count;
                let (p_mean, l_mean) = (mean(|pair| pair.0), mean(|pair| pair.1));
                let (mut both, mut p_square, mut l_square) = (0.0, 0.0, 0.0);
                for (p, l) in pairs() {
                    both += (p - p_mean) * (l - l_mean);
                    p_square += (p - p_mean).powi(2);
                    l_square += (l - l_mean).powi(2);
                }
                quotient(both, (p_square * l_square).sqrt())
            }
        }
    }

    /// The same of a model's logits: the largest names the class; the only one is the score.
    pub fn of_logits(self, logits: &[Vec<f64>], labels: &[f64]) -> f64 {
        let predictions: Vec<f64> = logits
            .iter()
            .map(|y| match y.as_slice() {
                [score] => *score,
                many => {
                    let best = many.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
                    best.map_or(f64::NAN, |(class, _)| class as f64)
                }
            })
            .collect();
        self.score(&predictions, labels)
    }
}

fn quotient(a: f64, b: f64) -> f64 {
    if b > 0.0 { a / b } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-12, "{a} against {b}");
    }

    #[test]
    fn scores_by_hand() {
        // 3 true positives, 2 true negatives, 1 false positive, 2 false negatives.
        let labels = [1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0];
        let predictions = [1.0, 1.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0];
        close(Metric::Accuracy.score(&predictions, &labels), 5.0 / 8.0);
        close(Metric::F1.score(&predictions, &labels), 6.0 / 9.0);
        close(Metric::Matthews.score(&predictions, &labels), 4.0 / (4.0 * 5.0 * 3.0 * 4.0f64).sqrt());
        let flipped = predictions.map(|p| 1.0 - p);
        close(Metric::Matthews.score(&flipped, &labels), -Metric::Matthews.score(&predictions, &labels));
        // Deviations (−4, −1, 5)/3 and (−2, 1, 1).
        close(Metric::Pearson.score(&[1.0, 2.0, 4.0], &[0.0, 3.0, 3.0]), 4.0 / (42.0 / 9.0 * 6.0f64).sqrt());
        close(Metric::Pearson.score(&[1.0, 2.0, 4.0], &[2.0, 4.0, 8.0]), 1.0);
        let logits = vec![vec![0.1, 0.2], vec![3.0, -1.0]];
        close(Metric::Accuracy.of_logits(&logits, &[1.0, 1.0]), 0.5);
        close(Metric::Pearson.of_logits(&[vec![1.0], vec![3.0]], &[4.0, 2.0]), -1.0);
    }

    #[test]
    fn what_is_not_defined() {
        assert!(Metric::Accuracy.score(&[], &[]).is_nan());
        close(Metric::F1.score(&[0.0, 0.0], &[0.0, 0.0]), 0.0);
        close(Metric::Matthews.score(&[1.0, 1.0], &[0.0, 1.0]), 0.0);
        close(Metric::Pearson.score(&[2.0, 2.0], &[0.0, 1.0]), 0.0);
    }

    #[test]
    fn the_papers_metrics() {
        use Metric::{Accuracy, F1, Matthews, Pearson};
        assert_eq!(Task::ALL.map(Metric::of), [Matthews, F1, Accuracy, Pearson, Accuracy, Accuracy]);
    }
}
