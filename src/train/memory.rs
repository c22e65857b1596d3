//! A device that runs out of memory.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

use super::guard::NonFiniteGuard;
use crate::error::{Error, Result};

/// What backends say when memory is out: LibTorch, the CUDA driver, CubeCL, wgpu.
const SIGNS: [&str; 5] =
    ["out of memory", "out_of_memory", "buffertoobig", "can't allocate", "cannot allocate"];

/// Runs a training. Backends report that memory is out by a panic, which becomes an error; every
/// other panic goes on.
pub(super) fn or_out_of_memory<T>(train: impl FnOnce() -> T) -> Result<T> {
    catch_unwind(AssertUnwindSafe(train)).map_err(|panic| match message(&*panic) {
        Some(message) if is_out_of_memory(message) => Error::training("memory of the device").expected("enough memory for a step").found(message.lines().next().unwrap_or_default()).fix("set a micro_batch, lower batch_size or max_tokens, freeze the encoder, or train on \
             several devices; the last checkpoint is kept"),
        _ => resume_unwind(panic),
    })
}

/// Runs a device's part of a step in parallel with other devices. burn-train waits for all of them
/// for ever when one panics, so a panic is kept with the guard, which ends the training, and
/// `instead` stands in.
pub(super) fn or_fault<T>(
    guard: &NonFiniteGuard,
    part: impl FnOnce() -> T,
    instead: impl FnOnce() -> T,
) -> T {
    catch_unwind(AssertUnwindSafe(part)).unwrap_or_else(|panic| {
        guard.fail(panic);
        instead()
    })
}

/// Runs a training whose devices keep their panics with the guard: the first of them comes before
/// whatever it led to.
pub(super) fn or_first_fault<T>(guard: &NonFiniteGuard, train: impl FnOnce() -> T) -> Result<T> {
    let trained = catch_unwind(AssertUnwindSafe(train));
    or_out_of_memory(|| match (guard.take_fault(), trained) {
        (Some(panic), _) | (None, Err(panic)) => resume_unwind(panic),
        (None, Ok(trained)) => trained,
    })
}

fn message(panic: &(dyn Any + Send)) -> Option<&str> {
    panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied())
}

fn is_out_of_memory(message: &str) -> bool {
    let message = message.to_lowercase();
    SIGNS.iter().any(|sign| message.contains(sign))
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };

    use super::*;
    use crate::{optim::Gate, train::position::StepCounter};

    #[test]
    fn what_backends_say_becomes_an_error_with_a_remedy() {
        for said in [
            "called `Result::unwrap()` on an `Err` value: Torch(\"CUDA out of memory. Tried to \
             allocate 2.00 GiB.\")",
            "Can't allocate buffer of size: 17179869184",
            "DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")",
        ] {
            let result: Result<()> = or_out_of_memory(|| panic!("{said}"));
            let error = result.unwrap_err();
            assert!(matches!(error, Error::Training(_)));
            let text = error.to_string();
            assert!(text.contains("micro_batch") && text.contains("checkpoint is kept"), "{text}");
        }
    }

    #[test]
    #[should_panic(expected = "index out of bounds")]
    fn other_panics_go_on() {
        let _: Result<()> = or_out_of_memory(|| panic!("index out of bounds"));
    }

    fn guard() -> (NonFiniteGuard, Arc<AtomicBool>) {
        let diverged = Arc::new(AtomicBool::new(false));
        let position = StepCounter::new(0, 10, 1);
        (NonFiniteGuard::new(100, None, diverged.clone(), position, Arc::new(|_| ())), diverged)
    }

    /// A thread that panicked would leave the others waiting; so it answers, and the training ends.
    #[test]
    fn one_of_several_devices_out_of_memory_ends_the_training_with_an_error() {
        let (guard, diverged) = guard();
        let result = or_first_fault(&guard, || {
            let work = |rank: usize| {
                let part = || if rank == 1 { panic!("CUDA out of memory") } else { rank };
                or_fault(&guard, part, || usize::MAX)
            };
            std::thread::scope(|scope| {
                let threads: Vec<_> = (0..3).map(|rank| scope.spawn(move || work(rank))).collect();
                let parts: Vec<usize> = threads.into_iter().map(|t| t.join().unwrap()).collect();
                assert_eq!(parts, [0, usize::MAX, 2]);
            });
            assert!(diverged.load(Ordering::Relaxed));
            assert!(!guard.allows(true) && !guard.allows(true), "no step on a part of a batch");
            panic!("something that this led to");
        });
        let error: Error = Result::<()>::unwrap_err(result);
        assert!(error.to_string().contains("micro_batch"), "{error}");
    }

    #[test]
    #[should_panic(expected = "index out of bounds")]
    fn other_panics_of_a_device_go_on() {
        let (guard, _) = guard();
        let _ = or_first_fault(&guard, || or_fault(&guard, || panic!("index out of bounds"), || 1));
    }

    #[test]
    fn results_pass() {
        assert_eq!(or_first_fault(&guard().0, || 7).unwrap(), 7);
        assert_eq!(or_out_of_memory(|| 7).unwrap(), 7);
    }
}
