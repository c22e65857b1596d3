//! Computations on fixed weights and inputs. Weights are drawn on the host from a seed, so they are
//! the same on every backend; dropout is off, since backends draw different masks.

use burn::{
    module::AutodiffModule,
    nn::LayerNormConfig,
    optim::{GradientsParams, Optimizer},
    tensor::{
        Bool, IndexingUpdateOp, Int, Tensor, TensorData, activation,
        backend::{AutodiffBackend, Backend},
    },
};
use cart_baselines::{DualTowerConfig, TowerData, TowerStart};
use cart_procedural::{Scenes, ScenesConfig};
use cart_retrieval::{
    backend::LocalBackend,
    cancel::{Monitor, StopFlag},
    expert::TextEncoderConfig,
    expert::{
        Activation, Attention, AttentionConfig, BertConfig, CartOptimizer, ClipTextConfig, Codes,
        DeviceSearch, Dropout, EncoderOutput, Engine, FusionConfig, GuideBatch, GuideSource,
        LeaveOneOut, LexicalHead, Pooling, PrefixStats, QueryBatch, RqVaeEvent,
        ScratchEncoderConfig, SearchSpace, SelfCache, T5Config, TargetBatch, Trie, WeightInit,
        assign_unique, causal_bias, gelu, padding_bias,
    },
    identifier::LevelSizes,
    model::Cart,
    nn::{AlignmentConfig, TextEncoder},
    prelude::*,
    quantizer::{Codebooks, KMeansConfig, RqVaeConfig},
    train::{Freeze, Precision},
};

use crate::outcome::Outcome;
pub use crate::{
    frozen::{gradients_with_frozen_parts, steps_with_frozen_parts, tuned_encoder},
    towers::media_towers,
};

/// Numbers in (-1, 1) that look random and are the same everywhere.
pub fn noise(count: usize, seed: usize) -> Vec<f32> {
    (0..count)
        .map(|i| {
            let x = ((i * 2654435761 + seed * 40503 + 12345) % 1000003) as f64 / 1000003.0;
            ((x * 157.31).sin() * 43758.5453).fract() as f32
        })
        .collect()
}

pub fn random<B: Backend, const D: usize>(
    shape: [usize; D],
    seed: usize,
    device: &B::Device,
) -> Tensor<B, D> {
    let count = shape.iter().product();
    Tensor::from_data(TensorData::new(noise(count, seed), shape), device)
}

/// A scalar that weighs every entry of a tensor differently, so that no gradient is lost in a sum.
pub fn weighed<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Tensor<B, 1> {
    let weights = random::<B, D>(tensor.dims(), 99, &tensor.device());
    (tensor * weights).sum()
}

/// `[3, 7]`, with two, zero and four tokens of padding at the end.
pub fn padding<B: Backend>(device: &B::Device) -> Tensor<B, 2, Bool> {
    let rows: Vec<bool> = [5, 7, 3].iter().flat_map(|&n| (0..7).map(move |at| at >= n)).collect();
    Tensor::from_data(TensorData::new(rows, [3, 7]), device)
}

pub fn tokens<B: Backend>(device: &B::Device, vocabulary: usize) -> Tensor<B, 2, Int> {
    let ids: Vec<i64> = (0..21).map(|i| ((i * 37 + 5) % vocabulary) as i64).collect();
    Tensor::from_data(TensorData::new(ids, [3, 7]), device)
}

