//! The identifier decoder: self-attention over the tokens so far, fusion with the query, one head
//! per level.

use burn::{
    module::{Module, Param},
    nn::{Embedding, LayerNorm, Linear},
    tensor::{Int, Tensor, backend::Backend},
};

use super::{
    Attention, AttentionConfig, CoarseFusion, Dropout, EncoderOutput, FeedForward,
    FeedForwardConfig, FineFusion, FusionConfig, FusionMode, GatedAttention, KeyValue, SelfCache,
    WeightInit,
    absorbed::{self, Absorbed},
    attention::laid_out,
    causal_bias,
    init::linear_2d,
    text::layer_params,
};
use crate::{identifier::LevelSizes, storage::count};

/// Shape of the decoder.
#[derive(Debug, Clone, PartialEq)]
pub struct DecoderConfig {
    /// Sizes of the identifier's levels.
    pub vocabulary: LevelSizes,
    /// Width of the layers.
    pub d_model: usize,
    /// Width of the encoder's layers.
    pub d_context: usize,
    /// Inner width of the feed-forward blocks.
    pub d_ff: usize,
    /// Number of attention heads.
    pub n_heads: usize,
    /// Number of decoder layers.
    pub n_layers: usize,
    /// Number of encoder layers S.
    pub experts: usize,
    /// Which fusions are on.
    pub fusion: FusionMode,
    /// Dropout of embeddings, probabilities and residual branches.
    pub dropout: f64,
    /// Whether the start vector is the learned one plus a linear map of the pooled query.
    pub query_start: bool,
}

/// One decoder layer (post-norm, as the paper's `FFN(norm(Y + A' + F))`).
#[derive(Module, Debug)]
pub struct DecoderLayer<B: Backend> {
    pub(super) self_attention: Attention<B>,
    pub(super) self_norm: LayerNorm<B>,
    pub(super) plain: Option<Attention<B>>,
    pub(super) coarse: Option<GatedAttention<B>>,
    pub(super) fine: Option<FineFusion<B>>,
    pub(super) fusion_norm: LayerNorm<B>,
    pub(super) feed_forward: FeedForward<B>,
    pub(super) feed_forward_norm: LayerNorm<B>,
    dropout: Dropout,
}

/// Decoder from encoder layers and the tokens so far to the logits of the next level.
///
/// Every level has its own embedding rows (its tokens are symbols of their own) and its own head.
#[derive(Module, Debug)]
pub struct Decoder<B: Backend> {
    pub(super) start: Param<Tensor<B, 2>>,
    /// From a pooled query to what it adds to the start vector.
    pub(super) query_start: Option<Linear<B>>,
    pub(super) embeddings: Vec<Embedding<B>>,
    pub(super) positions: Param<Tensor<B, 2>>,
    pub(super) coarse_memory: Option<CoarseFusion<B>>,
    pub(super) layers: Vec<DecoderLayer<B>>,
    pub(super) heads: Vec<Linear<B>>,
    dropout: Dropout,
}

/// Keys and values of a batch of queries for every decoder layer: computed once, never copied.
#[derive(Debug, Clone)]
pub struct Memory<B: Backend> {
    /// The start vector of each query where it depends on the query, else of all:
    /// `[batch or 1, d_model]`.
    start: Tensor<B, 2>,
    layers: Vec<Fusions<KeyValue<B>>>,
    /// `[batch, 1, 1, tokens]`
    bias: Tensor<B, 4>,
    /// `[S * batch, 1, 1, tokens]`
    expert_bias: Tensor<B, 4>,
}

/// What the fusions attend to: the keys and values of a layer, or [`Absorbed`] for all layers,
/// where keys and values do not pay.
#[derive(Debug, Clone)]
struct Fusions<M> {
    plain: Option<M>,
    coarse: Option<M>,
    fine: Option<M>,
}

/// The biases of a memory laid out for all heads and queries.
struct Biases<B: Backend> {
    /// `[batch, heads, n, tokens]`
    memory: Tensor<B, 4>,
    /// `[S * batch, heads, n, tokens]`
    experts: Tensor<B, 4>,
}

