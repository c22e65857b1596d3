//! Fine-tuning of the text encoder in the space of the candidates.

use std::collections::HashMap;

use burn::{
    module::{AutodiffModule, Module, ModuleMapper, ModuleVisitor, Param, ParamId},
    nn::Linear,
    optim::{GradientsParams, Optimizer},
    tensor::{
        Bool, Int, Tensor, TensorData, TensorPrimitive,
        activation::log_softmax,
        backend::{AutodiffBackend, Backend},
    },
};
use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{CandidateSpaceConfig, WordWeights, dot, embed_texts, normalise, words::TextSide};
use crate::{
    data::{ItemCaption, QueryBatch, TextTokenizer},
    error::{Error, Result},
    features::Features,
    nn::{TextEncoder, unit},
    train::{CartOptimizer, EncoderRates, StopFlag, WarmupCosine, by_like_length, drop_words},
};

/// Candidates that compete at a step, unless there are fewer.
const COMPETITORS: usize = 4096;

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
    /// among all candidates; or, where `space.texts` is 0 and the candidates to come have no texts,
    /// all captions of some candidates, which are then found among themselves.
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
        let (train, kept_out) = self.split(train, items.len(), space.texts > 0.0, &mut rng);
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
        let mut sums = Sums::new(items.len(), dim, train, memory.as_slice());
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
                let others = competitors(items.len(), &own, &mut rng);
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
                let all = vectors(&others, others.iter().flat_map(|&i| sums.mean(i)).collect());
                let held_out = chunk
                    .iter()
                    .flat_map(|&text| sums.without(train[text].item, memory.row(text)))
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
                    sums.replace(train[text].item, memory.row(text), row);
                    memory.set(text, row);
                }
            }
        }
        let tuned = towers.encoder.valid();
        let choice = Choice { train, kept_out: &kept_out, items, space, words, tokenizer, device };
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

    /// Captions to train on, and captions to choose by: none where too few would be left.
    fn split(
        &self,
        train: &[ItemCaption],
        items: usize,
        seen: bool,
        rng: &mut ChaCha8Rng,
    ) -> (Vec<ItemCaption>, Vec<ItemCaption>) {
        let mut left = vec![0usize; items];
        train.iter().for_each(|caption| left[caption.item as usize] += 1);
        let wanted = (train.len() as f64 * self.validation_share) as usize;
        let mut order: Vec<usize> = (0..train.len()).collect();
        order.shuffle(rng);
        let mut out = vec![false; train.len()];
        let mut count = 0;
        if seen {
            for at in order {
                let left = &mut left[train[at].item as usize];
                if count < wanted && *left > 1 {
                    (out[at], *left, count) = (true, *left - 1, count + 1);
                }
            }
        } else {
            let mut whole = vec![false; items];
            for at in order {
                let item = train[at].item as usize;
                if count < wanted && !whole[item] {
                    (whole[item], count) = (true, count + left[item]);
                }
            }
            out = train.iter().map(|caption| whole[caption.item as usize]).collect();
        }
        let (out, rest): (Vec<_>, Vec<_>) =
            train.iter().cloned().zip(out).partition(|(_, out)| *out);
        let captions = |part: Vec<(ItemCaption, bool)>| part.into_iter().map(|(c, _)| c).collect();
        (captions(rest), captions(out))
    }
}

/// What to choose an encoder by.
struct Choice<'a, B: Backend> {
    train: &'a [ItemCaption],
    kept_out: &'a [ItemCaption],
    items: &'a Features,
    space: &'a CandidateSpaceConfig,
    words: Option<&'a WordWeights>,
    tokenizer: &'a TextTokenizer,
    device: &'a B::Device,
}

impl<B: Backend> Choice<'_, B> {
    /// Mean reciprocal rank of the captions kept out, among candidates that are made without them.
    fn mrr(&self, encoder: &TextEncoder<B>) -> Result<f64> {
        let known = embed_texts(encoder, self.words, self.tokenizer, self.train, self.device)?;
        let vectors = self.space.vectors(self.items, &known)?;
        let texts = embed_texts(encoder, self.words, self.tokenizer, self.kept_out, self.device)?;
        let mut among: Vec<usize> = (0..self.items.len()).collect();
        if self.space.texts == 0.0 {
            among = texts.items().iter().map(|&item| item as usize).collect();
            among.sort_unstable();
            among.dedup();
        }
        let ranks = texts.items().par_iter().enumerate().map(|(text, &item)| {
            let near = |item: usize| dot(texts.row(text), vectors.row(item));
            let own = near(item as usize);
            let above = among.iter().filter(|&&other| near(other) > own).count();
            1.0 / (above + 1) as f64
        });
        let ranks: Vec<f64> = ranks.collect();
        Ok(ranks.iter().sum::<f64>() / ranks.len() as f64)
    }
}

