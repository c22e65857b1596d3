//! Queries that are embeddings: texts for a picture, more like this, and a projection fitted to a
//! trained index; each compared with a flat search over the same vectors.

#[macro_use]
extern crate cart_examples as common;

use std::{collections::BTreeMap, path::PathBuf, time::Instant};

use anyhow::{Context, Result, ensure};
use burn::backend::Autodiff;
use cart_retrieval::{
    backend::{BackendTask, LocalBackend},
    cancel::StopFlag,
    data::DataFolder,
    eval::{EvalRecord, Ranking, TruncatedTies, evaluate, markdown_table, write_json},
    expert::{Asked, ProjectionConfig, TextSide},
    members::Outputs,
    prelude::*,
    recipe::{Fit, Part, Recipe, Task},
};
use clap::{Parser, Subcommand};
use common::{
    backend::Hardware, drawn::Kind, outputs::with_report, progress::Progress, recipe::RecipeArgs,
};
use rayon::prelude::*;

/// Measures non-text queries.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    what: What,
    /// Writes the figures as JSON.
    #[arg(long, global = true)]
    json: Option<PathBuf>,
    #[command(flatten)]
    hardware: Hardware,
}

#[derive(Subcommand)]
enum What {
    /// An index of the query texts of a recipe, searched with the features of the items they
    /// describe.
    ToText(Data),
    /// The recipe's candidates, searched with the features of its training items; those with a text
    /// in common belong together.
    Like(Data),
    /// A projection for the index of the quickstart with pictures: other drawings of its items are
    /// looked for.
    Projection {
        /// The index that `quickstart` made with its default options.
        #[arg(long)]
        index: PathBuf,
        /// Number of passes over the items.
        #[arg(long, default_value_t = 40)]
        epochs: usize,
        /// Noise added to the items, as a share of their deviation.
        #[arg(long, default_value_t = 0.3)]
        noise: f32,
    },
}

/// A recipe with a space that guides the decoder, over a data folder.
#[derive(clap::Args)]
struct Data {
    /// Folder with features, ids.txt and captions.jsonl.
    #[arg(long)]
    data: PathBuf,
    #[command(flatten)]
    recipe: RecipeArgs,
}

fn main() -> Result<()> {
    let args = Args::parse();
    args.hardware.run(Main(args))
}

struct Main(Args);

impl BackendTask for Main {
    type Output = Result<()>;

    fn run<B: LocalBackend>(self, device: B::Device) -> Result<()> {
        let inputs = match &self.0.what {
            What::ToText(data) | What::Like(data) => {
                Outputs::new().reads([&data.data]).reads(data.recipe.inputs())
            }
            What::Projection { index, .. } => Outputs::new().reads([index]),
        };
        with_report(inputs, &self.0.json).prepare()?;
        let mut report = Report { records: Vec::new(), hardware: common::hardware::<B>(&device) };
        match &self.0.what {
            What::ToText(data) => to_text::<B>(data, &device, &mut report)?,
            What::Like(data) => like::<B>(data, &device, &mut report)?,
            What::Projection { index, epochs, noise } => {
                projection::<B>(index, *epochs, *noise, &device, &mut report)?;
            }
        }
        println!("\n{}", markdown_table(&report.records));
        if let Some(path) = &self.0.json {
            write_json(path, &report.records)?;
        }
        Ok(())
    }
}

struct Report {
    records: Vec<EvalRecord>,
    hardware: String,
}

impl Report {
    fn add(
        &mut self,
        (dataset, protocol): (&str, &str),
        method: &str,
        rankings: &[Ranking],
        relevant: &[Vec<u32>],
        candidates: usize,
    ) -> Result<()> {
        let scores = evaluate(rankings, relevant, candidates, TruncatedTies::Listed)?;
        let metrics = scores.metrics();
        println!("{method}: {metrics}");
        self.records.push(
            EvalRecord::new(dataset, protocol, method, &metrics)
                .with_hardware(self.hardware.clone())
                .with_command(common::command()),
        );
        Ok(())
    }
}

