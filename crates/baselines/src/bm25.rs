//! BM25: search by words alone, the baseline that reads only the training captions.
//!
//! Each candidate is one document, all its training texts joined. With `N` candidates, `df` of them
//! holding a term, `tf` occurrences in a document of `len` words, and `avg` words on average
//! (Robertson and Zaragoza 2009, section 3; the logarithm as in Lucene, never negative):
//!
//! ```text
//! score = sum over query words of ln(1 + (N - df + 0.5) / (df + 0.5))
//!                                 * tf * (k1 + 1) / (tf + k1 * (1 - b + b * len / avg))
//! ```

use std::collections::HashMap;

use cart_retrieval::{Error, Result, eval::Ranking, expert::words, members::ensure_in};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::ranks::mean_mrr;

/// English words that say nothing about an image, for [`Bm25Config::stop_words`].
const STOP_WORDS: [&str; 16] = [
    "a", "an", "and", "are", "at", "by", "for", "in", "is", "it", "of", "on", "the", "this", "to",
    "with",
];

/// Settings of the word search.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bm25Config {
    /// How slowly repetitions of a word stop counting, from 0, which ignores them, to 1000.
    pub k1: f32,
    /// How much long documents are held back, from 0 to 1.
    pub b: f32,
    /// Leave out a few English words such as "the".
    pub stop_words: bool,
}

/// Values for [`Bm25::tune`] to try.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bm25Grid {
    /// Values of `k1`.
    pub k1: Vec<f32>,
    /// Values of `b`.
    pub b: Vec<f32>,
}

/// What [`Bm25::tune`] found.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Bm25Tuning {
    /// The best settings.
    pub config: Bm25Config,
    /// Their MRR@10 on the validation queries.
    pub mrr_at_10: f64,
    /// Everything tried: `k1`, `b`, MRR@10.
    pub tried: Vec<(f32, f32, f64)>,
}

/// An inverted index over the training captions of every candidate.
///
/// Invariants: the postings of term `t` are `postings[offsets[t]..offsets[t + 1]]`, by ascending
/// item; `norms` holds `k1 * (1 - b + b * len / avg)` for every candidate.
///
/// # Example
/// ```
/// use cart_baselines::{Bm25, Bm25Config};
/// let docs = [(0, "two dogs in the snow"), (1, "a cat asleep"), (0, "dogs play")];
/// let bm25 = Bm25::fit(&docs, 3, &Bm25Config::default())?;
/// let found = bm25.search("dogs", 2);
/// assert_eq!(found.items, [0, 1]);
/// assert_eq!(found.scores[1], 0.0);
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Bm25 {
    config: Bm25Config,
    terms: HashMap<String, usize>,
    offsets: Vec<usize>,
    postings: Vec<Posting>,
    lengths: Vec<u32>,
    norms: Vec<f32>,
}

#[derive(Debug, Clone, Copy)]
struct Posting {
    item: u32,
    count: u32,
}

/// Buffers that a thread keeps from query to query; `scores` is all zero between queries.
struct Scratch {
    scores: Vec<f32>,
    touched: Vec<u32>,
}

impl Default for Bm25Config {
    fn default() -> Self {
        Self { k1: 1.2, b: 0.75, stop_words: false }
    }
}

impl Default for Bm25Grid {
    fn default() -> Self {
        Self { k1: vec![0.6, 0.9, 1.2, 1.6, 2.0], b: vec![0.0, 0.25, 0.5, 0.75, 1.0] }
    }
}

impl Bm25Config {
    /// Sets `k1`.
    pub fn with_k1(self, k1: f32) -> Self {
        Self { k1, ..self }
    }

