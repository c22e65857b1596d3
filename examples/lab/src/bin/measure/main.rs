//! Measures training, quantizers and search: one JSON line for each measurement.
//!
//! `benches/peers/run.py` runs this program and its PyTorch, faiss and vector-quantize counterparts
//! in turns. To look at one figure alone:
//! ```text
//! cargo run --release -p cart-lab --bin measure -- train-step --r-drop 1
//! ```
#![recursion_limit = "256"]

#[macro_use]
extern crate cart_examples as common;

mod captions;
mod dump;
mod media;
mod memory;
mod quantizers;
mod queries;
mod report;
mod train;

use anyhow::Result;
use burn::backend::{Autodiff, autodiff::checkpoint::strategy::BalancedCheckpointing};
use cart_retrieval::backend::{BackendTask, LocalBackend};
use clap::{Args, Parser, Subcommand};
use common::{backend::Hardware, inputs};
use serde_json::Value;

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
    /// Number of threads; with 0, rayon chooses.
    #[arg(long, global = true, default_value_t = 0)]
    pub threads: usize,
    /// Warm-up repetitions.
    #[arg(long, global = true, default_value_t = 2)]
    pub warmup: usize,
    /// Repetitions; the median is reported.
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
    /// Weights, a batch, its loss, gradients and answers, for a counterpart to check itself
    /// against.
    Dump(dump::DumpArgs),
    /// A step of the RQ-VAE's training.
    RqvaeStep(quantizers::RqVaeStepArgs),
    /// Weights, a batch, loss and gradients of an RQ-VAE.
    DumpRqvae(dump::DumpRqVaeArgs),
    /// K-Means over rows in memory.
    Kmeans(quantizers::KMeansArgs),
    /// Residual quantization with given codebooks.
    RqEncode(quantizers::RqEncodeArgs),
    /// Queries through encoder and constrained beam search.
    Queries(queries::QueriesArgs),
    /// Files of media, decoded and prepared or described.
    Media(media::MediaArgs),
    /// CLIP's image tower with random weights.
    Clip(media::ClipArgs),
    /// Queries against training texts: the audit of near duplicates.
    Audit(captions::AuditArgs),
    /// Captions of the nearest described items.
    Neighbours(captions::NeighboursArgs),
    /// Resident memory over a long training of a small network.
    Memory(memory::MemoryArgs),
}

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
        let measured = run::<B>(&self.command, &self.common, &device)?;
        report::emit(B::KIND.name(), &B::describe(&device), &self.common, measured);
        Ok(())
    }
}

fn run<B: LocalBackend>(command: &Command, common: &Common, device: &B::Device) -> Result<Value> {
    match command {
        Command::TrainStep(args) if args.checkpointing => {
            train::train_step::<Autodiff<B, BalancedCheckpointing>>(args, common, device)
        }
        Command::TrainStep(args) => train::train_step::<Autodiff<B>>(args, common, device),
        Command::Dump(args) => dump::dump::<Autodiff<B>>(args, common, device),
        Command::RqvaeStep(args) => quantizers::rqvae_step::<B>(args, common, device),
        Command::DumpRqvae(args) => dump::dump_rqvae::<Autodiff<B>>(args, common, device),
        Command::Kmeans(args) => quantizers::kmeans::<B>(args, common, device),
        Command::RqEncode(args) => quantizers::rq_encode(args, common),
        Command::Queries(args) => queries::queries::<B>(args, common, device),
        Command::Media(args) => media::media::<B>(args, common, device),
        Command::Clip(args) => media::clip::<B>(args, common, device),
        Command::Audit(args) => captions::audit(args, common),
        Command::Neighbours(args) => captions::neighbours(args, common),
        Command::Memory(args) => memory::memory::<Autodiff<B>>(args, common, device),
    }
}
