//! Half precision, and encoders that are frozen in part.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use burn::backend::Flex;
use burn_store::ModuleSnapshot;
use cart_retrieval::{
    cancel::StopFlag,
    model::Cart,
    prelude::*,
    train::{Freeze, FrozenCache, Precision, StopReason, TrainEvent, Trained},
};

use super::{A, Setup, fit, settings, setup, turn, weights};

fn deep(setup: &Setup, layers: usize) -> Cart<A> {
    setup.config.clone().with_layers(layers, 1).init(&Default::default()).unwrap()
}

fn run(setup: &Setup, config: &TrainConfig) -> Trained<Flex> {
    let trainer = Trainer::new(config.clone());
    trainer.fit(deep(setup, 4), &setup.data, &Default::default()).unwrap()
}

fn losses(trained: &Trained<Flex>) -> Vec<f64> {
    trained.history.iter().map(|round| round.loss.unwrap()).collect()
}

/// The largest difference of two trainings' weights, but for those of biases of keys, whose
/// gradients are rounding alone.
fn difference(a: &Trained<Flex>, b: &Trained<Flex>) -> f32 {
    let tensors = |trained: &Trained<Flex>| trained.model.collect(None, None, true);
    let mut largest = 0f32;
    for (a, b) in tensors(a).iter().zip(&tensors(b)) {
        if !a.full_path().ends_with("key.bias") {
            let (a, b) = (a.to_data().unwrap(), b.to_data().unwrap());
            for (x, y) in a.iter::<f32>().zip(b.iter::<f32>()) {
                largest = largest.max((x - y).abs());
            }
        }
    }
    largest
}

#[test]
fn half_precision_learns_what_single_precision_learns() {
    let _turn = turn();
    let setup = setup();
    let single = losses(&run(&setup, &settings()));
    for (precision, tolerance) in [(Precision::Bf16, 0.05), (Precision::F16, 0.02)] {
        let trained = run(&setup, &TrainConfig { precision, ..settings() });
        let half = losses(&trained);
        assert_ne!(half, single);
        for (half, single) in half.iter().zip(&single) {
            assert!((half - single).abs() < tolerance, "{precision:?}: {half} {single}");
        }
        // Weights are single precision throughout: some are no numbers of the half precision.
        let weights = super::weights(&trained.model);
        assert!(weights.iter().any(|&w| half::f16::from_f32(w).to_f32() != w));
    }
}

#[test]
fn a_resumed_training_in_f16_has_the_scale_it_had() {
    let _turn = turn();
    let setup = setup();
    let config = TrainConfig { precision: Precision::F16, micro_batch: 8, ..settings() };
    let whole = run(&setup, &config);
    let folder = tempfile::tempdir().unwrap();
    let stop = StopFlag::new();
    let (raise, seen) = (stop.clone(), AtomicUsize::new(0));
    let trainer = |config: &TrainConfig| Trainer::new(config.clone()).with_folder(folder.path());
    let interrupted = trainer(&config).with_stop(&stop).with_progress(move |event| {
        if matches!(event, TrainEvent::Step { .. }) && seen.fetch_add(1, Ordering::Relaxed) == 6 {
            raise.raise();
        }
    });
    let fit = |trainer: Trainer| trainer.fit(deep(&setup, 4), &setup.data, &Default::default());
    assert_eq!(fit(interrupted).unwrap().reason, StopReason::Interrupted);
    let state = std::fs::read_to_string(folder.path().join("training.json")).unwrap();
    // The first step overflows with the scale it starts from; later ones are good and counted. (How
    // many is not fixed: events come from another thread, so the stop may be seen a step later.)
    assert!(state.contains("\"scale\": 32768.0") && !state.contains("\"good\": 0"), "{state}");
    let resumed = fit(trainer(&config).with_resume(true)).unwrap();
    assert_eq!(super::weights(&resumed.model), super::weights(&whole.model));
    let message = fit(trainer(&settings()).with_resume(true)).unwrap_err().to_string();
    assert!(message.contains("config, micro_batch") || message.contains("config, precision"));
}

