//! From files of media to the features of a data folder.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    MediaItem, Modality, PICTURE_FEATURES, Picture, PictureLimits, SOUND_FEATURES, Sound,
    Transparency, VIDEO_FEATURES, open_frames, picture_features, sound_features,
    sound_features::SOUND_RATE, video_features,
};
use crate::{
    data::{Captions, Splits},
    error::{Error, Result},
    features::{Features, ItemIds, shard_names},
    storage::{hex, read_limited, write_bytes},
    train::StopFlag,
};

/// Folder of a run's state, inside of the folder that it writes to.
const STATE: &str = "extraction";
/// The longest file of state that is read.
const LONGEST_STATE: u64 = 1 << 32;

/// What turns media into embeddings.
pub trait Extractor: Sync {
    /// What it is, with all settings that change what it gives. A run that was interrupted goes on only with an
    /// extractor of the same name.
    fn name(&self) -> String;

    /// Width of an embedding of a modality.
    fn dim(&self, modality: Modality) -> usize;

    /// The embedding of each item, whose files lie below `root`, or why it has none.
    fn extract(&self, root: &Path, items: &[MediaItem]) -> Vec<Result<Vec<f32>>>;
}

/// The built-in descriptors: [`picture_features`], [`sound_features`], [`video_features`]. Nothing learned, no
/// download; a frozen encoder says far more about what is to be seen or heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptors {
    /// Frames of a video.
    pub frames: usize,
    /// What becomes of transparent pixels.
    pub transparency: Transparency,
    /// What is too large a picture.
    pub limits: PictureLimits,
}

impl Default for Descriptors {
    /// 16 frames; transparent pixels over white.
    fn default() -> Self {
        let (transparency, limits) = (Transparency::Over([255; 3]), PictureLimits::default());
        Self { frames: 16, transparency, limits }
    }
}

impl Extractor for Descriptors {
    fn name(&self) -> String {
        format!("descriptors 3, {} frames, transparency {:?}", self.frames, self.transparency)
    }

    fn dim(&self, modality: Modality) -> usize {
        match modality {
            Modality::Image => PICTURE_FEATURES,
            Modality::Audio => SOUND_FEATURES,
            Modality::Video => VIDEO_FEATURES,
        }
    }

    fn extract(&self, root: &Path, items: &[MediaItem]) -> Vec<Result<Vec<f32>>> {
        let one = |item: &MediaItem| -> Result<Vec<f32>> {
            let path = root.join(&item.path);
            match item.modality {
                Modality::Image => {
                    let picture = Picture::open_with(path, self.transparency, self.limits)?;
                    Ok(picture_features(&picture))
                }
                Modality::Audio => sound_features(&Sound::of_item(root, item, SOUND_RATE)?),
                Modality::Video => video_features(&open_frames(path, self.frames)?),
            }
        };
        items.par_iter().map(one).collect()
    }
}

/// Settings of an extraction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtractConfig {
    /// Items a part: what is extracted at once, kept when a run is interrupted, and a file of features in the end.
    pub part: usize,
}

impl Default for ExtractConfig {
    /// Parts of 1,024 items.
    fn default() -> Self {
        Self { part: 1024 }
    }
}

/// An item without features.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Its id.
    pub id: String,
    /// Why.
    pub message: String,
}

/// How far an extraction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExtractProgress {
    /// Items that are done, those of an earlier run included.
    pub done: usize,
    /// Of them, those without features.
    pub failed: usize,
    /// All items.
    pub total: usize,
}

/// What an extraction made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extracted {
    /// Items with features.
    pub items: usize,
    /// Items that an earlier run had done.
    pub resumed: usize,
    /// Items without features, which are in no file.
    pub failed: Vec<Failure>,
    /// Captions that were taken out of `captions.jsonl` with their items.
    pub captions_left_out: usize,
}

/// What a run is about, to know it again.
#[derive(Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Run {
    extractor: String,
    dim: usize,
    part: usize,
    items: usize,
    /// SHA-256 of all items.
    checksum: String,
}

/// What a part has: ids of its rows, and items without one.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    ids: Vec<String>,
    failed: Vec<Failure>,
}