/// What the modules are made of, one by one: where a module differs, this tells why.
pub fn operations<B: AutodiffBackend>(device: &B::Device) -> Outcome {
    let mut out = Outcome::default();
    type Operation<B> = fn(Tensor<B, 3>) -> Tensor<B, 3>;
    let operations: [(&str, Operation<B>); 25] = [
        ("exp", |x| x.exp()),
        ("log", |x| x.abs().add_scalar(0.1).log()),
        ("sqrt", |x| x.abs().add_scalar(0.1).sqrt()),
        ("square", |x| x.square()),
        ("recip", |x| x.abs().add_scalar(0.1).recip()),
        ("sigmoid", activation::sigmoid),
        ("tanh", |x| x.tanh()),
        ("erf", |x| x.erf()),
        ("relu", activation::relu),
        ("gelu", gelu),
        ("softmax", |x| activation::softmax(x, 2)),
        ("log_softmax", |x| activation::log_softmax(x, 2)),
        ("sum", |x| x.sum_dim(2)),
        ("sum of a middle dimension", |x| x.sum_dim(1)),
        ("mean", |x| x.mean_dim(2)),
        ("matmul", |x| x.clone().matmul(x.swap_dims(1, 2))),
        ("matmul with one matrix", |x| {
            let [_, _, d] = x.dims();
            let y = random::<B, 2>([d, 17], 98, &x.device());
            x.matmul(y.unsqueeze())
        }),
        ("matmul with one column", |x| {
            let ([_, _, d], device) = (x.dims(), x.device());
            activation::relu(x).matmul(random::<B, 2>([d, 1], 97, &device).unsqueeze()).tanh()
        }),
        ("gather along a dimension of one", |x| {
            let rows = x.narrow(1, 0, 1).swap_dims(0, 1);
            let at = Tensor::<B, 3, Int>::from_ints([[[7], [0], [31]]], &rows.device());
            rows.gather(2, at)
        }),
        ("scatter along a dimension of one", |x| {
            let rows = x.clone().narrow(1, 0, 1).swap_dims(0, 1);
            let at = Tensor::<B, 3, Int>::from_ints([[[7], [0], [31]]], &rows.device());
            rows.scatter(
                2,
                at,
                x.narrow(2, 0, 1).narrow(1, 1, 1).swap_dims(0, 1),
                IndexingUpdateOp::Add,
            )
        }),
        ("broadcast", |x| {
            let y = x.clone().narrow(0, 0, 1).narrow(1, 0, 1);
            x * y
        }),
        ("cat", |x| Tensor::cat(vec![x.clone(), x.clone().neg(), x], 1)),
        ("select", |x| x.clone().select(1, Tensor::from_ints([2, 0, 2], &x.device()))),
        ("slice", |x| x.narrow(1, 1, 3).permute([2, 0, 1])),
        ("layer norm", |x| {
            let [_, _, d] = x.dims();
            LayerNormConfig::new(d).init(&x.device()).forward(x)
        }),
    ];
    for (name, operation) in operations {
        let x = random::<B, 3>([3, 7, 48], 1, device).mul_scalar(2.5).require_grad();
        let y = operation(x.clone());
        out.tensor(name, y.clone());
        let grads = weighed(y).backward();
        out.tensor(&format!("gradient_of_{name}"), x.grad(&grads).unwrap());
    }
    // One operation each: five roundings of the largest sum.
    out.with_tolerance(2e-6)
}

pub fn attention<B: AutodiffBackend>(device: &B::Device) -> Outcome {
    let mut out = Outcome::default();
    let attention: Attention<B> =
        AttentionConfig::new(24, 4, 0.0).init(&mut WeightInit::new(1), device);
    let x = random::<B, 3>([3, 7, 24], 2, device).require_grad();
    let context = attention.key_value(x.clone());
    let bias = padding_bias(padding::<B>(device)) + causal_bias(7, device);
    let output = attention.forward(x.clone(), &context, Some(&bias));
    out.tensor("output", output.clone());
    let loss = weighed(output);
    let grads = loss.clone().backward();
    out.tensor("gradient of the input", x.grad(&grads).unwrap());
    out.gradients(&attention, weighed(attention.forward(x.clone(), &context, Some(&bias))));
    out
}

pub fn attention_to_a_narrower_context<B: AutodiffBackend>(device: &B::Device) -> Outcome {
    let mut out = Outcome::default();
    let attention: Attention<B> =
        AttentionConfig { d_model: 24, d_context: 10, n_heads: 3, dropout: 0.0 }
            .init(&mut WeightInit::new(2), device);
    let context = random::<B, 3>([3, 7, 10], 3, device).require_grad();
    let queries = random::<B, 3>([3, 4, 24], 4, device).require_grad();
    let bias = padding_bias(padding::<B>(device));
    let forward =
        || attention.forward(queries.clone(), &attention.key_value(context.clone()), Some(&bias));
    out.tensor("output", forward());
    let grads = weighed(forward()).backward();
    out.tensor("gradient of the queries", queries.grad(&grads).unwrap());
    out.tensor("gradient of the context", context.grad(&grads).unwrap());
    out.gradients(&attention, weighed(forward()));
    out
}

