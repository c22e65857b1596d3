//! Records of evaluations: a JSON file for programs and a Markdown table for people.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{bootstrap::Intervals, metrics::Metrics};
use crate::{
    error::{Error, Result},
    storage::write_bytes,
};

/// One method's results on one data set; shares run from 0 to 1.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct EvalRecord {
    /// Data set.
    pub dataset: String,
    /// Which texts train, which query, and over which candidates.
    pub protocol: String,
    /// Method, with whatever tells its variants apart.
    pub method: String,
    /// Recall@1.
    #[serde(rename = "recall@1")]
    pub recall_at_1: f64,
    /// Recall@5.
    #[serde(rename = "recall@5")]
    pub recall_at_5: f64,
    /// Recall@10.
    #[serde(rename = "recall@10")]
    pub recall_at_10: f64,
    /// Recall@50.
    #[serde(rename = "recall@50", default, skip_serializing_if = "Option::is_none")]
    pub recall_at_50: Option<f64>,
    /// MRR@10.
    #[serde(rename = "mrr@10")]
    pub mrr_at_10: f64,
    /// Ends of the interval of Recall@1.
    #[serde(rename = "recall@1_ci", default, skip_serializing_if = "Option::is_none")]
    pub recall_at_1_ci: Option<[f64; 2]>,
    /// Ends of the interval of Recall@5.
    #[serde(rename = "recall@5_ci", default, skip_serializing_if = "Option::is_none")]
    pub recall_at_5_ci: Option<[f64; 2]>,
    /// Ends of the interval of Recall@10.
    #[serde(rename = "recall@10_ci", default, skip_serializing_if = "Option::is_none")]
    pub recall_at_10_ci: Option<[f64; 2]>,
    /// Ends of the interval of Recall@50.
    #[serde(rename = "recall@50_ci", default, skip_serializing_if = "Option::is_none")]
    pub recall_at_50_ci: Option<[f64; 2]>,
    /// Ends of the interval of MRR@10.
    #[serde(rename = "mrr@10_ci", default, skip_serializing_if = "Option::is_none")]
    pub mrr_at_10_ci: Option<[f64; 2]>,
    /// Number of queries.
    pub queries: usize,
    /// Number of candidates.
    pub candidates: usize,
    /// Seed of the run.
    pub seed: u64,
    /// Wall-clock time of training and evaluation together.
    pub seconds: f64,
    /// Machine that it ran on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hardware: Option<String>,
    /// Command that repeats it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}

