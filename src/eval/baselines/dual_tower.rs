//! The dual-tower baseline: a text encoder and the candidates' features meet in one space.

use burn::{
    module::{AutodiffModule, Module, Param},
    nn::Linear,
    optim::{GradientsParams, Optimizer},
    tensor::{
        Int, Tensor, TensorData,
        activation::log_softmax,
        backend::{AutodiffBackend, Backend},
    },
};
use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Ranking, best};
use crate::{
    cancel::StopFlag,
    data::{ItemCaption, QueryBatch, TextTokenizer, drop_words},
    error::{Error, Result},
    features::Features,
    nn::{TextEncoder, TextEncoderConfig, WeightInit},
    optim::{CartOptimizer, EncoderRates, WarmupCosine},
};

/// Candidates that compete at a step, unless there are fewer.
const COMPETITORS: usize = 4096;

/// Settings of the dual tower.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DualTowerConfig {
    /// The text encoder, as CART's.
    pub encoder: TextEncoderConfig,
    /// Width of the shared space.
    pub projection: usize,
    /// Passes over the training captions.
    pub epochs: usize,
    /// Captions per step.
    pub batch_size: usize,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Factor of the learning rate for the text encoder; a pretrained one wants less than 1.
    #[serde(default = "one")]
    pub encoder_lr: f64,
    /// Weight decay of matrices.
    pub weight_decay: f64,
    /// Share of a caption's tokens that are dropped, redrawn at every step.
    pub word_dropout: f64,
    /// Seed of weights, order and dropout.
    pub seed: u64,
}

fn one() -> f64 {
    1.0
}

impl DualTowerConfig {
    /// A tower over this encoder, with usual settings.
    pub fn new(encoder: impl Into<TextEncoderConfig>) -> Self {
        Self {
            encoder: encoder.into(),
            projection: 256,
            epochs: 30,
            batch_size: 64,
            learning_rate: 1e-3,
            encoder_lr: one(),
            weight_decay: 0.01,
            word_dropout: 0.0,
            seed: 0,
        }
    }

    /// Checks ranges.
    ///
    /// # Errors
    /// [`Error::Config`] naming the setting that is out of range.
    pub fn validate(&self) -> Result<()> {
        self.encoder.validate()?;
        if self.epochs == 0 || self.batch_size == 0 || self.projection == 0 {
            return Err(Error::config("dual tower")
                .expected("at least one epoch, caption per step and dimension")
                .found("0")
                .fix("keep the defaults"));
        }
        Ok(())
    }
}

/// What a dual tower is trained on.
#[derive(Debug, Clone, Copy)]
pub struct TowerData<'a> {
    /// The encoder's tokenizer.
    pub tokenizer: &'a TextTokenizer,
    /// Training captions; their items are rows of `items`.
    pub captions: &'a [ItemCaption],
    /// Features of the candidates, `[N, D]`.
    pub items: &'a Features,
}

/// Both towers.
#[derive(Module, Debug)]
pub struct DualTowerNetwork<B: Backend> {
    encoder: TextEncoder<B>,
    query: Linear<B>,
    item: Linear<B>,
    /// Logarithm of the inverse temperature.
    log_scale: Param<Tensor<B, 1>>,
}

impl<B: Backend> DualTowerNetwork<B> {
    /// Unit vectors of queries, `[batch, projection]`.
    fn queries(&self, batch: QueryBatch<B>) -> Tensor<B, 2> {
        let encoded = self.encoder.forward(batch.tokens, batch.padding);
        unit(self.query.forward(encoded.pooled()))
    }

    /// Unit vectors of candidates, `[n, dim]` to `[n, projection]`.
    fn items(&self, features: Tensor<B, 2>) -> Tensor<B, 2> {
        unit(self.item.forward(features))
    }
}

/// A trained dual tower with the vectors of its candidates.
#[derive(Debug, Clone)]
pub struct DualTower<B: Backend> {
    network: DualTowerNetwork<B>,
    tokenizer: TextTokenizer,
    /// `[projection, n]`
    candidates: Tensor<B, 2>,
    /// Mean of the training candidates' features.
    mean: Vec<f32>,
    device: B::Device,
}

impl DualTowerConfig {
    /// Trains both towers with InfoNCE: each caption against all candidates (a random 4096 of them
    /// and the batch's own where there are more), temperature learned.
    ///
    /// Features are centred and brought to unit length first.
    ///
    /// # Errors
    /// [`Error::Captions`] without captions or with one of an unknown candidate; [`Error::Config`]
    /// for settings out of range; [`Error::Interrupted`] when `stop` is raised.
    pub fn fit<B: AutodiffBackend>(
        &self,
        data: &TowerData<'_>,
        stop: &StopFlag,
        device: &B::Device,
    ) -> Result<DualTower<B::InnerBackend>> {
        self.validate()?;
        let encoder: TextEncoder<B> = self.encoder.init(&mut WeightInit::new(self.seed), device);
        self.fit_around(encoder, data, stop, device)
    }

