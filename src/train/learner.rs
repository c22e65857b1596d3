//! The network as burn-train's learner sees it, with what its steps need.

use std::{
    fmt,
    sync::{Arc, Mutex},
};

use burn::{
    module::{AutodiffModule, Module},
    optim::GradientsParams,
    tensor::backend::{AutodiffBackend, Backend},
};

use super::{
    config::TrainConfig, frozen::Frozen, guard::Guard, metric::Reporter, placement::Together,
    precision::Precision, rounds::Rounds,
};
use crate::{
    index::{IdentifierMap, PrefixStats},
    model::{Cart, LossConfig},
    nn::{averaged, beginning},
    trie::Trie,
};

/// Everything that steps need except the weights.
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
    pub(super) geometry: Option<Arc<PrefixStats>>,
    pub(super) owners: IdentifierMap,
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
        (trie, geometry, owners): (Arc<Trie>, Option<Arc<PrefixStats>>, IdentifierMap),
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
    pub(super) fn with_average(self) -> Self {
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
