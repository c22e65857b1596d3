//! How well a quantizer uses its codes, and whether that is enough to train a decoder on.

use std::fmt;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    identifier::Codes,
};

/// How well one level uses its codes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LevelHealth {
    /// Number of codes of the level.
    pub size: usize,
    /// Codes that at least one item has.
    pub used: usize,
    /// `used` relative to the most codes that could be used: the smaller of `size` and the items; 1
    /// where the levels before left nothing to describe.
    pub used_share: f64,
    /// Entropy of the use of codes, in bits.
    pub entropy: f64,
    /// Entropy relative to that of even use of as many codes as could be used, 0 to 1; 1 where the
    /// levels before left nothing to describe.
    pub normalised_entropy: f64,
    /// Two to the power of the entropy: how many codes, evenly used, would be as varied.
    pub perplexity: f64,
    /// Gini coefficient of the use of the codes that could be used: 0 when even, towards 1 when
    /// one code has all items.
    pub gini: f64,
    /// Squared error left after this level, relative to the variance of the rows around their mean.
    pub residual_energy: f64,
}

/// Health of a quantizer on the items it is to name.
///
/// A collapsed quantizer (few codes used, or many items with one code) cannot be repaired by
/// training the decoder longer, so look here before training.
///
/// # Example
/// ```
/// use cart_retrieval::{index::{HealthReport, HealthThresholds},
///     quantizer::{KMeansConfig, Quantizer}};
/// let rows = [0.0, 1.0, 10.0, 11.0];
/// let quantizer = KMeansConfig::new(4).fit(&rows, 1)?;
/// let report = HealthReport::new(&quantizer, &rows, &quantizer.encode(&rows)?)?;
/// assert_eq!(report.levels[0].used, 4);
/// report.ensure(&HealthThresholds::default())?;
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthReport {
    /// Number of items.
    pub items: usize,
    /// One entry for each level.
    pub levels: Vec<LevelHealth>,
    /// Share of items whose whole code no other item has.
    pub unique_share: f64,
    /// Share of items that have their whole code in common with another item.
    pub shared_share: f64,
    /// Most items with one and the same whole code.
    pub largest_collision: usize,
    /// Mean squared distance of an item to what its whole code stands for; absent in reports of
    /// older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean_error: Option<f64>,
    /// Bits that unique tokens have to add, per item: the mean of the binary logarithm of the
    /// number of items with the same whole code. It is what telling collisions apart costs a
    /// decoder. Absent in reports of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unique_bits: Option<f64>,
    /// Share of an item's ten nearest items that are also among the ten nearest by what their codes
    /// stand for, in a sample of at most 1,000; absent unless measured
    /// ([`HealthReport::with_neighbours`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub neighbour_recall: Option<f64>,
    /// Correlation of the squared distances of two items with those of what their codes stand for,
    /// over all pairs of that sample; absent unless measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distance_correlation: Option<f64>,
}

impl HealthReport {
    /// The report from the sums of blocks and all codes, at least one.
    pub(crate) fn of_tallies(sizes: &[usize], codes: &Codes, tallies: &[Tally]) -> Self {
        let energies = shares(tallies);
        let levels = sizes
            .iter()
            .zip(&energies)
            .enumerate()
            .map(|(level, (&size, &energy))| {
                let nothing_left = level > 0 && energies[level - 1] == 0.0;
                level_health(codes, level, size, energy, nothing_left)
            })
            .collect();
        let mut order: Vec<u32> = (0..codes.len() as u32).collect();
        let row = |item: u32| codes.row(item as usize);
        order.par_sort_unstable_by(|&a, &b| row(a).cmp(row(b)));
        let runs = || order.chunk_by(|&a, &b| row(a) == row(b)).map(<[u32]>::len);
        let (n, unique) = (codes.len(), runs().filter(|&count| count == 1).count());
        let last = |tally: &Tally| tally.errors.last().copied().unwrap_or(0.0);
        let error: f64 = tallies.iter().map(last).sum();
        let bits: f64 = runs().map(|count| count as f64 * (count as f64).log2()).sum();
        Self {
            items: n,
            levels,
            unique_share: unique as f64 / n as f64,
            shared_share: (n - unique) as f64 / n as f64,
            largest_collision: runs().max().unwrap_or(0),
            mean_error: Some(error / n as f64),
            unique_bits: Some(bits / n as f64),
            neighbour_recall: None,
            distance_correlation: None,
        }
    }

    /// Refuses a quantizer that is less healthy than the thresholds ask for.
    ///
    /// # Errors
    /// [`Error::Collapsed`] naming the first level and figure out of bounds, and what to change.
    pub fn ensure(&self, thresholds: &HealthThresholds) -> Result<()> {
        let plain = |level: usize| (format!("level {level}"), format!("sizes[{level}]"));
        self.ensure_named(thresholds, &plain)
    }