/// Self-attention caches of all beams, one row per beam, beams of a query in consecutive rows.
#[derive(Debug, Clone)]
pub struct DecoderState<B: Backend> {
    caches: Vec<SelfCache<B>>,
    level: usize,
}

impl DecoderConfig {
    /// Initialises a decoder.
    pub fn init<B: Backend>(&self, init: &mut WeightInit, device: &B::Device) -> Decoder<B> {
        let levels = self.vocabulary.levels();
        let d = self.d_model;
        Decoder {
            start: init.normal([1, d], 0.02, device),
            // Of zeros, so that the decoder starts as it would without.
            query_start: self.query_start.then(|| Linear {
                weight: Param::from_tensor(Tensor::zeros([self.d_context, d], device)),
                bias: None,
            }),
            embeddings: (0..levels - 1)
                .map(|level| init.embedding(self.vocabulary.size(level), d, device))
                .collect(),
            positions: init.normal([levels, d], 0.02, device),
            coarse_memory: self.fusion.coarse().then(|| self.fusion().init_coarse(init, device)),
            layers: (0..self.n_layers).map(|_| self.init_layer(init, device)).collect(),
            heads: (0..levels)
                .map(|level| init.linear(d, self.vocabulary.size(level), device))
                .collect(),
            dropout: Dropout::new(self.dropout),
        }
    }

    fn fusion(&self) -> FusionConfig {
        FusionConfig {
            d_model: self.d_model,
            d_context: self.d_context,
            experts: self.experts,
            n_heads: self.n_heads,
            dropout: self.dropout,
        }
    }

    fn init_layer<B: Backend>(&self, init: &mut WeightInit, device: &B::Device) -> DecoderLayer<B> {
        let (d, fusion) = (self.d_model, self.fusion());
        let attention = AttentionConfig::new(d, self.n_heads, self.dropout);
        let plain = AttentionConfig { d_context: self.d_context, ..attention.clone() };
        DecoderLayer {
            self_attention: attention.init(init, device),
            self_norm: init.layer_norm(d, device),
            plain: (self.fusion == FusionMode::None).then(|| plain.init(init, device)),
            coarse: self.fusion.coarse().then(|| fusion.init_gated(init, device)),
            fine: self.fusion.fine().then(|| fusion.init_fine(init, device)),
            fusion_norm: init.layer_norm(d, device),
            feed_forward: FeedForwardConfig {
                dropout: self.dropout,
                ..FeedForwardConfig::new(d, self.d_ff)
            }
            .init(init, device),
            feed_forward_norm: init.layer_norm(d, device),
            dropout: Dropout::new(self.dropout),
        }
    }

    /// Parameters of all fusion blocks (cross-attentions, gates, the coarse projection).
    pub fn fusion_params(&self) -> usize {
        let (d, c, s) = (self.d_model, self.d_context, self.experts);
        let attention = |context: usize| count(&[&[2, d, d], &[2, context, d], &[4, d]]);
        let per_layer = match self.fusion {
            FusionMode::None => attention(c),
            mode => {
                let coarse = count(&[&[attention(d)], &[d, d], &[d]]);
                let fine = count(&[&[attention(c)], &[2, s, d, d], &[s, d]]);
                count(&[&[usize::from(mode.coarse()), coarse], &[usize::from(mode.fine()), fine]])
            }
        };
        let coarse = usize::from(self.fusion.coarse());
        count(&[&[coarse, s, c, d], &[coarse, d], &[self.n_layers, per_layer]])
    }

    /// Parameters of the level embeddings and heads.
    pub fn vocabulary_params(&self) -> usize {
        let d = self.d_model;
        let sizes = self.vocabulary.sizes();
        let embedded: usize = sizes[..sizes.len() - 1].iter().sum();
        let headed: usize = sizes.iter().sum();
        count(&[&[embedded, d], &[headed, d], &[headed]])
    }

