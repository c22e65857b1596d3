//! The best candidates under the model, proven.

use std::collections::HashSet;

use burn::tensor::backend::Backend;

use super::{
    Answer, BeamConfig, SearchSpace,
    beam::{Limits, Prepared, by_score_then_item, one},
};
use crate::{
    error::{Error, Result},
    model::{Cart, EncodedQueries},
};

/// What rounding may add to the score of a prefix on its way down, relative.
const SLACK: f32 = 1e-5;

/// What an exact search gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Exact {
    /// The best candidates, best first.
    pub answers: Vec<Answer>,
    /// Whether no other candidate scores as much as the last of them.
    pub proven: bool,
    /// Prefixes that the decoder went on with: what the search cost.
    pub prefixes: usize,
}

/// The `top` best candidates under the model for one query.
///
/// The score of a prefix only falls as it grows, so a prefix that scores less than the last answer at hand leads
/// to none. A first beam (`config.width`, at least `top`) gives such answers. Where a prefix that the beam left
/// scores as much, the search runs once more, level by level, with every prefix that may still lead
/// to a better answer, at most `budget` at a level. (Best-first expansion would look at no more prefixes, but one at a
/// time; levels keep the decoder's batches full.)
///
/// A rerank adds at most its weight to a score, so that prefixes within that of the last answer are
/// looked at: with large weights few results can be proven.
///
/// # Errors
/// [`Error::Query`] unless there is exactly one query, for a `top` of 0, and for a budget below `top`;
/// otherwise as [`beam_search`](super::beam_search).
pub fn exact_search<'a, B: Backend>(
    model: &Cart<B>,
    encoded: &EncodedQueries<B>,
    space: impl Into<SearchSpace<'a>>,
    config: &BeamConfig,
    top: usize,
    budget: usize,
) -> Result<Exact> {
    one("exact search", encoded)?;
    exact(&Prepared::new(model, encoded, space.into(), config)?, config, top, budget)
}

