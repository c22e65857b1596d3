//! Identifiers for a collection larger than memory, by one process or several.
//!
//! ```sh
//! shards fit    --data DIR --quantizer q.safetensors --coarse 1024 --fine 256,256,256
//! shards encode --data DIR --quantizer q.safetensors --part 0 --of 2 --out codes-0.safetensors
//! shards encode --data DIR --quantizer q.safetensors --part 1 --of 2 --out codes-1.safetensors
//! shards merge  --data DIR --quantizer q.safetensors --out trie.bin codes-0.safetensors codes-1.safetensors
//! ```

#[macro_use]
extern crate cart_examples as common;

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result};
use cart_retrieval::{
    backend::{BackendTask, LocalBackend},
    expert::{CodesPart, Trie},
    features::{ItemIds, ShardedFeatures},
    members::{Outputs, read_limited, write_bytes},
    prelude::*,
    quantizer::{KMeansConfig, QuantizerEvent, RqKMeansConfig},
};
use clap::{Parser, Subcommand};
use common::backend::Hardware;

/// Fits a quantizer to shards, encodes parts of them, and merges the parts.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    job: Job,
    #[command(flatten)]
    hardware: Hardware,
}

#[derive(Subcommand)]
enum Job {
    /// Fits a quantizer to an even sample of the rows.
    Fit {
        #[command(flatten)]
        files: Files,
        /// Number of coarse tokens.
        #[arg(long)]
        coarse: usize,
        /// Number of fine tokens per level.
        #[arg(long, value_delimiter = ',')]
        fine: Vec<usize>,
        /// Maximum number of rows to fit to.
        #[arg(long, default_value_t = 200_000)]
        sample: usize,
        /// Maximum number of iterations per level.
        #[arg(long, default_value_t = 20)]
        iterations: usize,
    },
    /// Encodes one part of the rows.
    Encode {
        #[command(flatten)]
        files: Files,
        /// Index of the part, from 0.
        #[arg(long, default_value_t = 0)]
        part: usize,
        /// Number of parts.
        #[arg(long, default_value_t = 1)]
        of: usize,
        /// File of the codes.
        #[arg(long)]
        out: PathBuf,
    },
    /// Merges all parts into a trie.
    Merge {
        #[command(flatten)]
        files: Files,
        /// Files of the parts.
        parts: Vec<PathBuf>,
        /// File of the trie.
        #[arg(long)]
        out: PathBuf,
    },
}

#[derive(clap::Args)]
struct Files {
    /// Folder with features-00000-of-....npy and ids.txt.
    #[arg(long)]
    data: PathBuf,
    /// File of the quantizer.
    #[arg(long)]
    quantizer: PathBuf,
}

impl Files {
    fn items(&self) -> Result<ShardedFeatures> {
        Ok(ShardedFeatures::open_folder(&self.data)?)
    }

    fn quantizer<B: LocalBackend>(&self, device: &B::Device) -> Result<CoarseToFine<B>> {
        let bytes = read_limited(&self.quantizer, 1 << 34)?;
        Ok(CoarseToFine::from_safetensors(&bytes, device)?)
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    args.hardware.run(args.job)
}

impl BackendTask for Job {
    type Output = Result<()>;

    fn run<B: LocalBackend>(self, device: B::Device) -> Result<()> {
        run::<B>(self, &device)
    }
}

fn run<B: LocalBackend>(job: Job, device: &B::Device) -> Result<()> {
    let start = Instant::now();
    match job {
        Job::Fit { files, coarse, fine, sample, iterations } => {
            Outputs::new().reads([&files.data]).writes([&files.quantizer]).prepare()?;
            let lloyd = KMeansConfig {
                restarts: 1,
                max_iterations: iterations,
                ..KMeansConfig::new(coarse)
            };
            let fine = RqKMeansConfig {
                restarts: 1,
                max_iterations: iterations,
                ..RqKMeansConfig::new(fine)
            };
            let config = CoarseToFineConfig { coarse: lloyd, fine: fine.into() };
            let items = files.items()?;
            let quantizer = config.fit_source::<B>(&items, sample, device)?;
            write_bytes(&files.quantizer, &quantizer.to_safetensors()?)?;
            println!("fitted to {} of {} rows", sample.min(items.len()), items.len());
        }
        Job::Encode { files, part, of, out } => {
            let is_ours = |path: &Path| CodesPart::load(path).is_ok();
            let inputs = Outputs::new().reads([&files.data, &files.quantizer]);
            inputs.replaces([&out], "codes of a part", is_ours).prepare()?;
            let (items, quantizer) = (files.items()?, files.quantizer::<B>(device)?);
            let show = |event| {
                if let QuantizerEvent::Encoded { rows, of } = event {
                    eprint!("\r{rows} of {of} rows");
                }
            };
            let codes = quantizer.assign(&items).progress(show).part(part, of)?;
            eprintln!();
            codes.save(out)?;
            println!("encoded rows {:?} of {}", codes.rows(), codes.total());
        }
        Job::Merge { files, parts, out } => {
            let inputs = Outputs::new().reads([&files.data, &files.quantizer]).reads(&parts);
            let is_ours = |path: &Path| Trie::open(path).is_ok();
            inputs.replaces([&out], "a trie", is_ours).prepare()?;
            let ids = ItemIds::open(files.data.join("ids.txt"))?;
            let parts =
                parts.iter().map(CodesPart::load).collect::<cart_retrieval::Result<Vec<_>>>()?;
            let index = files.quantizer::<B>(device)?.assign_parts(parts, ids).run()?;
            println!("{}", index.health());
            write_bytes(out, &index.trie().to_bytes())?;
        }
    }
    println!("{:.1} s, at most {} of memory", start.elapsed().as_secs_f64(), peak_memory()?);
    Ok(())
}

/// The most memory the process has had, file pages included, where the system tells.
fn peak_memory() -> Result<String> {
    let Ok(text) = std::fs::read_to_string("/proc/self/status") else {
        return Ok("an unknown amount".to_string());
    };
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    Ok(line.context("no VmHWM in /proc/self/status")?.trim().to_string())
}
