//! The guard before every update: a step whose loss or gradients are not finite changes nothing.
//!
//! Whether gradients are finite is read from their norm, which clipping needs anyway, before any
//! weight or moment is touched. A loss that is no number has no finite gradient (the softmax of the
//! loss hands it on to every logit), so the norm speaks for the loss too; where reading the loss
//! costs no wait, it is looked at as well.

use std::{
    any::Any,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use serde::{Deserialize, Serialize};

use super::{
    TrainEvent,
    metric::Listener,
    position::{StepCounter, rank},
};
use crate::optim::Gate;

/// Largest scale of the loss.
const LARGEST: f64 = 16_777_216.0;
/// Scale of the loss at first.
const FIRST: f64 = 65_536.0;
/// Good steps after which the scale doubles.
const PATIENCE: usize = 2000;

/// The dynamic scale of the loss, which keeps gradients in half precision from vanishing: halved
/// when they overflow, doubled after 2000 steps without (Micikevicius et al. 2018).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LossScale {
    scale: f64,
    /// Good steps since it last changed.
    good: usize,
}

impl Default for LossScale {
    fn default() -> Self {
        Self { scale: FIRST, good: 0 }
    }
}

impl LossScale {
    fn grow(&mut self) {
        self.good += 1;
        if self.good >= PATIENCE {
            *self = Self { scale: (self.scale * 2.0).min(LARGEST), good: 0 };
        }
    }

    /// Whether it could be made smaller.
    fn shrink(&mut self) -> bool {
        let before = self.scale;
        *self = Self { scale: (self.scale / 2.0).max(1.0), good: 0 };
        self.scale < before
    }
}

#[derive(Debug, Default)]
struct State {
    /// Absent where the loss is not scaled.
    scale: Option<LossScale>,
    in_a_row: usize,
    skipped: usize,
}

/// Decides whether a step may change the weights, counts those that may not, and ends the training
/// when there are too many in a row.
pub(super) struct NonFiniteGuard {
    state: Mutex<State>,
    /// Raised by a loss that was no number.
    bad_loss: AtomicBool,
    /// The first panic of a device that works in parallel with others, if there was one.
    fault: Mutex<Option<Box<dyn Any + Send>>>,
    failed: AtomicBool,
    limit: usize,
    diverged: Arc<AtomicBool>,
    position: StepCounter,
    listener: Listener,
}

impl NonFiniteGuard {
    pub(super) fn new(
        limit: usize,
        scale: Option<LossScale>,
        diverged: Arc<AtomicBool>,
        position: StepCounter,
        listener: Listener,
    ) -> Self {
        let state = Mutex::new(State { scale, ..State::default() });
        Self {
            state,
            bad_loss: AtomicBool::new(false),
            fault: Mutex::default(),
            failed: AtomicBool::new(false),
            limit,
            diverged,
            position,
            listener,
        }
    }

    /// Takes in the panic of a device: no step is allowed any more, and the training ends.
    pub(super) fn fail(&self, panic: Box<dyn Any + Send>) {
        self.failed.store(true, Ordering::Relaxed);
        self.diverged.store(true, Ordering::Relaxed);
        self.fault.lock().unwrap_or_else(|e| e.into_inner()).get_or_insert(panic);
    }

    /// The first panic of a device.
    pub(super) fn take_fault(&self) -> Option<Box<dyn Any + Send>> {
        self.fault.lock().unwrap_or_else(|e| e.into_inner()).take()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Goes on with the scale of a checkpoint, where there is one.
    pub(super) fn resume(&self, scale: Option<LossScale>) {
        let mut state = self.state();
        if state.scale.is_some() && scale.is_some() {
            state.scale = scale;
        }
    }

    /// The scale of the loss as a checkpoint keeps it.
    pub(super) fn saved_scale(&self) -> Option<LossScale> {
        self.state().scale
    }

    /// Bad steps in a row, up to the last.
    pub(super) fn in_a_row(&self) -> usize {
        self.state().in_a_row
    }

    /// Takes in the loss of the step at hand, or of a part of it.
    pub(super) fn see_loss(&self, loss: f64) {
        if !loss.is_finite() {
            self.bad_loss.store(true, Ordering::Relaxed);
        }
    }
}

impl Gate for NonFiniteGuard {
    /// What the loss is multiplied by before the backward pass.
    fn scale(&self) -> f64 {
        self.state().scale.map_or(1.0, |scale| scale.scale)
    }

