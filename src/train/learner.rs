//! The network as burn-train's learner sees it: one step of training, one of validation.

use std::{
    marker::PhantomData,
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use burn::{
    module::{AutodiffModule, Module, ModuleVisitor, Param},
    optim::GradientsParams,
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
    nn::{on_host, with_noise},
    trie::Trie,
};

/// Queries with the identifiers they should give.
#[derive(Debug, Clone)]
pub struct TrainBatch<B: Backend> {
    /// Tokenised captions.
    pub queries: QueryBatch<B>,
    /// Identifiers of the items they describe.
    pub targets: TargetBatch<B>,
    /// Seed of the dropout.
    pub seed: u64,
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
    pub(super) beam: usize,
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
        let device = batch.queries.tokens.device();
        let [pairs, _] = batch.queries.tokens.dims();
        // Backends in the host's memory leave a core idle outside of large products: there, every
        // core takes a part of the batch through a copy of the network with a graph of its own.
        let cores = if on_host::<B>(&device) { rayon::current_num_threads() } else { 1 };
        let parts = split(pairs, cores);
        let (loss, grads) = match parts.as_slice() {
            [_] => self.part(batch.queries, batch.targets, batch.seed),
            _ => self.parts(&batch, &parts, &device),
        };
        let diverged = self.context.diverged.clone();
        if on_host::<B>(&device) && !loss.clone().into_data().iter::<f32>().all(f32::is_finite) {
            // Where reading costs no wait, no step is built on a loss that is no number.
            diverged.store(true, Ordering::Relaxed);
        }
        TrainOutput { grads, item: StepOutput { loss, pairs, diverged } }
    }
}

/// Ranges of rows for up to `cores` threads, none of fewer than 8 rows.
fn split(rows: usize, cores: usize) -> Vec<Range<usize>> {
    let parts = cores.min(rows / 8).max(1);
    (0..parts).map(|part| rows * part / parts..rows * (part + 1) / parts).collect()
}

/// Loss (`[1]`) and gradients of a part of a batch.
type Part<B> = (Tensor<<B as AutodiffBackend>::InnerBackend, 1>, GradientsParams);

impl<B: AutodiffBackend> CartLearner<B> {
    /// Forward and backward.
    fn part(&self, queries: QueryBatch<B>, targets: TargetBatch<B>, seed: u64) -> Part<B> {
        let config = &self.context.loss;
        // Both passes of R-Drop are one batch: every query twice, with dropouts of their own.
        let passes = if config.r_drop > 0.0 { 2 } else { 1 };
        let (queries, targets) = match passes {
            2 => (queries.doubled(), targets.doubled()),
            _ => (queries, targets),
        };
        let loss = with_noise(seed, || {
            let logits =
                self.cart.forward(queries.tokens, queries.padding, targets.identifiers.clone());
            config.forward(logits, targets.identifiers, &targets.legal, passes)
        });
        let grads = GradientsParams::from_grads(loss.total.backward(), self);
        (loss.total.inner(), grads)
    }

    /// The same, a thread for each part of the batch; gradients and losses are summed in order.
    fn parts(&self, batch: &TrainBatch<B>, parts: &[Range<usize>], device: &B::Device) -> Part<B> {
        let rows = parts.last().map_or(0, |part| part.end) as f64;
        let results: Vec<Part<B>> = std::thread::scope(|scope| {
            let threads: Vec<_> = parts
                .iter()
                .enumerate()
                .map(|(number, part)| {
                    let learner = self.clone().fork(device);
                    let (queries, targets) =
                        (batch.queries.rows(part.clone()), batch.targets.rows(part.clone()));
                    let seed = batch.seed.wrapping_add(number as u64);
                    scope.spawn(move || learner.part(queries, targets, seed))
                })
                .collect();
            let join = |thread: std::thread::ScopedJoinHandle<'_, Part<B>>| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            threads.into_iter().map(join).collect()
        });
        let shares = parts.iter().map(|part| part.len() as f64 / rows);
        let mut sum = WeightedSum::<B> {
            backend: PhantomData,
            parts: Vec::new(),
            out: GradientsParams::new(),
        };
        let mut total = Tensor::zeros([1], device);
        for ((loss, grads), share) in results.into_iter().zip(shares) {
            total = total + loss.mul_scalar(share);
            sum.parts.push((grads, share));
        }
        self.visit(&mut sum);
        (total, sum.out)
    }
}

/// Adds up the gradients of the parts of a batch, each with its share of the rows.
struct WeightedSum<B> {
    backend: PhantomData<B>,
    parts: Vec<(GradientsParams, f64)>,
    out: GradientsParams,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for WeightedSum<B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let mut sum: Option<Tensor<B::InnerBackend, D>> = None;
        for (grads, share) in &mut self.parts {
            if let Some(grad) = grads.remove::<B::InnerBackend, D>(param.id) {
                let grad = grad.mul_scalar(*share);
                sum = Some(match sum {
                    Some(sum) => sum + grad,
                    None => grad,
                });
            }
        }
        if let Some(sum) = sum {
            self.out.register::<B::InnerBackend, D>(param.id, sum);
        }
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
        let beam = BeamConfig { width: self.context.beam, scope: self.context.loss.scope };
        let Ok(answers) = beam_search(&self.cart, &encoded, &self.context.trie, &beam) else {
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

impl<B: Backend> StepOutput<B> {
    /// The loss, `[1]`.
    pub fn loss(&self) -> Tensor<B, 1> {
        self.loss.clone()
    }
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

    /// The network.
    pub fn cart(&self) -> &Cart<B> {
        &self.cart
    }

    /// The network without autodiff.
    pub fn into_cart(self) -> Cart<B::InnerBackend> {
        self.cart.valid()
    }
}
