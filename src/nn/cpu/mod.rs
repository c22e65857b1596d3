//! The identifier decoder on the CPU: what a search steps through where tensors lie in main memory.
//!
//! It computes what [`Decoder::step`](super::Decoder::step) does, from the same weights, with what
//! a search needs in view: rows of any number of beams a query, nothing padded; products that read
//! the same rows (queries, keys and values of the self-attention; the cross-attentions' queries and
//! the gates' halves that meet Y) as one; caches that stay where they were written, found through
//! each row's ancestors. A row's arithmetic does not depend on the rows beside it, so neither do
//! its bits.

mod attention;
mod dense;
mod step;

use burn::tensor::backend::Backend;

pub(crate) use self::step::CpuState;
use self::{
    attention::Context,
    dense::{Dense, Norm, values},
};
use super::{Attention, Decoder, DecoderLayer, EncoderOutput};
use crate::kernels::Matrix;

/// A decoder's weights, laid out for steps on the CPU.
#[derive(Debug)]
pub(crate) struct CpuDecoder {
    d_model: usize,
    n_heads: usize,
    /// `[d_model]`
    start: Vec<f32>,
    /// What a pooled query adds to it.
    query_start: Option<Dense>,
    /// `[levels, d_model]`
    positions: Vec<f32>,
    /// Per level but the last, `[size, d_model]`.
    embeddings: Vec<Vec<f32>>,
    coarse_memory: Option<Dense>,
    layers: Vec<CpuLayer>,
    heads: Vec<Dense>,
}

#[derive(Debug)]
struct CpuLayer {
    /// Scaled queries, keys and values.
    self_attention: Dense,
    self_output: Dense,
    self_norm: Norm,
    /// What reads Y: queries of the plain or coarse attention, queries of the fine one, its gates.
    from_y: Dense,
    plain: Option<Cross>,
    coarse: Option<Coarse>,
    fine: Option<Fine>,
    fusion_norm: Norm,
    inner: Dense,
    outer: Dense,
    feed_forward_norm: Norm,
}

/// A cross-attention without its queries.
#[derive(Debug)]
struct Cross {
    /// Keys, then values.
    key_value: Dense,
    output: Dense,
}

#[derive(Debug)]
struct Coarse {
    attention: Cross,
    gate: Dense,
}

#[derive(Debug)]
struct Fine {
    attention: Cross,
    /// Per expert, `[d_model, d_model]`.
    gate_context: Vec<Matrix>,
}

/// Keys and values of one query for every decoder layer.
#[derive(Debug, Clone)]
pub(crate) struct CpuMemory {
    /// The decoder's start vector for this query, `[d_model]`.
    start: Vec<f32>,
    layers: Vec<Contexts>,
}

/// What a layer attends to.
#[derive(Debug, Clone)]
struct Contexts {
    /// The last encoder layer, or the coarse memory.
    one: Option<Context>,
    /// Each encoder layer.
    experts: Vec<Context>,
}

impl CpuDecoder {
    /// Copies the weights of a decoder, the layers' rounded to 16 bits if `half`
    /// ([`bf16_products`](crate::kernels::bf16_products) must hold).
    pub(crate) fn new<B: Backend>(decoder: &Decoder<B>, half: bool) -> Self {
        let [_, d_model] = decoder.positions.dims();
        let mut made = Self {
            d_model,
            n_heads: decoder.n_heads(),
            start: values(decoder.start.val()),
            query_start: decoder.query_start.as_ref().map(Dense::new),
            positions: values(decoder.positions.val()),
            embeddings: decoder.embeddings.iter().map(|e| values(e.weight.val())).collect(),
            coarse_memory: decoder.coarse_memory.as_ref().map(|c| Dense::new(&c.projection)),
            layers: decoder.layers.iter().map(CpuLayer::new).collect(),
            heads: decoder.heads.iter().map(Dense::new).collect(),
        };
        made.pack(half);
        made
    }

    /// Makes the weights of all products ready, the layers' in 16 bits if `half`.
    fn pack(&mut self, half: bool) {
        self.heads.iter_mut().chain(&mut self.query_start).for_each(|dense| dense.pack(false));
        if let Some(memory) = &mut self.coarse_memory {
            memory.pack(half);
        }
        for layer in &mut self.layers {
            let CpuLayer { self_attention, self_output, from_y, inner, outer, .. } = layer;
            for dense in [self_attention, self_output, from_y, inner, outer] {
                dense.pack(half);
            }
            if let Some(coarse) = &mut layer.coarse {
                coarse.gate.pack(half);
            }
            if let Some(fine) = &mut layer.fine {
                fine.gate_context.iter_mut().for_each(|gates| gates.pack(half));
            }
            let coarse = layer.coarse.as_mut().map(|coarse| &mut coarse.attention);
            let fine = layer.fine.as_mut().map(|fine| &mut fine.attention);
            for cross in layer.plain.iter_mut().chain(coarse).chain(fine) {
                cross.key_value.pack(half);
                cross.output.pack(half);
            }
        }
    }

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
    pub(crate) fn memories<B: Backend>(&self, encoded: &EncoderOutput<B>) -> Vec<CpuMemory> {
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
        let memory = |start: &[f32]| CpuMemory { start: start.to_vec(), layers: Vec::new() };
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

impl CpuLayer {
    fn new<B: Backend>(layer: &DecoderLayer<B>) -> Self {
        let own = &layer.self_attention;
        let mut from_y = Vec::new();
        for attention in layer.plain.iter().chain(layer.coarse.as_ref().map(|c| &c.attention)) {
            from_y.push(queries(attention));
        }
        if let Some(fine) = &layer.fine {
            from_y.extend([queries(&fine.attention), Dense::new(&fine.gate_query)]);
        }
        Self {
            self_attention: Dense::beside(&[
                queries(own),
                Dense::new(&own.key),
                Dense::new(&own.value),
            ]),
            self_output: Dense::new(&own.output),
            self_norm: Norm::new(&layer.self_norm),
            from_y: Dense::beside(&from_y),
            plain: layer.plain.as_ref().map(Cross::new),
            coarse: layer.coarse.as_ref().map(|coarse| Coarse {
                attention: Cross::new(&coarse.attention),
                gate: Dense::new(&coarse.gate),
            }),
            fine: layer.fine.as_ref().map(|fine| {
                let [_, d, _] = fine.gate_context.dims();
                let gates = values(fine.gate_context.val());
                Fine {
                    attention: Cross::new(&fine.attention),
                    gate_context: gates
                        .chunks_exact(d * d)
                        .map(|gates| Matrix::new(gates.to_vec(), d))
                        .collect(),
                }
            }),
            fusion_norm: Norm::new(&layer.fusion_norm),
            inner: Dense::new(&layer.feed_forward.inner),
            outer: Dense::new(&layer.feed_forward.outer),
            feed_forward_norm: Norm::new(&layer.feed_forward_norm),
        }
    }
}

impl Cross {
    fn new<B: Backend>(attention: &Attention<B>) -> Self {
        let key_value = [Dense::new(&attention.key), Dense::new(&attention.value)];
        Self { key_value: Dense::beside(&key_value), output: Dense::new(&attention.output) }
    }
}

/// The queries of an attention, divided by the root of a head's width.
fn queries<B: Backend>(attention: &Attention<B>) -> Dense {
    let queries = Dense::new(&attention.query);
    let d_head = queries.outputs() / attention.n_heads();
    queries.scaled((d_head as f32).sqrt().recip())
}

#[cfg(test)]
mod tests;
