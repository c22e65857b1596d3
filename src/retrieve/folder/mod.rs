//! The index on disk: one folder, named by a manifest, and the changes since.
//!
//! Every file carries a part of its checksum in its name, so saving never touches a file that the
//! manifest in force names. The manifest is replaced last, in one step: a crash at any moment
//! leaves the old index or the new one. Changes lie in a file that belongs to one manifest. Files
//! that no manifest names any more are removed afterwards.

mod lock;
mod manifest;

use std::{
    collections::BTreeMap,
    fs::File,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use burn::tensor::backend::Backend;
use sha2::{Digest, Sha256};

pub(super) use lock::FolderLock;
pub use manifest::{FORMAT_VERSION, Manifest, ManifestFile};
use manifest::{KIND, MANIFEST};

use super::{
    live::{Change, IndexUpdate, Log},
    retriever::{Retriever, RetrieverParts},
};
use crate::{
    align::TextSpaceMap,
    data::TextTokenizer,
    error::{Error, Result},
    features::{Features, ItemIds},
    index::{CandidateIndex, IdentifierMap, PrefixStats, TokenStates},
    metadata::ItemMetadata,
    nn::QueryProjection,
    quantizer::CoarseToFine,
    storage::{NamedTensors, fs, hex, load_module, map, sync_folder, write_bytes},
    trie::Trie,
};

/// What files are called before their checksum.
const ROLES: [&str; 13] = [
    "model",
    "quantizer",
    "tokenizer",
    "trie",
    "ids",
    ORDER,
    VECTORS,
    GEOMETRY,
    SPACE,
    METADATA,
    PROJECTION,
    OWNERS,
    TOKENS,
];
/// Role of the rows in the order of their ids.
const ORDER: &str = "order";
/// Role of the file of the candidates' vectors, and name of its tensor.
const VECTORS: &str = "vectors";
/// Role of the sums of these vectors.
const GEOMETRY: &str = "geometry";
/// Role of the file of the map that made them.
const SPACE: &str = "space";
/// Role of what is known about the candidates.
const METADATA: &str = "metadata";
/// Role of the map from embeddings to words.
const PROJECTION: &str = "projection";
/// Role of the file of the owners of further identifiers, and name of its tensor.
const OWNERS: &str = "owners";
/// Role of the token states of the candidates' texts.
const TOKENS: &str = "tokens";
/// How often a load starts again when the index is replaced meanwhile.
const ATTEMPTS: usize = 10;

/// What [`verify`] has looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Candidates after all changes.
    pub candidates: usize,
    /// Files, without the manifest and the changes.
    pub files: usize,
    /// Bytes of these.
    pub bytes: u64,
    /// Changes since the index was saved.
    pub changes: usize,
    /// Bytes at the end of the changes that a crash left behind before they counted; the next
    /// [`LiveRetriever`](super::LiveRetriever) cuts them off.
    pub torn: u64,
}

/// Reads every byte of an index folder and holds it to its checksum, which a load does not do with
/// long files.
///
/// # Errors
/// [`Error::Index`] naming what was cut or changed, [`Error::Io`] naming what is missing.
///
/// # Example
/// ```no_run
/// let found = cart_retrieval::retrieve::verify("my-index")?;
/// println!("{} candidates in {} files", found.candidates, found.files);
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
pub fn verify(folder: impl AsRef<Path>) -> Result<Verified> {
    let folder = folder.as_ref();
    settled(folder, |manifest| {
        manifest.verify(folder)?;
        let index = index(folder, manifest)?;
        let log = Log::read(folder, manifest)?;
        let (there, torn, changes) = (log.was_there(), log.torn, log.changes.len());
        let (index, _) = IndexUpdate::with_changes(&index, log.changes)?;
        let candidates = index.map_or(manifest.candidates, |index| index.ids().len());
        let bytes = manifest.files.values().map(|file| file.bytes).sum();
        Ok((Verified { candidates, files: manifest.files.len(), bytes, changes, torn }, there))
    })
}

