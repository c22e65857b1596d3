//! The network as burn-train's learner sees it: one step of training, one of validation.

use std::{
    fmt,
    sync::{Arc, Mutex, atomic::Ordering},
};

use burn::{
    data::dataloader::DataLoader,
    module::{AutodiffModule, Module},
    optim::{GradientsAccumulator, GradientsParams, Optimizer},
    tensor::{
        Tensor,
        backend::{AutodiffBackend, Backend},
    },
    train::{InferenceStep, ItemLazy, TrainOutput, TrainStep, metric::Adaptor},
};

use super::{
    Partners, Placement, Precision, TrainConfig,
    devices::Together,
    freeze::Frozen,
    guard::Guard,
    loader::ValidLoader,
    memory::or_fault,
    metric::{LossValue, RecallValue, Reporter},
    rounds::Rounds,
    step::guide_factors,
};
use crate::{
    backend::on_host,
    data::{QueryBatch, TargetBatch},
    decode::{BeamConfig, SearchSpace, beam_search},
    geometry::Geometry,
    identifier::Owners,
    model::{Cart, LossConfig},
    nn::{GuideBatch, averaged, beginning},
    trie::Trie,
};

/// A device's rows of a step: queries with the identifiers they should give.
#[derive(Debug, Clone)]
pub struct TrainBatch<B: Backend> {
    /// Tokenised captions.
    pub queries: QueryBatch<B>,
    /// Identifiers of the items they describe.
    pub targets: TargetBatch<B>,
    /// Where those items lie, if that is known.
    pub guide: Option<GuideBatch<B>>,
    /// What the queries are mixed with, if they are.
    pub partners: Option<Partners<B>>,
    /// Seed of the dropout.
    pub seed: u64,
    /// Numbers of the training captions, one a row; `u32::MAX` where there is none.
    pub texts: Vec<u32>,
    /// Rows of the step on all devices together.
    pub of: usize,
    /// Number of the step, from 0.
    pub step: usize,
    /// Number of the device, from 0.
    pub rank: usize,
}

/// Validation queries with the items they should find.
#[derive(Debug, Clone)]
pub struct ValidBatch<B: Backend> {
    /// Tokenised queries.
    pub queries: QueryBatch<B>,
    /// Identifiers of the items they describe.
    pub targets: TargetBatch<B>,
    /// Where those items lie, if that is known.
    pub guide: Option<GuideBatch<B>>,
    /// The items they describe.
    pub items: Vec<u32>,
}

/// What the steps need beside the weights.
pub(super) struct Context {
    pub(super) loss: LossConfig,
    pub(super) micro_batch: usize,
    pub(super) precision: Precision,
    /// Absent where no layer is frozen.
    pub(super) frozen: Option<Frozen>,
    pub(super) beam: usize,
    /// What is kept of the average of the weights at a step.
    pub(super) decay: Option<f64>,
    pub(super) trie: Arc<Trie>,
    pub(super) geometry: Option<Arc<Geometry>>,
    pub(super) owners: Owners,
    pub(super) rounds: Arc<Mutex<Rounds>>,
    pub(super) guard: Arc<Guard>,
    pub(super) reporter: Arc<Reporter>,
    pub(super) together: Together,
    /// Gradients of the step at hand, by number of the device.
    pub(super) shares: Mutex<Vec<(usize, GradientsParams)>>,
}

impl Context {
    pub(super) fn new(
        (config, steps): (&TrainConfig, usize),
        (trie, geometry, owners): (Arc<Trie>, Option<Arc<Geometry>>, Owners),
        rounds: Arc<Mutex<Rounds>>,
        guard: Arc<Guard>,
        reporter: Reporter,
        frozen: Option<Frozen>,
        together: Together,
    ) -> Self {
        Self {
            loss: config.loss.clone(),
            micro_batch: config.micro_batch,
            precision: config.precision,
            frozen,
            beam: config.validation_beam,
            decay: config.average_decay(steps),
            trie,
            geometry,
            owners,
            rounds,
            guard,
            reporter: Arc::new(reporter),
            together,
            shares: Mutex::default(),
        }
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("loss", &self.loss).finish_non_exhaustive()
    }
}

