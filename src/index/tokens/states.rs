//! Token states of all candidates.

use std::{ops::Range, sync::Arc};

use super::{ItemTokens, TextTokens, TokenSpace};
use crate::{
    error::{Error, Result},
    kernels::widest,
    storage::Array,
};

/// Token states of all candidates, in their order. Candidates without texts have none.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenStates {
    pub(super) space: Arc<TokenSpace>,
    /// The first token of every candidate, and the number of all, `[N + 1]`.
    pub(super) starts: Array<u32>,
    /// `[tokens, dim]`
    pub(super) states: Array<i8>,
    /// `[tokens]`
    pub(super) scales: Array<f32>,
    /// Maximum number of tokens of a candidate.
    pub(super) most: usize,
    /// The similarity that a candidate without tokens gets.
    pub(super) absent: f32,
}

impl TokenStates {
    /// Collects the token states of all candidates. `most` is also the maximum for candidates that are
    /// added later.
    ///
    /// # Errors
    /// [`Error::Captions`] for more than 2^32 tokens.
    pub fn new(space: Arc<TokenSpace>, items: &[ItemTokens], most: usize) -> Result<Self> {
        let mut starts = vec![0u32];
        let (mut states, mut scales) = (Vec::new(), Vec::new());
        for item in items {
            states.extend_from_slice(&item.states);
            scales.extend_from_slice(&item.scales);
            starts.push(u32::try_from(scales.len()).map_err(|_| {
                Error::captions("token states of the candidates")
                    .expected("at most 2^32 tokens")
                    .found("more")
                    .fix("set fewer bytes a candidate")
            })?);
        }
        let (starts, states, scales) = (starts.into(), states.into(), scales.into());
        Ok(Self { space, starts, states, scales, most, absent: 0.0 })
    }

    /// Sets the similarity of candidates without tokens to every query: that of a usual candidate,
    /// so that they are neither favoured nor left behind.
    pub fn with_absent(self, absent: f32) -> Self {
        Self { absent, ..self }
    }

    /// What makes the tokens of a text.
    pub fn space(&self) -> &Arc<TokenSpace> {
        &self.space
    }

    /// Number of candidates.
    pub fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// Whether there is no candidate.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Maximum number of tokens of a candidate.
    pub fn most(&self) -> usize {
        self.most
    }

    /// Number of tokens of all candidates.
    pub fn tokens(&self) -> usize {
        self.scales.len()
    }

    /// Number of candidates with tokens.
    pub fn described(&self) -> usize {
        self.starts.windows(2).filter(|pair| pair[0] < pair[1]).count()
    }

    fn range(&self, item: usize) -> Range<usize> {
        self.starts[item] as usize..self.starts[item + 1] as usize
    }

    /// The tokens of a candidate.
    ///
    /// # Panics
    /// When there is no such candidate.
    pub(crate) fn item(&self, item: usize) -> ItemTokens {
        let (range, dim) = (self.range(item), self.space.dim());
        let states = self.states[range.start * dim..range.end * dim].to_vec();
        ItemTokens { states, scales: self.scales[range].to_vec() }
    }

    /// MaxSim of a query with a candidate, -1 to 1; for one without tokens what
    /// [`with_absent`](Self::with_absent) says, and 0 for a query without tokens.
    ///
    /// # Panics
    /// When there is no such candidate.
    pub fn max_sim(&self, query: &TextTokens, item: usize) -> f32 {
        let (range, dim) = (self.range(item), self.space.dim());
        if query.weights.is_empty() {
            return 0.0;
        }
        if range.is_empty() {
            return self.absent;
        }
        let states = &self.states[range.start * dim..range.end * dim];
        max_sim(query, states, &self.scales[range], dim)
    }

    /// The same with other tokens in the place of a candidate's.
    pub fn max_sim_with(&self, query: &TextTokens, item: &ItemTokens) -> f32 {
        match (query.weights.is_empty(), item.is_empty()) {
            (true, _) => 0.0,
            (_, true) => self.absent,
            _ => max_sim(query, &item.states, &item.scales, self.space.dim()),
        }
    }

    /// The candidates that `keep` keeps, in their order, and others behind them.
    pub(crate) fn changed(
        &self,
        mut keep: impl FnMut(usize) -> bool,
        added: &[ItemTokens],
    ) -> Result<Self> {
        let kept = (0..self.len()).filter(|&item| keep(item)).map(|item| self.item(item));
        let items: Vec<ItemTokens> = kept.chain(added.iter().cloned()).collect();
        Ok(Self::new(self.space.clone(), &items, self.most)?.with_absent(self.absent))
    }
}

