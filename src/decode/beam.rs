//! Batched beam search constrained by the trie.

use std::cmp::Ordering;

use burn::tensor::{Int, Tensor, TensorData, backend::Backend};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Scorer, SearchSpace};
use crate::{
    error::{Error, Result},
    model::{Cart, EncodedQueries, Scope},
    trie::{Node, Trie},
};

/// Settings of the search.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BeamConfig {
    /// Prefixes kept per query and level.
    pub width: usize,
    /// Tokens that probabilities are normalised over; as in training.
    pub scope: Scope,
    /// Factor of the decoder's logits beside what the candidates' geometry adds to them: 1 takes them
    /// as they were trained, 0 asks the geometry alone. A guided decoder that was trained on few
    /// captions trusts itself too much; choose the weight on validation queries (ours). Without
    /// guidance this is no more than a temperature, and has to be above 0.
    pub decoder_weight: f32,
    /// Weight of the cosine between query and candidate that is added to the log-probability of
    /// every answer; 0 leaves them as they are. It needs a network with an alignment.
    pub rerank: f32,
}

impl Default for BeamConfig {
    fn default() -> Self {
        Self { width: 20, scope: Scope::Legal, decoder_weight: 1.0, rerank: 0.0 }
    }
}

impl BeamConfig {
    /// Checks ranges.
    ///
    /// # Errors
    /// [`Error::Config`] for a width of zero, and for weights below 0 or not finite.
    pub fn validate(&self) -> Result<()> {
        if self.width == 0 {
            return Err(Error::config("beam width", "at least 1", "0", "10 to 20 are usual"));
        }
        for (name, weight) in
            [("weight of the decoder", self.decoder_weight), ("weight of the rerank", self.rerank)]
        {
            if !(weight >= 0.0 && weight.is_finite()) {
                return Err(Error::config(
                    name,
                    "at least 0",
                    weight.to_string(),
                    "choose it on validation queries",
                ));
            }
        }
        Ok(())
    }
}

/// A candidate with its log-probability given the query.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Answer {
    /// Index of the candidate.
    pub item: u32,
    /// Sum of the log-probabilities of its identifier's tokens, at most 0; reranked, plus the
    /// weighted cosine.
    pub score: f32,
}

/// A prefix under consideration.
#[derive(Debug, Clone, Copy)]
struct Beam {
    node: Node,
    score: f32,
    /// The token it ends with.
    token: u16,
    /// The decoder row that its parent occupied.
    parent: u32,
}

/// The `width` best prefixes at every level, down to whole identifiers, best first.
///
/// Every answer is a candidate of the trie, all are distinct, and there are `min(width, N)` of them:
/// a level is cut only where it has more than `width` prefixes, each of which leads to a candidate.
/// Ties go to the smaller identifier while searching and to the smaller item in the answer.
///
/// With [`Scope::Legal`] a prefix with one candidate left is finished at once: all its remaining
/// tokens are forced and have log-probability 0 exactly. With [`Scope::All`] forced tokens cost
/// probability and are scored by the decoder like any other.
///
/// # Shapes
/// - returns: `[queries]` lists of `min(width, N)` answers
///
/// # Errors
/// [`Error::Config`] for a width of zero, weights out of range, a rerank without an alignment, and a
/// guided network that is searched over all tokens; [`Error::Model`] when logits are not finite, or the
/// candidates have no vectors and the network needs them.
pub fn beam_search<'a, B: Backend>(
    model: &Cart<B>,
    encoded: &EncodedQueries<B>,
    space: impl Into<SearchSpace<'a>>,
    config: &BeamConfig,
) -> Result<Vec<Vec<Answer>>> {
    config.validate()?;
    let space = space.into();
    let trie = space.trie;
    let guide = space.guide(model, encoded, config)?;
    let guiding = guide.as_ref().filter(|_| model.alignment().is_some_and(|h| h.is_guided()));
    let queries = encoded.len();
    let scorer = Scorer::new(trie, config.scope)
        .with_decoder_weight(config.decoder_weight)
        .with_guide(guiding);
    let mut state = model.start();
    let start = Beam { node: trie.root(), score: 0.0, token: 0, parent: 0 };
    // Per query: prefixes the decoder must continue, and prefixes with nothing left to decide.
    let mut live: Vec<Vec<Beam>> = vec![vec![start]; queries];
    let mut done: Vec<Vec<Beam>> = vec![Vec::new(); queries];
    if config.scope == Scope::Legal && trie.len() == 1 {
        std::mem::swap(&mut live, &mut done);
    }
    for level in 0..trie.levels() {
        let width = live.iter().map(Vec::len).max().unwrap_or(0);
        if width == 0 {
            break;
        }
        let logits = step(model, encoded, &live, width, level, &mut state);
        let size = trie.vocabulary().size(level);
        let next: Result<Vec<_>> = live
            .par_iter()
            .zip(done.par_iter())
            .enumerate()
            .map(|(query, (live, done))| {
                let rows = query * width;
                let mut candidates = done.clone();
                let mut children = Vec::new();
                for (slot, beam) in live.iter().enumerate() {
                    let row = rows + slot;
                    let logits = &logits[row * size..(row + 1) * size];
                    finite(logits, level)?;
                    scorer.children(query, beam.node, logits, &mut children);
                    candidates.extend(children.iter().map(|&(token, log_p, node)| Beam {
                        node,
                        score: beam.score + log_p,
                        token,
                        parent: row as u32,
                    }));
                }
                keep_best(&mut candidates, config.width);
                let last = level + 1 == trie.levels();
                Ok(candidates.into_iter().partition(|beam| {
                    let forced = config.scope == Scope::Legal && beam.node.count() == 1;
                    !(last || forced)
                }))
            })
            .collect();
        (live, done) = next?.into_iter().unzip();
    }
    Ok(done
        .into_iter()
        .enumerate()
        .map(|(query, beams)| {
            let rerank = guide.as_ref().filter(|_| config.rerank > 0.0);
            answers(beams, trie, |item| {
                rerank.map_or(0.0, |guide| config.rerank * guide.cosine(query, item))
            })
        })
        .collect())
}

