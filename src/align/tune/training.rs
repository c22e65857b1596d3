//! The passes over the captions.

use std::collections::HashSet;

use burn::{
    module::{AutodiffModule, Module, Param},
    nn::Linear,
    optim::{GradientsParams, Optimizer},
    tensor::{
        Bool, Int, Tensor, TensorData,
        activation::log_softmax,
        backend::{AutodiffBackend, Backend},
    },
};
use rand::{RngExt, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::{config::EncoderTuning, data::TuningData};
use crate::{
    align::{Ridge, TextEmbedder, TextSpaceConfig, TextVectors, centroids::Centroids},
    cancel::StopFlag,
    data::{ItemCaption, QueryBatch, by_like_length, drop_words},
    error::{Error, Result},
    nn::{TextEncoder, unit},
    optim::{CartOptimizer, EncoderRates, WarmupCosine},
};

/// Peak learning rate of the logarithm of the temperature.
const TEMPERATURE_RATE: f64 = 2e-3;
/// Candidates that compete at a step, unless there are fewer.
const COMPETITORS: usize = 4096;
/// What is trained.
#[derive(Module, Debug)]
struct Towers<B: Backend> {
    encoder: TextEncoder<B>,
    /// From features, centred and of length 1, to the space.
    item: Linear<B>,
    /// Logarithm of the inverse temperature, less what it starts from, over a gain.
    log_scale: Param<Tensor<B, 1>>,
}

/// What a training gives.
pub(super) struct Tuned<B: Backend> {
    pub(super) encoder: TextEncoder<B>,
    /// The map of the features that it started from.
    pub(super) start: Ridge,
    /// The map that it ended with.
    pub(super) map: Ridge,
}

/// What a training works with.
pub(super) struct Training<'a, B: AutodiffBackend> {
    pub(super) settings: &'a EncoderTuning,
    pub(super) data: TuningData<'a>,
    pub(super) stop: &'a StopFlag,
    pub(super) device: &'a B::Device,
}

