//! From files of media to the features of a data folder.

use std::path::{Path, PathBuf};

use cart_retrieval::{
    Error, Result,
    cancel::Monitor,
    features::ItemIds,
    members::{Outputs, fs},
};

use super::{
    annotations::{Annotations, LEFT_OUT},
    publish::{File, Record, check_free, publish},
    report::{ExtractConfig, ExtractProgress, Extracted, UnknownIds},
    state::{Run, STATE, State},
};
use crate::{
    formats::PublishedSet,
    media::{Extractor, MediaItem},
};

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
/// there stay as they are, and [`DataFolder`](cart_retrieval::data::DataFolder) passes over what
/// they say about the items of `left-out.jsonl`.
///
/// A file of media that is broken or missing is passed over and named in the end. One part of the
/// items is in memory at a time, and kept in `extraction` in the data folder as soon as it is done:
/// a run that was stopped or killed goes on from there, and tries again what failed. The same
/// extraction over a finished folder changes nothing.
///
/// # Example
/// ```no_run
/// use cart_media::{Descriptors, MediaItem, extract::{ExtractProgress, Extraction}};
/// use cart_retrieval::cancel::Monitor;
/// # let items: Vec<MediaItem> = Vec::new();
/// let extraction = Extraction::new(&items, "pictures", "my-data").with_captions("captions.jsonl");
/// for unknown in extraction.check()? {
///     println!("{}: {} captions of other items", unknown.file.display(), unknown.entries);
/// }
/// let descriptors = Descriptors::default();
/// let monitor = Monitor::new().with_progress(|at: ExtractProgress| println!("{}", at.done));
/// let made = extraction.run(&descriptors, &Default::default(), &monitor)?;
/// for failure in &made.failed {
///     println!("{}: {}", failure.id, failure.message);
/// }
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
            check_free(&self.out, &annotations.names(), record.as_ref())?;
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
        monitor: &Monitor<'_, ExtractProgress>,
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
        check_free(out, &annotations.names(), record.as_ref())?;
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
            if monitor.is_stopped() && kept.as_ref().is_none_or(|kept| !kept.failed.is_empty()) {
                return Err(Error::interrupted("extraction")
                    .expected(format!("features of {} items", items.len()))
                    .found(format!(
                        "a stop after {done}, which are kept in {}",
                        state.folder().display()
                    ))
                    .fix("start it again with the same settings to continue"));
            }
            resumed += kept.as_ref().map_or(0, |kept| kept.ids.len());
            let made = state.finish(number, part, kept, root, extractor)?;
            done += part.len();
            shards.extend(made.rows.map(|rows| state.folder().join(rows)));
            ids.extend(made.ids);
            failed.extend(made.failed);
            monitor.report(ExtractProgress { done, failed: failed.len(), total: items.len() });
        }
        if let (true, Some(first)) = (ids.is_empty(), failed.first()) {
            return Err(Error::media(root.display().to_string())
                .expected("at least one item with features")
                .found(format!("none of {}; the first: {}", items.len(), first.message))
                .fix("name the media folder, or repair its files; then start again"));
        }
        let mut files = annotations.files(&failed)?;
        let captions_left_out = annotations.captions_left_out(&failed);
        let left_out = annotations.left_out(&failed)?;
        if !left_out.is_empty() {
            files.push(File::bytes(LEFT_OUT, left_out));
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
        return Err(Error::media(out.display().to_string())
            .expected(format!("a folder without features, or those of {}", run.shown()))
            .found(format!("features of {}", record.run.shown()))
            .fix("write to another folder, or remove the existing features"));
    }
    Ok(Some(Extracted {
        items: record.items,
        resumed: record.items,
        failed: record.failed,
        captions_left_out: 0,
        unchanged: true,
    }))
}
