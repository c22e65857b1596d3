//! Batched beam search constrained by the trie.

use std::{borrow::Cow, cmp::Ordering, ops::Range, time::Instant};

use burn::tensor::backend::Backend;
use rayon::prelude::*;

use super::{
    BeamConfig, Scorer, SearchSpace,
    clock::Clock,
    queries::{Queries, host_decoder},
    steps::{Beam, Steps},
};
use crate::{
    error::{Error, Result},
    geometry::Guide,
    model::{Cart, EncodedQueries, Scope},
    trie::{Node, Trie},
};

/// A candidate with its log-probability given the query.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Answer {
    /// Index of the candidate.
    pub item: u32,
    /// Sum of the log-probabilities of its identifier's tokens, times their levels' weights, at most 0;
    /// reranked, plus the weighted cosine.
    pub score: f32,
}

/// The `width` best prefixes at every level, down to whole identifiers, best first.
///
/// Every answer is a candidate of the trie that the query's filter allows, all are distinct, and there are
/// `min(width, allowed)` of them: a level is cut only where it has more than `width` prefixes, each of
/// which leads to such a candidate.
/// Ties go to the smaller identifier while searching and to the smaller item in the answer.
///
/// With [`Scope::Legal`] a prefix with one candidate left is finished at once: all its remaining
/// tokens are forced and have log-probability 0 exactly. With [`Scope::All`] forced tokens cost
/// probability and are scored by the decoder like any other.
///
/// # Shapes
/// - returns: `[queries]` lists of `min(width, allowed)` answers
///
/// # Errors
/// [`Error::Query`] for filters of another trie, or of another number of queries;
/// [`Error::Config`] for a width of zero, weights out of range, a rerank without an alignment, and a
/// guided network that is searched over all tokens; [`Error::Model`] when the candidates' identifiers have other
/// levels than the network, when logits are not finite, or the candidates have no vectors and the network
/// needs them.
pub fn beam_search<'a, B: Backend>(
    model: &Cart<B>,
    encoded: &EncodedQueries<B>,
    space: impl Into<SearchSpace<'a>>,
    config: &BeamConfig,
) -> Result<Vec<Vec<Answer>>> {
    Prepared::new(model, encoded, space.into(), config)?.beam()
}

/// A search that has been checked.
pub(super) struct Prepared<'a, B: Backend> {
    model: &'a Cart<B>,
    queries: Queries<'a, B>,
    space: SearchSpace<'a>,
    guide: Option<Guide<'a>>,
    config: &'a BeamConfig,
    threads: usize,
    clock: Clock,
    /// Row of the trie whose way through the search is noted.
    watched: Option<usize>,
}

/// Which prefixes a search goes on with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// As many of the best at a level.
    pub(super) width: usize,
    /// None that scores less.
    pub(super) floor: f32,
}

/// What is found for a query.
pub(super) struct Found {
    done: Vec<Beam>,
    /// The best score of a prefix that was left for the width; minus infinity where none was.
    pub(super) left: f32,
    /// Prefixes that were gone on with, all levels together.
    pub(super) prefixes: usize,
    /// Where the watched row's prefix stood, level by level.
    pub(super) standings: Vec<Standing>,
}

/// A prefix among all that a level has to choose from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    pub(super) score: f32,
    /// How many are better.
    pub(super) better: usize,
    pub(super) prefixes: usize,
    /// The score of the last that is gone on with, where some are not.
    pub(super) cut: Option<f32>,
}

impl<'a, B: Backend> Prepared<'a, B> {
    /// A search for encoded queries; in the host's memory where they are there.
    pub(super) fn new(
        model: &'a Cart<B>,
        encoded: &'a EncodedQueries<B>,
        space: SearchSpace<'a>,
        config: &'a BeamConfig,
    ) -> Result<Self> {
        let decoder = host_decoder(model, &encoded.device());
        Self::of(model, Queries::new(Cow::Borrowed(encoded), decoder), space, config)
    }

