//! Identifiers for candidates that come, from the quantizer as it is.

use std::collections::HashMap;

use burn::tensor::backend::Backend;

use super::Growth;
use crate::{
    error::{Error, Result},
    identifier::{Codes, Groups},
    quantizer::{CandidateIndex, CoarseToFine, Quantizer, squared_distance},
    trie::Trie,
};

/// Identifiers that no candidate of the index has, for rows that come.
///
/// A row has the tokens that the quantizer gives it, and the smallest unique token that is free. Where none is free, the
/// fewest of its last tokens give way to the nearest ones below which some are.
///
/// # Shapes
/// - `rows`: `[n, dim]`
///
/// # Errors
/// As [`Quantizer::encode`]; [`Error::Identifier`] for groups that are not the index's, and when every identifier is in
/// use.
pub(super) fn identify<B: Backend>(
    index: &CandidateIndex,
    quantizer: &CoarseToFine<B>,
    rows: &[f32],
    groups: Option<&[String]>,
) -> Result<(Codes, Growth)> {
    let dim = quantizer.dim();
    let codes = quantizer.encode(rows)?;
    let (whole, leading) = match (index.groups(), groups) {
        (None, None) => (codes.clone(), 0),
        (Some(names), Some(labels)) => {
            (Groups::new(names, labels)?.lead(&codes, &quantizer.level_sizes())?.0, 1)
        }
        (expected, found) => {
            let shown = |there: bool| if there { "a group for each" } else { "no groups" };
            return Err(Error::identifier(
                "groups of the candidates that come",
                shown(expected.is_some()),
                shown(found.is_some()),
                "an index with groups needs the group of every candidate, one without has none",
            ));
        }
    };
    let decoded = quantizer.decode(&codes)?;
    let mut taken = Taken::new(index.trie());
    let mut identifiers = Codes::new(whole.levels() + 1);
    let mut growth = Growth::default();
    for (at, tokens) in whole.rows().enumerate() {
        let row = &rows[at * dim..(at + 1) * dim];
        let mut tokens = tokens.to_vec();
        let mut error = squared_distance(row, &decoded[at * dim..(at + 1) * dim]);
        if !taken.has_room(&tokens) {
            growth.spilled += 1;
            error = nearest(row, quantizer, &mut tokens, leading, &taken).map_err(|error| match error {
                Some(error) => error,
                None => Error::identifier(
                    format!("candidate {at} of those that come"),
                    "an identifier that is not in use",
                    "none",
                    "fit the quantizer again on the whole collection, with more codes or levels",
                ),
            })?;
        }
        growth.added += 1;
        growth.error += f64::from(error);
        growth.shared += u64::from(taken.count(&tokens) > 0);
        let unique = taken.take(&tokens);
        tokens.push(unique);
        identifiers.push(&tokens);
    }
    Ok((identifiers, growth))
}

/// Puts the nearest tokens below which there is room in the place of as few of the last ones as there have to be; gives
/// the squared distance of the row to what they stand for, and no error where there is no room at all.
fn nearest<B: Backend>(
    row: &[f32],
    quantizer: &CoarseToFine<B>,
    tokens: &mut [u16],
    leading: usize,
    taken: &Taken<'_>,
) -> std::result::Result<f32, Option<Error>> {
    let sizes = quantizer.level_sizes();
    let kept = (leading..tokens.len()).rev().find(|&kept| taken.has_room(&tokens[..kept]));
    let mut error = f32::INFINITY;
    for level in kept.ok_or(None)?..tokens.len() {
        let room = |token: &u16| taken.has_room(&[&tokens[..level], &[*token]].concat());
        let others: Vec<u16> =
            (0..sizes[level - leading]).map(|token| token as u16).filter(room).collect();
        let mut prefixes = Codes::new(level - leading + 1);
        for &token in &others {
            prefixes.push(&[&tokens[leading..level], &[token]].concat());
        }
        let found = quantizer.decode_prefix(&prefixes, prefixes.levels()).map_err(Some)?;
        let distances = found.chunks_exact(row.len()).map(|found| squared_distance(row, found));
        let best = distances.zip(others).min_by(|a, b| a.0.total_cmp(&b.0));
        (error, tokens[level]) = best.ok_or(None)?;
    }
    Ok(error)
}

/// Identifiers that are in use.
struct Taken<'a> {
    trie: &'a Trie,
    /// How many identifiers can start with a prefix, by its length.
    capacities: Vec<usize>,
    /// By prefix, those that came.
    added: HashMap<Vec<u16>, usize>,
    /// By semantic tokens, the unique tokens in use, ascending.
    used: HashMap<Vec<u16>, Vec<u16>>,
}

impl<'a> Taken<'a> {
    fn new(trie: &'a Trie) -> Self {
        let sizes = trie.vocabulary().sizes();
        let capacity =
            |depth: usize| sizes[depth..].iter().fold(1, |all: usize, &s| all.saturating_mul(s));
        let capacities = (0..sizes.len()).map(capacity).collect();
        Self { trie, capacities, added: HashMap::new(), used: HashMap::new() }
    }

    /// Identifiers in use that start with a prefix.
    fn count(&self, prefix: &[u16]) -> usize {
        let before = self.trie.find(prefix).map_or(0, |node| node.count());
        before + self.added.get(prefix).copied().unwrap_or(0)
    }

    fn has_room(&self, prefix: &[u16]) -> bool {
        self.count(prefix) < self.capacities[prefix.len()]
    }

    /// Takes the smallest unique token that is free.
    fn take(&mut self, tokens: &[u16]) -> u16 {
        let trie = self.trie;
        let used = self.used.entry(tokens.to_vec()).or_insert_with(|| {
            let node = trie.find(tokens);
            node.map_or(Vec::new(), |node| trie.children(node).map(|(token, _)| token).collect())
        });
        let free = used.iter().zip(0..).position(|(&token, expected)| token != expected);
        let free = free.unwrap_or(used.len());
        used.insert(free, free as u16);
        for depth in 0..=tokens.len() {
            *self.added.entry(tokens[..depth].to_vec()).or_insert(0) += 1;
        }
        free as u16
    }
}
