//! Adds candidates to an index that never saw them, and measures what is found: the old ones and
//! the new ones apart.
//!
//! Trains on a part of a collection, adds the rest to the saved index without training, first by
//! its features alone, then with its captions; optionally goes on training for a while on the
//! captions of both (fine-tuning with replay), and retrains on everything as a reference.

#[macro_use]
extern crate cart_examples as common;

use std::{collections::BTreeMap, path::PathBuf, time::Instant};

use anyhow::{Result, bail, ensure};
use burn::backend::Autodiff;
use cart_retrieval::{
    backend::{BackendTask, LocalBackend},
    cancel::StopFlag,
    data::DataFolder,
    eval::{EvalRecord, Metrics, TruncatedTies, evaluate, write_json},
    expert::{Later, TextSide, trainable},
    members::Outputs,
    model::Cart,
    prelude::*,
    recipe::{Fit, Part, Recipe, Task},
    retrieve::{DriftThresholds, LiveRetriever, NewCandidates},
};
use clap::Parser;
use common::{backend::Hardware, outputs::with_report, progress::Progress, recipe::RecipeArgs};
use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

/// Recall of candidates that were added after training.
#[derive(Parser)]
struct Args {
    /// Folder with features, ids.txt and captions.jsonl.
    #[arg(long)]
    data: PathBuf,
    #[command(flatten)]
    recipe: RecipeArgs,
    /// Share of the candidates that are added later.
    #[arg(long, default_value_t = 0.2)]
    later: f64,
    /// Number of candidates per addition.
    #[arg(long, default_value_t = 1000)]
    batch: usize,
    /// Number of fine-tuning passes over the new captions and as many old ones.
    #[arg(long, default_value_t = 0)]
    fine_tune: usize,
    /// Learning rate of the fine-tuning, relative to the recipe's.
    #[arg(long, default_value_t = 0.3)]
    fine_tune_rate: f64,
    /// Also retrains on all candidates.
    #[arg(long)]
    refit: bool,
    /// Folder for the index (replaced).
    #[arg(long, default_value = "out/grow")]
    out: PathBuf,
    /// Writes the figures as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    #[command(flatten)]
    hardware: Hardware,
}

fn main() -> Result<()> {
    let args = Args::parse();
    args.hardware.run(Main(args))
}

struct Main(Args);

impl BackendTask for Main {
    type Output = Result<()>;

    fn run<B: LocalBackend>(self, device: B::Device) -> Result<()> {
        grow::<B>(&self.0, &device)
    }
}

/// Queries, and the ids of what they look for.
struct Queries {
    texts: Vec<String>,
    ids: Vec<Vec<String>>,
}

/// What is measured of an index, and written down.
struct Report<'a> {
    recipe: &'a Recipe,
    seed: u64,
    hardware: String,
    old: Queries,
    new: Queries,
    rows: Vec<(String, Metrics, Option<Metrics>)>,
    records: Vec<EvalRecord>,
}

fn grow<B: LocalBackend>(args: &Args, device: &B::Device) -> Result<()> {
    let inputs = Outputs::new().reads([&args.data]).reads(args.recipe.inputs());
    with_report(inputs.fills([&args.out]), &args.json).prepare()?;
    let settings = args.recipe.settings()?;
    let stop = common::stop_on_ctrl_c()?;
    Retriever::<B>::check_folder(&args.out)?;
    let data = DataFolder::open(&args.data)?;
    let recipe = args.recipe.chosen(&settings, &data)?;
    let seed = recipe.seed;
    let all = || Task::new(&recipe, &data, Part::Test);
    let task = all()?;
    if let Some(reason) = task.nothing_to_ask(&recipe) {
        bail!(reason);
    }
    let (now, later) = task.hold_back(args.later, seed)?;
    println!(
        "{} candidates now, {} later; {} training texts, {} and {} queries",
        now.items.len(),
        later.items.len(),
        now.train.len(),
        now.queries.len(),
        later.queries.len()
    );
    let trained = |task: &Task| -> Result<(Retriever<B>, f64)> {
        let progress = Progress::default().listener();
        let text = TextSide::<B>::new(&recipe, &task.train, device, &progress)?;
        let fitted = Fit::new(&recipe, task)
            .with_stop(&stop)
            .with_progress(progress)
            .run_with(&text, std::slice::from_ref(device))?;
        Ok((fitted.retriever, fitted.total))
    };
    let (retriever, seconds) = trained(&now)?;
    let mut report = Report {
        recipe: &recipe,
        seed,
        hardware: common::hardware::<B>(device),
        old: Queries::new(&now.queries, &now.items),
        new: Queries::new(&later.queries, &later.items),
        rows: Vec::new(),
        records: Vec::new(),
    };
    report.measure("before", &retriever, false, seconds)?;
    retriever.save(&args.out)?;
    drop(retriever);

    let live = LiveRetriever::<B>::open(&args.out, device)?;
    let started = Instant::now();
    add(&live, &later, args.batch, false)?;
    let seconds = started.elapsed().as_secs_f64();
    println!("added {} in {:.2} s", later.items.len(), seconds);
    println!("{}", live.snapshot().drift(&DriftThresholds::default())?);
    report.measure("added by their features", &live.snapshot(), true, seconds)?;
    if live.snapshot().space().is_some() {
        let ids: Vec<&str> = later.items.ids().iter().collect();
        live.remove(&ids)?;
        let started = Instant::now();
        add(&live, &later, args.batch, true)?;
        let seconds = started.elapsed().as_secs_f64();
        report.measure("added with their captions", &live.snapshot(), true, seconds)?;
    }
    if args.fine_tune > 0 {
        let started = Instant::now();
        fine_tune(args, &recipe, &live, &now, &later, &stop, device)?;
        let seconds = started.elapsed().as_secs_f64();
        report.measure("and fine-tuned with replay", &live.snapshot(), true, seconds)?;
    }
    live.compact()?;
    if args.refit {
        let (retriever, seconds) = trained(&all()?)?;
        report.measure("retrained on all", &retriever, true, seconds)?;
    }
    report.print();
    if let Some(path) = &args.json {
        write_json(path, &report.records)?;
    }
    Ok(())
}