    /// Number of parameters.
    pub fn num_params(&self) -> usize {
        let d = self.d_model;
        // A norm more than a layer of an encoder has.
        let own = count(&[&[layer_params(d, self.d_ff)], &[2, d]]);
        count(&[
            &[self.vocabulary.levels() + 1, d],
            &[usize::from(self.query_start), self.d_context, d],
            &[self.n_layers, own],
            &[self.fusion_params()],
            &[self.vocabulary_params()],
        ])
    }
}

impl<B: Backend> DecoderLayer<B> {
    fn memory(
        &self,
        encoded: &EncoderOutput<B>,
        coarse: Option<&Tensor<B, 3>>,
    ) -> Fusions<KeyValue<B>> {
        let last = encoded.layers.last().expect("an encoder has layers");
        Fusions {
            plain: self.plain.as_ref().map(|attention| attention.key_value(last.clone())),
            coarse: (self.coarse.as_ref().zip(coarse))
                .map(|(gated, memory)| gated.key_value(memory.clone())),
            fine: self.fine.as_ref().map(|fine| fine.key_value(encoded)),
        }
    }

    /// From the residual sum after self-attention to the layer's output, `[batch, n, d_model]`,
    /// with contexts whose keys and values are not made.
    fn fuse_absorbed(&self, sum: Tensor<B, 3>, memory: &Fusions<Absorbed<B>>) -> Tensor<B, 3> {
        let y = self.self_norm.forward(sum);
        let mut fused = y.clone();
        if let Some((attention, context)) = self.plain.as_ref().zip(memory.plain.as_ref()) {
            let attended = attention.forward_absorbed(y.clone(), context);
            fused = fused + self.dropout.forward(attended);
        }
        if let Some((coarse, context)) = self.coarse.as_ref().zip(memory.coarse.as_ref()) {
            let gated = coarse.forward_absorbed(y.clone(), context);
            fused = fused + self.dropout.forward(gated);
        }
        if let Some((fine, context)) = self.fine.as_ref().zip(memory.fine.as_ref()) {
            let experts = fine.forward_absorbed(y, context);
            fused = fused + self.dropout.forward(experts);
        }
        self.finish(fused)
    }

    /// From the residual sum after self-attention to the layer's output, `[batch, n, d_model]`.
    fn fuse(
        &self,
        sum: Tensor<B, 3>,
        own: &Fusions<KeyValue<B>>,
        biases: &Biases<B>,
    ) -> Tensor<B, 3> {
        let y = self.self_norm.forward(sum);
        let mut fused = y.clone();
        if let Some((attention, context)) = self.plain.as_ref().zip(own.plain.as_ref()) {
            let attended = attention.forward(y.clone(), context, Some(&biases.memory));
            fused = fused + self.dropout.forward(attended);
        }
        if let Some((coarse, context)) = self.coarse.as_ref().zip(own.coarse.as_ref()) {
            let gated = coarse.forward(y.clone(), context, &biases.memory);
            fused = fused + self.dropout.forward(gated);
        }
        if let Some((fine, context)) = self.fine.as_ref().zip(own.fine.as_ref()) {
            let experts = fine.forward(y, context, &biases.experts);
            fused = fused + self.dropout.forward(experts);
        }
        self.finish(fused)
    }

    /// Norm, feed-forward block and its norm.
    fn finish(&self, fused: Tensor<B, 3>) -> Tensor<B, 3> {
        let hidden = self.fusion_norm.forward(fused);
        let out = self.dropout.forward(self.feed_forward.forward(hidden.clone()));
        self.feed_forward_norm.forward(hidden + out)
    }
}

impl<B: Backend> Decoder<B> {
    /// Prepares the keys and values of encoded queries for all layers.
    pub fn memory(&self, encoded: &EncoderOutput<B>) -> Memory<B> {
        let coarse = self.coarse_memory.as_ref().map(|coarse| coarse.forward(encoded));
        Memory {
            start: self.start_of(encoded),
            layers: self.layers.iter().map(|l| l.memory(encoded, coarse.as_ref())).collect(),
            bias: encoded.bias.clone(),
            expert_bias: encoded.bias.clone().repeat_dim(0, encoded.layers.len()),
        }
    }

