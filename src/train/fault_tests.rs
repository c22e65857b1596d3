//! A training whose writes fail.

#[allow(dead_code)] // The integration tests use more of it.
#[path = "../../tests/all/training/case.rs"]
mod case;
#[allow(dead_code)]
#[path = "../../tests/all/training/setup.rs"]
mod setup;

use std::process::Command;

use case::{Case, end, quick};

use crate::{
    storage::faults::{Fault, inject},
    train::TrainConfig,
};

/// Says that a process is that of [`alone`].
const ALONE: &str = "CART_TEST_ALONE";

/// However a write fails, the training is resumed and ends as it would have.
///
/// In a process of its own, as the backend's generator is shared by all threads.
#[test]
fn any_failed_write_leaves_a_training_that_can_be_resumed() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "train::fault_tests::alone"])
        .env(ALONE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
fn alone() {
    if std::env::var_os(ALONE).is_none() {
        return;
    }
    let config = TrainConfig { epochs: 3, batch_size: 48, validations: 3, ..quick() };
    let whole = end(&Case::new(config.clone(), 0).resume().unwrap());
    for fault in [Fault::Once, Fault::Full, Fault::Killed] {
        for at in 0.. {
            let case = Case::new(config.clone(), 0);
            let injected = inject(case.folder.path(), at, fault);
            let trained = case.resume();
            let happened = injected.happened();
            drop(injected);
            match trained {
                Ok(trained) => assert_eq!(end(&trained), whole, "{fault:?} {at}"),
                Err(error) => assert!(happened, "{error}"),
            }
            assert_eq!(end(&case.resume().unwrap()), whole, "{fault:?} {at}");
            let mut names = case.names();
            names.retain(|name| name != "train");
            // Two checkpoints and their folder, `training.json` and its copy, and the lock.
            assert_eq!(names.len(), 6 + 1 + 2 + 1, "{fault:?} {at}: {names:?}");
            if !happened {
                assert!(at > 40, "{at}");
                break;
            }
        }
    }
}
