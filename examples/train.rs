//! Trains an index: a folder in the data contract and a recipe in, an index folder out.
//!
//! Ctrl-C stops after the step at hand and keeps a checkpoint; `--resume` goes on from it.

#[macro_use]
#[path = "common/print.rs"]
mod print;

mod common;

use std::{path::PathBuf, time::Instant};

use anyhow::Result;
use cart_retrieval::{
    backend::{BackendTask, LocalBackend},
    data::DataFolder,
    nn::FusionMode,
    retrieve::Retriever,
    storage::Outputs,
    train::Trainer,
};
use clap::{Parser, ValueEnum};
use common::{
    backend::Hardware,
    pipeline::{Run, Text},
    recipe::{Part, Recipe},
    task::Task,
};

/// Trains a generative index over a folder of candidates and captions.
#[derive(Parser)]
struct Args {
    /// Folder with features, ids.txt and captions.jsonl.
    #[arg(long)]
    data: PathBuf,
    /// Recipe: examples/recipes/any.toml for data of your own; the others there are those of
    /// published sets.
    #[arg(long)]
    recipe: PathBuf,
    /// Folder for the index.
    #[arg(long)]
    out: PathBuf,
    /// Folder for checkpoints (the index's with "-training" behind it unless told).
    #[arg(long)]
    run: Option<PathBuf>,
    /// Goes on with the training in that folder.
    #[arg(long)]
    resume: bool,
    /// Another seed than the recipe's.
    #[arg(long)]
    seed: Option<u64>,
    /// Other passes than the recipe's; 0 trains no network.
    #[arg(long)]
    epochs: Option<usize>,
    /// Another fusion than the recipe's (an ablation).
    #[arg(long)]
    fusion: Option<Fusion>,
    /// A pretrained text encoder in place of the recipe's: a folder in the layout of Hugging Face.
    #[arg(long)]
    encoder: Option<PathBuf>,
    /// Residual K-Means in place of the recipe's fine quantizer (an ablation).
    #[arg(long)]
    rq_kmeans: bool,
    /// Trains even on identifiers that the health check refuses (an ablation).
    #[arg(long)]
    ignore_health: bool,
    /// Shows burn-train's terminal dashboard (build with --features tui).
    #[arg(long)]
    dashboard: bool,
    /// Trains on all devices of the backend; batch_size stays the size of a step.
    #[arg(long)]
    all_devices: bool,
    #[command(flatten)]
    hardware: Hardware,
}

#[derive(Clone, Copy, ValueEnum)]
enum Fusion {
    None,
    Coarse,
    Fine,
    Both,
}

impl From<Fusion> for FusionMode {
    fn from(fusion: Fusion) -> Self {
        match fusion {
            Fusion::None => Self::None,
            Fusion::Coarse => Self::Coarse,
            Fusion::Fine => Self::Fine,
            Fusion::Both => Self::Both,
        }
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    args.hardware.run(Main(args))
}

struct Main(Args);

impl BackendTask for Main {
    type Output = Result<()>;

    fn run<B: LocalBackend>(self, device: B::Device) -> Result<()> {
        train::<B>(&self.0, &device)
    }
}

fn train<B: LocalBackend>(args: &Args, device: &B::Device) -> Result<()> {
    let started = Instant::now();
    let run: PathBuf = args.run.clone().unwrap_or_else(|| {
        // A trailing slash would put it into the index.
        let mut name = args.out.components().as_path().as_os_str().to_os_string();
        name.push("-training");
        name.into()
    });
    let inputs = Outputs::new().reads([&args.data, &args.recipe]).reads(&args.encoder);
    inputs.fills([&args.out, &run]).check()?;
    let mut recipe = Recipe::read(&args.recipe)?;
    if let Some(seed) = args.seed {
        recipe = recipe.with_seed(seed);
    }
    if let Some(folder) = &args.encoder {
        recipe = recipe.with_encoder(folder);
    }
    // Opened before anything is computed.
    recipe.pretrained()?;
    let stop = common::stop_on_ctrl_c()?;
    Retriever::<B>::check_folder(&args.out)?;
    Trainer::check_folder(&run, args.resume)?;
    println!("{}, seed {}", B::describe(device), recipe.seed);

    let data = DataFolder::open(&args.data)?;
    recipe = recipe.for_data(&data)?;
    for reason in recipe.fitted().iter().flat_map(|fitted| &fitted.reasons) {
        println!("chosen for these data: {reason}");
    }
    if args.rq_kmeans {
        recipe = recipe.with_rq_kmeans();
    }
    recipe.training.epochs = args.epochs.unwrap_or(recipe.training.epochs);
    recipe.model.fusion = args.fusion.map_or(recipe.model.fusion, FusionMode::from);
    let task = Task::new(&recipe, &args.data, &data, Part::Test)?;
    println!("{} candidates, {} training captions", task.items.len(), task.train.len());
    println!("{}", data.items.check()?);
    task.check_leaks(&recipe)?;
    if recipe.training.epochs == 0 {
        println!(
            "0 passes: the network is not trained{}",
            match recipe.alignment {
                Some(_) => "; candidates are found by their vectors alone",
                None => " and answers at random; give --epochs 1 or more",
            }
        );
    }
    let text = Text::<B>::new(&recipe, &task.train, device)?;
    let devices = if args.all_devices { B::devices()? } else { vec![device.clone()] };
    if devices.len() > 1 {
        println!("{} devices", devices.len());
    }
    let done = Run {
        recipe: &recipe,
        task: &task,
        text: &text,
        ignore_health: args.ignore_health,
        folder: Some(&run),
        resume: args.resume,
        dashboard: args.dashboard,
        devices,
        stop,
    }
    .run()?;
    let retriever = match &data.metadata {
        Some(metadata) => {
            // Rows of the training, which may be a part of the data.
            let rows = task.items.ids().iter().filter_map(|id| data.items.index_of(id));
            done.retriever.with_metadata(metadata.select(&rows.collect::<Vec<_>>()))?
        }
        None => done.retriever,
    };
    retriever.save(&args.out)?;
    println!(
        "index in {}; trained for {:.0} s, {:.0} s in all",
        args.out.display(),
        done.seconds,
        started.elapsed().as_secs_f64()
    );
    Ok(())
}
