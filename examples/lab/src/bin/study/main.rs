//! Trains and measures an index over several seeds, compared with tuned baselines on the same text.

#[macro_use]
extern crate cart_examples as common;

mod baselines;

use std::{path::PathBuf, time::Instant};

use anyhow::{Context, Result, bail, ensure};
use baselines::{Baselines, Row, System};
use cart_retrieval::{
    backend::{BackendTask, LocalBackend},
    cancel::StopFlag,
    data::DataFolder,
    eval::{EvalRecord, Ranking, markdown_table, write_json},
    expert::TextSide,
    members::Outputs,
    prelude::*,
    recipe::{Fit, Judge, Part, Recipe, Task},
};
use clap::Parser;
use common::{
    backend::Hardware,
    judge::{in_beam, record},
    outputs::with_report,
    progress::Progress,
    recipe::{RecipeArgs, check_leaks},
};

/// Recall and MRR of a recipe over several seeds.
#[derive(Parser)]
struct Args {
    /// Folder with features, ids.txt and captions.jsonl.
    #[arg(long)]
    data: PathBuf,
    #[command(flatten)]
    recipe: RecipeArgs,
    /// Seeds, separated by commas; by default the recipe's.
    #[arg(long, value_delimiter = ',', conflicts_with = "seed")]
    seeds: Vec<u64>,
    /// Methods to measure, separated by commas.
    #[arg(long, value_delimiter = ',', default_values_t = [Row::Cart], value_enum)]
    rows: Vec<Row>,
    /// Number of passes of the dual tower; of several, separated by commas, the best on the tuning
    /// captions is used.
    #[arg(long, value_delimiter = ',', default_values_t = [4usize])]
    tower_epochs: Vec<usize>,
    /// Measures on the recipe's tuning captions instead of the test captions.
    #[arg(long)]
    tuning: bool,
    /// Name of the row in the report.
    #[arg(long, default_value = "CART")]
    method: String,
    /// One more row with other settings, as in `no fusion: model.fusion="none"; training.epochs=4`;
    /// may be repeated. All rows of a seed share one tuned text encoder.
    #[arg(long = "variant", value_name = "NAME: KEY=VALUE; ..")]
    variants: Vec<String>,
    /// Decoder weights to measure, separated by commas; by default the recipe's.
    #[arg(long, value_delimiter = ',')]
    decoder_weight: Vec<f32>,
    /// Rerank weights to measure, separated by commas.
    #[arg(long, value_delimiter = ',', default_values_t = [0.0f32])]
    rerank: Vec<f32>,
    /// Measures only the decoder weight that is best without a rerank and the pair that is best
    /// with one, by MRR@10 on the recipe's tuning captions. The first seed is trained once more for
    /// this choice.
    #[arg(long, conflicts_with = "tuning")]
    choose: bool,
    /// Trains even on identifiers that the health check refuses.
    #[arg(long)]
    ignore_health: bool,
    /// Writes the figures as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    #[command(flatten)]
    hardware: Hardware,
}

impl Args {
    /// The seeds to train with.
    fn seeds(&self, recipe: &Recipe) -> Vec<u64> {
        if self.seeds.is_empty() { vec![recipe.seed] } else { self.seeds.clone() }
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
        study::<B>(&self.0, &device)
    }
}

fn study<B: LocalBackend>(args: &Args, device: &B::Device) -> Result<()> {
    let inputs = Outputs::new().reads([&args.data]).reads(args.recipe.inputs());
    with_report(inputs, &args.json).prepare()?;
    let settings = args.recipe.settings()?;
    let part = if args.tuning { Part::Tuning } else { Part::Test };
    let stop = common::stop_on_ctrl_c()?;
    let data = DataFolder::open(&args.data)?;
    let recipe = args.recipe.chosen(&settings, &data)?;
    let task = Task::new(&recipe, &data, part)?;
    if let Some(reason) = task.nothing_to_ask(&recipe) {
        bail!(reason);
    }
    match part {
        Part::Test => check_leaks(&task, &recipe)?,
        Part::Tuning => println!("{}", task.leaks),
    }
    println!(
        "{} training captions of {} items; {} queries for {} {} candidates",
        task.train.len(),
        task.items.len(),
        task.queries.len(),
        task.candidates.len(),
        task.known()
    );
    let progress = Progress::default().listener();
    let text = TextSide::<B>::new(&recipe, &task.train, device, &progress)?;
    let mut report = Report { args, recipe: &recipe, task: &task, records: Vec::new() };
    let setup =
        Setup { args, recipe: &recipe, data: &data, task: &task, text: &text, device, stop: &stop };
    baselines(&setup, &mut report)?;
    if args.rows.contains(&Row::Cart) {
        cart(&setup, &mut report)?;
    }
    println!("\n{}", markdown_table(&report.records));
    if let Some(path) = &args.json {
        write_json(path, &report.records)?;
    }
    Ok(())
}