#[test]
fn what_is_frozen_stays_and_the_rest_learns() {
    let _turn = turn();
    let setup = setup();
    let start = deep(&setup, 4);
    for (freeze, frozen) in [
        (Freeze::TokenEmbeddings, vec!["encoder.tokens."]),
        (
            Freeze::Layers(2),
            vec![
                "encoder.tokens.",
                "encoder.positions.",
                "encoder.layers.0.",
                "encoder.layers.1.",
                "encoder.norms.0.",
                "encoder.norms.1.",
            ],
        ),
        (Freeze::Encoder, vec!["encoder."]),
    ] {
        let trained = run(&setup, &TrainConfig { freeze, micro_batch: 8, ..settings() });
        let now = trained.model.collect(None, None, true);
        for (before, now) in start.collect(None, None, true).iter().zip(&now) {
            let path = before.full_path();
            let same = before.to_data().unwrap() == now.to_data().unwrap();
            let kept = frozen.iter().any(|prefix| path.starts_with(prefix));
            // Keys' biases may have no gradient at all.
            assert!(same == kept || path.ends_with("key.bias"), "{freeze:?}: {path}");
        }
        let losses = losses(&trained);
        assert!(losses.last() < losses.first(), "{losses:?}");
    }
}

#[test]
fn keeping_the_outputs_of_frozen_layers_changes_rounding_only() {
    let _turn = turn();
    let setup = setup();
    for (freeze, r_drop) in [(Freeze::Encoder, 1.0), (Freeze::Layers(3), 0.0)] {
        let mut config = TrainConfig { freeze, word_dropout: 0.0, ..settings() };
        config.loss.r_drop = r_drop;
        config.learning_rate = 1e-3;
        let plain = run(&setup, &config);
        let kept = TrainConfig {
            frozen_cache: FrozenCache { mebibytes: 64, half: false },
            ..config.clone()
        };
        assert!(difference(&run(&setup, &kept), &plain) < 1e-4);
        let micro = TrainConfig { micro_batch: 5, ..kept.clone() };
        let devices = vec![Default::default(); 2];
        let trainer = Trainer::new(micro.clone());
        let two = trainer.fit_devices(deep(&setup, 4), &setup.data, &devices).unwrap();
        assert!(losses(&two).iter().all(|loss| loss.is_finite()));
        let half = TrainConfig {
            frozen_cache: FrozenCache { mebibytes: 64, half: true },
            ..config.clone()
        };
        for (half, plain) in losses(&run(&setup, &half)).iter().zip(losses(&plain)) {
            assert!((half - plain).abs() < 5e-3, "{half} {plain}");
        }
    }
}

