//! The backend and device of an example, chosen on its command line.

use anyhow::Result;
use cart_retrieval::backend::{BackendKind, BackendTask, DeviceChoice, run_on};
use clap::Args;

/// Options that choose where to compute.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct Hardware {
    /// Backend: cuda, tch, wgpu, ndarray or flex; by default the first of these in the build.
    #[arg(long, global = true)]
    pub backend: Option<BackendKind>,
    /// Device: default, cpu, gpu, gpu:N or N.
    #[arg(long, global = true, default_value_t = DeviceChoice::Default)]
    pub device: DeviceChoice,
}

impl Hardware {
    /// Runs a task there.
    pub fn run<T, R: BackendTask<Output = Result<T>>>(self, task: R) -> Result<T> {
        crate::memory::keep_freed_memory();
        let kind = self.backend.map_or_else(BackendKind::preferred, Ok)?;
        run_on(kind, &self.device, task)?
    }
}
