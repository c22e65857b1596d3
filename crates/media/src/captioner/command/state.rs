//! Batches that are done, in a folder.

use std::path::{Path, PathBuf};

use cart_retrieval::{
    Error, Result,
    members::{FileLock, fs, hex, read_limited, write_bytes},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{config::CommandConfig, lines::Batch};

/// The longest file of state that is read.
const LONGEST: u64 = 1 << 32;

/// The file with the checksum of the captions.
const SAVED: &str = "saved.json";

/// What a folder is about, to know it again.
#[derive(Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Run {
    program: String,
    args: Vec<String>,
    per_item: usize,
    batch: usize,
    items: usize,
    /// SHA-256 of the input of all items.
    checksum: String,
}

/// Finished batches of one job.
pub(super) struct State {
    folder: PathBuf,
    _lock: FileLock,
}

/// A batch as it is kept: the ids again, so that a file in the wrong place is noticed.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    captions: Vec<(String, Vec<(String, f32)>)>,
}

impl State {
    /// Makes the folder, or checks that it is of the same job.
    pub fn open(folder: &Path, config: &CommandConfig, lines: &[String]) -> Result<Self> {
        let mut checksum = Sha256::new();
        for line in lines {
            checksum.update(line);
            checksum.update(b"\n");
        }
        let run = Run {
            program: config.program.display().to_string(),
            args: config.args.clone(),
            per_item: config.per_item,
            batch: config.batch,
            items: lines.len(),
            checksum: hex(&checksum.finalize()),
        };
        let file = folder.join("run.json");
        if file.exists() {
            let found: Run = read(&file)?;
            if found != run {
                let shown = |run: &Run| {
                    let Run { program, args, batch, items, .. } = run;
                    format!("`{program} {}` over {items} items by {batch}", args.join(" "))
                };
                return Err(Error::captions(folder.display().to_string())
                    .expected(format!("finished batches of {}", shown(&run)))
                    .found(match shown(&run) == shown(&found) {
                        true => "those of other items, files or numbers of captions".into(),
                        false => format!("those of {}", shown(&found)),
                    })
                    .fix("use the settings of that run, or remove this folder"));
            }
        }
        fs::create_dir_all(folder).map_err(|e| Error::io("create", folder, e))?;
        let path = folder.join(".lock");
        let lock = FileLock::acquire(&path).map_err(|e| Error::io("lock", &path, e))?;
        let Some(lock) = lock else {
            return Err(Error::captions(folder.display().to_string())
                .expected("batches without another running captioner")
                .found("a captioner that is running")
                .fix("wait until it ends"));
        };
        if !file.exists() {
            write(&file, &run)?;
        }
        Ok(Self { folder: folder.to_path_buf(), _lock: lock })
    }

    fn file(&self, number: usize) -> PathBuf {
        self.folder.join(format!("batch-{number:06}.json"))
    }

    /// What a batch gave, if it is done.
    pub fn read(&self, number: usize, ids: &[&str]) -> Result<Option<Batch>> {
        let file = self.file(number);
        if !file.exists() {
            return Ok(None);
        }
        let kept: Kept = read(&file)?;
        if !kept.captions.iter().map(|(id, _)| id.as_str()).eq(ids.iter().copied()) {
            return Err(Error::captions(file.display().to_string())
                .expected(format!("the batch of {} items from `{}` on", ids.len(), ids[0]))
                .found("other items")
                .fix("remove this file, so that it is made again"));
        }
        Ok(Some(kept.captions.into_iter().map(|(_, texts)| texts).collect()))
    }

    /// Keeps what a batch gave, in one step.
    pub fn write(&self, number: usize, ids: &[&str], batch: &Batch) -> Result<()> {
        let captions = ids.iter().map(|id| id.to_string()).zip(batch.iter().cloned()).collect();
        write(&self.file(number), &Kept { captions })
    }
}

/// Notes the checksum of the captions that are about to be written.
pub(super) fn note_saved(folder: &Path, sha256: &str) -> Result<()> {
    write(&folder.join(SAVED), &sha256)
}

/// The checksum of the captions that were written, or about to be.
pub(super) fn saved(folder: &Path) -> Result<Option<String>> {
    let file = folder.join(SAVED);
    if file.is_file() { read(&file).map(Some) } else { Ok(None) }
}

fn read<T: serde::de::DeserializeOwned>(file: &Path) -> Result<T> {
    let bytes = read_limited(file, LONGEST)?;
    serde_json::from_slice(&bytes).map_err(|e| {
        Error::captions(file.display().to_string())
            .expected("the state of an interrupted captioner")
            .found(e.to_string())
            .fix("remove this file, so that it is made again")
    })
}

fn write(file: &Path, value: &impl Serialize) -> Result<()> {
    let bytes = serde_json::to_vec(value).map_err(|e| Error::io("write", file, e.into()))?;
    write_bytes(file, &bytes)
}