    /// The same with a text encoder that has weights, usually a pretrained one.
    ///
    /// # Errors
    /// As [`DualTowerConfig::fit`].
    pub fn fit_around<B: AutodiffBackend>(
        &self,
        encoder: TextEncoder<B>,
        data: &TowerData<'_>,
        stop: &StopFlag,
        device: &B::Device,
    ) -> Result<DualTower<B::InnerBackend>> {
        self.validate()?;
        let TowerData { tokenizer, captions: train, items } = *data;
        let known = train.iter().all(|caption| (caption.item as usize) < items.len());
        if train.is_empty() || !known {
            return Err(Error::captions("training captions")
                .expected(format!("at least one, all of the {} candidates", items.len()))
                .found(if known { "none" } else { "a caption of another item" })
                .fix("resolve captions against these candidates"));
        }
        let tokens = train
            .iter()
            .map(|caption| tokenizer.encode(&caption.text))
            .collect::<Result<Vec<_>>>()?;
        let mean = items.mean();
        let features = centred_units(items, &mean);
        let mut init = WeightInit::new(self.seed.wrapping_add(1));
        let d_query = encoder.d_model();
        let layers = encoder.n_layers();
        let mut network = DualTowerNetwork::<B> {
            encoder,
            query: init.linear(d_query, self.projection, device),
            item: init.linear(items.dim(), self.projection, device),
            log_scale: Param::from_tensor(Tensor::from_floats([(1.0f32 / 0.07).ln()], device)),
        };
        network.num_params();
        let steps_per_epoch = train.len().div_ceil(self.batch_size);
        let steps = self.epochs * steps_per_epoch;
        let mut schedule = WarmupCosine::new(self.learning_rate, steps.div_ceil(20), steps, 0.02);
        let mut optimizer = CartOptimizer::<DualTowerNetwork<B>, B>::new(self.weight_decay, 1.0)
            .with_encoder_rates(EncoderRates {
                encoder_lr: self.encoder_lr,
                layer_decay: 1.0,
                layers,
            });
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let mut order: Vec<usize> = (0..train.len()).collect();
        for _ in 0..self.epochs {
            order.shuffle(&mut rng);
            for chunk in order.chunks(self.batch_size) {
                if stop.is_raised() {
                    return Err(Error::interrupted("dual tower")
                        .expected(format!("{} epochs", self.epochs))
                        .found("a stop before the last")
                        .fix("start it again; nothing was written"));
                }
                B::seed(device, rng.random());
                let rows: Vec<Vec<u32>> = chunk
                    .iter()
                    .map(|&index| drop_words(&tokens[index], self.word_dropout, &mut rng))
                    .collect();
                let own: Vec<u32> = chunk.iter().map(|&index| train[index].item).collect();
                let competitors = competitors(items.len(), &own, &mut rng);
                let targets: Vec<i64> = own
                    .iter()
                    .map(|item| competitors.binary_search(item).map_or(0, |at| at as i64))
                    .collect();
                let queries = network.queries(QueryBatch::new(&rows, tokenizer.padding(), device)?);
                let vectors =
                    network.items(select_rows::<B>(&features, items.dim(), &competitors, device));
                let scale = network.log_scale.val().clamp_max(100f32.ln()).exp();
                let logits = queries.matmul(vectors.transpose()) * scale.unsqueeze();
                let targets = Tensor::<B, 2, Int>::from_data(
                    TensorData::new(targets, [chunk.len(), 1]),
                    device,
                );
                let loss = log_softmax(logits, 1).gather(1, targets).neg().mean();
                let grads = GradientsParams::from_grads(loss.backward(), &network);
                let rate = burn::lr_scheduler::LrScheduler::step(&mut schedule);
                network = optimizer.step(rate, network, grads);
            }
        }
        let tower = DualTower {
            network: network.valid(),
            tokenizer: tokenizer.clone(),
            candidates: Tensor::zeros([self.projection, 1], device),
            mean,
            device: device.clone(),
        };
        tower.over(items)
    }
}

impl<B: Backend> DualTower<B> {
    /// Searches other candidates from now on, by features of the same encoder.
    ///
    /// # Errors
    /// [`Error::Features`] for features of another width.
    pub fn over(self, items: &Features) -> Result<Self> {
        if items.dim() != self.mean.len() {
            return Err(Error::features("candidates")
                .expected(format!("{} numbers an item", self.mean.len()))
                .found(items.dim().to_string())
                .fix("use features of the encoder that the tower was trained on"));
        }
        let features = centred_units(items, &self.mean);
        let all: Vec<u32> = (0..items.len() as u32).collect();
        let vectors = all
            .chunks(COMPETITORS)
            .map(|chunk| {
                let rows = select_rows::<B>(&features, items.dim(), chunk, &self.device);
                self.network.items(rows)
            })
            .collect();
        Ok(Self { candidates: Tensor::cat(vectors, 0).transpose(), ..self })
    }

