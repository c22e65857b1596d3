//! A training of a moment in a folder, to be interrupted; the unit tests of the trainer share it.

use std::{
    path::PathBuf,
    sync::{Arc, LazyLock, Mutex},
};

use burn::backend::Flex;
use cart_retrieval::{
    prelude::*,
    train::{TrainEvent, Trained},
};

use super::setup::{A, Setup, setup, weights};

pub static SETUP: LazyLock<Setup> = LazyLock::new(setup);

/// A training of a moment: four rounds of two steps.
pub fn quick() -> TrainConfig {
    TrainConfig {
        epochs: 4,
        batch_size: 24,
        learning_rate: 3e-3,
        validations: 4,
        validation_queries: 8,
        ..TrainConfig::default()
    }
}

/// What ends the same however a training was interrupted: weights, and what validations found.
pub type End = (Vec<f32>, Vec<(usize, Option<f64>)>);

pub fn end(trained: &Trained<Flex>) -> End {
    let validated = trained.history.iter().filter(|round| round.recall_at_1.is_some());
    let found = validated.map(|round| (round.step, round.loss)).collect();
    (weights(&trained.model), found)
}

pub struct Case {
    pub data: TrainingData,
    pub config: TrainConfig,
    pub folder: tempfile::TempDir,
    pub events: Arc<Mutex<Vec<TrainEvent>>>,
}

impl Case {
    pub fn new(config: TrainConfig, queries: usize) -> Self {
        let Setup { tokenizer, train, index, .. } = &*SETUP;
        let queries = &SETUP.queries[..queries];
        let data = TrainingData::new(
            tokenizer,
            TrainingCaptions { train: &train[..48], valid: queries },
            index,
        )
        .unwrap();
        let folder = tempfile::tempdir().unwrap();
        Self { data, config, folder, events: Arc::default() }
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    pub fn part(&self, name: &str) -> PathBuf {
        self.path().join("checkpoint").join(name)
    }

    pub fn trainer(&self) -> Trainer {
        let events = self.events.clone();
        Trainer::new(self.config.clone())
            .with_progress(move |event| events.lock().unwrap().push(event))
    }

    pub fn fit(&self, trainer: Trainer) -> cart_retrieval::Result<Trained<Flex>> {
        let device = Default::default();
        let config = SETUP.config.clone().with_width(16, 16, 2);
        trainer.fit(config.init::<A>(&device).unwrap(), &self.data, &device)
    }

    /// Trains in the folder, or goes on there.
    pub fn resume(&self) -> cart_retrieval::Result<Trained<Flex>> {
        self.fit(self.trainer().with_folder(self.path()).with_resume(true))
    }

    /// Rounds whose checkpoints were skipped since the last call.
    pub fn skipped(&self) -> Vec<usize> {
        let events = std::mem::take(&mut *self.events.lock().unwrap());
        let skipped = |event: &TrainEvent| match event {
            TrainEvent::CheckpointSkipped { interval, .. } => Some(*interval),
            _ => None,
        };
        events.iter().filter_map(skipped).collect()
    }

    /// Names in the folder and its checkpoints.
    pub fn names(&self) -> Vec<String> {
        let folders = [self.path(), self.path().join("checkpoint")];
        let entries = folders.iter().flat_map(|folder| std::fs::read_dir(folder).unwrap());
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}
