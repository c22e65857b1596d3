//! From the state of an extraction to the files of a data folder.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use cart_retrieval::{
    Error, Result,
    members::{
        fs::{self, sync_folder},
        hex, sha256_file, shard_names, write_bytes,
    },
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    json::{read_state, to_json, write_state},
    report::{Extracted, Failure},
    state::{Run, STATE, State},
};

/// The file that says that an extraction is finished.
const RECORD: &str = "extraction.json";
/// The file of the state that says which files are about to be written.
const PLAN: &str = "publish.json";

/// A file of the data folder, to be written.
pub(super) struct File {
    name: String,
    content: Content,
}

enum Content {
    Bytes(Vec<u8>),
    /// A file of the state, which gets a second name.
    Linked(PathBuf),
}

impl File {
    pub(super) fn bytes(name: &str, bytes: Vec<u8>) -> Self {
        Self { name: name.into(), content: Content::Bytes(bytes) }
    }

    pub(super) fn linked(name: String, path: PathBuf) -> Self {
        Self { name, content: Content::Linked(path) }
    }

    fn written(&self) -> Result<Written> {
        let digest = match &self.content {
            Content::Bytes(bytes) => Sha256::digest(bytes).into(),
            Content::Linked(path) => sha256_file(path)?,
        };
        Ok(Written { name: self.name.clone(), sha256: hex(&digest) })
    }

    fn write(&self, to: &Path) -> Result<()> {
        match &self.content {
            Content::Bytes(bytes) => write_bytes(to, bytes),
            Content::Linked(path) => {
                if !to.exists() && fs::hard_link(path, to).is_ok() {
                    return Ok(());
                }
                // Another file system, or one without links.
                let bytes = std::fs::read(path).map_err(|e| Error::io("read", path, e))?;
                write_bytes(to, &bytes)
            }
        }
    }
}

/// A file that an extraction wrote, or is about to write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    name: String,
    sha256: String,
}

/// What a finished extraction made.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    pub(super) run: Run,
    pub(super) items: usize,
    pub(super) failed: Vec<Failure>,
    pub(super) files: Vec<Written>,
}

impl Record {
    /// The record of a folder, where there is one.
    pub(super) fn read(out: &Path) -> Result<Option<Self>> {
        let path = out.join(RECORD);
        if path.is_file() { read_state(&path).map(Some) } else { Ok(None) }
    }

    /// Whether the features and ids are there.
    pub(super) fn is_complete(&self, out: &Path) -> bool {
        let needed = |name: &str| name == "ids.txt" || name.starts_with("features");
        let mut needed = self.files.iter().filter(|file| needed(&file.name)).peekable();
        needed.peek().is_some() && needed.all(|file| out.join(&file.name).is_file())
    }
}

/// Files that an unfinished extraction into a folder has written, or was about to.
fn planned(out: &Path, record: Option<&Record>) -> Result<Vec<Written>> {
    let path = out.join(STATE).join(PLAN);
    let mut known: Vec<Written> = if path.is_file() { read_state(&path)? } else { Vec::new() };
    known.extend(record.into_iter().flat_map(|record| record.files.iter().cloned()));
    Ok(known)
}

/// Whether a file is one of those that were written.
fn is_known(path: &Path, name: &str, known: &[Written]) -> Result<bool> {
    let mut of_name = known.iter().filter(|file| file.name == name).peekable();
    if of_name.peek().is_none() {
        return Ok(false);
    }
    let sha256 = hex(&sha256_file(path)?);
    Ok(of_name.any(|file| file.sha256 == sha256))
}

/// Refuses a folder with files that are to be written and were not written by this extraction.
pub(super) fn check_free(out: &Path, names: &[&str], record: Option<&Record>) -> Result<()> {
    if !out.is_dir() {
        return Ok(());
    }
    let known = planned(out, record)?;
    let mut there: BTreeSet<PathBuf> = ["npy", "npz", "safetensors"]
        .iter()
        .map(|extension| out.join("features").with_extension(extension))
        .filter(|path| path.exists())
        .collect();
    // Features that do not go together are in the way like others.
    let shards = shard_names::find(out, &shard_names::FEATURES);
    match shards {
        Ok(shards) => there.extend(shards.into_iter().flatten()),
        Err(error) if known.is_empty() => return Err(error),
        Err(_) => {}
    }
    for path in &there {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if !known.iter().any(|file| file.name == name) {
            return Err(Error::output(out.display().to_string())
                .expected("a folder without features")
                .found(path.display().to_string())
                .fix("write to another folder, or remove the existing features"));
        }
    }
    for name in names {
        let path = out.join(name);
        if path.symlink_metadata().is_ok() && !is_known(&path, name, &known)? {
            return Err(in_the_way(&path));
        }
    }
    Ok(())
}

fn in_the_way(path: &Path) -> Error {
    Error::output(path.display().to_string())
        .expected("no file yet, or one that this extraction wrote")
        .found("another one")
        .fix("write to another folder, or move this file away")
}

/// Puts all files where a data folder has them, then the record, and removes the state.
///
/// Stopped anywhere, it can be done again: until the record is there the state is, and the plan in
/// it says which files are not a user's.
pub(super) fn publish(
    out: &Path,
    state: State,
    record: Option<Record>,
    files: Vec<File>,
    made: &Extracted,
) -> Result<()> {
    let known = planned(out, record.as_ref())?;
    let new = files.iter().map(File::written).collect::<Result<Vec<_>>>()?;
    let mut open = Vec::new();
    for (file, written) in files.iter().zip(&new) {
        let path = out.join(&file.name);
        let there = path.symlink_metadata().is_ok();
        if !there || !is_known(&path, &file.name, std::slice::from_ref(written))? {
            if there && !is_known(&path, &file.name, &known)? {
                return Err(in_the_way(&path));
            }
            open.push(file);
        }
    }
    let mut plan = known.clone();
    plan.extend(new.iter().filter(|file| !known.contains(file)).cloned());
    write_state(&state.folder().join(PLAN), &plan)?;
    // Shards of an earlier attempt that had another number of them.
    for old in &known {
        let path = out.join(&old.name);
        let named = new.iter().any(|file| file.name == old.name);
        if !named && path.is_file() && is_known(&path, &old.name, std::slice::from_ref(old))? {
            fs::remove_file(&path).map_err(|e| Error::io("remove", &path, e))?;
        }
    }
    for file in open {
        file.write(&out.join(&file.name))?;
    }
    sync_folder(out).map_err(|e| Error::io("write", out, e))?;
    let run = state.run().clone();
    let record = Record { run, items: made.items, failed: made.failed.clone(), files: new };
    write_bytes(out.join(RECORD), &to_json(&record)?)?;
    state.remove()
}
