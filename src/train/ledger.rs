//! Which checkpoints of a training are on the disk.
//!
//! burn-train writes the three files of a checkpoint in three threads. The ledger waits for all of
//! them; then `training.json` names the checkpoint, and only then are older ones removed. So what
//! `training.json` names is there, whenever the process is killed.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use super::{
    IntervalSummary,
    checkpoint::{EXTENSION, PARTS, file, part_of},
    guard::LossScale,
    state::{SavedRound, TrainState},
};
use crate::{error::Result, storage::fs};

/// Checkpoints that are kept besides the best: the newest, and one to fall back to.
const KEPT: usize = 2;

/// A checkpoint that was asked for.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) step: usize,
    pub(super) scale: Option<LossScale>,
    pub(super) history: Vec<IntervalSummary>,
    pub(super) best_round: Option<usize>,
}

#[derive(Debug)]
struct Books {
    state: TrainState,
    /// Checkpoints whose files are being written, by round, with the checksums so far.
    open: BTreeMap<usize, (Asked, BTreeMap<String, String>)>,
}

/// Enters checkpoints into `training.json`.
#[derive(Debug)]
pub(super) struct Ledger {
    folder: PathBuf,
    books: Mutex<Books>,
    /// The first error, which burn-train has no place for.
    failure: Arc<Mutex<Result<()>>>,
}

impl Ledger {
    pub(super) fn new(folder: PathBuf, state: TrainState, failure: Arc<Mutex<Result<()>>>) -> Self {
        Self { folder, books: Mutex::new(Books { state, open: BTreeMap::new() }), failure }
    }

    /// Expects the files of a round.
    pub(super) fn expect(&self, round: usize, asked: Asked) {
        let mut books = self.books.lock().unwrap_or_else(|e| e.into_inner());
        books.open.insert(round, (asked, BTreeMap::new()));
    }

    /// Takes in that a file was written, with its SHA-256, or was not.
    pub(super) fn enter(&self, path: &Path, written: Result<String>) -> Result<()> {
        let result = written.and_then(|sum| self.add(path, sum));
        result.inspect_err(|error| {
            let copy = crate::error::Error::checkpoint("saving a checkpoint")
                .expected("disk space and permission to write it")
                .found(error.to_string())
                .fix("free some space, then resume: the previous checkpoint is intact");
            let mut failure = self.failure.lock().unwrap_or_else(|e| e.into_inner());
            if failure.is_ok() {
                *failure = Err(copy);
            }
        })
    }

    fn add(&self, path: &Path, sum: String) -> Result<()> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some((part, round)) = part_of(name) else {
            return Ok(());
        };
        let mut books = self.books.lock().unwrap_or_else(|e| e.into_inner());
        let Some((_, sums)) = books.open.get_mut(&round) else {
            return Ok(());
        };
        sums.insert(part.to_string(), sum);
        if sums.len() < PARTS.len() {
            return Ok(());
        }
        let Some((asked, sums)) = books.open.remove(&round) else {
            return Ok(());
        };
        let saved = SavedRound { round, step: asked.step, scale: asked.scale, sha256: sums };
        let state = &mut books.state;
        let mut next = state.clone();
        next.history = asked.history;
        next.best_round = asked.best_round;
        next.checkpoints.push(saved);
        let dropped = drop_old(&mut next);
        next.write(&self.folder)?;
        *state = next;
        drop(books);
        // A file that stays does no harm: the next start of the training removes it.
        dropped.into_iter().for_each(|round| remove(&self.folder, round));
        Ok(())
    }
}

/// Takes out of a state what is kept no longer: all but the newest two and the best.
fn drop_old(state: &mut TrainState) -> Vec<usize> {
    let newest = state.checkpoints.len().saturating_sub(KEPT);
    let best = state.best_round;
    let mut index = 0;
    let mut dropped = Vec::new();
    state.checkpoints.retain(|saved| {
        let keep = index >= newest || Some(saved.round) == best;
        index += 1;
        if !keep {
            dropped.push(saved.round);
        }
        keep
    });
    dropped
}

/// Removes the files of a round, as far as that is possible.
fn remove(folder: &Path, round: usize) {
    for part in PARTS {
        let _ = fs::remove_file(&file(folder, part, round).with_extension(EXTENSION));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::train::checkpoint::FOLDER;

    fn asked(best_round: Option<usize>) -> Asked {
        Asked { step: 10, scale: None, history: Vec::new(), best_round }
    }

    #[test]
    fn a_round_counts_once_all_its_files_are_there_and_old_ones_go_afterwards() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(FOLDER)).unwrap();
        let failure = Arc::new(Mutex::new(Ok(())));
        let state = TrainState::new(json!({}));
        state.write(folder.path()).unwrap();
        let ledger = Ledger::new(folder.path().to_path_buf(), state, failure.clone());
        let named = || -> Vec<usize> {
            let state = TrainState::read(folder.path()).unwrap().0;
            state.checkpoints.iter().map(|saved| saved.round).collect()
        };
        let put = |part: &str, round: usize| {
            let path = file(folder.path(), part, round).with_extension(EXTENSION);
            std::fs::write(&path, [round as u8]).unwrap();
            ledger.enter(&path, Ok(format!("{part}{round}"))).unwrap();
        };
        let mut before = Vec::new();
        for (round, expected) in [(1, vec![1]), (2, vec![1, 2]), (3, vec![1, 2, 3])] {
            ledger.expect(round, asked(Some(1)));
            put("optim", round);
            put("model", round);
            assert_eq!(named(), before);
            put("scheduler", round);
            assert_eq!(named(), expected);
            before = expected;
        }
        // A thread may be a round ahead of another one.
        ledger.expect(4, asked(Some(4)));
        put("model", 4);
        ledger.expect(5, asked(Some(4)));
        put("model", 5);
        put("optim", 4);
        put("scheduler", 4);
        assert_eq!(named(), [3, 4]);
        let left = |round| file(folder.path(), "model", round).with_extension(EXTENSION).exists();
        assert_eq!([1, 2, 3, 4, 5].map(left), [false, false, true, true, true]);
        assert!(failure.lock().unwrap().is_ok());
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let path = file(folder.path(), "optim", 5);
        assert!(ledger.enter(&path, Err(crate::error::Error::io("write", &path, full))).is_err());
        let error = failure.lock().unwrap().as_ref().unwrap_err().to_string();
        assert!(error.contains("free some space"), "{error}");
        assert_eq!(named(), [3, 4]);
    }
}
