//! The trainer and its result.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use burn::tensor::backend::Backend;

use super::{
    config::TrainConfig,
    event::{IntervalSummary, StopReason, TrainEvent},
    folder::check_folder,
    metric::Listener,
    placement::Placement,
};
use crate::{cancel::StopFlag, error::Result, model::Cart};

/// Trains a network.
///
/// # Example
/// ```no_run
/// # use burn::backend::{Autodiff, Flex};
/// # use cart_retrieval::{model::Cart, train::{TrainConfig, Trainer, TrainingData}};
/// # fn run(model: Cart<Autodiff<Flex>>, data: TrainingData) -> cart_retrieval::Result<()> {
/// let trained = Trainer::new(TrainConfig { epochs: 20, ..TrainConfig::default() })
///     .with_folder("run")
///     .fit(model, &data, &Default::default())?;
/// println!("best interval {:?}, {:.0} s", trained.best_interval, trained.seconds);
/// # Ok(())
/// # }
/// ```
pub struct Trainer {
    pub(super) config: TrainConfig,
    pub(super) folder: Option<PathBuf>,
    pub(super) resume: bool,
    pub(super) stop: StopFlag,
    pub(super) listener: Listener,
    pub(super) dashboard: bool,
    pub(super) placement: Placement,
}

/// Result of a training.
#[derive(Debug)]
pub struct Trained<B: Backend> {
    /// The best model by validation Recall@1 (ties by MRR@10), or the last without validation.
    pub model: Cart<B>,
    /// The evaluation interval of that model, if there was validation.
    pub best_interval: Option<usize>,
    /// All evaluation intervals, including those before a resumption.
    pub history: Vec<IntervalSummary>,
    /// Why it ended.
    pub reason: StopReason,
    /// Seconds since this call started.
    pub seconds: f64,
}

impl Trainer {
    /// A trainer with these settings that writes nothing to disk.
    pub fn new(config: TrainConfig) -> Self {
        Self {
            config,
            folder: None,
            resume: false,
            stop: StopFlag::new(),
            listener: Arc::new(|_| ()),
            dashboard: false,
            placement: Placement::Main,
        }
    }

    /// Keeps checkpoints and logs in a folder, which is created if needed.
    pub fn with_folder(self, folder: impl AsRef<Path>) -> Self {
        Self { folder: Some(folder.as_ref().to_path_buf()), ..self }
    }

    /// Resumes the training in the folder, if there is one.
    pub fn with_resume(self, resume: bool) -> Self {
        Self { resume, ..self }
    }

    /// Stops after the current step when the flag is raised.
    pub fn with_stop(self, stop: &StopFlag) -> Self {
        Self { stop: stop.clone(), ..self }
    }

    /// Calls a function for each event. Step events come from another thread.
    pub fn with_progress(self, callback: impl Fn(TrainEvent) + Send + Sync + 'static) -> Self {
        Self { listener: Arc::new(callback), ..self }
    }

    /// Shows burn-train's terminal dashboard instead of sending step events (feature `tui`; without
    /// it, or without a terminal, burn-train prints a line for every step).
    pub fn with_dashboard(self, dashboard: bool) -> Self {
        Self { dashboard, ..self }
    }

    /// Checks, without changing anything, that a training can keep its checkpoints in a folder: it
    /// must be missing or empty, or hold a training to resume. Call it before expensive work.
    ///
    /// # Errors
    /// [`Error::Checkpoint`](crate::Error::Checkpoint) for a folder with other content, or with a
    /// training that should not be resumed; [`Error::Io`](crate::Error::Io) when the folder cannot
    /// be read.
    pub fn check_folder(folder: impl AsRef<Path>, resume: bool) -> Result<()> {
        check_folder(folder.as_ref(), resume)
    }
}
