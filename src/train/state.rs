//! `training.json`: what a training's folder holds.
//!
//! The file has a checksum and a copy in the folder of the checkpoints: where one is damaged, the
//! other is read. It names a checkpoint once all files of it are on the disk.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{IntervalSummary, checkpoint::FOLDER, guard::LossScale};
use crate::{
    error::{Error, Result},
    storage::{
        signed::{UNSIGNED, signed_json, verified_checksum},
        write_bytes,
    },
};

/// Name of the file and of its copy.
pub(super) const STATE: &str = "training.json";
/// Version of the file.
const FORMAT: u32 = 3;
/// The oldest version that is read; it has no checksums.
const OLDEST: u32 = 2;

/// A checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SavedRound {
    pub(super) round: usize,
    pub(super) step: usize,
    /// The scale of the loss; absent where it is not scaled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) scale: Option<LossScale>,
    /// SHA-256 of its files, by part; empty in a training of an older version.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) sha256: BTreeMap<String, String>,
}

/// Contents of `training.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TrainState {
    pub(super) format: u32,
    /// SHA-256 of the file with zeros in this place.
    #[serde(default)]
    checksum: String,
    /// What must be equal for a resumed training to be the same training.
    pub(super) run: serde_json::Value,
    pub(super) checkpoints: Vec<SavedRound>,
    pub(super) history: Vec<IntervalSummary>,
    pub(super) best_round: Option<usize>,
}

impl TrainState {
    pub(super) fn new(run: serde_json::Value) -> Self {
        Self {
            format: FORMAT,
            checksum: String::new(),
            run,
            checkpoints: Vec::new(),
            history: Vec::new(),
            best_round: None,
        }
    }

    /// Whether a folder holds a training.
    pub(super) fn exists(folder: &Path) -> bool {
        Self::files(folder).iter().any(|path| path.exists())
    }

    /// The file and its copy.
    fn files(folder: &Path) -> [PathBuf; 2] {
        [folder.join(STATE), folder.join(FOLDER).join(STATE)]
    }

    /// Writes the file, then its copy; the folder of the checkpoints has to exist.
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        let [path, copy] = Self::files(folder);
        let unsigned = Self { format: FORMAT, checksum: UNSIGNED.into(), ..self.clone() };
        let (bytes, _) = signed_json(&unsigned)
            .map_err(|error| Error::io("write", &path, io::Error::other(error)))?;
        write_bytes(path, &bytes)?;
        write_bytes(copy, &bytes)
    }

    /// Reads the file, or its copy where the file is missing or damaged: then the second value says
    /// what is wrong with the file.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Checkpoint`] of the file where neither can be used.
    pub(super) fn read(folder: &Path) -> Result<(Self, Option<Error>)> {
        let [path, copy] = Self::files(folder);
        match Self::read_file(&path) {
            Ok(state) => Ok((state, None)),
            Err(error) => match Self::read_file(&copy) {
                Ok(state) => Ok((state, Some(error))),
                Err(_) => Err(error),
            },
        }
    }

    fn read_file(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|e| Error::io("read", path, e))?;
        let damaged = |found: String| {
            Error::checkpoint(path.display().to_string())
                .expected("the complete state of a training")
                .found(found)
                .fix("restore the file, or train in another folder")
        };
        let state: Self =
            serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        let remedy = "resume it with the version of the library that wrote it";
        Error::checkpoint(path.display().to_string())
            .expected(format!("format {OLDEST} to {FORMAT}"))
            .found(state.format.to_string())
            .fix_if(!(OLDEST..=FORMAT).contains(&state.format), remedy)?;
        let whole = match state.format {
            OLDEST => state.checksum.is_empty(),
            _ => verified_checksum(bytes).is_some(),
        };
        if whole { Ok(state) } else { Err(damaged("content without its checksum".into())) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn written() -> (tempfile::TempDir, TrainState) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(FOLDER)).unwrap();
        let mut state = TrainState::new(json!({"config": {"learning_rate": 0.001}, "pairs": 7}));
        state.checkpoints.push(SavedRound {
            round: 2,
            step: 40,
            scale: None,
            sha256: BTreeMap::from([("model".into(), "ab".into())]),
        });
        state.write(folder.path()).unwrap();
        (folder, state)
    }

    fn same(found: &TrainState, expected: &TrainState) -> bool {
        (&found.run, &found.checkpoints) == (&expected.run, &expected.checkpoints)
    }

    #[test]
    fn every_bit_counts_and_the_copy_steps_in() {
        let (folder, state) = written();
        let (found, fault) = TrainState::read(folder.path()).unwrap();
        assert!(same(&found, &state) && fault.is_none());
        let [path, copy] = TrainState::files(folder.path());
        let good = std::fs::read(&path).unwrap();
        let damaged = (0..8 * good.len()).step_by(3).map(|bit| {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        });
        let cut = (0..good.len()).step_by(11).map(|length| good[..length].to_vec());
        for bytes in damaged.chain(cut) {
            std::fs::write(&path, bytes).unwrap();
            let (found, fault) = TrainState::read(folder.path()).unwrap();
            assert!(same(&found, &state) && fault.is_some());
        }
        std::fs::remove_file(&path).unwrap();
        assert!(TrainState::exists(folder.path()));
        let (found, fault) = TrainState::read(folder.path()).unwrap();
        assert!(same(&found, &state) && matches!(fault, Some(Error::Io { .. })));
        std::fs::write(&path, &good[1..]).unwrap();
        std::fs::write(&copy, &good[1..]).unwrap();
        let error = TrainState::read(folder.path()).unwrap_err().to_string();
        assert!(error.contains("restore the file"), "{error}");
    }

    #[test]
    fn a_state_of_the_version_before_is_read_and_one_of_a_later_is_not() {
        let (folder, state) = written();
        let [path, copy] = TrainState::files(folder.path());
        std::fs::remove_file(copy).unwrap();
        let text = String::from_utf8(std::fs::read(&path).unwrap()).unwrap();
        let mut old: serde_json::Value = serde_json::from_str(&text).unwrap();
        old["format"] = json!(OLDEST);
        old.as_object_mut().unwrap().remove("checksum");
        old["checkpoints"][0].as_object_mut().unwrap().remove("sha256");
        std::fs::write(&path, old.to_string()).unwrap();
        let found = TrainState::read(folder.path()).unwrap().0;
        assert!(found.run == state.run && found.checkpoints[0].sha256.is_empty());
        old["format"] = json!(FORMAT + 1);
        std::fs::write(&path, old.to_string()).unwrap();
        let error = TrainState::read(folder.path()).unwrap_err().to_string();
        assert!(error.contains("version of the library"), "{error}");
    }
}
