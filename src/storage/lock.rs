//! A lock on a file, which ends with the process that holds it.

use std::{
    fs::{File, TryLockError},
    io,
    path::Path,
    thread::sleep,
    time::Duration,
};

use super::fs;

/// How often a lock that is held is tried again, and after how long.
///
/// A program that another thread of the holder is about to start shares the lock for a moment after
/// the holder has dropped it.
const RETRIES: usize = 20;
const PAUSE: Duration = Duration::from_millis(10);

/// A lock that is held until it is dropped or the process ends.
#[derive(Debug)]
pub struct FileLock {
    _file: File,
}

impl FileLock {
    /// Locks a file, which is created where it is missing and stays, empty; `None` where another
    /// process or another part of this one holds it.
    pub fn acquire(path: &Path) -> io::Result<Option<Self>> {
        let file = fs::open_or_create(path)?;
        for attempt in 0..=RETRIES {
            match file.try_lock() {
                Ok(()) => return Ok(Some(Self { _file: file })),
                Err(TryLockError::WouldBlock) if attempt < RETRIES => sleep(PAUSE),
                Err(TryLockError::WouldBlock) => break,
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        Ok(None)
    }
}
