//! An index that grows and shrinks while it is searched (ours; the paper's is made once).

mod change;
mod drift;
mod identify;
mod log;
mod new_candidates;
mod update;

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use burn::tensor::backend::Backend;

pub(super) use change::Change;
pub use change::ChangeStats;
pub use drift::{DriftReport, DriftThresholds};
pub(super) use log::Log;
use log::LogWriter;
pub use new_candidates::NewCandidates;
pub(super) use update::IndexUpdate;

use super::{
    Retriever,
    folder::{FolderLock, Manifest, load_saved, save_locked, settled, with_changes},
};
use crate::{
    error::{Error, Result},
    metadata::Fields,
};

/// An index folder that is open for changes, and searched meanwhile.
///
/// New candidates get identifiers from the fitted quantizer and can be found at once; nothing is
/// trained. A change is a whole new [`Retriever`] that shares all that stays with the one before,
/// put in its place at once: a search goes on with the candidates that were there when it began,
/// and never waits for a change. Changes wait for each other.
///
/// A change that has returned is on the disk, in a file of changes next to the index; a change that
/// a crash cuts short is dropped. [`LiveRetriever::compact`] saves the changed index and starts an
/// empty file of changes. One process at a time may change a folder; any number may load it.
///
/// The cost of a change grows with the collection, not with the change, so add thousands at once
/// where you can (docs/performance.md has figures). Rows ([`Hit::item`](super::Hit::item)) are
/// places in one snapshot; a candidate's name is its id.
///
/// # Example
/// ```no_run
/// # fn main() -> cart_retrieval::Result<()> {
/// use burn::backend::Flex;
/// use cart_retrieval::{features::Features, retrieve::{NewCandidates, LiveRetriever}};
/// let live = LiveRetriever::<Flex>::open("my-index", &Default::default())?;
/// let new = Features::open("new.npy")?.with_ids("new.txt")?;
/// live.add(&NewCandidates::new(&new))?;
/// let index = live.snapshot();
/// println!("{:?}", index.query("two dogs play in the snow").run()?);
/// live.remove(&["old.jpg"])?;
/// println!("{}", live.snapshot().drift(&Default::default())?);
/// live.compact()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct LiveRetriever<B: Backend> {
    folder: PathBuf,
    current: RwLock<Arc<Retriever<B>>>,
    access: Access,
    /// Number and bytes of the changes in the file.
    pending: [AtomicU64; 2],
}

/// What may be done with the folder.
#[derive(Debug)]
enum Access {
    Write(Mutex<Writer>),
    /// With what was read of the folder.
    Read(Mutex<State>),
}

#[derive(Debug)]
struct Writer {
    log: LogWriter,
    lock: FolderLock,
}

/// What tells a state of a folder from others: the digest of its manifest and the length of its
/// file of changes.
#[derive(Debug, PartialEq, Eq)]
struct State {
    manifest: String,
    log: u64,
}

impl State {
    fn of(folder: &Path) -> Result<Self> {
        let manifest = Manifest::read(folder)?;
        let path = folder.join(Log::name(&manifest));
        let log = match std::fs::metadata(&path) {
            Ok(file) => file.len(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => 0,
            Err(e) => return Err(Error::io("read", &path, e)),
        };
        Ok(Self { manifest: manifest.digest().to_string(), log })
    }
}

impl<B: Backend> LiveRetriever<B> {
    pub(super) fn open_here(folder: &Path, device: &B::Device, read_only: bool) -> Result<Self> {
        if read_only {
            return Self::open_to_read(folder, device);
        }
        // Twice: no lock is left in a folder that is none of ours, and somebody may save the index
        // in between.
        Manifest::read(folder)?;
        let lock = FolderLock::acquire(folder)?;
        let manifest = Manifest::read(folder)?;
        let saved = load_saved(folder, &manifest, device)?;
        let (log, changes) = LogWriter::open(folder, &manifest)?;
        let current = RwLock::new(Arc::new(with_changes(saved, changes)?));
        let pending = [log.number.into(), log.end.into()];
        let access = Access::Write(Mutex::new(Writer { log, lock }));
        Ok(Self { folder: folder.to_path_buf(), current, access, pending })
    }

    fn open_to_read(folder: &Path, device: &B::Device) -> Result<Self> {
        // Before the index: what is changed meanwhile is then seen by the next look.
        let state = State::of(folder)?;
        let (retriever, pending) = Self::read(folder, device)?;
        Ok(Self {
            folder: folder.to_path_buf(),
            current: RwLock::new(Arc::new(retriever)),
            access: Access::Read(Mutex::new(state)),
            pending: pending.map(AtomicU64::new),
        })
    }

    pub(super) fn refresh_here(&self) -> Result<bool> {
        let Access::Read(read) = &self.access else { return Ok(false) };
        let mut read = read.lock().unwrap_or_else(PoisonError::into_inner);
        let state = State::of(&self.folder)?;
        if *read == state {
            return Ok(false);
        }
        let device = self.snapshot().device().clone();
        let (retriever, pending) = Self::read(&self.folder, &device)?;
        self.replace(retriever);
        for (to, value) in self.pending.iter().zip(pending) {
            to.store(value, Ordering::Relaxed);
        }
        *read = state;
        Ok(true)
    }

