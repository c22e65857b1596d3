//! Measures an index, and honest baselines on the same text.

#[macro_use]
extern crate cart_examples as common;

use std::{path::PathBuf, time::Instant};

use anyhow::{Result, ensure};
use cart_baselines::{Bm25, Bm25Config, DualTowerConfig, TowerData, TowerStart};
use cart_retrieval::{
    backend::{BackendTask, LocalBackend},
    data::DataFolder,
    decode::SearchPrecision,
    eval::{Ranking, markdown_table, write_json},
    members::Outputs,
    prelude::*,
    recipe::{Judge, Part, Task},
    retrieve::ExactHits,
};
use clap::Parser;
use common::{
    backend::Hardware,
    judge::record,
    outputs::with_report,
    recipe::{RecipeArgs, check_leaks},
};

/// Recall and MRR of an index with confidence intervals, compared with BM25 and a dual tower.
#[derive(Parser)]
struct Args {
    /// Folder with features, ids.txt and captions.jsonl.
    #[arg(long)]
    data: PathBuf,
    #[command(flatten)]
    recipe: RecipeArgs,
    /// Index folder; without it, only baselines are measured.
    #[arg(long)]
    index: Option<PathBuf>,
    /// Name of the index in the report.
    #[arg(long, default_value = "CART")]
    method: String,
    /// Beam width; by default the index's.
    #[arg(long)]
    beam: Option<usize>,
    /// Precision of the search: f32, or bf16 on processors with bf16 products.
    #[arg(long, default_value_t = SearchPrecision::F32)]
    precision: SearchPrecision,
    /// Also compares beams with exact search, which examines up to this many prefixes per level.
    #[arg(long, value_name = "BUDGET")]
    exact: Option<usize>,
    /// Beam widths to compare, separated by commas; at least 10.
    #[arg(long, value_delimiter = ',', default_value = "10,20,50,100")]
    widths: Vec<usize>,
    /// Also measures BM25 over the training text of each candidate.
    #[arg(long)]
    bm25: bool,
    /// Also trains and measures a dual tower with the recipe's text encoder, for this many epochs.
    #[arg(long)]
    dual_tower: Option<usize>,
    /// Training time of the index in seconds, for the report.
    #[arg(long, default_value_t = 0.0)]
    seconds: f64,
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
        measure::<B>(&self.0, &device)
    }
}