    /// A search for queries wherever they are.
    pub(super) fn of(
        model: &'a Cart<B>,
        mut queries: Queries<'a, B>,
        space: SearchSpace<'a>,
        config: &'a BeamConfig,
    ) -> Result<Self> {
        config.validate()?;
        let (sizes, found) = (model.decoder().level_sizes(), space.trie.vocabulary().sizes());
        if sizes != found {
            return Err(Error::model("identifier levels of the candidates")
                .expected(format!("the network's, {sizes:?}"))
                .found(format!("{found:?}"))
                .fix(
                    "search candidates whose identifiers have the network's levels, with the same \
                 capacity for unique tokens (Trie::within)",
                ));
        }
        let weights = config.level_weights.len();
        if weights != 0 && weights != sizes.len() {
            return Err(Error::config("weights of the levels")
                .expected(format!("none, or one for each of {} levels", sizes.len()))
                .found(format!("{weights}: {:?}", config.level_weights))
                .fix("the coarse token comes first, the unique token last"));
        }
        space.filters.check(space.trie.len(), queries.len())?;
        let guide = space.guide(model, queries.aligned.take(), config)?;
        let threads = rayon::current_num_threads();
        Ok(Self {
            model,
            queries,
            space,
            guide,
            config,
            threads,
            clock: Clock::default(),
            watched: None,
        })
    }

    /// A search of exactly one query by the network's own modules, as `what` needs it.
    pub(super) fn single(
        what: &str,
        model: &'a Cart<B>,
        encoded: &'a EncodedQueries<B>,
        space: SearchSpace<'a>,
        config: &'a BeamConfig,
    ) -> Result<Self> {
        one(what, encoded)?;
        Self::of(model, Queries::new(Cow::Borrowed(encoded), None), space, config)
    }

    /// Limits the number of threads of this search, for searches that run in parallel.
    pub(super) fn with_threads(self, threads: usize) -> Self {
        Self { threads, ..self }
    }

    /// Counts its times together with other searches'.
    pub(super) fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// Notes where the prefixes of a row of the trie stand.
    pub(super) fn with_watched(self, row: usize) -> Self {
        Self { watched: Some(row), ..self }
    }

