//! Training pairs and the loaders that hand them to the learner.
//!
//! A round of the learner (what burn-train calls an epoch) is the stretch between two validations.
//! The batch of a step depends on the seed and the step's number only, and the backend's generator
//! is seeded anew for every step, so a training that is resumed at any step goes on as if it had
//! never stopped.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use burn::{
    data::dataloader::{DataLoader, DataLoaderIterator, Progress},
    tensor::backend::Backend,
};
use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

use super::{StopFlag, TrainBatch, TrainConfig, ValidBatch};
use crate::{
    data::{Example, ItemCaption, QueryBatch, TargetBatch, TextTokenizer},
    error::{Error, Result},
    identifier::Codes,
    quantizer::CandidateIndex,
    storage::hex,
    trie::Trie,
};

/// Batches among which pairs are sorted by length.
const WINDOW: usize = 16;
/// Queries validated at once.
const VALID_BATCH: usize = 32;

/// A pair with the weight it is drawn with.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightedExample {
    /// The pair.
    pub example: Example,
    /// Relative frequency.
    pub weight: f32,
}

/// Everything a training reads: tokenised pairs, identifiers and the trie.
#[derive(Debug, Clone)]
pub struct TrainingData {
    train: Arc<Vec<WeightedExample>>,
    valid: Arc<Vec<Example>>,
    identifiers: Arc<Codes>,
    trie: Arc<Trie>,
    padding: u32,
}

impl TrainingData {
    /// Tokenises captions of candidates. `valid` may be empty: then the last model is the best.
    ///
    /// # Errors
    /// [`Error::Captions`] without training captions, or where one describes an item that is not in
    /// the index; [`Error::Query`] for a blank caption.
    pub fn new(
        tokenizer: &TextTokenizer,
        train: &[ItemCaption],
        valid: &[ItemCaption],
        index: &CandidateIndex,
    ) -> Result<Self> {
        if train.is_empty() {
            return Err(Error::captions(
                "training captions",
                "at least one",
                "none",
                "check the captions file and the recipe's filter",
            ));
        }
        let example = |caption: &ItemCaption| {
            if caption.item as usize >= index.ids().len() {
                return Err(Error::captions(
                    format!("caption {:?}", caption.text),
                    format!("an item below {}", index.ids().len()),
                    caption.item.to_string(),
                    "resolve captions against the candidates of this index",
                ));
            }
            Ok(Example { tokens: tokenizer.encode(&caption.text)?, item: caption.item })
        };
        let weighted = |caption: &ItemCaption| {
            Ok(WeightedExample { example: example(caption)?, weight: caption.weight })
        };
        Ok(Self {
            train: Arc::new(train.iter().map(weighted).collect::<Result<_>>()?),
            valid: Arc::new(valid.iter().map(example).collect::<Result<_>>()?),
            identifiers: Arc::new(index.trie().identifiers()),
            trie: Arc::new(index.trie().clone()),
            padding: tokenizer.padding(),
        })
    }

    /// Number of training pairs.
    pub fn pairs(&self) -> usize {
        self.train.len()
    }

    /// Number of validation pairs.
    pub fn valid_pairs(&self) -> usize {
        self.valid.len()
    }

    /// SHA-256 of pairs and identifiers, in hexadecimal: what a resumed training must share.
    pub(super) fn digest(&self) -> String {
        let mut hash = Sha256::new();
        let mut pair = |example: &Example, weight: f32| {
            hash.update(example.item.to_le_bytes());
            hash.update(weight.to_le_bytes());
            hash.update((example.tokens.len() as u64).to_le_bytes());
            example.tokens.iter().for_each(|token| hash.update(token.to_le_bytes()));
        };
        self.train.iter().for_each(|weighted| pair(&weighted.example, weighted.weight));
        self.valid.iter().for_each(|example| pair(example, 0.0));
        self.identifiers.as_flat().iter().for_each(|token| hash.update(token.to_le_bytes()));
        hex(&hash.finalize())
    }

    /// The trie of the candidates.
    pub fn trie(&self) -> &Arc<Trie> {
        &self.trie
    }

    /// Steps of one pass over the pairs.
    pub(super) fn steps_per_epoch(&self, config: &TrainConfig) -> usize {
        self.train.len().div_ceil(config.batch_size)
    }
}

