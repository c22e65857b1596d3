//! A step is the same step however its rows are shared out: to micro-batches, to devices.

use std::sync::atomic::{AtomicUsize, Ordering};

use burn::backend::Flex;
use burn_store::ModuleSnapshot;
use cart_retrieval::{
    cancel::StopFlag,
    expert::Placement,
    model::{Cart, LossConfig},
    prelude::*,
    train::{StopReason, TrainEvent, Trained},
};

use super::{A, Setup, settings, setup, turn};

/// Without anything random, so that only rounding differs.
fn plain(r_drop: f64) -> TrainConfig {
    TrainConfig {
        epochs: 1,
        // 240 pairs: seven batches and a half.
        batch_size: 32,
        learning_rate: 1e-3,
        word_dropout: 0.0,
        validations: 2,
        loss: LossConfig { r_drop, ..LossConfig::default() },
        ..settings()
    }
}

fn model(setup: &Setup, dropout: f64) -> Cart<A> {
    setup.config.clone().with_dropout(dropout).init(&Default::default()).unwrap()
}

/// Trains on as many devices as asked for; `flex` has one, which is then listed several times.
fn fit_on(setup: &Setup, trainer: &Trainer, dropout: f64, devices: usize) -> Trained<Flex> {
    let devices = vec![Default::default(); devices];
    trainer.fit_devices(model(setup, dropout), &setup.data, &devices).unwrap()
}

/// Compares validation losses and weights, but for biases of keys: the softmax does not depend on
/// them, so their gradient is rounding alone, which Adam makes as large as any other.
fn assert_close(a: &Trained<Flex>, b: &Trained<Flex>) {
    assert_eq!(a.history.len(), b.history.len());
    for (a, b) in a.history.iter().zip(&b.history) {
        assert_eq!(a.step, b.step);
        let (a, b) = (a.loss.unwrap(), b.loss.unwrap());
        assert!((a - b).abs() < 1e-5, "{a} {b}");
    }
    let tensors = |trained: &Trained<Flex>| trained.model.collect(None, None, true);
    let mut compared = 0;
    for (a, b) in tensors(a).iter().zip(&tensors(b)) {
        assert_eq!(a.full_path(), b.full_path());
        if a.full_path().ends_with("key.bias") {
            continue;
        }
        let (left, right) = (a.to_data().unwrap(), b.to_data().unwrap());
        for (x, y) in left.iter::<f32>().zip(right.iter::<f32>()) {
            assert!((x - y).abs() < 5e-5, "{}: {x} {y}", a.full_path());
            compared += 1;
        }
    }
    assert!(compared > 10_000);
}

#[test]
fn micro_batches_do_what_the_whole_batch_does() {
    let _turn = turn();
    let setup = setup();
    for r_drop in [0.0, 1.0] {
        let run = |micro_batch| {
            let config = TrainConfig { micro_batch, ..plain(r_drop) };
            fit_on(&setup, &Trainer::new(config), 0.0, 1)
        };
        let whole = run(0);
        // In equal parts, with a shorter last part, and larger than the batch.
        for micro_batch in [8, 12, 100] {
            assert_close(&run(micro_batch), &whole);
        }
    }
}

#[test]
fn several_devices_do_what_one_does() {
    let _turn = turn();
    let setup = setup();
    for r_drop in [0.0, 1.0] {
        let trainer = Trainer::new(plain(r_drop));
        let one = fit_on(&setup, &trainer, 0.0, 1);
        for placement in [Placement::Main, Placement::Sharded] {
            let trainer = Trainer::new(plain(r_drop)).with_placement(placement);
            assert_close(&fit_on(&setup, &trainer, 0.0, 2), &one);
        }
        assert_close(&fit_on(&setup, &trainer, 0.0, 3), &one);
        // Micro-batches on each of two devices.
        let trainer = Trainer::new(TrainConfig { micro_batch: 5, ..plain(r_drop) });
        assert_close(&fit_on(&setup, &trainer, 0.0, 2), &one);
    }
    // The last batch has fewer rows than there are devices.
    let few = TrainConfig { batch_size: 239, learning_rate: 1e-4, epochs: 2, ..plain(0.0) };
    let one = fit_on(&setup, &Trainer::new(few.clone()), 0.0, 1);
    assert_close(&fit_on(&setup, &Trainer::new(few), 0.0, 3), &one);
}

#[test]
fn events_and_resumption_on_several_devices_are_those_of_one() {
    let _turn = turn();
    let setup = setup();
    let whole = fit_on(&setup, &Trainer::new(settings()), 0.1, 3);
    for stop_at in [5, 12] {
        let folder = tempfile::tempdir().unwrap();
        let stop = StopFlag::new();
        let (raise, seen) = (stop.clone(), AtomicUsize::new(0));
        let trainer = Trainer::new(settings())
            .with_folder(folder.path())
            .with_stop(&stop)
            .with_progress(move |event| {
                if let TrainEvent::Step { step, steps, loss } = event {
                    let before = seen.fetch_add(1, Ordering::Relaxed);
                    assert_eq!((step, steps), (before + 1, 30));
                    assert!(loss.is_finite() && loss > 0.0);
                    if before + 1 == stop_at {
                        raise.raise();
                    }
                }
            });
        assert_eq!(fit_on(&setup, &trainer, 0.1, 3).reason, StopReason::Interrupted);
        let trainer = Trainer::new(settings()).with_folder(folder.path()).with_resume(true);
        let resumed = fit_on(&setup, &trainer, 0.1, 3);
        assert_eq!(resumed.history.last().unwrap().loss, whole.history.last().unwrap().loss);
        assert_eq!(super::weights(&resumed.model), super::weights(&whole.model));
        // One device is another training.
        let error = trainer
            .fit(model(&setup, 0.1), &setup.data, &Default::default())
            .unwrap_err()
            .to_string();
        assert!(error.contains("devices: expected 3"), "{error}");
    }
}

#[test]
fn no_devices_and_more_devices_than_rows_are_refused() {
    let setup = setup();
    let refused = |config: TrainConfig, devices| {
        let devices = vec![Default::default(); devices];
        let error = Trainer::new(config)
            .fit_devices(model(&setup, 0.0), &setup.data, &devices)
            .unwrap_err();
        assert!(matches!(error, Error::Config(_)), "{error}");
        error.to_string()
    };
    assert!(refused(plain(0.0), 0).contains("at least one device"));
    let few = TrainConfig { batch_size: 2, ..plain(0.0) };
    assert!(refused(few, 3).contains("at most 2, the rows of a batch"));
}
