//! The whole method in one program: no arguments, no files, no network.
//!
//! Draws captioned pictures of coloured shapes (or sounds, or videos: `--modality`), describes them
//! by simple features, builds coarse-to-fine identifiers, trains, evaluates on captions it never
//! saw, answers a few queries and writes a page to look at. Sounds and videos go through files:
//! they are written, and their features extracted from there.

#[macro_use]
extern crate cart_examples as common;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result, bail};
use cart_baselines::{Bm25, Bm25Config, DualTowerConfig, TowerData, TowerStart};
use cart_media::{
    Descriptors,
    extract::{ExtractConfig, Extraction},
};
use cart_procedural::{Benchmark, QUERY, SplitCaptions, TRAINING, write_benchmark};
use cart_retrieval::{
    backend::{BackendTask, LocalBackend},
    cancel::{Monitor, StopFlag},
    data::{Caption, DataFolder},
    eval::EvalRecord,
    members::Outputs,
    prelude::*,
    recipe::{Fit, Judge, Part, Recipe, Settings, Task},
};
use clap::{Parser, ValueEnum};
use common::{
    backend::Hardware,
    drawn::{Kind, told_apart},
    judge::record,
    outputs::{with_page, with_report},
    page::{HitCard, Media, Page, QueryCard, Results},
    plot::{RecallPoint, training_svg},
    progress::Progress,
};

/// Draws captioned pictures, sounds or videos, trains a generative index over them and answers
/// queries.
#[derive(Parser)]
struct Args {
    /// What to draw; `all` draws all three, each into its own folder.
    #[arg(long, value_enum, default_value_t = Modality::Image)]
    modality: Modality,
    /// Number of items.
    #[arg(long, alias = "scenes", default_value_t = 2000)]
    items: usize,
    /// Maximum number of objects in a picture, events in a sound or shapes in a video; more make
    /// captions longer and the task harder.
    #[arg(long, default_value_t = 1)]
    max_objects: usize,
    /// Tokens of each level of an identifier [default: 48 for pictures, 32 for sounds and videos].
    #[arg(long)]
    codes: Option<usize>,
    /// Passes over the training captions that train the text encoder; the decoder then trains for
    /// as many.
    #[arg(long, default_value_t = 2)]
    epochs: usize,
    /// Leaves the dual tower out, which takes as long to train as CART.
    #[arg(long)]
    no_tower: bool,
    /// Seed of items, weights and order.
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Folder for the index, the page and the files (replaced).
    #[arg(long, default_value = "out/quickstart")]
    out: PathBuf,
    /// Smoke test of a few seconds.
    #[arg(long)]
    short: bool,
    /// Also measures how many items the features can tell apart: another drawing of each is looked
    /// up by its features.
    #[arg(long)]
    ceiling: bool,
    /// Also writes the figures as JSON.
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Modality {
    Image,
    Audio,
    Video,
    All,
}

impl BackendTask for Main {
    type Output = Result<()>;

