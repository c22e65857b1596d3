//! A folder in the data contract: features, ids, captions, splits.

use std::path::{Path, PathBuf};

use super::{CaptionFilter, Captions, ItemCaption, Splits};
use crate::{
    error::{Error, Result},
    features::Features,
};

/// Candidates and captions of a folder: `features.npy` (or `.npz`, `.safetensors`), `ids.txt`,
/// `captions.jsonl` and, where there is one, `splits.json`.
///
/// # Example
/// ```no_run
/// use cart_retrieval::data::DataFolder;
/// let data = DataFolder::open("my-data")?;
/// println!("{} candidates, {} captions", data.items.len(), data.captions.len());
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct DataFolder {
    /// The candidates' embeddings and ids, checked.
    pub items: Features,
    /// All captions.
    pub captions: Captions,
    /// The splits, where the folder has any.
    pub splits: Option<Splits>,
}

impl DataFolder {
    /// Opens and checks a folder.
    ///
    /// # Errors
    /// [`Error::Io`] for a missing file; [`Error::Features`], [`Error::Ids`], [`Error::Captions`] or
    /// [`Error::Splits`] for one that is malformed or contradicts the others.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        let items = Features::open(features_of(folder)?)?.with_ids(folder.join("ids.txt"))?;
        items.check()?;
        let captions = Captions::from_jsonl(folder.join("captions.jsonl"))?;
        captions.resolve(|id| items.index_of(id))?;
        let path = folder.join("splits.json");
        let splits = match path.exists() {
            true => {
                let splits = Splits::from_json(&path)?;
                splits.verify(|id| items.index_of(id))?;
                Some(splits)
            }
            false => None,
        };
        Ok(Self { items, captions, splits })
    }

    /// The captions that a filter keeps, with the rows of their candidates.
    ///
    /// # Errors
    /// As [`Captions::select`].
    pub fn select(&self, filter: &CaptionFilter) -> Result<Vec<ItemCaption>> {
        self.captions.select(filter)?.resolve(|id| self.items.index_of(id))
    }
}

/// The one feature file of a folder.
fn features_of(folder: &Path) -> Result<PathBuf> {
    let found: Vec<PathBuf> = ["npy", "npz", "safetensors"]
        .iter()
        .map(|extension| folder.join("features").with_extension(extension))
        .filter(|path| path.exists())
        .collect();
    match found.as_slice() {
        [path] => Ok(path.clone()),
        [] => Err(Error::io(
            "read",
            folder.join("features.npy"),
            std::io::Error::from(std::io::ErrorKind::NotFound),
        )),
        several => Err(Error::features(
            folder.display().to_string(),
            "one of features.npy, features.npz and features.safetensors",
            format!("{} of them", several.len()),
            "remove the ones that are out of date",
        )),
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