    /// Whether changes are refused.
    pub fn is_read_only(&self) -> bool {
        matches!(self.access, Access::Read(_))
    }

    /// The index of a folder, with the number and bytes of its changes.
    fn read(folder: &Path, device: &B::Device) -> Result<(Retriever<B>, [u64; 2])> {
        settled(folder, |manifest| {
            let saved = load_saved(folder, manifest, device)?;
            let log = Log::read(folder, manifest)?;
            let (there, pending) = (log.was_there(), [log.changes.len() as u64, log.end]);
            Ok(((with_changes(saved, log.changes)?, pending), there))
        })
    }

    /// The index as it is now. It stays as it is whatever changes afterwards, so make filters and
    /// look up rows in the one that is searched.
    pub fn snapshot(&self) -> Arc<Retriever<B>> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn add_here(&self, new: &NewCandidates<'_>, update: bool) -> Result<()> {
        let ids = if update { new.ids().iter().collect() } else { Vec::new() };
        let replaced = ids.into_iter().map(str::to_string).collect();
        self.change(|index| new.change(index, replaced))
    }

    /// Removes candidates; either all of them or, with an error, none.
    ///
    /// # Errors
    /// [`Error::Ids`](crate::Error::Ids) for an id that is not there or occurs twice,
    /// [`Error::Index`](crate::Error::Index) when no candidate would be left,
    /// [`Error::Io`](crate::Error::Io) when the change cannot be written.
    pub fn remove<S: AsRef<str>>(&self, ids: &[S]) -> Result<()> {
        once("candidates to remove", ids.iter().map(AsRef::as_ref))?;
        self.change(|index| {
            let mut change = Change::none(index.index().trie().levels());
            change.removed = ids.iter().map(|id| id.as_ref().to_string()).collect();
            change.stats.removed = ids.len() as u64;
            Ok(change)
        })
    }

    /// Says what is known about candidates from now on, in place of what was.
    ///
    /// # Errors
    /// [`Error::Ids`](crate::Error::Ids) for an id that is not there or occurs twice,
    /// [`Error::Metadata`](crate::Error::Metadata) for an object that is too large,
    /// [`Error::Io`](crate::Error::Io) when the change cannot be written.
    pub fn describe(&self, described: Vec<(String, Fields)>) -> Result<()> {
        once("candidates to describe", described.iter().map(|(id, _)| id.as_str()))?;
        self.change(|index| {
            let mut change = Change::none(index.index().trie().levels());
            change.described = described;
            Ok(change)
        })
    }

    /// Makes a change: the new index first, then the bytes on the disk, then everybody sees it.
    fn change(&self, make: impl FnOnce(&Retriever<B>) -> Result<Change>) -> Result<()> {
        let mut writer = self.writer()?;
        let before = self.snapshot();
        let change = make(&before)?;
        let after = with_changes(before.as_ref().clone(), vec![change.clone()])?;
        writer.log.append(&change)?;
        self.count(&writer);
        self.replace(after);
        Ok(())
    }

    pub(super) fn compact_here(&self) -> Result<()> {
        let mut writer = self.writer()?;
        let saved = save_locked(&self.snapshot(), &self.folder, &writer.lock);
        // Whether it was saved or not: changes go where the manifest in force says.
        let followed = writer.log.follow(&self.folder);
        self.count(&writer);
        saved.and(followed)
    }

    /// Number and bytes of the changes since the index was saved. It does not wait for a change.
    pub fn pending(&self) -> (u64, u64) {
        let [changes, bytes] = &self.pending;
        (changes.load(Ordering::Relaxed), bytes.load(Ordering::Relaxed))
    }

    fn count(&self, writer: &Writer) {
        let [changes, bytes] = &self.pending;
        changes.store(writer.log.number, Ordering::Relaxed);
        bytes.store(writer.log.end, Ordering::Relaxed);
    }

    /// Searches with another network from now on, as after a fine-tuning, and saves the index with
    /// it.
    ///
    /// # Errors
    /// [`Error::Model`](crate::Error::Model) for a network of other levels; otherwise as
    /// [`LiveRetriever::compact`].
    pub fn replace_model(&self, model: crate::model::Cart<B>) -> Result<()> {
        {
            let _writer = self.writer()?;
            let after = self.snapshot().as_ref().clone().with_model(model)?;
            self.replace(after);
        }
        self.compact_here()
    }

    fn writer(&self) -> Result<MutexGuard<'_, Writer>> {
        match &self.access {
            // A panic during a change leaves the file's end where it was, and the next change
            // overwrites what is behind.
            Access::Write(writer) => Ok(writer.lock().unwrap_or_else(PoisonError::into_inner)),
            Access::Read(_) => Err(Error::index(self.folder.display().to_string()).expected("an index that is open for changes").found("one that was opened read-only").fix("open it with LiveRetriever::open, or make the change in the program that has it open")),
        }
    }

    fn replace(&self, after: Retriever<B>) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(after);
    }
}

/// Refuses ids that are given twice.
fn once<'a>(subject: &str, ids: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut seen = HashSet::new();
    for id in ids {
        if !seen.insert(id) {
            return Err(Error::ids(subject)
                .expected("every id once")
                .found(format!("{id:?} twice"))
                .fix("leave out the second mention; nothing was changed"));
        }
    }
    Ok(())
}