    fn run<B: LocalBackend>(self, device: B::Device) -> Result<()> {
        let args = &self.0;
        let stop = common::stop_on_ctrl_c()?;
        let records = match args.modality {
            Modality::Image => quickstart::<B>(args, Kind::Image, &args.out, &stop, &device)?,
            Modality::Audio => quickstart::<B>(args, Kind::Audio, &args.out, &stop, &device)?,
            Modality::Video => quickstart::<B>(args, Kind::Video, &args.out, &stop, &device)?,
            Modality::All => {
                let mut records = Vec::new();
                for kind in Kind::ALL {
                    let out = args.out.join(kind.to_string());
                    records.extend(quickstart::<B>(args, kind, &out, &stop, &device)?);
                }
                records
            }
        };
        if let Some(path) = &args.json {
            cart_retrieval::eval::write_json(path, &records)?;
        }
        Ok(())
    }
}

fn quickstart<B: LocalBackend>(
    args: &Args,
    kind: Kind,
    out: &Path,
    stop: &StopFlag,
    device: &B::Device,
) -> Result<Vec<EvalRecord>> {
    let started = Instant::now();
    let index_folder = out.join("index");
    let outputs = with_page(Outputs::new().fills([out]), &out.join("index.html"));
    with_report(outputs, &args.json).prepare()?;
    Retriever::<B>::check_folder(&index_folder)?;
    println!("{}, seed {}", B::describe(device), args.seed);

    // 1. A captioned collection. Queries are captions that no training caption repeats.
    let items = if args.short { 300 } else { args.items };
    let benchmark = kind.benchmark(items, args.max_objects, args.seed)?;
    let (items, captions) = match kind {
        Kind::Image => in_memory(&*benchmark)?,
        Kind::Audio | Kind::Video => through_files(&*benchmark, &out.join("data"), stop)?,
    };
    println!(
        "{} {}, {} features each, {} training captions, {} held-out queries ({} worded by \
         templates never trained on), {:.0} s",
        items.len(),
        kind.plural(),
        items.dim(),
        captions.training.len(),
        captions.queries.len(),
        captions.audit.held_out_templates,
        started.elapsed().as_secs_f64()
    );
    if args.ceiling {
        let right = told_apart(&*benchmark, &items)?;
        println!("another drawing of an item is nearest to it for {right} of {}", items.len());
    }
    let data = DataFolder::new(items, captions_of(&*benchmark, &captions)?)?;

    // 2. All settings, and what they select from the data.
    let recipe = recipe(args, kind, &data)?;
    let task = Task::new(&recipe, &data, Part::Test)?;

    // 3. Identifiers and network.
    let progress = Progress::default();
    let fitted = Fit::new(&recipe, &task)
        .with_stop(stop)
        .with_progress(progress.listener())
        .run::<B>(std::slice::from_ref(device))?;
    let trained = fitted.total;
    println!("trained for {trained:.0} s");

    // 4. The index, saved and loaded again, as another program would.
    fitted.retriever.save(&index_folder)?;
    let retriever = Retriever::<B>::load(&index_folder, device)?;

    // 5. Recall on the captions it never saw, next to that of BM25 over the training captions and of a
    // dual tower with the same text encoder, trained for the same time.
    let judge = Judge::new(&task);
    let search = Instant::now();
    let rankings = retriever.query(&judge.texts).top(50).beam(50).rankings()?;
    let per_second = judge.texts.len() as f64 / search.elapsed().as_secs_f64();
    let documents: Vec<(u32, &str)> =
        task.train.iter().map(|caption| (caption.item, caption.text.as_str())).collect();
    let bm25 = Bm25::fit(&documents, task.items.len(), &Bm25Config::default())?;
    let mut measured = vec![
        ("CART", rankings, trained),
        ("BM25", bm25.search_all(&judge.texts, task.items.len()), 0.0),
    ];
    if !args.no_tower {
        let tokenizer = retriever.tokenizer();
        let data = TowerData { tokenizer, captions: &task.train, items: &task.items };
        let config = DualTowerConfig {
            learning_rate: 2e-3,
            seed: args.seed,
            ..DualTowerConfig::new(retriever.config().encoder())
        };
        let start = TowerStart::scratch::<B>(device);
        let tower = config.fit_for(trained, start, &data, stop)?;
        println!("dual tower: {:.1} passes in {trained:.0} s", tower.passes());
        measured.push(("dual tower", tower.search_all(&judge.texts, 50)?, trained));
    }
    let mut records = Vec::new();
    for (method, rankings, seconds) in measured {
        let record = record::<B>(&judge, &recipe, method, &rankings, device)?;
        records.push(record.with_seconds(seconds));
    }
    println!("\n{}", cart_retrieval::eval::markdown_table(&records));
    println!("{per_second:.0} queries/s at beam 50");

    // 6. A page to look at.
    let shown = &task.queries[..12.min(task.queries.len())];
    let queries = shown
        .iter()
        .map(|caption| query_card(&retriever, &*benchmark, caption))
        .collect::<Result<Vec<_>>>()?;
    for card in &queries[..3] {
        println!("{:?}", card.query);
        for hit in &card.hits {
            println!("  {} {:8.3} {}", if hit.correct { "*" } else { " " }, hit.score, hit.id);
        }
    }
    let curves = progress.curves();
    let recalls: Vec<RecallPoint> = curves
        .rounds
        .iter()
        .filter_map(|round| {
            Some(RecallPoint {
                step: round.step,
                recall_at_1: round.recall_at_1?,
                recall_at_10: round.recall_at_10?,
            })
        })
        .collect();
    let page = Page {
        title: "CART quickstart".to_string(),
        summary: format!(
            "{} {}, trained for {:.0} s on {}. Every query is a caption the model never saw.",
            task.items.len(),
            kind.plural(),
            trained,
            common::hardware::<B>(device)
        ),
        results: results(&records),
        health: retriever.index().health().to_string(),
        plot_svg: training_svg(&curves.losses, &recalls)?,
        queries,
    };
    let path = out.join("index.html");
    page.write(&path)?;
    println!("index: {}", index_folder.display());
    println!("page:  {}", path.display());
    println!("{:.0} s in all", started.elapsed().as_secs_f64());
    Ok(records)
}

/// Features of what was drawn, without files.
fn in_memory(benchmark: &dyn Benchmark) -> Result<(Features, SplitCaptions)> {
    let rows = benchmark.rows(0..benchmark.len())?;
    let dim = rows.len() / benchmark.len();
    let items = Features::from_rows(rows, dim)?.with_id_list(benchmark.ids())?;
    Ok((items, benchmark.captions()?))
}

/// The way of real media: files, features extracted from them, features read again.
fn through_files(
    benchmark: &dyn Benchmark,
    folder: &Path,
    stop: &StopFlag,
) -> Result<(Features, SplitCaptions)> {
    remove_earlier(folder)?;
    let written = write_benchmark(benchmark, folder, &Monitor::new().with_stop(stop))?;
    let config = ExtractConfig::default();
    let descriptors = Descriptors::default();
    let made = Extraction::new(&written.items, &written.media, folder).run(
        &descriptors,
        &config,
        &Monitor::new().with_stop(stop),
    )?;
    if let Some(failure) = made.failed.first() {
        bail!("{} items without features; {}: {}", made.failed.len(), failure.id, failure.message);
    }
    let items = DataFolder::open(folder)?.items;
    Ok((items, written.captions))
}

/// Removes the files of an earlier run, and nothing else.
fn remove_earlier(folder: &Path) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    let refused = |path: &Path| {
        bail!("{}: this program did not write it; choose another --out", path.display())
    };
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        match name.to_str().unwrap_or_default() {
            "media" if !entry.path().is_symlink() => {
                for drawn in fs::read_dir(entry.path())? {
                    let drawn = drawn?.path();
                    let name = drawn.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                    if !["scene-", "sound-", "clip-"].iter().any(|id| name.starts_with(id)) {
                        return refused(&drawn);
                    }
                }
            }
            "extraction" | "captions.jsonl" | "splits.json" | "ids.txt" | "extraction.json"
            | "left-out.jsonl" | "benchmark.json" => {}
            name if name.starts_with("features") && name.ends_with(".npy") => {}
            _ => return refused(&entry.path()),
        }
        files.push(entry.path());
    }
    let mark = folder.join("benchmark.json");
    if !files.is_empty() && !mark.is_file() {
        return refused(folder);
    }
    // The mark last, so that a run that was killed here can be started again.
    files.sort_by_key(|path| *path == mark);
    for path in files {
        if path.is_dir() && !path.is_symlink() {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        }
        .with_context(|| format!("removing {}", path.display()))?;
    }
    Ok(())
}

