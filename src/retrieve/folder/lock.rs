//! One at a time may change an index.

use std::path::Path;

use crate::{
    error::{Error, Result},
    storage::FileLock,
};

/// The right to change an index folder, until it is dropped or the process ends.
#[derive(Debug)]
pub(in crate::retrieve) struct FolderLock {
    _lock: FileLock,
}

impl FolderLock {
    /// Name of the file that is locked. It stays, empty.
    pub(super) const NAME: &'static str = ".lock";

    /// Acquires the write lock, or fails if it is held.
    ///
    /// # Errors
    /// [`Error::Index`] when another process or another part of this one holds it, [`Error::Io`]
    /// when the folder cannot be written to.
    pub(in crate::retrieve) fn acquire(folder: &Path) -> Result<Self> {
        let path = folder.join(Self::NAME);
        match FileLock::acquire(&path).map_err(|e| Error::io("lock", &path, e))? {
            Some(lock) => Ok(Self { _lock: lock }),
            None => Err(Error::index(folder.display().to_string())
                .expected("an index without another writer")
                .found("one that is open for changes")
                .fix(
                    "close the other LiveRetriever or program, or make the change there; to search \
                 only, load the index or open it read-only",
                )),
        }
    }
}