    /// The `k` nearest candidates of each query, by cosine.
    ///
    /// # Errors
    /// [`Error::Query`] for a blank query.
    pub fn search_all<S: AsRef<str>>(&self, queries: &[S], k: usize) -> Result<Vec<Ranking>> {
        let mut rankings = Vec::with_capacity(queries.len());
        let [_, n] = self.candidates.dims();
        for chunk in queries.chunks(64) {
            let rows = chunk
                .iter()
                .map(|query| self.tokenizer.encode(query.as_ref()))
                .collect::<Result<Vec<_>>>()?;
            let batch = QueryBatch::new(&rows, self.tokenizer.padding(), &self.device)?;
            let scores = self.network.queries(batch).matmul(self.candidates.clone());
            let scores: Vec<f32> = scores.into_data().iter::<f32>().collect();
            let found: Vec<Result<Ranking>> =
                scores.par_chunks_exact(n).map(|scores| best(scores, k)).collect();
            for ranking in found {
                rankings.push(ranking?);
            }
        }
        Ok(rankings)
    }
}

/// Features less a mean, each row of unit length.
fn centred_units(items: &Features, mean: &[f32]) -> Vec<f32> {
    let mut out = Vec::with_capacity(items.as_slice().len());
    for row in items.as_slice().chunks_exact(items.dim()) {
        let centred = row.iter().zip(mean).map(|(value, mean)| value - mean);
        let norm = centred.clone().map(|value| value * value).sum::<f32>().sqrt().max(1e-12);
        out.extend(centred.map(|value| value / norm));
    }
    out
}

/// Items that compete at a step, ascending: all of them, or the batch's own and random others.
fn competitors(n: usize, own: &[u32], rng: &mut ChaCha8Rng) -> Vec<u32> {
    if n <= COMPETITORS {
        return (0..n as u32).collect();
    }
    let mut chosen: Vec<u32> = (0..COMPETITORS)
        .map(|_| rng.random_range(0..n as u32))
        .chain(own.iter().copied())
        .collect();
    chosen.sort_unstable();
    chosen.dedup();
    chosen
}

fn select_rows<B: Backend>(
    features: &[f32],
    dim: usize,
    rows: &[u32],
    device: &B::Device,
) -> Tensor<B, 2> {
    let values: Vec<f32> = rows
        .iter()
        .flat_map(|&row| &features[row as usize * dim..(row as usize + 1) * dim])
        .copied()
        .collect();
    Tensor::from_data(TensorData::new(values, [rows.len(), dim]), device)
}

fn unit<B: Backend>(rows: Tensor<B, 2>) -> Tensor<B, 2> {
    let norm = rows.clone().square().sum_dim(1).sqrt().clamp_min(1e-8);
    rows / norm
}

#[cfg(test)]
mod tests {
    use burn::backend::{Autodiff, Flex};

    use super::*;
    use crate::{data::TokenizerConfig, nn::ScratchEncoderConfig};

    #[test]
    fn learns_to_find_what_its_captions_name() {
        let words = ["ant", "bee", "cat", "dog", "elk", "fox", "gnu", "hen"];
        let rows: Vec<f32> = (0..8 * 8).map(|i| if i % 9 == 0 { 1.0 } else { 0.0 }).collect();
        let items = Features::from_rows(rows, 8).unwrap();
        let captions: Vec<ItemCaption> = (0..8u32)
            .flat_map(|item| {
                ["a picture of a", "one small", "there is the"].map(|frame| ItemCaption {
                    item,
                    text: format!("{frame} {}", words[item as usize]),
                    weight: 1.0,
                })
            })
            .collect();
        let config = TokenizerConfig { min_frequency: 1, ..TokenizerConfig::default() };
        let tokenizer =
            TextTokenizer::train(captions.iter().map(|c| c.text.as_str()), &config, 12).unwrap();
        let encoder = ScratchEncoderConfig {
            vocabulary: tokenizer.vocabulary(),
            max_tokens: 12,
            d_model: 16,
            d_ff: 32,
            n_heads: 2,
            n_layers: 1,
            dropout: 0.0,
        };
        let config = DualTowerConfig {
            epochs: 60,
            batch_size: 8,
            learning_rate: 1e-2,
            ..DualTowerConfig::new(encoder)
        };
        let stop = StopFlag::new();
        let device = Default::default();
        let data = TowerData { tokenizer: &tokenizer, captions: &captions, items: &items };
        let fit = || config.fit::<Autodiff<Flex>>(&data, &stop, &device);
        let tower = fit().unwrap();
        let queries: Vec<String> = words.iter().map(|word| format!("a small {word}")).collect();
        let rankings = tower.search_all(&queries, 3).unwrap();
        for (item, ranking) in rankings.iter().enumerate() {
            assert_eq!(ranking.items.len(), 3);
            assert_eq!(ranking.items[0], item as u32);
        }
        assert!(tower.search_all(&[" "], 3).is_err());
        stop.raise();
        assert!(matches!(fit().unwrap_err(), Error::Interrupted(_)));
    }

    #[test]
    fn many_candidates_compete_by_a_sample_that_holds_the_batchs_own() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let chosen = competitors(10_000, &[9_999, 3], &mut rng);
        assert!(chosen.is_sorted() && chosen.contains(&9_999) && chosen.contains(&3));
        assert!(chosen.len() > 3000 && chosen.len() <= COMPETITORS + 2);
        assert_eq!(competitors(5, &[1], &mut rng), [0, 1, 2, 3, 4]);
    }
}
