//! Where a beam loses a candidate.

use burn::tensor::backend::Backend;
use serde::Serialize;

use super::{
    ScoredItem,
    beam::{Limits, PrefixRank, Prepared},
};
use crate::error::Result;

/// A candidate's prefix among all prefixes that a beam had to choose from at a level.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TraceLevel {
    /// The token that the level adds.
    pub token: u16,
    /// Score of the prefix: the weighted log-probabilities of its tokens.
    pub score: f32,
    /// How many prefixes are better.
    pub better: usize,
    /// How many prefixes there are: the children of all that the level before kept.
    pub prefixes: usize,
    /// The score of the last prefix that is kept, if some are pruned.
    pub cut: Option<f32>,
    /// Whether this prefix is kept.
    pub kept: bool,
}

/// The way of a candidate through a beam search.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Trace {
    /// The candidate.
    pub item: u32,
    /// Level by level: up to the one that loses it, or to where nothing is left to decide for any
    /// prefix.
    pub levels: Vec<TraceLevel>,
    /// The level at which its prefix is pruned, counted from 0; `None` if it is found, or if a
    /// filter excludes it.
    pub lost_at: Option<usize>,
    /// Its place in what is found, counted from 0.
    pub rank: Option<usize>,
    /// What the search finds, best first.
    #[serde(skip)]
    pub found: Vec<ScoredItem>,
}

/// Follows a candidate through a beam search for the one query.
pub(super) fn trace<B: Backend>(mut prepared: Prepared<'_, B>, item: u32) -> Result<Trace> {
    let (trie, width) = (prepared.space.trie, prepared.config.width);
    let identifier = trie.identifier_of(item)?;
    prepared.traced = Some(trie.row_of(item)?);
    let beams = prepared.run(Limits { width, min_score: f32::NEG_INFINITY })?.remove(0);
    let level = |(rank, &token): (&PrefixRank, &u16)| TraceLevel {
        token,
        score: rank.score,
        better: rank.better,
        prefixes: rank.prefixes,
        cut: rank.cut,
        kept: rank.better < width,
    };
    let levels: Vec<TraceLevel> = beams.ranks.iter().zip(identifier.tokens()).map(level).collect();
    let lost_at = levels.iter().position(|level| !level.kept);
    let found = prepared.scored(0, beams);
    let rank = found.iter().position(|scored| scored.item == item);
    Ok(Trace { item, levels, lost_at, rank, found })
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;

    use crate::{
        decode::{BeamConfig, Engine, Filter, Filters, SearchSpace},
        identifier::{Codes, LevelSizes},
        model::{CartConfig, Scope},
        trie::Trie,
    };

    #[test]
    fn candidates_are_lost_where_too_many_prefixes_are_better() {
        let rows: Vec<[u16; 3]> = (0..90u16).map(|i| [i / 30, i / 5 % 6, i * 7 % 5]).collect();
        let codes = Codes::from_rows(3, &rows).unwrap();
        let trie = Trie::build(&codes, &LevelSizes::new(vec![3, 6, 5]).unwrap()).unwrap();
        let config = CartConfig::new(16, trie.vocabulary().clone());
        let config = config.with_width(8, 8, 2).with_layers(2, 2).with_seed(4);
        let engine: Engine<Flex> = Engine::new(config.init(&Default::default()).unwrap());
        let encoded = engine.encode(&[[2, 5, 9, 3]], 0).unwrap();
        let modules = engine.clone().by_modules();
        let by_modules = modules.encode(&[[2, 5, 9, 3]], 0).unwrap();
        let mut lost = [0; 3];
        for scope in [Scope::Legal, Scope::All] {
            let level_weights = vec![1.0, 0.5, 0.7];
            let beam = |width| BeamConfig {
                width,
                scope,
                level_weights: level_weights.clone(),
                ..BeamConfig::default()
            };
            // Every prefix with its score, by the network's own modules.
            let scores: Vec<[f32; 3]> = (0..90)
                .map(|item| {
                    let found = modules.explain(&by_modules, &trie, &beam(90), item).unwrap();
                    let mut sum = 0.0;
                    [0, 1, 2].map(|level| {
                        sum += found.levels[level].log_probability * level_weights[level];
                        sum
                    })
                })
                .collect();
            for width in [2, 7, 90] {
                let answers = engine.beam_search(&encoded, &trie, &beam(width)).unwrap().remove(0);
                for item in 0..90u32 {
                    let own = engine.trace(&encoded, &trie, &beam(width), item).unwrap();
                    assert_eq!(own.found, answers);
                    let place = answers.iter().position(|answer| answer.item == item);
                    assert_eq!(own.rank, place);
                    assert_eq!(own.lost_at.is_some(), place.is_none());
                    for (at, level) in own.levels.iter().enumerate() {
                        assert_eq!(level.token, rows[item as usize][at]);
                        assert!((level.score - scores[item as usize][at]).abs() < 1e-4);
                        assert_eq!(level.cut.is_some(), level.prefixes > width);
                        if let Some(cut) = level.cut {
                            assert_eq!(level.kept, level.score >= cut, "{level:?}");
                        }
                    }
                    if let Some(at) = own.lost_at {
                        lost[at] += 1;
                        assert_eq!(own.levels.len(), at + 1, "nothing is noted behind the loss");
                    }
                }
            }
            // The first level has all prefixes: there the place is that among all coarse tokens.
            let own = engine.trace(&encoded, &trie, &beam(2), 0).unwrap();
            let better = [30, 60].iter().filter(|&&other| scores[other][0] > scores[0][0]).count();
            assert_eq!((own.levels[0].better, own.levels[0].prefixes), (better, 3));
        }
        assert!(lost.iter().all(|&count| count > 0), "{lost:?}");

        // What a filter does not allow is in no answer, and lost at no level.
        let filter = Filter::deny(&trie, [7]).unwrap();
        let space = SearchSpace::from(&trie).with_filters(Filters::Same(&filter));
        let denied = engine.trace(&encoded, space, &BeamConfig::default(), 7).unwrap();
        assert_eq!((denied.rank, denied.lost_at), (None, None));
        assert!(engine.trace(&encoded, &trie, &BeamConfig::default(), 90).is_err());
        let two = engine.encode(&[[2, 3], [4, 3]], 0).unwrap();
        assert!(engine.trace(&two, &trie, &BeamConfig::default(), 0).is_err());
    }
}
