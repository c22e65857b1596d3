//! What is kept of an extraction until it is finished.

use std::path::{Path, PathBuf};

use cart_retrieval::{
    Error, Result,
    features::{Features, ItemIds},
    members::{FileLock, fs, hex},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    json::{read_state, write_state},
    report::{ExtractConfig, Failure},
};
use crate::media::{Extractor, MediaItem};

/// Folder of a run's state, inside of the folder that it writes to.
pub(super) const STATE: &str = "extraction";

/// What a run is about, to know it again.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(super) struct Run {
    pub(super) extractor: String,
    pub(super) dim: usize,
    pub(super) part: usize,
    pub(super) items: usize,
    /// SHA-256 of all items.
    pub(super) checksum: String,
}

impl Run {
    pub(super) fn of(
        items: &[MediaItem],
        extractor: &(impl Extractor + ?Sized),
        config: &ExtractConfig,
    ) -> Result<Self> {
        let wrong = |expected: &str, found: String, remedy: &str| {
            Err(Error::media("items to extract features of")
                .expected(expected)
                .found(found)
                .fix(remedy))
        };
        if config.part == 0 {
            let remedy = "a few hundred or thousand are usual";
            return Err(Error::config("items a part")
                .expected("at least 1")
                .found("0")
                .fix(remedy));
        }
        let Some(first) = items.first() else {
            return wrong("at least one", "none".into(), "name the folder that has media");
        };
        if let Some(other) = items.iter().find(|item| item.modality != first.modality) {
            return wrong(
                "one modality",
                format!(
                    "{} in `{}` and {} in `{}`",
                    first.modality, first.id, other.modality, other.id
                ),
                "extract each into a folder of its own",
            );
        }
        let ids: Vec<&str> = items.iter().map(|item| item.id.as_str()).collect();
        ItemIds::new(&ids)?;
        let mut checksum = Sha256::new();
        for item in items {
            // Debug writes of paths are unambiguous, and all of Unicode and what is not.
            checksum.update(format!("{item:?}\n"));
        }
        Ok(Self {
            extractor: extractor.name(),
            dim: extractor.dim(first.modality),
            part: config.part,
            items: items.len(),
            checksum: hex(&checksum.finalize()),
        })
    }

    /// The run, for messages.
    pub(super) fn shown(&self) -> String {
        let Self { extractor, items, part, checksum, .. } = self;
        let items_checksum = &checksum[..checksum.len().min(8)];
        format!("{items} items ({items_checksum}) by `{extractor}` in parts of {part}")
    }
}

/// What a part has: ids of its rows, and items without one.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Part {
    /// The file of the rows, where there are any.
    #[serde(default)]
    pub(super) rows: Option<String>,
    pub(super) ids: Vec<String>,
    pub(super) failed: Vec<Failure>,
}

/// The finished parts of a run, locked against others.
pub(super) struct State {
    folder: PathBuf,
    run: Run,
    _lock: FileLock,
}

impl State {
    /// The lock of a folder of state, unless another program holds it.
    pub(super) fn acquire(folder: &Path) -> Result<Option<FileLock>> {
        let path = folder.join(".lock");
        FileLock::acquire(&path).map_err(|e| Error::io("lock", &path, e))
    }

