//! What the text encoders of all families have in common.

use burn::{
    module::Module,
    nn::Embedding,
    tensor::{Bool, Int, Tensor, backend::Backend},
};

use super::Pooling;
use crate::{
    error::{Error, Result},
    storage::count,
};

/// A text encoder as a stack of layers over embeddings.
pub(super) trait Family<B: Backend>: Sized {
    /// What the lowest layer reads.
    ///
    /// # Shapes
    /// - `tokens`, `padding` (true where there is no token): `[batch, tokens]`
    /// - returns: `[batch, tokens, d_model]`
    ///
    /// # Panics
    /// When there are more tokens than the encoder has positions for.
    fn embed(&self, tokens: Tensor<B, 2, Int>, padding: &Tensor<B, 2, Bool>) -> Tensor<B, 3> {
        self.embed_words(self.tokens().forward(tokens), padding)
    }

    /// The same from vectors in the places of the words' embeddings.
    ///
    /// # Shapes
    /// - `words`: `[batch, tokens, d_model]`
    fn embed_words(&self, words: Tensor<B, 3>, padding: &Tensor<B, 2, Bool>) -> Tensor<B, 3>;

    /// The scores to add in all layers.
    ///
    /// # Shapes
    /// - `padding`: `[batch, 1, 1, tokens]`
    /// - returns: `[batch, heads, tokens, tokens]`
    fn bias(&self, padding: &Tensor<B, 4>) -> Tensor<B, 4>;

    /// Applies layer number `at`.
    fn layer(&self, at: usize, hidden: Tensor<B, 3>, bias: &Tensor<B, 4>) -> Tensor<B, 3>;

    /// What layer number `at` hands out, of what the layer above it reads.
    fn hand_out(&self, at: usize, hidden: Tensor<B, 3>) -> Tensor<B, 3>;

    /// What the reference implementation shows as the hidden state behind layer number `at`.
    fn hidden_state(&self, _at: usize, hidden: Tensor<B, 3>) -> Tensor<B, 3> {
        hidden
    }

    /// The longest text it has positions for; `None` if the length is unlimited.
    fn max_tokens(&self) -> Option<usize> {
        None
    }

    /// Number of layers S.
    fn n_layers(&self) -> usize;

    /// Number of attention heads.
    fn n_heads(&self) -> usize;

    /// How one vector of a query is made.
    fn pooling(&self) -> Pooling {
        Pooling::Mean
    }

    /// The table of word embeddings.
    fn tokens(&self) -> &Embedding<B>;

    /// Makes the word embeddings constants of the training.
    fn freeze_words(self) -> Self;

    /// Makes the embeddings and the lowest layers constants of the training, and everything else
    /// that what they hand out depends on.
    fn freeze_layers(self, layers: usize) -> Self;
}

/// Makes the first `count` modules constants of the training.
pub(super) fn freeze_lowest<B: Backend, M: Module<B>>(modules: Vec<M>, count: usize) -> Vec<M> {
    let freeze = |(at, module): (usize, M)| if at < count { module.no_grad() } else { module };
    modules.into_iter().enumerate().map(freeze).collect()
}

/// Parameters of a layer of width `d` and inner width `f`: attention, feed-forward block and two norms, all with biases.
pub fn layer_params(d: usize, f: usize) -> usize {
    count(&[&[4, d, d], &[2, d, f], &[f], &[9, d]])
}

/// Checks that no size is 0, that the heads divide the width, and that dropouts are probabilities.
pub fn check_sizes(
    sizes: &[(&str, usize)],
    width_and_heads: Option<(usize, usize)>,
    dropouts: &[(&str, f64)],
) -> Result<()> {
    if let Some((name, _)) = sizes.iter().find(|(_, size)| *size == 0) {
        return Err(Error::config(*name)
            .expected("at least 1")
            .found("0")
            .fix("choose another size"));
    }
    if let Some((d_model, n_heads)) = width_and_heads
        && !d_model.is_multiple_of(n_heads)
    {
        return Err(Error::config("n_heads")
            .expected(format!("a divisor of d_model = {d_model}"))
            .found(n_heads.to_string())
            .fix("change one of the two"));
    }
    match dropouts.iter().find(|(_, p)| !(0.0..1.0).contains(p)) {
        Some((name, p)) => Err(Error::config(*name)
            .expected("a probability in [0, 1)")
            .found(p.to_string())
            .fix("0.1 is usual")),
        None => Ok(()),
    }
}
