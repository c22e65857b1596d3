//! Fitting a map from embeddings to words, for queries that are no texts.

use burn::{
    lr_scheduler::LrScheduler,
    module::{AutodiffModule, Module},
    optim::{GradientsParams, Optimizer},
    tensor::{Tensor, TensorData, backend::AutodiffBackend},
};
use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::Retriever;
use crate::{
    cancel::StopFlag,
    data::TargetBatch,
    error::{Error, Result, ensure_in, named},
    features::Features,
    model::{Cart, LossConfig},
    nn::{ProjectionShape, QueryProjection, WeightInit, with_noise},
    optim::{CartOptimizer, WarmupCosine},
};

/// How a [`QueryProjection`] is fitted to a trained network, which stays as it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProjectionConfig {
    /// Words that an embedding becomes.
    pub tokens: usize,
    /// Width between the two layers.
    pub hidden: usize,
    /// Passes over the pairs.
    pub epochs: usize,
    /// Pairs of a step.
    pub batch_size: usize,
    /// Peak of the learning rate.
    pub learning_rate: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// Noise added to a row at every step, as a share of the rows' deviation: what makes a map of
    /// the candidates' own embeddings one for others near them.
    pub noise: f32,
    /// The loss; without consistency and soft targets.
    pub loss: LossConfig,
    /// Seed of weights, order and noise.
    pub seed: u64,
}

impl Default for ProjectionConfig {
    fn default() -> Self {
        Self {
            tokens: 4,
            hidden: 256,
            epochs: 20,
            batch_size: 32,
            learning_rate: 1e-3,
            weight_decay: 0.01,
            noise: 0.3,
            loss: LossConfig { r_drop: 0.0, ..LossConfig::default() },
            seed: 0,
        }
    }
}

impl ProjectionConfig {
    /// Checks ranges, the loss's but for the number of levels.
    ///
    /// # Errors
    /// [`Error::Config`] naming the setting that is out of range.
    pub fn validate(&self) -> Result<()> {
        let default = "keep the default";
        for (name, count) in named!(self, tokens, hidden, epochs, batch_size) {
            ensure_in(&format!("projection {name}"), count as f64, "[1, inf)", default)?;
        }
        for (name, rate) in named!(self, learning_rate, weight_decay) {
            ensure_in(&format!("projection {name}"), rate, "[0, inf)", default)?;
        }
        ensure_in("projection noise", f64::from(self.noise), "[0, inf)", default)?;
        Error::config("projection loss")
            .expected("no consistency and no soft targets")
            .found(format!("{} and {}", self.loss.r_drop, self.loss.soft_targets))
            .fix_if(self.loss.r_drop != 0.0 || self.loss.soft_targets != 0.0, "set both to 0")
    }

