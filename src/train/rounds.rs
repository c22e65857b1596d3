//! What validations found: the history, the best model, which checkpoints to keep, when to stop.
//!
//! burn-train reads metrics through a store that is filled by another thread; these rules read the
//! validation directly, so no decision comes a round late.

use std::{
    any::Any,
    fmt,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use burn::{
    tensor::backend::Backend,
    train::{
        EarlyStoppingStrategy, Interrupter,
        checkpoint::{CheckpointingAction, CheckpointingStrategy},
        metric::store::EventStoreClient,
    },
};

use super::{
    event::{IntervalSummary, StopReason, TrainEvent},
    guard::NonFiniteGuard,
    ledger::{Asked, Ledger},
    metric::Listener,
    position::{StepCounter, rank},
};
use crate::{cancel::StopFlag, error::Result, model::Cart};

/// By what rounds are compared; `None` without a whole validation.
pub(super) fn quality(summary: &IntervalSummary) -> Option<(f64, f64)> {
    summary.recall_at_1.zip(summary.mrr_at_10)
}

/// Sums over the validation at hand.
#[derive(Debug, Default)]
struct Sums {
    queries: usize,
    loss: f64,
    first: usize,
    ten: usize,
    reciprocal: f64,
}

/// The rounds so far.
pub(super) struct Rounds {
    sums: Sums,
    history: Vec<IntervalSummary>,
    best: Option<usize>,
    best_model: Option<Box<dyn Any + Send>>,
    at_hand: Option<Box<dyn Any + Send>>,
    position: StepCounter,
    listener: Listener,
    /// Queries of a whole validation.
    expected: usize,
}

impl fmt::Debug for Rounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rounds").field("history", &self.history).finish_non_exhaustive()
    }
}

impl Rounds {
    pub(super) fn new(position: StepCounter, listener: Listener, expected: usize) -> Self {
        Self {
            sums: Sums::default(),
            history: Vec::new(),
            best: None,
            best_model: None,
            at_hand: None,
            position,
            listener,
            expected,
        }
    }

    /// Goes on from earlier rounds; `best_model` is that of the best of them.
    pub(super) fn restore<B: Backend>(
        &mut self,
        history: Vec<IntervalSummary>,
        best: Option<(usize, Cart<B>)>,
    ) {
        self.history = history;
        if let Some((round, model)) = best {
            self.best = self.history.iter().position(|summary| summary.interval == round);
            self.best_model = Some(Box::new(model));
        }
    }

    /// Takes in a validation batch: where each right item was found.
    pub(super) fn validated<B: Backend>(
        &mut self,
        loss: f64,
        ranks: &[Option<usize>],
        model: &Cart<B>,
    ) {
        let sums = &mut self.sums;
        sums.queries += ranks.len();
        sums.loss += loss * ranks.len() as f64;
        for rank in ranks.iter().flatten() {
            sums.first += usize::from(*rank == 0);
            sums.ten += usize::from(*rank < 10);
            sums.reciprocal += if *rank < 10 { 1.0 / (rank + 1) as f64 } else { 0.0 };
        }
        if self.at_hand.is_none() {
            self.at_hand = Some(Box::new(model.clone()));
        }
    }

    /// Ends a round; a second call for the same round changes nothing.
    fn close(&mut self, round: usize) {
        if self.history.last().is_some_and(|last| last.interval >= round) {
            return;
        }
        let sums = std::mem::take(&mut self.sums);
        // A validation that was cut short by a stop says nothing that compares with the others.
        let whole = sums.queries > 0 && sums.queries == self.expected;
        let mean = |sum: f64| whole.then(|| sum / sums.queries as f64);
        let summary = IntervalSummary {
            interval: round,
            step: self.position.step(),
            loss: mean(sums.loss),
            recall_at_1: mean(sums.first as f64),
            recall_at_10: mean(sums.ten as f64),
            mrr_at_10: mean(sums.reciprocal),
        };
        let model = self.at_hand.take();
        self.history.push(summary);
        let best = quality(&summary).is_some()
            && self.best.is_none_or(|best| quality(&summary) > quality(&self.history[best]));
        if best {
            self.best = Some(self.history.len() - 1);
            self.best_model = model;
        }
        if summary.recall_at_1.is_some() {
            (self.listener)(TrainEvent::Validated { summary, best });
        }
    }

