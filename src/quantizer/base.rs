//! What every tokenizer of candidate embeddings can do.

use crate::{error::Result, identifier::Codes};

/// A fitted quantizer: embeddings to tokens and back.
///
/// Implemented by K-Means, hierarchical K-Means, RQ-KMeans, the RQ-VAE and their coarse-to-fine
/// composition, so that each can be used alone, compared and exchanged.
pub trait Quantizer: Send + Sync {
    /// Width D of the embeddings.
    fn dim(&self) -> usize;

    /// Number of tokens an embedding can have at each level.
    fn level_sizes(&self) -> Vec<usize>;

    /// Tokens of embeddings.
    ///
    /// # Shapes
    /// - `rows`: `[n, dim]`, row-major
    /// - returns: `[n, levels]`
    ///
    /// # Errors
    /// When `rows` is no whole number of rows or holds NaN or infinite values.
    fn encode(&self, rows: &[f32]) -> Result<Codes>;

    /// The embeddings that the first `levels` tokens of each row stand for.
    ///
    /// # Shapes
    /// - `codes`: `[n, at least levels]`
    /// - returns: `[n, dim]`, row-major
    ///
    /// # Errors
    /// When a token is outside its level or `codes` has fewer than `levels` columns.
    fn decode_prefix(&self, codes: &Codes, levels: usize) -> Result<Vec<f32>>;

    /// The embeddings that whole rows of tokens stand for.
    ///
    /// # Errors
    /// As [`Quantizer::decode_prefix`].
    fn decode(&self, codes: &Codes) -> Result<Vec<f32>> {
        self.decode_prefix(codes, self.level_sizes().len())
    }
}
