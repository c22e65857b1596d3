//! Fine-tuning of the text encoder in the space of the candidates.

mod choice;
#[cfg(test)]
mod tests;

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
use choice::{Choice, mixed};
use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::{
    CandidateSpaceConfig, WordWeights, centroids::Centroids, embed_texts, words::TextSide,
};
use crate::{
    data::{ItemCaption, QueryBatch, TextTokenizer},
    error::{Error, Result},
    features::Features,
    nn::{TextEncoder, unit},
    train::{CartOptimizer, EncoderRates, StopFlag, WarmupCosine, by_like_length, drop_words},
};

/// Candidates that compete at a step, unless there are fewer.
const COMPETITORS: usize = 4096;
/// Fewest candidates to find among themselves, or to train on, where whole ones are kept out.
const LEAST: usize = 4;

/// Settings of the fine-tuning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpaceTuning {
    /// Passes over the training captions; 0 leaves the encoder as it is.
    pub epochs: usize,
    /// Captions per step.
    pub batch_size: usize,
    /// Peak learning rate of the encoder.
    pub learning_rate: f64,
    /// Weight decay of matrices.
    pub weight_decay: f64,
    /// Share of a caption's tokens that are left out, anew at every step.
    pub word_dropout: f64,
    /// Temperature of the contrast before training; it is learned.
    pub temperature: f64,
    /// How far to go from the encoder as it came to the tuned one: shares to choose from, by how well
    /// captions find their candidates that were kept out of the training. The weights are mixed; half
    /// way is often better than either end.
    pub shares: Vec<f64>,
    /// Share of the captions that are kept out. At 0, the last of `shares` is taken.
    pub validation_share: f64,
    /// Seed of order and dropout.
    pub seed: u64,
}

impl Default for SpaceTuning {
    fn default() -> Self {
        Self {
            epochs: 3,
            batch_size: 64,
            learning_rate: 5e-5,
            weight_decay: 0.01,
            word_dropout: 0.0,
            temperature: 0.05,
            shares: vec![0.0, 0.5, 1.0],
            validation_share: 0.1,
            seed: 0,
        }
    }
}

/// A tuned encoder.
#[derive(Debug)]
pub struct TunedEncoder<B: Backend> {
    /// The encoder.
    pub encoder: TextEncoder<B>,
    /// How far it is from the encoder as it came (0) to the last pass of the training (1).
    pub share: f64,
    /// Mean reciprocal rank of the captions kept out, for each of [`SpaceTuning::shares`]; empty
    /// where none were kept out.
    pub validation_mrr: Vec<f64>,
}

/// What is trained.
#[derive(Module, Debug)]
struct Towers<B: Backend> {
    encoder: TextEncoder<B>,
    /// From features, centred and of length 1, to the space.
    item: Linear<B>,
    /// Logarithm of the inverse temperature, less what it starts from.
    log_scale: Param<Tensor<B, 1>>,
}

impl SpaceTuning {
    /// Checks ranges.
    ///
    /// # Errors
    /// [`Error::Config`] naming the setting that does not fit.
    pub fn validate(&self) -> Result<()> {
        let problem = |name: &str, expected: &str, found: String| {
            Err(Error::config(name, expected, found, "change it, or keep the default"))
        };
        if self.batch_size < 2 {
            return problem("tuning batch_size", "at least 2", self.batch_size.to_string());
        }
        for (name, value) in
            [("tuning learning_rate", self.learning_rate), ("tuning temperature", self.temperature)]
        {
            if !(value > 0.0 && value <= 1.0) {
                return problem(name, "a number in (0, 1]", value.to_string());
            }
        }
        if !(0.0..1.0).contains(&self.word_dropout) {
            return problem(
                "tuning word_dropout",
                "a share in [0, 1)",
                self.word_dropout.to_string(),
            );
        }
        if self.shares.is_empty() || self.shares.iter().any(|share| !(0.0..=1.0).contains(share)) {
            return problem(
                "tuning shares",
                "at least one number in [0, 1]",
                format!("{:?}", self.shares),
            );
        }
        if !(0.0..0.9).contains(&self.validation_share) {
            return problem(
                "tuning validation_share",
                "a share in [0, 0.9)",
                self.validation_share.to_string(),
            );
        }
        if !(self.weight_decay >= 0.0 && self.weight_decay.is_finite()) {
            return problem("tuning weight_decay", "at least 0", self.weight_decay.to_string());
        }
        Ok(())
    }

