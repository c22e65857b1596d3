//! What validations found: the history and the best model.

use std::{any::Any, fmt};

use burn::tensor::backend::Backend;

use super::{
    event::{IntervalSummary, TrainEvent},
    metric::Listener,
    position::StepCounter,
};
use crate::model::Cart;

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
    pub(super) fn close(&mut self, round: usize) {
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

    pub(super) fn best_round(&self) -> Option<usize> {
        self.best.map(|best| self.history[best].interval)
    }

    /// Whether the last round has no validation, though there should be one: a stop cut it short,
    /// at a step after which a training that is not interrupted validates.
    pub(super) fn lacks_validation(&self) -> bool {
        let step = self.position.step();
        let here = |summary: &&IntervalSummary| summary.step == step;
        let due = step > 0
            && (step.is_multiple_of(self.position.per_round) || self.position.is_finished());
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

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
}
