//! Parts of the text encoder that are not trained.

use burn::{
    module::{AutodiffModule, Module, ModuleMapper, ModuleVisitor, Param},
    tensor::{
        Int, Tensor, TensorData,
        backend::{AutodiffBackend, Backend},
    },
};
use serde::{Deserialize, Serialize};

use super::{Precision, cache::LayerCache};
use crate::{
    data::QueryBatch,
    error::{Error, Result},
    model::Cart,
    nn::{EncoderPrefix, TextEncoder},
};

/// Which part of the text encoder keeps the weights it has.
///
/// What is frozen takes no part in the backward pass and has no moments; frozen layers are computed
/// without dropout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Freeze {
    /// Everything is trained.
    #[default]
    Nothing,
    /// The word embeddings: the largest table of a network, of which a step changes few rows.
    Words,
    /// All embeddings and so many of the lowest layers, with the norms of their outputs.
    Layers(usize),
    /// All of it.
    Encoder,
}

impl Freeze {
    /// Frozen layers of an encoder with `layers` layers.
    ///
    /// # Errors
    /// [`Error::Config`] for more layers than there are, or none.
    fn layers(self, layers: usize) -> Result<usize> {
        match self {
            Self::Nothing | Self::Words => Ok(0),
            Self::Encoder => Ok(layers),
            Self::Layers(count) if (1..=layers).contains(&count) => Ok(count),
            Self::Layers(count) => Err(Error::config(
                "freeze",
                format!("1 to {layers} layers, as the encoder has them"),
                count.to_string(),
                "freeze fewer layers, or nothing",
            )),
        }
    }

    /// The network with what is frozen made constant.
    pub(super) fn apply<B: Backend>(self, cart: Cart<B>) -> Result<Cart<B>> {
        let layers = self.layers(cart.encoder().n_layers())?;
        Ok(match self {
            Self::Nothing => cart,
            Self::Words => cart.map_encoder(TextEncoder::freeze_words),
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
/// use cart_retrieval::{identifier::Vocabulary, model::{Cart, CartConfig}, train::trainable};
/// let config = CartConfig::new(50, Vocabulary::new(vec![8, 2])?).with_width(8, 8, 2);
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

/// How the outputs of frozen layers are had.
pub(super) struct Frozen {
    layers: usize,
    precision: Precision,
    cache: Option<LayerCache>,
}

impl Frozen {
    /// Absent where no layer is frozen; `cache` makes one for so many frozen layers.
    pub(super) fn new<B: Backend>(
        freeze: Freeze,
        precision: Precision,
        cart: &Cart<B>,
        cache: impl FnOnce(usize) -> Option<LayerCache>,
    ) -> Result<Option<Self>> {
        let layers = freeze.layers(cart.encoder().n_layers())?;
        Ok((layers > 0).then(|| Self { layers, precision, cache: cache(layers) }))
    }

    /// Training captions whose outputs are kept.
    pub(super) fn kept(&self) -> usize {
        self.cache.as_ref().map_or(0, LayerCache::len)
    }

    /// What the frozen layers make of queries, `texts` of the training captions; computed without
    /// autodiff, so without dropout and without a graph.
    pub(super) fn prefix<B: AutodiffBackend>(
        &self,
        cart: &Cart<B>,
        queries: &QueryBatch<B>,
        texts: &[u32],
    ) -> EncoderPrefix<B> {
        let encoder = self.precision.apply(cart.encoder().valid());
        let (tokens, padding) = (queries.tokens.clone().inner(), queries.padding.clone().inner());
        let compute = |tokens, padding| encoder.prefix(self.layers, tokens, padding);
        let prefix = match &self.cache {
            None => compute(tokens, padding),
            Some(cache) => {
                let [_, width] = tokens.dims();
                let device = tokens.device();
                let (kept, rest) = cache.split(texts);
                let rows = |rows: &[usize]| {
                    let rows: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
                    let data = TensorData::new(rows.clone(), [rows.len()]);
                    Tensor::<B::InnerBackend, 1, Int>::from_data(data, &device)
                };
                let kept_texts: Vec<u32> = kept.iter().map(|&row| texts[row]).collect();
                let computed = (!rest.is_empty()).then(|| {
                    let rest = rows(&rest);
                    compute(tokens.select(0, rest.clone()), padding.select(0, rest))
                });
                let found = (!kept.is_empty())
                    .then(|| cache.get(&encoder, self.layers, &kept_texts, width, &device));
                match (found, computed) {
                    (Some(found), Some(computed)) => {
                        // Row i of the batch is at `places[i]` of the two behind each other.
                        let mut places = vec![0; texts.len()];
                        let order = kept.iter().chain(&rest);
                        order.enumerate().for_each(|(place, &row)| places[row] = place);
                        let places = rows(&places);
                        let join = |a, b| Tensor::cat(vec![a, b], 0).select(0, places.clone());
                        let hidden = match self.layers == encoder.n_layers() {
                            // Without a layer above, nothing reads it, and the cache has none.
                            true => Tensor::zeros([texts.len(), 1, 1], &device),
                            false => join(found.hidden, computed.hidden),
                        };
                        EncoderPrefix {
                            hidden,
                            layers: found
                                .layers
                                .into_iter()
                                .zip(computed.layers)
                                .map(|(a, b)| join(a, b))
                                .collect(),
                        }
                    }
                    (Some(prefix), None) | (None, Some(prefix)) => prefix,
                    (None, None) => unreachable!("a batch has rows"),
                }
            }
        };
        EncoderPrefix {
            layers: prefix.layers.into_iter().map(Tensor::from_inner).collect(),
            hidden: Tensor::from_inner(prefix.hidden),
        }
    }
}
