//! Training from end to end on a small collection: learning, resuming, stopping, refusing.
//!
//! One test at a time trains (`turn`).

mod case;
mod embeddings;
mod faults;
mod groups;
mod guided;
mod loaded;
mod modes;
mod resume;
mod setup;
mod several;
mod steps;

use std::{
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

use burn::backend::Flex;
use cart_retrieval::{
    cancel::StopFlag,
    eval::{TruncatedTies, evaluate},
    prelude::*,
    quantizer::RqKMeansConfig,
    train::{StopReason, TrainEvent, Trained},
};
use setup::{A, Setup, settings, setup, weights};

use crate::turn;

fn fit(setup: &Setup, trainer: Trainer) -> cart_retrieval::Result<Trained<Flex>> {
    let device = Default::default();
    trainer.fit(setup.config.init::<A>(&device).unwrap(), &setup.data, &device)
}

#[test]
fn a_trained_index_finds_unseen_captions_and_survives_the_disk() {
    let _turn = turn();
    let setup = setup();
    let config = TrainConfig { epochs: 60, validations: 6, ..settings() };
    let trained = fit(&setup, Trainer::new(config)).unwrap();
    assert_eq!(trained.reason, StopReason::Finished);
    assert_eq!(trained.history.len(), 6);
    let device = Default::default();
    let retriever = Retriever::new(RetrieverParts {
        model: trained.model,
        config: setup.config,
        tokenizer: setup.tokenizer,
        quantizer: setup.quantizer,
        index: setup.index,
    })
    .unwrap();
    let texts: Vec<&str> = setup.queries[32..].iter().map(|c| c.text.as_str()).collect();
    let relevant: Vec<[u32; 1]> = setup.queries[32..].iter().map(|c| [c.item]).collect();
    let rankings = retriever.query(&texts).top(10).rankings().unwrap();
    let metrics =
        evaluate(&rankings, &relevant, setup.scenes, TruncatedTies::Listed).unwrap().metrics();
    // Chance is 12.5 %.
    assert!(metrics.recall_at_10 > 0.5, "{metrics}");

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    retriever.save(&path).unwrap();
    let loaded = Retriever::<Flex>::load(&path, &device).unwrap();
    for text in &texts[..5] {
        let hits = retriever.query(text).top(5).beam(20).run().unwrap();
        assert_eq!(hits.len(), 5);
        assert_eq!(hits, loaded.query(text).top(5).beam(20).run().unwrap());
        let hit = &hits[0];
        assert_eq!(loaded.index().id(hit.identifier.tokens()).unwrap(), hit.id);
        assert_eq!(loaded.index().identifier(&hit.id).unwrap(), hit.identifier);
        // The beam that is traced is that of the search; many texts give a result each.
        let query = || retriever.query(text).top(5).beam(20);
        let traced = query().trace(&hits[2].id).unwrap();
        assert_eq!((traced.rank, traced.lost_at), (Some(2), None));
        assert_eq!(traced.hits[..5], hits);
        let many = retriever.query(&[text, text]).top(5).beam(20).trace(&hits[2].id).unwrap();
        assert_eq!(many, [traced.clone(), traced]);
        assert!(query().trace("no such thing").is_err());
        let exact = query().exact(80).unwrap();
        assert!(exact.proven && exact.hits[0].score >= hits[0].score - 1e-4);
        assert!(query().per_cluster(1).exact(80).is_err() && query().exact(4).is_err());
        assert_eq!(
            query().rankings().unwrap().items,
            hits.iter().map(|hit| hit.item).collect::<Vec<_>>()
        );
    }
    assert_eq!(loaded.query(texts[0]).top(500).run().unwrap().len(), 80);
    let exact = loaded.query(texts[0]).scores().unwrap();
    let wide = loaded.query(texts[0]).top(80).run().unwrap();
    for (a, b) in exact.iter().zip(&wide) {
        assert!((a.score - b.score).abs() < 1e-3);
    }
}

#[test]
fn a_training_stopped_at_any_step_goes_on_as_if_it_had_not_been() {
    let _turn = turn();
    let setup = setup();
    let whole = fit(&setup, Trainer::new(settings())).unwrap();
    for stop_at in [1, 7, 12, 25] {
        let folder = tempfile::tempdir().unwrap();
        let stop = StopFlag::new();
        let (raise, seen) = (stop.clone(), AtomicUsize::new(0));
        let trainer = Trainer::new(settings()).with_folder(folder.path()).with_stop(&stop);
        let interrupted = fit(
            &setup,
            trainer.with_progress(move |event| {
                if matches!(event, TrainEvent::Step { .. })
                    && seen.fetch_add(1, Ordering::Relaxed) + 1 == stop_at
                {
                    raise.raise();
                }
            }),
        )
        .unwrap();
        assert_eq!(interrupted.reason, StopReason::Interrupted);
        let resumed =
            fit(&setup, Trainer::new(settings()).with_folder(folder.path()).with_resume(true))
                .unwrap();
        assert_eq!(resumed.reason, StopReason::Finished);
        let last = |t: &Trained<Flex>| t.history.last().copied().unwrap();
        assert_eq!(last(&resumed).step, last(&whole).step);
        assert_eq!(last(&resumed).loss, last(&whole).loss, "stopped near step {stop_at}");
        let best_step = |t: &Trained<Flex>| {
            let best = t.best_interval.unwrap();
            t.history.iter().find(|summary| summary.interval == best).unwrap().step
        };
        assert_eq!(best_step(&resumed), best_step(&whole));
        assert_eq!(weights(&resumed.model), weights(&whole.model));
    }
}

#[test]
fn the_same_seed_gives_the_same_weights_and_another_seed_others() {
    let _turn = turn();
    let setup = setup();
    let run = |seed| {
        let config = TrainConfig { epochs: 1, seed, validations: 1, ..settings() };
        weights(&fit(&setup, Trainer::new(config)).unwrap().model)
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn folders_of_others_and_of_other_trainings_are_refused() {
    let _turn = turn();
    let setup = setup();
    let folder = tempfile::tempdir().unwrap();
    let quick = TrainConfig { epochs: 1, validations: 1, ..settings() };
    let run = |config: &TrainConfig, resume| {
        let trainer = Trainer::new(config.clone()).with_folder(folder.path());
        fit(&setup, trainer.with_resume(resume))
    };
    std::fs::write(folder.path().join("thesis.txt"), "mine").unwrap();
    assert!(run(&quick, false).unwrap_err().to_string().contains("thesis.txt"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    std::fs::remove_file(folder.path().join("thesis.txt")).unwrap();

    run(&quick, false).unwrap();
    assert!(matches!(run(&quick, false).unwrap_err(), Error::Checkpoint(_)));
    let other = TrainConfig { learning_rate: 1e-4, ..quick.clone() };
    let error = run(&other, true).unwrap_err().to_string();
    assert!(error.contains("config"), "{error}");
    // A finished training is simply there again.
    assert_eq!(run(&quick, true).unwrap().reason, StopReason::Finished);
    // A corrupt checkpoint is named.
    let mut damaged = None;
    for entry in std::fs::read_dir(folder.path().join("checkpoint")).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_string_lossy().starts_with("optim") {
            let bytes = std::fs::read(&path).unwrap();
            std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
            damaged = Some(path);
        }
    }
    let error = run(&quick, true).unwrap_err().to_string();
    assert!(error.contains(damaged.unwrap().file_name().unwrap().to_str().unwrap()), "{error}");
}

#[test]
fn a_loss_that_is_no_number_stops_the_training_with_the_remedy() {
    let _turn = turn();
    let setup = setup();
    let config = TrainConfig {
        learning_rate: 1.0,
        warmup: 0.0,
        clip_norm: 0.0,
        weight_decay: 1e6,
        epochs: 20,
        ..settings()
    };
    let error = fit(&setup, Trainer::new(config)).unwrap_err();
    assert!(matches!(error, Error::Training(_)), "{error}");
    assert!(error.to_string().contains("learning rate"), "{error}");
}

#[test]
fn bad_settings_and_captions_are_refused_before_anything_is_made() {
    let setup = setup();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    for config in [
        TrainConfig { epochs: 0, ..settings() },
        TrainConfig { batch_size: 0, ..settings() },
        TrainConfig { learning_rate: f64::NAN, ..settings() },
        TrainConfig { word_dropout: 1.5, ..settings() },
    ] {
        assert!(fit(&setup, Trainer::new(config).with_folder(&path)).is_err());
        assert!(!path.exists());
    }
    let caption = |item| ItemCaption { item, text: "a star".into(), weight: 1.0 };
    let make = |train: &[ItemCaption]| {
        TrainingData::new(&setup.tokenizer, TrainingCaptions { train, valid: &[] }, &setup.index)
    };
    assert!(matches!(make(&[]).unwrap_err(), Error::Captions(_)));
    assert!(matches!(make(&[caption(80)]).unwrap_err(), Error::Captions(_)));
    assert!(make(&[caption(79)]).is_ok());
    assert_eq!((setup.items.len(), setup.train.len()), (80, 240));
}

#[test]
fn damaged_foreign_and_missing_index_folders_are_named() {
    let _turn = turn();
    let setup = setup();
    let device = Default::default();
    let model = setup.config.init::<Flex>(&device).unwrap();
    let retriever = Retriever::new(RetrieverParts {
        model,
        config: setup.config.clone(),
        tokenizer: setup.tokenizer,
        quantizer: setup.quantizer,
        index: setup.index,
    })
    .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let load = |path: &Path| Retriever::<Flex>::load(path, &device).unwrap_err().to_string();
    assert!(load(&folder.path().join("none")).contains("manifest.json"));

    std::fs::write(folder.path().join("thesis.txt"), "mine").unwrap();
    assert!(retriever.save(folder.path()).unwrap_err().to_string().contains("thesis.txt"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);

    let path = folder.path().join("index");
    retriever.save(&path).unwrap();
    let all = || std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path());
    let files = || all().filter(|path| path.file_name().is_some_and(|name| name != ".lock"));
    assert_eq!(files().count(), 7);
    retriever.save(&path).unwrap();
    assert_eq!(files().count(), 7, "saving again replaces");
    for file in files().collect::<Vec<_>>() {
        let bytes = std::fs::read(&file).unwrap();
        let mut flipped = bytes.clone();
        flipped[bytes.len() / 2] ^= 1;
        std::fs::write(&file, &flipped).unwrap();
        assert!(Retriever::<Flex>::load(&path, &device).is_err(), "{file:?} flipped");
        std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
        assert!(Retriever::<Flex>::load(&path, &device).is_err(), "{file:?} cut");
        std::fs::write(&file, &bytes).unwrap();
    }
    // Every bit of the manifest counts.
    let manifest = path.join("manifest.json");
    let bytes = std::fs::read(&manifest).unwrap();
    for at in (0..bytes.len()).step_by(7) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1;
        std::fs::write(&manifest, &flipped).unwrap();
        assert!(cart_retrieval::expert::Manifest::read(&path).is_err(), "byte {at}");
    }
    std::fs::write(&manifest, &bytes).unwrap();
    Retriever::<Flex>::load(&path, &device).unwrap();
    assert!(retriever.query(" ").run().is_err());
    assert!(retriever.query("a star").top(0).run().is_err());
    assert!(retriever.query("a star").beam(0).top(3).run().is_ok());
}
