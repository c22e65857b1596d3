//! Bootstrap confidence intervals over queries (Efron and Tibshirani 1993, chapters 13 and 16).

use std::fmt;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::metrics::{Metric, QueryScores};
use crate::error::{Error, Result, ensure_in};

/// Settings of the bootstrap.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BootstrapConfig {
    /// Number of resamples.
    pub resamples: usize,
    /// Confidence level, between 0 and 1.
    pub level: f64,
    /// Seed of the generator; the same seed gives the same interval on any number of threads.
    pub seed: u64,
}

impl Default for BootstrapConfig {
    fn default() -> Self {
        Self { resamples: 1000, level: 0.95, seed: 0 }
    }
}

/// A mean and its percentile interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Mean over the queries.
    pub mean: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// An interval for every metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Intervals {
    /// Recall@1.
    pub recall_at_1: Interval,
    /// Recall@5.
    pub recall_at_5: Interval,
    /// Recall@10.
    pub recall_at_10: Interval,
    /// Recall@50, where the lists are long enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recall_at_50: Option<Interval>,
    /// MRR@10.
    pub mrr_at_10: Interval,
}

/// How far one system is ahead of another on the same queries.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PairedDifference {
    /// Mean difference, first minus second, and its interval.
    pub difference: Interval,
    /// Two-sided chance of a difference at least this large if the systems were equally good.
    pub p_value: f64,
    /// Number of queries.
    pub queries: usize,
}

impl BootstrapConfig {
    /// Sets the seed.
    pub fn with_seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// [`Error::Config`] for no resamples or a level that is not between 0 and 1.
    pub fn validate(&self) -> Result<()> {
        ensure_in("resamples", self.resamples as f64, "[1, inf)", "use 1000")?;
        ensure_in("level", self.level, "(0, 1)", "use 0.95")
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [mean, low, high] = [self.mean, self.low, self.high].map(|value| 100.0 * value);
        write!(f, "{mean:.1}% [{low:.1}, {high:.1}]")
    }
}

/// The percentile interval of a mean of per-query values.
///
/// # Errors
/// [`Error::Config`] for a bad setting; [`Error::Query`] when there is no value or one is not finite.
///
/// # Example
/// ```
/// use cart_retrieval::expert::{BootstrapConfig, bootstrap_mean};
/// let values: Vec<f64> = (0..100).map(|query| f64::from(query % 2)).collect();
/// let interval = bootstrap_mean(&values, &BootstrapConfig::default())?;
/// assert!(interval.low > 0.3 && interval.high < 0.7);
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
pub fn bootstrap_mean(values: &[f64], config: &BootstrapConfig) -> Result<Interval> {
    config.validate()?;
    check_values(values)?;
    Ok(interval(values, &mut resampled_means(values, config), config.level))
}

/// An interval for every metric; all metrics see the same resamples.
///
/// # Errors
/// As [`bootstrap_mean`].
pub fn bootstrap(scores: &QueryScores, config: &BootstrapConfig) -> Result<Intervals> {
    let of = |values: &[f64]| bootstrap_mean(values, config);
    Ok(Intervals {
        recall_at_1: of(&scores.recall_at_1)?,
        recall_at_5: of(&scores.recall_at_5)?,
        recall_at_10: of(&scores.recall_at_10)?,
        recall_at_50: scores.recall_at_50.as_deref().map(of).transpose()?,
        mrr_at_10: of(&scores.mrr_at_10)?,
    })
}

/// Compares two systems on the same queries, in the same order.
///
/// Resamples the per-query differences. The p-value counts resampled means that lie as far from the
/// observed mean as that lies from zero, with one added to both counts so that it is never 0.
///
/// # Errors
/// As [`bootstrap_mean`], and [`Error::Query`] when the numbers of queries differ or one system has
/// no value for the metric.
///
/// # Example
/// ```
/// use cart_retrieval::{expert::{BootstrapConfig, Metric},
///     eval::{Ranking, TruncatedTies, evaluate, paired_bootstrap}};
/// let right = vec![Ranking::new(vec![0, 1], vec![1.0, 0.0])?; 20];
/// let wrong = vec![Ranking::new(vec![1, 0], vec![1.0, 0.0])?; 20];
/// let relevant = vec![[0]; 20];
/// let first = evaluate(&right, &relevant, 2, TruncatedTies::Listed)?;
/// let second = evaluate(&wrong, &relevant, 2, TruncatedTies::Listed)?;
/// let found = paired_bootstrap(&first, &second, Metric::RecallAt1, &BootstrapConfig::default())?;
/// assert!(found.difference.mean == 1.0 && found.p_value < 0.01);
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
pub fn paired_bootstrap(
    first: &QueryScores,
    second: &QueryScores,
    metric: Metric,
    config: &BootstrapConfig,
) -> Result<PairedDifference> {
    config.validate()?;
    let (Some(first), Some(second)) = (first.values(metric), second.values(metric)) else {
        return Err(Error::query(metric.name())
            .expected("lists that are long enough in both systems")
            .found("shorter lists")
            .fix("request more items from both systems, or compare another metric"));
    };
    if first.len() != second.len() {
        return Err(Error::query("paired bootstrap")
            .expected("the same queries for both systems")
            .found(format!("{} and {} queries", first.len(), second.len()))
            .fix("evaluate both systems on one list of queries"));
    }
    let differences: Vec<f64> = first.iter().zip(second).map(|(a, b)| a - b).collect();
    check_values(&differences)?;
    let mut means = resampled_means(&differences, config);
    let difference = interval(&differences, &mut means, config.level);
    // Rounding must not decide whether a resample is as far off as the observed mean.
    let bound = difference.mean.abs() - 1e-12;
    let extreme = means.iter().filter(|mean| (*mean - difference.mean).abs() >= bound).count();
    let p_value = (extreme + 1) as f64 / (means.len() + 1) as f64;
    Ok(PairedDifference { difference, p_value, queries: differences.len() })
}

