//! Candidates as vectors in the space of the text encoder (ours; the paper has identifiers only).
//!
//! Codes are arbitrary names: a decoder has to learn for every one of them what it stands for. The
//! candidates themselves are not arbitrary. [`CandidateSpace`] maps their embeddings, and the texts
//! that describe them, to where the text encoder puts such texts; identifiers are made from those
//! vectors; and [`Geometry`] knows, for every prefix of the trie, where the candidates below it lie.
//! With that, the probability of a child starts from how many candidates near the query lie below
//! it, and the decoder learns the rest.

mod centroids;
mod geometry;
mod guide;
mod held_out;
mod ridge;
mod space;
mod texts;
mod tune;
mod words;

pub use geometry::Geometry;
pub use guide::Guide;
pub use held_out::HeldOut;
pub use ridge::Ridge;
pub use space::{CandidateSpace, CandidateSpaceConfig, FittedSpace};
pub(crate) use texts::embed_with;
pub use texts::{TextVectors, embed_texts};
pub use tune::{SpaceTuning, TunedEncoder};
pub use words::WordWeights;

/// Scales a vector to length 1; a zero vector stays.
pub(crate) fn normalise(row: &mut [f32]) {
    let norm = row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
    if norm > 0.0 {
        row.iter_mut().for_each(|v| *v = (f64::from(*v) / norm) as f32);
    }
}

/// Dot product in a fixed order of sixteen running sums.
#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0f32; 16];
    let (a16, b16) = (a.chunks_exact(16), b.chunks_exact(16));
    let rest: f32 = a16.remainder().iter().zip(b16.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in a16.zip(b16) {
        for ((sum, x), y) in sums.iter_mut().zip(x).zip(y) {
            *sum += x * y;
        }
    }
    sums.iter().sum::<f32>() + rest
}