    /// The best model and its round.
    pub(super) fn take_best<B: Backend>(&mut self) -> Option<(usize, Cart<B>)> {
        let round = self.history[self.best?].interval;
        let model = self.best_model.take()?.downcast::<Cart<B>>().ok()?;
        Some((round, *model))
    }

    pub(super) fn history(&self) -> &[IntervalSummary] {
        &self.history
    }

    fn best_round(&self) -> Option<usize> {
        self.best.map(|best| self.history[best].interval)
    }

    /// Whether the last round has no validation, though there should be one: a stop cut it short,
    /// at a step after which a training that is not interrupted validates.
    pub(super) fn lacks_validation(&self) -> bool {
        let step = self.position.step();
        let here = |summary: &&IntervalSummary| summary.step == step;
        let due = step > 0
            && (step.is_multiple_of(self.position.per_round()) || self.position.is_finished());
        let last = self.history.last();
        due && self.expected > 0
            && last.is_some_and(|last| last.step == step)
            && self.history.iter().filter(here).all(|summary| summary.recall_at_1.is_none())
    }

    /// Ends the last round once more, with the validation that was done meanwhile.
    pub(super) fn close_again(&mut self) {
        if let Some(last) = self.history.pop() {
            self.close(last.interval);
        }
    }

    /// Whether validation has not improved for so long that training ends; never at 0.
    pub(super) fn is_out_of_patience(&self, patience: usize) -> bool {
        patience > 0 && self.without_improvement() >= patience
    }

    /// Validations since the best one.
    fn without_improvement(&self) -> usize {
        let since = self.best.map_or(0, |best| best + 1);
        self.history[since..].iter().filter(|round| round.recall_at_1.is_some()).count()
    }
}

/// Asks for a checkpoint after every good round; the [`Ledger`] keeps the last two and the best.
pub(super) struct KeepBest {
    pub(super) rounds: Arc<Mutex<Rounds>>,
    pub(super) position: StepCounter,
    pub(super) diverged: Arc<AtomicBool>,
    pub(super) guard: Arc<NonFiniteGuard>,
    pub(super) ledger: Arc<Ledger>,
}

impl CheckpointingStrategy for KeepBest {
    fn checkpointing(
        &mut self,
        round: usize,
        _store: &EventStoreClient,
    ) -> Vec<CheckpointingAction> {
        let mut rounds = self.rounds.lock().unwrap_or_else(|e| e.into_inner());
        rounds.close(round);
        // After a bad step the weights may be what is wrong: the checkpoints before are kept.
        if self.diverged.load(Ordering::Relaxed) || self.guard.in_a_row() > 0 {
            return Vec::new();
        }
        let asked = Asked {
            step: self.position.step(),
            scale: self.guard.saved_scale(),
            history: rounds.history().to_vec(),
            best_round: rounds.best_round(),
        };
        self.ledger.expect(round, asked);
        vec![CheckpointingAction::Save]
    }
}

/// Stops when asked to, when the loss is no number, or when validation no longer improves.
#[derive(Clone)]
pub(super) struct StopRule {
    pub(super) rounds: Arc<Mutex<Rounds>>,
    pub(super) stop: StopFlag,
    pub(super) diverged: Arc<AtomicBool>,
    pub(super) failure: Arc<Mutex<Result<()>>>,
    pub(super) patience: usize,
    pub(super) reason: Arc<Mutex<StopReason>>,
    pub(super) interrupter: Interrupter,
    pub(super) verdict: Arc<Verdict>,
}

