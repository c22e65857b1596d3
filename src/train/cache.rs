//! Outputs of frozen layers, kept on the host so that every caption passes the layers once.
//!
//! Which captions are kept follows from the budget and the captions alone, and they are computed in
//! fixed groups of like length: a training that is resumed finds the same numbers.

use std::sync::{Arc, OnceLock};

use burn::tensor::{Tensor, TensorData, backend::Backend};
use half::f16;

use super::{FrozenCache, WeightedExample};
use crate::{
    data::QueryBatch,
    nn::{EncoderPrefix, TextEncoder},
};

/// Captions computed at once.
const GROUP: usize = 32;

/// The cache of a training's captions.
pub(super) struct LayerCache {
    train: Arc<Vec<WeightedExample>>,
    padding: u32,
    half: bool,
    /// Width of a layer.
    d_model: usize,
    /// Outputs per caption: those of the frozen layers, and what the layer above reads, if any.
    outputs: usize,
    /// Group and number in it, for every training pair that is kept.
    places: Vec<Option<(u32, u32)>>,
    groups: Vec<Group>,
}

struct Group {
    pairs: Vec<u32>,
    /// By caption: `outputs` matrices `[tokens, d_model]`, concatenated.
    values: OnceLock<Vec<Values>>,
}

enum Values {
    Half(Vec<f16>),
    Single(Vec<f32>),
}

impl LayerCache {
    /// A cache for as many captions as its budget holds; absent where that is none.
    pub(super) fn new<B: Backend>(
        config: FrozenCache,
        train: Arc<Vec<WeightedExample>>,
        padding: u32,
        encoder: &TextEncoder<B>,
        layers: usize,
    ) -> Option<Self> {
        let outputs = layers + usize::from(layers < encoder.n_layers());
        let d_model = encoder.d_model();
        let size = if config.half { size_of::<f16>() } else { size_of::<f32>() };
        let mut left = config.mebibytes.saturating_mul(1 << 20);
        let mut kept: Vec<u32> = Vec::new();
        for (index, pair) in train.iter().enumerate() {
            let bytes = pair.example.tokens.len() * d_model * outputs * size;
            if bytes > left {
                break;
            }
            left -= bytes;
            kept.push(index as u32);
        }
        kept.sort_by_key(|&index| train[index as usize].example.tokens.len());
        let mut places = vec![None; train.len()];
        let groups: Vec<Group> = kept
            .chunks(GROUP)
            .map(|pairs| Group { pairs: pairs.to_vec(), values: OnceLock::new() })
            .collect();
        for (number, group) in groups.iter().enumerate() {
            for (at, &pair) in group.pairs.iter().enumerate() {
                places[pair as usize] = Some((number as u32, at as u32));
            }
        }
        let half = config.half;
        let cache = Self { train, padding, half, d_model, outputs, places, groups };
        (!cache.groups.is_empty()).then_some(cache)
    }

    /// Number of captions it holds, once all were computed.
    pub(super) fn len(&self) -> usize {
        self.groups.iter().map(|group| group.pairs.len()).sum()
    }

    /// Rows of a batch whose captions are kept, and the others.
    pub(super) fn split(&self, pairs: &[u32]) -> (Vec<usize>, Vec<usize>) {
        let kept = |&row: &usize| {
            self.places.get(pairs[row] as usize).is_some_and(|place| place.is_some())
        };
        (0..pairs.len()).partition(kept)
    }

    /// The outputs for captions that are kept, padded with zeros to `width` tokens.
    pub(super) fn get<B: Backend>(
        &self,
        encoder: &TextEncoder<B>,
        layers: usize,
        pairs: &[u32],
        width: usize,
        device: &B::Device,
    ) -> EncoderPrefix<B> {
        let row = width * self.d_model;
        let mut outputs = vec![vec![0f32; pairs.len() * row]; self.outputs];
        for (at, &pair) in pairs.iter().enumerate() {
            let Some((group, number)) = self.places[pair as usize] else {
                unreachable!("the caller asks for captions that are kept");
            };
            let group = &self.groups[group as usize];
            let values = group.values.get_or_init(|| self.compute(group, encoder, layers, device));
            let length = self.train[pair as usize].example.tokens.len() * self.d_model;
            for (number_of, output) in outputs.iter_mut().enumerate() {
                let to = &mut output[at * row..at * row + length];
                let from = number_of * length..(number_of + 1) * length;
                match &values[number as usize] {
                    Values::Single(values) => to.copy_from_slice(&values[from]),
                    Values::Half(values) => {
                        to.iter_mut().zip(&values[from]).for_each(|(to, v)| *to = v.to_f32());
                    }
                }
            }
        }
        let shape = [pairs.len(), width, self.d_model];
        let mut tensors: Vec<Tensor<B, 3>> = outputs
            .into_iter()
            .map(|values| Tensor::from_data(TensorData::new(values, shape), device))
            .collect();
        // Without a layer above, nothing reads it.
        let hidden = if tensors.len() > layers { tensors.pop() } else { None };
        let hidden = hidden.unwrap_or_else(|| Tensor::zeros([pairs.len(), 1, 1], device));
        EncoderPrefix { layers: tensors, hidden }
    }