    /// As [`HealthReport::ensure`]; `name` gives a level's name and that of the setting of its
    /// size.
    pub(crate) fn ensure_named(
        &self,
        thresholds: &HealthThresholds,
        name: &dyn Fn(usize) -> (String, String),
    ) -> Result<()> {
        for (level, health) in self.levels.iter().enumerate() {
            let (subject, setting) = name(level);
            health.ensure(subject, &setting, thresholds)?;
        }
        let subject = format!("whole codes of {} levels", self.levels.len());
        let remedy = format!(
            "add a level to sizes, or remove duplicated items; or set max_shared_items to \
                     {:.2} (unique tokens tell \
                     such items apart)",
            rounded_up(self.shared_share)
        );
        Error::collapsed(&subject)
            .expected(format!(
                "at most {} sharing their code",
                percent(thresholds.max_shared_items)
            ))
            .found(format!("{} of {} items", percent(self.shared_share), self.items))
            .fix_if(self.shared_share > thresholds.max_shared_items, remedy)?;
        Error::collapsed(subject)
            .expected(format!("at most {} items with one code", thresholds.max_largest_collision))
            .found(format!("{} items", self.largest_collision))
            .fix_if(
                self.largest_collision > thresholds.max_largest_collision,
                format!(
                    "add a level to sizes, or remove duplicated items; or set \
                     max_largest_collision to {}",
                    self.largest_collision
                ),
            )?;
        if let Some(last) = self.levels.last()
            && last.residual_energy > thresholds.max_residual_energy
        {
            return Err(Error::collapsed(format!("{}, the last", name(self.levels.len() - 1).0))
                .expected(format!(
                    "at most {} of the variance left",
                    percent(thresholds.max_residual_energy)
                ))
                .found(percent(last.residual_energy))
                .fix(format!(
                    "use more codes or levels, train longer, standardise the rows, or use another \
                     tokenizer (RQ-KMeans \
                     cannot do worse than the mean on its own rows); or set max_residual_energy \
                     to {:.2}",
                    rounded_up(last.residual_energy)
                )));
        }
        Ok(())
    }
}

impl LevelHealth {
    fn ensure(&self, subject: String, setting: &str, thresholds: &HealthThresholds) -> Result<()> {
        let subject = format!("{subject}, {setting} = {}", self.size);
        let remedy = format!(
            "use fewer codes: set {setting} to {} or less; or fit on more data, or with \
                     RQ-KMeans, which uses its codes; \
                     or set min_used_share to {:.2}",
            self.used.max(2),
            rounded_down(self.used_share)
        );
        Error::collapsed(&subject)
            .expected(format!(
                "at least {} of the usable codes used",
                percent(thresholds.min_used_share)
            ))
            .found(format!("{} codes, {}", self.used, percent(self.used_share)))
            .fix_if(self.used_share < thresholds.min_used_share, remedy)?;
        Error::collapsed(subject)
            .expected(format!(
                "normalised entropy of at least {}",
                thresholds.min_normalised_entropy
            ))
            .found(format!("{:.3} (perplexity {:.1})", self.normalised_entropy, self.perplexity))
            .fix_if(
                self.normalised_entropy < thresholds.min_normalised_entropy,
                format!(
                    "a few codes hold most items: use fewer codes (set {setting} to {} or less), \
                     and remove near-duplicates; or set min_normalised_entropy to {:.2}",
                    (self.perplexity as usize).clamp(2, self.size.max(2)),
                    rounded_down(self.normalised_entropy)
                ),
            )
    }
}

/// A bound in hundredths that a share keeps.
fn rounded_up(share: f64) -> f64 {
    (share * 100.0).ceil() / 100.0
}

fn rounded_down(share: f64) -> f64 {
    (share * 100.0).floor() / 100.0
}

/// Bounds for [`HealthReport::ensure`].
///
/// # Example
/// ```
/// use cart_retrieval::index::HealthThresholds;
/// let strict = HealthThresholds { min_used_share: 0.9, ..HealthThresholds::default() };
/// assert_eq!(strict.max_shared_items, 0.3);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HealthThresholds {
    /// Least share of usable codes in use, at each level.
    pub min_used_share: f64,
    /// Least normalised entropy, at each level.
    pub min_normalised_entropy: f64,
    /// Most items, as a share, that have their whole code in common with another.
    pub max_shared_items: f64,
    /// Most items with one and the same whole code.
    pub max_largest_collision: usize,
    /// Most variance left after the last level, as a share.
    pub max_residual_energy: f64,
}

