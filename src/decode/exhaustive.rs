//! Scores of every candidate: the yardstick of the beam, and exact search for small collections.

use std::{ops::Range, slice};

use burn::tensor::backend::Backend;

use super::{
    ScoredItem,
    beam::{Prepared, by_score_then_item, finite, numbers},
    encoded::Beam,
};
use crate::{error::Result, trie::Node};

/// Candidates scored at once.
const CHUNK: usize = 256;

/// Scores of all candidates that the filter of the one query allows, best first.
pub(super) fn score_all<B: Backend>(prepared: &Prepared<'_, B>) -> Result<Vec<ScoredItem>> {
    let trie = prepared.space.trie;
    let filter = prepared.space.filters.of(0);
    let mut found = Vec::with_capacity(trie.len());
    for start in (0..trie.len()).step_by(CHUNK) {
        let items = start as u32..(start + CHUNK).min(trie.len()) as u32;
        let scores = descend(prepared, items.clone(), |_, _| ())?;
        let scored = items.zip(scores).map(|(item, score)| ScoredItem { item, score });
        let allowed = |item| filter.is_none_or(|filter| filter.allows(trie, item));
        found.extend(scored.filter(|scored| allowed(scored.item)));
    }
    found.sort_unstable_by(by_score_then_item);
    Ok(found)
}

/// Scores of some items for the one query, by running the decoder over their identifiers. `see` is
/// given every level and the children that the identifier of an item chooses from there.
pub(super) fn descend<B: Backend>(
    prepared: &Prepared<'_, B>,
    items: Range<u32>,
    mut see: impl FnMut(usize, &[(u16, f32, Node)]),
) -> Result<Vec<f32>> {
    let (trie, scorer, config) = (prepared.space.trie, prepared.scorer(), prepared.config);
    let identifiers = items.clone().map(|item| trie.identifier_of(item));
    let identifiers = identifiers.collect::<Result<Vec<_>>>()?;
    let mut steps = prepared.steps(0..1, true);
    let mut children = Vec::new();
    // One prefix at the root, which every item continues; later one for each item.
    let mut beams = vec![Beam::root(trie.root())];
    for level in 0..trie.levels() {
        let logits = steps.step(slice::from_ref(&beams));
        let size = trie.vocabulary().size(level);
        let mut next = Vec::with_capacity(identifiers.len());
        for (slot, identifier) in identifiers.iter().enumerate() {
            let row = slot.min(beams.len() - 1);
            let logits = &logits.values[row * size..(row + 1) * size];
            finite(logits, level)?;
            scorer.children(0, beams[row].node, logits, &mut children);
            numbers(&children, level)?;
            see(level, &children);
            let token = identifier.tokens()[level];
            let child = children.iter().find(|child| child.0 == token);
            let &(_, log_p, node) = child.expect("the identifier is in the trie");
            let score = beams[row].score + config.level_weight(level) * log_p;
            next.push(Beam { node, score, token, parent: row as u32 });
        }
        beams = next;
    }
    Ok(items.zip(beams).map(|(item, beam)| beam.score + prepared.added(0, item)).collect())
}
