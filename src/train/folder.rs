//! The folder of a training: what may be in it, and that one process at a time works with it.

use std::path::{Path, PathBuf};

use super::{
    checkpoint::{FOLDER, PARTS, part_of},
    state::{STATE, TrainState},
};
use crate::{
    error::{Error, Result},
    storage::{FileLock, fs, sync_folder},
};

/// Name of the file that is locked. It stays, empty.
const LOCK: &str = ".lock";

/// Whether a training can keep its checkpoints in a folder:
/// [`Trainer::check_folder`](super::Trainer::check_folder).
pub(super) fn check_folder(folder: &Path, resume: bool) -> Result<()> {
    let remedy = "choose another folder; nothing was changed";
    Error::checkpoint(folder.display().to_string())
        .expected("a folder for checkpoints, or nothing")
        .found("a file")
        .fix_if(folder.exists() && !folder.is_dir(), remedy)?;
    if TrainState::exists(folder) {
        if resume {
            return TrainState::read(folder).map(|_| ());
        }
        return Err(Error::checkpoint(folder.display().to_string())
            .expected("no training in it yet")
            .found("one")
            .fix("resume it, or choose another folder"));
    }
    let checkpoints = entries(&folder.join(FOLDER))?;
    let mut inside = checkpoints.iter().filter(|name| !is_temporary(name));
    let names = entries(folder)?;
    let mut others = names.iter().filter(|name| !is_temporary(name));
    // A training that was killed at its start leaves no more than these.
    match others.find(|name| ![LOCK, FOLDER].contains(&name.as_str())).or(inside.next()) {
        None => Ok(()),
        Some(name) => Err(Error::checkpoint(folder.display().to_string())
            .expected("an empty folder or one with a training")
            .found(format!("{name:?} in it"))
            .fix("choose another folder; nothing was changed")),
    }
}

/// A training's folder, which no other training can use while this exists.
#[derive(Debug)]
pub(super) struct RunFolder {
    path: PathBuf,
    /// Absent where the file system has no locks.
    _lock: Option<FileLock>,
}

impl RunFolder {
    /// Makes the folder, or opens it, and locks it.
    pub(super) fn open(path: &Path, resume: bool) -> Result<Self> {
        check_folder(path, resume)?;
        let checkpoints = path.join(FOLDER);
        for folder in [path, &checkpoints] {
            if !folder.is_dir() {
                fs::create_dir_all(folder).map_err(|e| Error::io("create", folder, e))?;
                let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty());
                // Whether its name is durable yet matters at a power cut only.
                let _ = sync_folder(parent.unwrap_or(Path::new(".")));
            }
        }
        let lock = path.join(LOCK);
        let _lock = match FileLock::acquire(&lock) {
            Ok(Some(held)) => Some(held),
            Ok(None) => {
                return Err(Error::checkpoint(path.display().to_string())
                    .expected("a training that no other process runs")
                    .found("one that is running")
                    .fix("wait until it ends, stop it, or choose another folder"));
            }
            Err(error) if error.kind() == std::io::ErrorKind::Unsupported => None,
            Err(error) => return Err(Error::io("lock", lock, error)),
        };
        // Another process may have been here between the check and the lock.
        check_folder(path, resume)?;
        Ok(Self { path: path.to_path_buf(), _lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes what a killed process left half written, and files of checkpoints that the state
    /// does not name.
    pub(super) fn clean(&self, state: &TrainState) {
        let named = |round| state.checkpoints.iter().any(|saved| saved.round == round);
        for folder in [self.path.clone(), self.path.join(FOLDER)] {
            for name in entries(&folder).unwrap_or_default() {
                let unnamed = part_of(&name).is_some_and(|(_, round)| !named(round));
                if is_temporary(&name) || unnamed && folder != self.path {
                    // What stays is never read.
                    let _ = fs::remove_file(&folder.join(name));
                }
            }
        }
    }
}

/// Names of the entries of a folder; empty if it does not exist.
fn entries(folder: &Path) -> Result<Vec<String>> {
    let refused = |error| Error::io("read", folder, error);
    match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(refused(error)),
        Ok(entries) => entries
            .map(|entry| Ok(entry.map_err(refused)?.file_name().to_string_lossy().into_owned()))
            .collect(),
    }
}

/// Whether a name is that of a file which was being written: of the state or of a checkpoint.
fn is_temporary(name: &str) -> bool {
    let of_state = |rest: &str| rest.starts_with(STATE);
    let of_part = |rest: &str| PARTS.iter().any(|part| rest.starts_with(&format!("{part}-")));
    match name.strip_prefix('.').and_then(|rest| rest.strip_suffix(".tmp")) {
        Some(rest) => of_state(rest) || of_part(rest),
        // As versions before this one named them.
        None => name.strip_suffix("-part.mpk").is_some_and(of_part),
    }
}