/// Weights between two states of a module: `to` at share 1.
fn mixed<B: Backend, M: Module<B>>(from: &M, to: M, share: f64) -> M {
    let mut weights = Weights { by_id: HashMap::new(), share };
    from.visit(&mut weights);
    to.map(&mut weights)
}

/// The float parameters of a module, by their ids.
struct Weights<B: Backend> {
    by_id: HashMap<ParamId, TensorPrimitive<B>>,
    share: f64,
}

impl<B: Backend> ModuleVisitor<B> for Weights<B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        self.by_id.insert(param.id, param.val().into_primitive());
    }
}

impl<B: Backend> ModuleMapper<B> for Weights<B> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let (id, to, mapper) = param.consume();
        let from = self.by_id.remove(&id).map(Tensor::<B, D>::from_primitive);
        let value = match from {
            Some(from) => from.mul_scalar(1.0 - self.share) + to.mul_scalar(self.share),
            None => to,
        };
        Param::from_mapped_value(id, value, mapper)
    }
}

/// Sums and counts of the texts of every item.
struct Sums {
    dim: usize,
    sums: Vec<f32>,
    counts: Vec<u32>,
}

impl Sums {
    fn new(items: usize, dim: usize, train: &[ItemCaption], rows: &[f32]) -> Self {
        let mut sums = Self { dim, sums: vec![0.0; items * dim], counts: vec![0; items] };
        for (caption, row) in train.iter().zip(rows.chunks_exact(dim)) {
            sums.counts[caption.item as usize] += 1;
            sums.row_mut(caption.item).iter_mut().zip(row).for_each(|(sum, v)| *sum += v);
        }
        sums
    }

    fn row_mut(&mut self, item: u32) -> &mut [f32] {
        &mut self.sums[item as usize * self.dim..(item as usize + 1) * self.dim]
    }

    /// The mean, of length 1; zeros without texts.
    fn mean(&self, item: u32) -> Vec<f32> {
        let mut row = self.sums[item as usize * self.dim..(item as usize + 1) * self.dim].to_vec();
        normalise(&mut row);
        row
    }

    /// The mean without a text, of length 1; zeros where that was the only one.
    fn without(&self, item: u32, text: &[f32]) -> Vec<f32> {
        if self.counts[item as usize] < 2 {
            return vec![0.0; self.dim];
        }
        let sum = &self.sums[item as usize * self.dim..(item as usize + 1) * self.dim];
        let mut row: Vec<f32> = sum.iter().zip(text).map(|(sum, v)| sum - v).collect();
        normalise(&mut row);
        row
    }

    fn replace(&mut self, item: u32, old: &[f32], new: &[f32]) {
        let changes = old.iter().zip(new).map(|(old, new)| new - old);
        self.row_mut(item).iter_mut().zip(changes).for_each(|(sum, change)| *sum += change);
    }
}

/// Items that compete at a step, ascending: all of them, or the batch's own and random others.
fn competitors(n: usize, own: &[u32], rng: &mut ChaCha8Rng) -> Vec<u32> {
    if n <= COMPETITORS {
        return (0..n as u32).collect();
    }
    let random = (0..COMPETITORS).map(|_| rng.random_range(0..n as u32));
    let mut chosen: Vec<u32> = random.chain(own.iter().copied()).collect();
    chosen.sort_unstable();
    chosen.dedup();
    chosen
}

#[cfg(test)]
mod tests {
    use burn::backend::{Autodiff, Flex};

    use super::*;
    use crate::{
        align::{TextVectors, dot},
        data::TokenizerConfig,
        nn::{ScratchEncoderConfig, TextEncoderConfig, WeightInit},
        storage::NamedTensors,
    };

    type A = Autodiff<Flex>;

