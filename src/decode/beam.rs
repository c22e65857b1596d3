//! Batched beam search constrained by the trie.

use std::{
    cmp::Ordering,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use burn::tensor::backend::Backend;
use rayon::prelude::*;

use super::{
    BeamConfig, EncodedQueries, Scorer, SearchSpace,
    encoded::{Beam, Steps},
};
use crate::{
    error::{Error, Result},
    index::PrefixPrior,
    model::{Cart, Scope},
    trie::Node,
};

/// A candidate with its score for a query.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScoredItem {
    /// Index of the candidate.
    pub item: u32,
    /// Sum of the log-probabilities of its identifier's tokens, times their levels' weights, at
    /// most 0; plus the weighted cosine of a rerank and the weighted similarity of a late
    /// interaction.
    pub score: f32,
}

/// A search that has been checked.
pub(super) struct Prepared<'a, B: Backend> {
    model: &'a Cart<B>,
    queries: &'a EncodedQueries<B>,
    pub(super) space: SearchSpace<'a>,
    prior: Option<PrefixPrior<'a>>,
    pub(super) config: &'a BeamConfig,
    /// Maximum number of threads, fewer for searches that run in parallel.
    pub(super) threads: usize,
    /// Adds up the times of this search, and of others with the same clock.
    pub(super) clock: Clock,
    /// Row of the trie whose prefixes are ranked at every level.
    pub(super) traced: Option<usize>,
}

/// Which prefixes a search keeps.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Maximum number of beams at a level; the best ones are kept.
    pub(super) width: usize,
    /// Only those with at least this score.
    pub(super) min_score: f32,
}

/// What a search finds for a query.
pub(super) struct Beams {
    done: Vec<Beam>,
    /// The best score of a prefix that the width pruned; minus infinity if it pruned none.
    pub(super) best_pruned: f32,
    /// Prefixes that the decoder continued, of all levels.
    pub(super) prefixes: usize,
    /// Ranks of the traced row's prefixes, level by level.
    pub(super) ranks: Vec<PrefixRank>,
}

/// The rank of a prefix among all candidates of its level.
#[derive(Debug, Clone, Copy)]
pub(super) struct PrefixRank {
    pub(super) score: f32,
    /// How many are better.
    pub(super) better: usize,
    pub(super) prefixes: usize,
    /// The score of the last prefix that is kept, if some are pruned.
    pub(super) cut: Option<f32>,
}

impl<'a, B: Backend> Prepared<'a, B> {
    /// Checks a search.
    pub(super) fn new(
        model: &'a Cart<B>,
        queries: &'a EncodedQueries<B>,
        space: SearchSpace<'a>,
        config: &'a BeamConfig,
    ) -> Result<Self> {
        config.validate()?;
        let (sizes, found) = (model.decoder().level_sizes(), space.trie.vocabulary().sizes());
        Error::model("identifier levels of the candidates")
            .expected(format!("the network's, {sizes:?}"))
            .found(format!("{found:?}"))
            .fix_if(
                sizes != found,
                "search candidates whose identifiers have the network's levels, with the same \
                 capacity for unique tokens (Trie::within)",
            )?;
        let weights = config.level_weights.len();
        let remedy = "the coarse token comes first, the unique token last";
        Error::config("weights of the levels")
            .expected(format!("none, or one for each of {} levels", sizes.len()))
            .found(format!("{weights}: {:?}", config.level_weights))
            .fix_if(weights != 0 && weights != sizes.len(), remedy)?;
        space.filters.check(space.trie.len(), queries.len())?;
        let prior = space.prior(model, queries.vectors(), config)?;
        let threads = rayon::current_num_threads();
        let clock = Clock::default();
        Ok(Self { model, queries, space, prior, config, threads, clock, traced: None })
    }

    /// Checks that there is exactly one query, as `what` needs it.
    pub(super) fn single(self, what: &str) -> Result<Self> {
        Error::query(what)
            .expected("one encoded query")
            .found(self.queries.len().to_string())
            .fix_if(self.queries.len() != 1, "encode queries one at a time")?;
        Ok(self)
    }