/// The last round that was decided on, and whether training stops after it: for devices with
/// training loops of their own, of which only the first validates.
#[derive(Default)]
pub(super) struct Verdict {
    last: Mutex<(usize, bool)>,
    given: Condvar,
}

impl Verdict {
    fn give(&self, round: usize, stop: bool) {
        *self.last.lock().unwrap_or_else(|e| e.into_inner()) = (round, stop);
        self.given.notify_all();
    }

    fn wait_for(&self, round: usize, give_up: impl Fn() -> bool) -> bool {
        let mut last = self.last.lock().unwrap_or_else(|e| e.into_inner());
        while last.0 < round {
            if give_up() {
                return true;
            }
            let wait = Duration::from_millis(50);
            last = match self.given.wait_timeout(last, wait) {
                Ok((last, _)) => last,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        last.1
    }
}

impl StopRule {
    fn decide(&self, round: usize) -> bool {
        let mut rounds = self.rounds.lock().unwrap_or_else(|e| e.into_inner());
        rounds.close(round);
        let mut reason = self.reason.lock().unwrap_or_else(|e| e.into_inner());
        let failed = self.failure.lock().unwrap_or_else(|e| e.into_inner()).is_err();
        if failed || self.diverged.load(Ordering::Relaxed) {
            return true;
        }
        let over = rounds.position.is_finished() && !rounds.lacks_validation();
        if self.stop.is_raised() && !over {
            *reason = StopReason::Interrupted;
            return true;
        }
        if rounds.is_out_of_patience(self.patience) {
            *reason = StopReason::EarlyStop;
            return true;
        }
        false
    }
}

impl EarlyStoppingStrategy for StopRule {
    fn should_stop(&mut self, round: usize, _store: &EventStoreClient) -> bool {
        if rank() > 0 {
            return self.verdict.wait_for(round, || self.interrupter.should_stop());
        }
        let stop = self.decide(round);
        self.verdict.give(round, stop);
        stop
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_validation_that_was_cut_short_is_known_and_made_up_for() {
        let position = StepCounter::new(0, 8, 4);
        let mut rounds = Rounds::new(position.clone(), Arc::new(|_| ()), 4);
        let whole = || Sums { queries: 4, loss: 2.0, first: 1, ten: 2, reciprocal: 1.5 };
        // Before the first step, and in the middle of a round, none is due.
        for (step, round) in [(0, 1), (1, 2)] {
            position.resume(step);
            rounds.close(round);
            assert!(!rounds.lacks_validation(), "step {step}");
        }
        position.resume(2);
        rounds.sums = whole();
        rounds.close(3);
        // A stop before the next step makes a round of its own, at a step that was validated.
        rounds.close(4);
        assert!(!rounds.lacks_validation());
        for step in [4, 8] {
            position.resume(step);
            rounds.sums = Sums { queries: 2, ..whole() };
            rounds.close(step + 1);
            assert!(rounds.lacks_validation(), "step {step}");
            rounds.sums = whole();
            rounds.close_again();
            assert!(!rounds.lacks_validation(), "step {step}");
            let last = rounds.history.last().unwrap();
            assert_eq!((last.interval, last.step, last.loss), (step + 1, step, Some(0.5)));
        }
        assert_eq!(rounds.best_round(), Some(3));
        assert_eq!(rounds.without_improvement(), 2);
        assert!(rounds.is_out_of_patience(2) && !rounds.is_out_of_patience(0));
    }

    #[test]
    fn a_verdict_reaches_those_who_wait_for_it() {
        let verdict = Arc::new(Verdict::default());
        let other = verdict.clone();
        let waiting =
            std::thread::spawn(move || (other.wait_for(1, || false), other.wait_for(2, || false)));
        verdict.give(1, false);
        std::thread::sleep(Duration::from_millis(10));
        verdict.give(2, true);
        assert!(waiting.join().unwrap().1);
        assert!(verdict.wait_for(3, || true));
    }
}