/// The same for the one query of a search that has been checked.
pub(super) fn exact<B: Backend>(
    prepared: &Prepared<'_, B>,
    config: &BeamConfig,
    top: usize,
    budget: usize,
) -> Result<Exact> {
    if top == 0 || budget < top {
        return Err(Error::query("exact search")
            .expected("a top of at least 1, and a budget of at least top")
            .found(format!("a top of {top}, a budget of {budget}"))
            .fix("a budget of a few thousand prefixes per level is usual"));
    }
    let mut limits = Limits { width: config.width.max(top), floor: f32::NEG_INFINITY };
    let (mut prefixes, mut known) = (0, Vec::new());
    loop {
        let found = prepared.run(limits)?.remove(0);
        prefixes += found.prefixes;
        let left = found.left;
        // What is known already may be left for the width, or lie below the floor, now.
        let mut answers = prepared.answers(0, found);
        answers.append(&mut known);
        answers.sort_unstable_by(by_score_then_item);
        let mut seen = HashSet::new();
        answers.retain(|answer| seen.insert(answer.item));
        answers.truncate(top);
        // Nothing that scores less than this can still become one of the answers.
        let needed = answers.get(top - 1).map_or(f32::NEG_INFINITY, |last| {
            last.score - config.rerank - SLACK * (1.0 + last.score.abs())
        });
        let proven = left == f32::NEG_INFINITY || left < needed;
        if proven || limits.floor > f32::NEG_INFINITY || limits.width >= budget {
            return Ok(Exact { answers, proven, prefixes });
        }
        limits = Limits { width: budget, floor: needed };
        known = answers;
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;
    use proptest::prelude::*;

    use super::*;
    use crate::{
        data::QueryBatch,
        decode::{beam_search, score_all},
        identifier::{Codes, Vocabulary},
        model::{CartConfig, Scope},
        trie::{Filter, Filters, Trie},
    };

    fn model(vocabulary: &Vocabulary, seed: u64) -> Cart<Flex> {
        let config = CartConfig::new(16, vocabulary.clone());
        let config = config.with_width(8, 8, 2).with_layers(2, 2).with_seed(seed);
        config.init(&Default::default()).unwrap()
    }

    fn encode(model: &Cart<Flex>) -> EncodedQueries<Flex> {
        let batch = QueryBatch::new(&[vec![2, 5, 9, 3]], 0, &Default::default()).unwrap();
        model.encode(batch.tokens, batch.padding)
    }

    fn random_trie() -> impl Strategy<Value = Trie> {
        prop::collection::btree_set(prop::collection::vec(0u16..5, 3), 1..70).prop_map(|rows| {
            let codes = Codes::from_rows(3, &rows.into_iter().collect::<Vec<_>>()).unwrap();
            Trie::build(&codes, &Vocabulary::new(vec![5; 3]).unwrap()).unwrap()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        /// Twin: the scores of all candidates, of those that a filter allows.
        #[test]
        fn a_proven_answer_is_that_of_scoring_every_candidate(
            trie in random_trie(), seed in 0u64..50, top in 1usize..12, width in 1usize..4,
        ) {
            let model = model(trie.vocabulary(), seed);
            let encoded = encode(&model);
            let filter = Filter::by_item(&trie, |item| item % 3 != 1);
            for filters in [Filters::None, Filters::Same(&filter)] {
                let space = SearchSpace::from(&trie).with_filters(filters);
                for scope in [Scope::All, Scope::Legal] {
                    let level_weights = vec![1.0, 0.3, 0.6];
                    let config =
                        BeamConfig { width, scope, level_weights, ..BeamConfig::default() };
                    let exact = exact_search(&model, &encoded, space, &config, top, 200).unwrap();
                    prop_assert!(exact.proven);
                    let all = score_all(&model, &encoded, space, &config).unwrap();
                    prop_assert_eq!(exact.answers.len(), top.min(all.len()));
                    for (found, expected) in exact.answers.iter().zip(&all) {
                        prop_assert!((found.score - expected.score).abs() < 1e-4);
                    }
                    let narrow = exact_search(&model, &encoded, space, &config, top, top).unwrap();
                    if narrow.proven {
                        for (found, expected) in narrow.answers.iter().zip(&all) {
                            prop_assert!((found.score - expected.score).abs() < 1e-4);
                        }
                    }
                }
            }
        }

        /// Whatever the filter and the width: allowed, distinct, with the scores of a search without it,
        /// and as many as there can be; also beside queries with other filters.
        #[test]
        fn filtered_answers_are_allowed_and_as_many_as_possible(
            trie in random_trie(), seed in 0u64..50, width in 1usize..30, keep in 0u32..8,
        ) {
            let model = model(trie.vocabulary(), seed);
            let rows = vec![vec![2, 5, 9, 3]; 3];
            let batch = QueryBatch::new(&rows, 0, &Default::default()).unwrap();
            let encoded = model.encode(batch.tokens, batch.padding);
            let some = Filter::by_item(&trie, |item| item * 2654435761u32.wrapping_add(keep) % 8 < keep);
            let none = Filter::allow(&trie, []).unwrap();
            let filters = [Some(&some), None, Some(&none)];
            for scope in [Scope::All, Scope::Legal] {
                let config = BeamConfig { width, scope, ..BeamConfig::default() };
                let space = SearchSpace::from(&trie).with_filters(Filters::Each(&filters));
                let answers = beam_search(&model, &encoded, space, &config).unwrap();
                prop_assert_eq!(answers[0].len(), width.min(some.count()));
                prop_assert_eq!(answers[1].len(), width.min(trie.len()));
                prop_assert!(answers[2].is_empty());
                let whole = BeamConfig { width: trie.len(), ..config };
                let all = beam_search(&model, &encoded, &trie, &whole).unwrap();
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
        let trie = Trie::build(&codes, &Vocabulary::new(vec![20, 20]).unwrap()).unwrap();
        let model = model(trie.vocabulary(), 1);
        let encoded = encode(&model);
        let config = BeamConfig { width: 5, ..BeamConfig::default() };
        let run = |top, budget| exact_search(&model, &encoded, &trie, &config, top, budget);
        assert!(run(0, 10).is_err() && run(5, 4).is_err());
        // An untrained network likes all candidates nearly as much: every prefix has to be looked at.
        let (narrow, wide) = (run(5, 6).unwrap(), run(5, 400).unwrap());
        assert!(!narrow.proven && wide.proven);
        assert!(wide.prefixes > narrow.prefixes);
        assert!(wide.answers[4].score >= narrow.answers[4].score - 1e-5);
    }
}
