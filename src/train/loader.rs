//! The loaders that hand batches to the learner.
//!
//! A round of the learner (what burn-train calls an epoch) is the stretch between two validations.
//! The batch of a step depends on the seed and the step's number only, and the backend's generator
//! is reseeded for every step, so a training that is resumed at any step goes on as if it had never
//! stopped. With several devices, each has a loader that hands out its rows of the same batches.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use burn::{
    data::dataloader::{DataLoader, DataLoaderIterator, Progress},
    tensor::backend::Backend,
};
use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::{
    batch::{TrainBatch, ValidBatch},
    config::TrainConfig,
    data::{TrainingData, WeightedExample},
    position::{Share, StepCounter, work_for},
    shared::{Shared, locked},
};
use crate::data::{Example, QueryBatch, TargetBatch, by_like_length, drop_words};

/// Queries validated at once.
const VALID_BATCH: usize = 32;

/// Hands out the batches of a round, or one device's rows of them.
pub(super) struct TrainLoader<B: Backend> {
    pub(super) data: TrainingData,
    pub(super) config: Arc<TrainConfig>,
    pub(super) shared: Shared,
    pub(super) device: B::Device,
    pub(super) share: Share,
    pub(super) at: At,
    /// The order of the pass at hand, shared by the loaders of all devices.
    pub(super) order: Arc<Mutex<Order>>,
}

/// The order of the pairs in a pass, and which pass that is; empty before the first.
#[derive(Default)]
pub(super) struct Order {
    pass: usize,
    pairs: Arc<Vec<u32>>,
}

/// Where one loader stands.
pub(super) struct At {
    /// Its next step.
    step: AtomicUsize,
    /// Rounds it has begun.
    round: AtomicUsize,
}

impl At {
    pub(super) fn new(position: &StepCounter) -> Self {
        Self { step: AtomicUsize::new(position.step()), round: AtomicUsize::new(0) }
    }
}

impl<B: Backend> TrainLoader<B> {
    fn with(&self, share: Share, device: &B::Device) -> Self {
        Self {
            data: self.data.clone(),
            config: self.config.clone(),
            shared: self.shared.clone(),
            device: device.clone(),
            share,
            at: At::new(&self.shared.position),
            order: self.order.clone(),
        }
    }

    /// The order of the pairs in a pass: shuffled, pairs of like length in one batch.
    fn order(&self, pass: usize) -> Arc<Vec<u32>> {
        let mut kept = locked(&self.order);
        if kept.pass == pass && !kept.pairs.is_empty() {
            return kept.pairs.clone();
        }
        let train = &self.data.train;
        let mut rng = ChaCha8Rng::seed_from_u64(self.config.seed);
        rng.set_stream(pass as u64);
        let uniform = train.iter().all(|pair| pair.weight == train[0].weight);
        let mut order: Vec<u32> = (0..train.len() as u32).collect();
        if uniform {
            order.shuffle(&mut rng)
        } else {
            order = weighted_draws(train, &mut rng)
        }
        let length = |index: u32| train[index as usize].example.tokens.len();
        let order = Arc::new(by_like_length(order, self.config.batch_size, length, &mut rng));
        *kept = Order { pass, pairs: order.clone() };
        order
    }

    /// The pairs of a step, with their numbers.
    fn pairs(&self, step: usize) -> Vec<(u32, &WeightedExample)> {
        let train = &self.data.train;
        let per_epoch = self.data.steps_per_epoch(&self.config);
        let order = self.order(step / per_epoch);
        let batch = self.config.batch_size;
        let start = step % per_epoch * batch;
        order[start..(start + batch).min(train.len())]
            .iter()
            .map(|&index| (index, &train[index as usize]))
            .collect()
    }

    /// This device's rows of a step; `None` if there are more devices than rows.
    fn batch(&self, step: usize) -> Option<TrainBatch<B>> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.config.seed ^ 0xD0_0D);
        rng.set_stream(step as u64);
        // The devices draw noise of their own; the first draws what it would draw alone.
        let seed: u64 = rng.random::<u64>().wrapping_add((self.share.rank as u64) << 32);
        B::seed(&self.device, seed);
        let pairs = self.pairs(step);
        let rows: Vec<Vec<u32>> = pairs
            .iter()
            .map(|(_, pair)| drop_words(&pair.example.tokens, self.config.word_dropout, &mut rng))
            .collect();
        let share = self.share.rows(pairs.len());
        if share.is_empty() {
            return None;
        }
        let (own, of) = (&pairs[share.clone()], pairs.len());
        let items: Vec<u32> = own.iter().map(|(_, pair)| pair.example.item).collect();
        let targets =
            TargetBatch::new(&items, &self.data.identifiers, &self.data.trie, &self.device);
        let queries = QueryBatch::new(&rows[share], self.data.padding, &self.device)
            .expect("captions were tokenised to at least one token");
        let texts: Vec<u32> = own.iter().map(|(pair, _)| self.data.texts[*pair as usize]).collect();
        let held_out = self.data.held_out.as_ref().map(|held_out| (texts.as_slice(), &**held_out));
        let guide = self.data.guide(&items, held_out, &self.device);
        let rank = self.share.rank;
        Some(TrainBatch { queries, targets, guide, seed, texts, of, step, rank })
    }
}

/// As many draws as there are pairs, each with its weight's probability.
fn weighted_draws(train: &[WeightedExample], rng: &mut ChaCha8Rng) -> Vec<u32> {
    let mut bounds = Vec::with_capacity(train.len());
    let mut total = 0.0f64;
    for pair in train {
        total += f64::from(pair.weight);
        bounds.push(total);
    }
    (0..train.len())
        .map(|_| {
            let at = rng.random::<f64>() * total;
            bounds.partition_point(|&bound| bound <= at).min(train.len() - 1) as u32
        })
        .collect()
}