    /// Sets `b`.
    pub fn with_b(self, b: f32) -> Self {
        Self { b, ..self }
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// [`Error::Config`] when `k1` is not between 0 and 1000 or `b` not between 0 and 1.
    pub fn validate(&self) -> Result<()> {
        // Larger values could round a word's share to zero, which means "no such word" below.
        ensure_in("k1", self.k1.into(), "[0, 1000]", "use 1.2")?;
        ensure_in("b", self.b.into(), "[0, 1]", "use 0.75")
    }

    fn words(&self, text: &str) -> impl Iterator<Item = String> {
        let stop = self.stop_words;
        words(text).filter(move |word| !(stop && STOP_WORDS.contains(&word.as_str())))
    }
}

impl Bm25 {
    /// Indexes texts by item; the texts of one item are joined into its document.
    ///
    /// Candidates without a text are empty documents: they count in `N` and `avg` and score zero.
    ///
    /// # Errors
    /// [`Error::Config`] for a bad setting; [`Error::Captions`] when an item is not below
    /// `candidates` or no text holds a word.
    pub fn fit<S: AsRef<str>>(
        docs: &[(u32, S)],
        candidates: usize,
        config: &Bm25Config,
    ) -> Result<Self> {
        config.validate()?;
        let mut terms: HashMap<String, usize> = HashMap::new();
        let mut lengths = vec![0; candidates];
        let mut tokens: Vec<(usize, u32)> = Vec::new();
        for (item, text) in docs {
            let Some(length) = lengths.get_mut(*item as usize) else {
                return Err(Error::captions("BM25")
                    .expected(format!("items below the number of candidates, {candidates}"))
                    .found(format!("item {item}"))
                    .fix("index and count the same candidates"));
            };
            for word in config.words(text.as_ref()) {
                let next = terms.len();
                tokens.push((*terms.entry(word).or_insert(next), *item));
                *length += 1;
            }
        }
        if tokens.is_empty() {
            return Err(Error::captions("BM25")
                .expected("at least one text with a word")
                .found(format!("none in {} texts", docs.len()))
                .fix("check that the training captions reach the index"));
        }
        tokens.sort_unstable();
        let mut postings = Vec::new();
        let mut offsets = vec![0; terms.len() + 1];
        for run in tokens.chunk_by(|a, b| a == b) {
            let (term, item) = run[0];
            postings.push(Posting { item, count: run.len() as u32 });
            offsets[term + 1] = postings.len();
        }
        let mut bm25 =
            Self { config: config.clone(), terms, offsets, postings, lengths, norms: Vec::new() };
        bm25.norms = bm25.norms(config);
        Ok(bm25)
    }

    /// The settings in use.
    pub fn config(&self) -> &Bm25Config {
        &self.config
    }

    /// Number of candidates.
    pub fn candidates(&self) -> usize {
        self.lengths.len()
    }

    /// Changes `k1` and `b` without indexing again.
    ///
    /// # Errors
    /// [`Error::Config`] for a value out of range.
    pub fn set_parameters(&mut self, k1: f32, b: f32) -> Result<()> {
        let config = self.config.clone().with_k1(k1).with_b(b);
        config.validate()?;
        self.norms = self.norms(&config);
        self.config = config;
        Ok(())
    }

    /// The best `k` candidates for a query.
    ///
    /// Candidates that share no word with the query follow with score zero, by item, so that the
    /// list holds `min(k, candidates)` items. Equal scores are ordered by item for the output only:
    /// metrics count them as ties. Where the list may end among the zeros, evaluate with
    /// [`TruncatedTies::AllUnlisted`](cart_retrieval::eval::TruncatedTies::AllUnlisted) or ask for all candidates.
    pub fn search(&self, query: &str, k: usize) -> Ranking {
        self.search_with(query, k, &mut self.scratch())
    }

    /// [`Bm25::search`] for many queries in parallel, answered in their order.
    pub fn search_all<S: AsRef<str> + Sync>(&self, queries: &[S], k: usize) -> Vec<Ranking> {
        queries
            .par_iter()
            .map_init(|| self.scratch(), |scratch, q| self.search_with(q.as_ref(), k, scratch))
            .collect()
    }

