//! What the parts of a running training share: loaders, steps, checkpoints and the stopping rule.

use std::sync::{
    Arc, Mutex, MutexGuard,
    atomic::{AtomicBool, Ordering},
};

use burn::train::Interrupter;

use super::{
    config::TrainConfig,
    event::StopReason,
    guard::{LossScale, NonFiniteGuard},
    metric::Listener,
    position::StepCounter,
    rounds::Rounds,
};
use crate::{
    cancel::StopFlag,
    error::{Error, Result},
};

/// The cells that the parts of a training write to and read from; clones share them.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) position: StepCounter,
    pub(super) rounds: Arc<Mutex<Rounds>>,
    pub(super) guard: Arc<NonFiniteGuard>,
    /// Raised when the training cannot go on.
    pub(super) diverged: Arc<AtomicBool>,
    pub(super) interrupter: Interrupter,
    /// The first error of a file, which burn-train has no place for.
    pub(super) failure: Arc<Mutex<Result<()>>>,
    pub(super) reason: Arc<Mutex<StopReason>>,
    /// Raised by the caller.
    pub(super) stop: StopFlag,
}

impl Shared {
    /// For a training of `steps` steps, whose validations ask `queries` queries.
    pub(super) fn new(
        config: &TrainConfig,
        steps: usize,
        queries: usize,
        stop: &StopFlag,
        listener: &Listener,
    ) -> Self {
        let position = StepCounter::new(0, steps, config.validations);
        let rounds = Rounds::new(position.clone(), listener.clone(), queries);
        let diverged = Arc::new(AtomicBool::new(false));
        let scale = config.precision.scales_loss().then(LossScale::default);
        let guard = NonFiniteGuard::new(
            config.max_bad_steps,
            scale,
            diverged.clone(),
            position.clone(),
            listener.clone(),
        );
        Self {
            position,
            rounds: Arc::new(Mutex::new(rounds)),
            guard: Arc::new(guard),
            diverged,
            interrupter: Interrupter::new(),
            failure: Arc::new(Mutex::new(Ok(()))),
            reason: Arc::new(Mutex::new(StopReason::Finished)),
            stop: stop.clone(),
        }
    }

    /// The rounds so far.
    pub(super) fn rounds(&self) -> MutexGuard<'_, Rounds> {
        locked(&self.rounds)
    }

    /// Whether the training cannot go on.
    pub(super) fn has_diverged(&self) -> bool {
        self.diverged.load(Ordering::Relaxed)
    }

    /// Why nothing is left to run, where the training in the folder was over.
    pub(super) fn is_over(&self, patience: usize) -> Option<StopReason> {
        let rounds = self.rounds();
        let out_of_patience = rounds.is_out_of_patience(patience);
        (self.position.is_finished() || out_of_patience).then(|| {
            if rounds.lacks_validation() {
                StopReason::Interrupted
            } else if out_of_patience {
                StopReason::EarlyStop
            } else {
                StopReason::Finished
            }
        })
    }

    /// Fails where a file could not be written.
    pub(super) fn ensure_written(&self) -> Result<()> {
        std::mem::replace(&mut *locked(&self.failure), Ok(()))
    }

    /// Fails where the training ended on losses or gradients that were not finite.
    pub(super) fn ensure_finite(&self, max_bad_steps: usize) -> Result<()> {
        if !self.has_diverged() {
            return Ok(());
        }
        let found = match self.guard.in_a_row() {
            steps if steps >= max_bad_steps => {
                format!("NaN or infinity in {steps} consecutive steps, which were skipped")
            }
            _ => "NaN or infinity in the validation".to_string(),
        };
        Err(Error::training(format!("step {}", self.position.step()))
            .expected("a finite loss and finite gradients")
            .found(found)
            .fix(
                "lower the learning rate or lengthen the warm-up; the last good checkpoint is kept",
            ))
    }

    /// Why the training ended; `over` where it never began.
    pub(super) fn reason(&self, over: Option<StopReason>) -> StopReason {
        // The dashboard's quit key.
        if self.interrupter.should_stop() {
            return StopReason::Interrupted;
        }
        over.unwrap_or(*locked(&self.reason))
    }
}

/// The value of a cell, also after a thread has panicked with it.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}