impl<B: AutodiffBackend> Training<'_, B> {
    /// Trains the encoder on captions, whose vectors `memory` holds; candidates of `out` do not
    /// compete.
    ///
    /// The map of the features is linear: one over a kernel has a landmark for every item, and
    /// learns them by heart before the encoder learns anything.
    pub(super) fn run(
        &self,
        encoder: TextEncoder<B>,
        train: &[ItemCaption],
        mut memory: TextVectors,
        out: &HashSet<u32>,
        rng: &mut ChaCha8Rng,
    ) -> Result<Tuned<B::InnerBackend>> {
        let Self { settings, data, stop, device } = *self;
        let TuningData { tokenizer, items, space, idf_weights, .. } = data;
        let linear = TextSpaceConfig { gammas: vec![0.0], ..space.clone() };
        let ridge = linear.chosen(items, &memory)?.regression(items, &memory)?;
        let dim = ridge.widths().1;
        let rows = (0..items.len()).map(|item| items.row(item));
        let (prepared, weight) = (ridge.prepared(rows), ridge.weight.clone());
        let d_input = prepared.len() / items.len();
        let tokens = train
            .iter()
            .map(|caption| tokenizer.encode(&caption.text))
            .collect::<Result<Vec<_>>>()?;
        let layers = encoder.n_layers();
        let matrix = |values: Vec<f32>, shape: [usize; 2]| {
            Tensor::<B, 2>::from_data(TensorData::new(values, shape), device)
        };
        let bias = Tensor::from_data(TensorData::new(ridge.bias.clone(), [dim]), device);
        let mut towers = Towers::<B> {
            // Token embeddings of a pretrained encoder know words that no caption has.
            encoder: match encoder {
                TextEncoder::Scratch(_) => encoder,
                pretrained => pretrained.freeze_token_embeddings(),
            },
            item: Linear {
                weight: Param::from_tensor(matrix(weight, [d_input, dim])),
                bias: Some(Param::from_tensor(bias)),
            },
            log_scale: Param::from_tensor(Tensor::zeros([1], device)),
        };
        towers.num_params();
        let head = idf_weights.map(|weights| weights.head::<B>(device));
        let encoder_lr = settings.learning_rate / settings.map_learning_rate;
        let rates = EncoderRates { encoder_lr, layer_decay: 1.0, layers };
        let gain = TEMPERATURE_RATE / settings.map_learning_rate;
        let mut optimizer = CartOptimizer::<Towers<B>, B>::new(settings.weight_decay, 1.0)
            .with_encoder_rates(rates);
        let steps = settings.epochs * train.len().div_ceil(settings.batch_size);
        let mut schedule =
            WarmupCosine::new(settings.map_learning_rate, steps.div_ceil(10), steps, 0.02);
        let mut pool: Vec<u32> = (0..items.len() as u32).collect();
        pool.retain(|item| !out.contains(item));
        let mut means = Centroids::new(items.len(), &memory);
        for _ in 0..settings.epochs {
            let mut order: Vec<u32> = (0..train.len() as u32).collect();
            // Texts that weigh nothing say nothing, here as in the means.
            order.retain(|&text| memory.weight(text as usize) > 0.0);
            order.shuffle(rng);
            let length = |text: u32| tokens[text as usize].len();
            let order = by_like_length(order, settings.batch_size, length, rng);
            let order: Vec<usize> = order.into_iter().map(|text| text as usize).collect();
            for chunk in order.chunks(settings.batch_size) {
                Error::interrupted("tuning of the text encoder")
                    .expected(format!("{} passes", settings.epochs))
                    .found("a stop before the last")
                    .fix_if(stop.is_raised(), "start it again; nothing was written")?;
                B::seed(device, rng.random());
                let rows: Vec<Vec<u32>> = chunk
                    .iter()
                    .map(|&text| drop_words(&tokens[text], settings.word_dropout, rng))
                    .collect();
                let own: Vec<u32> = chunk.iter().map(|&text| train[text].item).collect();
                let others = competitors(&pool, &own, rng);
                let batch = QueryBatch::new(&rows, tokenizer.padding(), device)?;
                let (encoder, lexical_head) = (&towers.encoder, head.clone());
                let embedder = TextEmbedder { encoder, tokenizer, lexical_head };
                let queries = unit(embedder.forward(batch));
                let vectors = |chosen: &[u32], texts: Vec<f32>| {
                    let rows = chosen.iter().flat_map(|&item| {
                        prepared[item as usize * d_input..(item as usize + 1) * d_input].iter()
                    });
                    let rows = matrix(rows.copied().collect(), [chosen.len(), d_input]);
                    let features = unit(towers.item.forward(rows)).mul_scalar(space.features);
                    unit(features + matrix(texts, [chosen.len(), dim]).mul_scalar(space.texts))
                };
                let weighted = |item: u32, mean: &[f32]| -> Vec<f32> {
                    mean.iter().map(|value| value * means.weight(item)).collect()
                };
                let all = others.iter().flat_map(|&item| weighted(item, means.row(item)));
                let all = vectors(&others, all.collect());
                let held_out = chunk
                    .iter()
                    .flat_map(|&text| {
                        let item = train[text].item;
                        let rest = means.without(item, &memory, text);
                        rest.map_or_else(|| vec![0.0; dim], |rest| weighted(item, &rest))
                    })
                    .collect();
                let targets = vectors(&own, held_out);
                let is_own: Vec<bool> = own
                    .iter()
                    .flat_map(|item| others.iter().map(move |other| other == item))
                    .collect();
                let is_own = Tensor::<B, 2, Bool>::from_data(
                    TensorData::new(is_own, [chunk.len(), others.len()]),
                    device,
                );
                let right = (queries.clone() * targets).sum_dim(1);
                let wrong = queries.clone().matmul(all.transpose()).mask_fill(is_own, -1e4);
                let scale = towers.log_scale.val().mul_scalar(gain).exp();
                let scale = scale.mul_scalar(1.0 / settings.temperature).clamp_max(100.0);
                let logits = Tensor::cat(vec![right, wrong], 1) * scale.unsqueeze();
                let first = Tensor::<B, 2, Int>::zeros([chunk.len(), 1], device);
                let loss = log_softmax(logits, 1).gather(1, first).neg().mean();
                let seen: Vec<f32> = queries.inner().into_data().iter::<f32>().collect();
                let finite = seen.iter().all(|value| value.is_finite());
                Error::training("tuning of the text encoder")
                    .expected("finite vectors")
                    .found("NaN or an infinity")
                    .fix_if(!finite, "lower its learning rate")?;
                let grads = GradientsParams::from_grads(loss.backward(), &towers);
                let rate = burn::lr_scheduler::LrScheduler::step(&mut schedule);
                towers = optimizer.step(rate, towers, grads);
                for (&text, row) in chunk.iter().zip(seen.chunks_exact(dim)) {
                    let (weight, old) = (memory.weight(text), memory.row(text));
                    means.replace(train[text].item, weight, old, row);
                    memory.set(text, row);
                }
            }
        }
        let bias = towers.item.bias.as_ref().expect("the map has a bias").val();
        let end = ridge.with(numbers(towers.item.weight.val()), numbers(bias));
        Ok(Tuned { encoder: towers.encoder.valid(), start: ridge, map: end })
    }
}

fn numbers<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

/// Items of a pool that compete at a step, ascending: all of them, or the batch's own and random
/// others.
fn competitors(pool: &[u32], own: &[u32], rng: &mut ChaCha8Rng) -> Vec<u32> {
    if pool.len() <= COMPETITORS {
        return pool.to_vec();
    }
    let random = (0..COMPETITORS).map(|_| pool[rng.random_range(0..pool.len())]);
    let mut chosen: Vec<u32> = random.chain(own.iter().copied()).collect();
    chosen.sort_unstable();
    chosen.dedup();
    chosen
}
