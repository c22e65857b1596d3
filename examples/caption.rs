//! Captions of captioners for a data folder: of the nearest described candidates, or of a program
//! of your own.
//!
//! ```sh
//! caption --data my-data retrieval --k 5
//! caption --data my-data --recipe my-recipe.toml command --media pictures python3 blip.py --model large
//! ```
//!
//! The recipe says which captions are training captions: no other text is read. With its splits,
//! those of the train split are. Described are the items that have none of them, or with `--all`
//! every one. The file goes into the data folder; `generated = ["generated.jsonl"]` in the recipe
//! trains on it. Ctrl-C stops, and the same command goes on.

#[macro_use]
extern crate cart_examples as common;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use cart_media::{
    MediaItem, Modality,
    captioner::{
        CaptionJob, CaptionProgress, Captioned, Captioner, CommandConfig, Metric, RetrievalConfig,
    },
    formats::PublishedSet,
    media_below,
};
use cart_retrieval::{
    cancel::Monitor,
    data::DataFolder,
    members::Outputs,
    prelude::*,
    recipe::{Part, Recipe, Task},
};
use clap::{Args, Parser, Subcommand, ValueEnum};
use common::recipe::RecipeArgs;
use indicatif::{ProgressBar, ProgressStyle};

/// Describes candidates that have no training caption
#[derive(Parser)]
struct Cli {
    /// Folder with features, ids.txt and captions.jsonl
    #[arg(long)]
    data: PathBuf,
    #[command(flatten)]
    recipe: RecipeArgs,
    /// File of the data folder to write
    #[arg(long, default_value = "generated.jsonl")]
    out: PathBuf,
    /// Also describes items that have training captions
    #[arg(long)]
    all: bool,
    /// Weight of the captions; human captions have 1
    #[arg(long, default_value_t = 0.5)]
    weight: f32,
    #[command(subcommand)]
    captioner: Kind,
}

#[derive(Subcommand)]
enum Kind {
    /// The captions of the nearest candidates that have some
    Retrieval(Retrieval),
    /// A program that reads paths and writes captions, as JSON lines
    Command(Command),
}

#[derive(Args)]
struct Retrieval {
    /// Number of neighbours whose captions are used
    #[arg(long, default_value_t = RetrievalConfig::default().k)]
    k: usize,
    /// How candidates are compared
    #[arg(long, default_value = "cosine")]
    metric: MetricName,
    /// Temperature: captions of a neighbour that is less similar by this much weigh 1/e of the
    /// nearest one's
    #[arg(long, default_value_t = RetrievalConfig::default().temperature)]
    temperature: f64,
    /// Number of captions to use per neighbour, from the first; all by default
    #[arg(long)]
    per_neighbour: Option<usize>,
}

#[derive(Clone, Copy, ValueEnum)]
enum MetricName {
    Cosine,
    Euclidean,
}

#[derive(Args)]
struct Command {
    /// Folder of the media files
    #[arg(long)]
    media: PathBuf,
    /// Name of the captioner in the file; by default the program's
    #[arg(long)]
    source: Option<String>,
    /// Maximum number of captions per item
    #[arg(long, default_value_t = 1)]
    per_item: usize,
    /// Number of items per start of the program
    #[arg(long, default_value_t = 1024)]
    batch: usize,
    /// Time limit of a batch in seconds
    #[arg(long, default_value_t = 3600.0)]
    seconds: f64,
    /// The program and its arguments; no shell reads them
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    program: Vec<String>,
}

