//! Flickr8K, Flickr30K and MS-COCO in Karpathy's JSON.

use std::path::{Path, PathBuf};

use cart_retrieval::{Error, Result};
use serde::Deserialize;

use super::{PublishedSet, files::parse, set::Builder};
use crate::media::Modality;

#[derive(Deserialize)]
struct File {
    images: Vec<Image>,
}

#[derive(Deserialize)]
struct Image {
    filename: String,
    /// The folder of the image; in MS-COCO only.
    filepath: Option<String>,
    split: String,
    sentences: Vec<Sentence>,
}

#[derive(Deserialize)]
struct Sentence {
    raw: String,
    sentid: Option<i64>,
}

/// Reads `dataset_flickr8k.json`, `dataset_flickr30k.json` or `dataset_coco.json` of Karpathy and
/// Fei-Fei's splits.
///
/// Ids are file names. Images of the split `restval` (MS-COCO) are put into `train`, as is usual
/// with these splits. A file is `filepath/filename` where the set has folders
/// (`val2014/COCO_val2014_000000391895.jpg`).
///
/// # Errors
/// [`Error::Io`] when the file cannot be read; [`Error::Captions`] when it is no such JSON, an image occurs twice
/// or has no sentence, or a split has another name.
pub fn karpathy(path: impl AsRef<Path>) -> Result<PublishedSet> {
    let path = path.as_ref();
    let file: File = parse(path, r#"{"images": [{"filename", "split", "sentences": [{"raw"}]}]}"#)?;
    let mut set = Builder::new(Modality::Image);
    let mut blank = 0;
    for (number, image) in file.images.iter().enumerate() {
        let at = || format!("{}: images[{number}]", path.display());
        let split = match image.split.as_str() {
            "restval" => "train",
            known @ ("train" | "val" | "test") => known,
            other => {
                return Err(Error::captions(at())
                    .expected("the split train, restval, val or test")
                    .found(format!("{other:?}"))
                    .fix("name the original file of the data set"));
            }
        };
        if image.sentences.is_empty() {
            return Err(Error::captions(at())
                .expected("sentences about the image")
                .found(format!("none for `{}`", image.filename))
                .fix("download the file again"));
        }
        let folder = image.filepath.as_deref().unwrap_or_default();
        set.item(at, &image.filename, PathBuf::from(folder).join(&image.filename), None)?;
        set.assign(split, &image.filename);
        for sentence in &image.sentences {
            let added = set.caption(&image.filename, &sentence.raw, sentence.sentid)?;
            blank += usize::from(!added);
        }
    }
    set.leave_out(path, blank, "blank sentences");
    set.finish(path)
}
