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
    config::TrainConfig, frozen::Frozen, metric::Reporter, placement::DeviceGroup, shared::Shared,
};
use crate::{
    index::{IdentifierMap, PrefixStats},
    model::Cart,
    nn::{averaged, beginning},
    optim::CartOptimizer,
    trie::Trie,
};

/// Everything that steps need except the weights.
pub(super) struct Context {
    pub(super) config: TrainConfig,
    /// Absent where no layer is frozen.
    pub(super) frozen: Option<Frozen>,
    /// What is kept of the average of the weights at a step.
    pub(super) decay: Option<f64>,
    pub(super) trie: Arc<Trie>,
    pub(super) geometry: Option<Arc<PrefixStats>>,
    pub(super) owners: IdentifierMap,
    pub(super) shared: Shared,
    pub(super) reporter: Arc<Reporter>,
    pub(super) together: DeviceGroup,
    /// Gradients of the step at hand, by number of the device.
    pub(super) shares: Mutex<Vec<(usize, GradientsParams)>>,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("config", &self.config).finish_non_exhaustive()
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

    /// The optimizer of its settings.
    pub(super) fn optimizer(&self) -> CartOptimizer<Self, B> {
        let TrainConfig { weight_decay, clip_norm, .. } = self.context.config;
        let rates = self.context.config.encoder_rates(self.cart.encoder().n_layers());
        CartOptimizer::new(weight_decay, clip_norm)
            .with_encoder_rates(rates)
            .with_gate(self.context.shared.guard.clone())
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
