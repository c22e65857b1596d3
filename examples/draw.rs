//! Draws a procedural benchmark as ordinary files, for `extract`, `train` and `evaluate`.
//!
//! ```sh
//! draw --modality audio --items 2000 --out sounds
//! extract --media sounds/media --out sounds files --modality audio --stems
//! train --data sounds --recipe examples/recipes/procedural.toml --out sounds-index
//! ```

#[macro_use]
extern crate cart_examples as common;

use std::path::PathBuf;

use anyhow::Result;
use cart_procedural::write_benchmark;
use cart_retrieval::{cancel::Monitor, members::Outputs};
use clap::Parser;
use common::drawn::Kind;
use indicatif::{ProgressBar, ProgressStyle};

/// Draws a procedural benchmark as ordinary files
#[derive(Parser)]
struct Args {
    /// What to draw
    #[arg(long)]
    modality: Kind,
    /// Number of items; a sound takes 50 to 100 KB, a video 16 small files
    #[arg(long, default_value_t = 2000)]
    items: usize,
    /// Maximum number of objects in a picture (1 to 3), events in a sound (1 to 3) or shapes in a
    /// video (1 or 2)
    #[arg(long, default_value_t = 1)]
    max_objects: usize,
    /// Seed of everything random
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// New or empty folder to write to
    #[arg(long)]
    out: PathBuf,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let stop = common::stop_on_ctrl_c()?;
    Outputs::new().fills([&args.out]).check()?;
    let benchmark = args.modality.benchmark(args.items, args.max_objects, args.seed)?;
    let bar = ProgressBar::new(args.items as u64);
    bar.set_style(ProgressStyle::with_template("{bar:40} {pos}/{len} {per_sec}")?);
    let report = |done: usize| bar.set_position(done as u64);
    let monitor = Monitor::new().with_stop(&stop).with_progress(report);
    let written = write_benchmark(&*benchmark, &args.out, &monitor)?;
    bar.finish_and_clear();
    println!("{} {} in {}", written.items.len(), args.modality.plural(), args.out.display());
    println!("{:?}", written.captions.audit);
    Ok(())
}
