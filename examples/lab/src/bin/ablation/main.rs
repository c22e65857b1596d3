//! The paper's ablation on any data in the contract: the method with one part after another taken
//! away, over several seeds.
//!
//! Every run is a file in `OUT/runs`, written when it is done: the same command goes on where it
//! stopped. When some are done, the table lies in `OUT/ablation.md`, `ablation.svg` and
//! `ablation.json`.

#[macro_use]
extern crate cart_examples as common;

mod figure;
mod results;
mod rows;
#[cfg(test)]
mod tests;

use std::{
    io::Write,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Result, bail};
use cart_retrieval::{
    backend::{BackendTask, LocalBackend},
    cancel::StopFlag,
    data::DataFolder,
    expert::TextSide,
    members::{Outputs, Sha256Writer, write_bytes},
    recipe::{Fit, Judge, Part, Recipe, Task},
};
use clap::Parser;
use common::{
    backend::Hardware,
    judge::{in_beam, record},
    progress::Progress,
    recipe::{RecipeArgs, check_leaks},
};
use results::Finished;
use rows::Row;

/// Trains and measures the method without each of its parts.
#[derive(Parser)]
struct Args {
    /// Folder with features, ids.txt and captions.jsonl.
    #[arg(long)]
    data: PathBuf,
    #[command(flatten)]
    recipe: RecipeArgs,
    /// Folder for runs, table and figure.
    #[arg(long)]
    out: PathBuf,
    /// Seeds, separated by commas; by default 1,2,3.
    #[arg(long, value_delimiter = ',', conflicts_with = "seed")]
    seeds: Vec<u64>,
    /// Rows, separated by commas; by default all that the recipe allows.
    #[arg(long, value_delimiter = ',', value_enum)]
    rows: Vec<Row>,
    /// Smoke test of a few seconds: one pass, and a quantizer that is barely fitted.
    #[arg(long)]
    short: bool,
    #[command(flatten)]
    hardware: Hardware,
}

fn main() -> Result<()> {
    let mut args = Args::parse();
    if args.seeds.is_empty() {
        args.seeds = args.recipe.seed.map_or_else(|| vec![1, 2, 3], |seed| vec![seed]);
    }
    args.hardware.run(Main(args))
}

struct Main(Args);

impl BackendTask for Main {
    type Output = Result<()>;

    fn run<B: LocalBackend>(self, device: B::Device) -> Result<()> {
        ablation::<B>(&self.0, &device)
    }
}

fn ablation<B: LocalBackend>(args: &Args, device: &B::Device) -> Result<()> {
    let inputs = Outputs::new().reads([&args.data]).reads(args.recipe.inputs());
    let files = ["ablation.md", "ablation.svg", "ablation.json"].map(|name| args.out.join(name));
    let is_ours = |path: &Path| path.with_file_name("runs").is_dir();
    let outputs = inputs.replaces(files, "a table next to the folder `runs`", is_ours);
    outputs.fills([&args.out]).check()?;
    let settings = args.recipe.settings()?;
    let data = DataFolder::open(&args.data)?;
    let recipe = args.recipe.chosen(&settings, &data)?.without_repairs();
    let full = rows::full(&recipe);
    let full = if args.short { rows::shortened(full) } else { full };
    let table = if args.rows.is_empty() { Row::of(&full) } else { args.rows.clone() };
    let note = note(&recipe, &full);
    let stop = common::stop_on_ctrl_c()?;
    println!("{}; {} rows, {} seeds. {note}", B::describe(device), table.len(), args.seeds.len());

    // What is done, and whether it is of these settings, is known before anything is trained.
    let groups = groups(&full, &table, &data)?;
    let mut done: Vec<Finished> = Vec::new();
    for group in &groups {
        for (row, seed) in group.runs(args) {
            done.extend(group.finished(args, &full, row, seed)?);
        }
    }
    println!("{} of {} runs are done", done.len(), table.len() * args.seeds.len());
    write_table(args, &table, &mut done, &note)?;
    for group in &groups {
        let mut text = None;
        for &seed in &args.seeds {
            let open =
                |row: &Row| !done.iter().any(|run| run.row == *row && run.record.seed == seed);
            let open: Vec<Row> = group.rows.iter().copied().filter(open).collect();
            let Some(&first) = open.first() else { continue };
            let text = match &text {
                Some(text) => text,
                None => {
                    let progress = Progress::default().listener();
                    let recipe = first.of_full(&full)?;
                    let made = TextSide::<B>::new(&recipe, &group.task.train, device, &progress)?;
                    text.insert(made)
                }
            };
            let started = Instant::now();
            let base = full.clone().with_seed(seed);
            let tuned = fit(&base, &group.task, &stop).tuned(text, device)?;
            let tuning = started.elapsed().as_secs_f64();
            for row in open {
                let text = tuned.as_ref().unwrap_or(text);
                let settings = row.of_full(&full)?.with_seed(seed);
                let run = group.run(row, settings, (text, tuning), &stop, device)?;
                run.write(&args.out)?;
                done.push(run);
                write_table(args, &table, &mut done, &note)?;
            }
        }
    }
    println!("\n{}", results::markdown(&results::summaries(&table, &done), &done, &note));
    println!("table and figure: {}", args.out.join("ablation.md").display());
    Ok(())
}