pub fn cached_attention<B: AutodiffBackend>(device: &B::Device) -> Outcome {
    let mut out = Outcome::default();
    let attention: Attention<B> =
        AttentionConfig::new(16, 2, 0.0).init(&mut WeightInit::new(3), device);
    let x = random::<B, 3>([3, 4, 16], 5, device);
    let mut cache = SelfCache::default();
    for step in 0..3 {
        let token = x.clone().narrow(1, step, 1);
        out.tensor(&format!("step {step}"), attention.forward_cached(token, &mut cache));
    }
    cache.reorder(&Tensor::from_ints([2, 0, 2], device));
    let token = x.narrow(1, 3, 1);
    out.tensor("after reordering", attention.forward_cached(token, &mut cache));
    out
}

pub fn encoder_config() -> ScratchEncoderConfig {
    ScratchEncoderConfig {
        vocabulary: 50,
        max_tokens: 8,
        d_model: 24,
        d_ff: 40,
        n_heads: 4,
        n_layers: 3,
        dropout: 0.0,
    }
}

pub fn text_encoder<B: AutodiffBackend>(device: &B::Device) -> Outcome {
    let mut out = Outcome::default();
    let encoder = TextEncoder::Scratch(encoder_config().init::<B>(&mut WeightInit::new(4), device));
    let encoded = encoder.forward(tokens(device, 50), padding(device));
    for (layer, output) in encoded.layers.iter().enumerate() {
        out.tensor(&format!("layer {layer}"), output.clone());
    }
    out.tensor("pooled", encoded.mean_pooled());
    let losses = encoded.layers.into_iter().map(weighed);
    out.gradients(&encoder, losses.reduce(|a, b| a + b).unwrap());
    out
}

/// Encoders of the families of pretrained models, with weights from a seed.
pub fn encoders_of_other_families<B: AutodiffBackend>(device: &B::Device) -> Outcome {
    let bert = BertConfig {
        vocabulary: 50,
        positions: 10,
        first_position: 2,
        token_types: 1,
        d_model: 24,
        d_ff: 40,
        n_heads: 4,
        n_layers: 2,
        activation: Activation::Gelu,
        norm_epsilon: 1e-12,
        dropout: 0.0,
        attention_dropout: 0.0,
        pooling: Pooling::First,
    };
    let t5 = T5Config {
        vocabulary: 50,
        max_tokens: 8,
        d_model: 24,
        d_kv: 10,
        d_ff: 40,
        n_heads: 4,
        n_layers: 2,
        buckets: 8,
        max_distance: 6,
        activation: Activation::GeluTanh,
        gated: true,
        norm_epsilon: 1e-6,
        dropout: 0.0,
        pooling: Pooling::Mean,
    };
    let clip = ClipTextConfig {
        vocabulary: 50,
        max_tokens: 8,
        d_model: 24,
        d_ff: 40,
        n_heads: 4,
        n_layers: 2,
        activation: Activation::QuickGelu,
        norm_epsilon: 1e-5,
        dropout: 0.0,
        attention_dropout: 0.0,
        pooling: Pooling::Last,
    };
    let mut out = Outcome::default();
    for config in [TextEncoderConfig::from(bert), t5.into(), clip.into()] {
        let encoder = config.init::<B>(&mut WeightInit::new(6), device);
        let encoded = encoder.forward(tokens(device, 50), padding(device));
        for (layer, output) in encoded.layers.iter().enumerate() {
            out.tensor(&format!("{} layer {layer}", encoder.family()), output.clone());
        }
        out.tensor(&format!("{} pooled", encoder.family()), encoded.pooled());
        let losses = encoded.layers.into_iter().map(weighed);
        out.gradients(&encoder, losses.reduce(|a, b| a + b).unwrap());
    }
    out
}

fn fusion_config() -> FusionConfig {
    FusionConfig { d_model: 24, d_context: 16, experts: 3, n_heads: 4, dropout: 0.0 }
}

fn encoded<B: Backend>(device: &B::Device) -> EncoderOutput<B> {
    EncoderOutput {
        layers: (0..3).map(|layer| random([3, 7, 16], 10 + layer, device)).collect(),
        bias: padding_bias(padding(device)),
        pooling: Pooling::Mean,
    }
}

pub fn coarse_fusion<B: AutodiffBackend>(device: &B::Device) -> Outcome {
    let mut out = Outcome::default();
    let fusion = fusion_config().init_coarse::<B>(&mut WeightInit::new(5), device);
    let memory = fusion.forward(&encoded(device));
    out.tensor("memory", memory.clone());
    out.gradients(&fusion, weighed(memory));
    out
}

