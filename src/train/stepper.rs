//! Training a step at a time: what the trainer's loop does, without the loop.

use std::sync::{Arc, Mutex};

use burn::{
    module::Module,
    tensor::backend::AutodiffBackend,
    train::{Learner, LearningComponentsMarker, TrainOutput},
};

use super::{
    CartLearner, StepOutput, TrainBatch, TrainConfig,
    frozen::Frozen,
    learner::Context,
    metric::{Listener, Reporter},
    placement::DeviceGroup,
    shared::Shared,
};
use crate::{
    cancel::StopFlag,
    error::Result,
    index::IdentifierMap,
    model::Cart,
    optim::{CartOptimizer, WarmupCosine},
    trie::Trie,
};

/// The learner of a [`Stepper`].
type Components<B> =
    LearningComponentsMarker<B, WarmupCosine, CartLearner<B>, CartOptimizer<CartLearner<B>, B>>;

/// Trains a step at a time, through burn-train's learner with the parts of the
/// [`Trainer`](super::Trainer): for measurements, tests and loops of one's own.
///
/// Batches, validation and checkpoints are left to the caller, as is what to do about steps that
/// are not finite; those change nothing here either.
///
/// # Example
/// ```
/// use std::sync::Arc;
/// use burn::backend::{Autodiff, Flex};
/// use cart_retrieval::{expert::{QueryBatch, TargetBatch, Codes, Stepper, TrainBatch, Trie},
///     identifier::LevelSizes, model::CartConfig, train::TrainConfig};
/// type Training = Autodiff<Flex>;
/// let device = Default::default();
/// let identifiers = Codes::from_rows(2, &[[0, 0], [1, 0]])?;
/// let vocabulary = LevelSizes::new(vec![2, 1])?;
/// let trie = Arc::new(Trie::build(&identifiers, &vocabulary)?);
/// let cart = CartConfig::new(10, vocabulary).init::<Training>(&device)?;
/// let mut stepper = Stepper::new(cart, trie.clone(), &TrainConfig::default(), 100)?;
/// let queries = QueryBatch::new(&[[4, 5], [6, 7]], 0, &device)?;
/// let targets = TargetBatch::new(&[0, 1], &identifiers, &trie, &device);
/// let batch = TrainBatch::new(queries, targets, 1);
/// println!("{}", stepper.step(batch).loss());
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
pub struct Stepper<B: AutodiffBackend> {
    learner: Learner<Components<B>>,
}

impl<B: AutodiffBackend> Stepper<B> {
    /// Prepares to train a network for `steps` steps, over which the learning rate is scheduled.
    ///
    /// Of the settings, batch size, epochs, word dropout, the cache of frozen layers and validation
    /// are not used.
    ///
    /// # Errors
    /// As [`TrainConfig::validate`]; [`Error::Config`](crate::Error::Config) for a precision that
    /// the device does not have and for more frozen layers than the encoder has.
    pub fn new(cart: Cart<B>, trie: Arc<Trie>, config: &TrainConfig, steps: usize) -> Result<Self> {
        config.validate(trie.levels())?;
        let cart = config.freeze.apply(cart)?;
        if let Some(device) = cart.devices().first() {
            config.precision.check::<B>(device)?;
        }
        let frozen = Frozen::new(config.freeze, config.precision, &cart, |_| None)?;
        let shared =
            Shared::new(config, steps, 0, &StopFlag::new(), &(Arc::new(|_| ()) as Listener));
        let context = Context {
            config: config.clone(),
            frozen,
            decay: config.average_decay(steps),
            owners: IdentifierMap::single(trie.len()),
            trie,
            geometry: None,
            reporter: Arc::new(Reporter::new(None, shared.position.clone())),
            shared,
            together: DeviceGroup::alone(),
            shares: Mutex::default(),
        };
        let learner = CartLearner::new(cart, Arc::new(context));
        let optimizer = learner.optimizer();
        Ok(Self { learner: Learner::new(learner, optimizer, config.schedule(steps)) })
    }

    /// Forward and backward; the weights stay.
    pub fn gradients(&self, batch: TrainBatch<B>) -> TrainOutput<StepOutput<B::InnerBackend>> {
        self.learner.train_step(batch)
    }

    /// Forward, backward and the update of the weights.
    pub fn step(&mut self, batch: TrainBatch<B>) -> StepOutput<B::InnerBackend> {
        self.learner.lr_step();
        let output = self.learner.train_step(batch);
        self.learner.optimizer_step(output.grads);
        output.item
    }

    /// The network and what its steps need.
    pub fn learner(&self) -> CartLearner<B> {
        self.learner.model()
    }
}