    /// Fits a projection to pairs of an embedding and the candidate that it looks for: a
    /// candidate's own embedding, for more like this; that of a picture, for the sound that belongs
    /// to it.
    ///
    /// # Shapes
    /// - `rows`: `[pairs, D]`, `items`: a candidate of the index for each
    ///
    /// # Errors
    /// [`Error::Config`] for settings out of range; [`Error::Features`] for NaN, or when there is not one item per row;
    /// [`Error::Query`] for an item that is not there; [`Error::Model`] for a guided network, which its geometry lets
    /// answer embeddings without a projection; [`Error::Interrupted`] when stopped.
    ///
    /// # Example
    /// ```no_run
    /// # fn main() -> cart_retrieval::Result<()> {
    /// use burn::backend::{Autodiff, Flex};
    /// use cart_retrieval::{cancel::StopFlag, features::Features, expert::ProjectionConfig,
    ///     retrieve::Retriever};
    /// let retriever = Retriever::<Flex>::load("my-index", &Default::default())?;
    /// let rows = Features::open("my-data/features.npy")?;
    /// let items: Vec<u32> = (0..rows.len() as u32).collect();
    /// let config = ProjectionConfig::default();
    /// let projection = config.fit::<Autodiff<Flex>>(&retriever, &rows, &items, &StopFlag::new())?;
    /// let retriever = retriever.with_projection(projection)?;
    /// let like_the_first = retriever.query(&rows.select(&[0])).top(10).run()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn fit<B: AutodiffBackend>(
        &self,
        retriever: &Retriever<B::InnerBackend>,
        rows: &Features,
        items: &[u32],
        stop: &StopFlag,
    ) -> Result<QueryProjection<B::InnerBackend>> {
        self.validate()?;
        self.loss.validate(retriever.index().trie().levels())?;
        rows.check()?;
        Error::features("embeddings of a projection")
            .expected(format!("a candidate for each of {} rows", rows.len()))
            .found(items.len().to_string())
            .fix_if(items.len() != rows.len(), "pass pairs")?;
        let trie = retriever.index().trie();
        let candidates = retriever.index().ids().len();
        if let Some(item) = items.iter().find(|&&item| item as usize >= candidates) {
            return Err(Error::query("candidate of a pair")
                .expected(format!("one below {candidates}"))
                .found(item.to_string())
                .fix("pass candidates of the index"));
        }
        Error::model("network").expected("an unguided network").found("a guided network").fix_if(
            retriever.model().alignment().is_some_and(|head| head.is_guided()),
            "search it with embeddings directly (Retriever::query)",
        )?;
        let device: B::Device = retriever.device().clone();
        let model: Cart<B> = AutodiffModule::from_inner(retriever.model().clone());
        // Constant: only the projection learns, under the dropout that the network was trained
        // with.
        let model = model.no_grad();
        let identifiers = trie.identifiers();
        let mean = rows.mean();
        let deviation = deviation(rows, &mean);
        let mut init = WeightInit::new(self.seed);
        let d_model = model.encoder().d_model();
        let shape = ProjectionShape { hidden: self.hidden, tokens: self.tokens, d_model };
        let mut projection = QueryProjection::<B>::new(&mean, shape, &mut init, &device);
        let steps = self.epochs * items.len().div_ceil(self.batch_size);
        let mut schedule = WarmupCosine::new(self.learning_rate, steps.div_ceil(20), steps, 0.02);
        let mut optimizer = CartOptimizer::<QueryProjection<B>, B>::new(self.weight_decay, 1.0);
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let mut order: Vec<usize> = (0..items.len()).collect();
        for _ in 0..self.epochs {
            order.shuffle(&mut rng);
            for chunk in order.chunks(self.batch_size) {
                Error::interrupted("query projection")
                    .expected(format!("{} epochs", self.epochs))
                    .found("a stop before the last")
                    .fix_if(stop.is_raised(), "start it again; nothing was written")?;
                let mut inputs = Vec::with_capacity(chunk.len() * rows.dim());
                for &pair in chunk {
                    let noisy = rows
                        .row(pair)
                        .iter()
                        .map(|&value| value + self.noise * deviation * normal(&mut rng));
                    inputs.extend(noisy);
                }
                let inputs = TensorData::new(inputs, [chunk.len(), rows.dim()]);
                let own: Vec<u32> = chunk.iter().map(|&pair| items[pair]).collect();
                let targets = TargetBatch::<B>::new(&own, &identifiers, trie, &device);
                let seed = rng.random();
                B::seed(&device, seed);
                let loss = with_noise(seed, || {
                    let words = projection.forward(Tensor::from_data(inputs, &device));
                    let encoded = model.encoder().forward_words(words);
                    let logits = model.forward_encoded(&encoded, targets.identifiers.clone());
                    self.loss.forward(logits, targets.identifiers, &targets.legal, 1).total
                });
                let grads = GradientsParams::from_grads(loss.backward(), &projection);
                projection = optimizer.step(schedule.step(), projection, grads);
            }
        }
        Ok(projection.valid())
    }
}

/// The mean deviation of a number from that of its column.
fn deviation(rows: &Features, mean: &[f32]) -> f32 {
    let squares = |row: &[f32]| -> f64 {
        row.iter().zip(mean).map(|(value, mean)| f64::from(value - mean).powi(2)).sum()
    };
    let sum: f64 = rows.as_slice().chunks_exact(rows.dim()).map(squares).sum();
    (sum / rows.as_slice().len() as f64).sqrt() as f32
}

/// A standard normal number (Box and Muller).
fn normal(rng: &mut ChaCha8Rng) -> f32 {
    let (radius, angle) = (1.0 - rng.random::<f32>(), rng.random::<f32>());
    (-2.0 * radius.ln()).sqrt() * (std::f32::consts::TAU * angle).cos()
}
