//! One at a time may change an index.

use std::{
    fs::{File, OpenOptions, TryLockError},
    path::Path,
};

use crate::error::{Error, Result};

/// The right to change an index folder, until it is dropped or the process ends.
#[derive(Debug)]
pub(in crate::retrieve) struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Name of the file that is locked. It stays, empty.
    pub(super) const NAME: &'static str = ".lock";

    /// Takes the right, if nobody has it.
    ///
    /// # Errors
    /// [`Error::Index`] when another process or another part of this one has it, [`Error::Io`] when the folder
    /// cannot be written to.
    pub(in crate::retrieve) fn acquire(folder: &Path) -> Result<Self> {
        let path = folder.join(Self::NAME);
        let refused = |e| Error::io("lock", &path, e);
        let options = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = options.map_err(refused)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(Error::index(
                folder.display().to_string(),
                "an index that nobody else is changing",
                "one that is open for changes",
                "close the other LiveRetriever or program, or make the change there; only to search it, \
                 load it or open it read-only",
            )),
            Err(TryLockError::Error(e)) => Err(refused(e)),
        }
    }
}
