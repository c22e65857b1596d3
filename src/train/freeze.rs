//! Parts of the text encoder that are not trained.

use burn::{
    module::{AutodiffModule, Module, ModuleMapper, ModuleVisitor, Param},
    tensor::{
        Tensor,
        backend::{AutodiffBackend, Backend},
    },
};
use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    model::Cart,
    nn::TextEncoder,
};

/// Which part of the text encoder keeps its weights.
///
/// What is frozen takes no part in the backward pass and has no moments; frozen layers are computed
/// without dropout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Freeze {
    /// Everything is trained.
    #[default]
    Nothing,
    /// The token embeddings: the largest table of a network, of which a step changes few rows.
    #[serde(rename = "words")]
    TokenEmbeddings,
    /// All embeddings and this many of the lowest layers, with the norms of their outputs.
    Layers(usize),
    /// All of it.
    Encoder,
}

impl Freeze {
    /// Frozen layers of an encoder with `layers` layers.
    ///
    /// # Errors
    /// [`Error::Config`] for more layers than there are, or none.
    pub(super) fn layers(self, layers: usize) -> Result<usize> {
        match self {
            Self::Nothing | Self::TokenEmbeddings => Ok(0),
            Self::Encoder => Ok(layers),
            Self::Layers(count) if (1..=layers).contains(&count) => Ok(count),
            Self::Layers(count) => Err(Error::config("freeze")
                .expected(format!("1 to {layers} layers, the layers of the encoder"))
                .found(count.to_string())
                .fix("freeze fewer layers, or nothing")),
        }
    }

    /// The network with what is frozen made constant.
    pub(super) fn apply<B: Backend>(self, cart: Cart<B>) -> Result<Cart<B>> {
        let layers = self.layers(cart.encoder().n_layers())?;
        Ok(match self {
            Self::Nothing => cart,
            Self::TokenEmbeddings => cart.map_encoder(TextEncoder::freeze_token_embeddings),
            _ => cart.map_encoder(|encoder| encoder.freeze_layers(layers)),
        })
    }
}

/// A module that learns, from one that was loaded: of an index, or pretrained.
///
/// What is read on a backend without gradients forgets which parameters are trained; burn's own
/// [`AutodiffModule::from_inner`] then makes a module of constants.
///
/// # Example
/// ```
/// use burn::backend::{Autodiff, Flex};
/// use cart_retrieval::{identifier::LevelSizes, model::{Cart, CartConfig}, expert::trainable};
/// let config = CartConfig::new(50, LevelSizes::new(vec![8, 2])?).with_width(8, 8, 2);
/// let loaded: Cart<Flex> = config.init(&Default::default())?;
/// let network: Cart<Autodiff<Flex>> = trainable(loaded);      // for train::Trainer
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
pub fn trainable<B: AutodiffBackend, M: AutodiffModule<B>>(module: M::InnerModule) -> M {
    struct Learn;
    impl<B: Backend> ModuleMapper<B> for Learn {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
            param.set_require_grad(true)
        }
    }
    M::from_inner(module).map(&mut Learn)
}

/// Whether any parameter of a module is trained.
pub(super) fn learns<B: Backend>(module: &impl Module<B>) -> bool {
    struct Any(bool);
    impl<B: Backend> ModuleVisitor<B> for Any {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
            self.0 |= param.val().is_require_grad();
        }
    }
    let mut any = Any(false);
    module.visit(&mut any);
    any.0
}

/// Memory for the outputs of frozen layers, so that every caption passes them once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FrozenCache {
    /// Most memory to use, in MiB; captions that do not fit are computed at every step. 0 keeps
    /// nothing.
    pub mebibytes: usize,
    /// Whether to keep `f16`, which takes half the memory, instead of `f32`.
    pub half: bool,
}