    /// Tries every pair of the grid on validation queries and gives the best by MRR@10.
    ///
    /// Ties between queries' candidates are counted over all candidates. The first best pair wins;
    /// [`Bm25::set_parameters`] puts it to use.
    ///
    /// # Errors
    /// [`Error::Config`] for an empty grid or a value out of range; [`Error::Query`] when there is
    /// no query or a relevant set is missing or malformed.
    pub fn tune<S, R>(&self, queries: &[S], relevant: &[R], grid: &Bm25Grid) -> Result<Bm25Tuning>
    where
        S: AsRef<str> + Sync,
        R: AsRef<[u32]> + Sync,
    {
        if grid.k1.is_empty() || grid.b.is_empty() {
            let found = format!("{} of k1 and {} of b", grid.k1.len(), grid.b.len());
            let remedy = "list values to try, or use the default grid";
            return Err(Error::config("grid")
                .expected("values of k1 and of b")
                .found(found)
                .fix(remedy));
        }
        if queries.is_empty() || queries.len() != relevant.len() {
            return Err(Error::query("BM25 tuning")
                .expected("at least one validation query, and a relevant set for each")
                .found(format!("{} queries and {} relevant sets", queries.len(), relevant.len()))
                .fix("pass one relevant set for each query, in the same order"));
        }
        let mut trial = self.clone();
        let mut tried = Vec::with_capacity(grid.k1.len() * grid.b.len());
        let mut best: Option<(f32, f32, f64)> = None;
        for &k1 in &grid.k1 {
            for &b in &grid.b {
                trial.set_parameters(k1, b)?;
                let all = |scratch: &mut Scratch, query: usize| {
                    let query: &str = queries[query].as_ref();
                    Ok(trial.search_with(query, self.candidates(), scratch))
                };
                let mrr = mean_mrr(relevant, self.candidates(), || self.scratch(), all)?;
                let entry = (k1, b, mrr);
                tried.push(entry);
                if best.is_none_or(|(_, _, mrr)| entry.2 > mrr) {
                    best = Some(entry);
                }
            }
        }
        let (k1, b, mrr_at_10) = best.unwrap_or((self.config.k1, self.config.b, 0.0));
        let config = self.config.clone().with_k1(k1).with_b(b);
        Ok(Bm25Tuning { config, mrr_at_10, tried })
    }

    fn search_with(&self, query: &str, k: usize, scratch: &mut Scratch) -> Ranking {
        let Scratch { scores, touched } = scratch;
        let n = self.candidates() as f32;
        for word in self.config.words(query) {
            let Some(&term) = self.terms.get(&word) else { continue };
            let postings = &self.postings[self.offsets[term]..self.offsets[term + 1]];
            let df = postings.len() as f32;
            let idf = ((n - df + 0.5) / (df + 0.5)).ln_1p();
            for posting in postings {
                let item = posting.item as usize;
                let tf = posting.count as f32;
                if scores[item] == 0.0 {
                    touched.push(posting.item);
                }
                scores[item] += idf * tf * (self.config.k1 + 1.0) / (tf + self.norms[item]);
            }
        }
        let order =
            |a: &u32, b: &u32| scores[*b as usize].total_cmp(&scores[*a as usize]).then(a.cmp(b));
        let k = k.min(self.candidates());
        let mut items = touched.clone();
        if k < items.len() {
            items.select_nth_unstable_by(k, order);
            items.truncate(k);
        }
        items.sort_unstable_by(order);
        let missing = k - items.len();
        let unmatched = (0..self.lengths.len() as u32).filter(|item| scores[*item as usize] == 0.0);
        items.extend(unmatched.take(missing));
        let ranking =
            Ranking { scores: items.iter().map(|item| scores[*item as usize]).collect(), items };
        for item in touched.drain(..) {
            scores[item as usize] = 0.0;
        }
        ranking
    }

    fn scratch(&self) -> Scratch {
        Scratch { scores: vec![0.0; self.candidates()], touched: Vec::new() }
    }

    fn norms(&self, config: &Bm25Config) -> Vec<f32> {
        let total: f64 = self.lengths.iter().map(|length| f64::from(*length)).sum();
        let average = (total / self.lengths.len() as f64) as f32;
        let (k1, b) = (config.k1, config.b);
        self.lengths.iter().map(|len| k1 * (1.0 - b + b * *len as f32 / average)).collect()
    }
}

#[cfg(test)]
#[path = "bm25_tests.rs"]
mod tests;
