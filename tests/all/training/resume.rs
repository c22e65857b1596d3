//! Every state of a training can be resumed, and ends as if nothing had happened.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use cart_retrieval::{
    cancel::StopFlag,
    members::write_bytes,
    prelude::*,
    train::{StopReason, TrainEvent},
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{
    case::{Case, end, quick},
    turn, weights,
};

fn flip(path: &Path) -> Vec<u8> {
    let good = std::fs::read(path).unwrap();
    let mut bytes = good.clone();
    bytes[good.len() / 2] ^= 64;
    std::fs::write(path, bytes).unwrap();
    good
}

#[test]
fn a_finished_training_gives_its_network_again() {
    let _turn = turn();
    let patient = TrainConfig { patience: 1, learning_rate: 1e-9, ..quick() };
    let averaged = TrainConfig { ema: 0.5, ..quick() };
    for (config, queries, reason) in [
        (quick(), 8, StopReason::Finished),
        (quick(), 0, StopReason::Finished),
        (averaged, 0, StopReason::Finished),
        (patient, 8, StopReason::EarlyStop),
    ] {
        let case = Case::new(config, queries);
        let first = case.resume().unwrap();
        assert_eq!(first.reason, reason);
        assert!(reason == StopReason::Finished || first.history.len() < 4);
        for _ in 0..2 {
            let again = case.resume().unwrap();
            assert_eq!((end(&again), again.reason), (end(&first), reason));
            assert_eq!(again.history.len(), first.history.len());
        }
    }
}

#[test]
fn a_stop_in_any_phase_changes_nothing_in_the_end() {
    let _turn = turn();
    let case = Case::new(quick(), 8);
    let whole = end(&case.fit(case.trainer()).unwrap());
    assert_eq!(whole.1.len(), 4);
    // Before the first step, around every validation, and around the last step.
    for stop_at in 0..=8 {
        let case = Case::new(quick(), 8);
        let stop = StopFlag::new();
        let raise = stop.clone();
        if stop_at == 0 {
            stop.raise();
        }
        let trainer = Trainer::new(quick()).with_folder(case.path()).with_stop(&stop);
        let interrupted = case
            .fit(trainer.with_progress(move |event| {
                if matches!(event, TrainEvent::Step { step, .. } if step == stop_at) {
                    raise.raise();
                }
            }))
            .unwrap();
        if interrupted.reason == StopReason::Finished {
            assert_eq!(end(&interrupted), whole, "{stop_at}");
        }
        // A second stop before anything else is done.
        let stop = StopFlag::new();
        stop.raise();
        let trainer = case.trainer().with_folder(case.path()).with_resume(true).with_stop(&stop);
        case.fit(trainer).unwrap();
        assert_eq!(end(&case.resume().unwrap()), whole, "stopped near step {stop_at}");
        assert_eq!(end(&case.resume().unwrap()), whole);
    }
}

#[test]
fn a_damaged_checkpoint_is_skipped_and_the_one_before_taken() {
    let _turn = turn();
    let case = Case::new(quick(), 0);
    let whole = end(&case.resume().unwrap());
    for part in ["model", "optim", "scheduler"] {
        flip(&case.part(&format!("{part}-4.mpk")));
        assert_eq!(end(&case.resume().unwrap()), whole);
        assert_eq!(case.skipped(), [4], "{part}");
        assert_eq!(end(&case.resume().unwrap()), whole);
        assert!(case.skipped().is_empty(), "it was written once more");
    }
    // A file of another round, and one that is gone.
    std::fs::copy(case.part("model-3.mpk"), case.part("model-4.mpk")).unwrap();
    assert_eq!((end(&case.resume().unwrap()), case.skipped()), (whole.clone(), vec![4]));
    std::fs::remove_file(case.part("optim-4.mpk")).unwrap();
    assert_eq!((end(&case.resume().unwrap()), case.skipped()), (whole.clone(), vec![4]));
    // Both: the message is followed.
    for round in [3, 4] {
        flip(&case.part(&format!("model-{round}.mpk")));
    }
    let error = case.resume().unwrap_err().to_string();
    assert!(error.contains("model-3.mpk") && error.contains("delete them"), "{error}");
    for round in [3, 4] {
        std::fs::remove_file(case.part(&format!("model-{round}.mpk"))).unwrap();
    }
    assert_eq!(end(&case.resume().unwrap()), whole);
    // The state itself.
    flip(&case.path().join("training.json"));
    case.events.lock().unwrap().clear();
    assert_eq!(end(&case.resume().unwrap()), whole);
    let recovered = |event: &TrainEvent| matches!(event, TrainEvent::Recovered { .. });
    assert!(case.events.lock().unwrap().iter().any(recovered));
}