    /// Items of two properties; features and texts show both.
    fn fixture() -> (Features, Vec<ItemCaption>) {
        let (colours, shapes) =
            (["red", "blue", "green", "black"], ["ball", "cube", "cone", "ring", "star"]);
        let (mut rows, mut captions) = (vec![], vec![]);
        for (c, colour) in colours.iter().enumerate() {
            for (s, shape) in shapes.iter().enumerate() {
                let item = (c * shapes.len() + s) as u32;
                let hot = |at: usize, of: usize| (0..of).map(move |i| f32::from(u8::from(i == at)));
                rows.extend(hot(c, 4).chain(hot(s, 5)));
                for text in [format!("a {colour} {shape}"), format!("the {shape} is {colour}")] {
                    captions.push(ItemCaption { item, text, weight: 1.0 });
                }
            }
        }
        (Features::from_rows(rows, 9).unwrap(), captions)
    }

    fn encoder(tokenizer: &TextTokenizer) -> TextEncoder<A> {
        let config = TextEncoderConfig::from(ScratchEncoderConfig {
            vocabulary: tokenizer.vocabulary(),
            max_tokens: 16,
            d_model: 16,
            d_ff: 32,
            n_heads: 2,
            n_layers: 1,
            dropout: 0.0,
        });
        config.init(&mut WeightInit::new(3), &Default::default())
    }

    /// Share of texts that lie nearest to their own candidate as made without them.
    fn found(texts: &TextVectors, items: &Features, space: &CandidateSpaceConfig) -> f64 {
        let fitted = space.fit(items, texts).unwrap();
        let hits = (0..texts.len()).filter(|&text| {
            let own = dot(texts.row(text), fitted.held_out.row(text));
            let item = texts.items()[text] as usize;
            let others = (0..items.len()).filter(|&other| other != item);
            others.into_iter().all(|other| dot(texts.row(text), fitted.vectors.row(other)) < own)
        });
        hits.count() as f64 / texts.len() as f64
    }

