//! A folder in the data contract: features, ids, captions, splits.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{CaptionFilter, Captions, GENERATED, ItemCaption, Splits};
use crate::{
    error::{Error, Result},
    features::{Features, ItemIds, ShardedFeatures, shard_names},
    metadata::ItemMetadata,
    storage::read_limited,
};

/// The longest list of items left out that is read.
const LONGEST: u64 = 1 << 32;

/// Candidates and captions of a folder: `features.npy` (or `.npz`, `.safetensors`), `ids.txt`,
/// `captions.jsonl` and, where there are any, `splits.json` and `metadata.jsonl`.
///
/// Features may lie in several files, `features-00000-of-00008.npy` to
/// `features-00007-of-00008.npy` (or `.safetensors`), and so may ids, `ids-00000-of-00008.txt` and
/// so on. [`DataFolder::open`] gives one matrix in any case; [`DataFolder::open_sharded`] leaves
/// the rows in their files.
///
/// Captions, splits and metadata of the items in `left-out.jsonl` are ignored. An extraction lists
/// items without features there.
///
/// # Example
/// ```no_run
/// use cart_retrieval::data::DataFolder;
/// let data = DataFolder::open("my-data")?;
/// println!("{} candidates, {} captions", data.items.len(), data.captions.len());
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct DataFolder<I = Features> {
    /// The candidates' embeddings and ids, checked.
    pub items: I,
    /// All captions.
    pub captions: Captions,
    /// The splits, if the folder has any.
    pub splits: Option<Splits>,
    /// The metadata of the candidates, if the folder has any.
    pub metadata: Option<ItemMetadata>,
    folder: PathBuf,
}

impl<I> DataFolder<I> {
    /// The folder that was opened; empty for data in memory.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl DataFolder {
    /// Opens and checks a folder; shards are joined in memory.
    ///
    /// # Errors
    /// [`Error::Io`] for a missing file; [`Error::Features`], [`Error::Ids`], [`Error::Captions`],
    /// [`Error::Splits`] or [`Error::Metadata`] for one that is malformed or contradicts the
    /// others.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        let items = match features_of(folder)? {
            Found::One(path) => Features::open(path)?.with_ids(folder.join("ids.txt"))?,
            Found::Shards(paths) => named(folder, ShardedFeatures::open(&paths)?)?.in_memory()?,
        };
        items.check()?;
        let (captions, splits) = texts(folder, items.ids())?;
        let metadata = metadata(folder, items.ids())?;
        Ok(Self { items, captions, splits, metadata, folder: folder.to_path_buf() })
    }

    /// Data in memory.
    ///
    /// # Errors
    /// As [`Features::check`]; [`Error::Captions`] for a caption of an item that has no features.
    ///
    /// # Example
    /// ```
    /// use cart_retrieval::{data::{Captions, DataFolder}, features::Features};
    /// let items = Features::from_rows(vec![1.0, 0.0, 0.0, 1.0], 2)?.with_id_list(vec!["a".into(), "b".into()])?;
    /// let captions = Captions::from_pairs([("a", "a cat"), ("b", "a dog")])?;
    /// assert_eq!(DataFolder::new(items, captions)?.captions.len(), 2);
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn new(items: Features, captions: Captions) -> Result<Self> {
        items.check()?;
        captions.resolve(|id| items.index_of(id))?;
        Ok(Self { items, captions, splits: None, metadata: None, folder: PathBuf::new() })
    }

    /// The captions that a filter keeps, with the rows of their candidates.
    ///
    /// # Errors
    /// As [`Captions::select`].
    pub fn select(&self, filter: &CaptionFilter) -> Result<Vec<ItemCaption>> {
        self.captions.select(filter)?.resolve(|id| self.items.index_of(id))
    }

    /// Generated captions from a separate file, with the rows of their candidates. They are for
    /// training only: filters of [`DataFolder::captions`] do not see them.
    ///
    /// # Errors
    /// As [`Captions::from_jsonl`] and [`Captions::resolve`]; [`Error::Captions`] for a caption of
    /// another kind than [`GENERATED`], which might be a test query.
    ///
    /// # Example
    /// ```no_run
    /// use cart_retrieval::{data::DataFolder, prelude::CaptionFilter};
    /// let data = DataFolder::open("my-data")?;
    /// let mut train = data.select(&CaptionFilter::default())?;
    /// train.extend(data.generated("my-data/generated.jsonl")?);
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn generated(&self, path: impl AsRef<Path>) -> Result<Vec<ItemCaption>> {
        let captions = Captions::from_jsonl(&path)?;
        let other = captions.iter().find(|caption| caption.kind.as_deref() != Some(GENERATED));
        if let Some(other) = other {
            let kind = other.kind.as_ref().map_or("none".into(), |kind| format!("`{kind}`"));
            return Err(Error::captions(path.as_ref().display().to_string())
                .expected(format!("captions of the kind `{GENERATED}`"))
                .found(format!("{:?} of `{}`, whose kind is {kind}", other.text, other.id))
                .fix("give the file of a captioner; human captions belong in captions.jsonl"));
        }
        captions.resolve(|id| self.items.index_of(id))
    }
}