    /// The start vector of each query where it depends on the query, else of all,
    /// `[batch or 1, d_model]`.
    fn start_of(&self, encoded: &EncoderOutput<B>) -> Tensor<B, 2> {
        let start = self.start.val();
        match &self.query_start {
            Some(map) => {
                let added = linear_2d(map, encoded.pooled());
                let [batch, _] = added.dims();
                added + start.repeat_dim(0, batch)
            }
            None => start,
        }
    }

    /// Contexts for `n` positions per query, without keys and values.
    fn absorbed_memory(&self, encoded: &EncoderOutput<B>, n: usize) -> Fusions<Absorbed<B>> {
        let heads = self.n_heads();
        let fold = |layers| Absorbed::new(layers, &encoded.bias, heads, n);
        let some = |has: fn(&DecoderLayer<B>) -> bool| self.layers.first().is_some_and(has);
        let last = encoded.layers.last().expect("an encoder has layers");
        Fusions {
            plain: some(|layer| layer.plain.is_some()).then(|| fold(vec![last.clone()])),
            coarse: self.coarse_memory.as_ref().map(|coarse| fold(vec![coarse.forward(encoded)])),
            fine: some(|layer| layer.fine.is_some()).then(|| fold(encoded.layers.clone())),
        }
    }

    /// Number of tokens of every level.
    pub fn level_sizes(&self) -> Vec<usize> {
        self.heads.iter().map(|head| head.weight.dims()[1]).collect()
    }

    /// The decoder with heads of zeros: all its logits are 0 until it is trained.
    pub fn without_opinion(self) -> Self {
        // New parameters: mapped ones would take over from the zeros that they need no gradient.
        let zeroed = |head: Linear<B>| Linear {
            weight: Param::from_tensor(head.weight.val().zeros_like()),
            bias: head.bias.map(|bias| Param::from_tensor(bias.val().zeros_like())),
        };
        Self { heads: self.heads.into_iter().map(zeroed).collect(), ..self }
    }

    pub(super) fn n_heads(&self) -> usize {
        self.layers.first().map_or(1, |layer| layer.self_attention.n_heads())
    }

    /// Logits of every level, teacher forced.
    ///
    /// # Shapes
    /// - `identifiers`: `[batch, levels]`
    /// - returns: one `[batch, size of the level]` per level
    pub fn forward(
        &self,
        identifiers: Tensor<B, 2, Int>,
        encoded: &EncoderOutput<B>,
    ) -> Vec<Tensor<B, 2>> {
        let [_, levels] = identifiers.dims();
        let [_, _, _, tokens] = encoded.bias.dims();
        let [_, _, d_context] = encoded.layers[0].dims();
        let d = self.positions.dims()[1];
        if absorbed::is_cheaper(levels, tokens, d, d_context, self.n_heads()) {
            let memory = self.absorbed_memory(encoded, levels);
            let start = self.start_of(encoded);
            self.forward_with(identifiers, start, |layer, _, sum| layer.fuse_absorbed(sum, &memory))
        } else {
            let memory = self.memory(encoded);
            let biases = self.biases(&memory, levels);
            self.forward_with(identifiers, memory.start.clone(), |layer, at, sum| {
                layer.fuse(sum, &memory.layers[at], &biases)
            })
        }
    }

