//! Which search finds most: settings measured on validation queries.

use burn::tensor::backend::Backend;

use super::Retriever;
use crate::{
    decode::BeamConfig,
    error::{Error, Result},
    eval::{Metrics, TruncatedTies, evaluate},
};

/// Settings of a search, and what they find.
#[derive(Debug, Clone, PartialEq)]
pub struct BeamScore {
    /// The settings.
    pub beam: BeamConfig,
    /// What a beam with them finds.
    pub metrics: Metrics,
}

impl<B: Backend> Retriever<B> {
    /// Measures search settings on validation queries, best first by MRR@10 (of equal ones the first
    /// given): how far to trust the decoder, how much the rerank should weigh (ours).
    ///
    /// # Errors
    /// As [`SearchAll::run`](super::SearchAll::run) and [`evaluate`]; [`Error::Config`] for no settings
    /// at all, or settings out of range.
    ///
    /// # Example
    /// ```no_run
    /// # fn main() -> cart_retrieval::Result<()> {
    /// use burn::backend::Flex;
    /// use cart_retrieval::{decode::BeamConfig, retrieve::Retriever};
    /// let retriever = Retriever::<Flex>::load("my-index", &Default::default())?;
    /// let mut beams = Vec::new();
    /// for decoder_weight in [0.0, 0.25, 0.5, 1.0] {
    ///     for rerank in [0.0, 10.0, 20.0] {
    ///         beams.push(BeamConfig { decoder_weight, rerank, ..retriever.beam().clone() });
    ///     }
    /// }
    /// let (queries, relevant) = (["two dogs in the snow"], [[17]]);
    /// let scores = retriever.compare_beams(&queries, &relevant, &beams)?;
    /// let best = &scores[0];
    /// println!("{:?}: {}", best.beam, best.metrics);
    /// let retriever = retriever.with_beam(best.beam.clone());
    /// # Ok(())
    /// # }
    /// ```
    pub fn compare_beams<S: AsRef<str>, R: AsRef<[u32]> + Sync>(
        &self,
        queries: &[S],
        relevant: &[R],
        beams: &[BeamConfig],
    ) -> Result<Vec<BeamScore>> {
        if beams.is_empty() {
            return Err(Error::config("search settings to compare")
                .expected("at least one")
                .found("none")
                .fix("give the retriever's own settings and others to compare"));
        }
        beams.iter().try_for_each(BeamConfig::validate)?;
        let candidates = self.index().ids().len();
        let mut scores = Vec::with_capacity(beams.len());
        for beam in beams {
            let retriever = self.clone().with_beam(beam.clone());
            let found = retriever.search_all(queries).top(beam.width.min(candidates));
            let metrics =
                evaluate(&found.rankings()?, relevant, candidates, TruncatedTies::Listed)?
                    .metrics();
            scores.push(BeamScore { beam: beam.clone(), metrics });
        }
        scores.sort_by(|a, b| b.metrics.mrr_at_10.total_cmp(&a.metrics.mrr_at_10));
        Ok(scores)
    }
}
