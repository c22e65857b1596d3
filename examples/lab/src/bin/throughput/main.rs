//! Queries a second against the size of the collection: CART, and a dual tower with a flat scan and
//! with HNSW, the text encoder included in all three. Prints a table and draws it.
//!
//! ```text
//! cargo run --release -p cart-lab --bin throughput -- --out throughput
//! cargo run --release -p cart-lab --bin throughput -- --sizes 1000,100000,1000000,10000000 --batches 1,32,128
//! ```
//! The network has random weights and the candidates random identifiers and vectors: what is
//! measured is speed, which depends on neither.
#![recursion_limit = "256"]

#[macro_use]
extern crate cart_examples as common;

mod cart;
mod figure;
mod tower;

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Result, ensure};
use burn::tensor::backend::Backend;
use cart_retrieval::{
    backend::{BackendTask, LocalBackend},
    expert::Engine,
    members::{Outputs, write_bytes},
    model::CartConfig,
};
use clap::Parser;
use common::{backend::Hardware, inputs};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use serde_json::Value;

/// Queries a second against the size of the collection, as a table and a figure.
#[derive(Parser, Clone)]
pub struct Cli {
    /// Numbers of candidates, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "1000,10000,100000,1000000")]
    sizes: Vec<usize>,
    /// Batch sizes of queries, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "1,32")]
    batches: Vec<usize>,
    /// Beam widths, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "10,20")]
    beams: Vec<usize>,
    /// Also measures CART with every level decoded, even after a single candidate is left.
    #[arg(long)]
    all_levels: bool,
    /// Maximum number of candidates for the flat scan, which needs 4 bytes per dimension for each.
    #[arg(long, default_value_t = 1_000_000)]
    flat_most: usize,
    /// Maximum number of candidates for HNSW; building 100,000 takes minutes on two cores.
    #[arg(long, default_value_t = 10_000)]
    hnsw_most: usize,
    /// Tokens of the longest query; the shortest has half as many.
    #[arg(long, default_value_t = 16)]
    tokens: usize,
    /// Sizes of the identifier's levels, without the unique token's.
    #[arg(long, value_delimiter = ',', default_value = "64,256,256,256")]
    levels: Vec<usize>,
    /// Width of the layers.
    #[arg(long, default_value_t = 384)]
    width: usize,
    /// Encoder layers.
    #[arg(long, default_value_t = 6)]
    encoder_layers: usize,
    /// Decoder layers.
    #[arg(long, default_value_t = 4)]
    decoder_layers: usize,
    /// Seconds to measure each row for, after one warm-up batch.
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Folder for throughput.svg and throughput.json.
    #[arg(long)]
    out: Option<PathBuf>,
    #[command(flatten)]
    hardware: Hardware,
}

/// A line of the table.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    pub method: String,
    pub candidates: usize,
    pub batch: usize,
    pub queries_per_second: f64,
    /// Milliseconds of a batch: median, 95th and 99th percentile.
    pub milliseconds: [f64; 3],
    /// Share of the text encoder in the time, keys and values for CART's decoder included.
    pub encoder_share: f64,
    /// What the candidates take in memory.
    pub mebibytes: f64,
}

/// Rows of tokens: batch after batch of different ones.
pub struct Texts {
    rows: Vec<Vec<u32>>,
}

impl Texts {
    /// Queries of batch number `number`.
    pub fn batch(&self, number: usize, size: usize) -> Vec<&[u32]> {
        (0..size).map(|at| self.rows[(number * size + at) % self.rows.len()].as_slice()).collect()
    }
}

/// Seconds of batches, the first of which is not counted, until `seconds` have gone and there are
/// three.
pub fn repeat(seconds: f64, mut batch: impl FnMut(usize) -> Result<()>) -> Result<Vec<f64>> {
    let (mut all, mut total) = (Vec::new(), 0.0);
    batch(0)?;
    while all.len() < 3 || total < seconds {
        let started = Instant::now();
        batch(all.len() + 1)?;
        let took = started.elapsed().as_secs_f64();
        all.push(took);
        total += took;
    }
    Ok(all)
}

/// A value that a share of the others does not exceed.
pub fn percentile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (share * sorted.len() as f64).ceil() as usize;
    sorted[at.clamp(1, sorted.len()) - 1]
}

impl Row {
    pub fn new(method: &str, candidates: usize, batch: usize, bytes: usize, times: &[f64]) -> Self {
        let at = |share| percentile(times, share) * 1e3;
        Self {
            method: method.to_string(),
            candidates,
            batch,
            queries_per_second: batch as f64 / percentile(times, 0.5),
            milliseconds: [at(0.5), at(0.95), at(0.99)],
            encoder_share: 0.0,
            mebibytes: bytes as f64 / 1048576.0,
        }
    }

