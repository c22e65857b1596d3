//! All integration tests but those of parity, in one program: burn's code is generated once.

mod live;
mod recipes;
mod training;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// One training at a time: the backend's generator is shared by all threads.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