    fn compute<B: Backend>(
        &self,
        group: &Group,
        encoder: &TextEncoder<B>,
        layers: usize,
        device: &B::Device,
    ) -> Vec<Values> {
        let rows: Vec<&[u32]> = group
            .pairs
            .iter()
            .map(|&pair| self.train[pair as usize].example.tokens.as_slice())
            .collect();
        let queries = QueryBatch::<B>::new(&rows, self.padding, device)
            .expect("captions were tokenised to at least one token");
        let [_, width] = queries.tokens.dims();
        let prefix = encoder.prefix(layers, queries.tokens, queries.padding);
        let mut outputs = prefix.layers;
        if self.outputs > layers {
            outputs.push(prefix.hidden);
        }
        let outputs: Vec<Vec<f32>> =
            outputs.into_iter().map(|output| output.into_data().iter::<f32>().collect()).collect();
        rows.iter()
            .enumerate()
            .map(|(at, tokens)| {
                let start = at * width * self.d_model;
                let range = start..start + tokens.len() * self.d_model;
                let values = outputs.iter().flat_map(|output| output[range.clone()].iter());
                if self.half {
                    Values::Half(values.map(|&v| f16::from_f32(v)).collect())
                } else {
                    Values::Single(values.copied().collect())
                }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use burn::{backend::Flex, tensor::Tolerance};

    use super::*;
    use crate::{
        data::Example,
        nn::{ScratchEncoderConfig, WeightInit},
    };

    fn encoder() -> TextEncoder<Flex> {
        let config = ScratchEncoderConfig {
            vocabulary: 20,
            max_tokens: 8,
            d_model: 12,
            d_ff: 16,
            n_heads: 3,
            n_layers: 3,
            dropout: 0.1,
        };
        TextEncoder::Scratch(config.init(&mut WeightInit::new(5), &Default::default()))
    }

    fn captions() -> Arc<Vec<WeightedExample>> {
        let caption = |index: u32| {
            let tokens = (0..index % 5 + 1).map(|at| (index * 3 + at * 7) % 20).collect();
            WeightedExample { example: Example { tokens, item: 0 }, weight: 1.0 }
        };
        Arc::new((0..70).map(caption).collect())
    }

    /// Twin: the prefix computed for the batch at hand.
    #[test]
    fn gives_what_the_layers_give_at_every_token_that_is_there() {
        let (encoder, train, device) = (encoder(), captions(), Default::default());
        let pairs = [3u32, 0, 69, 14, 3];
        let rows: Vec<&[u32]> =
            pairs.iter().map(|&p| train[p as usize].example.tokens.as_slice()).collect();
        let queries = QueryBatch::<Flex>::new(&rows, 0, &device).unwrap();
        for (layers, half) in [(1, false), (2, true), (3, false)] {
            let config = FrozenCache { mebibytes: 1, half };
            let cache = LayerCache::new(config, train.clone(), 0, &encoder, layers).unwrap();
            assert_eq!(cache.len(), 70);
            assert_eq!(cache.split(&pairs).1, [0usize; 0]);
            let found = cache.get(&encoder, layers, &pairs, 5, &device);
            let expected = encoder.prefix(layers, queries.tokens.clone(), queries.padding.clone());
            let mut both: Vec<_> = found.layers.into_iter().zip(expected.layers).collect();
            assert_eq!(both.len(), layers);
            if layers < 3 {
                both.push((found.hidden, expected.hidden));
            }
            let tolerance = Tolerance::absolute(if half { 4e-3 } else { 1e-5 });
            for (found, expected) in both {
                for (row, tokens) in rows.iter().enumerate() {
                    let part = [row..row + 1, 0..tokens.len()];
                    found.clone().slice(part.clone()).into_data().assert_approx_eq::<f32>(
                        &expected.clone().slice(part).into_data(),
                        tolerance,
                    );
                }
            }
        }
    }

    #[test]
    fn the_budget_decides_what_is_kept() {
        let (encoder, train) = (encoder(), captions());
        let kept = |mebibytes, half, copies: usize| {
            let train = Arc::new(vec![train.to_vec(); copies].concat());
            let config = FrozenCache { mebibytes, half };
            LayerCache::new(config, train, 0, &encoder, 3).map_or(0, |cache| cache.len())
        };
        assert_eq!(kept(0, false, 1), 0);
        assert_eq!(kept(1, false, 1), 70);
        let (single, half) = (kept(1, false, 1000), kept(1, true, 1000));
        // 3 tokens of 12 numbers in 3 layers, on average.
        assert!((single as i64 - (1 << 20) / (3 * 12 * 3 * 4)).abs() < 10, "{single}");
        assert!((half as i64 - 2 * single as i64).abs() < 10, "{half}");
    }
}