fn measure<B: LocalBackend>(args: &Args, device: &B::Device) -> Result<()> {
    let some = args.index.is_some() || args.bm25 || args.dual_tower.is_some();
    ensure!(some, "nothing to measure: give --index, --bm25 or --dual-tower EPOCHS");
    let inputs = Outputs::new().reads([&args.data]).reads(args.recipe.inputs()).reads(&args.index);
    with_report(inputs, &args.json).prepare()?;
    let settings = args.recipe.settings()?;
    let stop = common::stop_on_ctrl_c()?;
    let data = DataFolder::open(&args.data)?;
    let recipe = args.recipe.recipe(&settings, &data)?;
    let task = Task::new(&recipe, &data, Part::Test)?;
    if let Some(reason) = task.nothing_to_ask(&recipe) {
        ensure!(args.json.is_none() && recipe.chooses_queries(), "{reason}");
        println!("{reason}");
        return Ok(());
    }
    check_leaks(&task, &recipe)?;
    let train = &task.train;
    let judge = Judge::new(&task);
    let texts = &judge.texts;
    let mut records = Vec::new();
    let mut add = |method: &str, rankings: Vec<Ranking>, seconds: f64| -> Result<()> {
        let record = record::<B>(&judge, &recipe, method, &rankings, device)?;
        records.push(record.with_seconds(seconds));
        Ok(())
    };
    if let Some(folder) = &args.index {
        let retriever = Retriever::<B>::load(folder, device)?.with_precision(args.precision)?;
        task.ensure_trained_by(&retriever)?;
        let retriever = task.over(retriever, &recipe)?;
        let beam = args.beam.unwrap_or(retriever.beam().width);
        let started = Instant::now();
        let config = BeamConfig { width: beam, ..retriever.beam().clone() };
        let retriever = retriever.with_beam(config);
        let rankings = task.rankings(&retriever, texts, beam.min(50))?;
        let per_second = texts.len() as f64 / started.elapsed().as_secs_f64();
        add(&args.method, rankings, args.seconds)?;
        println!("{per_second:.0} queries/s at beam {beam}, {}", args.precision);
        if let Some(budget) = args.exact {
            agreement(&retriever, texts, &args.widths, budget)?;
        }
    }
    if args.bm25 {
        let described = task.texts();
        ensure!(
            !described.is_empty(),
            "BM25 needs texts of the candidates, and unseen ones have none"
        );
        let documents: Vec<(u32, &str)> =
            described.iter().map(|caption| (caption.item, caption.text.as_str())).collect();
        let started = Instant::now();
        let bm25 = Bm25::fit(&documents, task.candidates.len(), &Bm25Config::default())?;
        let rankings = bm25.search_all(texts, task.candidates.len());
        let seconds = started.elapsed().as_secs_f64();
        add("BM25 over training text", rankings, seconds)?;
    }
    if let Some(epochs) = args.dual_tower {
        ensure!(
            recipe.text.is_none(),
            "the dual tower trains an encoder from scratch: leave out --encoder, and [text] in the recipe"
        );
        let tokenizer = recipe.train_tokenizer(train)?;
        let training = &recipe.training;
        let encoder = CartConfig::new(tokenizer.vocabulary(), one_level()?)
            .with_width(recipe.model.d_model, recipe.model.d_ff, recipe.model.n_heads)
            .with_layers(recipe.model.encoder_layers, 1)
            .with_max_tokens(recipe.model.max_tokens)
            .with_dropout(recipe.model.dropout)
            .encoder();
        let config = DualTowerConfig {
            epochs,
            batch_size: training.batch_size,
            learning_rate: training.learning_rate,
            weight_decay: training.weight_decay,
            word_dropout: training.word_dropout,
            seed: recipe.seed,
            ..DualTowerConfig::new(encoder)
        };
        let started = Instant::now();
        let data = TowerData { tokenizer: &tokenizer, captions: train, items: &task.items };
        let tower = config.fit(TowerStart::scratch::<B>(device), &data, &stop)?;
        let tower = tower.over(&task.candidates)?;
        let seconds = started.elapsed().as_secs_f64();
        let rankings = tower.search_all(texts, 50)?;
        add("dual tower", rankings, seconds)?;
    }
    println!("\n{}", markdown_table(&records));
    if let Some(path) = &args.json {
        write_json(path, &records)?;
    }
    Ok(())
}

/// Answers that are compared.
const TOP: usize = 10;

/// How often beams find what an exact search finds.
fn agreement<B: LocalBackend>(
    retriever: &Retriever<B>,
    texts: &[String],
    widths: &[usize],
    budget: usize,
) -> Result<()> {
    ensure!(
        widths.iter().all(|&width| width >= TOP),
        "beams to compare must be at least {TOP} wide"
    );
    let exact: Vec<ExactHits> = texts
        .iter()
        .map(|text| retriever.query(text).top(TOP).exact(budget))
        .collect::<Result<_, _>>()?;
    let share = |count: usize, of: usize| 100.0 * count as f64 / of.max(1) as f64;
    let proven: Vec<usize> = (0..texts.len()).filter(|&query| exact[query].proven).collect();
    let prefixes: usize = exact.iter().map(|exact| exact.prefixes).sum();
    println!(
        "\nexact top {TOP} proven for {} of {} queries ({:.1} %), {:.0} prefixes a query",
        proven.len(),
        texts.len(),
        share(proven.len(), texts.len()),
        prefixes as f64 / texts.len().max(1) as f64
    );
    println!("| beam | the same first | the same {TOP}, in order | of the {TOP}, found |");
    println!("|---:|---:|---:|---:|");
    for &width in widths {
        let found = retriever.query(texts).top(TOP).beam(width).rankings()?;
        let (mut first, mut same, mut shared, mut all) = (0, 0, 0, 0);
        for &query in &proven {
            let exact: Vec<u32> = exact[query].hits.iter().map(|hit| hit.item).collect();
            let beam = &found[query].items;
            first += usize::from(beam.first() == exact.first());
            same += usize::from(*beam == exact);
            shared += exact.iter().filter(|item| beam.contains(item)).count();
            all += exact.len();
        }
        println!(
            "| {width} | {:.1} % | {:.1} % | {:.1} % |",
            share(first, proven.len()),
            share(same, proven.len()),
            share(shared, all)
        );
    }
    Ok(())
}

/// A vocabulary for a configuration of which only the encoder is used.
fn one_level() -> Result<cart_retrieval::identifier::LevelSizes> {
    Ok(cart_retrieval::identifier::LevelSizes::new(vec![1])?)
}
