//! A step of validation as burn-train's learner asks for it.

use std::sync::atomic::Ordering;

use burn::{
    data::dataloader::DataLoader,
    module::AutodiffModule,
    tensor::backend::{AutodiffBackend, Backend},
    train::{InferenceStep, ItemLazy, metric::Adaptor},
};

use super::{
    batch::ValidBatch,
    learner::CartLearner,
    loader::ValidLoader,
    metric::{LossValue, MeanValue, RecallValue},
};
use crate::{
    decode::{BeamConfig, Engine, SearchSpace},
    model::{LossConfig, Supervised},
};

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
            alignment: 0.0,
            ..self.context.config.loss.clone()
        };
        let cart = self.cart();
        let encoded = cart.encode_layers(queries.tokens.clone(), queries.padding.clone());
        let asked = queries.clone();
        let supervised = Supervised { queries, targets: batch.targets, guide: batch.guide };
        let loss = config.of(cart, &encoded, supervised, 1, 0);
        let loss = loss.into_data().iter::<f64>().next().unwrap_or(f64::NAN);
        let engine = Engine::new(cart.clone());
        let encoded = engine.encode_batch(asked);
        let beam = BeamConfig {
            width: self.context.config.validation_beam,
            scope: config.scope,
            decoder_weight: config.decoder_weight(),
            ..BeamConfig::default()
        };
        let space = SearchSpace::from(&self.context.trie)
            .with_prefix_stats(self.context.geometry.as_deref());
        let Ok(mut answers) = engine.beam_search(&encoded, space, &beam) else {
            self.context.shared.diverged.store(true, Ordering::Relaxed);
            return ValidOutput { loss, recall_at_1: 0.0, queries: batch.items.len() };
        };
        let owners = &self.context.owners;
        answers.iter_mut().for_each(|found| owners.distinct(found, |answer| answer.item));
        let ranks: Vec<Option<usize>> = answers
            .iter()
            .zip(&batch.items)
            .map(|(answers, &item)| answers.iter().position(|a| owners.of(a.item) == item))
            .collect();
        let mut rounds = self.context.shared.rounds();
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

/// Loss and hits of a validation batch.
#[derive(Debug, Clone, Copy)]
pub struct ValidOutput {
    loss: f64,
    recall_at_1: f64,
    queries: usize,
}

impl ItemLazy for ValidOutput {
    type ItemSync = Self;

    fn sync(self) -> Self {
        self
    }
}

impl Adaptor<LossValue> for ValidOutput {
    fn adapt(&self) -> LossValue {
        MeanValue(self.loss, self.queries)
    }
}

impl Adaptor<RecallValue> for ValidOutput {
    fn adapt(&self) -> RecallValue {
        MeanValue(self.recall_at_1, self.queries)
    }
}
