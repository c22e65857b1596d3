//! From the name of a backend to its type.

use super::{BackendKind, BackendTask, DeviceChoice, LocalBackend};
use crate::error::{Error, Result};

/// Runs a task on a backend and a device of it.
///
/// # Errors
/// [`Error::Device`] when the backend is not in this build, or as [`LocalBackend::device`].
pub fn run_on<T: BackendTask>(
    kind: BackendKind,
    device: &DeviceChoice,
    task: T,
) -> Result<T::Output> {
    struct Chosen<'a, T>(&'a DeviceChoice, T);
    impl<T: BackendTask> BackendWork for Chosen<'_, T> {
        type Output = Result<T::Output>;

        fn run<B: LocalBackend>(self) -> Self::Output {
            let Self(device, task) = self;
            Ok(task.run::<B>(B::device(device)?))
        }
    }
    run_work(kind, Chosen(device, task))?
}

/// Work on a backend of which only the name is known, on a device that the work brings.
///
/// Called from code that is not generic, [`run_work`] compiles the work there, for every backend of
/// the build. So a crate of this workspace compiles its networks once, and programs link them.
pub trait BackendWork {
    /// What it gives.
    type Output;

    /// Does the work.
    fn run<B: LocalBackend>(self) -> Self::Output;
}

/// Does work on the backend of this name.
///
/// # Errors
/// [`Error::Device`] when the backend is not in this build.
pub fn run_work<W: BackendWork>(kind: BackendKind, work: W) -> Result<W::Output> {
    match kind {
        #[cfg(feature = "cuda")]
        BackendKind::Cuda => Ok(work.run::<burn::backend::Cuda>()),
        #[cfg(feature = "tch")]
        BackendKind::Tch => Ok(work.run::<burn::backend::LibTorch>()),
        #[cfg(feature = "wgpu")]
        BackendKind::Wgpu => Ok(work.run::<burn::backend::Wgpu>()),
        #[cfg(feature = "ndarray")]
        BackendKind::NdArray => Ok(work.run::<burn::backend::NdArray>()),
        #[cfg(feature = "flex")]
        BackendKind::Flex => Ok(work.run::<burn::backend::Flex>()),
        #[allow(unreachable_patterns)]
        kind => {
            let _ = work;
            let compiled: Vec<_> = BackendKind::compiled().iter().map(|k| k.name()).collect();
            Err(Error::device("backend")
                .expected(format!("one that this build contains ({})", compiled.join(", ")))
                .found(kind.name())
                .fix(format!("choose one of those, or build with --features {kind}")))
        }
    }
}
