//! The interface of all quantizers.

use crate::{
    error::{Error, Result},
    identifier::Codes,
};

/// A fitted quantizer: embeddings to tokens and back.
///
/// Implemented by K-Means, hierarchical K-Means, RQ-KMeans, the RQ-VAE and their coarse-to-fine
/// composition, so that each can be used alone, compared and exchanged.
pub trait Quantizer: Send + Sync {
    /// Width D of the embeddings.
    fn dim(&self) -> usize;

    /// Number of tokens an embedding can have at each level.
    fn level_sizes(&self) -> Vec<usize>;

    /// Number of tokens that can follow the first ones of an identifier, `0..` that many: all of
    /// the level, where codebooks do not depend on what comes before.
    fn followers(&self, prefix: &[u16]) -> usize {
        self.level_sizes().get(prefix.len()).copied().unwrap_or(0)
    }

    /// Tokens of embeddings.
    ///
    /// # Shapes
    /// - `rows`: `[n, dim]`, row-major
    /// - returns: `[n, levels]`
    ///
    /// # Errors
    /// When `rows` is no whole number of rows or holds NaN or infinite values.
    fn encode(&self, rows: &[f32]) -> Result<Codes>;

    /// The best `count` token sequences of each embedding, that of [`Quantizer::encode`] first: the
    /// nearest centres of K-Means, the sequences of minimum error of residual quantizers.
    ///
    /// # Shapes
    /// - `rows`: `[n, dim]`, row-major
    /// - returns: `[n * count, levels]`, grouped by row
    ///
    /// # Errors
    /// As [`Quantizer::encode`]; [`Error::Quantizer`] when there are fewer sequences, or for more
    /// than one from a quantizer that finds one only.
    fn encode_best(&self, rows: &[f32], count: usize) -> Result<Codes> {
        Error::quantizer("code sequences of a row")
            .expected("1 from this quantizer")
            .found(count.to_string())
            .fix_if(count != 1, "ask for one, or use an RQ-VAE or RQ-KMeans")?;
        self.encode(rows)
    }

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