fn main() -> Result<()> {
    let args = Cli::parse();
    let stop = common::stop_on_ctrl_c()?;
    let settings = args.recipe.settings()?;
    let file = args.data.join(&args.out);
    let inputs = Outputs::new().reads([&args.data]).reads(args.recipe.inputs());
    let (captioner, outputs) = match &args.captioner {
        Kind::Retrieval(_) => (None, inputs),
        Kind::Command(command) => {
            let mut state = file.clone().into_os_string();
            state.push("-captioning");
            let captioner = command.config(args.weight).init()?.with_state(PathBuf::from(&state));
            if captioner.was_saved(&file)? {
                println!("{} has all captions from an earlier run", file.display());
                return Ok(());
            }
            (Some(captioner), inputs.reads([&command.media]).fills([PathBuf::from(state)]))
        }
    };
    outputs.writes([&file]).check()?;
    let data = DataFolder::open(&args.data)?;
    let training = training(&settings.preview()?, &data)?;
    let mut described = vec![false; data.items.len()];
    training.iter().for_each(|caption| described[caption.item as usize] = true);
    let ids: Vec<&str> = data
        .items
        .ids()
        .iter()
        .zip(&described)
        .filter(|(_, d)| args.all || !**d)
        .map(|(id, _)| id)
        .collect();
    let count = described.iter().filter(|&&described| described).count();
    println!(
        "{} items, {count} of them with training captions ({} in all); {} to describe",
        data.items.len(),
        training.len(),
        ids.len()
    );
    if ids.is_empty() {
        bail!("every item has a training caption; --all describes them anyway");
    }
    let job = CaptionJob::new(&ids)?;
    Outputs::new().writes([&file]).prepare()?;

    let bar = ProgressBar::new(ids.len() as u64);
    bar.set_style(ProgressStyle::with_template("{bar:40} {pos}/{len} {per_sec} {msg}")?);
    let monitor = Monitor::new().with_stop(&stop).with_progress(|at: CaptionProgress| {
        bar.set_position(at.done as u64);
        if at.without > 0 {
            bar.set_message(format!("{} without a caption", at.without));
        }
    });
    let made = match &args.captioner {
        Kind::Retrieval(retrieval) => {
            let config = RetrievalConfig {
                k: retrieval.k,
                metric: match retrieval.metric {
                    MetricName::Cosine => Metric::Cosine,
                    MetricName::Euclidean => Metric::Euclidean,
                },
                weight: args.weight,
                temperature: retrieval.temperature,
                per_neighbour: retrieval.per_neighbour,
            };
            let job = job.with_features(&data.items)?;
            let made = config.fit(&data.items, &training)?.caption(&job, &monitor)?;
            made.captions.to_jsonl(&file)?;
            made
        }
        Kind::Command(command) => {
            let media = media_of(&args.data, &command.media, &ids)?;
            let job = job.with_media(&command.media, &media)?;
            let captioner = captioner.context("a captioner was made above")?;
            let made = captioner.caption(&job, &monitor)?;
            captioner.save(&made.captions, &file)?;
            made
        }
    };
    bar.finish_and_clear();
    summary(&made, &ids, &file);
    check(args.recipe.recipe(&settings, &data)?, &data, &args)
}

/// Captions to train on, by people: of the train split where the recipe has splits.
fn training(recipe: &Recipe, data: &DataFolder) -> Result<Vec<ItemCaption>> {
    let mut captions = data.select(&recipe.train).context("the recipe's [train]")?;
    if let Some(splits) = &recipe.splits {
        let of = data.splits.as_ref().context("the recipe names splits, and the data has none")?;
        let rows = of.indices(&splits.train, |id| data.items.index_of(id))?;
        let mut known = vec![false; data.items.len()];
        rows.iter().for_each(|&row| known[row as usize] = true);
        captions.retain(|caption| known[caption.item as usize]);
    }
    Ok(captions)
}

impl Command {
    fn config(&self, weight: f32) -> CommandConfig {
        let mut config = CommandConfig::new(&self.program[0]).with_args(&self.program[1..]);
        config.source = self.source.clone();
        (config.weight, config.per_item) = (weight, self.per_item);
        (config.batch, config.seconds) = (self.batch, self.seconds);
        config
    }
}

/// The files of some items: those of `media.jsonl`, or below a folder by their paths with and
/// without extensions, or names alone.
fn media_of(data: &Path, root: &Path, ids: &[&str]) -> Result<Vec<MediaItem>> {
    let list = data.join(PublishedSet::MEDIA);
    if list.exists() {
        let text = std::fs::read_to_string(&list)?;
        let lines = text.lines().filter(|line| !line.trim().is_empty()).enumerate();
        let item = |(at, line): (usize, &str)| {
            serde_json::from_str(line).with_context(|| format!("{}:{}", list.display(), at + 1))
        };
        return lines.map(item).collect();
    }
    let all = [Modality::Image, Modality::Audio, Modality::Video];
    let below = media_below(root, &all)?.items;
    let mut files: HashMap<String, &MediaItem> = HashMap::new();
    for item in &below {
        let stem = |path: &Path| path.with_extension("").to_string_lossy().into_owned();
        let name = item.path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        for id in [name, stem(&item.path), item.id.clone()] {
            files.insert(id, item);
        }
    }
    let found =
        |id: &&str| files.get(*id).map(|&item| MediaItem { id: id.to_string(), ..item.clone() });
    Ok(ids.iter().filter_map(found).collect())
}

fn summary(made: &Captioned, ids: &[&str], file: &Path) {
    println!(
        "{} captions of {} items in {}; {} items from an earlier run",
        made.captions.len(),
        ids.len() - made.without.len(),
        file.display(),
        made.resumed
    );
    if let Some(first) = made.without.first() {
        println!("{} items got no caption; the first is `{first}`", made.without.len());
    }
    for caption in made.captions.iter().take(3) {
        println!("  {}: {:?}, weight {:.3}", caption.id, caption.text, caption.weight);
    }
}

/// How many of the recipe's queries the training texts give away, with the new captions among them.
fn check(mut recipe: Recipe, data: &DataFolder, args: &Cli) -> Result<()> {
    if !recipe.generated.contains(&args.out) {
        println!("to train on them, add to the recipe: generated = [{:?}]", args.out);
        recipe.generated = vec![args.out.clone()];
    }
    let task = Task::new(&recipe, data, Part::Test)?;
    println!("{}", task.leaks);
    Ok(())
}
