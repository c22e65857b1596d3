//! A lock on a file, which ends with the process that holds it.

use std::{
    fs::{File, TryLockError},
    io,
    path::Path,
};

use super::fs;

/// A lock that is held until it is dropped or the process ends.
#[derive(Debug)]
pub(crate) struct FileLock {
    _file: File,
}

impl FileLock {
    /// Locks a file, which is created where it is missing and stays, empty; `None` where another
    /// process or another part of this one holds it.
    pub(crate) fn acquire(path: &Path) -> io::Result<Option<Self>> {
        let file = fs::open_or_create(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}
