//! The identifier decoder in the host's memory: what a search on a CPU steps through.
//!
//! It computes what [`Decoder::step`](super::Decoder::step) does, from the same weights, with what a search
//! needs in view: rows of any number of beams a query, nothing padded; products that read the same rows
//! (queries, keys and values of the self-attention; the cross-attentions' queries and the gates' halves that
//! meet Y) as one; caches that stay where they were written, found through each row's ancestors. A row's
//! arithmetic does not depend on the rows beside it, so neither do its bits.

mod attention;
mod dense;
mod memory;
mod step;

use burn::tensor::backend::Backend;

use self::dense::{Dense, Norm, values};
pub(crate) use self::{memory::HostMemory, step::HostState};
use super::{Attention, Decoder, DecoderLayer};
use crate::kernels::Matrix;

/// A decoder's weights, laid out for steps on the host.
#[derive(Debug)]
pub(crate) struct HostDecoder {
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
    layers: Vec<HostLayer>,
    heads: Vec<Dense>,
}

#[derive(Debug)]
struct HostLayer {
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

impl HostDecoder {
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
            layers: decoder.layers.iter().map(HostLayer::new).collect(),
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
            let HostLayer { self_attention, self_output, from_y, inner, outer, .. } = layer;
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
}

impl HostLayer {
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
mod tests {
    use burn::{
        backend::Flex,
        nn::Linear,
        tensor::{Int, Tensor},
    };

    use super::*;
    use crate::{
        identifier::Vocabulary,
        nn::{DecoderConfig, EncoderOutput, FusionMode, WeightInit},
    };

    type B = Flex;

    fn decoder(fusion: FusionMode, query_start: bool) -> Decoder<B> {
        let config = DecoderConfig {
            vocabulary: Vocabulary::new(vec![4, 5, 3]).unwrap(),
            d_model: 40,
            d_context: 24,
            d_ff: 50,
            n_heads: 2,
            n_layers: 2,
            experts: 3,
            fusion,
            dropout: 0.1,
            query_start,
        };
        let mut made: Decoder<B> = config.init(&mut WeightInit::new(1), &Default::default());
        // Not zeros: as after some training.
        let weight = WeightInit::new(9).normal([24, 40], 0.5, &Default::default());
        made.query_start = made.query_start.map(|map| Linear { weight, ..map });
        made
    }

    /// Three queries, the second padded.
    fn encoded() -> EncoderOutput<B> {
        let device = Default::default();
        let mut hidden = vec![0.0f32; 3 * 18];
        hidden[18 + 5..18 + 18].fill(-3e4);
        EncoderOutput {
            layers: (0..3)
                .map(|layer| WeightInit::new(layer).normal([3, 18, 24], 1.0, &device).val())
                .collect(),
            bias: Tensor::<B, 1>::from_floats(hidden.as_slice(), &device).reshape([3, 1, 1, 18]),
            pooling: Default::default(),
        }
    }

    /// Twin: the decoder itself, with beams of equal number and caches that are copied.
    #[test]
    fn steps_give_what_the_steps_of_the_decoder_give() {
        let device = Default::default();
        let modes = [FusionMode::None, FusionMode::Coarse, FusionMode::Fine, FusionMode::Both];
        for (fusion, query_start) in
            modes.into_iter().flat_map(|mode| [(mode, false), (mode, true)])
        {
            let (decoder, encoded) = (decoder(fusion, query_start), encoded());
            let memory = decoder.memory(&encoded);
            let host = HostDecoder::new(&decoder, false);
            let memories = host.memories(&encoded);
            let (mut state, mut own) = (decoder.start(), host.start());
            let near = |found: Vec<f32>, expected: Tensor<B, 2>| {
                let expected = values(expected);
                assert_eq!(found.len(), expected.len());
                for (found, expected) in found.iter().zip(&expected) {
                    approx::assert_abs_diff_eq!(found, expected, epsilon = 2e-5);
                }
            };
            let found = host.step(&[1, 1, 1], &[], &[], &memories, &mut own, false);
            near(found, decoder.step(3, None, &memory, &mut state));
            for (tokens, parents) in [
                ([1u16, 0, 2, 2, 3, 1], [0u32, 0, 1, 1, 2, 2]),
                ([4, 4, 0, 1, 2, 3], [1, 0, 2, 2, 5, 4]),
            ] {
                let found = host.step(&[2, 2, 2], &tokens, &parents, &memories, &mut own, false);
                state.reorder(&Tensor::from_ints(parents.map(i64::from), &device));
                let tokens = Tensor::<B, 1, Int>::from_ints(tokens.map(i64::from), &device);
                near(found, decoder.step(3, Some(tokens), &memory, &mut state));
            }
        }
    }

    /// Beams of a query get the same bits whatever else is decoded with them.
    #[test]
    fn a_query_is_the_same_to_the_last_bit_in_any_company() {
        let (decoder, encoded) = (decoder(FusionMode::Both, true), encoded());
        let host = HostDecoder::new(&decoder, false);
        let memories = host.memories(&encoded);
        let mut together = host.start();
        let first = host.step(&[1, 1, 1], &[], &[], &memories, &mut together, true);
        let second =
            host.step(&[0, 3, 1], &[1, 0, 2, 2], &[1, 1, 1, 2], &memories, &mut together, true);
        let mut alone = host.start();
        let own = std::slice::from_ref(&memories[1]);
        assert_eq!(first[4..8], host.step(&[1], &[], &[], own, &mut alone, false));
        assert_eq!(second[..15], host.step(&[3], &[1, 0, 2], &[0; 3], own, &mut alone, false));
    }
}
