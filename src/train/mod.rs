//! Training on burn-train's learner.
//!
//! burn-train runs the loop, the metrics, the checkpointers and the dashboard. These parts are
//! replaced through its extension points, for reasons given in their files: the optimizer
//! ([`CartOptimizer`]: global clipping, no decay of norms and biases), the schedule
//! ([`WarmupCosine`]), the data loader (resumable at any step), the recorder ([`AtomicRecorder`]:
//! no half-written checkpoint), the choice of checkpoints and the stopping rule (by validation
//! recall, read without delay).

mod batch;
mod cache;
mod checkpoint;
mod config;
mod data;
mod devices;
mod event;
#[cfg(test)]
mod fault_tests;
mod folder;
mod freeze;
mod frozen;
mod guard;
mod interpolate;
mod learner;
mod ledger;
mod loader;
mod logs;
mod memory;
mod metric;
mod placement;
mod position;
mod precision;
mod recorder;
mod resume;
mod rounds;
mod run;
mod shared;
mod state;
mod step;
mod stepper;
mod strategy;
mod trainer;
mod update;
mod validation;

pub use crate::{
    cancel::StopFlag,
    optim::{CartOptimizer, EncoderRates, WarmupCosine},
};
pub use batch::{TrainBatch, ValidBatch};
pub use config::TrainConfig;
pub use data::{TrainingCaptions, TrainingData, WeightedExample};
pub use event::{IntervalSummary, StopReason, TrainEvent};
pub use freeze::{Freeze, FrozenCache, trainable};
pub use interpolate::Mixup;
pub use learner::CartLearner;
pub use placement::Placement;
pub use precision::Precision;
pub use recorder::AtomicRecorder;
pub use stepper::Stepper;
pub use trainer::{Trained, Trainer};
pub use update::StepOutput;
pub use validation::ValidOutput;