/// Extracts features of items whose files lie below `root` into the data folder `out`: `features-*.npy` and
/// `ids.txt`, and what `captions.jsonl` and `splits.json` have of items without features is taken out of them.
///
/// A file that is broken or missing is passed over and named in the end. One part of the items is in memory at a time,
/// and kept in `out/extraction` as soon as it is done, so that a run that was stopped goes on from there.
///
/// # Errors
/// [`Error::Media`] without items, for items of several modalities, when `out` has features already or an extraction
/// of other items or by another extractor, and when no item at all has features; [`Error::Io`] when a file
/// cannot be written; [`Error::Interrupted`] when stopped, with what is done kept; [`Error::Config`] for parts of 0.
///
/// # Example
/// ```no_run
/// use cart_retrieval::{media::{Descriptors, extract, media_below, Modality}, train::StopFlag};
/// let items = media_below("pictures", &[Modality::Image])?.items;
/// let report = |progress: cart_retrieval::media::ExtractProgress| println!("{}", progress.done);
/// let made = extract(
///     &items, "pictures", "my-data", &Descriptors::default(), &Default::default(), &StopFlag::new(), report,
/// )?;
/// for failure in &made.failed {
///     println!("{}: {}", failure.id, failure.message);
/// }
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
pub fn extract(
    items: &[MediaItem],
    root: impl AsRef<Path>,
    out: impl AsRef<Path>,
    extractor: &(impl Extractor + ?Sized),
    config: &ExtractConfig,
    stop: &StopFlag,
    mut progress: impl FnMut(ExtractProgress),
) -> Result<Extracted> {
    let (root, out) = (root.as_ref(), out.as_ref());
    let run = run_of(items, extractor, config)?;
    let state = out.join(STATE);
    begin(&run, out, &state)?;
    let (mut failed, mut done, mut resumed) = (Vec::new(), 0, 0);
    let mut shards: Vec<PathBuf> = Vec::new();
    let mut ids: Vec<String> = Vec::new();
    for (number, part) in items.chunks(config.part).enumerate() {
        let (rows, list) = part_files(&state, number);
        let made = match list.exists() {
            true => {
                resumed += part.len();
                read_state(&list)?
            }
            false if stop.is_raised() => {
                return Err(Error::interrupted(
                    "extraction",
                    format!("features of {} items", items.len()),
                    format!("a stop after {done}, which are kept in {}", state.display()),
                    "start it again with the same settings to go on",
                ));
            }
            false => extract_part(part, root, extractor, run.dim, &rows, &list)?,
        };
        done += part.len();
        if !made.ids.is_empty() {
            shards.push(rows);
        }
        ids.extend(made.ids);
        failed.extend(made.failed);
        progress(ExtractProgress { done, failed: failed.len(), total: items.len() });
    }
    if let (true, Some(first)) = (ids.is_empty(), failed.first()) {
        return Err(Error::media(
            root.display().to_string(),
            "at least one item with features",
            format!("none of {}; the first: {}", items.len(), first.message),
            "name the folder of the media, or mend its files; then remove the folder `extraction`",
        ));
    }
    let captions_left_out = publish(out, &shards, &ids, &failed)?;
    fs::remove_dir_all(&state).map_err(|e| Error::io("remove", &state, e))?;
    Ok(Extracted { items: ids.len(), resumed, failed, captions_left_out })
}

