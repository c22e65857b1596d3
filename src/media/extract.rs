//! From files of media to the features of a data folder.

mod annotations;
mod publish;
mod state;

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use self::{
    annotations::Annotations,
    publish::{File, Record, publish},
    state::{Run, State},
};

use super::{
    MediaItem, Modality, PICTURE_FEATURES, Picture, PictureLimits, SOUND_FEATURES, Sound,
    Transparency, VIDEO_FEATURES, open_frames, picture_features, sound_features,
    sound_features::SOUND_RATE, video_features,
};
use crate::{
    data::formats::PublishedSet,
    error::{Error, Result},
    features::ItemIds,
    storage::{Outputs, fs, read_limited, write_bytes},
    train::StopFlag,
};

/// Folder of a run's state, inside of the folder that it writes to.
const STATE: &str = "extraction";
/// The longest file of state that is read.
const LONGEST_STATE: u64 = 1 << 32;

/// What turns media into embeddings.
pub trait Extractor: Sync {
    /// What it is, with all settings that change what it gives. A run that was interrupted goes on
    /// only with an extractor of the same name.
    fn name(&self) -> String;

    /// Width of an embedding of a modality.
    fn dim(&self, modality: Modality) -> usize;

    /// The embedding of each item, whose files lie below `root`, or why it has none.
    fn extract(&self, root: &Path, items: &[MediaItem]) -> Vec<Result<Vec<f32>>>;
}

/// The built-in descriptors: [`picture_features`], [`sound_features`], [`video_features`]. Nothing
/// learned, no download; a frozen encoder says far more about what is to be seen or heard.
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
    /// Items a part: what is extracted at once, kept when a run is interrupted, and a file of
    /// features in the end.
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
    /// Items without features; `left-out.jsonl` lists them.
    pub failed: Vec<Failure>,
    /// Captions that were not written, as their items have no features.
    pub captions_left_out: usize,
    /// Whether an earlier run had finished already, and nothing was changed.
    pub unchanged: bool,
}

/// Ids that a file names and no item has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownIds {
    /// The file.
    pub file: PathBuf,
    /// Captions, entries of splits or lines that name such an id.
    pub entries: usize,
    /// The ids, each once, in the order of the file.
    pub ids: Vec<String>,
}

/// Features of items whose files lie below a folder, and the captions and splits that go with them.
///
/// [`Extraction::run`] writes into the data folder `features-*.npy` (or `features.npy`) and
/// `ids.txt`, with [`with_captions`](Self::with_captions) `captions.jsonl`, with
/// [`with_set`](Self::with_set) also `splits.json` and `media.jsonl`, where items have no features
/// `left-out.jsonl`, and in the end `extraction.json`, which says what was extracted. All of them
/// appear at the end, each whole.
///
/// A file that is in the folder already is never changed: where one has the name of a file to be
/// written, the extraction is refused before it begins. Captions, splits and metadata that lie
/// there stay as they are, and [`DataFolder`](crate::data::DataFolder) passes over what they say
/// about the items of `left-out.jsonl`.
///
/// A file of media that is broken or missing is passed over and named in the end. One part of the
/// items is in memory at a time, and kept in `extraction` in the data folder as soon as it is done:
/// a run that was stopped or killed goes on from there, and tries again what failed. The same
/// extraction over a finished folder changes nothing.
///
/// # Example
/// ```no_run
/// use cart_retrieval::{media::{Descriptors, Extraction, MediaItem}, train::StopFlag};
/// # let items: Vec<MediaItem> = Vec::new();
/// let extraction = Extraction::new(&items, "pictures", "my-data").with_captions("captions.jsonl");
/// for unknown in extraction.check()? {
///     println!("{}: {} captions of other items", unknown.file.display(), unknown.entries);
/// }
/// let descriptors = Descriptors::default();
/// extraction.run(&descriptors, &Default::default(), &StopFlag::new(), |_| {})?;
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Extraction<'a> {
    items: &'a [MediaItem],
    root: PathBuf,
    out: PathBuf,
    captions: Option<PathBuf>,
    set: Option<&'a PublishedSet>,
}

/// Extracts features of items whose files lie below `root` into the data folder `out`, as
/// [`Extraction::run`] without captions.
///
/// # Errors
/// As [`Extraction::run`].
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
    progress: impl FnMut(ExtractProgress),
) -> Result<Extracted> {
    Extraction::new(items, root, out).run(extractor, config, stop, progress)
}

impl<'a> Extraction<'a> {
    /// Features of items whose files lie below `root`, for the data folder `out`.
    pub fn new(items: &'a [MediaItem], root: impl AsRef<Path>, out: impl AsRef<Path>) -> Self {
        let (root, out) = (root.as_ref().to_path_buf(), out.as_ref().to_path_buf());
        Self { items, root, out, captions: None, set: None }
    }

    /// Also writes the captions of a file, line by line as they are there, without those of items
    /// that have no features. A file that is `captions.jsonl` of the data folder itself stays as it
    /// is.
    pub fn with_captions(mut self, file: impl Into<PathBuf>) -> Self {
        self.captions = Some(file.into());
        self
    }

    /// Also writes captions, splits and files of a published set.
    pub fn with_set(mut self, set: &'a PublishedSet) -> Self {
        self.set = Some(set);
        self
    }

    /// Checks all that can be known before the extraction, and changes nothing: ids, captions,
    /// splits and metadata, and what is in the data folder. Returns what captions, splits and
    /// metadata say about items that are not extracted; it will be passed over.
    ///
    /// # Errors
    /// As [`Extraction::run`].
    pub fn check(&self) -> Result<Vec<UnknownIds>> {
        let annotations = self.annotations()?;
        Outputs::new().reads([&self.root]).fills([&self.out]).check()?;
        let record = Record::read(&self.out)?;
        let finished = record.as_ref().is_some_and(|record| {
            record.run.items == self.items.len() && record.is_complete(&self.out)
        });
        if !finished {
            publish::check_free(&self.out, &annotations.names(), record.as_ref())?;
        }
        Ok(annotations.unknown)
    }

