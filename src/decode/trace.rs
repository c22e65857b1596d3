//! Where a beam loses a candidate.

use burn::tensor::backend::Backend;
use serde::Serialize;

use super::{
    Answer, BeamConfig, SearchSpace,
    beam::{Limits, Prepared, one},
};
use crate::{
    error::Result,
    model::{Cart, EncodedQueries},
};

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
    /// The score of the last prefix that is kept, where some are left.
    pub cut: Option<f32>,
    /// Whether this prefix is kept.
    pub kept: bool,
}

/// The way of a candidate through a beam search.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Trace {
    /// The candidate.
    pub item: u32,
    /// Level by level: up to the one that loses it, or to where nothing is left to decide for any prefix.
    pub levels: Vec<TraceLevel>,
    /// The level at which its prefix is left, counted from 0; none when it is among the answers, or a filter keeps it out.
    pub lost_at: Option<usize>,
    /// Its place among the answers, counted from 0.
    pub rank: Option<usize>,
    /// What the search answers, best first.
    #[serde(skip)]
    pub answers: Vec<Answer>,
}

/// Follows a candidate through a beam search for one query: what the prefixes of its identifier score, which place
/// that is at their level, and where the beam leaves them (ours).
///
/// The answers are those of [`beam_search`](super::beam_search). A rerank comes after the beam: it changes the place
/// among the answers, and not where a candidate is lost.
///
/// # Errors
/// [`Error::Query`](crate::Error::Query) unless there is exactly one query; [`Error::Identifier`](crate::Error::Identifier) when there is no
/// such item; otherwise as [`beam_search`](super::beam_search).
///
/// # Example
/// ```
/// use burn::backend::Flex;
/// use cart_retrieval::{
///     data::QueryBatch, decode::{BeamConfig, trace}, identifier::{Codes, Vocabulary}, model::CartConfig, trie::Trie,
/// };
/// let codes = Codes::from_rows(2, &[[0, 1], [1, 0], [1, 2]])?;
/// let trie = Trie::build(&codes, &Vocabulary::new(vec![2, 3])?)?;
/// let model = CartConfig::new(50, trie.vocabulary().clone()).init::<Flex>(&Default::default())?;
/// let batch = QueryBatch::new(&[vec![7, 8]], 0, &Default::default())?;
/// let encoded = model.encode(batch.tokens, batch.padding);
/// let narrow = BeamConfig { width: 1, ..BeamConfig::default() };
/// let lost = (0..3).map(|item| trace(&model, &encoded, &trie, &narrow, item));
/// let lost = lost.collect::<Result<Vec<_>, _>>()?;
/// assert_eq!(lost.iter().filter(|trace| trace.lost_at.is_some()).count(), 2);
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
pub fn trace<'a, B: Backend>(
    model: &Cart<B>,
    encoded: &EncodedQueries<B>,
    space: impl Into<SearchSpace<'a>>,
    config: &BeamConfig,
    item: u32,
) -> Result<Trace> {
    one("trace", encoded)?;
    let space = space.into();
    let identifier = space.trie.identifier_of(item)?;
    let row = space.trie.row_of(item)?;
    let prepared = Prepared::new(model, encoded, space, config)?.with_watched(row);
    let mut found = prepared.run(Limits { width: config.width, floor: f32::NEG_INFINITY })?;
    let found = found.remove(0);
    let levels: Vec<TraceLevel> = found
        .standings
        .iter()
        .zip(identifier.tokens())
        .map(|(standing, &token)| TraceLevel {
            token,
            score: standing.score,
            better: standing.better,
            prefixes: standing.prefixes,
            cut: standing.cut,
            kept: standing.better < config.width,
        })
        .collect();
    let lost_at = levels.iter().position(|level| !level.kept);
    let answers = prepared.answers(0, found);
    let rank = answers.iter().position(|answer| answer.item == item);
    Ok(Trace { item, levels, lost_at, rank, answers })
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;

    use super::*;
    use crate::{
        data::QueryBatch,
        decode::{beam_search, explain},
        identifier::{Codes, Vocabulary},
        model::{CartConfig, Scope},
        trie::{Filter, Filters, Trie},
    };

    #[test]
    fn candidates_are_lost_where_too_many_prefixes_are_better() {
        let rows: Vec<[u16; 3]> = (0..90u16).map(|i| [i / 30, i / 5 % 6, i * 7 % 5]).collect();
        let codes = Codes::from_rows(3, &rows).unwrap();
        let trie = Trie::build(&codes, &Vocabulary::new(vec![3, 6, 5]).unwrap()).unwrap();
        let config = CartConfig::new(16, trie.vocabulary().clone());
        let config = config.with_width(8, 8, 2).with_layers(2, 2).with_seed(4);
        let model: Cart<Flex> = config.init(&Default::default()).unwrap();
        let encode = |rows: &[Vec<u32>]| {
            let batch = QueryBatch::new(rows, 0, &Default::default()).unwrap();
            model.encode(batch.tokens, batch.padding)
        };
        let encoded = encode(&[vec![2, 5, 9, 3]]);
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
                    let found = explain(&model, &encoded, &trie, &beam(90), item, 0).unwrap();
                    let mut sum = 0.0;
                    [0, 1, 2].map(|level| {
                        sum += found.levels[level].log_probability * level_weights[level];
                        sum
                    })
                })
                .collect();
            for width in [2, 7, 90] {
                let answers = beam_search(&model, &encoded, &trie, &beam(width)).unwrap().remove(0);
                for item in 0..90u32 {
                    let own = trace(&model, &encoded, &trie, &beam(width), item).unwrap();
                    assert_eq!(own.answers, answers);
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
            let own = trace(&model, &encoded, &trie, &beam(2), 0).unwrap();
            let better = [30, 60].iter().filter(|&&other| scores[other][0] > scores[0][0]).count();
            assert_eq!((own.levels[0].better, own.levels[0].prefixes), (better, 3));
        }
        assert!(lost.iter().all(|&count| count > 0), "{lost:?}");

        // What a filter does not allow is in no answer, and lost at no level.
        let filter = Filter::deny(&trie, [7]).unwrap();
        let space = SearchSpace::from(&trie).with_filters(Filters::Same(&filter));
        let denied = trace(&model, &encoded, space, &BeamConfig::default(), 7).unwrap();
        assert_eq!((denied.rank, denied.lost_at), (None, None));
        assert!(trace(&model, &encoded, &trie, &BeamConfig::default(), 90).is_err());
        let two = encode(&[vec![2, 3], vec![4, 3]]);
        assert!(trace(&model, &two, &trie, &BeamConfig::default(), 0).is_err());
    }
}