fn check_values(values: &[f64]) -> Result<()> {
    if values.is_empty() || values.iter().any(|value| !value.is_finite()) {
        return Err(Error::query("bootstrap")
            .expected("at least one value, and all finite")
            .found(format!("{} values", values.len()))
            .fix("evaluate at least one query, and look for NaN"));
    }
    Ok(())
}

/// One stream of the generator for each resample, so that threads do not change the result.
fn resampled_means(values: &[f64], config: &BootstrapConfig) -> Vec<f64> {
    (0..config.resamples)
        .into_par_iter()
        .map(|resample| {
            let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
            rng.set_stream(resample as u64);
            let sum: f64 = values.iter().map(|_| values[rng.random_range(0..values.len())]).sum();
            sum / values.len() as f64
        })
        .collect()
}

fn interval(values: &[f64], means: &mut [f64], level: f64) -> Interval {
    means.sort_unstable_by(f64::total_cmp);
    let tail = (1.0 - level) / 2.0;
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    Interval { mean, low: quantile(means, tail), high: quantile(means, 1.0 - tail) }
}

/// Linear interpolation between the two nearest of the sorted values.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let below = place.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (place - below as f64) * (sorted[above] - sorted[below])
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_relative_eq;
    use proptest::prelude::*;

    fn scores(values: &[f64]) -> QueryScores {
        QueryScores {
            recall_at_1: values.to_vec(),
            recall_at_5: values.to_vec(),
            recall_at_10: values.to_vec(),
            recall_at_50: None,
            mrr_at_10: values.to_vec(),
            candidates: 10,
        }
    }

    #[test]
    fn quantiles_interpolate() {
        assert_relative_eq!(quantile(&[0.0, 1.0, 2.0], 0.75), 1.5);
        assert_relative_eq!(quantile(&[3.0], 0.2), 3.0);
    }

    #[test]
    fn interval_has_the_width_of_the_normal_one() {
        let values: Vec<f64> = (0..400).map(|n| f64::from(n % 4 == 0)).collect();
        let config = BootstrapConfig { resamples: 4000, seed: 3, ..Default::default() };
        let found = bootstrap_mean(&values, &config).unwrap();
        let half = 1.96 * (0.25f64 * 0.75 / 400.0).sqrt();
        assert_relative_eq!(found.mean, 0.25);
        assert_relative_eq!(found.low, 0.25 - half, epsilon = 0.006);
        assert_relative_eq!(found.high, 0.25 + half, epsilon = 0.006);
        assert!(found.to_string().starts_with("25.0% ["));
        let all = bootstrap(&scores(&values), &config).unwrap();
        assert_eq!(all.mrr_at_10, found);
        assert!(all.recall_at_50.is_none());
    }

    #[test]
    fn pairs_tell_equal_from_better() {
        let config = BootstrapConfig::default();
        let even: Vec<f64> = (0..200).map(|n| f64::from(n % 2)).collect();
        let odd: Vec<f64> = even.iter().map(|value| 1.0 - value).collect();
        let better: Vec<f64> = (0..200).map(|n| f64::from(n % 2 == 1 || n % 5 == 0)).collect();
        let p = |a: &[f64], b: &[f64]| {
            paired_bootstrap(&scores(a), &scores(b), Metric::MrrAt10, &config).unwrap().p_value
        };
        assert_eq!(p(&even, &even), 1.0);
        assert!(p(&even, &odd) > 0.9);
        assert!(p(&better, &even) < 0.01);
    }

    #[test]
    fn bad_input_is_refused() {
        let config = BootstrapConfig::default();
        assert!(bootstrap_mean(&[], &config).is_err());
        assert!(bootstrap_mean(&[f64::NAN], &config).is_err());
        assert!(
            bootstrap_mean(&[1.0], &BootstrapConfig { resamples: 0, ..config.clone() }).is_err()
        );
        for level in [0.0, 1.0, f64::NAN] {
            assert!(bootstrap_mean(&[1.0], &BootstrapConfig { level, ..config.clone() }).is_err());
        }
        let (one, two) = (scores(&[1.0]), scores(&[1.0, 0.0]));
        assert!(paired_bootstrap(&one, &two, Metric::RecallAt1, &config).is_err());
        assert!(paired_bootstrap(&one, &one, Metric::RecallAt50, &config).is_err());
    }

    proptest! {
        #[test]
        fn intervals_are_ordered_seeded_and_within_range(
            values in prop::collection::vec(0.0f64..1.0, 1..40), seed in any::<u64>(),
        ) {
            let config = BootstrapConfig { resamples: 50, seed, ..Default::default() };
            let found = bootstrap_mean(&values, &config).unwrap();
            prop_assert_eq!(found, bootstrap_mean(&values, &config).unwrap());
            let least = values.iter().copied().fold(f64::MAX, f64::min);
            let most = values.iter().copied().fold(f64::MIN, f64::max);
            prop_assert!(least - 1e-9 <= found.low && found.low <= found.high);
            prop_assert!(found.high <= most + 1e-9);
        }
    }
}