pub fn gated_attention<B: AutodiffBackend>(device: &B::Device) -> Outcome {
    let mut out = Outcome::default();
    let gated = fusion_config().init_gated::<B>(&mut WeightInit::new(6), device);
    let memory = gated.key_value(random([3, 7, 24], 14, device));
    let queries = random([3, 4, 24], 15, device);
    let output = gated.forward(queries, &memory, &padding_bias(padding(device)));
    out.tensor("output", output.clone());
    out.gradients(&gated, weighed(output));
    out
}

pub fn fine_fusion<B: AutodiffBackend>(device: &B::Device) -> Outcome {
    let mut out = Outcome::default();
    let fine = fusion_config().init_fine::<B>(&mut WeightInit::new(7), device);
    let encoded = encoded(device);
    let queries = random::<B, 3>([3, 4, 24], 16, device).require_grad();
    let bias = Tensor::cat(vec![encoded.bias.clone(); 3], 0);
    let forward = || fine.forward(queries.clone(), &fine.key_value(&encoded), &bias);
    out.tensor("output", forward());
    let grads = weighed(forward()).backward();
    out.tensor("gradient of the queries", queries.grad(&grads).unwrap());
    out.gradients(&fine, weighed(forward()));
    out
}

/// Identifiers of 60 candidates over levels of 5, 6, 7 and a unique token.
pub fn candidates() -> (Codes, Trie) {
    let mut rows: Vec<[u16; 3]> = (0..60u16).map(|i| [i * 7 % 5, i * 11 % 6, i * 5 % 4]).collect();
    rows[3] = rows[2];
    let codes = Codes::from_rows(3, &rows).unwrap();
    let unique = assign_unique(&codes, &[5, 6, 7], &[0.0; 60]).unwrap();
    let trie = Trie::build(&unique.identifiers, &unique.vocabulary).unwrap();
    (unique.identifiers, trie)
}

pub fn network(vocabulary: &LevelSizes, fusion: FusionMode) -> CartConfig {
    CartConfig::new(50, vocabulary.clone())
        .with_width(24, 40, 4)
        .with_layers(3, 2)
        .with_max_tokens(8)
        .with_dropout(0.0)
        .with_fusion(fusion)
        .with_seed(8)
}

fn whole_network<B: AutodiffBackend>(
    device: &B::Device,
    fusion: FusionMode,
    loss: LossConfig,
    passes: usize,
) -> Outcome {
    let mut out = Outcome::default();
    let (identifiers, trie) = candidates();
    let cart: Cart<B> = network(trie.vocabulary(), fusion).init(device).unwrap();
    let targets = TargetBatch::<B>::new(&[4, 17, 2], &identifiers, &trie, device);
    let queries = QueryBatch { tokens: tokens(device, 50), padding: padding(device) };
    let (queries, targets) = match passes {
        2 => (queries.repeated(), targets.repeated()),
        _ => (queries, targets),
    };
    let logits = cart.forward(queries.tokens, queries.padding, targets.identifiers.clone());
    for (level, logits) in logits.iter().enumerate() {
        out.tensor(&format!("logits {level}"), logits.clone());
    }
    let loss = loss.forward(logits, targets.identifiers, &targets.legal, passes);
    out.tensor("cross-entropy", loss.cross_entropy);
    out.tensor("loss", loss.total.clone());
    out.gradients(&cart, loss.total);
    out
}

pub fn plain_loss() -> LossConfig {
    LossConfig { r_drop: 0.0, ..LossConfig::default() }
}

pub fn network_without_fusion<B: AutodiffBackend>(device: &B::Device) -> Outcome {
    whole_network::<B>(device, FusionMode::None, plain_loss(), 1)
}

pub fn network_with_coarse_fusion<B: AutodiffBackend>(device: &B::Device) -> Outcome {
    whole_network::<B>(device, FusionMode::Coarse, plain_loss(), 1)
}

pub fn network_with_fine_fusion<B: AutodiffBackend>(device: &B::Device) -> Outcome {
    whole_network::<B>(device, FusionMode::Fine, plain_loss(), 1)
}

pub fn network_with_both_fusions<B: AutodiffBackend>(device: &B::Device) -> Outcome {
    whole_network::<B>(device, FusionMode::Both, plain_loss(), 1)
}