/// Rows that train on the same captions: they share the task and, seed by seed, the tuned text
/// encoder.
struct Group {
    task: Task,
    /// Checksum of the task.
    content: [u8; 32],
    rows: Vec<Row>,
}

fn groups(full: &Recipe, table: &[Row], data: &DataFolder) -> Result<Vec<Group>> {
    let of = |plain: bool| -> Vec<Row> {
        table.iter().copied().filter(|row| (*row == Row::NoGenerated) == plain).collect()
    };
    let mut groups = Vec::new();
    for rows in [of(false), of(true)] {
        let Some(first) = rows.first() else { continue };
        let recipe = first.of_full(full)?;
        let task = Task::new(&recipe, data, Part::Test)?;
        if let Some(reason) = task.nothing_to_ask(&recipe) {
            bail!(reason);
        }
        check_leaks(&task, &recipe)?;
        groups.push(Group { content: content(&task)?, task, rows });
    }
    Ok(groups)
}

impl Group {
    fn runs(&self, args: &Args) -> Vec<(Row, u64)> {
        self.rows.iter().flat_map(|&row| args.seeds.iter().map(move |&seed| (row, seed))).collect()
    }

    /// The run of a row and seed, if it is done.
    fn finished(
        &self,
        args: &Args,
        full: &Recipe,
        row: Row,
        seed: u64,
    ) -> Result<Option<Finished>> {
        let settings = rows::digest(&row.of_full(full)?.with_seed(seed), &self.content)?;
        Finished::read(&args.out, row, seed, &settings)
    }

    /// Trains and measures a row. `text` is the tuned text side, with the seconds of the tuning.
    fn run<B: LocalBackend>(
        &self,
        row: Row,
        settings: Recipe,
        text: (&TextSide<B>, f64),
        stop: &StopFlag,
        device: &B::Device,
    ) -> Result<Finished> {
        println!("\n{}, seed {}", row.title(), settings.seed);
        let (text, tuning) = text;
        let digest = rows::digest(&settings, &self.content)?;
        // The encoder has been tuned for all rows.
        let mut settings = settings;
        settings.space_tuning = None;
        let made = fit(&settings, &self.task, stop).run_with(text, std::slice::from_ref(device))?;
        let shared_share = made.retriever.index().health().shared_share;
        let retriever = self.task.over(made.retriever, &settings)?;
        let judge = Judge::new(&self.task);
        let rankings = self.task.rankings(&retriever, &judge.texts, settings.beam.width)?;
        let record = record::<B>(&judge, &settings, row.title(), &rankings, device)?;
        Ok(Finished {
            row,
            settings: digest,
            training_seconds: made.seconds,
            in_beam: in_beam(&judge, &rankings),
            shared_share,
            record: record.with_seconds(tuning + made.total),
        })
    }
}

/// A training, whatever the health check says: a row may well be unhealthy.
fn fit<'a>(recipe: &'a Recipe, task: &'a Task, stop: &StopFlag) -> Fit<'a> {
    Fit::new(recipe, task)
        .with_ignore_health(true)
        .with_stop(stop)
        .with_progress(Progress::default().listener())
}

/// A checksum of what is trained on, found and asked.
fn content(task: &Task) -> Result<[u8; 32]> {
    let mut writer = Sha256Writer::new(std::io::sink());
    for items in [&task.items, &task.candidates] {
        let ids: Vec<&str> = items.ids().iter().collect();
        serde_json::to_writer(&mut writer, &(items.dim(), ids))?;
        for value in items.as_slice() {
            writer.write_all(&value.to_le_bytes())?;
        }
    }
    for captions in [&task.train, &task.valid, &task.queries] {
        let captions: Vec<_> = captions.iter().map(|c| (c.item, &c.text, c.weight)).collect();
        serde_json::to_writer(&mut writer, &captions)?;
    }
    Ok(writer.finish().1)
}

/// What the full row has that the recipe has not.
fn note(recipe: &Recipe, full: &Recipe) -> String {
    let omega = full.training.loss.r_drop;
    let mut note = format!("Consistency loss of weight {omega}");
    if recipe.training.loss.r_drop != omega {
        note.push_str(" (the recipe has none)");
    }
    let sizes = full.quantizer.fine.sizes();
    note.push_str(&format!(
        ", {} coarse and {sizes:?} fine codes, passes: {}, beam: {}.",
        full.quantizer.coarse.k, full.training.epochs, full.beam.width
    ));
    note
}

/// Writes table and figure of what is done.
fn write_table(args: &Args, rows: &[Row], done: &mut [Finished], note: &str) -> Result<()> {
    done.sort_by_key(|run| run.record.seed);
    let Some(run) = done.first() else { return Ok(()) };
    let table = results::summaries(rows, done);
    let write = |name: &str, bytes: &[u8]| write_bytes(args.out.join(name), bytes);
    write("ablation.md", results::markdown(&table, done, note).as_bytes())?;
    write("ablation.svg", figure::draw(&table, &run.record.dataset)?.as_bytes())?;
    write("ablation.json", &serde_json::to_vec_pretty(&table)?)?;
    Ok(())
}