/// The kind of the captions that choose the best model.
const VALIDATION: &str = "validation";

/// All captions with their kinds; an eighth of those that query chooses the best model.
fn captions_of(benchmark: &dyn Benchmark, captions: &SplitCaptions) -> Result<Captions> {
    let (valid, test) = captions.queries.split_at(captions.queries.len() / 8);
    let mut all = Captions::new();
    for (captions, kind) in
        [(captions.training.as_slice(), TRAINING), (valid, VALIDATION), (test, QUERY)]
    {
        for caption in captions {
            let id = benchmark.id(caption.item);
            all.push(Caption::new(id, &caption.text).with_kind(kind))?;
        }
    }
    Ok(all)
}

/// Sizes and passes for these benchmarks, and a text encoder that is trained first, in the space of
/// the candidates.
fn recipe(args: &Args, kind: Kind, data: &DataFolder) -> Result<Recipe> {
    let codes = if kind == Kind::Image { 48 } else { 32 };
    let codes = if args.short { 16 } else { args.codes.unwrap_or(codes) };
    let vae_epochs = if args.short { 20 } else { 40 };
    let passes = args.epochs;
    let settings = Settings::default().with_all([
        format!("dataset=\"procedural {}\"", kind.plural()),
        "protocol=\"held-out captions\"".to_string(),
        format!("seed={}", args.seed),
        format!("train.kinds=[\"{TRAINING}\"]"),
        format!("validation.kinds=[\"{VALIDATION}\"]"),
        format!("queries.kinds=[\"{QUERY}\"]"),
        "tokenizer={ vocabulary=1000 }".to_string(),
        format!("quantizer.coarse={{ k={codes} }}"),
        format!(
            "quantizer.fine={{ method=\"rq-vae\", sizes=[{codes},{codes},{codes},{codes}], \
             codebooks={{ ema={{ decay=0.99 }} }}, batch=256, epochs={vae_epochs} }}"
        ),
        "health={ max_shared_items=0.3 }".to_string(),
        "model={ max_tokens=40 }".to_string(),
        "space={ gammas=[0.0], penalties=[0.1, 1.0] }".to_string(),
        format!(
            "space_tuning={{ epochs={passes}, learning_rate=2e-3, map_learning_rate=2e-3, \
             shares=[1.0], validation_share=0.0, on_all=false }}"
        ),
        "alignment={ guided=true }".to_string(),
        format!("training.epochs={passes}"),
        "training.batch_size=64".to_string(),
        "training.learning_rate=1e-3".to_string(),
        "training.freeze=\"encoder\"".to_string(),
        "training.frozen_cache={ mebibytes=512, half=true }".to_string(),
        "training.word_dropout=0.0".to_string(),
        "training.validations=4".to_string(),
        "training.loss={ scope=\"legal\", r_drop=0.0, label_smoothing=0.0, guide_factor=3.0 }"
            .to_string(),
        "beam={ scope=\"legal\", decoder_weight=0.1, rerank=20.0 }".to_string(),
    ])?;
    Ok(settings.recipe(data)?)
}

