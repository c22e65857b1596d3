//! Measures training, quantizers and search: one JSON line for each measurement.
//!
//! `benches/peers/run.py` runs this program and its PyTorch, faiss and vector-quantize counterparts
//! in turns. To look at one figure alone:
//! ```text
//! cargo run --release --example measure -- train-step --r-drop 1
//! ```

#[path = "../common/mod.rs"]
mod common;
mod dump;
mod inputs;
mod report;
mod train;

use anyhow::Result;
use burn::tensor::backend::AutodiffBackend;
use clap::{Args, Parser, Subcommand};
use serde_json::Value;

use burn::backend::Autodiff;
use cart_retrieval::backend::{BackendTask, LocalBackend};
use common::backend::Hardware;

/// Measures training, quantizers and search, and prints a JSON line.
#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    hardware: Hardware,
}

/// What all measurements share.
#[derive(Args, Clone)]
pub struct Common {
    /// Threads; 0 leaves the choice to rayon.
    #[arg(long, global = true, default_value_t = 0)]
    pub threads: usize,
    /// Repetitions that are not counted.
    #[arg(long, global = true, default_value_t = 2)]
    pub warmup: usize,
    /// Repetitions of which the median is taken.
    #[arg(long, global = true, default_value_t = 5)]
    pub steps: usize,
    /// Seed of weights and inputs.
    #[arg(long, global = true, default_value_t = 0)]
    pub seed: u64,
}

#[derive(Subcommand)]
enum Command {
    /// A training step: forward, backward, clipping and update.
    TrainStep(train::TrainStepArgs),
    /// Weights, a batch, its loss and its gradients, for a counterpart to check itself against.
    Dump(dump::DumpArgs),
}

/// The one place that knows the backend: everything below is generic.
fn main() -> Result<()> {
    let cli = Cli::parse();
    if cli.common.threads > 0 {
        rayon::ThreadPoolBuilder::new().num_threads(cli.common.threads).build_global()?;
    }
    cli.hardware.run(cli)
}

impl BackendTask for Cli {
    type Output = Result<()>;

    fn run<B: LocalBackend>(self, device: B::Device) -> Result<()> {
        let measured = run::<Autodiff<B>>(&self.command, &self.common, &device)?;
        report::emit(B::KIND.name(), &B::describe(&device), &self.common, measured);
        Ok(())
    }
}

fn run<B: AutodiffBackend>(
    command: &Command,
    common: &Common,
    device: &B::Device,
) -> Result<Value> {
    match command {
        Command::TrainStep(args) => train::train_step::<B>(args, common, device),
        Command::Dump(args) => dump::dump::<B>(args, common, device),
    }
}
