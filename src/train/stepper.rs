//! Training a step at a time: what the trainer's loop does, without the loop.

use std::sync::{Arc, Mutex, atomic::AtomicBool};

use burn::{
    tensor::backend::AutodiffBackend,
    train::{Learner, LearningComponentsMarker, TrainOutput},
};

use super::{
    CartLearner, CartOptimizer, StepOutput, TrainBatch, TrainConfig, WarmupCosine,
    learner::Context, loader::Position, rounds::Rounds,
};
use crate::{error::Result, model::Cart, trie::Trie};

/// The learner of a [`Stepper`].
type Components<B> =
    LearningComponentsMarker<B, WarmupCosine, CartLearner<B>, CartOptimizer<CartLearner<B>, B>>;

/// Trains a step at a time, through burn-train's learner with the parts of the
/// [`Trainer`](super::Trainer): for measurements, tests and loops of one's own.
///
/// Batches, validation, checkpoints and the guard against divergence are left to the caller.
///
/// # Example
/// ```
/// use std::sync::Arc;
/// use burn::backend::{Autodiff, Flex};
/// use cart_retrieval::{
///     data::{QueryBatch, TargetBatch}, identifier::{Codes, Vocabulary}, model::CartConfig,
///     train::{Stepper, TrainBatch, TrainConfig}, trie::Trie,
/// };
/// type Training = Autodiff<Flex>;
/// let device = Default::default();
/// let identifiers = Codes::from_rows(2, &[[0, 0], [1, 0]])?;
/// let vocabulary = Vocabulary::new(vec![2, 1])?;
/// let trie = Arc::new(Trie::build(&identifiers, &vocabulary)?);
/// let cart = CartConfig::new(10, vocabulary).init::<Training>(&device)?;
/// let mut stepper = Stepper::new(cart, trie.clone(), &TrainConfig::default(), 100)?;
/// let batch = TrainBatch {
///     queries: QueryBatch::new(&[[4, 5], [6, 7]], 0, &device)?,
///     targets: TargetBatch::new(&[0, 1], &identifiers, &trie, &device),
///     seed: 1,
/// };
/// println!("{}", stepper.step(batch).loss());
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
pub struct Stepper<B: AutodiffBackend> {
    learner: Learner<Components<B>>,
}

impl<B: AutodiffBackend> Stepper<B> {
    /// Prepares to train a network for `steps` steps, over which the learning rate is scheduled.
    ///
    /// Of the settings, batch size, epochs, word dropout and validation are not used.
    ///
    /// # Errors
    /// As [`TrainConfig::validate`].
    pub fn new(cart: Cart<B>, trie: Arc<Trie>, config: &TrainConfig, steps: usize) -> Result<Self> {
        config.validate(trie.levels())?;
        let rounds = Rounds::new(Position::new(0, steps, 1), Arc::new(|_| ()), 0);
        let context = Context {
            loss: config.loss.clone(),
            beam: config.validation_beam,
            trie,
            rounds: Arc::new(Mutex::new(rounds)),
            diverged: Arc::new(AtomicBool::new(false)),
        };
        let learner = CartLearner::new(cart, Arc::new(context));
        let optimizer = CartOptimizer::new(config.weight_decay, config.clip_norm);
        let schedule = WarmupCosine::new(
            config.learning_rate,
            config.warmup_steps(steps),
            steps,
            config.final_rate,
        );
        Ok(Self { learner: Learner::new(learner, optimizer, schedule) })
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
