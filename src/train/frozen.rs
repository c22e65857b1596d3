//! What frozen layers make of queries.

use burn::{
    module::AutodiffModule,
    tensor::{
        Int, Tensor, TensorData,
        backend::{AutodiffBackend, Backend},
    },
};

use super::{cache::LayerCache, freeze::Freeze, precision::Precision};
use crate::{data::QueryBatch, error::Result, model::Cart, nn::EncoderPrefix};

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
                        let hidden = if self.layers == encoder.n_layers() {
                            // Without a layer above, nothing reads it, and the cache has none.
                            Tensor::zeros([texts.len(), 1, 1], &device)
                        } else {
                            join(found.hidden, computed.hidden)
                        };
                        let layers = found.layers.into_iter().zip(computed.layers);
                        EncoderPrefix { hidden, layers: layers.map(|(a, b)| join(a, b)).collect() }
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
