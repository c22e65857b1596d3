//! Attention of the beams of a query to what is known of it.

use crate::kernels::{exp_neg, widest};

/// Numbers that a loop takes at once.
const LANES: usize = 16;
/// Beams that a loop takes at once.
const BEAMS: usize = 4;

/// Keys and values of a sequence, laid out by head.
#[derive(Debug, Clone)]
pub(super) struct Context {
    tokens: usize,
    d_head: usize,
    /// `[heads, d_head, tokens rounded up to lanes]`
    keys: Vec<f32>,
    /// `[heads, tokens, d_head rounded up to lanes]`
    values: Vec<f32>,
}

impl Context {
    /// From `[tokens, 2 * heads * d_head]`, keys before values.
    pub(super) fn new(rows: &[f32], d_model: usize, heads: usize) -> Self {
        let (tokens, d_head) = (rows.len() / (2 * d_model), d_model / heads);
        let (padded, wide) = (tokens.next_multiple_of(LANES), d_head.next_multiple_of(LANES));
        let mut keys = vec![0.0; heads * d_head * padded];
        let mut values = vec![0.0; heads * tokens * wide];
        for (token, row) in rows.chunks_exact(2 * d_model).enumerate() {
            let (key, value) = row.split_at(d_model);
            for (at, &number) in key.iter().enumerate() {
                keys[at * padded + token] = number;
            }
            for (head, value) in value.chunks_exact(d_head).enumerate() {
                values[(head * tokens + token) * wide..][..d_head].copy_from_slice(value);
            }
        }
        Self { tokens, d_head, keys, values }
    }

    /// Softmax attention of scaled queries; nothing where there is no token.
    ///
    /// # Shapes
    /// - `queries`: rows of `stride`, from column `first` on `[beams, heads * d_head]`
    /// - `out`: `[beams, heads * d_head]`
    pub(super) fn attend(
        &self,
        queries: &[f32],
        (stride, first): (usize, usize),
        scores: &mut Vec<f32>,
        out: &mut [f32],
    ) {
        if self.tokens == 0 {
            out.fill(0.0);
            return;
        }
        let context = self;
        let columns = (stride, first);
        scores.clear();
        scores.resize(BEAMS * self.tokens.next_multiple_of(LANES), 0.0);
        widest!(attend(context: &Context, queries: &[f32], columns: (usize, usize), scores: &mut [f32], out: &mut [f32]));
    }
}

#[inline(always)]
fn attend(
    context: &Context,
    queries: &[f32],
    (stride, first): (usize, usize),
    scores: &mut [f32],
    out: &mut [f32],
) {
    let Context { tokens, d_head, .. } = *context;
    let (padded, wide) = (tokens.next_multiple_of(LANES), d_head.next_multiple_of(LANES));
    let beams = queries.len() / stride;
    let d_model = out.len() / beams.max(1);
    for head in 0..d_model / d_head {
        let keys = &context.keys[head * d_head * padded..][..d_head * padded];
        let values = &context.values[head * tokens * wide..][..tokens * wide];
        for beam in (0..beams).step_by(BEAMS) {
            // The last beam again where there are fewer.
            let rows: [usize; BEAMS] = std::array::from_fn(|at| (beam + at).min(beams - 1));
            let query: [&[f32]; BEAMS] =
                rows.map(|row| &queries[row * stride + first + head * d_head..][..d_head]);
            for lane in (0..padded).step_by(LANES) {
                let mut sums = [[0.0f32; LANES]; BEAMS];
                for (at, keys) in keys.chunks_exact(padded).enumerate() {
                    let keys = lanes(&keys[lane..]);
                    add(&mut sums, query.map(|query| query[at]), keys);
                }
                for (at, sums) in sums.iter().enumerate() {
                    scores[at * padded + lane..][..LANES].copy_from_slice(sums);
                }
            }
            for scores in scores.chunks_exact_mut(padded) {
                softmax(scores, tokens);
            }
            let weights: [&[f32]; BEAMS] =
                std::array::from_fn(|at| &scores[at * padded..][..tokens]);
            for column in (0..d_head).step_by(LANES) {
                let mut sums = [[0.0f32; LANES]; BEAMS];
                for (token, values) in values.chunks_exact(wide).enumerate() {
                    let values = lanes(&values[column..]);
                    add(&mut sums, weights.map(|weights| weights[token]), values);
                }
                let columns = LANES.min(d_head - column);
                for (row, sums) in rows.iter().zip(&sums) {
                    let to = row * d_model + head * d_head + column;
                    out[to..to + columns].copy_from_slice(&sums[..columns]);
                }
            }
        }
    }
}

#[inline(always)]
fn lanes(numbers: &[f32]) -> &[f32; LANES] {
    numbers.first_chunk().expect("columns are padded to whole lanes")
}

/// Adds a vector, times a factor each, to sums.
#[inline(always)]
fn add(sums: &mut [[f32; LANES]; BEAMS], factors: [f32; BEAMS], vector: &[f32; LANES]) {
    for at in 0..BEAMS {
        let mut sum = sums[at];
        for lane in 0..LANES {
            sum[lane] += factors[at] * vector[lane];
        }
        sums[at] = sum;
    }
}

/// Softmax of the first `tokens` scores; the others, up to a whole number of lanes, become 0.
#[inline(always)]
pub(super) fn softmax(scores: &mut [f32], tokens: usize) {
    scores[tokens..].fill(f32::NEG_INFINITY);
    let mut top = [f32::NEG_INFINITY; LANES];
    for chunk in scores.chunks_exact(LANES) {
        for (top, &score) in top.iter_mut().zip(chunk) {
            *top = if score > *top { score } else { *top };
        }
    }
    let top = top.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut total = [0.0f32; LANES];
    for chunk in scores.chunks_exact_mut(LANES) {
        for (score, total) in chunk.iter_mut().zip(&mut total) {
            *score = exp_neg(top - *score);
            *total += *score;
        }
    }
    let factor = 1.0 / total.iter().sum::<f32>();
    scores.iter_mut().for_each(|score| *score *= factor);
}
