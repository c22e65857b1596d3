//! The best candidates under the model, proven.

use std::collections::HashSet;

use burn::tensor::backend::Backend;

use super::{
    ScoredItem,
    beam::{Limits, Prepared, by_score_then_item},
};
use crate::{
    error::{Error, Result},
    index::PrefixStats,
};

/// What rounding may add to the score of a prefix on its way down, relative.
const SLACK: f32 = 1e-5;

/// How far an exact search goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExactLimits {
    /// Candidates to find.
    pub top: usize,
    /// Prefixes examined at a level, at most; at least `top`.
    pub budget: usize,
}

/// What an exact search gives.
#[derive(Debug, Clone, PartialEq)]
pub struct ExactResult {
    /// The best candidates, best first.
    pub found: Vec<ScoredItem>,
    /// Whether no other candidate scores as much as the last of them.
    pub proven: bool,
    /// Prefixes that the decoder continued: the cost of the search.
    pub prefixes: usize,
}

/// The `top` best candidates for the one query of a search.
pub(super) fn exact<B: Backend>(
    prepared: &Prepared<'_, B>,
    limits: ExactLimits,
) -> Result<ExactResult> {
    let ExactLimits { top, budget } = limits;
    let config = prepared.config;
    let remedy = "a budget of a few thousand prefixes per level is usual";
    Error::query("exact search")
        .expected("a top of at least 1, and a budget of at least top")
        .found(format!("a top of {top}, a budget of {budget}"))
        .fix_if(top == 0 || budget < top, remedy)?;
    let mut limits = Limits { width: config.width.max(top), min_score: f32::NEG_INFINITY };
    let (mut prefixes, mut known) = (0, Vec::new());
    let longest = match config.rerank > 0.0 {
        true => prepared.space.prefix_stats.map_or(1.0, PrefixStats::longest),
        false => 0.0,
    };
    let added = config.rerank * longest + config.late_interaction;
    loop {
        let beams = prepared.run(limits)?.remove(0);
        prefixes += beams.prefixes;
        let best_pruned = beams.best_pruned;
        // This run may prune what an earlier one found, or leave it out for its score.
        let mut found = prepared.scored(0, beams);
        found.append(&mut known);
        found.sort_unstable_by(by_score_then_item);
        let mut seen = HashSet::new();
        found.retain(|scored| seen.insert(scored.item));
        found.truncate(top);
        // Nothing that scores less than this can still become one of the best.
        let needed = found.get(top - 1).map_or(f32::NEG_INFINITY, |last| {
            last.score - added - SLACK * (1.0 + last.score.abs())
        });
        let proven = best_pruned == f32::NEG_INFINITY || best_pruned < needed;
        if proven || limits.min_score > f32::NEG_INFINITY || limits.width >= budget {
            return Ok(ExactResult { found, proven, prefixes });
        }
        limits = Limits { width: budget, min_score: needed };
        known = found;
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;
    use proptest::prelude::*;

    use super::*;
    use crate::{
        decode::{BeamConfig, Engine, Filter, Filters, SearchSpace},
        identifier::{Codes, LevelSizes},
        model::{CartConfig, Scope},
        trie::Trie,
    };

    const QUERY: [u32; 4] = [2, 5, 9, 3];

    fn engine(vocabulary: &LevelSizes, seed: u64) -> Engine<Flex> {
        let config = CartConfig::new(16, vocabulary.clone());
        let config = config.with_width(8, 8, 2).with_layers(2, 2).with_seed(seed);
        Engine::new(config.init(&Default::default()).unwrap())
    }

    fn random_trie() -> impl Strategy<Value = Trie> {
        prop::collection::btree_set(prop::collection::vec(0u16..5, 3), 1..70).prop_map(|rows| {
            let codes = Codes::from_rows(3, &rows.into_iter().collect::<Vec<_>>()).unwrap();
            Trie::build(&codes, &LevelSizes::new(vec![5; 3]).unwrap()).unwrap()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        /// Twin: the scores of all candidates, of those that a filter allows.
        #[test]
        fn a_proven_answer_is_that_of_scoring_every_candidate(
            trie in random_trie(), seed in 0u64..50, top in 1usize..12, width in 1usize..4,
        ) {
            let engine = engine(trie.vocabulary(), seed);
            let modules = engine.clone().by_modules();
            let encoded = engine.encode(&[QUERY], 0).unwrap();
            let by_modules = modules.encode(&[QUERY], 0).unwrap();
            let filter = Filter::by_item(&trie, |item| item % 3 != 1);
            for filters in [Filters::None, Filters::Same(&filter)] {
                let space = SearchSpace::from(&trie).with_filters(filters);
                for scope in [Scope::All, Scope::Legal] {
                    let level_weights = vec![1.0, 0.3, 0.6];
                    let config =
                        BeamConfig { width, scope, level_weights, ..BeamConfig::default() };
                    let run = |budget| {
                        let limits = ExactLimits { top, budget };
                        engine.exact_search(&encoded, space, &config, limits).unwrap()
                    };
                    let exact = run(200);
                    prop_assert!(exact.proven);
                    let all = modules.score_all(&by_modules, space, &config).unwrap();
                    prop_assert_eq!(exact.found.len(), top.min(all.len()));
                    for (found, expected) in exact.found.iter().zip(&all) {
                        prop_assert!((found.score - expected.score).abs() < 1e-4);
                    }
                    let narrow = run(top);
                    if narrow.proven {
                        for (found, expected) in narrow.found.iter().zip(&all) {
                            prop_assert!((found.score - expected.score).abs() < 1e-4);
                        }
                    }
                }
            }
        }

        /// Whatever the filter and the width: allowed, distinct, with the scores of a search
        /// without it, and as many as there can be; also together with queries with other filters.
        #[test]
        fn filtered_answers_are_allowed_and_as_many_as_possible(
            trie in random_trie(), seed in 0u64..50, width in 1usize..30, keep in 0u32..8,
        ) {
            let engine = engine(trie.vocabulary(), seed);
            let encoded = engine.encode(&[QUERY; 3], 0).unwrap();
            let some = Filter::by_item(&trie, |item| item * 2654435761u32.wrapping_add(keep) % 8 < keep);
            let none = Filter::allow(&trie, []).unwrap();
            let filters = [Some(&some), None, Some(&none)];
            for scope in [Scope::All, Scope::Legal] {
                let config = BeamConfig { width, scope, ..BeamConfig::default() };
                let space = SearchSpace::from(&trie).with_filters(Filters::Each(&filters));
                let answers = engine.beam_search(&encoded, space, &config).unwrap();
                prop_assert_eq!(answers[0].len(), width.min(some.count()));
                prop_assert_eq!(answers[1].len(), width.min(trie.len()));
                prop_assert!(answers[2].is_empty());
                let whole = BeamConfig { width: trie.len(), ..config };
                let all = engine.beam_search(&encoded, &trie, &whole).unwrap();
                let mut seen = std::collections::HashSet::new();
                for answer in &answers[0] {
                    prop_assert!(some.allows(&trie, answer.item) && seen.insert(answer.item));
                    let same = all[0].iter().find(|other| other.item == answer.item).unwrap();
                    prop_assert!((same.score - answer.score).abs() < 1e-5);
                }
            }
        }
    }

    #[test]
    fn what_cannot_be_is_refused_and_a_small_budget_is_said_to_be_too_small() {
        let rows: Vec<[u16; 2]> = (0..400u16).map(|i| [i / 20, i % 20]).collect();
        let codes = Codes::from_rows(2, &rows).unwrap();
        let trie = Trie::build(&codes, &LevelSizes::new(vec![20, 20]).unwrap()).unwrap();
        let engine = engine(trie.vocabulary(), 1);
        let encoded = engine.encode(&[QUERY], 0).unwrap();
        let config = BeamConfig { width: 5, ..BeamConfig::default() };
        let run = |top, budget| {
            engine.exact_search(&encoded, &trie, &config, ExactLimits { top, budget })
        };
        assert!(run(0, 10).is_err() && run(5, 4).is_err());
        // An untrained network likes all candidates nearly as much: every prefix has to be looked
        // at.
        let (narrow, wide) = (run(5, 6).unwrap(), run(5, 400).unwrap());
        assert!(!narrow.proven && wide.proven);
        assert!(wide.prefixes > narrow.prefixes);
        assert!(wide.found[4].score >= narrow.found[4].score - 1e-5);
    }
}
