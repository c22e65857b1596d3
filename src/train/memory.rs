//! A device that runs out of memory.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

use crate::error::{Error, Result};

/// What backends say when memory is out: LibTorch, the CUDA driver, CubeCL, wgpu.
const SIGNS: [&str; 5] =
    ["out of memory", "out_of_memory", "buffertoobig", "can't allocate", "cannot allocate"];

/// Runs a training. Backends report that memory is out by a panic, which becomes an error; every
/// other panic goes on.
pub(super) fn or_out_of_memory<T>(train: impl FnOnce() -> T) -> Result<T> {
    catch_unwind(AssertUnwindSafe(train)).map_err(|panic| match message(&*panic) {
        Some(message) if is_out_of_memory(message) => Error::training(
            "memory of the device",
            "room for a step",
            message.lines().next().unwrap_or_default(),
            "set a micro_batch, lower batch_size or max_tokens, freeze the encoder, or train on \
             several devices; the last checkpoint is kept",
        ),
        _ => resume_unwind(panic),
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
    use super::*;

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

    #[test]
    fn results_pass() {
        assert_eq!(or_out_of_memory(|| 7).unwrap(), 7);
    }
}