    fn annotations(&self) -> Result<Annotations<'a>> {
        let ids: Vec<&str> = self.items.iter().map(|item| item.id.as_str()).collect();
        let ids = ItemIds::new(&ids)?;
        Annotations::read(&self.out, self.captions.as_deref(), self.set, &ids)
    }

    /// Extracts what is not extracted yet, and writes the data folder.
    ///
    /// # Errors
    /// [`Error::Media`] without items, for items of several modalities, when the folder has an
    /// extraction of other items or by another extractor, or another program extracts into it, and
    /// when no item at all has features; [`Error::Output`] for a file that is in the way, and a
    /// disk with too little space; [`Error::Captions`] when no caption is about an item;
    /// [`Error::Io`] when a file cannot be written; [`Error::Interrupted`] when stopped, with what
    /// is done kept; [`Error::Config`] for parts of 0.
    pub fn run(
        &self,
        extractor: &(impl Extractor + ?Sized),
        config: &ExtractConfig,
        stop: &StopFlag,
        mut progress: impl FnMut(ExtractProgress),
    ) -> Result<Extracted> {
        let (items, root, out) = (self.items, &self.root, &self.out);
        let run = Run::of(items, extractor, config)?;
        let annotations = self.annotations()?;
        let folder = out.join(STATE);
        if let Some(made) = finished(out, &run)? {
            if folder.exists() && State::acquire(&folder)?.is_some() {
                fs::remove_dir_all(&folder).map_err(|e| Error::io("remove", &folder, e))?;
            }
            return Ok(made);
        }
        let record = Record::read(out)?;
        publish::check_free(out, &annotations.names(), record.as_ref())?;
        let bytes = State::bytes_missing(&folder, &run);
        Outputs::new().reads([root]).fills([out]).needs(out, bytes).prepare()?;
        let mut state = State::open(folder, run.clone())?;
        // Another program may have finished it in between.
        if let Some(made) = finished(out, &run)? {
            return state.remove().map(|()| made);
        }

        let (mut failed, mut ids) = (Vec::new(), Vec::new());
        let (mut done, mut resumed) = (0, 0);
        let mut shards: Vec<PathBuf> = Vec::new();
        for (number, part) in items.chunks(config.part).enumerate() {
            let kept = state.read(number, part)?;
            if stop.is_raised() && kept.as_ref().is_none_or(|kept| !kept.failed.is_empty()) {
                return Err(Error::interrupted(
                    "extraction",
                    format!("features of {} items", items.len()),
                    format!("a stop after {done}, which are kept in {}", state.folder().display()),
                    "start it again with the same settings to go on",
                ));
            }
            resumed += kept.as_ref().map_or(0, |kept| kept.ids.len());
            let made = state.finish(number, part, kept, root, extractor)?;
            done += part.len();
            shards.extend(made.rows.map(|rows| state.folder().join(rows)));
            ids.extend(made.ids);
            failed.extend(made.failed);
            progress(ExtractProgress { done, failed: failed.len(), total: items.len() });
        }
        if let (true, Some(first)) = (ids.is_empty(), failed.first()) {
            return Err(Error::media(
                root.display().to_string(),
                "at least one item with features",
                format!("none of {}; the first: {}", items.len(), first.message),
                "name the folder of the media, or mend its files; then start again",
            ));
        }
        let mut files = annotations.files(&failed)?;
        let captions_left_out = annotations.captions_left_out(&failed);
        let left_out = annotations.left_out(&failed)?;
        if !left_out.is_empty() {
            files.push(File::bytes(annotations::LEFT_OUT, left_out));
        }
        let count = shards.len();
        for (number, shard) in shards.into_iter().enumerate() {
            let name = match count {
                1 => "features.npy".into(),
                _ => format!("features-{number:05}-of-{count:05}.npy"),
            };
            files.push(File::linked(name, shard));
        }
        files.push(File::bytes("ids.txt", ItemIds::new(&ids)?.lines().into_bytes()));
        let made =
            Extracted { items: ids.len(), resumed, failed, captions_left_out, unchanged: false };
        publish(out, state, record, files, &made)?;
        Ok(made)
    }
}

/// What an earlier run made that is whole.
fn finished(out: &Path, run: &Run) -> Result<Option<Extracted>> {
    let Some(record) = Record::read(out)?.filter(|record| record.is_complete(out)) else {
        return Ok(None);
    };
    if record.run != *run {
        return Err(Error::media(
            out.display().to_string(),
            format!("a folder without features, or those of {}", run.shown()),
            format!("features of {}", record.run.shown()),
            "write to another folder, or remove the features that are there",
        ));
    }
    Ok(Some(Extracted {
        items: record.items,
        resumed: record.items,
        failed: record.failed,
        captions_left_out: 0,
        unchanged: true,
    }))
}

fn read_state<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = read_limited(path, LONGEST_STATE)?;
    serde_json::from_slice(&bytes).map_err(|e| {
        Error::media(
            path.display().to_string(),
            "the state of an extraction",
            e.to_string(),
            "remove this file, and the folder `extraction` next to the features, and start again",
        )
    })
}

fn to_json(state: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(state)
        .map_err(|e| Error::media("state of the extraction", "text", e.to_string(), "report this"))
}

fn write_state(path: &Path, state: &impl Serialize) -> Result<()> {
    write_bytes(path, &to_json(state)?)
}