/// The network with what its training and validation steps need.
#[derive(Module, Debug)]
pub struct CartLearner<B: Backend> {
    pub(super) cart: Cart<B>,
    /// The average of its weights over the steps, where one is taken.
    pub(super) average: Option<Cart<B>>,
    #[module(skip)]
    pub(super) context: Arc<Context>,
}

impl<B: Backend> TrainBatch<B> {
    /// A whole step of one device.
    pub fn new(queries: QueryBatch<B>, targets: TargetBatch<B>, seed: u64) -> Self {
        let [of, _] = queries.tokens.dims();
        Self {
            queries,
            targets,
            guide: None,
            partners: None,
            seed,
            texts: vec![u32::MAX; of],
            of,
            step: 0,
            rank: 0,
        }
    }
}

impl<B: AutodiffBackend> TrainStep for CartLearner<B> {
    type Input = TrainBatch<B>;
    type Output = StepOutput<B::InnerBackend>;

    fn step(&self, batch: TrainBatch<B>) -> TrainOutput<Self::Output> {
        let device = batch.queries.tokens.device();
        let [rows, _] = batch.queries.tokens.dims();
        let Together { devices, placement, distributed } = self.context.together;
        let work = || self.gradients(&batch, &device);
        let (loss, grads) = match devices > 1 && !distributed {
            true => or_fault(&self.context.guard, work, || {
                (Tensor::zeros([1], &device), GradientsParams::new())
            }),
            false => work(),
        };
        if on_host::<B>(&device) {
            // Where reading costs no wait, no step is built on a loss that is no number.
            loss.to_data().iter::<f64>().for_each(|loss| self.context.guard.see_loss(loss));
        }
        let reporter = self.context.reporter.clone();
        let item = StepOutput { loss, rows, of: batch.of, step: batch.step, reporter };
        let grads = if devices > 1 && placement == Placement::Main && !distributed {
            let mut shares = self.context.shares.lock().unwrap_or_else(|e| e.into_inner());
            shares.push((batch.rank, grads));
            GradientsParams::new()
        } else {
            grads
        };
        TrainOutput { grads, item }
    }

    /// Updates the weights; the gradients of several devices are added in the order of the devices,
    /// where burn-train would add them as they come.
    fn optimize<A, O>(self, optim: &mut O, lr: f64, grads: GradientsParams) -> Self
    where
        A: AutodiffBackend,
        O: Optimizer<Self, A>,
        Self: AutodiffModule<A>,
    {
        let mut shares =
            std::mem::take(&mut *self.context.shares.lock().unwrap_or_else(|e| e.into_inner()));
        if shares.is_empty() {
            return optim.step(lr, self, grads).with_average();
        }
        shares.sort_by_key(|(rank, _)| *rank);
        let devices = <Self as Module<A>>::devices(&self);
        let mut sum = GradientsAccumulator::<Self>::new();
        for (_, grads) in shares {
            let grads = grads.to_device::<A, Self>(&devices[0], &self);
            sum.accumulate::<A>(&self, grads);
        }
        optim.step(lr, self, sum.grads()).with_average()
    }
}

impl<B: Backend> InferenceStep for CartLearner<B> {
    type Input = ValidBatch<B>;
    type Output = ValidOutput;