/// The 50 candidates with the largest products.
fn flat(queries: &Features, candidates: &Features) -> Result<Vec<Ranking>> {
    let queries: Vec<&[f32]> = (0..queries.len()).map(|query| queries.row(query)).collect();
    let one = |query: &&[f32]| -> Result<Ranking> {
        let product = |item: usize| -> f32 {
            candidates.row(item).iter().zip(*query).map(|(a, b)| a * b).sum()
        };
        let mut all: Vec<(u32, f32)> =
            (0..candidates.len()).map(|item| (item as u32, product(item))).collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        all.truncate(50);
        let (items, scores) = all.into_iter().unzip();
        Ok(Ranking::new(items, scores)?)
    };
    queries.par_iter().map(one).collect()
}

/// A recipe with its data, and a text encoder that was tuned where the recipe says so.
struct Opened<B: LocalBackend> {
    recipe: Recipe,
    task: Task,
    text: TextSide<B>,
}

fn opened<B: LocalBackend>(data: &Data, device: &B::Device) -> Result<Opened<B>> {
    let settings = data.recipe.settings()?;
    let folder = DataFolder::open(&data.data)?;
    let recipe = data.recipe.recipe(&settings, &folder)?;
    ensure!(
        recipe.space.is_some(),
        "the recipe has no [space], so nothing maps features to texts: give --encoder FOLDER"
    );
    let task = Task::new(&recipe, &folder, Part::Test)?;
    let progress = Progress::default().listener();
    let text = TextSide::<B>::new(&recipe, &task.train, device, &progress)?;
    let tuned = Fit::new(&recipe, &task).with_progress(progress).tuned(&text, device)?;
    Ok(Opened { recipe, task, text: tuned.unwrap_or(text) })
}

impl<B: LocalBackend> Opened<B> {
    fn fit(&self) -> Fit<'_> {
        Fit::new(&self.recipe, &self.task).with_progress(Progress::default().listener())
    }
}

/// An index of vectors, by an untrained network that their geometry guides.
fn guided<B: LocalBackend>(
    opened: &Opened<B>,
    vectors: Features,
    device: &B::Device,
) -> Result<Retriever<B>> {
    let mut recipe = opened.recipe.clone();
    (recipe.space, recipe.space_tuning) = (None, None);
    recipe.training.epochs = 0;
    // The network is not trained, but wants a text all the same.
    let train = vec![ItemCaption { item: 0, text: opened.task.train[0].text.clone(), weight: 1.0 }];
    let leaks = recipe.audit.run(&[], &[], vectors.ids())?;
    let task = Task {
        candidates: vectors.clone(),
        items: vectors,
        train,
        valid: Vec::new(),
        queries: Vec::new(),
        asked: Asked::All,
        leaks,
    };
    let fit = Fit::new(&recipe, &task)
        .with_ignore_health(true)
        .with_progress(Progress::default().listener());
    Ok(fit.run_with(&opened.text, std::slice::from_ref(device))?.retriever)
}

fn to_text<B: LocalBackend>(data: &Data, device: &B::Device, report: &mut Report) -> Result<()> {
    let opened = opened::<B>(data, device)?;
    let (recipe, task, text) = (&opened.recipe, &opened.task, &opened.text);
    let words = text.idf_weights(recipe, &task.train)?;
    let fitted = opened.fit().space(text, words.as_ref(), device)?;
    let fitted = fitted.context("the recipe has no [space]")?;
    // A text that several items have is one candidate.
    let (mut distinct, mut texts) = (BTreeMap::new(), Vec::new());
    for query in &task.queries {
        distinct.entry(query.text.to_lowercase()).or_insert_with(|| {
            texts.push(query.clone());
            texts.len() as u32 - 1
        });
    }
    let embedded = text.embed(&texts, words.as_ref(), device)?;
    let ids = (0..texts.len()).map(|text| format!("text-{text}")).collect();
    let texts = Features::from_rows(embedded.as_slice().to_vec(), embedded.dim())?;
    let texts = texts.with_id_list(ids)?;
    // Every query text of an item is right for it.
    let mut of: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for query in &task.queries {
        of.entry(query.item).or_default().push(distinct[&query.text.to_lowercase()]);
    }
    let rows: Vec<usize> = of.keys().map(|&item| item as usize).collect();
    let relevant: Vec<Vec<u32>> = of.into_values().collect();
    let features = task.candidates.select(&rows);
    let retriever = guided(&opened, texts.clone(), device)?;
    let mut kinds = vec![("features alone", fitted.space.embed(&features, None)?)];
    if task.asked == Asked::All {
        kinds.push(("features and training texts", fitted.vectors.select(&rows)));
    }
    for (kind, vectors) in kinds {
        let name = (recipe.dataset.as_str(), "texts for an item");
        let top = 50.min(texts.len());
        let found = retriever.query(&vectors).top(top).rankings()?;
        report.add(name, &format!("CART, by {kind}"), &found, &relevant, texts.len())?;
        let found = flat(&vectors, &texts)?;
        report.add(name, &format!("flat, by {kind}"), &found, &relevant, texts.len())?;
    }
    Ok(())
}