impl DataFolder<ShardedFeatures> {
    /// Opens and checks a folder whose features stay in their files, read once for the check.
    ///
    /// One `features.npy` or `features.safetensors` counts as one shard.
    ///
    /// # Errors
    /// As [`DataFolder::open`].
    ///
    /// # Example
    /// ```no_run
    /// use cart_retrieval::data::DataFolder;
    /// let data = DataFolder::open_sharded("my-data")?;
    /// println!("{} candidates in {} files", data.items.len(), data.items.shards());
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn open_sharded(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        let paths = match features_of(folder)? {
            Found::One(path) => vec![path],
            Found::Shards(paths) => paths,
        };
        let items = named(folder, ShardedFeatures::open(&paths)?)?;
        items.check()?;
        let (captions, splits) = texts(folder, items.ids())?;
        let metadata = metadata(folder, items.ids())?;
        Ok(Self { items, captions, splits, metadata, folder: folder.to_path_buf() })
    }

    /// The captions that a filter keeps, with the rows of their candidates.
    ///
    /// # Errors
    /// As [`Captions::select`].
    pub fn select(&self, filter: &CaptionFilter) -> Result<Vec<ItemCaption>> {
        self.captions.select(filter)?.resolve(|id| self.items.index_of(id))
    }
}

/// Further information of a folder about its candidates.
fn metadata(folder: &Path, ids: &ItemIds) -> Result<Option<ItemMetadata>> {
    let path = folder.join("metadata.jsonl");
    if !path.exists() {
        return Ok(None);
    }
    let left_out = left_out(folder, ids)?;
    ItemMetadata::from_jsonl_without(path, ids, &|id| left_out.contains(id)).map(Some)
}

