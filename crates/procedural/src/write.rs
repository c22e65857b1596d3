//! A benchmark as ordinary files.

use std::{
    fs,
    path::{Path, PathBuf},
};

use cart_media::{MediaItem, Modality};
use cart_retrieval::{
    Error, Result,
    cancel::Monitor,
    data::{self, Captions, Splits},
    members::{FileLock, write_bytes},
};
use rayon::prelude::*;
use serde::Serialize;

use super::{Benchmark, CaptionAudit, SplitCaptions};

/// The kind of captions to train on, in `captions.jsonl`.
pub const TRAINING: &str = "training";
/// The kind of captions to query with, in `captions.jsonl`.
pub const QUERY: &str = "query";
/// Shares of the candidates in each split.
const SPLITS: [(&str, f64); 3] = [("train", 0.8), ("val", 0.1), ("test", 0.1)];
/// Items that are drawn at once.
const PART: usize = 1024;

/// What [`write_benchmark`] wrote.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Written {
    /// Where the media of each item is, below the folder [`Written::media`].
    pub items: Vec<MediaItem>,
    /// The folder of the media.
    pub media: PathBuf,
    /// The captions, as they are in `captions.jsonl`.
    pub captions: SplitCaptions,
}

/// What a folder holds, in `benchmark.json`.
#[derive(Serialize)]
struct Manifest {
    modality: Modality,
    items: usize,
    seed: u64,
    audit: CaptionAudit,
}

/// Writes a benchmark to a new folder: media files in `media`, `captions.jsonl`, `splits.json`, and
/// `benchmark.json`, which says what it is.
///
/// Ids are the names of the media without extensions. Captions have the kind [`TRAINING`] or
/// [`QUERY`] (one of each item, which no training caption equals), and as their source `shared
/// templates` or `held-out templates`. Splits share the candidates out by the seed: eight tenths
/// `train`, a tenth `val`, a tenth `test`; use them to search for candidates that no caption was
/// trained on, and leave them aside to train on the training captions of all.
///
/// The folder is there when all of it is. `progress` is told how many items are drawn.
///
/// # Errors
/// [`Error::Media`] when the folder is there and not empty; [`Error::Io`] when a file cannot be
/// written; [`Error::Captions`] when an item has run out of words; [`Error::Interrupted`] when
/// stopped. Nothing is left behind then.
///
/// # Example
/// ```
/// use cart_media::{Descriptors, extract::Extraction};
/// use cart_procedural::{Sounds, SoundsConfig, write_benchmark};
/// use cart_retrieval::cancel::Monitor;
///
/// let folder = tempfile::tempdir().map_err(|e| cart_retrieval::Error::io("create", "folder", e))?;
/// let data = folder.path().join("sounds");
/// let sounds = Sounds::generate(&SoundsConfig::new(20))?;
/// let written = write_benchmark(&sounds, &data, &Monitor::new())?;
/// assert_eq!(written.items[3].path.to_str(), Some("sound-000003.wav"));
/// let descriptors = Descriptors::default();
/// let extraction = Extraction::new(&written.items, &written.media, &data);
/// extraction.run(&descriptors, &Default::default(), &Monitor::new())?;
/// assert_eq!(cart_retrieval::data::DataFolder::open(&data)?.items.len(), 20);
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
pub fn write_benchmark(
    benchmark: &dyn Benchmark,
    folder: impl AsRef<Path>,
    monitor: &Monitor<'_, usize>,
) -> Result<Written> {
    let folder = folder.as_ref();
    ensure_new(folder)?;
    let partial = Partial::create(folder)?;
    let mut written = fill(benchmark, &partial.path, monitor)?;
    partial.publish(folder)?;
    written.media = folder.join("media");
    Ok(written)
}

fn ensure_new(folder: &Path) -> Result<()> {
    let mut entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Error::io("read", folder, e)),
    };
    match entries.next() {
        None => Ok(()),
        Some(_) => Err(Error::media(folder.display().to_string())
            .expected("a folder that is new or empty")
            .found("one with files in it")
            .fix("write to another folder, or remove this one")),
    }
}

/// The file that says that a partial folder is being written: its writer holds a lock on it.
const LOCK: &str = "writing";

/// A folder next to the one to write, which is removed unless it was published.
struct Partial {
    path: PathBuf,
    lock: Option<FileLock>,
}

impl Partial {
    fn create(folder: &Path) -> Result<Self> {
        let Some(name) = folder.file_name() else {
            return Err(Error::media(folder.display().to_string())
                .expected("a path that ends in a folder's name")
                .found("none")
                .fix("name the folder to write"));
        };
        let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        fs::create_dir_all(parent).map_err(|e| Error::io("create", parent, e))?;
        let prefix = format!(".{}.", name.to_string_lossy());
        remove_abandoned(parent, &prefix)?;
        let path = parent.join(format!("{prefix}{}.partial", std::process::id()));
        fs::create_dir(&path).map_err(|e| Error::io("create", &path, e))?;
        let lock = path.join(LOCK);
        let lock = FileLock::acquire(&lock).map_err(|e| Error::io("lock", &lock, e))?;
        Ok(Self { path, lock })
    }