    fn print(&self) {
        let [middle, p95, p99] = self.milliseconds;
        println!(
            "| {} | {} | {} | {:.1} | {middle:.1} | {p95:.1} | {p99:.1} | {:.0} % | {:.1} |",
            self.method,
            self.candidates,
            self.batch,
            self.queries_per_second,
            100.0 * self.encoder_share,
            self.mebibytes,
        );
    }
}

/// What all measurements share.
pub struct Setting<'a, B: Backend> {
    pub cli: &'a Cli,
    pub engine: &'a Engine<B>,
    pub texts: &'a Texts,
}

struct Run(Cli);

impl BackendTask for Run {
    type Output = Result<()>;

    fn run<B: LocalBackend>(self, device: B::Device) -> Result<()> {
        if let Some(out) = &self.0.out {
            let files = ["throughput.svg", "throughput.json"].map(|name| out.join(name));
            let is_ours = |path: &Path| {
                let json = std::fs::read(path.with_file_name("throughput.json")).ok();
                let json = json.and_then(|json| serde_json::from_slice::<Value>(&json).ok());
                json.is_some_and(|json| json["rows"][0]["queries_per_second"].is_f64())
            };
            let outputs = Outputs::new().fills([out]);
            outputs.replaces(files, "the figure of an earlier run", is_ours).prepare()?;
        }
        let cli = self.0;
        ensure!(!cli.sizes.is_empty() && !cli.batches.is_empty(), "give sizes and batches");
        ensure!(
            cli.sizes.iter().chain(&cli.batches).chain(&cli.beams).all(|&n| n > 0),
            "sizes, batches and beams are at least 1"
        );
        ensure!(cli.tokens >= 2, "queries of at least 2 tokens");
        let hardware = common::hardware::<B>(&device);
        println!("{hardware}, {} threads", rayon::current_num_threads());
        // Room for candidates that share their other tokens, so that one network serves all sizes.
        let sizes = cli.levels.iter().copied().chain([cart::UNIQUE]).collect();
        let vocabulary = cart_retrieval::identifier::LevelSizes::new(sizes)?;
        let config = CartConfig::new(30_522, vocabulary.clone())
            .with_width(cli.width, 4 * cli.width, (cli.width / 64).max(1))
            .with_layers(cli.encoder_layers, cli.decoder_layers)
            .with_max_tokens(cli.tokens)
            .with_seed(cli.seed);
        let engine = Engine::new(config.init::<B>(&device)?);
        let mut rng = ChaCha8Rng::seed_from_u64(cli.seed);
        let rows = inputs::token_rows(512, cli.tokens / 2, cli.tokens, 30_522, &mut rng);
        let texts = Texts { rows };
        let setting = Setting { cli: &cli, engine: &engine, texts: &texts };

        println!(
            "\n| method | candidates | batch | queries/s | ms a batch | p95 | p99 | encoder | MiB |"
        );
        println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|");
        let mut table: Vec<Row> = Vec::new();
        let mut add = |rows: Vec<Row>| {
            rows.iter().for_each(Row::print);
            table.extend(rows);
        };
        for &n in &cli.sizes {
            add(cart::rows(&setting, n, &vocabulary)?);
            match n <= cli.flat_most {
                true => add(tower::flat(&setting, n)?),
                false => eprintln!("flat scan left out at {n} candidates (--flat-most)"),
            }
            match n <= cli.hnsw_most {
                true => add(tower::hnsw(&setting, n)?),
                false => eprintln!("HNSW left out at {n} candidates (--hnsw-most)"),
            }
        }
        for &batch in &cli.batches {
            for line in figure::crossings(&table, batch) {
                println!("\n{line}");
            }
        }
        if let Some(out) = &cli.out {
            let batch = *cli.batches.iter().max().expect("checked");
            let svg = figure::draw(&table, batch, &hardware)?;
            write_bytes(out.join("throughput.svg"), svg.as_bytes())?;
            let json = serde_json::json!({
                "command": common::command(), "hardware": hardware,
                "threads": rayon::current_num_threads(), "rows": table,
            });
            write_bytes(out.join("throughput.json"), &serde_json::to_vec_pretty(&json)?)?;
            println!("\n{}", out.join("throughput.svg").display());
        }
        Ok(())
    }
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    cli.hardware.run(Run(cli.clone()))
}