/// What all rows share.
struct Setup<'a, B: LocalBackend> {
    args: &'a Args,
    recipe: &'a Recipe,
    data: &'a DataFolder,
    task: &'a Task,
    text: &'a TextSide<B>,
    device: &'a B::Device,
    stop: &'a StopFlag,
}

/// The baselines of the first seed.
fn baselines<B: LocalBackend>(setup: &Setup<'_, B>, report: &mut Report<'_>) -> Result<()> {
    let Setup { args, recipe, data, task, text, device, stop } = *setup;
    if args.rows == [Row::Cart] {
        return Ok(());
    }
    let recipe = &recipe.clone().with_seed(args.seeds(recipe)[0]);
    let tuning = Task::new(recipe, data, Part::Tuning)?;
    let all = Baselines {
        recipe,
        text,
        test: task,
        tuning: &tuning,
        epochs: args.tower_epochs.clone(),
        fused: args.rows.iter().any(|row| matches!(row, Row::Fusion | Row::DualTower)),
        device,
        stop: stop.clone(),
    };
    let mut systems: Vec<System> = Vec::new();
    for &row in &args.rows {
        if let Some(system) = all.system(row)? {
            report.add::<B>(&system.name, &system.test, recipe.seed, system.seconds, device)?;
            let compared = matches!(row, Row::DualTower | Row::Flat);
            let with_tokens = if compared { all.with_max_sim(&system)? } else { None };
            systems.push(system);
            if let Some(system) = with_tokens {
                report.add::<B>(&system.name, &system.test, recipe.seed, system.seconds, device)?;
                systems.push(system);
            }
        }
    }
    if args.rows.contains(&Row::Fusion) && systems.len() > 1 {
        let fused = all.fusion(&systems)?;
        report.add::<B>(&fused.name, &fused.test, recipe.seed, fused.seconds, device)?;
    }
    Ok(())
}

/// The recipe's index, seed by seed.
fn cart<B: LocalBackend>(setup: &Setup<'_, B>, report: &mut Report<'_>) -> Result<()> {
    let Setup { args, recipe, data, task, text, device, stop } = *setup;
    let judge = Judge::new(task);
    let variants = variants(args, recipe, data)?;
    fn fit<'a>(args: &Args, recipe: &'a Recipe, task: &'a Task, stop: &StopFlag) -> Fit<'a> {
        Fit::new(recipe, task)
            .with_ignore_health(args.ignore_health)
            .with_stop(stop)
            .with_progress(Progress::default().listener())
    }
    let devices = std::slice::from_ref(device);
    // Settings that no search can have are found before anything is trained.
    let searches = variants
        .iter()
        .map(|(name, variant)| beams(args, variant).with_context(|| name.clone()))
        .collect::<Result<Vec<_>>>()?;
    let weights = match args.choose {
        true => {
            let tuning = Task::new(recipe, data, Part::Tuning)?;
            let recipe = recipe.clone().with_seed(args.seeds(recipe)[0]);
            let fitted = fit(args, &recipe, &tuning, stop).run_with(text, devices)?;
            Some(chosen(&searches[0], &tuning, fitted.retriever, &recipe)?)
        }
        false => None,
    };
    let searches = searches.into_iter().zip(&variants).map(|(beams, (_, variant))| {
        let Some(weights) = &weights else {
            return beams;
        };
        let beam = |&(decoder_weight, rerank): &(f32, f32)| BeamConfig {
            decoder_weight,
            rerank,
            ..variant.beam.clone()
        };
        weights.iter().map(beam).collect()
    });
    let searches: Vec<Vec<BeamConfig>> = searches.collect();
    for seed in args.seeds(recipe) {
        let started = Instant::now();
        let base = recipe.clone().with_seed(seed);
        let tuned = fit(args, &base, task, stop).tuned(text, device)?;
        let text = tuned.as_ref().unwrap_or(text);
        let tuning = started.elapsed().as_secs_f64();
        for ((name, variant), beams) in variants.iter().zip(&searches) {
            let mut variant = variant.clone().with_seed(seed);
            variant.space_tuning = None;
            let done = fit(args, &variant, task, stop).run_with(text, devices)?;
            let total = tuning + done.total;
            println!("{name}: trained for {:.0} s, {total:.0} s in all", done.seconds);
            let retriever = task.over(done.retriever, &variant)?;
            let late = retriever.beam().late_interaction;
            let with_late = |beam: &BeamConfig| {
                let late_interaction = if beam.rerank > 0.0 { late } else { 0.0 };
                BeamConfig { late_interaction, ..beam.clone() }
            };
            let added = beams.iter().map(with_late).filter(|beam| beam.late_interaction > 0.0);
            for beam in beams.iter().cloned().chain(added) {
                let started = Instant::now();
                let retriever = retriever.clone().with_beam(beam.clone());
                let rankings = task.rankings(&retriever, &judge.texts, beam.width)?;
                let rate = judge.texts.len() as f64 / started.elapsed().as_secs_f64();
                let mut method = name.clone();
                if !args.decoder_weight.is_empty() {
                    method = format!("{method}, decoder {}", beam.decoder_weight);
                }
                if beam.rerank > 0.0 {
                    method = format!("{method}, rerank {}", beam.rerank);
                }
                if beam.late_interaction > 0.0 {
                    method = format!("{method}, late interaction {}", beam.late_interaction);
                }
                report.add::<B>(&method, &rankings, seed, total, device)?;
                let found = in_beam(&judge, &rankings);
                println!("in the beam {found:.1} %; {rate:.0} queries/s");
            }
        }
    }
    Ok(())
}