    /// Puts the folder in the place of an empty one or of none.
    fn publish(mut self, folder: &Path) -> Result<()> {
        let lock = self.path.join(LOCK);
        self.lock = None;
        fs::remove_file(&lock).map_err(|e| Error::io("remove", &lock, e))?;
        if folder.exists() {
            fs::remove_dir(folder).map_err(|e| Error::io("replace", folder, e))?;
        }
        fs::rename(&self.path, folder).map_err(|e| Error::io("create", folder, e))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // Nothing is there after a rename. An error cannot be reported from here.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Removes the partial folders of writers that were killed.
fn remove_abandoned(parent: &Path, prefix: &str) -> Result<()> {
    let entries = fs::read_dir(parent).map_err(|e| Error::io("read", parent, e))?;
    for entry in entries {
        let entry = entry.map_err(|e| Error::io("read", parent, e))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let process = name.strip_prefix(prefix).and_then(|rest| rest.strip_suffix(".partial"));
        let is_ours = process.is_some_and(|process| process.parse::<u32>().is_ok());
        if !is_ours || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let path = entry.path();
        if let Ok(Some(_lock)) = FileLock::acquire(&path.join(LOCK)) {
            fs::remove_dir_all(&path).map_err(|e| Error::io("remove", &path, e))?;
        }
    }
    Ok(())
}

fn fill(benchmark: &dyn Benchmark, folder: &Path, monitor: &Monitor<'_, usize>) -> Result<Written> {
    let media = folder.join("media");
    fs::create_dir(&media).map_err(|e| Error::io("create", &media, e))?;
    let (total, modality) = (benchmark.len(), benchmark.modality());
    let mut items = Vec::with_capacity(total);
    while items.len() < total {
        if monitor.is_stopped() {
            return Err(Error::interrupted("drawing a benchmark")
                .expected(format!("{total} items"))
                .found(format!("a stop after {}", items.len()))
                .fix("start it again"));
        }
        let part = items.len()..(items.len() + PART).min(total);
        let drawn: Vec<MediaItem> = part
            .into_par_iter()
            .map(|index| {
                let id = benchmark.id(index);
                let path = PathBuf::from(benchmark.draw(index, 0).write(&media, &id)?);
                Ok(MediaItem { id, path, modality, span: None })
            })
            .collect::<Result<_>>()?;
        items.extend(drawn);
        monitor.report(items.len());
    }
    let captions = benchmark.captions()?;
    caption_file(&items, &captions)?.to_jsonl(folder.join("captions.jsonl"))?;
    let ids: Vec<&str> = items.iter().map(|item| item.id.as_str()).collect();
    splits(&ids, benchmark.seed())?.to_json(folder.join("splits.json"))?;
    let audit = captions.audit;
    let manifest = Manifest { modality, items: total, seed: benchmark.seed(), audit };
    let json = serde_json::to_vec_pretty(&manifest).map_err(|e| {
        Error::media("benchmark.json").expected("text").found(e.to_string()).fix("report this")
    })?;
    write_bytes(folder.join("benchmark.json"), &json)?;
    Ok(Written { items, media, captions })
}

/// All captions, item by item, the query last.
fn caption_file(items: &[MediaItem], captions: &SplitCaptions) -> Result<Captions> {
    let mut all = Captions::new();
    let mut training = captions.training.iter().peekable();
    for (item, query) in items.iter().zip(&captions.queries) {
        let mut push = |caption: &super::Caption, kind: &str| {
            let source = if caption.held_out { "held-out templates" } else { "shared templates" };
            let caption = data::Caption::new(item.id.clone(), caption.text.clone());
            all.push(caption.with_kind(kind).with_source(source))
        };
        while let Some(caption) = training.next_if(|caption| caption.item == query.item) {
            push(caption, TRAINING)?;
        }
        push(query, QUERY)?;
    }
    Ok(all)
}

/// Candidates dealt out by the seed; all of them train where there are too few to share.
fn splits(ids: &[&str], seed: u64) -> Result<Splits> {
    match ids.len() {
        0..10 => Splits::from_ids([("train", ids.to_vec())]),
        _ => Splits::random(ids, &SPLITS, seed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Clips, ClipsConfig, Scenes, ScenesConfig, Sounds, SoundsConfig};
    use cart_media::{Descriptors, Sound, extract::Extraction, media_below, open_frames};
    use cart_retrieval::{
        data::{CaptionFilter, DataFolder},
        expert::audit,
        features::Features,
    };

    fn all(count: usize) -> [Box<dyn Benchmark>; 3] {
        [
            Box::new(Scenes::generate(&ScenesConfig::new(count)).unwrap()),
            Box::new(Sounds::generate(&SoundsConfig::new(count)).unwrap()),
            Box::new(Clips::generate(&ClipsConfig::new(count)).unwrap()),
        ]
    }

    #[test]
    fn what_a_killed_writer_left_is_removed_and_what_another_one_writes_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let [killed, working, other] =
            [".sounds.7.partial", ".sounds.8.partial", ".sounds.x.partial"].map(path);
        for partial in [&killed, &working, &other] {
            fs::create_dir_all(partial.join("media")).unwrap();
        }
        let lock = FileLock::acquire(&working.join(LOCK)).unwrap().unwrap();
        let sounds = Sounds::generate(&SoundsConfig::new(20)).unwrap();
        write_benchmark(&sounds, path("sounds"), &Monitor::new()).unwrap();
        assert!(!killed.exists() && working.exists() && other.exists());
        assert!(!path("sounds").join(LOCK).exists());
        drop(lock);
    }

    #[test]
    fn files_give_the_features_of_what_was_drawn() {
        let folder = tempfile::tempdir().unwrap();
        for benchmark in all(40) {
            let to = folder.path().join(benchmark.modality().to_string());
            let mut told = 0;
            let monitor = Monitor::new().with_progress(|done| told = done);
            let written = write_benchmark(&*benchmark, &to, &monitor).unwrap();
            drop(monitor);
            assert_eq!(told, 40);
            // As the program `extract files --stems` finds them.
            let mut found = media_below(&written.media, &[benchmark.modality()]).unwrap().items;
            for item in &mut found {
                item.id = item.path.with_extension("").to_string_lossy().into_owned();
            }
            assert_eq!(found, written.items);
            let descriptors = Descriptors::default();
            let config = Default::default();
            Extraction::new(&found, &written.media, &to)
                .run(&descriptors, &config, &Monitor::new())
                .unwrap();
            let features = Features::open(to.join("features.npy")).unwrap();
            assert_eq!(features.as_slice(), benchmark.rows(0..40).unwrap());

            let data = DataFolder::open(&to).unwrap();
            let kind =
                |kind: &str| CaptionFilter { kinds: vec![kind.into()], ..Default::default() };
            let (training, queries) =
                (data.select(&kind(TRAINING)).unwrap(), data.select(&kind(QUERY)).unwrap());
            let captions = benchmark.captions().unwrap();
            let same = |resolved: &[data::ItemCaption], drawn: &[super::super::Caption]| {
                resolved
                    .iter()
                    .map(|c| (c.item as usize, &c.text))
                    .eq(drawn.iter().map(|c| (c.item, &c.text)))
            };
            assert!(same(&training, &captions.training) && same(&queries, &captions.queries));
            assert_eq!(audit(&training, &queries).duplicates, 0);
            let splits = data.splits.unwrap();
            let lengths = ["train", "val", "test"].map(|name| splits.ids(name).unwrap().len());
            assert_eq!(lengths, [32, 4, 4]);
        }
    }

    #[test]
    fn wav_files_and_folders_of_frames_hold_the_very_samples_and_pixels() {
        let folder = tempfile::tempdir().unwrap();
        let sounds = Sounds::generate(&SoundsConfig::new(6)).unwrap();
        for tune in sounds.iter() {
            let path = folder.path().join("sound.wav");
            fs::write(&path, tune.render().to_wav().unwrap()).unwrap();
            assert_eq!(Sound::open(&path).unwrap(), tune.render());
        }
        // Other samples come back within a step of 16 bits.
        let samples: Vec<f32> = (0..999).map(|i| (i as f32 * 0.37).sin() * 1.1).collect();
        let sound = Sound::new(22_050, samples).unwrap();
        let path = folder.path().join("sine.wav");
        fs::write(&path, sound.to_wav().unwrap()).unwrap();
        let found = Sound::open(&path).unwrap();
        assert_eq!((found.rate(), found.samples().len()), (22_050, 999));
        for (found, sample) in found.samples().iter().zip(sound.samples()) {
            assert!((found - sample.clamp(-1.0, 1.0)).abs() <= 1.0 / 32_768.0);
        }
        let clips = Clips::generate(&ClipsConfig::new(3).with_frames(12)).unwrap();
        for (index, clip) in clips.iter().enumerate() {
            let name = clips.draw(index, 0).write(folder.path(), &clip.id()).unwrap();
            assert_eq!(open_frames(folder.path().join(name), 12).unwrap(), clip.render());
        }
    }

    #[test]
    fn a_folder_that_is_there_is_kept_and_a_stop_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let [_, sounds, _] = all(3);
        let to = folder.path().join("sounds");
        fs::create_dir(&to).unwrap();
        fs::write(to.join("mine.txt"), "kept").unwrap();
        let stop = cart_retrieval::cancel::StopFlag::new();
        let monitor = Monitor::new().with_stop(&stop);
        let error = write_benchmark(&*sounds, &to, &monitor).unwrap_err();
        assert!(error.to_string().contains("new or empty"), "{error}");
        fs::remove_file(to.join("mine.txt")).unwrap();
        write_benchmark(&*sounds, &to, &monitor).unwrap();
        assert!(to.join("benchmark.json").is_file());
        assert!(write_benchmark(&*sounds, &to, &monitor).is_err());
        stop.raise();
        let error = write_benchmark(&*sounds, folder.path().join("other"), &monitor);
        assert!(matches!(error, Err(Error::Interrupted { .. })), "{error:?}");
        let left: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["sounds"]);
    }
}