impl<B: Backend> DataLoader<B, TrainBatch<B>> for TrainLoader<B> {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<TrainBatch<B>> + 'a> {
        work_for(self.share);
        let round = self.at.round.fetch_add(1, Ordering::Relaxed) + 1;
        Box::new(TrainRound {
            loader: self,
            end: self.shared.position.round_end(),
            round,
            over: false,
        })
    }

    /// The number of devices where there are several, so that burn-train's split of these "items"
    /// by device gives each one.
    fn num_items(&self) -> usize {
        match self.share.of {
            1 => self.shared.position.per_round * self.config.batch_size,
            devices => devices,
        }
    }

    fn to_device(&self, device: &B::Device) -> Arc<dyn DataLoader<B, TrainBatch<B>>> {
        Arc::new(self.with(self.share, device))
    }

    /// The loader of device number `start`.
    fn slice(&self, start: usize, _end: usize) -> Arc<dyn DataLoader<B, TrainBatch<B>>> {
        let rank = if self.share.of > 1 { start } else { 0 };
        Arc::new(self.with(Share { rank, ..self.share }, &self.device))
    }
}

struct TrainRound<'a, B: Backend> {
    loader: &'a TrainLoader<B>,
    end: usize,
    round: usize,
    over: bool,
}

impl<B: Backend> TrainRound<'_, B> {
    /// Whether there is a next step, `step`: decided by the first device.
    fn begins(&mut self, step: usize) -> bool {
        let TrainLoader { shared, share, .. } = self.loader;
        let position = &shared.position;
        if share.rank > 0 {
            return position.follow(step, self.round, || {
                shared.has_diverged() || shared.interrupter.should_stop()
            });
        }
        if step < self.end && !shared.has_diverged() && !shared.stop.is_raised() {
            position.begin(step);
            return true;
        }
        if !std::mem::replace(&mut self.over, true) {
            position.end_round();
        }
        false
    }
}

impl<B: Backend> Iterator for TrainRound<'_, B> {
    type Item = TrainBatch<B>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.loader.at.step.load(Ordering::Relaxed);
        if !self.begins(step) {
            return None;
        }
        self.loader.at.step.store(step + 1, Ordering::Relaxed);
        self.loader.batch(step)
    }
}

impl<B: Backend> DataLoaderIterator<TrainBatch<B>> for TrainRound<'_, B> {
    fn progress(&self) -> Progress {
        let left = self.end - self.loader.shared.position.step().min(self.end);
        let total = self.loader.shared.position.per_round.max(left);
        Progress::new(total - left, total)
    }
}

/// Hands out the validation queries.
#[derive(Clone)]
pub(super) struct ValidLoader<B: Backend> {
    pub(super) data: TrainingData,
    pub(super) limit: usize,
    pub(super) shared: Shared,
    pub(super) device: B::Device,
}

impl<B: Backend> ValidLoader<B> {
    fn examples(&self) -> &[Example] {
        &self.data.valid[..self.data.valid.len().min(self.limit)]
    }
}

impl<B: Backend> DataLoader<B, ValidBatch<B>> for ValidLoader<B> {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<ValidBatch<B>> + 'a> {
        Box::new(ValidRound { loader: self, at: 0 })
    }

    fn num_items(&self) -> usize {
        self.examples().len()
    }

    fn to_device(&self, device: &B::Device) -> Arc<dyn DataLoader<B, ValidBatch<B>>> {
        Arc::new(Self { device: device.clone(), ..self.clone() })
    }

    fn slice(&self, _start: usize, _end: usize) -> Arc<dyn DataLoader<B, ValidBatch<B>>> {
        self.to_device(&self.device)
    }
}

struct ValidRound<'a, B: Backend> {
    loader: &'a ValidLoader<B>,
    at: usize,
}

impl<B: Backend> Iterator for ValidRound<'_, B> {
    type Item = ValidBatch<B>;

    fn next(&mut self) -> Option<Self::Item> {
        let examples = self.loader.examples();
        // A stop that was asked for waits for no validation; nor does one that cannot be helped.
        let shared = &self.loader.shared;
        let stop = shared.stop.is_raised() || shared.has_diverged();
        if self.at >= examples.len() || stop {
            return None;
        }
        let chunk = &examples[self.at..(self.at + VALID_BATCH).min(examples.len())];
        self.at += chunk.len();
        let rows: Vec<&[u32]> = chunk.iter().map(|example| example.tokens.as_slice()).collect();
        let items: Vec<u32> = chunk.iter().map(|example| example.item).collect();
        let data = &self.loader.data;
        Some(ValidBatch {
            queries: QueryBatch::new(&rows, data.padding, &self.loader.device)
                .expect("captions were tokenised to at least one token"),
            targets: TargetBatch::new(&items, &data.identifiers, &data.trie, &self.loader.device),
            guide: data.guide(&items, None, &self.loader.device),
            items,
        })
    }
}

impl<B: Backend> DataLoaderIterator<ValidBatch<B>> for ValidRound<'_, B> {
    fn progress(&self) -> Progress {
        Progress::new(self.at, self.loader.examples().len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_decide_how_often_a_pair_is_drawn() {
        let pair =
            |weight| WeightedExample { example: Example { tokens: vec![1], item: 0 }, weight };
        let train: Vec<_> = (0..1000).map(|i| pair(if i < 500 { 3.0 } else { 1.0 })).collect();
        let draws = weighted_draws(&train, &mut ChaCha8Rng::seed_from_u64(1));
        let heavy = draws.iter().filter(|&&index| index < 500).count();
        assert!((700..800).contains(&heavy), "{heavy}");
    }
}