    /// The identifiers.
    pub(super) fn trie(&self) -> &'a Trie {
        self.space.trie
    }

    /// What turns logits into log-probabilities.
    pub(super) fn scorer(&self) -> Scorer<'_> {
        let guided = self.model.alignment().is_some_and(|head| head.is_guided());
        Scorer::new(self.space.trie, self.config.scope)
            .with_decoder_weight(self.config.decoder_weight)
            .with_guide(self.guide.as_ref().filter(|_| guided))
    }

    /// What the rerank adds to the score of a candidate.
    pub(super) fn rerank(&self, query: usize, item: u32) -> f32 {
        let guide = self.guide.as_ref().filter(|_| self.config.rerank > 0.0);
        guide.map_or(0.0, |guide| self.config.rerank * guide.cosine(query, item))
    }

    /// A beam search as configured, best first.
    pub(super) fn beam(&self) -> Result<Vec<Vec<Answer>>> {
        let found = self.run(Limits { width: self.config.width, floor: f32::NEG_INFINITY })?;
        Ok(found.into_iter().enumerate().map(|(query, found)| self.answers(query, found)).collect())
    }

    /// Searches level by level; in the host's memory, a part of the queries on every thread.
    pub(super) fn run(&self, limits: Limits) -> Result<Vec<Found>> {
        let queries = self.queries.len();
        let on_host = self.queries.are_on_host();
        let parts = if on_host { self.threads.min(queries).max(1) } else { 1 };
        let bound = |part: usize| queries * part / parts;
        let run = |part| self.run_part(bound(part)..bound(part + 1), parts < self.threads, limits);
        if !on_host {
            // A device may know its work by the thread that asks for it.
            return run(0);
        }
        // Within rayon's pool: from outside of it, every product would wake a thread to wait for.
        let found: Vec<Vec<Found>> =
            rayon::scope(|_| (0..parts).into_par_iter().map(run).collect::<Result<_>>())?;
        Ok(found.into_iter().flatten().collect())
    }

    fn run_part(&self, part: Range<usize>, parallel: bool, limits: Limits) -> Result<Vec<Found>> {
        let Self { space, config, .. } = self;
        let (trie, scorer) = (space.trie, self.scorer());
        let mut steps = Steps::new(self.model, &self.queries, part.clone(), parallel);
        let root = Beam { node: trie.root(), score: 0.0, token: 0, parent: 0 };
        let forced = |beam: &Beam| config.scope == Scope::Legal && beam.node.count() == 1;
        // Per query: prefixes the decoder must continue, and prefixes with nothing left to decide.
        let mut live: Vec<Vec<Beam>> = Vec::with_capacity(part.len());
        let mut found: Vec<Found> = Vec::with_capacity(part.len());
        for query in part.clone() {
            let any = space.filters.of(query).is_none_or(|filter| filter.count() > 0);
            let start = if any { vec![root] } else { Vec::new() };
            let (done, start): (Vec<Beam>, Vec<Beam>) = start.into_iter().partition(forced);
            live.push(start);
            let (left, standings) = (f32::NEG_INFINITY, Vec::new());
            found.push(Found { done, left, prefixes: 0, standings });
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
            let expand = |(at, (live, found)): (usize, (&mut Vec<Beam>, &mut Found))| {
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
                        child.score >= limits.floor
                            && filter.is_none_or(|filter| filter.below(child.node) > 0)
                    }));
                }
                let watched = self.watched.and_then(|row| standing(&candidates, row));
                let of = candidates.len();
                let left = keep_best(&mut candidates, limits.width);
                let worst = candidates.last().filter(|_| of > candidates.len());
                let cut = worst.map(|beam| beam.score);
                found.standings.extend(watched.map(|watched| Standing { cut, ..watched }));
                found.left = found.left.max(left);
                (found.done, *live) = candidates.into_iter().partition(|beam| last || forced(beam));
                Ok::<(), Error>(())
            };
            match parallel {
                true => {
                    let each = live.par_iter_mut().zip(found.par_iter_mut());
                    each.enumerate().try_for_each(expand)?;
                }
                false => live.iter_mut().zip(&mut found).enumerate().try_for_each(expand)?,
            }
            self.clock.decoded(stepped - started);
            self.clock.constrained(stepped.elapsed());
        }
        Ok(found)
    }

    /// Answers, best first, with what the rerank adds to their scores.
    pub(super) fn answers(&self, query: usize, found: Found) -> Vec<Answer> {
        let answer = |beam: Beam| {
            let item = self.space.trie.items(beam.node)[0];
            Answer { item, score: beam.score + self.rerank(query, item) }
        };
        let mut answers: Vec<Answer> = found.done.into_iter().map(answer).collect();
        answers.sort_unstable_by(by_score_then_item);
        answers
    }
}

