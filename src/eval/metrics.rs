//! Recall@K and MRR@K, with tied scores counted at their expected value.
//!
//! Items with equal scores are in no particular order, so a metric that trusts the order of the
//! list rewards luck. Here every metric is its mean over all orders within each group of ties.
//! Let the first group that holds a relevant item begin after `s` items, hold `g` items, and `r`
//! relevant ones. The chance that none of the group's first `j` places holds a relevant item is
//!
//! ```text
//! miss(j) = C(g - r, j) / C(g, j) = (g-r)/g * (g-r-1)/(g-1) * ... * (g-r-j+1)/(g-j+1)
//! Recall@K = 1 - miss(min(K - s, g))                                      (0 when K <= s)
//! MRR@K    = sum over p = 1..min(K - s, g) of (miss(p-1) - miss(p)) / (s + p)
//! ```
//!
//! Recall@K is the convention of text-to-image retrieval: 1 when any relevant item is among the
//! first K. The share of relevant items found is [`recall_fraction_at_k`].

use std::fmt;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::ranking::{Ranking, duplicate};
use crate::error::{Error, Result};

/// What to assume when the list may end amid a group of equal scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TruncatedTies {
    /// Only listed items tie; items that are not listed come after all that are.
    #[default]
    Listed,
    /// Every candidate that is not listed ties with the last listed item. Right for a list that
    /// ends among the candidates of score zero of a word search.
    AllUnlisted,
}

/// A metric by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Metric {
    /// Recall@1.
    #[serde(rename = "recall@1")]
    RecallAt1,
    /// Recall@5.
    #[serde(rename = "recall@5")]
    RecallAt5,
    /// Recall@10.
    #[serde(rename = "recall@10")]
    RecallAt10,
    /// Recall@50.
    #[serde(rename = "recall@50")]
    RecallAt50,
    /// MRR@10.
    #[serde(rename = "mrr@10")]
    MrrAt10,
}

/// Means over all queries, from 0 to 1; shown in percent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Share of queries with a relevant item in the first place.
    pub recall_at_1: f64,
    /// Share of queries with a relevant item among the first 5.
    pub recall_at_5: f64,
    /// Share of queries with a relevant item among the first 10.
    pub recall_at_10: f64,
    /// Share of queries with a relevant item among the first 50; absent when no list is that long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recall_at_50: Option<f64>,
    /// Mean of 1 / place of the first relevant item, 0 beyond place 10.
    pub mrr_at_10: f64,
    /// Number of queries.
    pub queries: usize,
    /// Number of candidates that were searched.
    pub candidates: usize,
}

/// The value of every metric for every query, in the order of the queries.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct QueryScores {
    /// Recall@1 of each query.
    pub recall_at_1: Vec<f64>,
    /// Recall@5 of each query.
    pub recall_at_5: Vec<f64>,
    /// Recall@10 of each query.
    pub recall_at_10: Vec<f64>,
    /// Recall@50 of each query; absent when no list holds 50 items (or all candidates).
    pub recall_at_50: Option<Vec<f64>>,
    /// Reciprocal rank of each query, 0 beyond place 10.
    pub mrr_at_10: Vec<f64>,
    /// Number of candidates.
    pub candidates: usize,
}

impl Metric {
    /// All metrics, in the order of reports.
    pub const ALL: [Self; 5] =
        [Self::RecallAt1, Self::RecallAt5, Self::RecallAt10, Self::RecallAt50, Self::MrrAt10];

    /// The name in reports, such as "recall@1".
    pub fn name(self) -> &'static str {
        match self {
            Self::RecallAt1 => "recall@1",
            Self::RecallAt5 => "recall@5",
            Self::RecallAt10 => "recall@10",
            Self::RecallAt50 => "recall@50",
            Self::MrrAt10 => "mrr@10",
        }
    }
}

impl QueryScores {
    /// Number of queries.
    pub fn len(&self) -> usize {
        self.mrr_at_10.len()
    }

    /// Whether there is no query.
    pub fn is_empty(&self) -> bool {
        self.mrr_at_10.is_empty()
    }

    /// The values of one metric; `None` only for a Recall@50 that no list is long enough for.
    pub fn values(&self, metric: Metric) -> Option<&[f64]> {
        match metric {
            Metric::RecallAt1 => Some(&self.recall_at_1),
            Metric::RecallAt5 => Some(&self.recall_at_5),
            Metric::RecallAt10 => Some(&self.recall_at_10),
            Metric::RecallAt50 => self.recall_at_50.as_deref(),
            Metric::MrrAt10 => Some(&self.mrr_at_10),
        }
    }

