//! Recall of an index on captions that were held out.

use std::collections::BTreeMap;

use super::{
    settings::Recipe,
    task::{Part, Task},
    trainable::Trainable,
};
use crate::{
    data::{DataFolder, ItemCaption},
    error::{Error, Result},
    eval::{BootstrapConfig, Intervals, Metrics, Ranking, TruncatedTies, bootstrap, evaluate},
    retrieve::Retriever,
};

/// Number of answers per query.
const TOP: usize = 50;

/// Measures of an index.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Evaluation {
    /// Recall and reciprocal ranks.
    pub metrics: Metrics,
    /// Their confidence intervals.
    pub intervals: Intervals,
    /// Number of queries.
    pub queries: usize,
    /// Number of candidates.
    pub candidates: usize,
    /// Warnings of the audit: queries among the training texts.
    pub warnings: Vec<String>,
}

impl Recipe {
    /// Measures an index of this recipe with the captions that the recipe queries with.
    ///
    /// # Errors
    /// As [`Task::new`]; [`Error::Captions`] when there are no queries; [`Error::Index`] for an
    /// index of other candidates.
    ///
    /// # Example
    /// ```no_run
    /// use burn::backend::Flex;
    /// use cart_retrieval::{data::DataFolder, recipe::Recipe, retrieve::Retriever};
    /// let data = DataFolder::open("my-data")?;
    /// let retriever = Retriever::<Flex>::load("my-index", &Default::default())?;
    /// let found = Recipe::for_data(&data)?.evaluate(retriever, &data)?;
    /// println!("{}", found.metrics);
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn evaluate<B: Trainable>(
        &self,
        retriever: Retriever<B>,
        data: &DataFolder,
    ) -> Result<Evaluation> {
        let task = Task::new(self, data, Part::Test)?;
        if let Some(reason) = task.nothing_to_ask(self) {
            return Err(Error::captions("captions to query with")
                .expected("at least one")
                .found("none")
                .fix(reason));
        }
        let warnings = task.check_leaks(self)?;
        task.ensure_trained_by(&retriever)?;
        let judge = Judge::new(&task);
        let top = retriever.beam().width.min(TOP);
        let retriever = task.over(retriever, self)?;
        let rankings = task.rankings(&retriever, &judge.texts, top)?;
        let (metrics, intervals) = judge.figures(&rankings)?;
        let (queries, candidates) = (judge.texts.len(), task.candidates.len());
        Ok(Evaluation { metrics, intervals, queries, candidates, warnings })
    }
}

/// The queries of a task and the candidates that answer them.
#[derive(Debug, Clone)]
pub struct Judge {
    /// The queries.
    pub texts: Vec<String>,
    /// The right candidates of each query, in order.
    pub relevant: Vec<Vec<u32>>,
    candidates: usize,
}

impl Judge {
    /// The queries of a task. A text that describes several candidates has found its own when it
    /// finds any of them.
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

    /// The measures of rankings, one for each query.
    ///
    /// # Errors
    /// As [`evaluate`].
    pub fn figures(&self, rankings: &[Ranking]) -> Result<(Metrics, Intervals)> {
        let scores = evaluate(rankings, &self.relevant, self.candidates, TruncatedTies::Listed)?;
        let intervals = bootstrap(&scores, &BootstrapConfig::default())?;
        Ok((scores.metrics(), intervals))
    }

    /// Share of the queries with a right candidate anywhere in the ranking.
    pub fn share_found(&self, rankings: &[Ranking]) -> f64 {
        let found = rankings
            .iter()
            .zip(&self.relevant)
            .filter(|(ranking, relevant)| ranking.items.iter().any(|i| relevant.contains(i)))
            .count();
        found as f64 / rankings.len().max(1) as f64
    }
}
