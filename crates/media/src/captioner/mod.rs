//! Caption enhancement: a [`Captioner`] writes captions for candidates that have none.
//!
//! The method trains on descriptions of every candidate, test candidates included (CART, section on
//! training data). Two captioners are built in. [`RetrievalCaptioner`] gives a candidate the
//! captions of the candidates nearest to it in the feature space. [`CommandCaptioner`] runs a
//! program: one around BLIP, or anything that reads paths and writes JSON lines. They return
//! [`Captions`] of the kind `generated`, with a source and a weight, which are stored next to human
//! captions and read together with them ([`Captions::extend`]).

mod command;
mod neighbours;
mod retrieval;

pub use cart_retrieval::expert::GENERATED;
pub use command::{CommandCaptioner, CommandConfig};
pub use neighbours::Metric;
pub use retrieval::{RetrievalCaptioner, RetrievalConfig};

use std::path::Path;

use cart_retrieval::{
    Error, Result,
    cancel::Monitor,
    data::{Caption, Captions},
    features::{Features, ItemIds},
};

use crate::media::MediaItem;

/// What describes candidates.
///
/// # Example
/// A captioner of one's own; [`Captioned::push`] puts kind, source and weight in place.
/// ```
/// use cart_media::captioner::*;
/// use cart_retrieval::{Result, cancel::Monitor};
///
/// struct FileNames;
///
/// impl Captioner for FileNames {
///     fn source(&self) -> &str {
///         "file names"
///     }
///
///     fn caption(
///         &self,
///         job: &CaptionJob,
///         _: &Monitor<'_, CaptionProgress>,
///     ) -> Result<Captioned> {
///         let mut made = Captioned::default();
///         for id in job.ids() {
///             made.push(self.source(), id, &id.replace(['_', '.'], " "), 1.0)?;
///         }
///         Ok(made)
///     }
/// }
///
/// let job = CaptionJob::new(&["two_dogs.jpg"])?;
/// let made = FileNames.caption(&job, &Monitor::new())?;
/// let caption = made.captions.iter().next().unwrap();
/// assert_eq!((caption.text.as_str(), caption.kind.as_deref()), ("two dogs jpg", Some("generated")));
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
pub trait Captioner {
    /// Its name, the source of its captions.
    fn source(&self) -> &str;

    /// Captions of the items of a job, in their order, each of the kind [`GENERATED`].
    ///
    /// # Errors
    /// What keeps it from working; [`Error::Interrupted`] when stopped. An item without a caption
    /// is no error.
    fn caption(
        &self,
        job: &CaptionJob,
        monitor: &Monitor<'_, CaptionProgress>,
    ) -> Result<Captioned>;
}

/// How far a captioner is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CaptionProgress {
    /// Items that are done, those of an earlier run included.
    pub done: usize,
    /// Of them, those without a caption.
    pub without: usize,
    /// All items.
    pub total: usize,
}

/// Items to describe: their ids, and what is known about them.
///
/// Invariant: files and features, where given, are those of the ids, in their order.
#[derive(Debug, Clone)]
pub struct CaptionJob {
    ids: ItemIds,
    media: Option<Vec<MediaItem>>,
    features: Option<Features>,
}

impl CaptionJob {
    /// A job about some items.
    ///
    /// # Errors
    /// [`Error::Ids`] for an id that is blank or occurs twice.
    pub fn new<S: AsRef<str>>(ids: &[S]) -> Result<Self> {
        Ok(Self { ids: ItemIds::new(ids)?, media: None, features: None })
    }

    /// Tells the files of the items, below a folder; files of other items may be among them.
    ///
    /// # Errors
    /// [`Error::Captions`] for an item without a file, or with one whose path is not UTF-8.
    pub fn with_media(mut self, root: impl AsRef<Path>, media: &[MediaItem]) -> Result<Self> {
        let root = root.as_ref();
        let mut found: Vec<Option<MediaItem>> = vec![None; self.ids.len()];
        for item in media {
            if let Some(place) = self.ids.index_of(&item.id) {
                found[place] = Some(MediaItem { path: root.join(&item.path), ..item.clone() });
            }
        }
        let mut all = Vec::with_capacity(found.len());
        for (id, item) in self.ids.iter().zip(found) {
            let missing = |expected: &str, found: String, remedy: &str| {
                Error::captions("items to describe").expected(expected).found(found).fix(remedy)
            };
            let item = item.ok_or_else(|| {
                let found = format!("none for `{id}` in {}", root.display());
                missing("a file for each", found, "name its file in media.jsonl, or leave it out")
            })?;
            if item.path.to_str().is_none() {
                let found = format!("{:?} of `{id}`", item.path);
                return Err(missing("names of files in UTF-8", found, "rename the file"));
            }
            all.push(item);
        }
        self.media = Some(all);
        Ok(self)
    }

    /// Tells the features of the items; those of other items may be among them.
    ///
    /// # Errors
    /// [`Error::Features`] for an item without features.
    pub fn with_features(mut self, features: &Features) -> Result<Self> {
        let row = |id: &str| {
            features.index_of(id).ok_or_else(|| {
                Error::features("items to describe")
                    .expected("a row of features for each")
                    .found(format!("none for `{id}`"))
                    .fix("extract its features, or leave the item out")
            })
        };
        let rows = self.ids.iter().map(row).collect::<Result<Vec<usize>>>()?;
        self.features = Some(features.select(&rows));
        Ok(self)
    }

    /// Ids of the items.
    pub fn ids(&self) -> impl ExactSizeIterator<Item = &str> {
        self.ids.iter()
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Files of the items, where they are known.
    pub fn media(&self) -> Option<&[MediaItem]> {
        self.media.as_deref()
    }

    /// Features of the items, where they are known.
    pub fn features(&self) -> Option<&Features> {
        self.features.as_ref()
    }
}

/// What a captioner made.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Captioned {
    /// The captions, in the order of the items.
    pub captions: Captions,
    /// Ids of the items that got none.
    pub without: Vec<String>,
    /// Items that an earlier run had done.
    pub resumed: usize,
}

impl Captioned {
    /// Adds a caption of the kind [`GENERATED`].
    ///
    /// # Errors
    /// As [`Captions::push`].
    pub fn push(&mut self, source: &str, id: &str, text: &str, weight: f32) -> Result<()> {
        let caption = Caption::new(id, text).with_kind(GENERATED).with_source(source);
        self.captions.push(caption.with_weight(weight))
    }
}

/// Checks a weight of a captioner's settings.
fn check_weight(weight: f32) -> Result<()> {
    if weight.is_finite() && weight > 0.0 {
        return Ok(());
    }
    Err(Error::config("weight of the captioner")
        .expected("a finite number above 0")
        .found(weight.to_string())
        .fix("1 counts its captions like human ones, a smaller weight less"))
}