/// A network that the candidates' vectors guide: logits, both losses, gradients and a search.
pub fn guided_network<B: AutodiffBackend>(device: &B::Device) -> Outcome {
    let mut out = Outcome::default();
    let (identifiers, trie) = candidates();
    // Pooled queries of width 24, and their words.
    let width = 48;
    let vectors = Features::from_rows(noise(60 * width, 21), width).unwrap();
    let geometry = PrefixStats::new(vectors, &trie).unwrap();
    let held_out = LeaveOneOut::new(width, noise(3 * width, 22)).unwrap();
    let alignment = AlignmentConfig {
        learn_scales: true,
        learn_map: true,
        words: Some(0.5),
        scales: vec![0.5],
        ..AlignmentConfig::new(width)
    };
    let config = network(trie.vocabulary(), FusionMode::Both).with_alignment(alignment);
    let cart: Cart<B> = config.init(device).unwrap();
    let factors: Vec<f32> = noise(50, 23).iter().map(|value| value.abs()).collect();
    let cart = cart.with_lexical_head(LexicalHead::new(&factors, 0.5, device)).unwrap();
    let head = cart.alignment().unwrap();
    let (items, texts) = ([4, 17, 2], [0, 1, 2]);
    let guide = GuideBatch::<B>::new(
        &items,
        Some((&texts, &held_out)),
        &GuideSource { identifiers: &identifiers, trie: &trie, geometry: &geometry },
        device,
    );
    let targets = TargetBatch::<B>::new(&items, &identifiers, &trie, device);
    let encoded = cart.encode_layers(tokens(device, 50), padding(device));
    let aligned = cart.aligned(&encoded, tokens(device, 50), padding(device)).unwrap();
    let logits = cart.forward_encoded(&encoded, targets.identifiers.clone());
    let logits = head.guide(&aligned, &guide, None, logits);
    for (level, logits) in logits.iter().enumerate() {
        // Tokens that are no children have a logit that means nothing.
        let legal = targets.legal[level].clone();
        out.tensor(&format!("logits {level}"), logits.clone().mask_fill(legal.bool_not(), 0.0));
    }
    let loss = plain_loss().forward(logits, targets.identifiers, &targets.legal, 1).total;
    let contrast = head.contrast(&aligned, &guide);
    out.tensor("loss", loss.clone());
    out.tensor("contrast", contrast.clone());
    let space = SearchSpace::from(&trie).with_prefix_stats(Some(&geometry));
    let searching = Engine::new(cart.valid());
    let queries = searching.encode_batch(queries(device));
    let beam = BeamConfig { width: 60, rerank: 2.0, ..BeamConfig::default() };
    for mut answers in searching.beam_search(&queries, space, &beam).unwrap() {
        answers.sort_by_key(|answer| answer.item);
        out.numbers("scores by item", answers.iter().map(|answer| f64::from(answer.score)));
    }
    out.gradients(&cart, loss + contrast);
    out
}

pub fn loss_over_all_tokens<B: AutodiffBackend>(device: &B::Device) -> Outcome {
    let loss = LossConfig { scope: Scope::All, ..plain_loss() };
    whole_network::<B>(device, FusionMode::Both, loss, 1)
}

pub fn loss_over_legal_tokens_with_r_drop<B: AutodiffBackend>(device: &B::Device) -> Outcome {
    let mut out = whole_network::<B>(device, FusionMode::Both, LossConfig::default(), 2);
    // Passes that differ: the second half of the logits is another batch's.
    let (identifiers, trie) = candidates();
    let targets = TargetBatch::<B>::new(&[4, 17, 2], &identifiers, &trie, device).repeated();
    let logits = trie
        .vocabulary()
        .sizes()
        .iter()
        .enumerate()
        .map(|(level, &size)| random::<B, 2>([6, size], 30 + level, device).require_grad())
        .collect::<Vec<_>>();
    let loss =
        LossConfig::default().forward(logits.clone(), targets.identifiers, &targets.legal, 2);
    out.tensor("consistency", loss.consistency);
    let grads = loss.total.backward();
    for (level, logits) in logits.iter().enumerate() {
        out.tensor(&format!("gradient of logits {level}"), logits.grad(&grads).unwrap());
    }
    out
}