/// The recipe and its variants, by the names of their rows.
fn variants(args: &Args, recipe: &Recipe, data: &DataFolder) -> Result<Vec<(String, Recipe)>> {
    let mut all = vec![(args.method.clone(), recipe.clone())];
    for variant in &args.variants {
        let (name, settings) = variant
            .split_once(':')
            .with_context(|| format!("--variant {variant}: expected NAME: KEY=VALUE; .."))?;
        let settings = settings.split(';').map(|setting| setting.trim().to_string());
        let settings = args.recipe.settings_with(&settings.collect::<Vec<_>>())?;
        all.push((name.trim().to_string(), args.recipe.recipe(&settings, data)?));
    }
    Ok(all)
}

/// The searches to measure: every weight of the decoder with every weight of the rerank.
fn beams(args: &Args, recipe: &Recipe) -> Result<Vec<BeamConfig>> {
    let decoder = match args.decoder_weight.is_empty() {
        true => vec![recipe.beam.decoder_weight],
        false => args.decoder_weight.clone(),
    };
    let beam =
        |decoder_weight, rerank| BeamConfig { decoder_weight, rerank, ..recipe.beam.clone() };
    let pairs =
        decoder.iter().flat_map(|&d| args.rerank.iter().map(move |&rerank| beam(d, rerank)));
    let beams: Vec<BeamConfig> = pairs.collect();
    for beam in &beams {
        beam.validate()?;
        ensure!(
            beam.rerank == 0.0 || recipe.alignment.is_some(),
            "a rerank of {} needs vectors of queries: give the recipe an [alignment], or --rerank 0",
            beam.rerank
        );
        ensure!(
            beam.decoder_weight > 0.0 || recipe.alignment.as_ref().is_some_and(|a| a.guided),
            "with decoder weight 0 nothing guides the search: give the recipe a guided \
             [alignment], or another --decoder-weight"
        );
    }
    Ok(beams)
}

/// The weights of decoder and rerank that rank tuning captions best: without a rerank, and with
/// one.
fn chosen<B: LocalBackend>(
    beams: &[BeamConfig],
    tuning: &Task,
    retriever: Retriever<B>,
    recipe: &Recipe,
) -> Result<Vec<(f32, f32)>> {
    let retriever = tuning.over(retriever, recipe)?;
    let judge = Judge::new(tuning);
    // Among all candidates of the index, where the asked ones are a part.
    let relevant: Vec<Vec<u32>> = judge.relevant.iter().map(|r| tuning.of_index(r)).collect();
    let scores = retriever.compare_beams(&judge.texts, &relevant, beams)?;
    for score in &scores {
        let BeamConfig { decoder_weight, rerank, .. } = score.beam;
        println!("tuning captions, decoder {decoder_weight}, rerank {rerank}: {}", score.metrics);
    }
    let best = |reranked: bool| {
        let found = scores.iter().find(|score| (score.beam.rerank > 0.0) == reranked);
        found.map(|score| (score.beam.decoder_weight, score.beam.rerank))
    };
    Ok([false, true].into_iter().filter_map(best).collect())
}

/// Measured rows.
struct Report<'a> {
    args: &'a Args,
    recipe: &'a Recipe,
    task: &'a Task,
    records: Vec<EvalRecord>,
}

impl Report<'_> {
    fn add<B: LocalBackend>(
        &mut self,
        method: &str,
        rankings: &[Ranking],
        seed: u64,
        seconds: f64,
        device: &B::Device,
    ) -> Result<()> {
        let mut recipe = self.recipe.clone().with_seed(seed);
        if self.args.tuning {
            recipe.protocol.push_str(" (tuning captions)");
        }
        let record = record::<B>(&Judge::new(self.task), &recipe, method, rankings, device)?;
        let record = record.with_seconds(seconds);
        self.records.push(record);
        Ok(())
    }
}
