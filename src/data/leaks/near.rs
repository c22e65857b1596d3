//! Which training texts have nearly the words of a query: an exact join, by prefixes.
//!
//! Two sets whose Jaccard similarity is `t` at least share `t |x|` members of either, so with members in one fixed order
//! the first `|x| - ceil(t |x|) + 1` of both have one in common (Chaudhuri et al., *A primitive operator for
//! similarity joins*, ICDE 2006; Bayardo et al., *Scaling up all pairs similarity search*, WWW 2007). Those of the queries
//! are in an index, rare ones first; training texts pass by and are kept nowhere.

use std::collections::{HashMap, HashSet};

use rayon::prelude::*;

use super::overlap::words;
use crate::data::ItemCaption;

/// Training texts that one thread takes at a time.
const BLOCK: usize = 2048;

/// The most similar training text of a kind: its similarity and its position.
pub(super) type Best = Option<(f64, usize)>;

/// What was found for a query, by the places of [`kind_of`].
pub(super) type Found = [Best; 4];

/// The place of a pair in [`Found`].
pub(super) fn kind_of(same_item: bool, same_words: bool) -> usize {
    2 * usize::from(!same_words) + usize::from(!same_item)
}

/// The shingles of a text: all runs of `length` words, or its words in one where there are fewer.
pub(super) fn shingles(words: &[String], length: usize) -> Vec<String> {
    match words.len() {
        0 => Vec::new(),
        count if count < length => vec![words.join(" ")],
        _ => words.windows(length).map(|run| run.join(" ")).collect(),
    }
}

/// A query of the index.
struct Query {
    words: Vec<String>,
    /// Ranks of its shingles, ascending, each once.
    set: Vec<u32>,
    item: u32,
}

/// Queries, and where the first shingles of each are.
struct Index {
    queries: Vec<Query>,
    ranks: HashMap<String, u32>,
    /// Queries by the rank of a shingle among their first ones.
    postings: Vec<Vec<u32>>,
    threshold: f64,
    shingle: usize,
}

/// The fewest members that a set of `size` shares with any that is as similar as `threshold`.
fn fewest_shared(size: usize, threshold: f64) -> usize {
    // The same product as in the final comparison, so that rounding cannot lose a pair: there the
    // union is `size` at least, and rounding is monotone.
    let least = threshold * size as f64;
    (1..=size).find(|&shared| shared as f64 >= least).unwrap_or(size)
}

impl Index {
    fn new(queries: &[ItemCaption], threshold: f64, shingle: usize) -> Self {
        let texts: Vec<Vec<String>> =
            queries.par_iter().map(|query| words(&query.text).collect()).collect();
        let sets: Vec<HashSet<String>> =
            texts.par_iter().map(|words| shingles(words, shingle).into_iter().collect()).collect();
        let mut counts: HashMap<&String, u32> = HashMap::new();
        for member in sets.iter().flatten() {
            *counts.entry(member).or_default() += 1;
        }
        // Rare ones first; equally rare ones by their letters, so that the order is one.
        let mut order: Vec<(u32, &String)> =
            counts.iter().map(|(&member, &count)| (count, member)).collect();
        order.sort_unstable();
        let ranks: HashMap<String, u32> =
            (0u32..).zip(&order).map(|(rank, (_, member))| ((*member).clone(), rank)).collect();
        let mut postings = vec![Vec::new(); ranks.len()];
        let queries: Vec<Query> = texts
            .into_iter()
            .zip(&sets)
            .zip(queries)
            .map(|((words, set), query)| {
                let mut set: Vec<u32> = set.iter().map(|member| ranks[member]).collect();
                set.sort_unstable();
                Query { words, set, item: query.item }
            })
            .collect();
        for (number, query) in (0u32..).zip(&queries) {
            let first = query.set.len() + 1 - fewest_shared(query.set.len(), threshold).max(1);
            for &rank in query.set.iter().take(first) {
                postings[rank as usize].push(number);
            }
        }
        Self { queries, ranks, postings, threshold, shingle }
    }

    /// Adds what a training text is to the queries.
    fn visit(&self, position: usize, text: &ItemCaption, found: &mut [Found]) {
        let words: Vec<String> = words(&text.text).collect();
        let all: HashSet<String> = shingles(&words, self.shingle).into_iter().collect();
        let size = all.len();
        if size == 0 {
            return;
        }
        let mut set: Vec<u32> =
            all.iter().filter_map(|member| self.ranks.get(member).copied()).collect();
        set.sort_unstable();
        // Members that no query has come first in the order: they use up places and point to
        // nothing.
        let unknown = size - set.len();
        let first = (size + 1 - fewest_shared(size, self.threshold)).saturating_sub(unknown);
        let mut near: Vec<u32> = set
            .iter()
            .take(first)
            .flat_map(|&rank| self.postings[rank as usize].iter().copied())
            .collect();
        near.sort_unstable();
        near.dedup();
        for number in near {
            let query = &self.queries[number as usize];
            let shared = shared(&query.set, &set);
            let union = query.set.len() + size - shared;
            if (shared as f64) < self.threshold * union as f64 {
                continue;
            }
            let similarity = shared as f64 / union as f64;
            let same_words = shared == union && query.words == words;
            let kind = kind_of(query.item == text.item, same_words);
            better(&mut found[number as usize][kind], Some((similarity, position)));
        }
    }
}

/// Members of two ascending sets.
fn shared(mut a: &[u32], mut b: &[u32]) -> usize {
    let mut count = 0;
    while let (Some(x), Some(y)) = (a.first(), b.first()) {
        count += usize::from(x == y);
        if x <= y {
            a = &a[1..];
        }
        if y <= x {
            b = &b[1..];
        }
    }
    count
}

/// Keeps the more similar pair, the earlier one of equals.
pub(super) fn better(kept: &mut Best, other: Best) {
    let Some((similarity, position)) = other else { return };
    let wins =
        kept.is_none_or(|(most, at)| similarity > most || (similarity == most && position < at));
    if wins {
        *kept = other;
    }
}

/// For every query the most similar training text of each kind, among those as similar as
/// `threshold`.
pub(super) fn join(
    train: &[ItemCaption],
    queries: &[ItemCaption],
    threshold: f64,
    shingle: usize,
) -> Vec<Found> {
    let index = Index::new(queries, threshold, shingle);
    let none = || vec![[None; 4]; queries.len()];
    train
        .par_chunks(BLOCK)
        .enumerate()
        .fold(none, |mut found, (block, texts)| {
            for (at, text) in texts.iter().enumerate() {
                index.visit(block * BLOCK + at, text, &mut found);
            }
            found
        })
        .reduce(none, |mut left, right| {
            for (left, right) in left.iter_mut().flatten().zip(right.into_iter().flatten()) {
                better(left, right);
            }
            left
        })
}
