//! Scores of every candidate: the yardstick of the beam, and exact search for small collections.

use burn::tensor::{Int, Tensor, TensorData, backend::Backend};

use super::{
    Answer, BeamConfig, SearchSpace,
    beam::{Prepared, by_score_then_item, finite, numbers},
};
use crate::{
    error::Result,
    model::{Cart, EncodedQueries},
};

/// Candidates scored at once.
const CHUNK: usize = 256;

/// Scores of all candidates for one query, best first, by running the decoder over every
/// identifier: what [`beam_search`](super::beam_search) gives with a beam that holds them all; the
/// width is not read. The cost grows with the collection: use it to measure the beam, or below a few
/// thousand candidates.
///
/// # Shapes
/// - `encoded`: one query
/// - returns: `[allowed]`
///
/// # Errors
/// [`Error::Query`](crate::Error::Query) unless there is exactly one query; otherwise as `beam_search`.
pub fn score_all<'a, B: Backend>(
    model: &Cart<B>,
    encoded: &EncodedQueries<B>,
    space: impl Into<SearchSpace<'a>>,
    config: &BeamConfig,
) -> Result<Vec<Answer>> {
    let space = space.into();
    let prepared = Prepared::single("exhaustive scoring", model, encoded, space, config)?;
    let (trie, scorer) = (prepared.trie(), prepared.scorer());
    let identifiers = trie.identifiers();
    let mut scores = vec![0.0f32; trie.len()];
    let mut children = Vec::new();
    for start in (0..trie.len()).step_by(CHUNK) {
        let items = start..(start + CHUNK).min(trie.len());
        let rows = items.len();
        let mut state = model.start();
        let mut nodes = vec![trie.root(); rows];
        for level in 0..trie.levels() {
            let tokens = (level > 0).then(|| {
                let column: Vec<i64> =
                    items.clone().map(|i| i64::from(identifiers.row(i)[level - 1])).collect();
                Tensor::<B, 1, Int>::from_data(TensorData::new(column, [rows]), &encoded.device())
            });
            if level == 1 {
                // After the first step there is one row; every candidate continues it.
                let zeros = Tensor::<B, 1, Int>::zeros([rows], &encoded.device());
                state.reorder(&zeros);
            }
            let logits: Vec<f32> =
                model.step(encoded, tokens, &mut state).into_data().iter::<f32>().collect();
            let size = trie.vocabulary().size(level);
            for (slot, item) in items.clone().enumerate() {
                let row = if level == 0 { 0 } else { slot };
                let logits = &logits[row * size..(row + 1) * size];
                finite(logits, level)?;
                scorer.children(0, nodes[slot], logits, &mut children);
                numbers(&children, level)?;
                let token = identifiers.row(item)[level];
                if let Some(&(_, log_p, node)) = children.iter().find(|child| child.0 == token) {
                    scores[item] += config.level_weight(level) * log_p;
                    nodes[slot] = node;
                }
            }
        }
    }
    let filter = space.filters.of(0);
    let mut answers: Vec<Answer> = (0u32..)
        .zip(scores)
        .filter(|&(item, _)| filter.is_none_or(|filter| filter.allows(trie, item)))
        .map(|(item, score)| Answer { item, score: score + prepared.rerank(0, item) })
        .collect();
    answers.sort_unstable_by(by_score_then_item);
    Ok(answers)
}