    /// The decoder's steps for some of the queries.
    pub(super) fn steps(&self, some: Range<usize>, parallel: bool) -> Steps<'_, B> {
        self.queries.steps(self.model, some, parallel)
    }

    /// What turns logits into log-probabilities.
    pub(super) fn scorer(&self) -> Scorer<'_> {
        let guided = self.model.alignment().is_some_and(|head| head.is_guided());
        Scorer::new(self.space.trie, self.config.scope)
            .with_decoder_weight(self.config.decoder_weight)
            .with_prior(self.prior.as_ref().filter(|_| guided))
    }

    /// What the rerank adds to the score of a candidate.
    pub(super) fn rerank(&self, query: usize, item: u32) -> f32 {
        let prior = self.prior.as_ref().filter(|_| self.config.rerank > 0.0);
        prior.map_or(0.0, |prior| self.config.rerank * prior.cosine(query, item))
    }

    /// What late interaction adds to the score of a candidate.
    pub(super) fn late(&self, query: usize, item: u32) -> f32 {
        let weight = self.config.late_interaction;
        match (self.space.token_states, self.queries.tokens()) {
            (Some(tokens), Some(queries)) if weight > 0.0 => {
                let item = tokens.owners.of(item) as usize;
                weight * tokens.states.max_sim(&queries[query], item)
            }
            _ => 0.0,
        }
    }

    /// What is added to the log-probability of a candidate's identifier.
    pub(super) fn added(&self, query: usize, item: u32) -> f32 {
        self.rerank(query, item) + self.late(query, item)
    }

    /// A beam search as configured, best first.
    pub(super) fn beam(&self) -> Result<Vec<Vec<ScoredItem>>> {
        let limits = Limits { width: self.config.width, min_score: f32::NEG_INFINITY };
        let beams = self.run(limits)?.into_iter().enumerate();
        Ok(beams.map(|(query, beams)| self.scored(query, beams)).collect())
    }

    /// Searches level by level; on the CPU, a part of the queries on every thread.
    pub(super) fn run(&self, limits: Limits) -> Result<Vec<Beams>> {
        let queries = self.queries.len();
        if !self.queries.are_on_cpu() {
            // A device may know its work by the thread that asks for it.
            return self.run_part(0..queries, self.threads > 1, limits);
        }
        let parts = self.threads.min(queries).max(1);
        let bound = |part: usize| queries * part / parts;
        let run = |part| self.run_part(bound(part)..bound(part + 1), parts < self.threads, limits);
        // Within rayon's pool: from outside of it, every product would wake a thread to wait for.
        let beams: Vec<Vec<Beams>> =
            rayon::scope(|_| (0..parts).into_par_iter().map(run).collect::<Result<_>>())?;
        Ok(beams.into_iter().flatten().collect())
    }

    fn run_part(&self, part: Range<usize>, parallel: bool, limits: Limits) -> Result<Vec<Beams>> {
        let Self { space, config, .. } = self;
        let (trie, scorer) = (space.trie, self.scorer());
        let mut steps = self.steps(part.clone(), parallel);
        let root = Beam::root(trie.root());
        let forced = |beam: &Beam| config.scope == Scope::Legal && beam.node.count() == 1;
        // Per query: prefixes the decoder must continue, and prefixes with nothing left to decide.
        let mut live: Vec<Vec<Beam>> = Vec::with_capacity(part.len());
        let mut found: Vec<Beams> = Vec::with_capacity(part.len());
        for query in part.clone() {
            let any = space.filters.of(query).is_none_or(|filter| filter.count() > 0);
            let start = if any { vec![root] } else { Vec::new() };
            let (done, start): (Vec<Beam>, Vec<Beam>) = start.into_iter().partition(forced);
            live.push(start);
            let (best_pruned, ranks) = (f32::NEG_INFINITY, Vec::new());
            found.push(Beams { done, best_pruned, prefixes: 0, ranks });
        }
        for level in 0..trie.levels() {
            if live.iter().all(Vec::is_empty) {
                break;
            }
            let started = Instant::now();
            let logits = steps.step(&live);
            let stepped = Instant::now();
            let size = trie.vocabulary().size(level);
            let last = level + 1 == trie.levels();
            let weight = config.level_weight(level);
            let expand = |(at, (live, found)): (usize, (&mut Vec<Beam>, &mut Beams))| {
                let query = part.start + at;
                let filter = space.filters.of(query);
                let mut candidates = std::mem::take(&mut found.done);
                let mut children = Vec::new();
                found.prefixes += live.len();
                for (slot, beam) in live.iter().enumerate() {
                    let row = logits.first_rows[at] + slot;
                    let logits = &logits.values[row * size..(row + 1) * size];
                    finite(logits, level)?;
                    scorer.children(query, beam.node, logits, &mut children);
                    numbers(&children, level)?;
                    let children = children.iter().map(|&(token, log_p, node)| Beam {
                        node,
                        score: beam.score + weight * log_p,
                        token,
                        parent: row as u32,
                    });
                    candidates.extend(children.filter(|child| {
                        child.score >= limits.min_score
                            && filter.is_none_or(|filter| filter.below(child.node) > 0)
                    }));
                }
                let traced = self.traced.and_then(|row| rank(&candidates, row));
                let of = candidates.len();
                let best_pruned = keep_best(&mut candidates, limits.width);
                let worst = candidates.last().filter(|_| of > candidates.len());
                let cut = worst.map(|beam| beam.score);
                found.ranks.extend(traced.map(|traced| PrefixRank { cut, ..traced }));
                found.best_pruned = found.best_pruned.max(best_pruned);
                (found.done, *live) = candidates.into_iter().partition(|beam| last || forced(beam));
                Ok::<(), Error>(())
            };
            if parallel {
                let each = live.par_iter_mut().zip(found.par_iter_mut());
                each.enumerate().try_for_each(expand)?;
            } else {
                live.iter_mut().zip(&mut found).enumerate().try_for_each(expand)?;
            }
            self.clock.add(Clock::DECODING, stepped - started);
            self.clock.add(Clock::CONSTRAINT, stepped.elapsed());
        }
        Ok(found)
    }

    /// The candidates found for a query, best first, with what rerank and late interaction add.
    pub(super) fn scored(&self, query: usize, beams: Beams) -> Vec<ScoredItem> {
        let scored = |beam: Beam| {
            let item = self.space.trie.items(beam.node)[0];
            ScoredItem { item, score: beam.score + self.added(query, item) }
        };
        let mut found: Vec<ScoredItem> = beams.done.into_iter().map(scored).collect();
        found.sort_unstable_by(by_score_then_item);
        found
    }
}