/// Checks that exactly one query is given.
pub(super) fn one<B: Backend>(what: &str, encoded: &EncodedQueries<B>) -> Result<()> {
    match encoded.len() {
        1 => Ok(()),
        found => Err(Error::query(what)
            .expected("one encoded query")
            .found(found.to_string())
            .fix("encode queries one at a time")),
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

/// Checks log-probabilities of a node's children: where one is no number, none is.
pub(super) fn numbers(children: &[(u16, f32, Node)], level: usize) -> Result<()> {
    match children.first() {
        Some((_, bad, _)) if bad.is_nan() => Err(Error::model(format!("scores of level {level}"))
            .expected("numbers")
            .found(bad.to_string())
            .fix("look for damaged (retrieve::verify) or far too large vectors of candidates")),
        _ => Ok(()),
    }
}

/// Keeps the `width` best, in order: by score, then by identifier. Returns the best score of the others, or
/// minus infinity.
fn keep_best(beams: &mut Vec<Beam>, width: usize) -> f32 {
    let mut left = f32::NEG_INFINITY;
    if beams.len() > width {
        beams.select_nth_unstable_by(width - 1, by_score_then_row);
        left = beams.drain(width..).map(|beam| beam.score).fold(left, f32::max);
    }
    beams.sort_unstable_by(by_score_then_row);
    left
}

/// The standing of the prefix of a row, if it is among these; without the cut.
fn standing(beams: &[Beam], row: usize) -> Option<Standing> {
    let above = |beam: &Beam| {
        let first = beam.node.first_row();
        (first..first + beam.node.count()).contains(&row)
    };
    let own = beams.iter().find(|beam| above(beam))?;
    let better = beams.iter().filter(|beam| by_score_then_row(beam, own).is_lt()).count();
    Some(Standing { score: own.score, better, prefixes: beams.len(), cut: None })
}

/// Best first; ties by identifier.
fn by_score_then_row(a: &Beam, b: &Beam) -> Ordering {
    b.score.total_cmp(&a.score).then_with(|| a.node.first_row().cmp(&b.node.first_row()))
}

/// Best first; ties by item.
pub(super) fn by_score_then_item(a: &Answer, b: &Answer) -> Ordering {
    b.score.total_cmp(&a.score).then(a.item.cmp(&b.item))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use burn::backend::Flex;
    use proptest::prelude::*;
    use rand::{RngExt, SeedableRng, seq::SliceRandom};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::{
        data::QueryBatch,
        decode::{Engine, score_all},
        identifier::{Codes, Vocabulary},
        model::CartConfig,
        nn::FusionMode,
        trie::{Filter, Filters},
    };

    fn model(vocabulary: &Vocabulary, fusion: FusionMode, seed: u64) -> Cart<Flex> {
        CartConfig::new(16, vocabulary.clone())
            .with_width(8, 8, 2)
            .with_layers(2, 2)
            .with_fusion(fusion)
            .with_seed(seed)
            .init(&Default::default())
            .unwrap()
    }

    fn encode(model: &Cart<Flex>, rows: &[Vec<u32>]) -> EncodedQueries<Flex> {
        let batch = QueryBatch::new(rows, 0, &Default::default()).unwrap();
        model.encode(batch.tokens, batch.padding)
    }

    fn random_trie() -> impl Strategy<Value = Trie> {
        (1usize..5, 1u16..6).prop_flat_map(|(levels, size)| {
            prop::collection::btree_set(prop::collection::vec(0..size, levels), 1..50)
                .prop_map(|set: BTreeSet<_>| set.into_iter().collect::<Vec<_>>())
                .prop_shuffle()
                .prop_map(move |rows| {
                    let codes = Codes::from_rows(levels, &rows).unwrap();
                    let sizes = vec![usize::from(size); levels];
                    Trie::build(&codes, &Vocabulary::new(sizes).unwrap()).unwrap()
                })
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        /// A beam at least as wide as the collection is exhaustive search.
        #[test]
        fn a_wide_beam_equals_scoring_every_candidate(trie in random_trie(), seed in 0u64..50) {
            let queries = [vec![2, 5, 9, 3], vec![2, 7, 3]];
            for fusion in [FusionMode::None, FusionMode::Both] {
                let model = model(trie.vocabulary(), fusion, seed);
                let encoded = encode(&model, &queries);
                for scope in [Scope::All, Scope::Legal] {
                    let width = trie.len() + 3;
                    let level_weights = (0..trie.levels()).map(|l| l as f32 * 0.4).collect();
                    let config = BeamConfig {
                        width,
                        scope,
                        decoder_weight: 0.7,
                        level_weights,
                        ..BeamConfig::default()
                    };
                    let beams = beam_search(&model, &encoded, &trie, &config).unwrap();
                    for (query, beam) in beams.iter().enumerate() {
                        let alone = encode(&model, &queries[query..=query]);
                        let all = score_all(&model, &alone, &trie, &config).unwrap();
                        prop_assert_eq!(beam.len(), trie.len());
                        let exact: std::collections::HashMap<_, _> =
                            all.iter().map(|a| (a.item, a.score)).collect();
                        for (a, b) in beam.iter().zip(&all) {
                            prop_assert!((a.score - b.score).abs() < 1e-4, "{a:?} {b:?}");
                            prop_assert!((exact[&a.item] - a.score).abs() < 1e-4);
                        }
                    }
                }
            }
        }

        /// Whatever the trie and the width: valid, distinct, sorted, and as many as there can be.
        #[test]
        fn answers_are_distinct_candidates_and_as_many_as_possible(
            trie in random_trie(), width in 1usize..30, seed in 0u64..50
        ) {
            let model = model(trie.vocabulary(), FusionMode::None, seed);
            let encoded = encode(&model, &[vec![2, 5, 3], vec![2, 9, 1, 3]]);
            for scope in [Scope::All, Scope::Legal] {
                let config = BeamConfig { width, scope, ..BeamConfig::default() };
                for answers in beam_search(&model, &encoded, &trie, &config).unwrap() {
                    prop_assert_eq!(answers.len(), width.min(trie.len()));
                    let items: BTreeSet<u32> = answers.iter().map(|a| a.item).collect();
                    prop_assert_eq!(items.len(), answers.len());
                    prop_assert!(items.iter().all(|&item| (item as usize) < trie.len()));
                    prop_assert!(answers.windows(2).all(|w| w[0].score >= w[1].score));
                    prop_assert!(answers.iter().all(|a| a.score <= 1e-6));
                }
            }
        }
    }

    /// Distinct identifiers in any order: of one item, below one leaf, below few prefixes, or anywhere.
    fn codes(rng: &mut ChaCha8Rng, shape: usize) -> (Codes, Vocabulary) {
        let levels = rng.random_range(1..=6);
        let sizes: Vec<u16> = (0..levels).map(|_| rng.random_range(1..=300)).collect();
        let count = if shape == 0 { 1 } else { rng.random_range(1..=600) };
        // Levels before this one have one token in use; those up to `few` have two.
        let (one, few) = match shape {
            1 => (levels - 1, levels - 1),
            2 => (0, levels - 1),
            _ => (0, 0),
        };
        let in_use = |level: usize| match level {
            level if level < one => 1,
            level if level < few => sizes[level].min(2),
            level => sizes[level],
        };
        let row = |_| -> Vec<u16> { (0..levels).map(|l| rng.random_range(0..in_use(l))).collect() };
        let rows: BTreeSet<Vec<u16>> = (0..count).map(row).collect();
        let mut rows: Vec<Vec<u16>> = rows.into_iter().collect();
        rows.shuffle(rng);
        let sizes = sizes.into_iter().map(usize::from).collect();
        (Codes::from_rows(levels, &rows).unwrap(), Vocabulary::new(sizes).unwrap())
    }

    /// Whatever lies in the trie, and whatever the network thinks of it.
    #[test]
    fn a_million_random_beams_end_in_identifiers_of_the_trie_and_none_twice() {
        let mut rng = ChaCha8Rng::seed_from_u64(11);
        let mut beams = 0;
        for round in 0.. {
            let (codes, vocabulary) = codes(&mut rng, round % 4);
            let trie = Trie::build(&codes, &vocabulary).unwrap();
            let engine = Engine::new(model(&vocabulary, FusionMode::None, 1), Default::default());
            let queries: Vec<Vec<u32>> = (0..64)
                .map(|_| (0..rng.random_range(1..4)).map(|_| rng.random_range(0..16)).collect())
                .collect();
            let scope = if round % 3 == 0 { Scope::All } else { Scope::Legal };
            let config =
                BeamConfig { width: rng.random_range(1..=120), scope, ..BeamConfig::default() };
            for answers in engine.search(&queries, 0, &trie, &config).unwrap() {
                assert_eq!(answers.len(), config.width.min(trie.len()), "round {round}");
                let mut seen = vec![false; trie.len()];
                for answer in &answers {
                    let item = answer.item as usize;
                    assert!(
                        !std::mem::replace(&mut seen[item], true),
                        "round {round}: {item} twice"
                    );
                    // Against the identifiers that the trie was built from, not those that it keeps.
                    assert_eq!(trie.identifier_of(answer.item).unwrap().tokens(), codes.row(item));
                    assert!(answer.score <= 1e-5 && answer.score.is_finite());
                }
                beams += answers.len();
            }
            if beams >= 1_000_000 {
                return;
            }
        }
    }

    /// Twin: the same search by the network's own modules, as on a device; with queries that end early and one
    /// that may have no answer.
    #[test]
    fn the_search_on_a_device_finds_what_that_on_the_host_finds() {
        let rows: Vec<[u16; 3]> = (0..150u16).map(|i| [i / 60, i / 5 % 12, i * 7 % 5]).collect();
        let codes = Codes::from_rows(3, &rows).unwrap();
        let trie = Trie::build(&codes, &Vocabulary::new(vec![3, 12, 5]).unwrap()).unwrap();
        let queries = [vec![2, 5, 9, 3], vec![2, 7, 3], vec![9; 11], vec![4, 4]];
        let some = Filter::by_item(&trie, |item| item % 29 == 3);
        let none = Filter::allow(&trie, []).unwrap();
        let filters = [None, Some(&some), Some(&none), None];
        for fusion in [FusionMode::None, FusionMode::Both] {
            let model = model(trie.vocabulary(), fusion, 6);
            let encoded = encode(&model, &queries);
            for scope in [Scope::All, Scope::Legal] {
                let config = BeamConfig { width: 7, scope, ..BeamConfig::default() };
                let space = SearchSpace::from(&trie).with_filters(Filters::Each(&filters));
                let device = Queries::new(Cow::Borrowed(&encoded), None);
                let device = Prepared::of(&model, device, space, &config).unwrap();
                let (device, host) = (
                    device.beam().unwrap(),
                    beam_search(&model, &encoded, space, &config).unwrap(),
                );
                assert_eq!(
                    host.iter().map(Vec::len).collect::<Vec<_>>(),
                    [7, some.count().min(7), 0, 7]
                );
                for (device, host) in device.iter().zip(&host) {
                    assert_eq!(device.len(), host.len());
                    for (device, host) in device.iter().zip(host) {
                        assert!((device.score - host.score).abs() < 1e-4, "{device:?} {host:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn legal_scores_of_all_candidates_sum_to_one() {
        let codes = Codes::from_rows(2, &[[0u16, 1], [0, 2], [2, 0], [1, 1]]).unwrap();
        let trie = Trie::build(&codes, &Vocabulary::new(vec![3, 4]).unwrap()).unwrap();
        let model = model(trie.vocabulary(), FusionMode::Both, 3);
        let encoded = encode(&model, &[vec![2, 5, 3]]);
        let config = BeamConfig { width: 4, ..BeamConfig::default() };
        let beams = beam_search(&model, &encoded, &trie, &config).unwrap();
        let total: f32 = beams[0].iter().map(|a| a.score.exp()).sum();
        assert!((total - 1.0).abs() < 1e-5, "{total}");
        let zero = BeamConfig { width: 0, ..BeamConfig::default() };
        assert!(beam_search(&model, &encoded, &trie, &zero).is_err());
        for level_weights in [vec![1.0], vec![1.0; 3], vec![1.0, -0.5], vec![1.0, f32::NAN]] {
            let wrong = BeamConfig { level_weights, ..BeamConfig::default() };
            assert!(matches!(
                beam_search(&model, &encoded, &trie, &wrong),
                Err(Error::Config { .. })
            ));
        }
        // Coarse tokens alone: candidates of one have the same score.
        let coarse = BeamConfig { level_weights: vec![1.0, 0.0], ..BeamConfig::default() };
        let beams = beam_search(&model, &encoded, &trie, &coarse).unwrap();
        let score = |item| beams[0].iter().find(|a| a.item == item).unwrap().score;
        assert_eq!(score(0), score(1));
        assert!((score(0).exp() + score(2).exp() + score(3).exp() - 1.0).abs() < 1e-5);
    }
}
