//! Training on burn-train's learner.
//!
//! burn-train runs the loop, the metrics, the checkpointers and the dashboard. These parts are
//! replaced through its extension points, for reasons given in their files: the optimizer
//! ([`CartOptimizer`](crate::expert::CartOptimizer): global clipping, no decay of norms and
//! biases), the schedule ([`WarmupCosine`](crate::expert::WarmupCosine)), the data loader
//! (resumable at any step), the recorder ([`AtomicRecorder`](crate::expert::AtomicRecorder): no
//! half-written checkpoint), the choice of checkpoints and the stopping rule (by validation recall,
//! read without delay).

pub(crate) mod batch;
mod cache;
mod checkpoint;
mod config;
pub(crate) mod data;
mod devices;
mod event;
#[cfg(test)]
mod fault_tests;
mod folder;
pub(crate) mod freeze;
mod frozen;
mod guard;
pub(crate) mod learner;
mod ledger;
mod loader;
mod logs;
mod memory;
mod metric;
pub(crate) mod placement;
mod position;
mod precision;
pub(crate) mod recorder;
mod resume;
mod rounds;
mod run;
mod shared;
mod state;
mod step;
pub(crate) mod stepper;
mod strategy;
mod trainer;
pub(crate) mod update;
pub(crate) mod validation;

pub(crate) use batch::TrainBatch;
pub use config::TrainConfig;
pub(crate) use data::WeightedExample;
pub use data::{TrainingCaptions, TrainingData};
pub use event::{IntervalSummary, StopReason, TrainEvent};
pub(crate) use freeze::trainable;
pub use freeze::{Freeze, FrozenCache};
pub(crate) use learner::CartLearner;
pub use precision::Precision;
pub use trainer::{Trained, Trainer};
pub(crate) use update::StepOutput;
