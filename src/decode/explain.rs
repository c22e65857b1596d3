//! Why a candidate scores what it scores.

use burn::tensor::backend::Backend;
use serde::Serialize;

use super::{beam::Prepared, exhaustive::descend};
use crate::error::Result;

/// A token of an identifier among those that could have stood in its place.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LevelScore {
    /// The token.
    pub token: u16,
    /// Its log-probability given the query and the tokens before it, at most 0.
    pub log_probability: f32,
    /// What it is multiplied with in the score
    /// ([`BeamConfig::level_weights`](crate::decode::BeamConfig::level_weights)).
    pub weight: f32,
    /// How many tokens could have stood there: the legal children of the prefix.
    pub choices: usize,
    /// How many of them are more probable.
    pub better: usize,
    /// The most probable of the others with their log-probabilities, best first.
    pub runners_up: Vec<(u16, f32)>,
}

/// The score of a candidate, level by level.
///
/// Made by [`Engine::explain`](super::Engine::explain), with all other choices of every level;
/// [`Explanation::with_runners_up`] shortens them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// The candidate.
    pub item: u32,
    /// Per level of its identifier.
    pub levels: Vec<LevelScore>,
    /// What the rerank adds.
    pub rerank: f32,
    /// What late interaction adds.
    pub late_interaction: f32,
    /// The whole score: what a search gives it.
    pub score: f32,
}

impl Explanation {
    /// Keeps this many runners-up at every level.
    pub fn with_runners_up(mut self, count: usize) -> Self {
        self.levels.iter_mut().for_each(|level| level.runners_up.truncate(count));
        self
    }
}

/// The score of a candidate for the one query, level by level.
pub(super) fn explain<B: Backend>(prepared: &Prepared<'_, B>, item: u32) -> Result<Explanation> {
    let identifier = prepared.space.trie.identifier_of(item)?;
    let config = prepared.config;
    let mut levels = Vec::with_capacity(identifier.tokens().len());
    let scores = descend(prepared, item..item + 1, |level, children| {
        let token = identifier.tokens()[level];
        let own = children.iter().find(|child| child.0 == token);
        let log_probability = own.map_or(f32::NEG_INFINITY, |child| child.1);
        let others = children.iter().filter(|child| child.0 != token);
        let mut runners_up: Vec<(u16, f32)> = others.map(|child| (child.0, child.1)).collect();
        runners_up.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let better = runners_up.iter().filter(|other| other.1 > log_probability).count();
        let (weight, choices) = (config.level_weight(level), children.len());
        levels.push(LevelScore { token, log_probability, weight, choices, better, runners_up });
    })?;
    let (rerank, late_interaction) = (prepared.rerank(0, item), prepared.late(0, item));
    Ok(Explanation { item, levels, rerank, late_interaction, score: scores[0] })
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;

    use crate::{
        decode::{BeamConfig, Engine},
        identifier::{Codes, LevelSizes},
        model::{CartConfig, Scope},
        trie::Trie,
    };

    #[test]
    fn the_levels_add_up_to_the_score_of_the_search() {
        let rows: Vec<[u16; 3]> = (0..60u16).map(|i| [i / 20, i / 4 % 5, i % 4]).collect();
        let codes = Codes::from_rows(3, &rows).unwrap();
        let trie = Trie::build(&codes, &LevelSizes::new(vec![3, 5, 4]).unwrap()).unwrap();
        let config = CartConfig::new(16, trie.vocabulary().clone());
        let config = config.with_width(8, 8, 2).with_layers(2, 2).with_seed(4);
        let engine: Engine<Flex> = Engine::new(config.init(&Default::default()).unwrap());
        let encoded = engine.encode(&[[2, 5, 9, 3]], 0).unwrap();
        // The explanations by the network's own modules.
        let modules = engine.clone().by_modules();
        let by_modules = modules.encode(&[[2, 5, 9, 3]], 0).unwrap();
        for scope in [Scope::Legal, Scope::All] {
            let beam = BeamConfig {
                width: 60,
                scope,
                decoder_weight: 0.8,
                level_weights: vec![1.0, 0.5, 0.7],
                ..BeamConfig::default()
            };
            let answers = engine.beam_search(&encoded, &trie, &beam).unwrap().remove(0);
            for answer in answers.iter().step_by(7) {
                let all = modules.explain(&by_modules, &trie, &beam, answer.item).unwrap();
                let here = engine.explain(&encoded, &trie, &beam, answer.item).unwrap();
                assert_eq!(here.score, answer.score, "{here:?}");
                let found = all.clone().with_runners_up(2);
                assert!((found.score - answer.score).abs() < 1e-4, "{found:?} {answer:?}");
                assert_eq!(found.item, answer.item);
                for (level, &token) in found.levels.iter().zip(&rows[answer.item as usize]) {
                    assert_eq!(level.token, token);
                    assert_eq!(level.runners_up.len(), 2.min(level.choices - 1));
                    let better = level.runners_up.first().map(|r| r.1 > level.log_probability);
                    assert_eq!(better.unwrap_or(false), level.better > 0);
                    if scope == Scope::Legal {
                        // Probabilities of all choices sum to 1.
                        let level = &all.levels[0];
                        let sum: f32 = level.runners_up.iter().map(|r| r.1.exp()).sum();
                        assert!((sum + level.log_probability.exp() - 1.0).abs() < 1e-5);
                    }
                }
            }
            assert!(engine.explain(&encoded, &trie, &beam, 60).is_err());
            let two = engine.encode(&[[2, 3], [4, 3]], 0).unwrap();
            assert!(engine.explain(&two, &trie, &beam, 0).is_err());
        }
    }
}
