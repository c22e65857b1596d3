//! Where a training stands, in steps; and the agreement of several devices on the next step.

use std::{
    cell::Cell,
    sync::{Arc, Condvar, Mutex, MutexGuard},
    time::Duration,
};

/// Where a training stands: shared by the loaders of all devices, the checkpoints and the events.
///
/// The loader of the first device decides whether there is a next step; those of the others follow,
/// waiting for it where they run in threads of their own. So no step is done by some devices only.
#[derive(Debug, Clone)]
pub(super) struct StepCounter {
    shared: Arc<(Mutex<Cursor>, Condvar)>,
    /// Steps in all.
    pub(super) steps: usize,
    /// Steps of a round; the last may have fewer.
    pub(super) per_round: usize,
}

#[derive(Debug)]
struct Cursor {
    /// Steps that were begun.
    step: usize,
    /// Rounds that were ended.
    ended: usize,
}

impl StepCounter {
    pub(super) fn new(step: usize, steps: usize, rounds: usize) -> Self {
        let per_round = steps.div_ceil(rounds).max(1);
        let shared = Arc::new((Mutex::new(Cursor { step, ended: 0 }), Condvar::new()));
        Self { shared, steps, per_round }
    }

    fn cursor(&self) -> MutexGuard<'_, Cursor> {
        self.shared.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Goes on after `step` steps.
    pub(super) fn resume(&self, step: usize) {
        self.cursor().step = step;
    }

    /// Steps done.
    pub(super) fn step(&self) -> usize {
        self.cursor().step
    }

    /// Whether all steps are done.
    pub(super) fn is_finished(&self) -> bool {
        self.step() >= self.steps
    }

    /// The step at which the current round ends.
    pub(super) fn round_end(&self) -> usize {
        (self.step() / self.per_round * self.per_round + self.per_round).min(self.steps)
    }

    /// Rounds still to run.
    pub(super) fn rounds_left(&self) -> usize {
        if self.is_finished() {
            return 0;
        }
        self.steps.div_ceil(self.per_round) - self.step() / self.per_round
    }

    /// Begins step number `step`, counted from 0.
    pub(super) fn begin(&self, step: usize) {
        self.cursor().step = step + 1;
        self.shared.1.notify_all();
    }

    /// Ends a round.
    pub(super) fn end_round(&self) {
        self.cursor().ended += 1;
        self.shared.1.notify_all();
    }

    /// Waits until step number `step` was begun (true) or the `round`-th round of this training,
    /// from 1, has ended before it (false). `give_up` is asked now and then.
    pub(super) fn follow(&self, step: usize, round: usize, give_up: impl Fn() -> bool) -> bool {
        let mut cursor = self.cursor();
        loop {
            if cursor.step > step {
                return true;
            }
            if cursor.ended >= round || give_up() {
                return false;
            }
            cursor = wait(&self.shared.1, cursor);
        }
    }
}

/// Waits to be notified, at most 50 milliseconds.
pub(super) fn wait<'a, T>(notified: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    let waited = notified.wait_timeout(guard, Duration::from_millis(50));
    waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0
}

/// The part of every step that one device does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Share {
    /// Number of the device, from 0.
    pub(super) rank: usize,
    /// Number of devices.
    pub(super) of: usize,
    /// Whether every device has a training loop and a thread of its own.
    pub(super) own_thread: bool,
}

impl Share {
    /// The first of `of` shares.
    pub(super) fn first(of: usize, own_thread: bool) -> Self {
        Self { rank: 0, of, own_thread }
    }

    /// This share of `rows` rows; shares differ by one row at most, and the first is never empty.
    pub(super) fn rows(self, rows: usize) -> std::ops::Range<usize> {
        (rows * self.rank).div_ceil(self.of)..(rows * (self.rank + 1)).div_ceil(self.of)
    }
}

thread_local! {
    static RANK: Cell<usize> = const { Cell::new(0) };
}

/// Says which device the current thread works for, where that is one.
pub(super) fn work_for(share: Share) {
    if share.own_thread {
        RANK.set(share.rank);
    }
}

/// Which device the current thread works for; 0 where nothing was said.
pub(super) fn rank() -> usize {
    RANK.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_cover_all_steps_once() {
        let position = StepCounter::new(0, 103, 10);
        let mut ends = Vec::new();
        while position.step() < position.steps {
            let left = position.rounds_left();
            let end = position.round_end();
            position.begin(end - 1);
            assert_eq!(position.rounds_left(), left - 1);
            ends.push(end);
        }
        assert_eq!((ends.len(), ends[0], ends[9]), (10, 11, 103));
        assert_eq!(StepCounter::new(50, 103, 10).rounds_left(), 6);
    }

    #[test]
    fn shares_cover_all_rows_once() {
        for rows in 0..20 {
            for of in 1..6 {
                let parts: Vec<_> = (0..of)
                    .map(|rank| Share { rank, ..Share::first(of, false) }.rows(rows))
                    .collect();
                assert_eq!(parts.iter().flat_map(Clone::clone).collect::<Vec<_>>(), {
                    (0..rows).collect::<Vec<_>>()
                });
                let sizes: Vec<_> = parts.iter().map(ExactSizeIterator::len).collect();
                assert!(rows == 0 || sizes[0] > 0);
                assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1);
            }
        }
    }

    #[test]
    fn followers_do_the_steps_that_the_first_device_begins() {
        let position = StepCounter::new(4, 100, 10);
        let follower = position.clone();
        let done = std::thread::spawn(move || {
            let steps = (4..).take_while(|&step| follower.follow(step, 1, || false)).count();
            (steps, follower.follow(4 + steps, 1, || false))
        });
        (4..9).for_each(|step| position.begin(step));
        std::thread::sleep(Duration::from_millis(20));
        position.end_round();
        assert_eq!(done.join().unwrap(), (5, false));
        assert!(!position.follow(9, 2, || true));
    }
}