pub fn optimizer_steps<B: AutodiffBackend>(device: &B::Device) -> Outcome {
    let mut out = Outcome::default();
    let (identifiers, trie) = candidates();
    let mut cart: Cart<B> = network(trie.vocabulary(), FusionMode::Both).init(device).unwrap();
    let mut optimizer = CartOptimizer::<Cart<B>, B>::new(0.01, 0.5);
    for step in 0..4 {
        let items = [step as u32 * 3, 17, 2 + step as u32];
        let targets = TargetBatch::<B>::new(&items, &identifiers, &trie, device);
        let logits = cart.forward(tokens(device, 50), padding(device), targets.identifiers.clone());
        let loss = plain_loss().forward(logits, targets.identifiers, &targets.legal, 1);
        out.tensor(&format!("loss {step}"), loss.total.clone());
        let grads = GradientsParams::from_grads(loss.total.backward(), &cart);
        cart = optimizer.step(1e-3, cart, grads);
    }
    // Adam divides gradients by their own size: where a gradient is next to nothing, a difference
    // in its last bits becomes one of the order of the step (4 steps of 1e-3).
    out.parameters(&cart.valid());
    out.with_tolerance(2e-3)
}

fn rq_vae(codebooks: Codebooks) -> RqVaeConfig {
    RqVaeConfig { latent: 6, hidden: vec![16], codebooks, seed: 3, ..RqVaeConfig::new(vec![8, 8]) }
}

fn rq_vae_case<B: AutodiffBackend>(device: &B::Device, codebooks: Codebooks) -> Outcome {
    let mut out = Outcome::default();
    let config = rq_vae(codebooks);
    let network = config.init_network::<B>(12, device);
    let parts = network.loss(random([40, 12], 20, device), &config);
    for (level, codes) in parts.quantised.codes.iter().enumerate() {
        out.exactly(&format!("codes {level}"), codes.to_data().iter::<i64>());
    }
    out.tensor("residual", parts.quantised.residuals[1].clone());
    out.tensor("reconstruction", parts.reconstruction);
    out.tensor("commitment", parts.quantised.commitment_loss);
    out.gradients(&network, parts.total);
    out
}

pub fn rq_vae_loss<B: AutodiffBackend>(device: &B::Device) -> Outcome {
    rq_vae_case::<B>(device, RqVaeConfig::new(vec![2]).codebooks)
}

pub fn rq_vae_with_gradient_codebooks<B: AutodiffBackend>(device: &B::Device) -> Outcome {
    rq_vae_case::<B>(device, Codebooks::Gradient)
}

pub fn rq_vae_fit<B: AutodiffBackend>(device: &B::Device) -> Outcome {
    let mut out = Outcome::default();
    let config =
        RqVaeConfig { epochs: 4, batch: 32, ..rq_vae(RqVaeConfig::new(vec![2]).codebooks) };
    let mut losses = Vec::new();
    let monitor = Monitor::new().with_progress(|event: RqVaeEvent| losses.push(event.loss));
    let rows = noise(128 * 12, 21);
    config.fit_with_progress::<B::InnerBackend>(&rows, 12, device, &monitor).unwrap();
    drop(monitor);
    out.numbers("losses", losses);
    // A row between two codes may go to either: its loss changes by a hair, its gradient by more.
    out.with_tolerance(1e-2)
}

pub fn nearest_codes<B: AutodiffBackend>(device: &B::Device) -> Outcome {
    let mut out = Outcome::default();
    let (rows, book) = (random::<B, 2>([500, 16], 22, device), random([64, 16], 23, device));
    let nearest = cart_retrieval::expert::nearest_codes(rows, book);
    out.exactly("codes", nearest.into_data().iter::<i64>());
    out
}

pub fn kmeans<B: AutodiffBackend>(device: &B::Device) -> Outcome {
    let mut out = Outcome::default();
    let engine = DeviceSearch::<B::InnerBackend>::new(device.clone());
    let rows = noise(2000 * 16, 24);
    let fitted = KMeansConfig { seed: 2, max_iterations: 10, ..KMeansConfig::new(20) }
        .fit_with_engine(&(rows.as_slice(), 16), &engine, &Monitor::new())
        .unwrap();
    out.numbers("inertia", [fitted.inertia()]);
    out.numbers("centres", fitted.centres().iter().map(|&v| f64::from(v)));
    // One row between two centres that goes to the other moves a centre by a hundredth.
    out.with_tolerance(2e-2)
}

/// A small collection with captions.
pub struct Setup {
    pub items: Features,
    pub captions: Vec<ItemCaption>,
    pub tokenizer: TextTokenizer,
    pub quantizer: CoarseToFineConfig,
}