    fn step(&self, batch: ValidBatch<B>) -> ValidOutput {
        let queries = batch.queries;
        let config = LossConfig {
            r_drop: 0.0,
            label_smoothing: 0.0,
            soft_targets: 0.0,
            guide_dropout: 0.0,
            ..self.context.loss.clone()
        };
        let cart = self.cart();
        let encoded = cart.encode_layers(queries.tokens.clone(), queries.padding.clone());
        let logits = cart.forward_encoded(&encoded, batch.targets.identifiers.clone());
        let (tokens, padding) = (queries.tokens.clone(), queries.padding.clone());
        let aligned = cart.aligned(&encoded, tokens, padding);
        let logits = match (cart.alignment().zip(aligned), &batch.guide) {
            (Some((head, aligned)), Some(guide)) => {
                let factors = guide_factors(&aligned, &config, 1, 0);
                head.guide(&aligned, guide, factors.as_ref(), logits)
            }
            _ => logits,
        };
        let loss = config.forward(logits, batch.targets.identifiers, &batch.targets.legal, 1);
        let loss = loss.total.into_data().iter::<f64>().next().unwrap_or(f64::NAN);
        let encoded = cart.encode(queries.tokens, queries.padding);
        let beam = BeamConfig {
            width: self.context.beam,
            scope: config.scope,
            decoder_weight: config.decoder_weight(),
            ..BeamConfig::default()
        };
        let space =
            SearchSpace::from(&self.context.trie).with_geometry(self.context.geometry.as_deref());
        let Ok(mut answers) = beam_search(cart, &encoded, space, &beam) else {
            self.context.guard.diverged().store(true, Ordering::Relaxed);
            return ValidOutput { loss, recall_at_1: 0.0, queries: batch.items.len() };
        };
        let owners = &self.context.owners;
        answers.iter_mut().for_each(|found| owners.distinct(found, |answer| answer.item));
        let ranks: Vec<Option<usize>> = answers
            .iter()
            .zip(&batch.items)
            .map(|(answers, &item)| answers.iter().position(|a| owners.of(a.item) == item))
            .collect();
        let mut rounds = self.context.rounds.lock().unwrap_or_else(|e| e.into_inner());
        rounds.validated(loss, &ranks, cart);
        let first = ranks.iter().filter(|rank| **rank == Some(0)).count();
        let queries = batch.items.len();
        ValidOutput { loss, recall_at_1: first as f64 / queries as f64, queries }
    }
}

/// Does a validation outside of burn-train's loop.
pub(super) fn validate<B: AutodiffBackend>(
    learner: &CartLearner<B>,
    queries: &ValidLoader<B::InnerBackend>,
) {
    let learner = learner.valid();
    queries.iter().for_each(|batch| {
        InferenceStep::step(&learner, batch);
    });
}

/// The loss of a device's rows of a step, weighted by them and still on the device.
#[derive(Clone)]
pub struct StepOutput<B: Backend> {
    loss: Tensor<B, 1>,
    rows: usize,
    of: usize,
    step: usize,
    reporter: Arc<Reporter>,
}

/// Loss and hits of a validation batch.
#[derive(Debug, Clone, Copy)]
pub struct ValidOutput {
    loss: f64,
    recall_at_1: f64,
    queries: usize,
}

/// The mean loss of a device's rows of a step, on the host.
#[derive(Debug, Clone, Copy)]
pub struct StepLoss {
    loss: f64,
    rows: usize,
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
        self.reporter.share(self.step, self.rows, self.of, loss);
        StepLoss { loss: loss * self.of as f64 / self.rows as f64, rows: self.rows }
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
        LossValue(self.loss, self.rows)
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
        let average = context.decay.map(|_| beginning::<B, _>(cart.clone()));
        Self { cart, average, context }
    }

    /// The network without autodiff: the average where one is taken.
    pub fn into_cart(self) -> Cart<B::InnerBackend> {
        self.cart().valid()
    }

    /// Takes a step's weights into the average.
    fn with_average(self) -> Self {
        let Self { cart, average, context } = self;
        let average = match (average, context.decay) {
            (Some(average), Some(decay)) => Some(averaged::<B, _>(average, &cart, decay)),
            _ => None,
        };
        Self { cart, average, context }
    }
}

impl<B: Backend> CartLearner<B> {
    /// The network that validations search with: the average of its weights where one is taken.
    pub fn cart(&self) -> &Cart<B> {
        self.average.as_ref().unwrap_or(&self.cart)
    }
}