/// Adds candidates, so many at once.
fn add<B: LocalBackend>(
    live: &LiveRetriever<B>,
    later: &Later,
    batch: usize,
    described: bool,
) -> Result<()> {
    ensure!(batch > 0, "--batch must be at least 1");
    for first in (0..later.items.len()).step_by(batch) {
        let rows: Vec<usize> = (first..later.items.len().min(first + batch)).collect();
        let items = later.items.select(&rows);
        let of_batch = |caption: &ItemCaption| {
            let item = (caption.item as usize).checked_sub(first).filter(|at| *at < rows.len())?;
            Some(ItemCaption { item: item as u32, ..caption.clone() })
        };
        let texts: Vec<ItemCaption> = later.texts.iter().filter_map(of_batch).collect();
        let arrivals = NewCandidates::new(&items);
        live.add(&if described { arrivals.with_captions(&texts) } else { arrivals })?;
    }
    Ok(())
}

/// Goes on training on the captions of the new candidates and as many of the old ones.
fn fine_tune<B: LocalBackend>(
    args: &Args,
    recipe: &Recipe,
    live: &LiveRetriever<B>,
    now: &Task,
    later: &Later,
    stop: &StopFlag,
    device: &B::Device,
) -> Result<()> {
    let index = live.snapshot();
    let ids = index.index().ids();
    let placed = |captions: &[ItemCaption], items: &Features| -> Vec<ItemCaption> {
        let item = |row: u32| ids.index_of(items.id(row as usize)).map(|item| item as u32);
        captions
            .iter()
            .filter_map(|caption| {
                Some(ItemCaption { item: item(caption.item)?, ..caption.clone() })
            })
            .collect()
    };
    let mut texts = placed(&later.texts, &later.items);
    let mut replay = placed(&now.train, &now.items);
    replay.shuffle(&mut ChaCha8Rng::seed_from_u64(recipe.seed));
    replay.truncate(texts.len());
    texts.extend(replay);
    let pairs = TrainingData::new(
        index.tokenizer(),
        TrainingCaptions { train: &texts, valid: &[] },
        index.index(),
    )?;
    let usual = recipe.train_config();
    let config = TrainConfig {
        epochs: args.fine_tune,
        learning_rate: usual.learning_rate * args.fine_tune_rate,
        ..usual
    };
    let network = trainable::<Autodiff<B>, Cart<_>>(index.model().clone());
    let trained = Trainer::new(config).with_stop(stop).fit(network, &pairs, device)?;
    live.replace_model(trained.model)?;
    Ok(())
}

impl Queries {
    /// A text that describes several candidates has found its own when it finds any of them.
    fn new(queries: &[ItemCaption], items: &Features) -> Self {
        let mut same: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for query in queries {
            let id = items.id(query.item as usize).to_string();
            same.entry(query.text.to_lowercase()).or_default().push(id);
        }
        let texts: Vec<String> = queries.iter().map(|query| query.text.clone()).collect();
        let ids = texts.iter().map(|text| same[&text.to_lowercase()].clone()).collect();
        Self { texts, ids }
    }

    fn measure<B: LocalBackend>(&self, retriever: &Retriever<B>) -> Result<Metrics> {
        let ids = retriever.index().ids();
        let relevant: Vec<Vec<u32>> = self
            .ids
            .iter()
            .map(|of| of.iter().filter_map(|id| ids.index_of(id)).map(|item| item as u32).collect())
            .collect();
        let top = retriever.beam().width.min(ids.len());
        let rankings = retriever.query(&self.texts).top(top).rankings()?;
        Ok(evaluate(&rankings, &relevant, ids.len(), TruncatedTies::Listed)?.metrics())
    }
}

impl Report<'_> {
    fn measure<B: LocalBackend>(
        &mut self,
        method: &str,
        retriever: &Retriever<B>,
        with_new: bool,
        seconds: f64,
    ) -> Result<()> {
        let mut measured = |queries: &Queries, which: &str| -> Result<Metrics> {
            let metrics = queries.measure(retriever)?;
            println!("{method}, {which}: {metrics}");
            let name = format!("{method}, {which}");
            self.records.push(
                EvalRecord::new(&self.recipe.dataset, &self.recipe.protocol, &name, &metrics)
                    .with_seed(self.seed)
                    .with_seconds(seconds)
                    .with_hardware(self.hardware.clone())
                    .with_command(common::command()),
            );
            Ok(metrics)
        };
        let old = measured(&self.old, "old candidates")?;
        let new = if with_new { Some(measured(&self.new, "new candidates")?) } else { None };
        self.rows.push((method.to_string(), old, new));
        Ok(())
    }

    fn print(&self) {
        println!("\n| index | old: R@1 | R@10 | MRR@10 | new: R@1 | R@10 | MRR@10 |");
        println!("|---|---:|---:|---:|---:|---:|---:|");
        for (method, old, new) in &self.rows {
            let cells = |m: &Metrics| {
                [m.recall_at_1, m.recall_at_10, m.mrr_at_10]
                    .map(|value| format!("{:.1}", 100.0 * value))
                    .join(" | ")
            };
            let new = new.as_ref().map_or(" | | ".to_string(), cells);
            println!("| {method} | {} | {new} |", cells(old));
        }
    }
}