impl Setup {
    pub fn config(&self, index: &CandidateIndex) -> CartConfig {
        CartConfig::new(self.tokenizer.vocabulary(), index.vocabulary().clone())
            .with_width(32, 48, 4)
            .with_layers(2, 1)
            .with_max_tokens(32)
            .with_dropout(0.0)
            .with_seed(5)
    }
}

pub fn setup() -> Setup {
    let config = ScenesConfig::new(60).with_max_objects(1).with_captions_per_scene(2).with_seed(3);
    let scenes = Scenes::generate(&config).unwrap();
    let (rows, dim) = scenes.features();
    let items = Features::from_rows(rows, dim).unwrap().with_id_list(scenes.ids()).unwrap();
    let captions: Vec<ItemCaption> = scenes
        .captions()
        .unwrap()
        .training
        .iter()
        .map(|c| ItemCaption { item: c.item as u32, text: c.text.clone(), weight: 1.0 })
        .collect();
    let settings = TokenizerConfig { vocabulary: 300, ..Default::default() };
    let texts = captions.iter().map(|caption| caption.text.as_str());
    let tokenizer = TextTokenizer::train(texts, &settings, 32).unwrap();
    let fine =
        RqVaeConfig { latent: 8, hidden: vec![16], epochs: 3, ..RqVaeConfig::new(vec![6, 6]) };
    let quantizer = CoarseToFineConfig::new(6, fine);
    Setup { items, captions, tokenizer, quantizer }
}

pub fn training<B: AutodiffBackend>(device: &B::Device) -> Outcome {
    trained::<B>(std::slice::from_ref(device), TrainConfig::default())
}

/// Against one device and whole batches, on the same backend.
pub fn training_on_two_devices_in_micro_batches<B: AutodiffBackend>(device: &B::Device) -> Outcome {
    let config = TrainConfig { micro_batch: 8, ..TrainConfig::default() };
    let both = trained::<B>(&[device.clone(), device.clone()], config);
    both.assert_near(&training::<B>(device));
    both
}

/// Whether losses in half precision stay near those in single precision, where there is any: with
/// everything trained, and with a frozen part.
pub fn half_precision_stays_near<B: AutodiffBackend>(device: &B::Device) {
    let devices = std::slice::from_ref(device);
    for freeze in [Freeze::Nothing, Freeze::TokenEmbeddings, Freeze::Layers(1), Freeze::Encoder] {
        let mut single = None;
        // bf16 keeps 8 bits: the losses of eight steps move by some of the last of them. f16 keeps
        // 11, but leaves out its first steps until the scale of the loss has come down, and is that
        // far behind.
        for (precision, tolerance) in [(Precision::Bf16, 5e-2), (Precision::F16, 2e-1)] {
            if let Err(error) = precision.check::<B>(device) {
                println!("{error}");
                continue;
            }
            println!("{precision:?}, frozen: {freeze:?}");
            let config = TrainConfig { freeze, ..TrainConfig::default() };
            let single =
                single.get_or_insert_with(|| trained::<B>(devices, config.clone()).only("losses"));
            let half = trained::<B>(devices, TrainConfig { precision, ..config }).only("losses");
            half.assert_near(&single.clone().with_tolerance(tolerance));
        }
    }
}

pub fn trained<B: AutodiffBackend>(devices: &[B::Device], config: TrainConfig) -> Outcome {
    let device = &devices[0];
    let mut out = Outcome::default();
    let setup = setup();
    // Identifiers from the host, so that both sides train on the same ones.
    let quantizer = CoarseToFineConfig::new(6, RqKMeansConfig::new(vec![6, 6]))
        .fit::<B::InnerBackend>(&setup.items, device)
        .unwrap();
    let index = quantizer.assign(&setup.items).run().unwrap();
    let (train, valid) = setup.captions.split_at(96);
    let data =
        TrainingData::new(&setup.tokenizer, TrainingCaptions { train, valid }, &index).unwrap();
    let config = TrainConfig {
        epochs: 2,
        batch_size: 24,
        learning_rate: 1e-3,
        validations: 2,
        loss: plain_loss(),
        ..config
    };
    let trained = Trainer::new(config)
        .fit_devices(setup.config(&index).init::<B>(device).unwrap(), &data, devices)
        .unwrap();
    out.numbers("losses", trained.history.iter().map(|round| round.loss.unwrap()));
    out.parameters(&trained.model);
    // See `optimizer_steps`: eight steps of up to 1e-3 each.
    out.with_tolerance(1e-2)
}