    /// The decoder around a way to fuse, given the layer, its number and the residual sum.
    fn forward_with(
        &self,
        identifiers: Tensor<B, 2, Int>,
        start: Tensor<B, 2>,
        fuse: impl Fn(&DecoderLayer<B>, usize, Tensor<B, 3>) -> Tensor<B, 3>,
    ) -> Vec<Tensor<B, 2>> {
        let [batch, levels] = identifiers.dims();
        let device = identifiers.device();
        let d = self.positions.dims()[1];
        let mut inputs = vec![for_all(start, batch).reshape([batch, 1, d])];
        for (level, embedding) in self.embeddings.iter().enumerate() {
            inputs.push(embedding.forward(identifiers.clone().narrow(1, level, 1)));
        }
        let positions = self.positions.val().unsqueeze::<3>();
        let mut x = self.dropout.forward(Tensor::cat(inputs, 1) + positions);
        let causal = causal_bias(levels, &device);
        for (at, layer) in self.layers.iter().enumerate() {
            let context = layer.self_attention.key_value(x.clone());
            let attended = layer.self_attention.forward(x.clone(), &context, Some(&causal));
            x = fuse(layer, at, x + layer.dropout.forward(attended));
        }
        self.heads
            .iter()
            .enumerate()
            .map(|(level, head)| linear_2d(head, x.clone().narrow(1, level, 1).reshape([batch, d])))
            .collect()
    }

    fn biases(&self, memory: &Memory<B>, n: usize) -> Biases<B> {
        let heads = self.n_heads();
        let fine = self.layers.first().is_some_and(|layer| layer.fine.is_some());
        let experts =
            if fine { laid_out(&memory.expert_bias, heads, n) } else { memory.expert_bias.clone() };
        Biases { memory: laid_out(&memory.bias, heads, n), experts }
    }

    /// The device that its parameters are on.
    pub(crate) fn device(&self) -> B::Device {
        self.start.val().device()
    }

    /// The state before the first token.
    pub fn start(&self) -> DecoderState<B> {
        DecoderState { caches: vec![SelfCache::default(); self.layers.len()], level: 0 }
    }

    /// Logits of the next level for every beam.
    ///
    /// Beams are query positions of the cross-attentions, so the memory is shared by them; only the
    /// self-attention caches follow the beams.
    ///
    /// # Shapes
    /// - `tokens`, the token each beam took last (none at the first level): `[queries * width]`
    /// - returns: `[queries * width, size of the level]`
    ///
    /// # Panics
    /// After the last level, or when `tokens` is absent after the first.
    pub fn step(
        &self,
        queries: usize,
        tokens: Option<Tensor<B, 1, Int>>,
        memory: &Memory<B>,
        state: &mut DecoderState<B>,
    ) -> Tensor<B, 2> {
        let level = state.level;
        let d = self.positions.dims()[1];
        let position = self.positions.val().narrow(0, level, 1);
        let input = match (level, tokens) {
            (0, _) => for_all(memory.start.clone(), queries),
            (_, Some(tokens)) => {
                let [rows] = tokens.dims();
                self.embeddings[level - 1].forward(tokens.reshape([1, rows])).reshape([rows, d])
            }
            (_, None) => panic!("every level after the first needs the tokens before it"),
        };
        let [rows, _] = input.dims();
        let width = rows / queries;
        let mut x = (input + position).reshape([rows, 1, d]);
        let biases = self.biases(memory, width);
        for ((layer, own), cache) in self.layers.iter().zip(&memory.layers).zip(&mut state.caches) {
            let attended = layer.self_attention.forward_cached(x.clone(), cache);
            let sum = (x + attended).reshape([queries, width, d]);
            x = layer.fuse(sum, own, &biases).reshape([rows, 1, d]);
        }
        state.level += 1;
        self.heads[level].forward(x.reshape([rows, d]))
    }
}

/// One start vector for each query: the one for all of them, or their own.
fn for_all<B: Backend>(start: Tensor<B, 2>, queries: usize) -> Tensor<B, 2> {
    match start.dims() {
        [1, _] => start.repeat_dim(0, queries),
        _ => start,
    }
}

impl<B: Backend> DecoderState<B> {
    /// Whether no step was made yet.
    pub fn is_first(&self) -> bool {
        self.level == 0
    }