    /// Makes the folder, or checks that it is of the same run.
    pub(super) fn open(folder: PathBuf, run: Run) -> Result<Self> {
        let file = folder.join("run.json");
        if file.exists() {
            let found: Run = read_state(&file)?;
            if found != run {
                return Err(Error::media(folder.display().to_string())
                    .expected(format!("an extraction of {}", run.shown()))
                    .found(format!("one of {}", found.shown()))
                    .fix(
                        "use the settings and files of that run, remove this folder, or write to \
                     another one",
                    ));
            }
        }
        fs::create_dir_all(&folder).map_err(|e| Error::io("create", &folder, e))?;
        let Some(lock) = Self::acquire(&folder)? else {
            return Err(Error::media(folder.display().to_string())
                .expected("an extraction that no other program runs")
                .found("one that is running")
                .fix("wait until it ends, or write to another folder"));
        };
        if !file.exists() {
            write_state(&file, &run)?;
        }
        Ok(Self { folder, run, _lock: lock })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn run(&self) -> &Run {
        &self.run
    }

    /// Bytes of the parts that a run still has to write.
    pub(super) fn bytes_missing(folder: &Path, run: &Run) -> u64 {
        let part = run.part.min(run.items);
        let there = (0..run.items.div_ceil(run.part)).filter(|&n| list(folder, n).exists()).count();
        let missing = run.items.saturating_sub(there.saturating_mul(part));
        (missing as u64).saturating_mul(4 * run.dim as u64)
    }

    /// What is kept of a part; nothing where it is not whole.
    pub(super) fn read(&self, number: usize, items: &[MediaItem]) -> Result<Option<Part>> {
        let file = list(&self.folder, number);
        if !file.exists() {
            return Ok(None);
        }
        let mut part: Part = read_state(&file)?;
        if part.rows.is_none() && !part.ids.is_empty() {
            part.rows = Some(format!("part-{number:06}.npy"));
        }
        let whole = match &part.rows {
            None => true,
            Some(rows) => Features::open(self.folder.join(rows)).is_ok_and(|rows| {
                rows.len() == part.ids.len() && rows.dim() == self.run.dim && rows.check().is_ok()
            }),
        };
        let known = part.ids.len() + part.failed.len() == items.len();
        Ok((whole && known).then_some(part))
    }

    /// Extracts the items of a part that have no features yet, and keeps the part: first the rows,
    /// then the list that says that they are there.
    pub(super) fn finish(
        &mut self,
        number: usize,
        items: &[MediaItem],
        kept: Option<Part>,
        root: &Path,
        extractor: &(impl Extractor + ?Sized),
    ) -> Result<Part> {
        let kept = match kept {
            Some(kept) if kept.failed.is_empty() => return Ok(kept),
            kept => kept.unwrap_or_default(),
        };
        let before = match &kept.rows {
            Some(rows) => Some(Features::open(self.folder.join(rows))?),
            None => None,
        };
        let mut rows = kept.ids.iter().enumerate().peekable();
        let place = |item: &MediaItem| Some(rows.next_if(|(_, id)| **id == item.id)?.0);
        let places: Vec<Option<usize>> = items.iter().map(place).collect();
        let open: Vec<MediaItem> = items
            .iter()
            .zip(&places)
            .filter(|(_, place)| place.is_none())
            .map(|(item, _)| item.clone())
            .collect();
        let found = extractor.extract(root, &open);
        if found.len() != open.len() {
            return Err(Error::media("output of the extractor")
                .expected(format!("a result for each of {} items", open.len()))
                .found(found.len().to_string())
                .fix("correct the extractor"));
        }
        let mut found = found.into_iter();
        let mut values = Vec::with_capacity(items.len() * self.run.dim);
        let mut made = Part::default();
        for (item, place) in items.iter().zip(places) {
            let row = match (place, &before) {
                (Some(place), Some(before)) => Ok(before.row(place).to_vec()),
                _ => match found.next() {
                    Some(found) => found.and_then(|row| checked(item, row, self.run.dim)),
                    None => continue,
                },
            };
            match row {
                Ok(row) => {
                    values.extend(row);
                    made.ids.push(item.id.clone());
                }
                Err(e) => made.failed.push(Failure { id: item.id.clone(), message: e.to_string() }),
            }
        }
        if made.ids == kept.ids {
            // The same failed again.
            if kept.failed == made.failed {
                return Ok(kept);
            }
            made.rows = kept.rows.clone();
        } else if !made.ids.is_empty() {
            // Another name than the rows before have, which the list still names.
            let name = format!("part-{number:06}-{}.npy", made.ids.len());
            Features::from_rows(values, self.run.dim)?.save_npy(self.folder.join(&name))?;
            made.rows = Some(name);
        }
        write_state(&list(&self.folder, number), &made)?;
        Ok(made)
    }

    /// Removes the state, and the lock in the end.
    pub(super) fn remove(self) -> Result<()> {
        fs::remove_dir_all(&self.folder).map_err(|e| Error::io("remove", &self.folder, e))
    }
}

fn list(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("part-{number:06}.json"))
}

/// A row, if it can be a candidate's.
fn checked(item: &MediaItem, row: Vec<f32>, dim: usize) -> Result<Vec<f32>> {
    let finite = row.iter().all(|value| value.is_finite());
    if row.len() == dim && finite && row.iter().any(|&value| value != 0.0) {
        return Ok(row);
    }
    Err(Error::media(item.path.display().to_string())
        .expected(format!("{dim} finite numbers of the extractor, not all of them zero"))
        .found(format!(
            "{} numbers, {}",
            row.len(),
            if finite { "finite" } else { "some not finite" }
        ))
        .fix("leave the item out, or correct the extractor"))
}