/// Reads an index as it is at one moment, though somebody may save another one meanwhile and remove
/// the files of the first.
///
/// `read` also says whether it found a file of changes: the index was in force then. Otherwise it
/// still has to be.
pub(super) fn settled<T>(
    folder: &Path,
    read: impl Fn(&Manifest) -> Result<(T, bool)>,
) -> Result<T> {
    let mut manifest = Manifest::read(folder)?;
    for _ in 0..ATTEMPTS {
        let result = read(&manifest);
        if let Ok((value, true)) = result {
            return Ok(value);
        }
        let now = Manifest::read(folder)?;
        if now.digest() == manifest.digest() {
            return result.map(|(value, _)| value);
        }
        manifest = now;
    }
    Err(Error::index(folder.display().to_string())
        .expected("an index that does not change while it is read")
        .found(format!("a different one in each of {ATTEMPTS} attempts"))
        .fix("try again when no program saves it"))
}

/// Checks that an index can be saved to a folder: that it does not exist, is empty, or holds an
/// index already.
///
/// # Errors
/// [`Error::Index`] when something else is there, [`Error::Io`] when it cannot be read.
pub(super) fn check_folder(folder: &Path) -> Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Error::io("read", folder, e)),
        Ok(entries) => entries,
    };
    // An index that cannot be read is not replaced either: its error says why.
    if folder.join(MANIFEST).exists() {
        return Manifest::read(folder).map(|_| ());
    }
    for entry in entries {
        let name = entry.map_err(|e| Error::io("read", folder, e))?.file_name();
        if !ours(name.to_str().unwrap_or_default()) {
            return Err(Error::index(folder.display().to_string())
                .expected("a new or empty folder, or an index of this library")
                .found(format!("{name:?} and no {MANIFEST}"))
                .fix("choose another folder; nothing was changed"));
        }
    }
    Ok(())
}

/// Saves an index.
pub(super) fn save<B: Backend>(retriever: &Retriever<B>, folder: &Path) -> Result<()> {
    check_folder(folder)?;
    fs::create_dir_all(folder).map_err(|e| Error::io("create", folder, e))?;
    let lock = FolderLock::acquire(folder)?;
    save_locked(retriever, folder, &lock)
}