    #[test]
    fn texts_move_to_their_candidates_and_words_stay() {
        let (items, captions) = fixture();
        let device = Default::default();
        let texts = captions.iter().map(|caption| caption.text.as_str());
        let tokenizer = TextTokenizer::train(texts, &TokenizerConfig::default(), 16).unwrap();
        let space = CandidateSpaceConfig { penalties: vec![0.1, 1.0], ..Default::default() };
        let embed = |encoder: &TextEncoder<Flex>| {
            embed_texts(encoder, None, &tokenizer, &captions, &device).unwrap()
        };
        let untuned = encoder(&tokenizer);
        let before = found(&embed(&untuned.valid()), &items, &space);
        let tuning = SpaceTuning {
            epochs: 30,
            batch_size: 8,
            learning_rate: 3e-3,
            validation_share: 0.0,
            ..SpaceTuning::default()
        };
        let fit = |tuning: &SpaceTuning| {
            let stop = StopFlag::new();
            tuning.fit(
                encoder(&tokenizer),
                None,
                &tokenizer,
                &captions,
                &items,
                &space,
                &stop,
                &device,
            )
        };
        let whole = fit(&tuning).unwrap();
        assert_eq!((whole.share, whole.validation_mrr.len()), (1.0, 0));
        let tuned = whole.encoder;
        let after = found(&embed(&tuned), &items, &space);
        assert!(after > before + 0.2 && after > 0.8, "{before} to {after}");
        let words = |encoder: &TextEncoder<Flex>| {
            let mut tensors = NamedTensors::new();
            tensors.insert_module::<Flex, _>("", encoder).unwrap();
            tensors.take_f32("tokens.weight").unwrap()
        };
        assert_eq!(words(&tuned), words(&untuned.valid()));
        assert_eq!(embed(&tuned), embed(&fit(&tuning).unwrap().encoder));
        let none = fit(&SpaceTuning { epochs: 0, ..tuning.clone() }).unwrap().encoder;
        assert_eq!(embed(&none), embed(&untuned.valid()));

        let stop = StopFlag::new();
        stop.raise();
        let stopped = tuning
            .fit(untuned, None, &tokenizer, &captions, &items, &space, &stop, &device)
            .unwrap_err();
        assert!(matches!(stopped, Error::Interrupted(_)), "{stopped}");
        for bad in [
            SpaceTuning { batch_size: 1, ..tuning.clone() },
            SpaceTuning { learning_rate: 0.0, ..tuning.clone() },
            SpaceTuning { temperature: f64::NAN, ..tuning.clone() },
            SpaceTuning { word_dropout: 1.0, ..tuning.clone() },
            SpaceTuning { weight_decay: -1.0, ..tuning.clone() },
            SpaceTuning { validation_share: 0.9, ..tuning.clone() },
            SpaceTuning { shares: vec![], ..tuning.clone() },
            SpaceTuning { shares: vec![0.0, 1.5], ..tuning.clone() },
        ] {
            assert!(bad.validate().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn captions_kept_out_choose_how_far_to_go() {
        let (items, captions) = fixture();
        let device = Default::default();
        let texts = captions.iter().map(|caption| caption.text.as_str());
        let tokenizer = TextTokenizer::train(texts, &TokenizerConfig::default(), 16).unwrap();
        for texts in [1.0, 0.0] {
            let space = CandidateSpaceConfig { penalties: vec![0.3], texts, ..Default::default() };
            let fit = |shares: &[f64]| {
                let tuning = SpaceTuning {
                    epochs: 12,
                    batch_size: 8,
                    learning_rate: 3e-3,
                    shares: shares.to_vec(),
                    validation_share: 0.2,
                    ..SpaceTuning::default()
                };
                let encoder = encoder(&tokenizer);
                let stop = StopFlag::new();
                tuning
                    .fit(encoder, None, &tokenizer, &captions, &items, &space, &stop, &device)
                    .unwrap()
            };
            let tuned = fit(&[0.0, 0.5, 1.0]);
            let mrr = &tuned.validation_mrr;
            assert!(tuned.share > 0.0 && mrr.iter().skip(1).any(|&m| m > mrr[0]), "{mrr:?}");
            for share in [0.0, 0.5, 1.0] {
                let alone = fit(&[share]);
                assert_eq!(alone.validation_mrr[0], mrr[(share * 2.0) as usize]);
                if share == tuned.share {
                    let embed = |encoder: &TextEncoder<Flex>| {
                        embed_texts(encoder, None, &tokenizer, &captions, &device).unwrap()
                    };
                    assert_eq!(embed(&alone.encoder), embed(&tuned.encoder));
                }
            }
        }
    }

    #[test]
    fn weights_half_way() {
        let captions = ["a red ball", "the blue cube"];
        let tokenizer = TextTokenizer::train(captions, &TokenizerConfig::default(), 16).unwrap();
        let from = encoder(&tokenizer).valid();
        let to = mixed(&from, from.clone(), 1.0);
        struct Shift;
        impl ModuleMapper<Flex> for Shift {
            fn map_float<const D: usize>(
                &mut self,
                param: Param<Tensor<Flex, D>>,
            ) -> Param<Tensor<Flex, D>> {
                let (id, value, mapper) = param.consume();
                Param::from_mapped_value(id, value.add_scalar(2.0), mapper)
            }
        }
        let to = to.map(&mut Shift);
        let values = |encoder: &TextEncoder<Flex>| {
            let mut tensors = NamedTensors::new();
            tensors.insert_module::<Flex, _>("", encoder).unwrap();
            tensors.take_f32("tokens.weight").unwrap().1
        };
        let half = mixed(&from, to, 0.25);
        for (a, b) in values(&from).iter().zip(values(&half)) {
            approx::assert_abs_diff_eq!(a + 0.5, b, epsilon = 1e-6);
        }
    }

    #[test]
    fn captions_kept_out_leave_a_caption_or_leave_none() {
        let (items, captions) = fixture();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let tuning = SpaceTuning { validation_share: 0.3, ..SpaceTuning::default() };
        let (rest, out) = tuning.split(&captions, items.len(), true, &mut rng);
        assert_eq!((rest.len(), out.len()), (28, 12));
        assert!((0..items.len() as u32).all(|item| rest.iter().any(|c| c.item == item)));
        let (rest, out) = tuning.split(&captions, items.len(), false, &mut rng);
        assert_eq!((rest.len(), out.len()), (28, 12));
        assert!(out.iter().all(|kept| rest.iter().all(|c| c.item != kept.item)));
        // One caption each: none can be spared.
        let single: Vec<ItemCaption> = captions.iter().step_by(2).cloned().collect();
        let (rest, out) = tuning.split(&single, items.len(), true, &mut rng);
        assert_eq!((rest.len(), out.len()), (20, 0));
    }
}
