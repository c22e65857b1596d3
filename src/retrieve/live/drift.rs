//! How far a collection has come away from what its quantizer was fitted on.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::change::ChangeStats;
use crate::{
    error::{Result, ensure_in, named},
    index::HealthReport,
};

/// When a [`DriftReport`] recommends a refit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DriftThresholds {
    /// Minimum number of added candidates before their error counts.
    pub min_added: u64,
    /// Maximum mean error of added candidates, relative to that at fit.
    pub max_error_ratio: f64,
    /// Most of them, as a share, that may find their tokens in use beyond the share of the fit.
    pub max_more_shared: f64,
    /// Most of them, as a share, that may have taken a neighbouring code.
    pub max_spilled: f64,
    /// Most that they may be of all candidates, as a share.
    pub max_added: f64,
}

impl Default for DriftThresholds {
    fn default() -> Self {
        Self {
            min_added: 50,
            max_error_ratio: 1.5,
            max_more_shared: 0.1,
            max_spilled: 0.05,
            max_added: 0.5,
        }
    }
}

/// Added candidates compared with those that the quantizer was fitted on (ours).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DriftReport {
    /// Candidates of the fit.
    pub fitted: usize,
    /// Candidates now.
    pub candidates: usize,
    /// Candidates added and removed.
    #[serde(rename = "growth")]
    pub stats: ChangeStats,
    /// Mean squared reconstruction error at fit; absent in indexes of older versions.
    pub fitted_error: Option<f64>,
    /// Mean squared reconstruction error of added candidates; absent without any.
    pub added_error: Option<f64>,
    /// Share of the candidates at fit that share their semantic tokens with another one.
    pub fitted_shared: f64,
    /// Share of added candidates whose semantic tokens were already in use; absent without any.
    pub added_shared: Option<f64>,
    /// Reasons to refit the quantizer and retrain; empty if no refit is needed.
    pub reasons: Vec<String>,
}

impl DriftReport {
    pub(in crate::retrieve) fn new(
        health: &HealthReport,
        candidates: usize,
        stats: ChangeStats,
        thresholds: &DriftThresholds,
    ) -> Result<Self> {
        let DriftThresholds { min_added, max_error_ratio, max_more_shared, max_spilled, max_added } =
            *thresholds;
        for (name, bound) in
            named!(thresholds, max_error_ratio, max_more_shared, max_spilled, max_added)
        {
            ensure_in(name, bound, "[0, inf]", "DriftThresholds::default() is a start")?;
        }
        let share = |count: u64| (stats.added > 0).then(|| count as f64 / stats.added as f64);
        let added_error = share(1).map(|one| stats.error * one);
        let (added_shared, spilled) = (share(stats.shared), share(stats.spilled).unwrap_or(0.0));
        let mut reasons = Vec::new();
        if stats.added >= min_added {
            if let (Some(fitted), Some(added)) = (health.mean_error, added_error)
                && added > max_error_ratio * fitted
            {
                reasons.push(format!(
                    "reconstruction error of added candidates is {:.2}x that at fit",
                    added / fitted
                ));
            }
            if let Some(shared) =
                added_shared.filter(|s| *s > health.shared_share + max_more_shared)
            {
                reasons.push(format!(
                    "{:.1} % of added candidates share their codes with another one, {:.1} % at \
                     fit",
                    100.0 * shared,
                    100.0 * health.shared_share
                ));
            }
            if spilled > max_spilled {
                reasons.push(format!(
                    "{:.1} % of added candidates found no free unique token and have a \
                     neighbouring code",
                    100.0 * spilled
                ));
            }
            if stats.added as f64 > max_added * candidates as f64 {
                reasons.push(format!(
                    "{} of now {candidates} candidates were added after the fit",
                    stats.added
                ));
            }
        }
        Ok(Self {
            fitted: health.items,
            candidates,
            stats,
            fitted_error: health.mean_error,
            added_error,
            fitted_shared: health.shared_share,
            added_shared,
            reasons,
        })
    }
}

impl fmt::Display for DriftReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ChangeStats { added, removed, spilled, .. } = self.stats;
        let error = |error: Option<f64>| error.map_or("unknown".into(), |e| format!("{e:.4}"));
        writeln!(
            f,
            "{} candidates; {} at fit, {added} added, {removed} removed",
            self.candidates, self.fitted
        )?;
        writeln!(
            f,
            "mean squared error: {} at fit, {} of added candidates",
            error(self.fitted_error),
            error(self.added_error)
        )?;
        writeln!(
            f,
            "shared codes: {:.1} % at fit, {} of added candidates; {spilled} have a neighbouring \
             code",
            100.0 * self.fitted_shared,
            self.added_shared.map_or("unknown".into(), |s| format!("{:.1} %", 100.0 * s))
        )?;
        if self.reasons.is_empty() {
            return write!(f, "no refit needed");
        }
        write!(f, "refit: {}", self.reasons.join("; "))
    }
}
