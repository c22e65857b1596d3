//! Trains an index: a folder in the data contract and a recipe in, an index folder out.
//!
//! Ctrl-C stops after the step at hand and keeps a checkpoint; `--resume` goes on from it.

#[macro_use]
extern crate cart_examples as common;

use std::{path::PathBuf, time::Instant};

use anyhow::Result;
use cart_retrieval::{
    backend::{BackendTask, LocalBackend},
    data::DataFolder,
    expert::TextSide,
    members::Outputs,
    nn::FusionMode,
    recipe::{Fit, Part, Task},
    retrieve::Retriever,
    train::Trainer,
};
use clap::{Parser, ValueEnum};
use common::{
    backend::Hardware,
    outputs::with_recipe,
    progress::Progress,
    recipe::{self, RecipeArgs, check_leaks},
};

/// Trains a generative index over a folder of candidates and captions.
#[derive(Parser)]
struct Args {
    /// Folder with features, ids.txt and captions.jsonl.
    #[arg(long)]
    data: PathBuf,
    #[command(flatten)]
    recipe: RecipeArgs,
    /// Writes all settings to a recipe file, before training.
    #[arg(long, value_name = "FILE")]
    write_recipe: Option<PathBuf>,
    /// Folder for the index.
    #[arg(long)]
    out: PathBuf,
    /// Folder for checkpoints; by default the index folder's name followed by "-training".
    #[arg(long)]
    run: Option<PathBuf>,
    /// Resumes the training in that folder.
    #[arg(long)]
    resume: bool,
    /// Number of passes; overrides the recipe's. With 0, the network is not trained.
    #[arg(long)]
    epochs: Option<usize>,
    /// Feature fusion; overrides the recipe's (an ablation).
    #[arg(long)]
    fusion: Option<Fusion>,
    /// Residual K-Means instead of the recipe's fine quantizer (an ablation).
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
    let outputs = Outputs::new().reads([&args.data]).reads(args.recipe.inputs());
    with_recipe(outputs.fills([&args.out, &run]), &args.write_recipe).check()?;
    let settings = args.recipe.settings()?;
    let stop = common::stop_on_ctrl_c()?;
    Retriever::<B>::check_folder(&args.out)?;
    Trainer::check_folder(&run, args.resume)?;

    let data = DataFolder::open(&args.data)?;
    let mut recipe = args.recipe.chosen(&settings, &data)?;
    println!("{}, seed {}", B::describe(device), recipe.seed);
    if args.rq_kmeans {
        recipe = recipe.with_rq_kmeans();
    }
    recipe.training.epochs = args.epochs.unwrap_or(recipe.training.epochs);
    recipe.model.fusion = args.fusion.map_or(recipe.model.fusion, FusionMode::from);
    let task = Task::new(&recipe, &data, Part::Test)?;
    println!("{} candidates, {} training captions", task.items.len(), task.train.len());
    println!("{}", data.items.check()?);
    check_leaks(&task, &recipe)?;
    if recipe.training.epochs == 0 {
        println!(
            "0 passes: the network is not trained{}",
            match recipe.alignment {
                Some(_) => "; candidates are found by their vectors alone",
                None => " and answers at random; give --epochs 1 or more",
            }
        );
    }
    if let Some(file) = &args.write_recipe {
        recipe::write(file, &recipe)?;
        println!("recipe in {}", file.display());
    }
    let progress = Progress::default().listener();
    let text = TextSide::<B>::new(&recipe, &task.train, device, &progress)?;
    let devices = if args.all_devices { B::devices()? } else { vec![device.clone()] };
    if devices.len() > 1 {
        println!("{} devices", devices.len());
    }
    let fitted = Fit::new(&recipe, &task)
        .with_ignore_health(args.ignore_health)
        .with_folder(&run)
        .with_resume(args.resume)
        .with_dashboard(args.dashboard)
        .with_stop(&stop)
        .with_progress(progress)
        .run_with(&text, &devices)?;
    if let Some(file) = &args.write_recipe
        && fitted.recipe != recipe
    {
        // With the quantizer that was taken in place of one that did not suit the data.
        recipe::write(file, &fitted.recipe)?;
    }
    let seconds = fitted.seconds;
    fitted.with_metadata_of(&data, &task)?.save(&args.out)?;
    println!(
        "index in {}; trained for {seconds:.0} s, {:.0} s in all",
        args.out.display(),
        started.elapsed().as_secs_f64()
    );
    Ok(())
}
