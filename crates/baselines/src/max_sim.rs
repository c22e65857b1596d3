//! Late interaction on top of any search.

use cart_retrieval::{
    Result,
    eval::{Ranking, TruncatedTies, evaluate},
    expert::{TextTokens, TokenStates},
};
use rayon::prelude::*;

/// Adds MaxSim of token states to the scores of a search's best candidates.
///
/// # Example
/// ```no_run
/// # use cart_baselines::MaxSim;
/// # use cart_retrieval::{eval::Ranking, expert::{TextTokens, TokenStates}};
/// # fn f(states: TokenStates, queries: Vec<TextTokens>, found: Vec<Ranking>) -> cart_retrieval::Result<()> {
/// let reranked = MaxSim::new(states).with_weight(0.5).rerank(&found, &queries)?;
/// assert_eq!(reranked.len(), found.len());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct MaxSim {
    states: TokenStates,
    weight: f32,
    top: usize,
}

impl MaxSim {
    /// Over the token states of the candidates, with weight 0.5 for the 20 best of a ranking.
    pub fn new(states: TokenStates) -> Self {
        Self { states, weight: 0.5, top: 20 }
    }

    /// Sets the weight of the similarity relative to the scores of the search.
    pub fn with_weight(self, weight: f32) -> Self {
        Self { weight, ..self }
    }

    /// Rankings with the similarity added to the scores of their best candidates, which are sorted
    /// again. The others follow in their order, below.
    ///
    /// # Errors
    /// As [`Ranking::new`].
    ///
    /// # Panics
    /// When there is not one query a ranking, or for a candidate without states.
    pub fn rerank(&self, found: &[Ranking], queries: &[TextTokens]) -> Result<Vec<Ranking>> {
        assert_eq!(found.len(), queries.len(), "a query for every ranking");
        let one = |(ranking, query): (&Ranking, &TextTokens)| {
            let top = self.top.min(ranking.items.len());
            let score = |(&item, &score): (&u32, &f32)| {
                (item, score + self.weight * self.states.max_sim(query, item as usize))
            };
            let mut best: Vec<(u32, f32)> =
                ranking.items[..top].iter().zip(&ranking.scores).map(score).collect();
            best.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            let last = best.last().map_or(0.0, |last| last.1);
            // Below the last that was compared, at the distances of the search.
            let above = ranking.scores.get(top).copied().unwrap_or(0.0);
            let rest = ranking.items[top..].iter().zip(&ranking.scores[top..]);
            let gap = (last - above).min(0.0);
            let rest = rest.map(|(&item, &score)| (item, score + gap));
            let (items, scores) = best.into_iter().chain(rest).unzip();
            Ranking::new(items, scores)
        };
        found.par_iter().zip(queries).map(one).collect()
    }

    /// Chooses the weight on queries with known answers, by MRR@10 (of equal ones the smaller).
    ///
    /// # Errors
    /// As [`MaxSim::rerank`] and [`evaluate`].
    pub fn tune<R: AsRef<[u32]> + Sync>(
        self,
        found: &[Ranking],
        queries: &[TextTokens],
        relevant: &[R],
    ) -> Result<Self> {
        let candidates = self.states.len();
        let mut best = (self.clone(), -1.0);
        for weight in [0.0, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0] {
            let tried = self.clone().with_weight(weight);
            let rankings = tried.rerank(found, queries)?;
            let metrics =
                evaluate(&rankings, relevant, candidates, TruncatedTies::Listed)?.metrics();
            if metrics.mrr_at_10 > best.1 {
                best = (tried, metrics.mrr_at_10);
            }
        }
        Ok(best.0)
    }

    /// The weight.
    pub fn weight(&self) -> f32 {
        self.weight
    }
}
