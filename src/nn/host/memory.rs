//! What the decoder reads of queries.

use burn::tensor::backend::Backend;

use super::{HostDecoder, attention::Context, dense::values};
use crate::nn::EncoderOutput;

/// Keys and values of one query for every decoder layer.
#[derive(Debug, Clone)]
pub(crate) struct HostMemory {
    /// The decoder's start vector for this query, `[d_model]`.
    pub(super) start: Vec<f32>,
    pub(super) layers: Vec<Contexts>,
}

/// What a layer attends to.
#[derive(Debug, Clone)]
pub(super) struct Contexts {
    /// The last encoder layer, or the coarse memory.
    pub(super) one: Option<Context>,
    /// Each encoder layer.
    pub(super) experts: Vec<Context>,
}

impl HostDecoder {
    /// The start vector of every query, `[queries, d_model]`.
    fn starts<B: Backend>(&self, encoded: &EncoderOutput<B>, queries: usize) -> Vec<f32> {
        let mut starts = Vec::new();
        match &self.query_start {
            Some(map) => map.apply(&values(encoded.pooled()), &mut starts, true),
            None => starts.resize(queries * self.d_model, 0.0),
        }
        for start in starts.chunks_exact_mut(self.d_model) {
            start.iter_mut().zip(&self.start).for_each(|(value, own)| *value += own);
        }
        starts
    }

    /// Keys and values of every query, of the tokens that are there, on all threads.
    pub(crate) fn memories<B: Backend>(&self, encoded: &EncoderOutput<B>) -> Vec<HostMemory> {
        let [queries, _, _, width] = encoded.bias.dims();
        let hidden = values(encoded.bias.clone());
        let present: Vec<usize> = (0..queries * width).filter(|&at| hidden[at] == 0.0).collect();
        let starts: Vec<usize> =
            (0..=queries).map(|query| present.partition_point(|&at| at < query * width)).collect();
        let layers: Vec<Vec<f32>> = encoded
            .layers
            .iter()
            .map(|layer| {
                let [_, _, d] = layer.dims();
                let all = values(layer.clone());
                present.iter().flat_map(|&at| &all[at * d..(at + 1) * d]).copied().collect()
            })
            .collect();
        let tokens = present.len();
        let d_context = layers.first().map_or(0, |layer| layer.len() / tokens.max(1));
        let coarse = self.coarse_memory.as_ref().map(|projection| {
            let row = |token: usize| {
                let columns = token * d_context..(token + 1) * d_context;
                layers.iter().flat_map(move |layer| layer[columns.clone()].iter().copied())
            };
            let all: Vec<f32> = (0..tokens).flat_map(row).collect();
            let mut memory = Vec::new();
            projection.apply(&all, &mut memory, true);
            memory
        });
        let fine = self.layers.iter().any(|layer| layer.fine.is_some());
        let joined = if fine { layers.concat() } else { Vec::new() };
        let starts_of = self.starts(encoded, queries);
        let memory = |start: &[f32]| HostMemory { start: start.to_vec(), layers: Vec::new() };
        let mut memories: Vec<_> = starts_of.chunks_exact(self.d_model).map(memory).collect();
        let mut rows = Vec::new();
        let width = 2 * self.d_model;
        let context = |rows: &[f32], query: usize, offset: usize| {
            let (from, to) = (offset + starts[query], offset + starts[query + 1]);
            Context::new(&rows[from * width..to * width], self.d_model, self.n_heads)
        };
        for layer in &self.layers {
            let plain = layer.plain.as_ref().zip(layers.last());
            let coarse = layer.coarse.as_ref().map(|coarse| &coarse.attention).zip(coarse.as_ref());
            let one = plain.or(coarse);
            if let Some((attention, input)) = one {
                attention.key_value.apply(input, &mut rows, true);
            }
            for (query, memory) in memories.iter_mut().enumerate() {
                let one = one.map(|_| context(&rows, query, 0));
                memory.layers.push(Contexts { one, experts: Vec::new() });
            }
            if let Some(fine) = &layer.fine {
                fine.attention.key_value.apply(&joined, &mut rows, true);
                for (query, memory) in memories.iter_mut().enumerate() {
                    let experts =
                        (0..layers.len()).map(|expert| context(&rows, query, expert * tokens));
                    memory.layers.last_mut().expect("just pushed").experts = experts.collect();
                }
            }
        }
        memories
    }
}
