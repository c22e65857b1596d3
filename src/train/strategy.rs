//! Which checkpoints to keep, and when to stop.
//!
//! burn-train reads metrics through a store that is filled by another thread; these rules read the
//! validation directly, so no decision comes a round late.

use std::sync::{Arc, Condvar, Mutex};

use burn::train::{
    EarlyStoppingStrategy,
    checkpoint::{CheckpointingAction, CheckpointingStrategy},
    metric::store::EventStoreClient,
};

use super::{
    event::StopReason,
    ledger::{Asked, Ledger},
    position::{rank, wait},
    shared::{Shared, locked},
};

/// Asks for a checkpoint after every good round; the [`Ledger`] keeps the last two and the best.
pub(super) struct KeepBest {
    pub(super) shared: Shared,
    pub(super) ledger: Arc<Ledger>,
}

impl CheckpointingStrategy for KeepBest {
    fn checkpointing(
        &mut self,
        round: usize,
        _store: &EventStoreClient,
    ) -> Vec<CheckpointingAction> {
        let Shared { position, guard, .. } = &self.shared;
        let mut rounds = self.shared.rounds();
        rounds.close(round);
        // After a bad step the weights may be what is wrong: the checkpoints before are kept.
        if self.shared.has_diverged() || guard.in_a_row() > 0 {
            return Vec::new();
        }
        let asked = Asked {
            step: position.step(),
            scale: guard.saved_scale(),
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
    shared: Shared,
    patience: usize,
    verdict: Arc<Verdict>,
}

/// The last round that was decided on, and whether training stops after it: for devices with
/// training loops of their own, of which only the first validates.
#[derive(Default)]
struct Verdict {
    last: Mutex<(usize, bool)>,
    given: Condvar,
}

impl Verdict {
    fn give(&self, round: usize, stop: bool) {
        *locked(&self.last) = (round, stop);
        self.given.notify_all();
    }

    fn wait_for(&self, round: usize, give_up: impl Fn() -> bool) -> bool {
        let mut last = locked(&self.last);
        while last.0 < round {
            if give_up() {
                return true;
            }
            last = wait(&self.given, last);
        }
        last.1
    }
}

impl StopRule {
    pub(super) fn new(shared: Shared, patience: usize) -> Self {
        Self { shared, patience, verdict: Arc::default() }
    }

    fn decide(&self, round: usize) -> bool {
        let shared = &self.shared;
        let mut rounds = shared.rounds();
        rounds.close(round);
        let mut reason = locked(&shared.reason);
        if locked(&shared.failure).is_err() || shared.has_diverged() {
            return true;
        }
        let over = shared.position.is_finished() && !rounds.lacks_validation();
        if shared.stop.is_raised() && !over {
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
            return self.verdict.wait_for(round, || self.shared.interrupter.should_stop());
        }
        let stop = self.decide(round);
        self.verdict.give(round, stop);
        stop
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

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