fn query_card<B: LocalBackend>(
    retriever: &Retriever<B>,
    benchmark: &dyn Benchmark,
    caption: &ItemCaption,
) -> Result<QueryCard> {
    let card = |item: u32, score: f32| -> Result<HitCard> {
        let correct = item == caption.item;
        let media = Media::of(&benchmark.draw(item as usize, 0))?;
        Ok(HitCard { id: benchmark.id(item as usize), score, correct, media })
    };
    let hits = retriever.query(&caption.text).top(5).run()?;
    Ok(QueryCard {
        query: caption.text.clone(),
        hits: hits.iter().map(|hit| card(hit.item, hit.score)).collect::<Result<_>>()?,
        target: Some(card(caption.item, 0.0)?),
    })
}

fn results(records: &[EvalRecord]) -> Results {
    let percent = |value: f64| format!("{:.1} %", 100.0 * value);
    let values = |record: &EvalRecord| {
        [record.recall_at_1, record.recall_at_5, record.recall_at_10, record.mrr_at_10]
            .map(percent)
            .into()
    };
    Results {
        measures: ["Recall@1", "Recall@5", "Recall@10", "MRR@10"].map(String::from).into(),
        rows: records.iter().map(|record| (record.method.clone(), values(record))).collect(),
    }
}