    /// Whether the step at hand may change anything; `finite` says whether its gradients are.
    fn allows(&self, finite: bool) -> bool {
        if self.failed.load(Ordering::Relaxed) {
            return false;
        }
        let finite_loss = !self.bad_loss.swap(false, Ordering::Relaxed);
        let good = finite && finite_loss;
        if rank() > 0 {
            // Devices with loops of their own see the same gradients: the first one speaks.
            return good;
        }
        let mut state = self.state();
        if good {
            state.in_a_row = 0;
            if let Some(scale) = &mut state.scale {
                scale.grow();
            }
            return true;
        }
        let shrunk = state.scale.as_mut().is_some_and(LossScale::shrink);
        state.skipped += 1;
        state.in_a_row += usize::from(!(shrunk && finite_loss));
        if state.in_a_row >= self.limit {
            self.diverged.store(true, Ordering::Relaxed);
        }
        let (in_a_row, skipped) = (state.in_a_row, state.skipped);
        let loss_scale = state.scale.map_or(1.0, |scale| scale.scale);
        drop(state);
        let step = self.position.step();
        (self.listener)(TrainEvent::Skipped { step, in_a_row, skipped, loss_scale });
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(
        scale: Option<LossScale>,
    ) -> (NonFiniteGuard, Arc<AtomicBool>, Arc<Mutex<Vec<TrainEvent>>>) {
        let (diverged, events) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::default()));
        let sink: Arc<Mutex<Vec<TrainEvent>>> = events.clone();
        let listener: Listener = Arc::new(move |event| sink.lock().unwrap().push(event));
        let position = StepCounter::new(7, 100, 10);
        (NonFiniteGuard::new(3, scale, diverged.clone(), position, listener), diverged, events)
    }

    #[test]
    fn bad_steps_in_a_row_end_the_training_and_a_good_one_starts_anew() {
        let (guard, diverged, events) = guard(None);
        for (finite, loss, allowed) in [
            (true, 1.0, true),
            (false, 1.0, false),
            (true, f64::NAN, false),
            (true, 1.0, true),
            (false, 1.0, false),
            (false, 1.0, false),
        ] {
            guard.see_loss(loss);
            assert_eq!(guard.allows(finite), allowed);
        }
        assert!(!diverged.load(Ordering::Relaxed));
        assert!(!guard.allows(false));
        assert!(diverged.load(Ordering::Relaxed));
        let last = events.lock().unwrap().last().cloned().unwrap();
        let expected = TrainEvent::Skipped { step: 7, in_a_row: 3, skipped: 5, loss_scale: 1.0 };
        assert_eq!(last, expected);
    }

    #[test]
    fn overflow_halves_the_scale_without_counting_until_it_is_one() {
        let (guard, diverged, events) = guard(Some(LossScale::default()));
        for halvings in 1..=16 {
            assert!(!guard.allows(false));
            assert_eq!(guard.scale(), FIRST / f64::from(1 << halvings));
        }
        assert_eq!((guard.scale(), guard.in_a_row()), (1.0, 0));
        (0..PATIENCE).for_each(|_| assert!(guard.allows(true)));
        assert_eq!(guard.scale(), 2.0);
        (0..3).for_each(|_| assert!(!guard.allows(false)));
        assert_eq!(guard.in_a_row(), 2);
        assert!(!diverged.load(Ordering::Relaxed));
        guard.allows(false);
        assert!(diverged.load(Ordering::Relaxed));
        assert_eq!(events.lock().unwrap().len(), 20);
    }

    #[test]
    fn a_loss_that_is_no_number_counts_however_large_the_scale() {
        let (guard, diverged, _) = guard(Some(LossScale::default()));
        for _ in 0..3 {
            guard.see_loss(f64::NAN);
            guard.allows(false);
        }
        assert!(diverged.load(Ordering::Relaxed));
    }
}