pub fn dual_tower<B>(device: &B::Device) -> Outcome
where
    B: AutodiffBackend<InnerBackend: LocalBackend>,
{
    let mut out = Outcome::default();
    let setup = setup();
    let encoder = ScratchEncoderConfig {
        vocabulary: setup.tokenizer.vocabulary(),
        max_tokens: 32,
        ..encoder_config()
    };
    let config = DualTowerConfig { projection: 16, epochs: 2, ..DualTowerConfig::new(encoder) };
    let Setup { items, captions, tokenizer, .. } = &setup;
    let data = TowerData { tokenizer, captions, items };
    let start = TowerStart::scratch::<B::InnerBackend>(device);
    let tower = config.fit(start, &data, &StopFlag::new()).unwrap();
    let queries: Vec<&str> = setup.captions.iter().map(|c| c.text.as_str()).take(10).collect();
    for ranking in tower.search_all(&queries, 60).unwrap() {
        let mut scores: Vec<_> = ranking.items.iter().zip(&ranking.scores).collect();
        scores.sort_by_key(|(item, _)| **item);
        out.numbers("scores by item", scores.into_iter().map(|(_, &score)| f64::from(score)));
    }
    // See `optimizer_steps`.
    out.with_tolerance(1e-2)
}

fn queries<B: Backend>(device: &B::Device) -> QueryBatch<B> {
    QueryBatch { tokens: tokens(device, 50), padding: padding(device) }
}

fn beams<B: AutodiffBackend>(device: &B::Device, scope: Scope) -> Outcome {
    let mut out = Outcome::default();
    let (_, trie) = candidates();
    let cart: Cart<B::InnerBackend> =
        network(trie.vocabulary(), FusionMode::Both).init(device).unwrap();
    let engine = Engine::new(cart);
    let encoded = engine.encode_batch(queries(device));
    let config = BeamConfig { width: 12, scope, ..BeamConfig::default() };
    for answers in engine.beam_search(&encoded, &trie, &config).unwrap() {
        out.exactly("items", answers.iter().map(|answer| i64::from(answer.item)));
        out.numbers("scores", answers.iter().map(|answer| f64::from(answer.score)));
    }
    out
}

pub fn beam_search_over_legal_tokens<B: AutodiffBackend>(device: &B::Device) -> Outcome {
    beams::<B>(device, Scope::Legal)
}

pub fn beam_search_over_all_tokens<B: AutodiffBackend>(device: &B::Device) -> Outcome {
    beams::<B>(device, Scope::All)
}

pub fn scores_of_all_candidates<B: AutodiffBackend>(device: &B::Device) -> Outcome {
    let mut out = Outcome::default();
    let (_, trie) = candidates();
    let cart: Cart<B::InnerBackend> =
        network(trie.vocabulary(), FusionMode::Both).init(device).unwrap();
    let engine = Engine::new(cart);
    let encoded = engine.encode_batch(queries(device).rows(0..1));
    let mut answers = engine.score_all(&encoded, &trie, &BeamConfig::default()).unwrap();
    answers.sort_by_key(|answer| answer.item);
    out.numbers("scores", answers.iter().map(|answer| f64::from(answer.score)));
    out
}

/// Masks differ between backends; what they do on average does not.
pub fn dropout_keeps_the_mean<B: AutodiffBackend>(device: &B::Device) {
    let ones = Tensor::<B, 2>::ones([200, 200], device).require_grad();
    let dropped = Dropout::new(0.25).forward(ones.clone());
    let grads = dropped.clone().sum().backward();
    let values: Vec<f32> = dropped.into_data().iter::<f32>().collect();
    assert!(values.iter().all(|&v| v == 0.0 || (v - 4.0 / 3.0).abs() < 1e-6));
    // 40,000 draws of deviation sqrt(0.25 * 0.75): five deviations of their mean are 0.011.
    let kept = values.iter().filter(|&&v| v > 0.0).count() as f64 / 40_000.0;
    assert!((kept - 0.75).abs() < 0.011, "{kept} kept");
    let gradient: Vec<f32> = ones.grad(&grads).unwrap().into_data().iter::<f32>().collect();
    assert_eq!(gradient, values, "the gradient goes where the value went");
}
