//! Queries, what answers them, and how many are found.

use std::collections::BTreeMap;

use anyhow::Result;
use cart_retrieval::{
    backend::LocalBackend,
    eval::{BootstrapConfig, EvalRecord, Ranking, TruncatedTies, bootstrap, evaluate},
    prelude::*,
};

use super::{recipe::Recipe, task::Task};

/// The queries and what answers them.
pub struct Judge {
    pub texts: Vec<String>,
    pub relevant: Vec<Vec<u32>>,
    candidates: usize,
}

impl Judge {
    /// A text that describes several candidates has found its own when it finds any of them.
    pub fn new(task: &Task) -> Self {
        let mut same: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for query in &task.queries {
            same.entry(query.text.to_lowercase()).or_default().push(query.item);
        }
        let relevant = |query: &ItemCaption| {
            let mut items = same[&query.text.to_lowercase()].clone();
            items.sort_unstable();
            items.dedup();
            items
        };
        Self {
            texts: task.queries.iter().map(|query| query.text.clone()).collect(),
            relevant: task.queries.iter().map(relevant).collect(),
            candidates: task.candidates.len(),
        }
    }

    /// The figures of some rankings, which are printed too.
    pub fn record<B: LocalBackend>(
        &self,
        recipe: &Recipe,
        method: &str,
        rankings: &[Ranking],
        device: &B::Device,
    ) -> Result<EvalRecord> {
        let scores = evaluate(rankings, &self.relevant, self.candidates, TruncatedTies::Listed)?;
        let metrics = scores.metrics();
        println!("seed {}, {method}: {metrics}", recipe.seed);
        let intervals = bootstrap(&scores, &BootstrapConfig::default())?;
        Ok(EvalRecord::new(&recipe.dataset, &recipe.protocol, method, &metrics)
            .with_intervals(&intervals)
            .with_seed(recipe.seed)
            .with_hardware(super::hardware::<B>(device))
            .with_command(super::command()))
    }

    /// Percentage of the queries of which a right item is anywhere in the list.
    pub fn in_beam(&self, rankings: &[Ranking]) -> f64 {
        let found = rankings
            .iter()
            .zip(&self.relevant)
            .filter(|(ranking, relevant)| ranking.items.iter().any(|i| relevant.contains(i)))
            .count();
        100.0 * found as f64 / rankings.len() as f64
    }
}