/// Checks logits of a level.
pub(super) fn finite(logits: &[f32], level: usize) -> Result<()> {
    match logits.iter().find(|value| !value.is_finite()) {
        Some(bad) => Err(Error::model(
            format!("logits of level {level}"),
            "finite numbers",
            bad.to_string(),
            "train again with a lower learning rate, or load other weights",
        )),
        None => Ok(()),
    }
}

/// Runs the decoder for the live prefixes of all queries, padded to `width` each, and reads the
/// logits back: `[queries * width, size]`.
fn step<B: Backend>(
    model: &Cart<B>,
    encoded: &EncodedQueries<B>,
    live: &[Vec<Beam>],
    width: usize,
    level: usize,
    state: &mut crate::nn::DecoderState<B>,
) -> Vec<f32> {
    let device = encoded.device();
    let tokens = (level > 0).then(|| {
        let rows = live.len() * width;
        let (mut tokens, mut parents) = (Vec::with_capacity(rows), Vec::with_capacity(rows));
        for beams in live {
            for slot in 0..width {
                // A padded row continues some row that exists; nobody reads what comes out.
                let beam = beams.get(slot).or(beams.first());
                tokens.push(beam.map_or(0, |beam| i64::from(beam.token)));
                parents.push(beam.map_or(0, |beam| i64::from(beam.parent)));
            }
        }
        let tensor =
            |values| Tensor::<B, 1, Int>::from_data(TensorData::new(values, [rows]), &device);
        state.reorder(&tensor(parents));
        tensor(tokens)
    });
    model.step(encoded, tokens, state).into_data().convert::<f32>().into_vec().unwrap_or_default()
}

/// Keeps the `width` best, in order: by score, then by identifier.
fn keep_best(beams: &mut Vec<Beam>, width: usize) {
    let order = |a: &Beam, b: &Beam| {
        let by_score = b.score.total_cmp(&a.score);
        by_score.then_with(|| a.node.first_row().cmp(&b.node.first_row()))
    };
    if beams.len() > width {
        beams.select_nth_unstable_by(width - 1, order);
        beams.truncate(width);
    }
    beams.sort_unstable_by(order);
}

/// Answers, best first, with what `more` adds to their scores.
fn answers(beams: Vec<Beam>, trie: &Trie, more: impl Fn(u32) -> f32) -> Vec<Answer> {
    let mut answers: Vec<Answer> = beams
        .into_iter()
        .map(|beam| {
            let item = trie.items(beam.node)[0];
            Answer { item, score: beam.score + more(item) }
        })
        .collect();
    answers.sort_unstable_by(by_score_then_item);
    answers
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

    use super::*;
    use crate::{
        data::QueryBatch,
        decode::score_all,
        identifier::{Codes, Vocabulary},
        model::CartConfig,
        nn::FusionMode,
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
                    let config = BeamConfig { width, scope, decoder_weight: 0.7, rerank: 0.0 };
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
    }
}
