//! What the text encoders of all families have in common.

use burn::{
    module::{ModuleMapper, Param},
    nn::Embedding,
    tensor::{Bool, Int, Tensor, backend::Backend},
};

use super::Pooling;
use crate::{
    error::{Error, Result, ensure_in},
    nn::{Dropout, attention::laid_out},
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
    fn bias(&self, padding: &Tensor<B, 4>) -> Tensor<B, 4> {
        let [_, _, _, length] = padding.dims();
        laid_out(padding, self.n_heads(), length)
    }

    /// Applies layer number `at`.
    fn layer(&self, at: usize, hidden: Tensor<B, 3>, bias: &Tensor<B, 4>) -> Tensor<B, 3>;

    /// The output of layer number `at` for the decoder; `hidden` is the input of the layer above
    /// it.
    fn layer_output(&self, _at: usize, hidden: Tensor<B, 3>) -> Tensor<B, 3> {
        hidden
    }

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

    /// The table of token embeddings.
    fn tokens(&self) -> &Embedding<B>;

    /// Makes the token embeddings constants of the training.
    fn freeze_token_embeddings(self) -> Self;
}

/// Does the same with a value of whatever family.
macro_rules! each {
    ($kind:ident, $value:expr, $inner:ident => $do:expr) => {
        match $value {
            $kind::Scratch($inner) => $do,
            $kind::Bert($inner) => $do,
            $kind::T5($inner) => $do,
            $kind::Clip($inner) => $do,
        }
    };
}
pub(super) use each;

/// The same, to a value of the same family.
macro_rules! map_each {
    ($kind:ident => $to:ident, $value:expr, $inner:ident => $do:expr) => {
        match $value {
            $kind::Scratch($inner) => $to::Scratch($do),
            $kind::Bert($inner) => $to::Bert($do),
            $kind::T5($inner) => $to::T5($do),
            $kind::Clip($inner) => $to::Clip($do),
        }
    };
}
pub(super) use map_each;

/// What a family reads from fields that all have.
macro_rules! fields {
    () => {
        fn n_layers(&self) -> usize {
            self.layers.len()
        }

        fn n_heads(&self) -> usize {
            self.layers.first().map_or(1, |layer| layer.n_heads())
        }

        fn tokens(&self) -> &Embedding<B> {
            &self.tokens
        }

        fn freeze_token_embeddings(self) -> Self {
            Self { tokens: self.tokens.no_grad(), ..self }
        }
    };
}
pub(super) use fields;

/// Adds the positions of a text, which start at the first row of their table.
///
/// # Shapes
/// - `words`, output: `[batch, tokens, d_model]`
///
/// # Panics
/// When there are more tokens than positions.
pub(super) fn add_positions<B: Backend>(
    words: Tensor<B, 3>,
    positions: &Embedding<B>,
    dropout: &Dropout,
) -> Tensor<B, 3> {
    let [_, length, _] = words.dims();
    let [max_tokens, _] = positions.weight.dims();
    assert!(length <= max_tokens, "{length} tokens exceed max_tokens = {max_tokens}");
    dropout.forward(words + positions.weight.val().narrow(0, 0, length).unsqueeze::<3>())
}

/// Makes all parameters of an encoder constants of the training, but for those of the layers from
/// number `count` on and of the norms of their outputs.
pub(super) struct FreezeLowest {
    pub(super) count: usize,
    /// Names of the parts that the parameter at hand is in.
    pub(super) path: Vec<String>,
}

impl<B: Backend> ModuleMapper<B> for FreezeLowest {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let list = self.path.iter().position(|part| part == "layers" || part == "norms");
        let layer = list.and_then(|list| self.path.get(list + 1)?.parse::<usize>().ok());
        if layer.is_some_and(|layer| layer >= self.count) {
            return param;
        }
        let (id, tensor, mapper) = param.consume();
        Param::from_mapped_value(id, tensor.set_require_grad(false), mapper)
    }
}

/// Parameters of a layer of width `d` and inner width `f`: attention, feed-forward block and two
/// norms, all with biases.
pub fn layer_params(d: usize, f: usize) -> usize {
    count(&[&[4, d, d], &[2, d, f], &[f], &[9, d]])
}

/// Checks that no size is 0, that the heads divide the width, and that dropouts are probabilities.
pub fn check_sizes(
    sizes: &[(&str, usize)],
    width_and_heads: Option<(usize, usize)>,
    dropouts: &[(&str, f64)],
) -> Result<()> {
    for (name, size) in sizes {
        ensure_in(name, *size as f64, "[1, inf)", "choose another size")?;
    }
    if let Some((d_model, n_heads)) = width_and_heads
        && !d_model.is_multiple_of(n_heads)
    {
        return Err(Error::config("n_heads")
            .expected(format!("a divisor of d_model = {d_model}"))
            .found(n_heads.to_string())
            .fix("change one of the two"));
    }
    let mut dropouts = dropouts.iter();
    dropouts.try_for_each(|(name, dropout)| ensure_in(name, *dropout, "[0, 1)", "0.1 is usual"))
}
