//! What a training tells of itself.

use serde::{Deserialize, Serialize};

/// What one validation found.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RoundSummary {
    /// Number of the round, from 1.
    pub round: usize,
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
    /// It starts, or goes on after `step` steps.
    Started {
        /// Steps done before.
        step: usize,
        /// Steps in all.
        steps: usize,
    },
    /// Outputs of frozen layers will be kept for some of the training captions.
    Cached {
        /// Pairs they are kept for.
        pairs: usize,
        /// Training captions.
        of: usize,
    },
    /// A step was done. Comes from another thread, shortly after.
    Step {
        /// Steps done so far.
        step: usize,
        /// Steps in all.
        steps: usize,
        /// Running mean of the finite losses in this round.
        loss: f64,
    },
    /// A step changed nothing, since its loss or gradients were not finite.
    Skipped {
        /// Number of the step, from 1.
        step: usize,
        /// Such steps in a row; [`TrainConfig::max_bad_steps`](super::TrainConfig) of them end the
        /// training. Steps that only made the loss scale smaller do not count.
        in_a_row: usize,
        /// Such steps since this training was started or resumed.
        skipped: usize,
        /// Scale of the loss from the next step on; 1 unless the precision is `f16`.
        loss_scale: f64,
    },
    /// A validation was done.
    Validated {
        /// What it found.
        summary: RoundSummary,
        /// Whether it is the best so far.
        best: bool,
    },
    /// A checkpoint could not be used when a training was resumed; an older one is taken instead.
    CheckpointSkipped {
        /// The round that it was made after.
        round: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A file was damaged, and what was in it is known from elsewhere.
    Recovered {
        /// What is wrong, and what was done.
        reason: String,
    },
    /// A log of the metrics could not be written. The training goes on.
    LogFailed {
        /// The file, and what the operating system says.
        reason: String,
    },
}

/// Why a training ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StopReason {
    /// All steps were done.
    Finished,
    /// Validation did not improve for as long as the patience says.
    EarlyStop,
    /// The [`StopFlag`](crate::cancel::StopFlag) was raised; it can be resumed.
    Interrupted,
}