fn run_of(
    items: &[MediaItem],
    extractor: &(impl Extractor + ?Sized),
    config: &ExtractConfig,
) -> Result<Run> {
    let wrong = |expected: &str, found: String, remedy: &str| {
        Err(Error::media("items to extract features of", expected, found, remedy))
    };
    if config.part == 0 {
        let remedy = "choose some hundred or thousand";
        return Err(Error::config("items a part", "at least 1", "0", remedy));
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
    Ok(Run {
        extractor: extractor.name(),
        dim: extractor.dim(first.modality),
        part: config.part,
        items: items.len(),
        checksum: hex(&checksum.finalize()),
    })
}

/// Makes the folder of the state, or checks that it is of the same run.
fn begin(run: &Run, out: &Path, state: &Path) -> Result<()> {
    let file = state.join("run.json");
    if file.exists() {
        let found: Run = read_state(&file)?;
        if found != *run {
            return Err(Error::media(
                state.display().to_string(),
                format!("an extraction by `{}` of the same {} items", run.extractor, run.items),
                format!("one by `{}` of {} items", found.extractor, found.items),
                "start with the settings of that one, remove this folder, or write to another one",
            ));
        }
        return Ok(());
    }
    let taken = ["npy", "npz", "safetensors"]
        .iter()
        .map(|extension| out.join("features").with_extension(extension))
        .find(|path| path.exists());
    let shards = match out.is_dir() {
        true => shard_names::find(out, &shard_names::FEATURES)?,
        false => None,
    };
    if let Some(taken) = taken.or(shards.and_then(|shards| shards.into_iter().next())) {
        return Err(Error::media(
            out.display().to_string(),
            "a folder without features",
            taken.display().to_string(),
            "write to another folder, or remove the features that are there",
        ));
    }
    fs::create_dir_all(state).map_err(|e| Error::io("create", state, e))?;
    write_state(&file, run)
}

fn part_files(state: &Path, number: usize) -> (PathBuf, PathBuf) {
    let name = |extension: &str| state.join(format!("part-{number:06}.{extension}"));
    (name("npy"), name("json"))
}

/// Extracts a part and keeps it: first the rows, then the list that says that they are there.
fn extract_part(
    part: &[MediaItem],
    root: &Path,
    extractor: &(impl Extractor + ?Sized),
    dim: usize,
    rows: &Path,
    list: &Path,
) -> Result<Part> {
    let found = extractor.extract(root, part);
    if found.len() != part.len() {
        return Err(Error::media(
            "what the extractor gave",
            format!("a result for each of {} items", part.len()),
            found.len().to_string(),
            "mend the extractor",
        ));
    }
    let mut values = Vec::with_capacity(part.len() * dim);
    let mut made = Part { ids: Vec::with_capacity(part.len()), failed: Vec::new() };
    for (item, found) in part.iter().zip(found) {
        let row = found.and_then(|row| {
            let finite = row.iter().all(|value| value.is_finite());
            if row.len() == dim && finite && row.iter().any(|&value| value != 0.0) {
                return Ok(row);
            }
            Err(Error::media(
                item.path.display().to_string(),
                format!("{dim} finite numbers of the extractor, not all of them zero"),
                format!(
                    "{} numbers, {}",
                    row.len(),
                    if finite { "finite" } else { "some not finite" }
                ),
                "leave the item out, or mend the extractor",
            ))
        });
        match row {
            Ok(row) => {
                values.extend(row);
                made.ids.push(item.id.clone());
            }
            Err(e) => made.failed.push(Failure { id: item.id.clone(), message: e.to_string() }),
        }
    }
    if !made.ids.is_empty() {
        Features::from_rows(values, dim)?.save_npy(rows)?;
    }
    write_state(list, &made)?;
    Ok(made)
}

/// Puts the parts where a data folder has its features. Those of the state stay until all is done, so that an
/// interruption leaves what is needed to do this again.
fn publish(out: &Path, shards: &[PathBuf], ids: &[String], failed: &[Failure]) -> Result<usize> {
    let mut left_out = 0;
    if !failed.is_empty() {
        left_out = prune(out, failed)?;
    }
    for (number, shard) in shards.iter().enumerate() {
        let name = match shards.len() {
            1 => "features.npy".into(),
            count => format!("features-{number:05}-of-{count:05}.npy"),
        };
        let to = out.join(name);
        if fs::hard_link(shard, &to).is_err() {
            // Another file system, one without links, or a link that is there already.
            let bytes = fs::read(shard).map_err(|e| Error::io("read", shard, e))?;
            write_bytes(&to, &bytes)?;
        }
    }
    ItemIds::new(ids)?.save(out.join("ids.txt"))?;
    Ok(left_out)
}

/// Takes items without features out of captions and splits, where the folder has these.
fn prune(out: &Path, failed: &[Failure]) -> Result<usize> {
    let gone: HashSet<&str> = failed.iter().map(|failure| failure.id.as_str()).collect();
    let mut left_out = 0;
    let path = out.join("captions.jsonl");
    if path.exists() {
        let all = Captions::from_jsonl(&path)?;
        let mut kept = Captions::new();
        for caption in all.iter().filter(|caption| !gone.contains(caption.id.as_str())) {
            kept.push(caption.clone())?;
        }
        left_out = all.len() - kept.len();
        if left_out > 0 {
            kept.to_jsonl(&path)?;
        }
    }
    let path = out.join("splits.json");
    if path.exists() {
        let all = Splits::from_json(&path)?;
        let split = |name: &str| -> Result<(String, Vec<String>)> {
            let ids = all.ids(name)?.iter().filter(|id| !gone.contains(id.as_str()));
            Ok((name.to_string(), ids.cloned().collect()))
        };
        let kept = all.names().map(split).collect::<Result<Vec<_>>>()?;
        Splits::from_ids(kept)?.to_json(&path)?;
    }
    Ok(left_out)
}

fn read_state<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = read_limited(path, LONGEST_STATE)?;
    serde_json::from_slice(&bytes).map_err(|e| {
        Error::media(
            path.display().to_string(),
            "the state of an extraction",
            e.to_string(),
            "remove the folder it lies in and start again",
        )
    })
}

fn write_state(path: &Path, state: &impl Serialize) -> Result<()> {
    let bytes = serde_json::to_vec(state).map_err(|e| {
        Error::media("state of the extraction", "text", e.to_string(), "report this")
    })?;
    write_bytes(path, &bytes)
}