/// Time per part of the search, summed over the batches that threads process in parallel. A thread
/// that waits within one part may do work of another one, so shares are approximate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SearchTimes {
    /// Text encoder, keys and values of the queries.
    pub encoding: Duration,
    /// Steps of the decoder.
    pub decoding: Duration,
    /// The constraint: children in the trie, their probabilities, filters, the best prefixes.
    pub constraint: Duration,
}

impl SearchTimes {
    /// The constraint's share in the time of the decoder's steps.
    pub fn constraint_share(&self) -> f64 {
        let (constraint, decoding) = (self.constraint.as_secs_f64(), self.decoding.as_secs_f64());
        constraint / (constraint + decoding).max(f64::MIN_POSITIVE)
    }
}

/// Adds up times of several threads, in nanoseconds.
#[derive(Debug, Clone, Default)]
pub(super) struct Clock {
    spent: Arc<[AtomicU64; 3]>,
}

impl Clock {
    /// Places of the parts of a search.
    pub(super) const ENCODING: usize = 0;
    const DECODING: usize = 1;
    const CONSTRAINT: usize = 2;

    pub(super) fn add(&self, at: usize, time: Duration) {
        self.spent[at].fetch_add(time.as_nanos() as u64, Relaxed);
    }

    pub(super) fn times(&self) -> SearchTimes {
        let [encoding, decoding, constraint] =
            [0, 1, 2].map(|at| Duration::from_nanos(self.spent[at].load(Relaxed)));
        SearchTimes { encoding, decoding, constraint }
    }
}

/// Checks logits of a level.
pub(super) fn finite(logits: &[f32], level: usize) -> Result<()> {
    match logits.iter().find(|value| !value.is_finite()) {
        Some(bad) => Err(Error::model(format!("logits of level {level}"))
            .expected("finite numbers")
            .found(bad.to_string())
            .fix("train again with a lower learning rate, or load other weights")),
        None => Ok(()),
    }
}

/// Checks log-probabilities of a node's children: if one is NaN, all are.
pub(super) fn numbers(children: &[(u16, f32, Node)], level: usize) -> Result<()> {
    match children.first() {
        Some((_, bad, _)) if bad.is_nan() => Err(Error::model(format!("scores of level {level}"))
            .expected("numbers")
            .found(bad.to_string())
            .fix("look for damaged (retrieve::verify) or far too large vectors of candidates")),
        _ => Ok(()),
    }
}

/// Keeps the `width` best, in order: by score, then by identifier. Returns the best score of the
/// pruned ones, or minus infinity.
fn keep_best(beams: &mut Vec<Beam>, width: usize) -> f32 {
    let mut best_pruned = f32::NEG_INFINITY;
    if beams.len() > width {
        beams.select_nth_unstable_by(width - 1, by_score_then_row);
        best_pruned = beams.drain(width..).map(|beam| beam.score).fold(best_pruned, f32::max);
    }
    beams.sort_unstable_by(by_score_then_row);
    best_pruned
}

/// The rank of the prefix of a row, if it is among these; without the cut.
fn rank(beams: &[Beam], row: usize) -> Option<PrefixRank> {
    let above = |beam: &Beam| {
        let first = beam.node.first_row();
        (first..first + beam.node.count()).contains(&row)
    };
    let own = beams.iter().find(|beam| above(beam))?;
    let better = beams.iter().filter(|beam| by_score_then_row(beam, own).is_lt()).count();
    Some(PrefixRank { score: own.score, better, prefixes: beams.len(), cut: None })
}

/// Best first; ties by identifier.
fn by_score_then_row(a: &Beam, b: &Beam) -> Ordering {
    b.score.total_cmp(&a.score).then_with(|| a.node.first_row().cmp(&b.node.first_row()))
}

/// Best first; ties by item.
pub(super) fn by_score_then_item(a: &ScoredItem, b: &ScoredItem) -> Ordering {
    b.score.total_cmp(&a.score).then(a.item.cmp(&b.item))
}

#[cfg(test)]
#[path = "beam_tests.rs"]
mod tests;
