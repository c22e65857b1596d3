//! Identifiers for new candidates, from the fitted quantizer.

use std::collections::HashMap;

use burn::tensor::backend::Backend;

use super::change::ChangeStats;
use crate::{
    error::{Error, Result},
    identifier::{Codes, Groups},
    index::CandidateIndex,
    quantizer::{CoarseToFine, Quantizer},
    trie::Trie,
};

/// Free identifiers for new rows, after the candidates `removed` are gone.
///
/// A row has the tokens that the quantizer gives it, and the smallest unique token that is free.
/// Where none is free, the fewest of its last tokens give way to the nearest ones below which some
/// are.
///
/// # Shapes
/// - `rows`: `[n, dim]`
///
/// # Errors
/// As [`Quantizer::encode`]; [`Error::Identifier`] for groups that are not the index's, and when
/// every identifier is in use.
pub(super) fn identify<B: Backend>(
    index: &CandidateIndex,
    quantizer: &CoarseToFine<B>,
    rows: &[f32],
    groups: Option<&[String]>,
    removed: &[String],
) -> Result<(Codes, ChangeStats)> {
    let dim = quantizer.dim();
    let codes = quantizer.encode(rows)?;
    let (whole, leading) = match (index.groups(), groups) {
        (None, None) => (codes.clone(), 0),
        (Some(names), Some(labels)) => {
            (Groups::new(names, labels)?.lead(&codes, &quantizer.level_sizes())?.0, 1)
        }
        (expected, found) => {
            let shown = |there: bool| if there { "a group for each" } else { "no groups" };
            return Err(Error::identifier("groups of the added candidates")
                .expected(shown(expected.is_some()))
                .found(shown(found.is_some()))
                .fix(
                    "give a group for every candidate of an index with groups, and none otherwise",
                ));
        }
    };
    let decoded = quantizer.decode(&codes)?;
    let mut taken = Taken::new(index, removed)?;
    let mut identifiers = Codes::new(whole.levels() + 1);
    let mut stats = ChangeStats::default();
    for (at, tokens) in whole.rows().enumerate() {
        let row = &rows[at * dim..(at + 1) * dim];
        let mut tokens = tokens.to_vec();
        let mut error = distance(row, &decoded[at * dim..(at + 1) * dim]);
        if !taken.has_room(&tokens) {
            stats.spilled += 1;
            error = nearest(row, quantizer, &mut tokens, leading, &taken)?.ok_or_else(|| {
                Error::identifier(format!("added candidate {at}")).expected("a free identifier").found("none").fix("fit the quantizer again on the whole collection, with more codes or levels")
            })?;
        }
        stats.added += 1;
        stats.error += error;
        stats.shared += u64::from(taken.count(&tokens) > 0);
        let unique = taken.take(&tokens);
        tokens.push(unique);
        identifiers.push(&tokens);
    }
    Ok((identifiers, stats))
}

/// Puts the nearest tokens below which there is room in the place of as few of the last ones as
/// there have to be; gives the squared distance of the row to what they stand for, and none where
/// there is no room at all.
fn nearest<B: Backend>(
    row: &[f32],
    quantizer: &CoarseToFine<B>,
    tokens: &mut [u16],
    leading: usize,
    taken: &Taken<'_>,
) -> Result<Option<f64>> {
    for level in (leading..tokens.len()).rev() {
        if let Some(error) = complete(row, quantizer, tokens, level, leading, taken)? {
            return Ok(Some(error));
        }
    }
    Ok(None)
}

/// Puts the nearest tokens in the place of those from `level` on. What there is room for by the
/// sizes of the levels may have none all the same, where nodes have fewer children: then the next
/// nearest is tried.
fn complete<B: Backend>(
    row: &[f32],
    quantizer: &CoarseToFine<B>,
    tokens: &mut [u16],
    level: usize,
    leading: usize,
    taken: &Taken<'_>,
) -> Result<Option<f64>> {
    let room = |token: &u16| taken.has_room(&[&tokens[..level], &[*token]].concat());
    let followers = quantizer.followers(&tokens[leading..level]);
    let others: Vec<u16> = (0..followers).map(|token| token as u16).filter(room).collect();
    if others.is_empty() {
        return Ok(None);
    }
    let mut prefixes = Codes::new(level - leading + 1);
    for &token in &others {
        prefixes.push(&[&tokens[leading..level], &[token]].concat());
    }
    let decoded = quantizer.decode_prefix(&prefixes, prefixes.levels())?;
    let distances = decoded.chunks_exact(row.len()).map(|found| distance(row, found));
    let mut nearest: Vec<(f64, u16)> = distances.zip(others).collect();
    nearest.sort_by(|a, b| a.0.total_cmp(&b.0));
    for (error, token) in nearest {
        tokens[level] = token;
        if level + 1 == tokens.len() {
            return Ok(Some(error));
        }
        let found = complete(row, quantizer, tokens, level + 1, leading, taken)?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// Squared, in `f64`: features may be large enough for their squares to be none in `f32`.
fn distance(row: &[f32], other: &[f32]) -> f64 {
    row.iter().zip(other).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum()
}

/// Identifiers that are in use.
struct Taken<'a> {
    trie: &'a Trie,
    /// How many identifiers can start with a prefix, by its length.
    capacities: Vec<usize>,
    /// By prefix, those that came.
    added: HashMap<Vec<u16>, usize>,
    /// By prefix, those that went.
    freed: HashMap<Vec<u16>, usize>,
    /// By semantic tokens, the unique tokens in use, ascending.
    used: HashMap<Vec<u16>, Vec<u16>>,
}

impl<'a> Taken<'a> {
    fn new(index: &'a CandidateIndex, removed: &[String]) -> Result<Self> {
        let trie = index.trie();
        let sizes = trie.vocabulary().sizes();
        let capacity =
            |depth: usize| sizes[depth..].iter().fold(1, |all: usize, &s| all.saturating_mul(s));
        let capacities = (0..sizes.len()).map(capacity).collect();
        let mut freed = HashMap::new();
        // An unknown one is somebody else's to tell.
        let rows: Vec<u32> = removed
            .iter()
            .filter_map(|id| index.ids().index_of(id))
            .map(|row| row as u32)
            .collect();
        for entry in index.identifier_map().rows_of(&rows) {
            let identifier = trie.identifier_of(entry)?;
            for depth in 0..=identifier.tokens().len() {
                *freed.entry(identifier.tokens()[..depth].to_vec()).or_insert(0) += 1;
            }
        }
        Ok(Self { trie, capacities, added: HashMap::new(), freed, used: HashMap::new() })
    }

    /// Identifiers in use that start with a prefix.
    fn count(&self, prefix: &[u16]) -> usize {
        let of = |counts: &HashMap<Vec<u16>, usize>| counts.get(prefix).copied().unwrap_or(0);
        self.trie.find(prefix).map_or(0, |node| node.count()) + of(&self.added) - of(&self.freed)
    }

    fn has_room(&self, prefix: &[u16]) -> bool {
        self.count(prefix) < self.capacities[prefix.len()]
    }

    /// Takes the smallest unique token that is free.
    fn take(&mut self, tokens: &[u16]) -> u16 {
        let (trie, freed) = (self.trie, &self.freed);
        let used = self.used.entry(tokens.to_vec()).or_insert_with(|| {
            let children = trie.find(tokens).into_iter().flat_map(|node| trie.children(node));
            let went = |token: u16| freed.contains_key(&[tokens, &[token]].concat());
            children.map(|(token, _)| token).filter(|&token| !went(token)).collect()
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