impl Default for HealthThresholds {
    fn default() -> Self {
        Self {
            min_used_share: 0.5,
            min_normalised_entropy: 0.5,
            max_shared_items: 0.3,
            max_largest_collision: 256,
            max_residual_energy: 0.9,
        }
    }
}

/// What a block of rows adds to the figures of the whole.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tally {
    pub(crate) rows: usize,
    /// Mean of the rows, `[dim]`.
    pub(crate) mean: Vec<f64>,
    /// Sum of squared distances of the rows to that mean.
    pub(crate) spread: f64,
    /// Sum of squared errors left after each level, `[levels]`.
    pub(crate) errors: Vec<f64>,
}

/// Squared error after each level, relative to the variance around the mean of all rows.
fn shares(tallies: &[Tally]) -> Vec<f64> {
    let Some(first) = tallies.first() else { return Vec::new() };
    let n: usize = tallies.iter().map(|tally| tally.rows).sum();
    let mut mean = vec![0.0; first.mean.len()];
    let mut errors = vec![0.0; first.errors.len()];
    for tally in tallies {
        let share = tally.rows as f64 / n as f64;
        mean.iter_mut().zip(&tally.mean).for_each(|(sum, value)| *sum += share * value);
        errors.iter_mut().zip(&tally.errors).for_each(|(sum, error)| *sum += error);
    }
    let between = |tally: &Tally| -> f64 {
        let gaps = tally.mean.iter().zip(&mean).map(|(a, b)| (a - b) * (a - b));
        tally.rows as f64 * gaps.sum::<f64>()
    };
    let variance: f64 = tallies.iter().map(|tally| tally.spread + between(tally)).sum();
    // Rows that are all alike have no variance: right is nothing left, wrong is all of it.
    let share = |error: f64| match (variance > 0.0, error > 0.0) {
        (true, _) => error / variance,
        (false, wrong) => f64::from(u8::from(wrong)),
    };
    errors.into_iter().map(share).collect()
}

fn level_health(
    codes: &Codes,
    level: usize,
    size: usize,
    residual_energy: f64,
    nothing_left: bool,
) -> LevelHealth {
    let mut counts = vec![0_usize; size];
    for row in codes.rows() {
        counts[usize::from(row[level])] += 1;
    }
    counts.sort_unstable_by(|a, b| b.cmp(a));
    let usable = size.min(codes.len());
    counts.truncate(usable);
    let used = counts.iter().filter(|&&count| count > 0).count();
    let n = codes.len() as f64;
    let shares = counts[..used].iter().map(|&count| count as f64 / n);
    // `0.0 -` and not a minus sign: no negative zero in the table.
    let entropy = (0.0 - shares.map(|share| share * share.log2()).sum::<f64>()).max(0.0);
    // With counts in falling order: sum over ranks i = 1.. of (m + 1 - 2i) count_i / (m n).
    let m = usable as f64;
    let ranks = counts.iter().enumerate();
    let gini =
        ranks.map(|(i, &count)| (m - 1.0 - 2.0 * i as f64) * count as f64).sum::<f64>() / (m * n);
    LevelHealth {
        size,
        used,
        // What the levels before describe exactly needs no further codes.
        used_share: if nothing_left { 1.0 } else { used as f64 / m },
        entropy,
        normalised_entropy: if usable > 1 && !nothing_left {
            (entropy / m.log2()).min(1.0)
        } else {
            1.0
        },
        perplexity: entropy.exp2(),
        gini: gini.max(0.0),
        residual_energy,
    }
}

fn percent(share: f64) -> String {
    format!("{:.1}%", share * 100.0)
}

impl fmt::Display for HealthReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "level   size   used  share  perplexity  entropy (of most)   gini  energy left"
        )?;
        for (level, health) in self.levels.iter().enumerate() {
            writeln!(
                f,
                "{level:>5} {:>6} {:>6} {:>6} {:>11.1} {:>8.2} {:>9} {:>6.3} {:>12}",
                health.size,
                health.used,
                percent(health.used_share),
                health.perplexity,
                health.entropy,
                format!("({:.3})", health.normalised_entropy),
                health.gini,
                percent(health.residual_energy),
            )?;
        }
        write!(
            f,
            "{} items: {} with a code of their own, {} sharing one, at most {} on one code",
            self.items,
            percent(self.unique_share),
            percent(self.shared_share),
            self.largest_collision
        )?;
        if let Some(bits) = self.unique_bits {
            write!(f, "; unique tokens add {bits:.2} bits an item")?;
        }
        if let (Some(recall), Some(correlation)) =
            (self.neighbour_recall, self.distance_correlation)
        {
            write!(
                f,
                "\nneighbours: {} of the ten nearest are kept by the codes, correlation of distances \
                 {correlation:.3}",
                percent(recall)
            )?;
        }
        Ok(())
    }
}
