//! Following long work, and stopping it from another thread.

use std::{
    cell::RefCell,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
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

/// A callback for the events of long work, and the flag that stops it. Both are optional.
///
/// Functions of one call take a monitor; objects that run long work have the same two methods,
/// `with_progress` and `with_stop`.
///
/// # Example
/// ```
/// use cart_retrieval::{cancel::{Monitor, StopFlag}, quantizer::KMeansConfig, expert::KMeansEvent};
/// let stop = StopFlag::new();
/// let mut passes = 0;
/// let monitor = Monitor::new().with_stop(&stop).with_progress(|event| {
///     if let KMeansEvent::Iteration { .. } = event {
///         passes += 1;
///     }
/// });
/// KMeansConfig::new(2).fit_with_progress(&[0.0, 1.0, 9.0], 1, &monitor)?;
/// drop(monitor);
/// assert!(passes > 0);
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
pub struct Monitor<'a, E> {
    callback: Option<Callback<'a, E>>,
    stop: StopFlag,
}

type Callback<'a, E> = RefCell<Box<dyn FnMut(E) + 'a>>;

impl<'a, E> Monitor<'a, E> {
    /// A monitor that ignores events and never stops the work.
    pub fn new() -> Self {
        Self { callback: None, stop: StopFlag::new() }
    }

    /// Calls a function for each event.
    pub fn with_progress(self, callback: impl FnMut(E) + 'a) -> Self {
        Self { callback: Some(RefCell::new(Box::new(callback))), ..self }
    }

    /// Stops the work after the current step when the flag is raised.
    pub fn with_stop(self, stop: &StopFlag) -> Self {
        Self { stop: stop.clone(), ..self }
    }

    /// Reports an event.
    pub fn report(&self, event: E) {
        if let Some(callback) = &self.callback {
            (*callback.borrow_mut())(event);
        }
    }

    /// Whether the work should stop.
    pub fn is_stopped(&self) -> bool {
        self.stop.is_raised()
    }

    /// A monitor for a part of the work, whose events are wrapped in those of the whole.
    pub fn part<'b, F>(&'b self, wrap: impl Fn(F) -> E + 'b) -> Monitor<'b, F> {
        Monitor::new().with_stop(&self.stop).with_progress(move |event| self.report(wrap(event)))
    }
}

impl<E> Default for Monitor<'_, E> {
    fn default() -> Self {
        Self::new()
    }
}

impl<E> fmt::Debug for Monitor<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Monitor").field("stop", &self.stop).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_report_to_the_whole_and_share_its_flag() {
        let stop = StopFlag::new();
        let mut seen = Vec::new();
        let monitor = Monitor::new().with_stop(&stop).with_progress(|event| seen.push(event));
        let part = monitor.part(|event: u8| (1, event));
        part.report(2);
        monitor.report((3, 4));
        assert!(!part.is_stopped());
        stop.raise();
        assert!(part.is_stopped() && monitor.is_stopped());
        drop(part);
        drop(monitor);
        assert_eq!(seen, [(1, 2), (3, 4)]);
        Monitor::new().report(0);
    }
}
