//! Writing checkpoints: atomically, in full precision, with their SHA-256.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use burn::{
    record::{FileRecorder, FullPrecisionSettings, NamedMpkFileRecorder, Recorder, RecorderError},
    tensor::backend::Backend,
};
use serde::{Serialize, de::DeserializeOwned};

use super::{checkpoint::EXTENSION, ledger::Ledger};
use crate::{
    error::{Error, Result},
    storage::{Sha256Writer, hex, write_atomic},
};

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
pub(super) fn write_item(path: &Path, item: &impl Serialize) -> Result<String> {
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
