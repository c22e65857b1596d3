//! The rows of the ablation, and what is kept of finished runs.

use std::path::{Path, PathBuf};

use cart_retrieval::{
    eval::{EvalRecord, Ranking, TruncatedTies, evaluate},
    nn::FusionMode,
    quantizer::FineConfig,
    recipe::{Recipe, Settings},
};

use crate::{
    results::{Finished, markdown, summaries},
    rows::{Row, digest, full, shortened},
};

fn recipes() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../recipes")
}

fn read(path: impl AsRef<Path>) -> Recipe {
    Settings::read(path).unwrap().preview().unwrap()
}

#[test]
fn every_row_of_every_recipe_is_another_experiment() {
    for entry in std::fs::read_dir(recipes()).unwrap() {
        let path = entry.unwrap().path();
        let recipe = read(&path);
        let full = full(&recipe);
        assert_eq!(full.model.fusion, FusionMode::Both);
        assert!(full.training.loss.r_drop > 0.0);
        let rows = Row::of(&full);
        assert_eq!(rows.contains(&Row::NoGenerated), !recipe.generated.is_empty());
        assert_eq!(Row::NoGenerated.of_full(&full).is_ok(), !recipe.generated.is_empty());
        let mut digests: Vec<String> = rows
            .iter()
            .map(|row| digest(&row.of_full(&full).unwrap(), &[0; 32]).unwrap())
            .collect();
        digests.push(digest(&full, &[1; 32]).unwrap());
        digests.push(digest(&full.clone().with_seed(full.seed + 1), &[0; 32]).unwrap());
        digests.push(digest(&shortened(full.clone()), &[0; 32]).unwrap());
        let count = digests.len();
        digests.sort();
        digests.dedup();
        assert_eq!(digests.len(), count, "{}", path.display());
        for row in rows {
            let recipe = row.of_full(&full).unwrap();
            recipe.quantizer.validate().unwrap();
            let sizes = full.quantizer.fine.sizes();
            assert_eq!(recipe.quantizer.fine.sizes(), sizes, "{}", row.title());
            let vae = matches!(recipe.quantizer.fine, FineConfig::RqVae(_));
            assert_eq!(vae, !matches!(row, Row::NoRqVae | Row::RqKmeans));
        }
    }
}

#[test]
fn a_finished_run_is_found_again_and_one_of_other_settings_is_refused() {
    let recipe = read(recipes().join("emoji.toml"));
    let settings = digest(&recipe, &[0; 32]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let run = |row: Row, seed: u64, right: usize| {
        let ranking =
            |query: usize| Ranking::new(vec![u32::from(query >= right)], vec![0.0]).unwrap();
        let rankings: Vec<Ranking> = (0..10).map(ranking).collect();
        let metrics = evaluate(&rankings, &[[0]; 10], 2, TruncatedTies::Listed).unwrap().metrics();
        Finished {
            row,
            settings: settings.clone(),
            training_seconds: 1.0,
            in_beam: 50.0,
            shared_share: 0.25,
            record: EvalRecord::new("set", "A", row.title(), &metrics)
                .with_seed(seed)
                .with_seconds(60.0),
        }
    };
    assert!(Finished::read(folder.path(), Row::Full, 1, &settings).unwrap().is_none());
    let runs = [
        run(Row::Full, 1, 6),
        run(Row::Full, 2, 8),
        run(Row::NoFusion, 1, 4),
        run(Row::NoFusion, 2, 5),
        run(Row::NoKmeans, 2, 8),
    ];
    for run in &runs {
        run.write(folder.path()).unwrap();
    }
    let found = Finished::read(folder.path(), Row::NoFusion, 2, &settings).unwrap().unwrap();
    assert_eq!((found.row, found.record), (Row::NoFusion, runs[3].record.clone()));
    let other = digest(&full(&recipe), &[0; 32]).unwrap();
    let error = Finished::read(folder.path(), Row::NoFusion, 2, &other).unwrap_err().to_string();
    assert!(error.contains("no-fusion-seed-2.json") && error.contains(&other[..12]), "{error}");
    std::fs::write(Finished::path(folder.path(), Row::Full, 1), "{").unwrap();
    assert!(Finished::read(folder.path(), Row::Full, 1, &settings).is_err());

    // Means and deviations by hand: 60 and 80, 40 and 50.
    let table = summaries(&[Row::Full, Row::CoarseFusion, Row::NoFusion, Row::NoKmeans], &runs);
    let names: Vec<String> = table.iter().map(|row| row.row.name()).collect();
    assert_eq!(names, ["full", "no-fusion", "no-kmeans"]);
    let text = markdown(&table, &runs, "A note.");
    for line in [
        "set, A: 10 queries, 2 candidates.",
        "| full | 70.0 ± 14.1 |",
        "| without feature fusion | 45.0 ± 7.1 |",
        " -25.0 ± 7.1 | 25.0 % | 1, 2 | 1.0 |",
        "| without K-Means | 80.0 |",
        " 0.0 | 25.0 % | 2 | 1.0 |",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}