    /// Means over the queries.
    pub fn metrics(&self) -> Metrics {
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
        Metrics {
            recall_at_1: mean(&self.recall_at_1),
            recall_at_5: mean(&self.recall_at_5),
            recall_at_10: mean(&self.recall_at_10),
            recall_at_50: self.recall_at_50.as_deref().map(mean),
            mrr_at_10: mean(&self.mrr_at_10),
            queries: self.len(),
            candidates: self.candidates,
        }
    }
}

impl fmt::Display for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let recalls = [
            ("R@1", Some(self.recall_at_1)),
            ("R@5", Some(self.recall_at_5)),
            ("R@10", Some(self.recall_at_10)),
            ("R@50", self.recall_at_50),
            ("MRR@10", Some(self.mrr_at_10)),
        ];
        for (name, value) in recalls.into_iter().filter_map(|(name, value)| Some((name, value?))) {
            write!(f, "{name} {:.1}%  ", 100.0 * value)?;
        }
        write!(f, "({} queries, {} candidates)", self.queries, self.candidates)
    }
}

/// Scores rankings, one a query, against the relevant items of each query.
///
/// Items that a short list leaves out count as not found.
///
/// # Errors
/// [`Error::Query`] when there is no query, the numbers of rankings and relevant sets differ, a
/// ranking is malformed, an item is not below `candidates`, or a relevant set is empty or lists an
/// item twice.
///
/// # Example
/// ```
/// use cart_retrieval::eval::{Ranking, TruncatedTies, evaluate};
/// let rankings = [
///     Ranking::new(vec![2, 0, 1], vec![0.9, 0.5, 0.1])?,
///     Ranking::new(vec![0, 1, 2], vec![0.5, 0.5, 0.1])?,
/// ];
/// let scores = evaluate(&rankings, &[[2], [1]], 3, TruncatedTies::Listed)?;
/// // The second query's item is first in one of the two orders of the tie.
/// assert_eq!(scores.metrics().recall_at_1, 0.75);
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
pub fn evaluate<R: AsRef<[u32]> + Sync>(
    rankings: &[Ranking],
    relevant: &[R],
    candidates: usize,
    ties: TruncatedTies,
) -> Result<QueryScores> {
    if rankings.is_empty() || rankings.len() != relevant.len() {
        return Err(Error::query("evaluation")
            .expected("at least one query, and a ranking and a relevant set for each")
            .found(format!("{} rankings and {} relevant sets", rankings.len(), relevant.len()))
            .fix("pass one relevant set for each ranking, in the same order"));
    }
    // Collected before looking for errors, so that the first query's error is always the one shown.
    let rows: Vec<Result<[f64; 5]>> = rankings
        .par_iter()
        .zip(relevant)
        .map(|(ranking, relevant)| {
            let relevant = relevant.as_ref();
            let groups = Groups::new(ranking, &QueryTruth { relevant, candidates, ties })?;
            Ok([groups.hit(1), groups.hit(5), groups.hit(10), groups.hit(50), groups.mrr(10)])
        })
        .collect();
    let mut columns: [Vec<f64>; 5] = Default::default();
    for (query, row) in rows.into_iter().enumerate() {
        let row = row.map_err(|error| name_query(error, query))?;
        columns.iter_mut().zip(row).for_each(|(column, value)| column.push(value));
    }
    let longest = rankings.iter().map(Ranking::len).max().unwrap_or(0);
    let [recall_at_1, recall_at_5, recall_at_10, recall_at_50, mrr_at_10] = columns;
    let recall_at_50 = (longest >= candidates.min(50)).then_some(recall_at_50);
    Ok(QueryScores { recall_at_1, recall_at_5, recall_at_10, recall_at_50, mrr_at_10, candidates })
}

/// What a ranking is scored against.
#[derive(Debug, Clone, Copy)]
pub struct QueryTruth<'a> {
    /// The relevant items of the query.
    pub relevant: &'a [u32],
    /// Number of candidates that were searched.
    pub candidates: usize,
    /// What to assume when the list may end amid a group of equal scores.
    pub ties: TruncatedTies,
}

/// Expected chance that any relevant item is among the first `k`; see the module for ties.
///
/// # Errors
/// As [`evaluate`], and [`Error::Query`] when `k` is 0.
pub fn recall_at_k(ranking: &Ranking, k: usize, query: &QueryTruth<'_>) -> Result<f64> {
    check_k(k)?;
    Ok(Groups::new(ranking, query)?.hit(k))
}

/// Expected share of the relevant items that are among the first `k`.
///
/// A tie group of `g` items after `s` others holds `min(max(k - s, 0), g) / g` of its relevant
/// items within the first `k`.
///
/// # Errors
/// As [`evaluate`], and [`Error::Query`] when `k` is 0.
pub fn recall_fraction_at_k(ranking: &Ranking, k: usize, query: &QueryTruth<'_>) -> Result<f64> {
    check_k(k)?;
    Ok(Groups::new(ranking, query)?.fraction(k))
}

