//! Training on burn-train's learner.
//!
//! burn-train runs the loop, the metrics, the checkpointers and the dashboard. Replaced through its
//! extension points, each for a reason given in its file: the optimizer ([`CartOptimizer`]: global
//! clipping, no decay of norms and biases), the schedule ([`WarmupCosine`]), the data loader
//! (resumable at any step), the recorder ([`AtomicRecorder`]: no half-written checkpoint), the
//! choice of checkpoints and the stopping rule (by validation recall, read without delay).

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
mod guard;
mod interpolate;
mod learner;
mod ledger;
mod loader;
mod logs;
mod memory;
mod metric;
mod optimizer;
mod position;
mod precision;
mod projection;
mod rates;
mod resume;
mod rounds;
mod schedule;
mod state;
mod step;
mod stepper;
mod trainer;

pub use checkpoint::AtomicRecorder;
pub use config::TrainConfig;
pub use data::{TrainingData, WeightedExample};
pub use devices::Placement;
pub use event::{RoundSummary, StopFlag, StopReason, TrainEvent};
pub use freeze::{Freeze, FrozenCache, trainable};
pub use interpolate::Partners;
pub use learner::{CartLearner, StepOutput, TrainBatch, ValidBatch, ValidOutput};
pub(crate) use loader::{by_like_length, drop_words};
pub use optimizer::CartOptimizer;
pub use precision::Precision;
pub use projection::ProjectionConfig;
pub use rates::EncoderRates;
pub use schedule::WarmupCosine;
pub use stepper::Stepper;
pub use trainer::{Trained, Trainer};
