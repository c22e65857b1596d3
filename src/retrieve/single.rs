//! Ends of a query that look at one text or embedding at a time: exact search, exhaustive scores,
//! explanations and traces.

use std::cmp::Reverse;

use burn::tensor::backend::Backend;
use serde::Serialize;

use super::query::{Arity, Hit, Query};
use crate::{
    decode::{
        BeamConfig, EncodedQueries, ExactLimits, Explanation, Filters, SearchSpace, TraceLevel,
    },
    error::{Error, Result},
};

/// What an exact search gives ([`Query::exact`]).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ExactHits {
    /// The best candidates, best first.
    pub hits: Vec<Hit>,
    /// Whether no other candidate scores as much as the last of them.
    pub proven: bool,
    /// Prefixes that the decoder continued: the cost of the search.
    pub prefixes: usize,
}

/// The way of a candidate through the beam of a query ([`Query::trace`]).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CandidateTrace {
    /// Id of the candidate.
    pub id: String,
    /// Row of the candidate.
    pub item: u32,
    /// The prefixes of its identifier, level by level: up to the one that loses it, or to where
    /// nothing is left to decide for any prefix.
    pub levels: Vec<TraceLevel>,
    /// The level at which its prefix is pruned, counted from 0; `None` if it is found, or if a
    /// filter excludes it.
    pub lost_at: Option<usize>,
    /// Its place among the hits, counted from 0.
    pub rank: Option<usize>,
    /// Everything that the beam finds, best first.
    pub hits: Vec<Hit>,
}

impl<B: Backend, A: Arity> Query<'_, B, A> {
    /// The `top` best candidates under the model, and whether that is proven
    /// ([`Engine::exact_search`](crate::decode::Engine::exact_search)). At most `budget` prefixes
    /// are examined per level.
    ///
    /// # Errors
    /// As [`Query::run`]; [`Error::Query`] for a budget below `top`, or with a limit per cluster.
    pub fn exact(self, budget: usize) -> Result<A::Of<ExactHits>> {
        let remedy = "leave the limit out, or use a beam (Query::run)";
        Error::query("answers per cluster")
            .expected("no limit in an exact search")
            .found(self.per_cluster.to_string())
            .fix_if(self.per_cluster != usize::MAX, remedy)?;
        let (engine, map) = (&self.retriever.engine, self.retriever.index.identifier_map());
        self.each(|encoded, space, beam| {
            let (mut wanted, mut prefixes) = (self.top, 0);
            // Several identifiers of a candidate may be among the best: then more of them are
            // needed.
            loop {
                let limits = ExactLimits { top: wanted, budget };
                let mut exact = engine.exact_search(encoded, space, beam, limits)?;
                prefixes += exact.prefixes;
                let all = exact.found.len() < wanted;
                map.distinct(&mut exact.found, |scored| scored.item);
                let enough = exact.found.len() >= self.top || all;
                if enough || wanted >= budget {
                    exact.found.truncate(self.top);
                    exact.found.retain(|scored| scored.score >= self.min_score);
                    let proven = exact.proven && enough;
                    return Ok(ExactHits { hits: self.hits(exact.found)?, proven, prefixes });
                }
                wanted = (2 * wanted).min(budget);
            }
        })
    }

    /// Scores of all candidates that the filter allows, best first, by running the decoder over
    /// every identifier. The cost grows with the collection; use it as a reference for a beam.
    /// `top` and the width of the beam are not read.
    ///
    /// # Errors
    /// As [`Query::run`].
    pub fn scores(self) -> Result<A::Of<Vec<Hit>>> {
        let (engine, map) = (&self.retriever.engine, self.retriever.index.identifier_map());
        self.each(|encoded, space, beam| {
            let mut found = engine.score_all(encoded, space, beam)?;
            map.distinct(&mut found, |scored| scored.item);
            found.retain(|scored| scored.score >= self.min_score);
            self.hits(found)
        })
    }

    /// Explains the score of a candidate: the log-probability of every token of its identifier (the
    /// most probable one of several), and so many of the most probable alternatives at each level.
    /// Filters, `top` and the width of the beam are not read.
    ///
    /// # Errors
    /// As [`Query::run`]; [`Error::Query`] for an id that is not in the index.
    pub fn explain(self, id: &str, runners_up: usize) -> Result<A::Of<Explanation>> {
        let item = self.retriever.items_of(&[id])?[0];
        let (engine, map) = (&self.retriever.engine, self.retriever.index.identifier_map());
        self.each(|encoded, space, beam| {
            let mut best: Option<Explanation> = None;
            for row in map.rows_of(&[item]) {
                let other = engine.explain(encoded, space, beam, row)?;
                if best.as_ref().is_none_or(|best| other.score > best.score) {
                    best = Some(other);
                }
            }
            let best = best.expect("every candidate has an identifier");
            Ok(Explanation { item, ..best }.with_runners_up(runners_up))
        })
    }

    /// Follows a candidate through the beam: the scores and ranks of its identifier's prefixes, and
    /// where the beam prunes them. Of several identifiers the one that comes furthest is followed.
    /// The beam is that of [`Query::run`]; a minimum score and a limit per cluster are not applied.
    ///
    /// # Errors
    /// As [`Query::run`]; [`Error::Query`] for an id that is not in the index.
    pub fn trace(self, id: &str) -> Result<A::Of<CandidateTrace>> {
        let item = self.retriever.items_of(&[id])?[0];
        let (engine, map) = (&self.retriever.engine, self.retriever.index.identifier_map());
        self.each(|encoded, space, beam| {
            let traces = map.rows_of(&[item]).into_iter();
            let traces = traces.map(|row| engine.trace(encoded, space, beam, row));
            let traces = traces.collect::<Result<Vec<_>>>()?;
            // Found before lost, then by rank; of those that are lost, the last.
            let order = |rank: Option<usize>, lost_at: Option<usize>| {
                (rank.unwrap_or(usize::MAX), Reverse(lost_at))
            };
            let best = traces.into_iter().min_by_key(|trace| order(trace.rank, trace.lost_at));
            let mut best = best.expect("every candidate has an identifier");
            map.distinct(&mut best.found, |scored| scored.item);
            let rank = best.found.iter().position(|scored| map.of(scored.item) == item);
            let (levels, lost_at) = (best.levels, best.lost_at);
            let hits = self.hits(best.found)?;
            Ok(CandidateTrace { id: id.to_string(), item, levels, lost_at, rank, hits })
        })
    }

    /// The result for every query, which is encoded and searched by itself.
    fn each<T>(
        &self,
        ask: impl Fn(&EncodedQueries<B>, SearchSpace<'_>, &BeamConfig) -> Result<T>,
    ) -> Result<A::Of<T>> {
        self.check()?;
        let (ready, beam) = self.ready()?;
        self.filters.check(self.retriever.index.trie().len(), ready.len())?;
        let result = |query: usize| {
            let filter = self.filters.of(query).map_or(Filters::None, Filters::Same);
            let space = SearchSpace::from(self.retriever.index()).with_filters(filter);
            ask(&self.encode(&ready, &[query])?, space, &beam)
        };
        Ok(A::of((0..ready.len()).map(result).collect::<Result<_>>()?))
    }
}