    /// Trains the encoder, its word embeddings aside, so that every caption lies nearest to its own
    /// candidate: InfoNCE against the vectors of all candidates (a random 4096 and the batch's own
    /// where there are more), which are made as [`CandidateSpaceConfig`] says, with a trained map of
    /// the features and with the other training texts as the encoder last saw them. A caption's own
    /// candidate is made without that caption.
    ///
    /// To choose one of `shares`, captions are kept out: of candidates that keep others, which are then found
    /// among all candidates; or all captions of some candidates, which are then found among themselves:
    /// where `space.texts` is 0 and the candidates to come have no texts, and where captions to spare are
    /// fewer than half of those wanted. Those candidates then compete for no caption while training. With
    /// fewer than four candidates to keep out or to keep, none is.
    ///
    /// # Errors
    /// As [`CandidateSpaceConfig::fit`]; [`Error::Config`] for settings out of range;
    /// [`Error::Interrupted`] when `stop` is raised; [`Error::Training`] when the loss is not finite.
    #[allow(clippy::too_many_arguments)]
    pub fn fit<B: AutodiffBackend>(
        &self,
        encoder: TextEncoder<B>,
        words: Option<&WordWeights>,
        tokenizer: &TextTokenizer,
        train: &[ItemCaption],
        items: &Features,
        space: &CandidateSpaceConfig,
        stop: &StopFlag,
        device: &B::Device,
    ) -> Result<TunedEncoder<B::InnerBackend>> {
        self.validate()?;
        if self.epochs == 0 {
            let encoder = encoder.valid();
            return Ok(TunedEncoder { encoder, share: 0.0, validation_mrr: Vec::new() });
        }
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let (train, kept_out, whole) = self.split(train, items.len(), space.texts > 0.0, &mut rng);
        let train = train.as_slice();
        let start = encoder.valid();
        let mut memory = embed_texts(&start, words, tokenizer, train, device)?;
        let fitted = space.fit(items, &memory)?;
        let space = &CandidateSpaceConfig {
            gammas: vec![fitted.gamma],
            penalties: vec![fitted.penalty],
            ..space.clone()
        };
        let ridge = fitted.space.into_ridge();
        let dim = ridge.widths().1;
        let rows = (0..items.len()).map(|item| items.row(item));
        let (prepared, weight) = ridge.whitened(rows)?;
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
            encoder: encoder.freeze_words(),
            item: Linear {
                weight: Param::from_tensor(matrix(weight, [d_input, dim])),
                bias: Some(Param::from_tensor(bias)),
            },
            log_scale: Param::from_tensor(Tensor::zeros([1], device)),
        };
        towers.num_params();
        let view = words.map(|words| words.view::<B>(device));
        // The map of the features and the temperature take twice the encoder's rate.
        let rates = EncoderRates { encoder_lr: 0.5, layer_decay: 1.0, layers };
        let mut optimizer =
            CartOptimizer::<Towers<B>, B>::new(self.weight_decay, 1.0).with_encoder_rates(rates);
        let steps = self.epochs * train.len().div_ceil(self.batch_size);
        let mut schedule =
            WarmupCosine::new(2.0 * self.learning_rate, steps.div_ceil(10), steps, 0.02);
        let mut pool: Vec<u32> = (0..items.len() as u32).collect();
        if whole {
            let out: HashSet<u32> = kept_out.iter().map(|caption| caption.item).collect();
            pool.retain(|item| !out.contains(item));
        }
        let mut means = Centroids::new(items.len(), &memory);
        for _ in 0..self.epochs {
            let mut order: Vec<u32> = (0..train.len() as u32).collect();
            order.shuffle(&mut rng);
            let length = |text: u32| tokens[text as usize].len();
            let order = by_like_length(order, self.batch_size, length, &mut rng);
            let order: Vec<usize> = order.into_iter().map(|text| text as usize).collect();
            for chunk in order.chunks(self.batch_size) {
                if stop.is_raised() {
                    return Err(Error::interrupted(
                        "tuning of the text encoder",
                        format!("{} passes", self.epochs),
                        "a stop before the last",
                        "start it again; nothing was written",
                    ));
                }
                B::seed(device, rng.random());
                let rows: Vec<Vec<u32>> = chunk
                    .iter()
                    .map(|&text| drop_words(&tokens[text], self.word_dropout, &mut rng))
                    .collect();
                let own: Vec<u32> = chunk.iter().map(|&text| train[text].item).collect();
                let others = competitors(&pool, &own, &mut rng);
                let batch = QueryBatch::new(&rows, tokenizer.padding(), device)?;
                let side = TextSide { encoder: &towers.encoder, words: view.clone() };
                let queries = unit(side.embed(batch));
                let vectors = |chosen: &[u32], texts: Vec<f32>| {
                    let rows = chosen.iter().flat_map(|&item| {
                        prepared[item as usize * d_input..(item as usize + 1) * d_input].iter()
                    });
                    let rows = matrix(rows.copied().collect(), [chosen.len(), d_input]);
                    let features = towers.item.forward(rows).mul_scalar(space.features);
                    unit(features + matrix(texts, [chosen.len(), dim]).mul_scalar(space.texts))
                };
                let all =
                    vectors(&others, others.iter().flat_map(|&i| means.row(i)).copied().collect());
                let held_out = chunk
                    .iter()
                    .flat_map(|&text| {
                        let rest = means.without(train[text].item, memory.row(text));
                        rest.unwrap_or_else(|| vec![0.0; dim])
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
                let scale = towers.log_scale.val().mul_scalar(20.0).exp();
                let scale = scale.mul_scalar(1.0 / self.temperature).clamp_max(100.0);
                let logits = Tensor::cat(vec![right, wrong], 1) * scale.unsqueeze();
                let first = Tensor::<B, 2, Int>::zeros([chunk.len(), 1], device);
                let loss = log_softmax(logits, 1).gather(1, first).neg().mean();
                let seen: Vec<f32> = queries.inner().into_data().iter::<f32>().collect();
                if seen.iter().any(|value| !value.is_finite()) {
                    return Err(Error::training(
                        "tuning of the text encoder",
                        "finite vectors",
                        "NaN or an infinity",
                        "lower its learning rate",
                    ));
                }
                let grads = GradientsParams::from_grads(loss.backward(), &towers);
                let rate = burn::lr_scheduler::LrScheduler::step(&mut schedule);
                towers = optimizer.step(rate, towers, grads);
                for (&text, row) in chunk.iter().zip(seen.chunks_exact(dim)) {
                    means.replace(train[text].item, memory.row(text), row);
                    memory.set(text, row);
                }
            }
        }
        let tuned = towers.encoder.valid();
        let kept_out = &kept_out;
        let choice = Choice { train, kept_out, whole, items, space, words, tokenizer, device };
        self.choose(start, tuned, &choice)
    }

    /// The share that captions kept out find their candidates best with; of equal ones the first.
    fn choose<B: Backend>(
        &self,
        start: TextEncoder<B>,
        tuned: TextEncoder<B>,
        choice: &Choice<'_, B>,
    ) -> Result<TunedEncoder<B>> {
        let last = *self.shares.last().expect("there are shares");
        if choice.kept_out.is_empty() {
            let encoder = mixed(&start, tuned, last);
            return Ok(TunedEncoder { encoder, share: last, validation_mrr: Vec::new() });
        }
        let mut best: Option<(f64, f64, TextEncoder<B>)> = None;
        let mut validation_mrr = Vec::with_capacity(self.shares.len());
        for &share in &self.shares {
            let encoder = mixed(&start, tuned.clone(), share);
            let mrr = choice.mrr(&encoder)?;
            validation_mrr.push(mrr);
            if best.as_ref().is_none_or(|(most, ..)| mrr > *most) {
                best = Some((mrr, share, encoder));
            }
        }
        let (_, share, encoder) = best.expect("there are shares");
        Ok(TunedEncoder { encoder, share, validation_mrr })
    }

    /// Captions to train on, captions to choose by, and whether those are all that their items have.
    ///
    /// Where items are seen, each keeps a caption, unless less than half of what is wanted can be had so.
    fn split(
        &self,
        train: &[ItemCaption],
        items: usize,
        seen: bool,
        rng: &mut ChaCha8Rng,
    ) -> (Vec<ItemCaption>, Vec<ItemCaption>, bool) {
        let mut left = vec![0usize; items];
        train.iter().for_each(|caption| left[caption.item as usize] += 1);
        let wanted = (train.len() as f64 * self.validation_share) as usize;
        let spare: usize = left.iter().map(|count| count.saturating_sub(1)).sum();
        let whole = !seen || 2 * spare < wanted;
        let mut order: Vec<usize> = (0..train.len()).collect();
        order.shuffle(rng);
        let mut out = vec![false; train.len()];
        let mut count = 0;
        if !whole {
            for at in order {
                let left = &mut left[train[at].item as usize];
                if count < wanted && *left > 1 {
                    (out[at], *left, count) = (true, *left - 1, count + 1);
                }
            }
        } else {
            let mut items = vec![false; items];
            for at in order {
                let item = train[at].item as usize;
                if count < wanted && !items[item] {
                    (items[item], count) = (true, count + left[item]);
                }
            }
            let kept_out = items.iter().filter(|out| **out).count();
            let described = left.iter().filter(|count| **count > 0).count();
            if kept_out >= LEAST && described >= kept_out + LEAST {
                out = train.iter().map(|caption| items[caption.item as usize]).collect();
            }
        }
        let (out, rest): (Vec<_>, Vec<_>) =
            train.iter().cloned().zip(out).partition(|(_, out)| *out);
        let captions = |part: Vec<(ItemCaption, bool)>| part.into_iter().map(|(c, _)| c).collect();
        (captions(rest), captions(out), whole)
    }
}

/// Items of a pool that compete at a step, ascending: all of them, or the batch's own and random others.
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