/// Saves to a folder whose write lock is held.
pub(super) fn save_locked<B: Backend>(
    retriever: &Retriever<B>,
    folder: &Path,
    _lock: &FolderLock,
) -> Result<()> {
    let index = retriever.index();
    let before = Manifest::read(folder).ok();
    let mut files = BTreeMap::new();
    let mut put = |role: &str, extension: &str, bytes: Vec<u8>| -> Result<()> {
        let sha256 = hex(&Sha256::digest(&bytes));
        let name = format!("{role}-{}.{extension}", &sha256[..12]);
        let file = ManifestFile { name, bytes: bytes.len() as u64, sha256 };
        // What the index before had too is there already, unless it was damaged.
        let before = before.as_ref().and_then(|manifest| manifest.files.get(role));
        if before != Some(&file) || file.verify(folder).is_err() {
            write_bytes(folder.join(&file.name), &bytes)?;
        }
        files.insert(role.to_string(), file);
        Ok(())
    };
    let mut tensors = NamedTensors::new();
    tensors.insert_module::<B, _>("", retriever.model())?;
    put("model", "safetensors", tensors.to_bytes(&[])?)?;
    drop(tensors);
    put("quantizer", "safetensors", retriever.quantizer.to_safetensors()?)?;
    put("tokenizer", "json", retriever.tokenizer.to_json()?.into_bytes())?;
    put("trie", "bin", index.trie().to_bytes())?;
    put("ids", "txt", index.ids().lines().into_bytes())?;
    let order = index.ids().order().iter().flat_map(|row| row.to_le_bytes()).collect();
    put(ORDER, "bin", order)?;
    if let Some(geometry) = index.prefix_stats() {
        let vectors = geometry.vectors();
        let mut tensors = NamedTensors::new();
        // Those of further identifiers are the candidates' own once more.
        let shape = [index.ids().len(), vectors.dim()];
        tensors.insert_f32(VECTORS, &shape, vectors.rows(0..shape[0]));
        put(VECTORS, "safetensors", tensors.to_bytes(&[])?)?;
        if index.identifier_map().are_single() {
            put(GEOMETRY, "safetensors", geometry.to_safetensors()?)?;
        }
    }
    if !index.identifier_map().are_single() {
        let mut tensors = NamedTensors::new();
        tensors.insert_u32(OWNERS, index.identifier_map().aliases());
        put(OWNERS, "safetensors", tensors.to_bytes(&[])?)?;
    }
    if let Some(tokens) = index.token_states() {
        put(TOKENS, "safetensors", tokens.to_safetensors()?)?;
    }
    if let Some(space) = &retriever.space {
        put(SPACE, "safetensors", space.to_safetensors()?)?;
    }
    if let Some(projection) = &retriever.projection {
        put(PROJECTION, "safetensors", projection.to_safetensors()?)?;
    }
    if let Some(metadata) = index.metadata() {
        put(METADATA, "jsonl", metadata.to_bytes())?;
    }
    let manifest = Manifest {
        kind: KIND.to_string(),
        format: FORMAT_VERSION,
        checksum: String::new(),
        library: env!("CARGO_PKG_VERSION").to_string(),
        model: retriever.config.clone(),
        beam: retriever.beam.clone(),
        candidates: index.ids().len(),
        max_tokens: retriever.tokenizer.max_tokens(),
        health: index.health().clone(),
        groups: index.groups().map(<[String]>::to_vec),
        stats: retriever.stats,
        files,
    };
    let (manifest, json) = manifest
        .signed()
        .map_err(|e| Error::io("write", folder.join(MANIFEST), std::io::Error::other(e)))?;
    write_bytes(folder.join(MANIFEST), &json)?;
    if before.is_some_and(|before| before.digest() == manifest.digest()) {
        // Changes since the very same index was saved, which this one does not have.
        remove_log(folder, &manifest)?;
    }
    remove_unnamed(folder, &manifest);
    Ok(())
}

/// Loads an index with the changes since it was saved.
pub(super) fn load<B: Backend>(folder: &Path, device: &B::Device) -> Result<Retriever<B>> {
    settled(folder, |manifest| {
        let retriever = load_saved(folder, manifest, device)?;
        let log = Log::read(folder, manifest)?;
        let there = log.was_there();
        Ok((with_changes(retriever, log.changes)?, there))
    })
}

/// The index with changes.
pub(super) fn with_changes<B: Backend>(
    retriever: Retriever<B>,
    changes: Vec<Change>,
) -> Result<Retriever<B>> {
    let (index, stats) = IndexUpdate::with_changes(retriever.index(), changes)?;
    let mut changed = match index {
        Some(index) => retriever.with_index(index),
        None => retriever,
    };
    changed.stats += stats;
    Ok(changed)
}

/// The index as it was saved.
pub(super) fn load_saved<B: Backend>(
    folder: &Path,
    manifest: &Manifest,
    device: &B::Device,
) -> Result<Retriever<B>> {
    let (mut tensors, _) = NamedTensors::from_bytes(&manifest.load(folder, "model")?)?;
    let mut model = manifest.model.init_empty::<B>(tensors.bytes(), device)?;
    load_module::<B, _>(&mut model, &mut tensors, "")?;
    tensors.ensure_empty("model")?;
    let quantizer = CoarseToFine::from_safetensors(&manifest.load(folder, "quantizer")?, device)?;
    let tokenizer =
        TextTokenizer::from_bytes(&manifest.load(folder, "tokenizer")?, manifest.max_tokens)?;
    let (config, index) = (manifest.model.clone(), index(folder, manifest)?);
    let parts = RetrieverParts { model, config, tokenizer, quantizer, index };
    let mut retriever = Retriever::new(parts)?.with_beam(manifest.beam.clone());
    retriever.stats = manifest.stats;
    if manifest.has(SPACE) {
        let space = manifest.load(folder, SPACE)?;
        retriever = retriever.with_space(TextSpaceMap::from_safetensors(&space)?);
    }
    if manifest.has(PROJECTION) {
        let bytes = manifest.load(folder, PROJECTION)?;
        let projection = QueryProjection::from_safetensors(&bytes, device)?;
        retriever = retriever.with_projection(projection)?;
    }
    Ok(retriever)
}

