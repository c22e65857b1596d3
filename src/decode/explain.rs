//! Why a candidate scores what it scores.

use burn::tensor::{Int, Tensor, TensorData, backend::Backend};
use serde::Serialize;

use super::{
    BeamConfig, SearchSpace,
    beam::{Prepared, finite, numbers},
};
use crate::{
    error::Result,
    model::{Cart, EncodedQueries},
};

/// A token of an identifier among those that could have stood in its place.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LevelScore {
    /// The token.
    pub token: u16,
    /// Its log-probability given the query and the tokens before it, at most 0.
    pub log_probability: f32,
    /// What it is multiplied with in the score ([`BeamConfig::level_weights`]).
    pub weight: f32,
    /// How many tokens could have stood there: the legal children of the prefix.
    pub choices: usize,
    /// How many of them are more probable.
    pub better: usize,
    /// The most probable of the others with their log-probabilities, best first.
    pub runners_up: Vec<(u16, f32)>,
}

/// The score of a candidate, level by level.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// The candidate.
    pub item: u32,
    /// Per level of its identifier.
    pub levels: Vec<LevelScore>,
    /// What the rerank adds.
    pub rerank: f32,
    /// The whole score: what a search gives it.
    pub score: f32,
}

/// Scores one candidate for one query, and says at every level what the other choices were.
///
/// # Errors
/// [`Error::Query`](crate::Error::Query) unless there is exactly one query; [`Error::Identifier`](crate::Error::Identifier) when there is no such item;
/// otherwise as [`beam_search`](super::beam_search).
pub fn explain<'a, B: Backend>(
    model: &Cart<B>,
    encoded: &EncodedQueries<B>,
    space: impl Into<SearchSpace<'a>>,
    config: &BeamConfig,
    item: u32,
    runners_up: usize,
) -> Result<Explanation> {
    let prepared = Prepared::single("explanation", model, encoded, space.into(), config)?;
    let (trie, scorer) = (prepared.trie(), prepared.scorer());
    let identifier = trie.identifier_of(item)?;
    let (mut state, mut node) = (model.start(), trie.root());
    let (mut levels, mut children) = (Vec::with_capacity(trie.levels()), Vec::new());
    for (level, &token) in identifier.tokens().iter().enumerate() {
        let before = (level > 0).then(|| {
            let token = i64::from(identifier.tokens()[level - 1]);
            Tensor::<B, 1, Int>::from_data(TensorData::new(vec![token], [1]), &encoded.device())
        });
        let logits = model.step(encoded, before, &mut state);
        let logits: Vec<f32> = logits.into_data().iter::<f32>().collect();
        finite(&logits, level)?;
        scorer.children(0, node, &logits, &mut children);
        numbers(&children, level)?;
        let own = children.iter().find(|child| child.0 == token);
        let &(_, log_probability, below) = own.expect("the identifier is in the trie");
        let mut others: Vec<(u16, f32)> = children
            .iter()
            .filter(|child| child.0 != token)
            .map(|child| (child.0, child.1))
            .collect();
        others.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let better = others.iter().filter(|other| other.1 > log_probability).count();
        others.truncate(runners_up);
        let choices = children.len();
        let weight = config.level_weight(level);
        let runners_up = others;
        levels.push(LevelScore { token, log_probability, weight, choices, better, runners_up });
        node = below;
    }
    let rerank = prepared.rerank(0, item);
    let score = levels.iter().map(|level| level.weight * level.log_probability).sum::<f32>();
    let score = score + rerank;
    Ok(Explanation { item, levels, rerank, score })
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;

    use super::*;
    use crate::{
        data::QueryBatch,
        decode::beam_search,
        identifier::{Codes, Vocabulary},
        model::{CartConfig, Scope},
        trie::Trie,
    };

    #[test]
    fn the_levels_add_up_to_the_score_of_the_search() {
        let rows: Vec<[u16; 3]> = (0..60u16).map(|i| [i / 20, i / 4 % 5, i % 4]).collect();
        let codes = Codes::from_rows(3, &rows).unwrap();
        let trie = Trie::build(&codes, &Vocabulary::new(vec![3, 5, 4]).unwrap()).unwrap();
        let config = CartConfig::new(16, trie.vocabulary().clone());
        let config = config.with_width(8, 8, 2).with_layers(2, 2).with_seed(4);
        let model: Cart<Flex> = config.init(&Default::default()).unwrap();
        let encode = |rows: &[Vec<u32>]| {
            let batch = QueryBatch::new(rows, 0, &Default::default()).unwrap();
            model.encode(batch.tokens, batch.padding)
        };
        let encoded = encode(&[vec![2, 5, 9, 3]]);
        for scope in [Scope::Legal, Scope::All] {
            let beam = BeamConfig {
                width: 60,
                scope,
                decoder_weight: 0.8,
                level_weights: vec![1.0, 0.5, 0.7],
                ..BeamConfig::default()
            };
            let answers = beam_search(&model, &encoded, &trie, &beam).unwrap().remove(0);
            for answer in answers.iter().step_by(7) {
                let found = explain(&model, &encoded, &trie, &beam, answer.item, 2).unwrap();
                assert!((found.score - answer.score).abs() < 1e-4, "{found:?} {answer:?}");
                assert_eq!(found.item, answer.item);
                for (level, &token) in found.levels.iter().zip(&rows[answer.item as usize]) {
                    assert_eq!(level.token, token);
                    assert_eq!(level.runners_up.len(), 2.min(level.choices - 1));
                    let better = level.runners_up.first().map(|r| r.1 > level.log_probability);
                    assert_eq!(better.unwrap_or(false), level.better > 0);
                    if scope == Scope::Legal {
                        // Probabilities of all choices sum to 1.
                        let all = explain(&model, &encoded, &trie, &beam, answer.item, 9).unwrap();
                        let level = &all.levels[0];
                        let sum: f32 = level.runners_up.iter().map(|r| r.1.exp()).sum();
                        assert!((sum + level.log_probability.exp() - 1.0).abs() < 1e-5);
                    }
                }
            }
            assert!(explain(&model, &encoded, &trie, &beam, 60, 1).is_err());
            let two = encode(&[vec![2, 3], vec![4, 3]]);
            assert!(explain(&model, &two, &trie, &beam, 0, 1).is_err());
        }
    }
}