    /// Makes beam i continue what beam `parents[i]` was; the number of beams may change.
    ///
    /// # Shapes
    /// - `parents`, rows of the previous step: `[queries * width]`
    pub fn reorder(&mut self, parents: &Tensor<B, 1, Int>) {
        for cache in &mut self.caches {
            cache.reorder(parents);
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::{backend::Flex, tensor::Tolerance};

    use super::*;

    type B = Flex;

    fn config(fusion: FusionMode) -> DecoderConfig {
        DecoderConfig {
            vocabulary: LevelSizes::new(vec![4, 5, 3]).unwrap(),
            d_model: 8,
            d_context: 6,
            d_ff: 12,
            n_heads: 2,
            n_layers: 2,
            experts: 3,
            fusion,
            dropout: 0.1,
            query_start: false,
        }
    }

    fn encoded(queries: usize, tokens: usize) -> EncoderOutput<B> {
        let device = Default::default();
        EncoderOutput {
            layers: (0..3)
                .map(|layer| {
                    WeightInit::new(layer).normal([queries, tokens, 6], 1.0, &device).val()
                })
                .collect(),
            bias: Tensor::zeros([queries, 1, 1, tokens], &device),
            pooling: Default::default(),
        }
    }

    /// With a map from the query that is not zero, where there is one.
    fn decoder(fusion: FusionMode, query_start: bool) -> Decoder<B> {
        let config = DecoderConfig { query_start, ..config(fusion) };
        let made: Decoder<B> = config.init(&mut WeightInit::new(1), &Default::default());
        let weight = WeightInit::new(7).normal([6, 8], 1.0, &Default::default());
        Decoder { query_start: made.query_start.map(|map| Linear { weight, ..map }), ..made }
    }

    #[test]
    fn a_start_from_the_query_begins_as_without_and_is_learned() {
        type A = burn::backend::Autodiff<Flex>;
        let device = Default::default();
        let ids = [[1, 4, 0], [3, 4, 2]];
        let mut logits = Vec::new();
        for query_start in [false, true] {
            let config = DecoderConfig { query_start, ..config(FusionMode::Both) };
            let made: Decoder<B> = config.init(&mut WeightInit::new(1), &device);
            logits.push(made.forward(Tensor::from_ints(ids, &device), &encoded(2, 4)));
        }
        for (without, with) in logits[0].iter().zip(&logits[1]) {
            assert_eq!(without.to_data(), with.to_data());
        }
        let changed = decoder(FusionMode::Both, true);
        let changed = changed.forward(Tensor::from_ints(ids, &device), &encoded(2, 4));
        assert_ne!(changed[0].to_data(), logits[0][0].to_data());
        let config = DecoderConfig { query_start: true, ..config(FusionMode::Both) };
        let learner: Decoder<A> = config.init(&mut WeightInit::new(1), &device);
        let EncoderOutput { layers, bias, pooling } = encoded(2, 4);
        let layers = layers.into_iter().map(Tensor::from_inner).collect();
        let encoded = EncoderOutput { layers, bias: Tensor::from_inner(bias), pooling };
        let logits = learner.forward(Tensor::from_ints(ids, &device), &encoded);
        let grads = logits[0].clone().narrow(1, 0, 1).sum().backward();
        let map = learner.query_start.as_ref().unwrap().weight.val();
        assert!(map.grad(&grads).unwrap().abs().sum().into_scalar() > 1e-3);
    }

    /// Its logits are all 0, and one step of training makes them others.
    #[test]
    fn without_an_opinion_it_says_nothing_and_learns() {
        type A = burn::backend::Autodiff<Flex>;
        let device = Default::default();
        let decoder: Decoder<A> = config(FusionMode::Both).init(&mut WeightInit::new(1), &device);
        let decoder = decoder.without_opinion();
        let EncoderOutput { layers, bias, pooling } = encoded(2, 4);
        let layers = layers.into_iter().map(Tensor::from_inner).collect();
        let encoded = EncoderOutput { layers, bias: Tensor::from_inner(bias), pooling };
        let ids = Tensor::from_ints([[1, 4, 0], [3, 4, 2]], &device);
        let logits = decoder.forward(ids, &encoded);
        let zeros = |logits: &Tensor<A, 2>| logits.clone().abs().sum().into_scalar() == 0.0;
        assert!(logits.iter().all(zeros));
        let first = logits.into_iter().map(|level| level.narrow(1, 0, 1).sum()).collect();
        let grads = Tensor::cat(first, 0).sum().backward();
        for head in &decoder.heads {
            let weight = head.weight.val().grad(&grads).expect("heads are trained");
            let bias = head.bias.as_ref().unwrap().val().grad(&grads).expect("so are biases");
            assert!(weight.abs().sum().into_scalar() > 0.1 && bias.sum().into_scalar() > 0.1);
        }
    }

    #[test]
    fn stepping_with_reordered_caches_gives_what_the_whole_forward_gives() {
        let device = Default::default();
        let modes = [FusionMode::None, FusionMode::Coarse, FusionMode::Fine, FusionMode::Both];
        // With few tokens the forward makes keys and values, with many it does not.
        let cases = modes.into_iter().flat_map(|mode| [(mode, 2), (mode, 20)]);
        for (fusion, tokens) in cases.chain([(FusionMode::Both, 3), (FusionMode::Both, 21)]) {
            let query_start = tokens % 2 == 1;
            let decoder = decoder(fusion, query_start);
            let encoded = encoded(2, tokens);
            let memory = decoder.memory(&encoded);
            // Two queries with two beams each, which swap parents on the way.
            let ids = [[1, 4, 0], [3, 4, 2], [0, 2, 1], [0, 3, 2]];
            let mut state = decoder.start();
            let mut logits = vec![decoder.step(2, None, &memory, &mut state)];
            for (parents, level) in [([0, 0, 1, 1], 0), ([1, 0, 2, 3], 1)] {
                state.reorder(&Tensor::from_ints(parents, &device));
                let beams = if level == 0 {
                    // Before the swap, beams 0 and 1 hold each other's first token.
                    [ids[1][0], ids[0][0], ids[2][0], ids[3][0]]
                } else {
                    ids.map(|row| row[1])
                };
                let tokens = Tensor::<B, 1, Int>::from_ints(beams, &device);
                logits.push(decoder.step(2, Some(tokens), &memory, &mut state));
            }
            let two_each = EncoderOutput {
                layers: encoded
                    .layers
                    .iter()
                    .map(|l| l.clone().select(0, Tensor::from_ints([0, 0, 1, 1], &device)))
                    .collect(),
                bias: Tensor::zeros([4, 1, 1, tokens], &device),
                pooling: Default::default(),
            };
            let whole = decoder.forward(Tensor::from_ints(ids, &device), &two_each);
            let first = whole[0].clone().select(0, Tensor::from_ints([0, 2], &device));
            let close = |a: Tensor<B, 2>, b: Tensor<B, 2>| {
                a.into_data().assert_approx_eq::<f32>(&b.into_data(), Tolerance::absolute(2e-5));
            };
            close(logits[0].clone(), first);
            let unswapped = whole[1].clone().select(0, Tensor::from_ints([1, 0, 2, 3], &device));
            close(logits[1].clone(), unswapped);
            close(logits[2].clone(), whole[2].clone());
        }
    }

    #[test]
    fn the_configuration_counts_its_parameters() {
        for fusion in [FusionMode::None, FusionMode::Coarse, FusionMode::Fine, FusionMode::Both] {
            for query_start in [false, true] {
                let config = DecoderConfig { query_start, ..config(fusion) };
                let decoder = decoder(fusion, query_start);
                assert_eq!(decoder.num_params(), config.num_params(), "{fusion:?}");
            }
        }
    }

    #[test]
    fn every_fusion_reads_the_query() {
        let device = Default::default();
        for fusion in [FusionMode::None, FusionMode::Coarse, FusionMode::Fine, FusionMode::Both] {
            let decoder: Decoder<B> = config(fusion).init(&mut WeightInit::new(1), &device);
            let ids = Tensor::<B, 2, Int>::from_ints([[1, 1, 1], [1, 1, 1]], &device);
            let logits = decoder.forward(ids, &encoded(2, 4));
            let rows: Vec<f32> = logits[2].to_data().to_vec().unwrap();
            assert!((rows[0] - rows[3]).abs() > 1e-6, "{fusion:?}");
        }
    }
}