/// The candidates as they were saved.
fn index(folder: &Path, manifest: &Manifest) -> Result<CandidateIndex> {
    let trie = Trie::open(manifest.check(folder, "trie")?)?;
    let lines = String::from_utf8(manifest.load(folder, "ids")?).map_err(|e| {
        Error::index("ids").expected("UTF-8").found(e.to_string()).fix("save the index again")
    })?;
    let ids = if manifest.has(ORDER) {
        let order = manifest.load(folder, ORDER)?;
        let order = order.as_chunks().0.iter().map(|row| u32::from_le_bytes(*row)).collect();
        ItemIds::from_lines_in_order("ids", &lines, order)?
    } else {
        ItemIds::new(&lines.lines().collect::<Vec<_>>())?
    };
    let mut owners = Vec::new();
    if manifest.has(OWNERS) {
        owners = NamedTensors::from_bytes(&manifest.load(folder, OWNERS)?)?.0.take_u32(OWNERS)?;
    }
    let owners = IdentifierMap::new(ids.len(), owners)?;
    let mut index = CandidateIndex::of_rows(ids, trie, owners, manifest.health.clone())?;
    if let Some(groups) = &manifest.groups {
        index = index.with_groups(groups.clone())?;
    }
    if manifest.has(METADATA) {
        index = index.with_metadata(ItemMetadata::open(&manifest.check(folder, METADATA)?)?)?;
    }
    if manifest.has(TOKENS) {
        let tokens = TokenStates::open(&manifest.check(folder, TOKENS)?)?;
        index = index.with_token_states(tokens)?;
    }
    if manifest.has(VECTORS) {
        let vectors = Features::open_named(manifest.check(folder, VECTORS)?, VECTORS)?;
        if !manifest.has(GEOMETRY) {
            return index.with_vectors(vectors);
        }
        let path = manifest.check(folder, GEOMETRY)?;
        let sums = File::open(&path).and_then(|file| map(&file));
        let sums = sums.map_err(|e| Error::io("read", &path, e))?;
        let geometry = PrefixStats::from_safetensors(&sums, vectors, index.trie())?;
        index = index.with_prefix_stats(geometry);
    }
    Ok(index)
}

/// Whether a file may be one of ours, by its name.
fn ours(name: &str) -> bool {
    let hash = |rest: &str| rest.len() > 12 && rest[..12].bytes().all(|b| b.is_ascii_hexdigit());
    let role = |role: &&str| {
        name.strip_prefix(*role).and_then(|rest| rest.strip_prefix('-')).is_some_and(hash)
    };
    let temporary = name.starts_with('.') && name.ends_with(".tmp");
    ROLES.iter().any(role) || role(&Log::ROLE) || name == FolderLock::NAME || temporary
}

/// Removes the changes since a manifest was written.
fn remove_log(folder: &Path, manifest: &Manifest) -> Result<()> {
    let path = folder.join(Log::name(manifest));
    match fs::remove_file(&path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::io("remove", &path, e)),
        _ => sync_folder(folder).map_err(|e| Error::io("write", folder, e)),
    }
}

/// Removes files of ours that the manifest does not name. What cannot be removed does no harm.
fn remove_unnamed(folder: &Path, manifest: &Manifest) {
    let kept = [MANIFEST.to_string(), FolderLock::NAME.to_string(), Log::name(manifest)];
    let unnamed = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let named = manifest.files.values().any(|file| file.name == name);
        ours(name) && !named && !kept.iter().any(|kept| kept == name)
    };
    if let Ok(entries) = std::fs::read_dir(folder) {
        for path in entries.flatten().map(|entry| entry.path()).filter(unnamed) {
            let _ = fs::remove_file(&path);
        }
    }
}
