//! Looks into an index: the candidates of a prefix as a contact sheet, the use of the tokens as
//! heat maps, and the worst queries with the level at which the beam lost the right candidate. Each
//! is one HTML file that needs nothing else.
//!
//! ```text
//! cargo run --release --example inspect -- prefix  --index my-index --media PICTURES 12-3
//! cargo run --release --example inspect -- usage   --index my-index
//! cargo run --release --example inspect -- queries --index my-index --data DIR
//! ```

#[macro_use]
extern crate cart_examples as common;

mod gallery;
mod prefixes;
mod queries;
mod usage;

use std::path::PathBuf;

use anyhow::Result;
use cart_retrieval::{
    backend::{BackendTask, LocalBackend},
    data::DataFolder,
    members::Outputs,
    prelude::*,
    recipe::{Part, Task},
};
use clap::{Parser, Subcommand};
use common::{backend::Hardware, outputs::with_page, page::write, recipe::RecipeArgs};
use gallery::Gallery;

/// Shows what is in an index.
#[derive(Parser)]
struct Args {
    /// The index folder.
    #[arg(long, global = true, default_value = "out/quickstart/index")]
    index: PathBuf,
    /// Folder with the pictures, sounds or videos of the candidates.
    #[arg(long, global = true)]
    media: Option<PathBuf>,
    /// Links to the media files instead of embedding them in the page.
    #[arg(long, global = true)]
    link: bool,
    /// Folder with features, ids.txt and captions.jsonl: shows a caption of every candidate.
    #[arg(long, global = true)]
    data: Option<PathBuf>,
    /// The page to write.
    #[arg(long, global = true, default_value = "out/inspect.html")]
    out: PathBuf,
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    hardware: Hardware,
}

#[derive(Subcommand)]
enum Command {
    /// The candidates whose identifiers begin with a prefix, as 12 or 12-3.
    Prefix {
        /// Prefixes; by default the largest clusters.
        prefixes: Vec<String>,
        /// Number of clusters to show if no prefix is given.
        #[arg(long, default_value_t = 8)]
        clusters: usize,
        /// Maximum number of candidates per prefix.
        #[arg(long, default_value_t = 48)]
        most: usize,
    },
    /// How often every token of every level is used.
    Usage,
    /// The worst queries, and where the beam lost their candidates.
    Queries {
        #[command(flatten)]
        recipe: RecipeArgs,
        /// Beam width; by default the index's.
        #[arg(long)]
        beam: Option<usize>,
        /// Maximum number of queries to trace; an even sample if there are more.
        #[arg(long, default_value_t = 1000)]
        queries: usize,
        /// Number of queries to show.
        #[arg(long, default_value_t = 24)]
        show: usize,
        /// Number of answers to show per query.
        #[arg(long, default_value_t = 5)]
        top: usize,
    },
}

fn main() -> Result<()> {
    let args = Args::parse();
    args.hardware.run(Main(args))
}

struct Main(Args);

impl BackendTask for Main {
    type Output = Result<()>;

    fn run<B: LocalBackend>(self, device: B::Device) -> Result<()> {
        inspect::<B>(&self.0, &device)
    }
}

/// What all pages show candidates with.
pub struct View<'a> {
    pub index: &'a CandidateIndex,
    pub gallery: Gallery,
    /// A caption of every candidate, where the data folder is given.
    captions: Vec<String>,
}

impl View<'_> {
    /// A caption of a candidate, or nothing.
    pub fn caption(&self, item: u32) -> &str {
        self.captions.get(item as usize).map_or("", String::as_str)
    }
}

fn inspect<B: LocalBackend>(args: &Args, device: &B::Device) -> Result<()> {
    let inputs = Outputs::new().reads([&args.index]).reads(&args.media).reads(&args.data);
    let inputs = match &args.command {
        Command::Queries { recipe, .. } => inputs.reads(recipe.inputs()),
        Command::Prefix { .. } | Command::Usage => inputs,
    };
    with_page(inputs, &args.out).prepare()?;
    let mut retriever = Retriever::<B>::load(&args.index, device)?;
    let data = args.data.as_ref().map(DataFolder::open).transpose()?;
    let mut task = None;
    if let Command::Queries { recipe, beam, .. } = &args.command {
        let Some(data) = &data else {
            anyhow::bail!("queries need the data folder: give --data DIR");
        };
        let recipe = recipe.recipe(&recipe.settings()?, data)?;
        let made = Task::new(&recipe, data, Part::Test)?;
        if let Some(reason) = made.nothing_to_ask(&recipe) {
            anyhow::bail!(reason);
        }
        made.ensure_trained_by(&retriever)?;
        let width = beam.unwrap_or(retriever.beam().width);
        let beam = BeamConfig { width, ..retriever.beam().clone() };
        retriever = made.over(retriever, &recipe)?.with_beam(beam);
        task = Some(made);
    }
    let index = retriever.index();
    let view = View {
        index,
        gallery: Gallery::open(args.media.as_deref(), args.data.as_deref(), args.link)?,
        captions: data.as_ref().map_or(Ok(Vec::new()), |data| captions(data, index))?,
    };
    let html = match (&args.command, &task) {
        (Command::Prefix { prefixes, clusters, most }, _) => {
            prefixes::page(&view, prefixes, *clusters, *most)?
        }
        (Command::Queries { queries, show, top, .. }, Some(task)) => {
            let options = queries::Options { queries: *queries, show: *show, top: *top };
            queries::page(&view, &retriever, task, &options)?
        }
        (Command::Usage | Command::Queries { .. }, _) => usage::page(index)?,
    };
    write(&args.out, &html)?;
    println!("page: {}", args.out.display());
    Ok(())
}

/// The first caption of every candidate of an index.
fn captions(data: &DataFolder, index: &CandidateIndex) -> Result<Vec<String>> {
    let mut captions = vec![String::new(); index.ids().len()];
    for caption in data.select(&CaptionFilter::default())? {
        let id = data.items.id(caption.item as usize);
        if let Some(item) = index.ids().index_of(id)
            && captions[item].is_empty()
        {
            captions[item] = caption.text;
        }
    }
    Ok(captions)
}

/// Styles of these pages, in addition to those of all pages.
const STYLE: &str = "
h2 small { font-weight: 400; color: var(--soft); margin-left: .5rem; }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(120px, 1fr)); gap: .75rem; margin-top: .75rem; }
.sheet figure { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .5rem;
  font-size: .75rem; color: var(--soft); min-width: 0; }
.sheet img, .sheet video { display: block; width: 100%; aspect-ratio: 1; object-fit: contain; border-radius: 4px; }
.sheet audio, .row audio { width: 100%; }
.row video { display: block; width: 100%; border-radius: 8px; }
.id { color: var(--ink); }
.wide { overflow-x: auto; margin-bottom: .75rem; }
table.all td, table.all th { padding: .35rem .7rem; font-size: .85rem; white-space: nowrap; text-align: right; }
table.all th[scope=row] { text-align: left; }
tr.lost > * { color: var(--wrong); }
article .lead { margin-bottom: .75rem; }
td.bar { width: 240px; min-width: 60px; }
td.bar span { display: block; height: .7rem; background: var(--late); border-radius: 3px; }
.heat { display: block; width: 100%; margin-top: .75rem; }
.heat rect { fill: var(--late); }
.heat rect.none { fill: var(--soft); }
.heat .cross { stroke: var(--soft); stroke-width: 1.2; }
";