/// Where a training stands: shared by the loader, the checkpoints and the events.
#[derive(Debug, Clone)]
pub(super) struct Position {
    step: Arc<AtomicUsize>,
    steps: usize,
    per_round: usize,
}

impl Position {
    pub(super) fn new(step: usize, steps: usize, rounds: usize) -> Self {
        let per_round = steps.div_ceil(rounds).max(1);
        Self { step: Arc::new(AtomicUsize::new(step)), steps, per_round }
    }

    /// Steps done.
    pub(super) fn step(&self) -> usize {
        self.step.load(Ordering::Relaxed)
    }

    /// Whether all steps are done.
    pub(super) fn is_finished(&self) -> bool {
        self.step() >= self.steps
    }

    /// Steps in all.
    pub(super) fn steps(&self) -> usize {
        self.steps
    }

    /// The step at which the current round ends.
    fn round_end(&self) -> usize {
        (self.step() / self.per_round * self.per_round + self.per_round).min(self.steps)
    }

    /// Rounds still to run.
    pub(super) fn rounds_left(&self) -> usize {
        if self.is_finished() {
            return 0;
        }
        self.steps.div_ceil(self.per_round) - self.step() / self.per_round
    }
}

/// Hands out the batches of a round.
pub(super) struct TrainLoader<B: Backend> {
    pub(super) data: TrainingData,
    pub(super) config: Arc<TrainConfig>,
    pub(super) position: Position,
    pub(super) stop: StopFlag,
    pub(super) device: B::Device,
    /// Raised when the loss was no number.
    pub(super) diverged: Arc<AtomicBool>,
    /// The order of the pass at hand, and which pass that is.
    pub(super) order: Mutex<Option<(usize, Arc<Vec<u32>>)>>,
}

impl<B: Backend> TrainLoader<B> {
    pub(super) fn new(
        data: TrainingData,
        config: Arc<TrainConfig>,
        position: Position,
        stop: StopFlag,
        diverged: Arc<AtomicBool>,
        device: B::Device,
    ) -> Self {
        Self { data, config, position, stop, device, diverged, order: Mutex::new(None) }
    }

    /// The order of the pairs in a pass: shuffled; then pairs of like length put into one batch
    /// within windows of some batches, so that little of a batch is padding; batches shuffled.
    fn order(&self, pass: usize) -> Arc<Vec<u32>> {
        let mut kept = self.order.lock().unwrap_or_else(|e| e.into_inner());
        if let Some((of, order)) = kept.as_ref()
            && *of == pass
        {
            return order.clone();
        }
        let train = &self.data.train;
        let mut rng = ChaCha8Rng::seed_from_u64(self.config.seed);
        rng.set_stream(pass as u64);
        let uniform = train.iter().all(|pair| pair.weight == train[0].weight);
        let mut order: Vec<u32> = (0..train.len() as u32).collect();
        match uniform {
            true => order.shuffle(&mut rng),
            false => order = weighted_draws(train, &mut rng),
        }
        let batch = self.config.batch_size;
        // The last batch may be short: cut off before sorting, it holds captions of any length.
        let (whole, rest) = order.split_at_mut(train.len() / batch * batch);
        for window in whole.chunks_mut(WINDOW * batch) {
            window.sort_by_key(|&index| train[index as usize].example.tokens.len());
        }
        let mut batches: Vec<&[u32]> = whole.chunks_exact(batch).collect();
        batches.shuffle(&mut rng);
        let order = Arc::new([batches.concat(), rest.to_vec()].concat());
        *kept = Some((pass, order.clone()));
        order
    }

    /// The pairs of a step.
    fn pairs(&self, step: usize) -> Vec<&WeightedExample> {
        let train = &self.data.train;
        let per_epoch = self.data.steps_per_epoch(&self.config);
        let order = self.order(step / per_epoch);
        let batch = self.config.batch_size;
        let start = step % per_epoch * batch;
        order[start..(start + batch).min(train.len())]
            .iter()
            .map(|&index| &train[index as usize])
            .collect()
    }

    fn batch(&self, step: usize) -> TrainBatch<B> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.config.seed ^ 0xD0_0D);
        rng.set_stream(step as u64);
        let seed = rng.random();
        B::seed(&self.device, seed);
        let pairs = self.pairs(step);
        let rows: Vec<Vec<u32>> = pairs
            .iter()
            .map(|pair| drop_words(&pair.example.tokens, self.config.word_dropout, &mut rng))
            .collect();
        let items: Vec<u32> = pairs.iter().map(|pair| pair.example.item).collect();
        let targets =
            TargetBatch::new(&items, &self.data.identifiers, &self.data.trie, &self.device);
        let queries = QueryBatch::new(&rows, self.data.padding, &self.device)
            .expect("captions were tokenised to at least one token");
        TrainBatch { queries, targets, seed }
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

