//! Checkpoints as files: written atomically, in full precision, with their SHA-256.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use burn::{
    record::{FileRecorder, FullPrecisionSettings, NamedMpkFileRecorder, Recorder, RecorderError},
    tensor::backend::Backend,
};
use serde::{Serialize, de::DeserializeOwned};

use super::ledger::Ledger;
use crate::{
    error::{Error, Result},
    storage::{Sha256Writer, hex, sha256_file, write_atomic},
};

/// Folder of the checkpoints inside a training's folder: burn-train's name for it.
pub(super) const FOLDER: &str = "checkpoint";
/// The files of a checkpoint, by burn-train's names.
pub(super) const PARTS: [&str; 3] = ["model", "optim", "scheduler"];
/// Their extension.
pub(super) const EXTENSION: &str = "mpk";

/// burn's full-precision recorder, writing to a temporary file that is renamed when it is whole.
///
/// burn's default for checkpoints in its examples halves the precision (Adam's second moments
/// become zero) and a crash leaves half a file.
#[derive(Debug, Clone, Default)]
pub struct AtomicRecorder {
    inner: NamedMpkFileRecorder<FullPrecisionSettings>,
    /// Where a training enters what it wrote.
    ledger: Option<Arc<Ledger>>,
}

impl AtomicRecorder {
    /// A recorder that enters every file in the ledger of a training.
    pub(super) fn entering(ledger: Arc<Ledger>) -> Self {
        Self { ledger: Some(ledger), ..Self::default() }
    }
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
        let path = path.with_extension(EXTENSION);
        let written = write_item(&path, &item);
        let result = match &self.ledger {
            Some(ledger) => ledger.enter(&path, written),
            None => written.map(|_| ()),
        };
        result.map_err(|error| RecorderError::Unknown(error.to_string()))
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
        EXTENSION
    }
}

/// Writes an item as burn's recorder does (MessagePack with names); gives the file's SHA-256.
fn write_item(path: &Path, item: &impl Serialize) -> Result<String> {
    let mut sum = String::new();
    write_atomic(path, |file| {
        let mut writer = Sha256Writer::new(file);
        rmp_serde::encode::write_named(&mut writer, item)
            .map_err(|error| Error::io("write", path, io_error(error)))?;
        sum = hex(&writer.finish().1);
        Ok(())
    })?;
    Ok(sum)
}

fn io_error(error: rmp_serde::encode::Error) -> io::Error {
    match error {
        rmp_serde::encode::Error::InvalidValueWrite(error) => error.into(),
        other => io::Error::other(other),
    }
}

/// A part of a checkpoint, without extension.
pub(super) fn file(folder: &Path, part: &str, round: usize) -> PathBuf {
    folder.join(FOLDER).join(format!("{part}-{round}"))
}

/// Part and round of a checkpoint's file by its name; `None` for other files.
pub(super) fn part_of(name: &str) -> Option<(&'static str, usize)> {
    let (part, round) = name.strip_suffix(EXTENSION)?.strip_suffix('.')?.split_once('-')?;
    let part = PARTS.into_iter().find(|known| *known == part)?;
    // A round has one spelling.
    round.parse().ok().filter(|number: &usize| number.to_string() == round).map(|r| (part, r))
}

/// What is wrong with a file of a checkpoint.
#[derive(Debug)]
pub(super) enum Fault {
    Missing(String),
    Damaged(String),
}

impl Fault {
    /// What to tell of it.
    pub(super) fn reason(self) -> String {
        match self {
            Self::Missing(reason) | Self::Damaged(reason) => reason,
        }
    }
}

/// Checks that a part of a checkpoint is there and has the SHA-256 that was taken when it was
/// written; in a training of an older version, which took none, that it is there.
pub(super) fn check(
    folder: &Path,
    part: &str,
    round: usize,
    sums: &BTreeMap<String, String>,
) -> std::result::Result<(), Fault> {
    let path = file(folder, part, round).with_extension(EXTENSION);
    let name = || path.file_name().unwrap_or_default().display().to_string();
    if !path.exists() {
        return Err(Fault::Missing(format!("{} is missing", name())));
    }
    let Some(sum) = sums.get(part) else {
        return Ok(());
    };
    match sha256_file(&path) {
        Ok(found) if hex(&found) == *sum => Ok(()),
        Ok(_) => {
            Err(Fault::Damaged(format!("{} is not what was written: its SHA-256 differs", name())))
        }
        Err(error) => Err(Fault::Damaged(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_checkpoints_are_told_from_others() {
        assert_eq!(part_of("model-12.mpk"), Some(("model", 12)));
        assert_eq!(part_of("scheduler-0.mpk"), Some(("scheduler", 0)));
        for other in ["model-12", "model-+2.mpk", "model-02.mpk", "models-2.mpk", "model-2.mpk.bak"]
        {
            assert_eq!(part_of(other), None, "{other}");
        }
    }

    #[test]
    fn a_part_that_is_missing_or_changed_is_told() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(FOLDER)).unwrap();
        let path = file(folder.path(), "model", 3).with_extension(EXTENSION);
        let sum = write_item(&path, &[1.5f32, 2.5]).unwrap();
        let sums = BTreeMap::from([("model".to_string(), sum)]);
        check(folder.path(), "model", 3, &sums).unwrap();
        let missing = check(folder.path(), "model", 4, &sums).unwrap_err();
        assert!(matches!(missing, Fault::Missing(_)));
        let good = std::fs::read(&path).unwrap();
        for bit in 0..8 * good.len() {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, bytes).unwrap();
            let fault = check(folder.path(), "model", 3, &sums).unwrap_err();
            assert!(matches!(fault, Fault::Damaged(_)), "bit {bit}");
            // A training of an older version has no checksums.
            check(folder.path(), "model", 3, &BTreeMap::new()).unwrap();
        }
    }
}
