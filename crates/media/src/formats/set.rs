//! A published set, read.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
};

use cart_retrieval::{
    Error, Result,
    data::{Caption, Captions, Splits},
    features::ItemIds,
    members::{fs, write_bytes},
};

use crate::media::{MediaItem, Modality};

/// Items, captions and splits of a published data set.
///
/// # Example
/// ```no_run
/// use cart_media::formats::karpathy;
/// let set = karpathy("dataset_flickr30k.json")?;
/// println!("{} images, {} captions", set.items().len(), set.captions().len());
/// set.check_media("flickr30k-images")?;
/// set.write("my-data")?;
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct PublishedSet {
    items: Vec<MediaItem>,
    captions: Captions,
    splits: Splits,
    left_out: Vec<String>,
}

impl PublishedSet {
    /// Name of the file of media that [`PublishedSet::write`] writes.
    pub const MEDIA: &'static str = "media.jsonl";

    /// The items, in the order in which the set names them first.
    pub fn items(&self) -> &[MediaItem] {
        &self.items
    }

    /// Their captions, in the order of the set.
    pub fn captions(&self) -> &Captions {
        &self.captions
    }

    /// The splits, by the names `train`, `val` and `test` where the set has them.
    pub fn splits(&self) -> &Splits {
        &self.splits
    }

    /// What the files hold and was not taken: blank captions, other languages. One text for each
    /// reason and file.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// Checks that every item's file is below a folder.
    ///
    /// # Errors
    /// [`Error::Captions`] that counts the missing files and names the first.
    pub fn check_media(&self, folder: impl AsRef<Path>) -> Result<()> {
        let folder = folder.as_ref();
        let missing: Vec<&MediaItem> =
            self.items.iter().filter(|item| !folder.join(&item.path).exists()).collect();
        match missing.first() {
            None => Ok(()),
            Some(first) => Err(Error::captions(folder.display().to_string())
                .expected(format!("the files of {} items", self.items.len()))
                .found(format!("{} missing, the first is {}", missing.len(), first.path.display()))
                .fix("download them, name their folder, or keep the others with `retain_media`")),
        }
    }

    /// Leaves out the items whose files are not below a folder, as happens with videos that have
    /// vanished, and their captions. Returns the ids of those that were left out.
    ///
    /// # Errors
    /// [`Error::Captions`] when no item is left; [`Error::Splits`] when a split has none left.
    pub fn retain_media(&mut self, folder: impl AsRef<Path>) -> Result<Vec<String>> {
        let folder = folder.as_ref();
        let (kept, gone): (Vec<_>, Vec<_>) =
            self.items.iter().cloned().partition(|item| folder.join(&item.path).exists());
        if kept.is_empty() {
            return Err(Error::captions(folder.display().to_string())
                .expected(format!("files of the {} items", self.items.len()))
                .found("none of them")
                .fix("name their folder"));
        }
        let gone: Vec<String> = gone.into_iter().map(|item| item.id).collect();
        let lost: HashSet<&str> = gone.iter().map(String::as_str).collect();
        let mut captions = Captions::new();
        for caption in self.captions.iter().filter(|c| !lost.contains(c.id.as_str())) {
            captions.push(caption.clone())?;
        }
        let split = |name: &str| -> Result<(String, Vec<String>)> {
            let ids = self.splits.ids(name)?.iter().filter(|id| !lost.contains(id.as_str()));
            let ids: Vec<String> = ids.cloned().collect();
            if ids.is_empty() {
                return Err(Error::splits(name)
                    .expected("an item whose file is there")
                    .found("none")
                    .fix("fetch its files, or name their folder"));
            }
            Ok((name.to_string(), ids))
        };
        let splits = self.splits.names().map(split).collect::<Result<Vec<_>>>()?;
        let splits = Splits::from_ids(splits)?;
        drop(lost);
        (self.items, self.captions, self.splits) = (kept, captions, splits);
        Ok(gone)
    }

    /// Writes `ids.txt`, `captions.jsonl`, `splits.json`, and `media.jsonl` with the file of every
    /// item, into a folder that is made where there is none. Each file is replaced whole or not at
    /// all.
    ///
    /// # Errors
    /// [`Error::Io`] when a file cannot be written.
    pub fn write(&self, folder: impl AsRef<Path>) -> Result<()> {
        let folder = folder.as_ref();
        let files = self.files(&|_| false)?;
        let ids: Vec<&str> = self.items.iter().map(|item| item.id.as_str()).collect();
        let ids = ItemIds::new(&ids)?;
        fs::create_dir_all(folder).map_err(|e| Error::io("create", folder, e))?;
        ids.save(folder.join("ids.txt"))?;
        files.iter().try_for_each(|(name, bytes)| write_bytes(folder.join(name), bytes))
    }

