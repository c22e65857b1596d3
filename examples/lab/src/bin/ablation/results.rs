//! Finished runs: a file each, so that what is done stays done.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use cart_retrieval::{eval::EvalRecord, members::write_bytes};
use serde::{Deserialize, Serialize};

use crate::rows::Row;

/// What one row measured with one seed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finished {
    pub row: Row,
    /// Checksum of settings and data.
    pub settings: String,
    /// Seconds of training the network.
    pub training_seconds: f64,
    /// Percentage of the queries with a right item anywhere in the beam.
    pub in_beam: f64,
    /// Share of the candidates that share their semantic tokens with others.
    pub shared_share: f64,
    pub record: EvalRecord,
}

impl Finished {
    /// Where a run lies.
    pub fn path(out: &Path, row: Row, seed: u64) -> PathBuf {
        out.join("runs").join(format!("{}-seed-{seed}.json", row.name()))
    }

    /// The run of a row and seed, if it is done; refused when it is of other settings.
    pub fn read(out: &Path, row: Row, seed: u64, settings: &str) -> Result<Option<Self>> {
        let path = Self::path(out, row, seed);
        let bytes = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            result => result.with_context(|| format!("cannot read {}", path.display()))?,
        };
        let found: Self = serde_json::from_slice(&bytes).with_context(|| {
            format!("{}: expected a run of `ablation`; remove it to run it again", path.display())
        })?;
        ensure!(
            found.settings == settings && found.row == row && found.record.seed == seed,
            "{}: expected a run of {} with seed {seed} and settings {}, found one of {} with seed {} and settings {}; \
             recipe, --set, data or version have changed: choose another --out, or remove the file to run it again",
            path.display(),
            row.name(),
            &settings[..12],
            found.row.name(),
            found.record.seed,
            found.settings.get(..12).unwrap_or("without a checksum")
        );
        Ok(Some(found))
    }

    /// Writes the run in one step.
    pub fn write(&self, out: &Path) -> Result<()> {
        let path = Self::path(out, self.row, self.record.seed);
        let folder = path.parent().context("a run lies in a folder")?;
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        Ok(write_bytes(&path, &serde_json::to_vec_pretty(self)?)?)
    }
}

/// Mean and sample deviation over seeds; no deviation of a single one.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Spread {
    pub mean: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deviation: Option<f64>,
}

impl Spread {
    /// Of at least one value.
    fn of(values: &[f64]) -> Self {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        Self { mean, deviation: (values.len() > 1).then(|| (squares / (n - 1.0)).sqrt()) }
    }

    /// In percent, with a digit.
    fn percent(self) -> String {
        match self.deviation {
            Some(deviation) => format!("{:.1} ± {:.1}", 100.0 * self.mean, 100.0 * deviation),
            None => format!("{:.1}", 100.0 * self.mean),
        }
    }
}

/// A row of the table.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    pub row: Row,
    pub title: &'static str,
    pub seeds: Vec<u64>,
    #[serde(rename = "recall@1")]
    pub recall_at_1: Spread,
    #[serde(rename = "recall@5")]
    pub recall_at_5: Spread,
    #[serde(rename = "recall@10")]
    pub recall_at_10: Spread,
    #[serde(rename = "mrr@10")]
    pub mrr_at_10: Spread,
    /// Recall@1 less that of the full method, over the seeds that both have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_full: Option<Spread>,
    pub shared_share: f64,
    /// Of one seed.
    pub seconds: f64,
}

/// The table of all runs, in the order of the rows.
pub fn summaries(rows: &[Row], runs: &[Finished]) -> Vec<Summary> {
    let of = |row: Row| runs.iter().filter(move |run| run.row == row);
    let summary = |&row: &Row| {
        let spread = |value: fn(&EvalRecord) -> f64| {
            Spread::of(&of(row).map(|run| value(&run.record)).collect::<Vec<f64>>())
        };
        let mean = |value: fn(&Finished) -> f64| {
            Spread::of(&of(row).map(value).collect::<Vec<f64>>()).mean
        };
        let differences: Vec<f64> = of(row)
            .filter_map(|run| {
                let same = of(Row::Full).find(|full| full.record.seed == run.record.seed)?;
                Some(run.record.recall_at_1 - same.record.recall_at_1)
            })
            .collect();
        let compared = row != Row::Full && !differences.is_empty();
        Summary {
            row,
            title: row.title(),
            seeds: of(row).map(|run| run.record.seed).collect(),
            recall_at_1: spread(|record| record.recall_at_1),
            recall_at_5: spread(|record| record.recall_at_5),
            recall_at_10: spread(|record| record.recall_at_10),
            mrr_at_10: spread(|record| record.mrr_at_10),
            to_full: compared.then(|| Spread::of(&differences)),
            shared_share: mean(|run| run.shared_share),
            seconds: mean(|run| run.record.seconds),
        }
    };
    rows.iter().filter(|&&row| of(row).next().is_some()).map(summary).collect()
}

/// The table as Markdown.
pub fn markdown(table: &[Summary], runs: &[Finished], note: &str) -> String {
    let mut text = String::from("# Ablation\n\n");
    if let Some(run) = runs.first() {
        let EvalRecord { dataset, protocol, queries, candidates, hardware, .. } = &run.record;
        let hardware = hardware.as_deref().unwrap_or("hardware unknown");
        text.push_str(&format!(
            "{dataset}, {protocol}: {queries} queries, {candidates} candidates. {hardware}.\n\n{note}\n\n"
        ));
    }
    text.push_str("| row | R@1 | R@5 | R@10 | MRR@10 | R@1 to full | shared tokens | seeds | minutes a seed |\n");
    text.push_str("|---|---:|---:|---:|---:|---:|---:|---|---:|\n");
    for row in table {
        let seeds: Vec<String> = row.seeds.iter().map(u64::to_string).collect();
        text.push_str(&format!(
            "| {} | {} | {} | {} | {} | {} | {:.1} % | {} | {:.1} |\n",
            row.title,
            row.recall_at_1.percent(),
            row.recall_at_5.percent(),
            row.recall_at_10.percent(),
            row.mrr_at_10.percent(),
            row.to_full.map_or_else(String::new, signed),
            100.0 * row.shared_share,
            seeds.join(", "),
            row.seconds / 60.0
        ));
    }
    text.push_str(
        "\nPercent; means, and sample deviations over the seeds. *R@1 to full*: difference to the \
         full method, seed by seed. *Shared tokens*: candidates that need a unique token because \
         another one has the same semantic tokens.\n",
    );
    text
}

fn signed(spread: Spread) -> String {
    let sign = if spread.mean > 0.0 { "+" } else { "" };
    format!("{sign}{}", spread.percent())
}
