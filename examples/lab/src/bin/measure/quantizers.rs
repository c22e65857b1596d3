//! K-Means, residual encoding and the RQ-VAE.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Result, ensure};
use burn::tensor::backend::Backend;
use cart_retrieval::{
    cancel::Monitor,
    expert::{DeviceSearch, HostSearch, Init, NearestCentre, RqKMeans, RqVaeEvent},
    members::{NamedTensors, Outputs, write_bytes},
    quantizer::{Codebooks, KMeansConfig, Quantizer, RqVaeConfig},
};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::{
    Common,
    inputs::rows,
    report::{median, times},
};

/// K-Means.
#[derive(Args, Clone)]
pub struct KMeansArgs {
    /// Number of rows; drawn at random if there is no file.
    #[arg(long, default_value_t = 100_000)]
    n: usize,
    /// Width of drawn rows.
    #[arg(long, default_value_t = 512)]
    d: usize,
    /// Clusters.
    #[arg(long, default_value_t = 1024)]
    k: usize,
    /// Updates of the centres.
    #[arg(long, default_value_t = 10)]
    iterations: usize,
    /// File of rows, `.npy`; the first n are used.
    #[arg(long)]
    rows: Option<PathBuf>,
    /// Rows are drawn around four times this many centres; 0 draws them without structure.
    #[arg(long, default_value_t = 1024)]
    spread: usize,
    /// First centres.
    #[arg(long, value_enum, default_value_t = Seeding::PlusPlus)]
    seeding: Seeding,
    /// Assigns on the backend's device instead of the CPU.
    #[arg(long)]
    on_device: bool,
    /// Writes the centres, safetensors.
    #[arg(long)]
    centres: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Seeding {
    PlusPlus,
    Random,
}

/// Checks the file that results are written to.
fn prepare(rows: &Option<PathBuf>, to: &Option<PathBuf>) -> Result<()> {
    let is_ours = |path: &Path| {
        let read = |path| std::fs::read(path).ok().and_then(|b| NamedTensors::from_bytes(&b).ok());
        let takes = |mut tensors: NamedTensors| {
            tensors.take_u32("codes").is_ok() || tensors.take_f32("centres").is_ok()
        };
        read(path).is_some_and(|(tensors, _)| takes(tensors))
    };
    Ok(Outputs::new().reads(rows).replaces(to, "results of this program", is_ours).prepare()?)
}

/// Times whole fits, seeding included: `--steps` of them after `--warmup`.
pub fn kmeans<B: Backend>(args: &KMeansArgs, common: &Common, device: &B::Device) -> Result<Value> {
    prepare(&args.rows, &args.centres)?;
    let spread = if args.rows.is_some() { 0 } else { args.spread };
    let features = rows(args.rows.as_deref(), args.n, args.d, spread, common.seed)?;
    let (data, dim) = (&features.as_slice()[..args.n * features.dim()], features.dim());
    let config = KMeansConfig {
        seed: common.seed,
        restarts: 1,
        max_iterations: args.iterations,
        tolerance: 0.0,
        init: match args.seeding {
            Seeding::PlusPlus => Init::PlusPlus,
            Seeding::Random => Init::Random,
        },
        ..KMeansConfig::new(args.k)
    };
    let device_search = DeviceSearch::<B>::new(device.clone());
    let engine: &dyn NearestCentre = if args.on_device { &device_search } else { &HostSearch };
    let mut seconds = Vec::new();
    let mut last = None;
    for repetition in 0..common.warmup + common.steps {
        let started = Instant::now();
        last = Some(config.fit_with_engine(&(data, dim), engine, &Monitor::new())?);
        if repetition >= common.warmup {
            seconds.push(started.elapsed().as_secs_f64());
        }
    }
    let Some(fitted) = last else { anyhow::bail!("at least one repetition is needed") };
    if let Some(path) = &args.centres {
        let mut tensors = NamedTensors::new();
        tensors.insert_f32("centres", &[args.k, dim], fitted.centres());
        write_bytes(path, &tensors.to_bytes(&[])?)?;
    }
    let mut line = times(&seconds, args.n as f64);
    line.insert("measure".into(), json!("kmeans"));
    line.insert("inertia".into(), json!(fitted.inertia()));
    line.insert("iterations".into(), json!(fitted.iterations()));
    line.insert(
        "settings".into(),
        json!({"n": args.n, "d": dim, "k": args.k, "iterations": args.iterations}),
    );
    Ok(Value::Object(line))
}

/// Residual encoding.
#[derive(Args, Clone)]
pub struct RqEncodeArgs {
    /// Number of rows; drawn at random if there is no file.
    #[arg(long, default_value_t = 1_000_000)]
    n: usize,
    /// Width of drawn rows.
    #[arg(long, default_value_t = 128)]
    d: usize,
    /// Codes of each level.
    #[arg(long, value_delimiter = ',', default_value = "256,256,256,256")]
    sizes: Vec<usize>,
    /// File of rows, `.npy`; the first n are used.
    #[arg(long)]
    rows: Option<PathBuf>,
    /// File of stacked codebooks, `.npy`; drawn at random without it.
    #[arg(long)]
    codebooks: Option<PathBuf>,
    /// Writes the codes, safetensors.
    #[arg(long)]
    codes: Option<PathBuf>,
}

/// Times the encoding of all rows.
pub fn rq_encode(args: &RqEncodeArgs, common: &Common) -> Result<Value> {
    prepare(&args.rows, &args.codes)?;
    let features = rows(args.rows.as_deref(), args.n, args.d, 0, common.seed)?;
    let (data, dim) = (&features.as_slice()[..args.n * features.dim()], features.dim());
    let total: usize = args.sizes.iter().sum();
    let books = rows(args.codebooks.as_deref(), total, dim, 0, common.seed + 1)?;
    ensure!(books.dim() == dim, "codebooks of width {} for rows of {dim}", books.dim());
    let mut start = 0;
    let codebooks = args
        .sizes
        .iter()
        .map(|size| {
            start += size * dim;
            books.as_slice()[start - size * dim..start].to_vec()
        })
        .collect();
    let quantizer = RqKMeans::from_parts(codebooks, dim)?;
    let mut seconds = Vec::new();
    let mut last = None;
    for repetition in 0..common.warmup + common.steps {
        let started = Instant::now();
        last = Some(quantizer.encode(data)?);
        if repetition >= common.warmup {
            seconds.push(started.elapsed().as_secs_f64());
        }
    }
    if let (Some(path), Some(codes)) = (&args.codes, &last) {
        let flat: Vec<u32> = codes.as_flat().iter().map(|&code| u32::from(code)).collect();
        let mut tensors = NamedTensors::new();
        tensors.insert_u32("codes", &flat);
        write_bytes(path, &tensors.to_bytes(&[])?)?;
    }
    let mut line = times(&seconds, args.n as f64);
    line.insert("measure".into(), json!("rq-encode"));
    line.insert("settings".into(), json!({"n": args.n, "d": dim, "sizes": args.sizes}));
    Ok(Value::Object(line))
}

/// The RQ-VAE.
#[derive(Args, Clone)]
pub struct RqVaeArgs {
    /// Rows of a batch.
    #[arg(long, default_value_t = 1024)]
    pub batch: usize,
    /// Width of the rows.
    #[arg(long, default_value_t = 512)]
    pub d: usize,
    /// Widths of the hidden layers.
    #[arg(long, value_delimiter = ',', default_value = "256")]
    pub hidden: Vec<usize>,
    /// Width of the latent space.
    #[arg(long, default_value_t = 128)]
    pub latent: usize,
    /// Codes of each level.
    #[arg(long, value_delimiter = ',', default_value = "256,256,256")]
    pub sizes: Vec<usize>,
    /// Codebooks learn by gradient instead of moving averages.
    #[arg(long)]
    pub gradient: bool,
}

impl RqVaeArgs {
    /// Settings of the RQ-VAE.
    pub fn config(&self, seed: u64) -> RqVaeConfig {
        let codebooks =
            if self.gradient { Codebooks::Gradient } else { Codebooks::Ema { decay: 0.99 } };
        RqVaeConfig {
            hidden: self.hidden.clone(),
            latent: self.latent,
            batch: self.batch,
            codebooks,
            restart_every: 0,
            seed,
            ..RqVaeConfig::new(self.sizes.clone())
        }
    }
}

/// A step of the RQ-VAE's training.
#[derive(Args, Clone)]
pub struct RqVaeStepArgs {
    #[command(flatten)]
    rqvae: RqVaeArgs,
    /// Steps in an epoch; an epoch is what is timed.
    #[arg(long, default_value_t = 16)]
    epoch: usize,
}

/// Times epochs of a fit, and divides by their steps.
pub fn rqvae_step<B: Backend>(
    args: &RqVaeStepArgs,
    common: &Common,
    device: &B::Device,
) -> Result<Value> {
    ensure!(args.epoch > 0 && common.warmup > 0, "an epoch and a warm-up of at least 1 are needed");
    let rqvae = &args.rqvae;
    let data = rows(None, rqvae.batch * args.epoch, rqvae.d, 64, common.seed)?;
    let epochs = common.warmup + common.steps;
    let mut config = RqVaeConfig { epochs, ..rqvae.config(common.seed) };
    config.init_sample = 4096;
    let mut ends = Vec::with_capacity(epochs);
    let mut loss = f64::NAN;
    let monitor = Monitor::new().with_progress(|event: RqVaeEvent| {
        ends.push(Instant::now());
        loss = event.loss;
    });
    config.fit_with_progress::<B>(data.as_slice(), rqvae.d, device, &monitor)?;
    drop(monitor);
    let seconds: Vec<f64> = ends[common.warmup - 1..]
        .windows(2)
        .map(|pair| (pair[1] - pair[0]).as_secs_f64() / args.epoch as f64)
        .collect();
    let mut line = times(&seconds, rqvae.batch as f64);
    line.insert("measure".into(), json!("rqvae-step"));
    line.insert("milliseconds".into(), json!(median(&seconds) * 1e3));
    line.insert("loss".into(), json!(loss));
    line.insert(
        "settings".into(),
        json!({
            "batch": rqvae.batch, "d": rqvae.d, "hidden": rqvae.hidden, "latent": rqvae.latent,
            "sizes": rqvae.sizes, "codebooks": if rqvae.gradient { "gradient" } else { "ema" },
        }),
    );
    Ok(Value::Object(line))
}
