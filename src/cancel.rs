//! Stopping long work from another thread.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// A flag that any thread can raise to stop long work after the step at hand. What is done is kept:
/// what a training has learnt, and in a folder what can go on from there.
///
/// # Example
/// ```
/// use cart_retrieval::cancel::StopFlag;
/// let flag = StopFlag::new();
/// let handler = flag.clone(); // say, in a Ctrl-C handler
/// handler.raise();
/// assert!(flag.is_raised());
/// ```
#[derive(Debug, Clone, Default)]
pub struct StopFlag {
    raised: Arc<AtomicBool>,
}

impl StopFlag {
    /// A flag that is not raised.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for a stop.
    pub fn raise(&self) {
        self.raised.store(true, Ordering::Relaxed);
    }

    /// Whether a stop was asked for.
    pub fn is_raised(&self) -> bool {
        self.raised.load(Ordering::Relaxed)
    }
}