fn max_sim(query: &TextTokens, states: &[i8], scales: &[f32], dim: usize) -> f32 {
    let mut best = vec![f32::NEG_INFINITY; query.weights.len()];
    let (rows, best_of) = (query.rows.as_slice(), best.as_mut_slice());
    largest(rows, (states, scales), dim, best_of);
    let sum: f32 = best.iter().zip(&query.weights).map(|(best, weight)| best * weight).sum();
    sum.clamp(-1.0, 1.0)
}

/// The largest product of every row with any of the states.
fn largest(rows: &[f32], states: (&[i8], &[f32]), dim: usize, best: &mut [f32]) {
    widest!(products(rows: &[f32], states: (&[i8], &[f32]), dim: usize, best: &mut [f32]));
}

#[inline(always)]
fn products(rows: &[f32], (states, scales): (&[i8], &[f32]), dim: usize, best: &mut [f32]) {
    const LANES: usize = 16;
    for (row, best) in rows.chunks_exact(dim).zip(best) {
        let (row, row_rest) = row.as_chunks::<LANES>();
        for (state, scale) in states.chunks_exact(dim).zip(scales) {
            let (state, state_rest) = state.as_chunks::<LANES>();
            let mut sums = [0f32; LANES];
            for (a, b) in row.iter().zip(state) {
                for lane in 0..LANES {
                    sums[lane] += a[lane] * f32::from(b[lane]);
                }
            }
            let rest: f32 = row_rest.iter().zip(state_rest).map(|(a, &b)| a * f32::from(b)).sum();
            let product = (sums.iter().sum::<f32>() + rest) * scale;
            *best = best.max(product);
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::index::tokens) fn space(dim: usize) -> Arc<TokenSpace> {
        let states: Vec<f32> = (0..60 * dim).map(|i| ((i * i % 911) as f32 * 0.61).sin()).collect();
        Arc::new(TokenSpace::fit(&states, dim, dim, vec![1.0; 50]).unwrap())
    }

    pub(in crate::index::tokens) fn text(
        space: &TokenSpace,
        seed: usize,
        tokens: usize,
    ) -> TextTokens {
        let states: Vec<f32> = (0..tokens * space.d_model())
            .map(|i| (((i + seed * 7919) * (i + 3) % 997) as f32 * 0.43).sin())
            .collect();
        let ids: Vec<u32> = (0..tokens as u32).collect();
        space.text(&ids, &states)
    }

    /// Twin: three loops over numbers of 32 bits.
    #[test]
    fn max_sim_is_that_of_three_loops_within_rounding() {
        for dim in [16, 20, 64] {
            let space = space(dim);
            let texts: Vec<TextTokens> =
                (0..6).map(|seed| text(&space, seed, 1 + 3 * seed)).collect();
            let items: Vec<ItemTokens> = texts.iter().map(|text| space.item([text], 8)).collect();
            let states = TokenStates::new(space.clone(), &items, 8).unwrap();
            assert_eq!((states.len(), states.described()), (6, 6));
            assert!(items.iter().all(|item| item.len() <= 8));
            for query in &texts {
                for (at, item) in items.iter().enumerate() {
                    let rows: Vec<f32> = item
                        .states
                        .chunks_exact(dim)
                        .zip(&item.scales)
                        .flat_map(|(row, scale)| row.iter().map(move |&v| f32::from(v) * scale))
                        .collect();
                    let cosine =
                        |a: &[f32], b: &[f32]| -> f32 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
                    let best = |row: &[f32]| {
                        rows.chunks_exact(dim).map(|other| cosine(row, other)).fold(-2.0, f32::max)
                    };
                    let expected: f32 = query
                        .rows
                        .chunks_exact(dim)
                        .zip(&query.weights)
                        .map(|(row, w)| w * best(row))
                        .sum();
                    // Rounding may take a text with itself above 1.
                    let expected = expected.clamp(-1.0, 1.0);
                    approx::assert_abs_diff_eq!(
                        states.max_sim(query, at),
                        expected,
                        epsilon = 1e-5
                    );
                    assert_eq!(states.max_sim(query, at), states.max_sim_with(query, item));
                }
            }
            // A text with itself, where nothing had to be merged.
            assert!(states.max_sim(&texts[1], 1) > 0.99);
        }
    }

    #[test]
    fn candidates_without_tokens_get_a_usual_similarity_and_queries_without_tokens_none() {
        let space = space(16);
        let query = text(&space, 1, 4);
        let items = [space.item([&query], 8), ItemTokens::default()];
        let states = TokenStates::new(space, &items, 8).unwrap().with_absent(0.25);
        assert_eq!((states.described(), states.max_sim(&query, 1)), (1, 0.25));
        assert_eq!(states.max_sim(&TextTokens::default(), 0), 0.0);
        let changed = states.changed(|item| item == 1, &items).unwrap();
        assert_eq!((changed.len(), changed.tokens()), (3, 4));
        assert_eq!(changed.max_sim(&query, 0), 0.25);
        assert_eq!(changed.max_sim(&query, 1), states.max_sim(&query, 0));
    }
}