/// Expected reciprocal place of the first relevant item, 0 beyond `k`; see the module for ties.
///
/// # Errors
/// As [`evaluate`], and [`Error::Query`] when `k` is 0.
pub fn mrr_at_k(ranking: &Ranking, k: usize, query: &QueryTruth<'_>) -> Result<f64> {
    check_k(k)?;
    Ok(Groups::new(ranking, query)?.mrr(k))
}

/// The tie groups of a ranking that hold relevant items.
struct Groups {
    groups: Vec<Group>,
    relevant: usize,
}

#[derive(Default)]
struct Group {
    start: usize,
    size: usize,
    relevant: usize,
}

impl Groups {
    fn new(ranking: &Ranking, query: &QueryTruth<'_>) -> Result<Self> {
        let QueryTruth { relevant, candidates, ties } = *query;
        ranking.validate()?;
        check_relevant(relevant, candidates)?;
        if let Some(item) = ranking.items.iter().find(|item| **item as usize >= candidates) {
            return Err(Error::query("ranking")
                .expected(format!("items below the number of candidates, {candidates}"))
                .found(format!("item {item}"))
                .fix("rank and count the same candidates"));
        }
        let mut relevant = relevant.to_vec();
        relevant.sort_unstable();
        let mut groups = Vec::new();
        let (mut start, mut found) = (0, 0);
        for run in ranking.scores.chunk_by(|a, b| a == b) {
            let items = &ranking.items[start..start + run.len()];
            let hits = items.iter().filter(|item| relevant.binary_search(item).is_ok()).count();
            groups.push(Group { start, size: run.len(), relevant: hits });
            start += run.len();
            found += hits;
        }
        if ties == TruncatedTies::AllUnlisted {
            let unlisted = candidates - ranking.len();
            if groups.is_empty() {
                groups.push(Group::default());
            }
            if let Some(last) = groups.last_mut() {
                last.size += unlisted;
                last.relevant += relevant.len() - found;
            }
        }
        groups.retain(|group| group.relevant > 0);
        Ok(Self { groups, relevant: relevant.len() })
    }

    fn hit(&self, k: usize) -> f64 {
        let Some(group) = self.groups.first() else { return 0.0 };
        let within = k.saturating_sub(group.start).min(group.size);
        1.0 - (0..within).map(|taken| group.miss(taken)).product::<f64>()
    }

    fn mrr(&self, k: usize) -> f64 {
        let Some(group) = self.groups.first() else { return 0.0 };
        let within = k.saturating_sub(group.start).min(group.size);
        let (mut sum, mut missed) = (0.0, 1.0);
        for place in 0..within {
            let miss = group.miss(place);
            sum += missed * (1.0 - miss) / (group.start + place + 1) as f64;
            missed *= miss;
        }
        sum
    }

    fn fraction(&self, k: usize) -> f64 {
        let found = self.groups.iter().map(|group| {
            let within = k.saturating_sub(group.start).min(group.size);
            group.relevant as f64 * within as f64 / group.size as f64
        });
        found.sum::<f64>() / self.relevant as f64
    }
}

impl Group {
    /// Chance that the next place holds no relevant item, after `taken` that held none.
    fn miss(&self, taken: usize) -> f64 {
        let others = (self.size - self.relevant).saturating_sub(taken);
        others as f64 / (self.size - taken) as f64
    }
}

fn check_k(k: usize) -> Result<()> {
    if k == 0 {
        return Err(Error::query("k")
            .expected("at least 1")
            .found("0")
            .fix("ask for at least one place"));
    }
    Ok(())
}

/// Checks one query's relevant items.
fn check_relevant(relevant: &[u32], candidates: usize) -> Result<()> {
    let wrong = |expected: String, found: String, remedy: &str| {
        Err(Error::query("relevant items").expected(expected).found(found).fix(remedy))
    };
    if relevant.is_empty() {
        let remedy = "leave out queries without a relevant candidate";
        return wrong("at least one for every query".into(), "none".into(), remedy);
    }
    if let Some(item) = relevant.iter().find(|item| **item as usize >= candidates) {
        let expected = format!("items below the number of candidates, {candidates}");
        return wrong(expected, format!("item {item}"), "rank and count the same candidates");
    }
    if let Some(item) = duplicate(relevant) {
        return wrong("every item once".into(), format!("item {item} twice"), "remove one of them");
    }
    Ok(())
}

/// Says which query an error is about.
pub fn name_query(error: Error, query: usize) -> Error {
    error.about(|subject| format!("{subject} of query {query}"))
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