/// Leaves out tokens between the first and the last with probability `share`, but not all of them.
pub(crate) fn drop_words(tokens: &[u32], share: f64, rng: &mut ChaCha8Rng) -> Vec<u32> {
    if share == 0.0 || tokens.len() <= 3 {
        return tokens.to_vec();
    }
    let last = tokens.len() - 1;
    let kept: Vec<u32> = tokens
        .iter()
        .enumerate()
        .filter(|&(at, _)| at == 0 || at == last || rng.random::<f64>() >= share)
        .map(|(_, &token)| token)
        .collect();
    if kept.len() > 2 { kept } else { tokens.to_vec() }
}

impl<B: Backend> DataLoader<B, TrainBatch<B>> for TrainLoader<B> {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<TrainBatch<B>> + 'a> {
        Box::new(TrainRound { loader: self, end: self.position.round_end() })
    }

    fn num_items(&self) -> usize {
        self.position.per_round * self.config.batch_size
    }

    fn to_device(&self, device: &B::Device) -> Arc<dyn DataLoader<B, TrainBatch<B>>> {
        Arc::new(Self::new(
            self.data.clone(),
            self.config.clone(),
            self.position.clone(),
            self.stop.clone(),
            self.diverged.clone(),
            device.clone(),
        ))
    }

    fn slice(&self, _start: usize, _end: usize) -> Arc<dyn DataLoader<B, TrainBatch<B>>> {
        self.to_device(&self.device)
    }
}

struct TrainRound<'a, B: Backend> {
    loader: &'a TrainLoader<B>,
    end: usize,
}

impl<B: Backend> Iterator for TrainRound<'_, B> {
    type Item = TrainBatch<B>;

    fn next(&mut self) -> Option<Self::Item> {
        let position = &self.loader.position;
        let step = position.step();
        let diverged = self.loader.diverged.load(Ordering::Relaxed);
        if step >= self.end || diverged || self.loader.stop.is_raised() {
            return None;
        }
        let batch = self.loader.batch(step);
        position.step.store(step + 1, Ordering::Relaxed);
        Some(batch)
    }
}

impl<B: Backend> DataLoaderIterator<TrainBatch<B>> for TrainRound<'_, B> {
    fn progress(&self) -> Progress {
        let left = self.end - self.loader.position.step().min(self.end);
        let total = self.loader.position.per_round.max(left);
        Progress::new(total - left, total)
    }
}

/// Hands out the validation queries.
pub(super) struct ValidLoader<B: Backend> {
    pub(super) data: TrainingData,
    pub(super) limit: usize,
    pub(super) stop: StopFlag,
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
        Arc::new(Self {
            data: self.data.clone(),
            limit: self.limit,
            stop: self.stop.clone(),
            device: device.clone(),
        })
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
        // A stop that was asked for waits for no validation.
        if self.at >= examples.len() || self.loader.stop.is_raised() {
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
    fn rounds_cover_all_steps_once() {
        let position = Position::new(0, 103, 10);
        let mut ends = Vec::new();
        while position.step() < position.steps() {
            let left = position.rounds_left();
            let end = position.round_end();
            position.step.store(end, Ordering::Relaxed);
            assert_eq!(position.rounds_left(), left - 1);
            ends.push(end);
        }
        assert_eq!((ends.len(), ends[0], ends[9]), (10, 11, 103));
        assert_eq!(Position::new(50, 103, 10).rounds_left(), 6);
    }

    #[test]
    fn dropped_words_leave_the_frame_and_something_between() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let tokens = [2, 10, 11, 12, 13, 3];
        let mut lengths = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let kept = drop_words(&tokens, 0.5, &mut rng);
            assert!(kept.len() > 2 && kept[0] == 2 && kept.last() == Some(&3));
            assert!(kept.is_sorted_by_key(|t| tokens.iter().position(|other| other == t)));
            lengths.insert(kept.len());
        }
        assert!(lengths.len() > 2);
        assert_eq!(drop_words(&tokens, 0.0, &mut rng), tokens);
    }

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