/// Ids of items without features, which other files may still mention.
fn left_out(folder: &Path, ids: &ItemIds) -> Result<HashSet<String>> {
    #[derive(Deserialize)]
    struct Line {
        id: String,
    }
    let path = folder.join("left-out.jsonl");
    if !path.exists() {
        return Ok(HashSet::new());
    }
    let bytes = read_limited(&path, LONGEST)?;
    let lines = bytes.split(|&byte| byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
    let mut left_out = HashSet::new();
    for line in lines {
        let Line { id } = serde_json::from_slice(line).map_err(|e| {
            Error::ids(path.display().to_string())
                .expected("a JSON object with an `id` on each line")
                .found(e.to_string())
                .fix(
                    "remove the file, and the entries of captions, splits and metadata about items \
                 without features",
                )
        })?;
        if ids.index_of(&id).is_none() {
            left_out.insert(id);
        }
    }
    Ok(left_out)
}

/// Captions and splits of a folder; all of their ids exist.
fn texts(folder: &Path, ids: &ItemIds) -> Result<(Captions, Option<Splits>)> {
    let left_out = left_out(folder, ids)?;
    let mut captions = Captions::from_jsonl(folder.join("captions.jsonl"))?;
    captions.retain(|caption| !left_out.contains(&caption.id));
    captions.resolve(|id| ids.index_of(id))?;
    let path = folder.join("splits.json");
    if !path.exists() {
        return Ok((captions, None));
    }
    let splits = Splits::from_json(&path)?.without(&|id| left_out.contains(id))?;
    splits.verify(|id| ids.index_of(id))?;
    Ok((captions, Some(splits)))
}

/// Shards with the ids of a folder: those of `ids.txt`, or of one file for each shard.
fn named(folder: &Path, items: ShardedFeatures) -> Result<ShardedFeatures> {
    let whole = folder.join("ids.txt");
    match shard_names::find(folder, &shard_names::IDS)? {
        Some(_) if whole.exists() => Err(Error::ids(folder.display().to_string())
            .expected("ids.txt or a file of ids for each shard")
            .found("both")
            .fix("remove the one that is out of date")),
        Some(paths) => items.with_id_files(&paths),
        None => items.with_ids(whole),
    }
}

/// The features of a folder.
enum Found {
    One(PathBuf),
    Shards(Vec<PathBuf>),
}

/// Finds the one feature file of a folder, or its shards.
fn features_of(folder: &Path) -> Result<Found> {
    let mut found: Vec<PathBuf> = ["npy", "npz", "safetensors"]
        .iter()
        .map(|extension| folder.join("features").with_extension(extension))
        .filter(|path| path.exists())
        .collect();
    // A folder that is not there is reported as its missing file.
    let shards =
        if folder.is_dir() { shard_names::find(folder, &shard_names::FEATURES)? } else { None };
    match (found.len(), shards) {
        (1, None) => Ok(Found::One(found.remove(0))),
        (0, Some(paths)) => Ok(Found::Shards(paths)),
        (0, None) => Err(Error::io(
            "read",
            folder.join("features.npy"),
            std::io::Error::from(std::io::ErrorKind::NotFound),
        )),
        (several, shards) => Err(Error::features(folder.display().to_string())
            .expected(
                "one of features.npy, features.npz, features.safetensors and \
             features-00000-of-...",
            )
            .found(format!("{} of them", several + usize::from(shards.is_some())))
            .fix("remove the ones that are out of date")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let items = Features::from_rows(vec![1.0, 2.0, 3.0, 4.0], 2)
            .unwrap()
            .with_id_list(vec!["a".into(), "b".into()])
            .unwrap();
        items.save_npy(folder.path().join("features.npy")).unwrap();
        items.save_ids(folder.path().join("ids.txt")).unwrap();
        let captions = Captions::from_pairs([("a", "one"), ("b", "two"), ("b", "three")]).unwrap();
        captions.to_jsonl(folder.path().join("captions.jsonl")).unwrap();
        folder
    }

    #[test]
    fn a_whole_folder_opens_and_resolves_its_captions() {
        let folder = folder();
        let data = DataFolder::open(folder.path()).unwrap();
        assert!(data.splits.is_none());
        let last = data.select(&CaptionFilter { last: true, ..Default::default() }).unwrap();
        assert_eq!((last.len(), last[1].item, last[1].text.as_str()), (2, 1, "three"));
        std::fs::write(folder.path().join("splits.json"), r#"{"train": ["a"]}"#).unwrap();
        assert!(DataFolder::open(folder.path()).unwrap().splits.is_some());
    }

    #[test]
    fn a_folder_of_shards_opens_as_one_matrix_or_in_pieces() {
        let folder = folder();
        let path = |name: &str| folder.path().join(name);
        let whole = DataFolder::open(folder.path()).unwrap();
        let one = DataFolder::open_sharded(folder.path()).unwrap();
        assert_eq!((one.items.shards(), one.items.len()), (1, 2));
        assert_eq!(one.items.ids(), whole.items.ids());

        for item in 0..2 {
            let name = format!("features-{item:05}-of-00002.npy");
            whole.items.select(&[item]).save_npy(path(&name)).unwrap();
        }
        let error = DataFolder::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("2 of them"), "{error}");
        std::fs::remove_file(path("features.npy")).unwrap();
        let filter = CaptionFilter { last: true, ..Default::default() };
        let same = || {
            let joined = DataFolder::open(folder.path()).unwrap();
            let pieces = DataFolder::open_sharded(folder.path()).unwrap();
            assert_eq!(joined.items.as_slice(), whole.items.as_slice());
            assert_eq!(joined.items.ids(), whole.items.ids());
            assert_eq!((pieces.items.shards(), pieces.items.len()), (2, 2));
            assert_eq!(pieces.items.ids(), whole.items.ids());
            assert_eq!(pieces.select(&filter).unwrap(), whole.select(&filter).unwrap());
        };
        same();
        std::fs::write(path("ids-0-of-2.txt"), "a\n").unwrap();
        std::fs::write(path("ids-1-of-2.txt"), "b\n").unwrap();
        let error = DataFolder::open_sharded(folder.path()).unwrap_err().to_string();
        assert!(error.contains("both"), "{error}");
        std::fs::remove_file(path("ids.txt")).unwrap();
        same();
        std::fs::remove_file(path("features-00001-of-00002.npy")).unwrap();
        let error = DataFolder::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("features-00001-of-00002"), "{error}");
    }

    #[test]
    fn captions_of_captioners_are_kept_apart() {
        let folder = folder();
        let data = DataFolder::open(folder.path()).unwrap();
        let path = folder.path().join("generated.jsonl");
        let mut line = r#"{"id": "b", "caption": "four", "kind": "generated", "weight": 0.5}"#;
        std::fs::write(&path, line).unwrap();
        let found = data.generated(&path).unwrap();
        assert_eq!((found[0].item, found[0].text.as_str(), found[0].weight), (1, "four", 0.5));
        let refused = |line: &str| {
            std::fs::write(&path, line).unwrap();
            data.generated(&path).unwrap_err().to_string()
        };
        line = r#"{"id": "b", "caption": "four", "kind": "human"}"#;
        assert!(refused(line).contains("whose kind is `human`"));
        assert!(refused(r#"{"id": "b", "caption": "four"}"#).contains("whose kind is none"));
        line = r#"{"id": "z", "caption": "four", "kind": "generated"}"#;
        assert!(refused(line).contains("\"z\""));
        let own = data.generated(folder.path().join("captions.jsonl")).unwrap_err();
        assert!(own.to_string().contains("human captions"), "{own}");
    }

    #[test]
    fn metadata_comes_with_the_folder() {
        let folder = folder();
        assert!(DataFolder::open(folder.path()).unwrap().metadata.is_none());
        let path = folder.path().join("metadata.jsonl");
        let id = DataFolder::open(folder.path()).unwrap().items.id(1).to_string();
        std::fs::write(&path, format!("{{\"id\": {id:?}, \"year\": 2019}}\n")).unwrap();
        let metadata = DataFolder::open(folder.path()).unwrap().metadata.unwrap();
        assert_eq!(metadata.get(1).unwrap()["year"], 2019);
        assert!(metadata.get(0).unwrap().is_empty());
        std::fs::write(&path, "{\"id\": \"nobody\"}").unwrap();
        assert!(matches!(DataFolder::open(folder.path()), Err(Error::Metadata(_))));
    }

    #[test]
    fn missing_and_contradicting_files_are_named() {
        for (file, contents, part) in [
            ("features.npy", None, "features.npy"),
            ("ids.txt", Some("a\n"), "ids"),
            ("ids.txt", Some("a\na\n"), "a"),
            ("captions.jsonl", Some(""), "captions"),
            ("captions.jsonl", Some("{\"id\": \"zz\", \"caption\": \"x\"}\n"), "zz"),
            ("splits.json", Some("{\"train\": [\"zz\"]}"), "zz"),
            ("features.npz", Some("?"), "one of"),
        ] {
            let folder = folder();
            let path = folder.path().join(file);
            match contents {
                Some(contents) => std::fs::write(path, contents).unwrap(),
                None => std::fs::remove_file(path).unwrap(),
            }
            let error = DataFolder::open(folder.path()).unwrap_err().to_string();
            assert!(error.contains(part), "{file}: {error}");
        }
    }
}
