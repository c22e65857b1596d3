//! The network as burn-train's learner sees it: one step of training, one of validation.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use burn::{
    module::{AutodiffModule, Module},
    tensor::{
        Tensor,
        backend::{AutodiffBackend, Backend},
    },
    train::{InferenceStep, ItemLazy, TrainOutput, TrainStep, metric::Adaptor},
};

use super::{
    metric::{LossValue, RecallValue},
    rounds::Rounds,
};
use crate::{
    data::{QueryBatch, TargetBatch},
    decode::{BeamConfig, beam_search},
    model::{Cart, LossConfig},
    trie::Trie,
};

/// Queries with the identifiers they should give.
#[derive(Debug, Clone)]
pub struct TrainBatch<B: Backend> {
    /// Tokenised captions.
    pub queries: QueryBatch<B>,
    /// Identifiers of the items they describe.
    pub targets: TargetBatch<B>,
}

/// Validation queries with the items they should find.
#[derive(Debug, Clone)]
pub struct ValidBatch<B: Backend> {
    /// Tokenised queries.
    pub queries: QueryBatch<B>,
    /// Identifiers of the items they describe.
    pub targets: TargetBatch<B>,
    /// The items they describe.
    pub items: Vec<u32>,
}

/// What the steps need beside the weights.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) loss: LossConfig,
    pub(super) beam: BeamConfig,
    pub(super) trie: Arc<Trie>,
    pub(super) rounds: Arc<Mutex<Rounds>>,
    pub(super) diverged: Arc<AtomicBool>,
}

/// The network with what its training and validation steps need.
#[derive(Module, Debug)]
pub struct CartLearner<B: Backend> {
    pub(super) cart: Cart<B>,
    #[module(skip)]
    pub(super) context: Arc<Context>,
}

impl<B: AutodiffBackend> TrainStep for CartLearner<B> {
    type Input = TrainBatch<B>;
    type Output = StepOutput<B::InnerBackend>;

    fn step(&self, batch: TrainBatch<B>) -> TrainOutput<Self::Output> {
        let config = &self.context.loss;
        let [pairs, _] = batch.targets.identifiers.dims();
        // Both passes of R-Drop are one batch: every query twice, with dropouts of their own.
        let passes = if config.r_drop > 0.0 { 2 } else { 1 };
        let (queries, targets) = match passes {
            2 => (batch.queries.doubled(), batch.targets.doubled()),
            _ => (batch.queries, batch.targets),
        };
        let logits =
            self.cart.forward(queries.tokens, queries.padding, targets.identifiers.clone());
        let loss = config.forward(logits, targets.identifiers, &targets.legal, passes);
        let output = StepOutput {
            loss: loss.total.clone().inner(),
            pairs,
            diverged: self.context.diverged.clone(),
        };
        TrainOutput::new(self, loss.total.backward(), output)
    }
}

impl<B: Backend> InferenceStep for CartLearner<B> {
    type Input = ValidBatch<B>;
    type Output = ValidOutput;

    fn step(&self, batch: ValidBatch<B>) -> ValidOutput {
        let queries = batch.queries;
        let logits = self.cart.forward(
            queries.tokens.clone(),
            queries.padding.clone(),
            batch.targets.identifiers.clone(),
        );
        let config = LossConfig { r_drop: 0.0, label_smoothing: 0.0, ..self.context.loss.clone() };
        let loss = config.forward(logits, batch.targets.identifiers, &batch.targets.legal, 1);
        let loss = loss.total.into_data().iter::<f64>().next().unwrap_or(f64::NAN);
        let encoded = self.cart.encode(queries.tokens, queries.padding);
        let Ok(answers) = beam_search(&self.cart, &encoded, &self.context.trie, &self.context.beam)
        else {
            self.context.diverged.store(true, Ordering::Relaxed);
            return ValidOutput { loss, recall_at_1: 0.0, queries: batch.items.len() };
        };
        let ranks: Vec<Option<usize>> = answers
            .iter()
            .zip(&batch.items)
            .map(|(answers, &item)| answers.iter().position(|answer| answer.item == item))
            .collect();
        let mut rounds = self.context.rounds.lock().unwrap_or_else(|e| e.into_inner());
        rounds.validated(loss, &ranks, &self.cart);
        let first = ranks.iter().filter(|rank| **rank == Some(0)).count();
        let queries = batch.items.len();
        ValidOutput { loss, recall_at_1: first as f64 / queries as f64, queries }
    }
}

/// The loss of a step, still on the device.
#[derive(Debug, Clone)]
pub struct StepOutput<B: Backend> {
    loss: Tensor<B, 1>,
    pairs: usize,
    diverged: Arc<AtomicBool>,
}

/// Loss and hits of a validation batch.
#[derive(Debug, Clone, Copy)]
pub struct ValidOutput {
    loss: f64,
    recall_at_1: f64,
    queries: usize,
}

/// The loss of a step, on the host.
#[derive(Debug, Clone, Copy)]
pub struct StepLoss {
    loss: f64,
    pairs: usize,
}

impl<B: Backend> ItemLazy for StepOutput<B> {
    type ItemSync = StepLoss;

    fn sync(self) -> StepLoss {
        let loss = self.loss.into_data().iter::<f64>().next().unwrap_or(f64::NAN);
        if !loss.is_finite() {
            self.diverged.store(true, Ordering::Relaxed);
        }
        StepLoss { loss, pairs: self.pairs }
    }
}

impl ItemLazy for ValidOutput {
    type ItemSync = Self;

    fn sync(self) -> Self {
        self
    }
}

impl Adaptor<LossValue> for StepLoss {
    fn adapt(&self) -> LossValue {
        LossValue(self.loss, self.pairs)
    }
}

impl Adaptor<LossValue> for ValidOutput {
    fn adapt(&self) -> LossValue {
        LossValue(self.loss, self.queries)
    }
}

impl Adaptor<RecallValue> for ValidOutput {
    fn adapt(&self) -> RecallValue {
        RecallValue(self.recall_at_1, self.queries)
    }
}

impl<B: AutodiffBackend> CartLearner<B> {
    pub(super) fn new(cart: Cart<B>, context: Arc<Context>) -> Self {
        Self { cart, context }
    }

    /// The network without autodiff.
    pub fn into_cart(self) -> Cart<B::InnerBackend> {
        self.cart.valid()
    }
}