#[test]
fn a_small_budget_keeps_some_captions_and_resuming_keeps_the_same() {
    let _turn = turn();
    let setup = setup();
    let config = TrainConfig {
        freeze: Freeze::Layers(3),
        word_dropout: 0.0,
        learning_rate: 1e-3,
        ..settings()
    };
    let kept =
        TrainConfig { frozen_cache: FrozenCache { mebibytes: 1, half: false }, ..config.clone() };
    let events = Arc::new(Mutex::new(Vec::new()));
    let sink = events.clone();
    let trainer =
        Trainer::new(kept.clone()).with_progress(move |event| sink.lock().unwrap().push(event));
    let whole = trainer.fit(deep(&setup, 4), &setup.data, &Default::default()).unwrap();
    let cached = events.lock().unwrap().iter().find_map(|event| match *event {
        TrainEvent::Cached { pairs, of } => Some((pairs, of)),
        _ => None,
    });
    let (pairs, of) = cached.unwrap();
    assert!(of == 240 && (100..230).contains(&pairs), "{pairs}");
    assert!(difference(&whole, &run(&setup, &config)) < 1e-4);

    let folder = tempfile::tempdir().unwrap();
    let stop = StopFlag::new();
    let raise = stop.clone();
    let trainer = || Trainer::new(kept.clone()).with_folder(folder.path());
    let interrupted = trainer().with_stop(&stop).with_progress(move |event| {
        if matches!(event, TrainEvent::Step { step: 13, .. }) {
            raise.raise();
        }
    });
    let fit =
        |trainer: Trainer| trainer.fit(deep(&setup, 4), &setup.data, &Default::default()).unwrap();
    assert_eq!(fit(interrupted).reason, StopReason::Interrupted);
    let resumed = fit(trainer().with_resume(true));
    assert_eq!(super::weights(&resumed.model), super::weights(&whole.model));
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    let setup = setup();
    let cache = FrozenCache { mebibytes: 1, half: false };
    for (config, word) in [
        (TrainConfig { freeze: Freeze::Layers(0), ..settings() }, "1 to 4 layers"),
        (TrainConfig { freeze: Freeze::Layers(5), ..settings() }, "1 to 4 layers"),
        (TrainConfig { frozen_cache: cache, ..settings() }, "frozen layers"),
        (
            TrainConfig { frozen_cache: cache, freeze: Freeze::Encoder, ..settings() },
            "word_dropout",
        ),
        (TrainConfig { max_bad_steps: 0, ..settings() }, "max_bad_steps"),
    ] {
        let trainer = Trainer::new(config);
        let error = trainer.fit(deep(&setup, 4), &setup.data, &Default::default()).unwrap_err();
        assert!(matches!(error, Error::Config(_)), "{error}");
        assert!(error.to_string().contains(word), "{error}");
    }
    // As they are written in files.
    for (text, freeze) in [
        ("\"nothing\"", Freeze::Nothing),
        ("\"words\"", Freeze::TokenEmbeddings),
        ("{\"layers\": 3}", Freeze::Layers(3)),
        ("\"encoder\"", Freeze::Encoder),
    ] {
        let text = format!("{{\"freeze\": {text}, \"precision\": \"bf16\"}}");
        let config: TrainConfig = serde_json::from_str(&text).unwrap();
        assert_eq!((config.freeze, config.precision), (freeze, Precision::Bf16));
    }
    assert!(serde_json::from_str::<TrainConfig>("{\"frozen_cache\": {\"mib\": 1}}").is_err());
}

#[test]
fn averaged_weights_are_validated_kept_and_resumed() {
    let _turn = turn();
    let setup = setup();
    let averaging = TrainConfig { ema: 0.3, ..settings() };
    let whole = fit(&setup, Trainer::new(averaging.clone())).unwrap();
    let plain = fit(&setup, Trainer::new(settings())).unwrap();
    // The steps are the same, what is looked at is not: an average over some steps trails them.
    assert_ne!(weights(&whole.model), weights(&plain.model));
    assert!(whole.history[0].loss > plain.history[0].loss, "{:?}", whole.history);
    let folder = tempfile::tempdir().unwrap();
    let stop = StopFlag::new();
    let (raise, seen) = (stop.clone(), AtomicUsize::new(0));
    let trainer = Trainer::new(averaging.clone()).with_folder(folder.path()).with_stop(&stop);
    fit(
        &setup,
        trainer.with_progress(move |event| {
            if matches!(event, TrainEvent::Step { .. })
                && seen.fetch_add(1, Ordering::Relaxed) + 1 == 20
            {
                raise.raise();
            }
        }),
    )
    .unwrap();
    let resume = Trainer::new(averaging).with_folder(folder.path()).with_resume(true);
    let resumed = fit(&setup, resume).unwrap();
    assert_eq!(resumed.history.last(), whole.history.last());
    assert_eq!(weights(&resumed.model), weights(&whole.model));
    for share in [-0.1, 1.5, f64::NAN] {
        let config = TrainConfig { ema: share, ..settings() };
        let error = fit(&setup, Trainer::new(config)).unwrap_err().to_string();
        assert!(error.contains("averaging"), "{error}");
    }
}