    /// Names and contents of `captions.jsonl`, `splits.json` and `media.jsonl`, without some items.
    pub(crate) fn files(
        &self,
        gone: &dyn Fn(&str) -> bool,
    ) -> Result<Vec<(&'static str, Vec<u8>)>> {
        let mut media = String::new();
        for item in self.items.iter().filter(|item| !gone(&item.id)) {
            media.push_str(&serde_json::to_string(item).map_err(|e| {
                let remedy = "rename the file to a name in UTF-8";
                Error::captions("media").expected("paths in UTF-8").found(e.to_string()).fix(remedy)
            })?);
            media.push('\n');
        }
        let captions = self.captions.filter(|caption| !gone(&caption.id));
        let splits = self.splits.clone().without(gone)?;
        Ok(vec![
            ("captions.jsonl", captions.to_lines()?),
            ("splits.json", splits.to_bytes()?),
            (Self::MEDIA, media.into_bytes()),
        ])
    }
}

/// A set while it is read.
pub(super) struct Builder {
    modality: Modality,
    items: Vec<MediaItem>,
    rows: HashMap<String, usize>,
    captions: Captions,
    splits: Vec<(String, Vec<String>)>,
    left_out: Vec<String>,
}

impl Builder {
    pub(super) fn new(modality: Modality) -> Self {
        Self {
            modality,
            items: Vec::new(),
            rows: HashMap::new(),
            captions: Captions::new(),
            splits: Vec::new(),
            left_out: Vec::new(),
        }
    }

    /// Adds an item; `at` says where the set names it.
    pub(super) fn item(
        &mut self,
        at: impl Fn() -> String,
        id: &str,
        path: impl Into<PathBuf>,
        span: Option<(f64, f64)>,
    ) -> Result<()> {
        if self.rows.contains_key(id) {
            return Err(Error::captions(at())
                .expected("an item that was not named before")
                .found(format!("`{id}` again"))
                .fix("correct the file, or download it again"));
        }
        self.rows.insert(id.to_string(), self.items.len());
        let (id, path) = (id.to_string(), path.into());
        self.items.push(MediaItem { id, path, modality: self.modality, span });
        Ok(())
    }

    pub(super) fn has(&self, id: &str) -> bool {
        self.rows.contains_key(id)
    }

    /// Puts an item into a split.
    pub(super) fn assign(&mut self, split: &str, id: &str) {
        match self.splits.iter_mut().find(|(name, _)| name == split) {
            Some((_, ids)) => ids.push(id.to_string()),
            None => self.splits.push((split.to_string(), vec![id.to_string()])),
        }
    }

    /// Adds a caption of people's, unless it is blank; says whether it was added.
    pub(super) fn caption(&mut self, id: &str, text: &str, idx: Option<i64>) -> Result<bool> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(false);
        }
        let mut caption = Caption::new(id, text).with_kind("human");
        caption.idx = idx;
        self.captions.push(caption)?;
        Ok(true)
    }

    /// Notes that something was not taken.
    pub(super) fn leave_out(&mut self, file: &Path, count: usize, what: &str) {
        if count > 0 {
            self.left_out.push(format!("{}: {count} {what}", file.display()));
        }
    }

    /// The set, checked; splits in the order train, val, test, others.
    pub(super) fn finish(mut self, file: &Path) -> Result<PublishedSet> {
        if self.captions.is_empty() {
            return Err(Error::captions(file.display().to_string())
                .expected("items with captions")
                .found(format!("{} items and no caption", self.items.len()))
                .fix("download the file again"));
        }
        let place = |name: &str| ["train", "val", "test"].iter().position(|known| *known == name);
        self.splits.sort_by_key(|(name, _)| place(name).unwrap_or(usize::MAX));
        let splits = Splits::from_ids(self.splits)?;
        let ids: Vec<&str> = self.items.iter().map(|item| item.id.as_str()).collect();
        ItemIds::new(&ids)?;
        splits.verify(|id| self.rows.get(id).copied())?;
        let (items, captions, left_out) = (self.items, self.captions, self.left_out);
        Ok(PublishedSet { items, captions, splits, left_out })
    }
}