#[test]
fn a_damaged_best_network_is_not_replaced_without_a_word() {
    let _turn = turn();
    // The first round is the best: none that follows finds more.
    let config = TrainConfig { learning_rate: 1e-9, ..quick() };
    let case = Case::new(config, 8);
    let whole = case.resume().unwrap();
    assert_eq!(whole.best_interval, Some(1));
    let good = flip(&case.part("model-1.mpk"));
    let error = case.resume().unwrap_err().to_string();
    assert!(error.contains("model-1.mpk") && error.contains("best network"), "{error}");
    std::fs::write(case.part("model-1.mpk"), good).unwrap();
    assert_eq!(end(&case.resume().unwrap()), end(&whole));
    std::fs::remove_file(case.part("model-1.mpk")).unwrap();
    case.skipped();
    assert_eq!(case.resume().unwrap().best_interval, Some(3));
    assert_eq!(case.skipped(), [1]);
}

#[test]
fn what_a_killed_start_left_is_no_obstacle_and_other_things_are() {
    let _turn = turn();
    let case = Case::new(quick(), 0);
    std::fs::create_dir_all(case.path().join("checkpoint")).unwrap();
    for name in [".lock", ".training.json.77-0.tmp", ".training.json.0.tmp"] {
        std::fs::write(case.path().join(name), "").unwrap();
    }
    std::fs::write(case.part("model-1-part.mpk"), "half").unwrap();
    Trainer::check_folder(case.path(), false).unwrap();
    let other = std::fs::File::create(case.path().join(".lock")).unwrap();
    other.lock().unwrap();
    let error = case.resume().unwrap_err().to_string();
    assert!(error.contains("one that is running"), "{error}");
    drop(other);
    case.resume().unwrap();
    assert!(!case.names().iter().any(|name| name.ends_with("tmp") || name.contains("part")));
    let error = Trainer::check_folder(case.path(), false).unwrap_err().to_string();
    assert!(error.contains("resume it"), "{error}");

    let file = case.folder.path().join("file");
    std::fs::write(&file, "mine").unwrap();
    let error = case.fit(case.trainer().with_folder(&file)).unwrap_err().to_string();
    assert!(error.contains("found a file"), "{error}");
    let others = case.folder.path().join("others");
    std::fs::create_dir_all(others.join("checkpoint")).unwrap();
    std::fs::write(others.join("checkpoint/model-1.mpk"), "mine").unwrap();
    let error = case.fit(case.trainer().with_folder(&others)).unwrap_err().to_string();
    assert!(error.contains("model-1.mpk"), "{error}");
    assert_eq!(std::fs::read(others.join("checkpoint/model-1.mpk")).unwrap(), b"mine");
}

const FOLDER: &str = "CART_TEST_TRAINING_FOLDER";

/// What the killed process does: a training from wherever it is to its end.
#[test]
fn child() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let case = Case::new(quick(), 8);
    let trainer = case.trainer().with_folder(Path::new(&folder).join("run")).with_resume(true);
    let trained = case.fit(trainer).unwrap();
    let bytes: Vec<u8> = weights(&trained.model).iter().flat_map(|w| w.to_le_bytes()).collect();
    write_bytes(Path::new(&folder).join("weights"), &bytes).unwrap();
}

#[test]
fn killed_at_any_moment_a_training_ends_the_same() {
    let _turn = turn();
    let case = Case::new(quick(), 8);
    let whole = weights(&case.fit(case.trainer()).unwrap().model);
    let start = |folder: &Path| {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "training::resume::child"])
            .env(FOLDER, folder)
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    };
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..5 {
        let mut child = start(folder.path());
        // The set-up of the child takes a part of this.
        std::thread::sleep(Duration::from_millis(rng.random_range(50..500)));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(start(folder.path()).wait().unwrap().success());
    let bytes = std::fs::read(folder.path().join("weights")).unwrap();
    let found: Vec<f32> =
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    assert_eq!(found, whole);
}