/// Name, value and interval of a measure.
type Measure = (&'static str, Option<f64>, Option<[f64; 2]>);

impl EvalRecord {
    /// A record of metrics, with seed 0, no time and no intervals yet.
    ///
    /// # Example
    /// ```
    /// use cart_retrieval::eval::{EvalRecord, Ranking, TruncatedTies, evaluate, markdown_table};
    /// let rankings = [Ranking::new(vec![1, 0], vec![0.7, 0.3])?];
    /// let metrics = evaluate(&rankings, &[[1]], 2, TruncatedTies::Listed)?.metrics();
    /// let record = EvalRecord::new("toy", "all", "BM25", &metrics).with_seed(7).with_seconds(0.5);
    /// assert!(markdown_table(&[record]).contains("| toy | all | BM25 | 100.0 |"));
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn new(
        dataset: impl Into<String>,
        protocol: impl Into<String>,
        method: impl Into<String>,
        metrics: &Metrics,
    ) -> Self {
        Self {
            dataset: dataset.into(),
            protocol: protocol.into(),
            method: method.into(),
            recall_at_1: metrics.recall_at_1,
            recall_at_5: metrics.recall_at_5,
            recall_at_10: metrics.recall_at_10,
            recall_at_50: metrics.recall_at_50,
            mrr_at_10: metrics.mrr_at_10,
            queries: metrics.queries,
            candidates: metrics.candidates,
            ..Self::default()
        }
    }

    /// Sets the seed.
    pub fn with_seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// Sets the time taken, in seconds.
    pub fn with_seconds(self, seconds: f64) -> Self {
        Self { seconds, ..self }
    }

    /// Sets the confidence intervals.
    pub fn with_intervals(mut self, intervals: &Intervals) -> Self {
        self.recall_at_1_ci = Some([intervals.recall_at_1.low, intervals.recall_at_1.high]);
        self.recall_at_5_ci = Some([intervals.recall_at_5.low, intervals.recall_at_5.high]);
        self.recall_at_10_ci = Some([intervals.recall_at_10.low, intervals.recall_at_10.high]);
        self.recall_at_50_ci = intervals.recall_at_50.map(|i| [i.low, i.high]);
        self.mrr_at_10_ci = Some([intervals.mrr_at_10.low, intervals.mrr_at_10.high]);
        self
    }

    /// Names the machine.
    pub fn with_hardware(self, hardware: impl Into<String>) -> Self {
        Self { hardware: Some(hardware.into()), ..self }
    }

    /// Names the command that repeats the run.
    pub fn with_command(self, command: impl Into<String>) -> Self {
        Self { command: Some(command.into()), ..self }
    }

    /// The measures with their intervals, by the names of the fields in JSON.
    fn measures(&self) -> [Measure; 5] {
        [
            ("recall@1", Some(self.recall_at_1), self.recall_at_1_ci),
            ("recall@5", Some(self.recall_at_5), self.recall_at_5_ci),
            ("recall@10", Some(self.recall_at_10), self.recall_at_10_ci),
            ("recall@50", self.recall_at_50, self.recall_at_50_ci),
            ("mrr@10", Some(self.mrr_at_10), self.mrr_at_10_ci),
        ]
    }

    fn validate(&self, position: usize) -> Result<()> {
        let mut values = Vec::new();
        for (name, value, interval) in self.measures() {
            values.extend(value.map(|value| (name.to_string(), value)));
            let ends = interval.into_iter().flatten();
            values.extend(ends.map(|end| (format!("{name}_ci"), end)));
        }
        let share = |value: f64| (-1e-9..=1.0 + 1e-9).contains(&value);
        let wrong = values.iter().find(|(_, value)| !share(*value));
        let (name, value, expected) = match wrong {
            Some((name, value)) => (name.as_str(), *value, "a share between 0 and 1"),
            None if self.seconds.is_finite() && self.seconds >= 0.0 => return Ok(()),
            None => ("seconds", self.seconds, "0 or more"),
        };
        Err(Error::query(format!("record {position}, {name}"))
            .expected(expected)
            .found(value.to_string())
            .fix("JSON has no NaN: correct the evaluation before writing it"))
    }
}

/// Writes records as a JSON array, replacing the file in one step.
///
/// # Errors
/// [`Error::Query`] when a value is not finite or out of range; [`Error::Io`] when the file cannot
/// be written, which then holds what it held before.
///
/// # Example
/// ```
/// use cart_retrieval::{expert::read_json, eval::write_json};
/// let folder = tempfile::tempdir().unwrap();
/// let path = folder.path().join("results.json");
/// write_json(&path, &[])?;
/// assert!(read_json(&path)?.is_empty());
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
pub fn write_json(path: impl AsRef<Path>, records: &[EvalRecord]) -> Result<()> {
    let path = path.as_ref();
    records.iter().enumerate().try_for_each(|(position, record)| record.validate(position))?;
    let mut bytes = serde_json::to_vec_pretty(records)
        .map_err(|error| Error::io("write", path, error.into()))?;
    bytes.push(b'\n');
    write_bytes(path, &bytes)
}

/// Reads records that [`write_json`] wrote.
///
/// # Errors
/// [`Error::Io`] when the file cannot be read; [`Error::Query`] when it holds no such records.
pub fn read_json(path: impl AsRef<Path>) -> Result<Vec<EvalRecord>> {
    let path = path.as_ref();
    let bytes = std::fs::read(path).map_err(|error| Error::io("read", path, error))?;
    serde_json::from_slice(&bytes).map_err(|error| {
        Error::query(path.display().to_string())
            .expected("a JSON array of evaluation records")
            .found(error.to_string())
            .fix("write it again with write_json")
    })
}

/// The records as a Markdown table, one row each, shares in percent.
///
/// The Recall@50 column appears when a record has it; intervals follow their value in brackets.
pub fn markdown_table(records: &[EvalRecord]) -> String {
    let fifty = records.iter().any(|record| record.recall_at_50.is_some());
    let mut header = vec!["dataset", "protocol", "method", "R@1", "R@5", "R@10"];
    if fifty {
        header.push("R@50");
    }
    header.extend(["MRR@10", "queries", "candidates", "seed", "seconds"]);
    let aligns = (0..header.len()).map(|column| if column < 3 { "---" } else { "---:" });
    let mut table = format!("| {} |\n", header.join(" | "));
    table.push_str(&format!("|{}|\n", aligns.collect::<Vec<_>>().join("|")));
    for record in records {
        let mut cells: Vec<String> =
            [&record.dataset, &record.protocol, &record.method].map(|text| escape(text)).into();
        let measures = record.measures().into_iter();
        let shown = measures.filter(|(name, ..)| fifty || *name != "recall@50");
        cells.extend(shown.map(|(_, value, interval)| {
            value.map_or(String::new(), |value| percent(value, interval))
        }));
        cells.extend([record.queries, record.candidates].map(|count| count.to_string()));
        cells.extend([record.seed.to_string(), format!("{:.1}", record.seconds)]);
        table.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
    table
}

fn percent(value: f64, interval: Option<[f64; 2]>) -> String {
    match interval {
        Some([low, high]) => {
            format!("{:.1} [{:.1}, {:.1}]", 100.0 * value, 100.0 * low, 100.0 * high)
        }
        None => format!("{:.1}", 100.0 * value),
    }
}

/// Keeps a text within its cell.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('|', "\\|").replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::Interval;

    fn record() -> EvalRecord {
        let metrics = Metrics {
            recall_at_1: 0.5,
            recall_at_5: 0.75,
            recall_at_10: 1.0,
            recall_at_50: None,
            mrr_at_10: 0.625,
            queries: 4,
            candidates: 9,
        };
        EvalRecord::new("flickr", "last caption", "a|b", &metrics).with_seed(3).with_seconds(1.25)
    }

    fn intervals() -> Intervals {
        let interval = Interval { mean: 0.5, low: 0.25, high: 0.75 };
        Intervals {
            recall_at_1: interval,
            recall_at_5: interval,
            recall_at_10: interval,
            recall_at_50: Some(interval),
            mrr_at_10: interval,
        }
    }

    #[test]
    fn keys_are_those_that_readers_expect() {
        let value = serde_json::to_value(record()).unwrap();
        let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        let mut expected = [
            "dataset",
            "protocol",
            "method",
            "recall@1",
            "recall@5",
            "recall@10",
            "mrr@10",
            "queries",
            "candidates",
            "seed",
            "seconds",
        ];
        expected.sort_unstable();
        assert_eq!(keys, expected);
        let full = record().with_intervals(&intervals()).with_hardware("cpu").with_command("run");
        let value = serde_json::to_value(full).unwrap();
        for key in ["recall@1_ci", "recall@5_ci", "recall@10_ci", "recall@50_ci", "mrr@10_ci"] {
            assert_eq!(value[key], serde_json::json!([0.25, 0.75]), "{key}");
        }
        assert_eq!(
            (value["hardware"].as_str(), value["command"].as_str()),
            (Some("cpu"), Some("run"))
        );
    }

    #[test]
    fn files_round_trip_and_refuse_nan() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.json");
        let records = [record(), record().with_intervals(&intervals())];
        write_json(&path, &records).unwrap();
        assert_eq!(read_json(&path).unwrap(), records);
        let message = write_json(&path, &[record().with_seconds(f64::NAN)]).unwrap_err();
        assert!(message.to_string().contains("record 0, seconds"), "{message}");
        let mut wrong = record();
        wrong.recall_at_5 = 75.0;
        assert!(write_json(&path, &[wrong]).unwrap_err().to_string().contains("recall@5"));
        assert_eq!(read_json(&path).unwrap(), records);
        std::fs::write(&path, "{}").unwrap();
        assert!(read_json(&path).is_err());
    }

    #[test]
    fn table_escapes_and_shows_intervals() {
        let mut with = record().with_intervals(&intervals());
        with.recall_at_50 = Some(1.0);
        let table = markdown_table(&[record(), with]);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(
            lines[2],
            "| flickr | last caption | a\\|b | 50.0 | 75.0 | 100.0 |  | 62.5 | 4 | 9 | 3 | 1.2 |"
        );
        assert!(lines[3].contains("| 50.0 [25.0, 75.0] |") && lines[0].contains("| R@50 |"));
        assert!(!markdown_table(&[record()]).contains("R@50"));
    }
}