fn like<B: LocalBackend>(data: &Data, device: &B::Device, report: &mut Report) -> Result<()> {
    let opened = opened::<B>(data, device)?;
    let (recipe, task, text) = (&opened.recipe, &opened.task, &opened.text);
    ensure!(
        task.asked == Asked::Unseen,
        "the recipe's candidates are its training items; give one with splits"
    );
    let words = text.idf_weights(recipe, &task.train)?;
    let fitted = opened.fit().space(text, words.as_ref(), device)?;
    let space = fitted.context("the recipe has no [space]")?.space;
    let mut named: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for query in &task.queries {
        named.entry(query.text.to_lowercase()).or_default().push(query.item);
    }
    let (mut rows, mut relevant) = (Vec::new(), Vec::new());
    let mut seen = vec![false; task.items.len()];
    for caption in &task.train {
        let item = caption.item as usize;
        if let Some(items) = named.get(&caption.text.to_lowercase()).filter(|_| !seen[item]) {
            seen[item] = true;
            rows.push(item);
            relevant.push(items.clone());
        }
    }
    ensure!(!rows.is_empty(), "no training item has a text in common with a candidate");
    let queries = task.items.select(&rows);
    let (vectors, candidates) =
        (space.embed(&queries, None)?, space.embed(&task.candidates, None)?);
    let retriever = guided(&opened, candidates.clone(), device)?;
    let name = (recipe.dataset.as_str(), "more like this, by text in common");
    let top = 50.min(candidates.len());
    let found = retriever.query(&vectors).top(top).rankings()?;
    report.add(name, "CART", &found, &relevant, candidates.len())?;
    let found = flat(&vectors, &candidates)?;
    report.add(name, "flat, the same vectors", &found, &relevant, candidates.len())?;
    let found = flat(&queries.normalised(), &task.candidates.normalised())?;
    report.add(name, "flat, the features", &found, &relevant, candidates.len())
}

fn projection<B: LocalBackend>(
    index: &PathBuf,
    epochs: usize,
    noise: f32,
    device: &B::Device,
    report: &mut Report,
) -> Result<()> {
    let retriever = Retriever::<B>::load(index, device)?;
    let n = retriever.index().ids().len();
    let benchmark = Kind::Image.benchmark(n, 1, 7)?;
    let rows = benchmark.rows(0..n)?;
    let items = Features::from_rows(rows, benchmark.rows(0..1)?.len())?;
    let items = items.with_id_list(benchmark.ids())?;
    ensure!(
        items.ids().iter().eq(retriever.index().ids().iter()),
        "the index is not of the pictures that quickstart draws with its default options"
    );
    let again = |item: usize| Ok(benchmark.draw(item, 1).features()?);
    let again: Vec<Vec<f32>> = (0..n).into_par_iter().map(again).collect::<Result<_>>()?;
    let again = Features::from_rows(again.concat(), items.dim())?;
    let relevant: Vec<Vec<u32>> = (0..n as u32).map(|item| vec![item]).collect();
    let name = ("procedural scenes", "another drawing of an item");

    let config = ProjectionConfig { epochs, noise, seed: 7, ..ProjectionConfig::default() };
    let own: Vec<u32> = (0..n as u32).collect();
    let started = Instant::now();
    let projection = config.fit::<Autodiff<B>>(&retriever, &items, &own, &StopFlag::new())?;
    println!("projection fitted in {:.0} s", started.elapsed().as_secs_f64());
    let retriever = retriever.with_projection(projection)?;
    let found = retriever.query(&again).top(50).beam(50).rankings()?;
    report.add(name, "CART through a projection", &found, &relevant, n)?;
    let found = flat(&again.normalised(), &items.normalised())?;
    report.add(name, "flat, cosine of the features", &found, &relevant, n)
}
