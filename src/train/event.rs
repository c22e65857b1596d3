//! Events of a training.

use serde::{Deserialize, Serialize};

/// Result of the validation that ends an evaluation interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct IntervalSummary {
    /// Number of the evaluation interval, from 1.
    #[serde(rename = "round")]
    pub interval: usize,
    /// Steps done so far.
    pub step: usize,
    /// Loss on the validation pairs without dropout; absent without validation.
    pub loss: Option<f64>,
    /// Recall@1 on the validation queries; absent without validation.
    pub recall_at_1: Option<f64>,
    /// Recall@10 on the validation queries.
    pub recall_at_10: Option<f64>,
    /// MRR@10 on the validation queries; breaks ties of Recall@1 in the choice of the best model.
    pub mrr_at_10: Option<f64>,
}

/// Progress of a training.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum TrainEvent {
    /// It starts, or resumes after `step` steps.
    Started {
        /// Steps done before.
        step: usize,
        /// Steps in all.
        steps: usize,
    },
    /// Outputs of frozen layers will be cached for some of the training captions.
    Cached {
        /// Number of cached pairs.
        pairs: usize,
        /// Training captions.
        of: usize,
    },
    /// A step was done. Sent from another thread, shortly afterwards.
    Step {
        /// Steps done so far.
        step: usize,
        /// Steps in all.
        steps: usize,
        /// Running mean of the finite losses in this evaluation interval.
        loss: f64,
    },
    /// A step was skipped because its loss or gradients were not finite.
    Skipped {
        /// Number of the step, from 1.
        step: usize,
        /// Number of consecutive skipped steps; [`TrainConfig::max_bad_steps`](super::TrainConfig)
        /// of them end the training. Steps that only reduced the loss scale do not count.
        in_a_row: usize,
        /// Number of skipped steps since this training was started or resumed.
        skipped: usize,
        /// Scale of the loss from the next step on; 1 unless the precision is `f16`.
        loss_scale: f64,
    },
    /// A validation was done.
    Validated {
        /// Its result.
        summary: IntervalSummary,
        /// Whether it is the best so far.
        best: bool,
    },
    /// A checkpoint could not be used for resuming; an older one is used instead.
    CheckpointSkipped {
        /// The evaluation interval that it was made after.
        interval: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A file was damaged, and its content was recovered.
    Recovered {
        /// What is wrong, and what was done.
        reason: String,
    },
    /// A log of the metrics could not be written. The training continues.
    LogFailed {
        /// The file and the error of the operating system.
        reason: String,
    },
}

/// Why a training ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StopReason {
    /// All steps were done.
    Finished,
    /// Validation did not improve within the patience.
    EarlyStop,
    /// The [`StopFlag`](crate::cancel::StopFlag) was raised; it can be resumed.
    Interrupted,
}
