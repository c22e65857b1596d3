//! Checkpoints: written atomically, in full precision, with a file that says what there is.

use std::path::{Path, PathBuf};

use burn::{
    record::{FileRecorder, FullPrecisionSettings, NamedMpkFileRecorder, Recorder, RecorderError},
    tensor::backend::Backend,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{RoundSummary, guard::LossScale};
use crate::{
    error::{Error, Result},
    storage::write_bytes,
};

/// Folder of the checkpoints inside a training's folder: burn-train's name for it.
const FOLDER: &str = "checkpoint";
/// File that says what there is.
const STATE: &str = "training.json";
/// Version of that file.
const FORMAT: u32 = 2;

/// burn's full-precision recorder, writing to a temporary file that is renamed when it is whole.
///
/// burn's default for checkpoints in its examples halves the precision (Adam's second moments
/// become zero) and a crash leaves half a file.
#[derive(Debug, Clone, Default)]
pub struct AtomicRecorder {
    inner: NamedMpkFileRecorder<FullPrecisionSettings>,
}

impl<B: Backend> Recorder<B> for AtomicRecorder {
    type Settings = FullPrecisionSettings;
    type RecordArgs = PathBuf;
    type RecordOutput = ();
    type LoadArgs = PathBuf;

    fn save_item<I: Serialize>(
        &self,
        item: I,
        path: PathBuf,
    ) -> std::result::Result<(), RecorderError> {
        let part = path.with_file_name(format!(
            "{}-part",
            path.file_name().and_then(|name| name.to_str()).unwrap_or("checkpoint")
        ));
        let written = part.with_extension("mpk");
        let result = Recorder::<B>::save_item(&self.inner, item, part).and_then(|()| {
            std::fs::File::open(&written)
                .and_then(|file| file.sync_all())
                .and_then(|()| std::fs::rename(&written, path.with_extension("mpk")))
                .map_err(|e| RecorderError::Unknown(e.to_string()))
        });
        if result.is_err() {
            // The first error is the one to report; a leftover is never read.
            let _ = std::fs::remove_file(&written);
        }
        result
    }

    fn load_item<I: DeserializeOwned>(
        &self,
        path: &mut PathBuf,
    ) -> std::result::Result<I, RecorderError> {
        Recorder::<B>::load_item(&self.inner, path)
    }
}

impl<B: Backend> FileRecorder<B> for AtomicRecorder {
    fn file_extension() -> &'static str {
        "mpk"
    }
}

/// A checkpoint that was asked for; its files exist once they are whole.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SavedRound {
    pub(super) round: usize,
    pub(super) step: usize,
    /// The scale of the loss; absent where it is not scaled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) scale: Option<LossScale>,
}

/// Contents of `training.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TrainState {
    pub(super) format: u32,
    /// What must be equal for a resumed training to be the same training.
    pub(super) run: serde_json::Value,
    pub(super) checkpoints: Vec<SavedRound>,
    pub(super) history: Vec<RoundSummary>,
    pub(super) best_round: Option<usize>,
}

impl TrainState {
    pub(super) fn new(run: serde_json::Value) -> Self {
        Self { format: FORMAT, run, checkpoints: Vec::new(), history: Vec::new(), best_round: None }
    }

    /// Whether a folder holds a training.
    pub(super) fn exists(folder: &Path) -> bool {
        folder.join(STATE).exists()
    }

    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        let json = serde_json::to_vec_pretty(self).map_err(|e| {
            let source = std::io::Error::other(e);
            Error::io("write", folder.join(STATE), source)
        })?;
        write_bytes(folder.join(STATE), &json)
    }

    pub(super) fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(STATE);
        let bytes = std::fs::read(&path).map_err(|e| Error::io("read", &path, e))?;
        let state: Self = serde_json::from_slice(&bytes).map_err(|e| {
            Error::checkpoint(
                path.display().to_string(),
                "the state of a training",
                e.to_string(),
                "start a new training in another folder",
            )
        })?;
        if state.format != FORMAT {
            return Err(Error::checkpoint(
                path.display().to_string(),
                format!("format {FORMAT}"),
                state.format.to_string(),
                "resume it with the version of the library that wrote it",
            ));
        }
        Ok(state)
    }

    /// The newest checkpoint whose files are whole, and the history up to it.
    pub(super) fn newest(&self, folder: &Path) -> Option<(SavedRound, Vec<RoundSummary>)> {
        let saved = self.checkpoints.iter().rev().find(|saved| {
            ["model", "optim", "scheduler"]
                .iter()
                .all(|part| file(folder, part, saved.round).with_extension("mpk").exists())
        })?;
        let history =
            self.history.iter().filter(|summary| summary.round <= saved.round).copied().collect();
        Some((*saved, history))
    }
}

/// A part of a checkpoint, without extension.
pub(super) fn file(folder: &Path, part: &str, round: usize) -> PathBuf {
    folder.join(FOLDER).join(format!("{part}-{round}"))
}
