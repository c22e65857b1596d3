//! MSR-VTT: videos and sentences in JSON, and the lists of the 1k-A split.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use cart_retrieval::{Error, Result};
use serde::Deserialize;

use super::{
    PublishedSet,
    files::{parse, read_table},
    set::Builder,
};
use crate::media::Modality;

#[derive(Deserialize)]
struct File {
    videos: Vec<Video>,
    sentences: Vec<Sentence>,
}

#[derive(Deserialize)]
struct Video {
    video_id: String,
    split: String,
}

#[derive(Deserialize)]
struct Sentence {
    video_id: String,
    caption: String,
    sen_id: Option<i64>,
}

const SHAPE: &str =
    r#"{"videos": [{"video_id", "split"}], "sentences": [{"video_id", "caption"}]}"#;

/// Reads the annotations of MSR-VTT (`train_val_videodatainfo.json`, `test_videodatainfo.json`;
/// joined as `MSRVTT_data.json`): one or more files, with the splits that they name (`validate` as
/// `val`).
///
/// Ids are those of the videos (`video7010`), files `video7010.mp4`.
///
/// # Errors
/// [`Error::Io`] when a file cannot be read; [`Error::Captions`] when it is no such JSON, a video occurs twice,
/// or a sentence is about a video that no file names.
pub fn msr_vtt<P: AsRef<Path>>(paths: &[P]) -> Result<PublishedSet> {
    let mut set = Builder::new(Modality::Video);
    let files = videos(paths, &mut set, |set, video| {
        set.assign(if video.split == "validate" { "val" } else { &video.split }, &video.video_id);
    })?;
    sentences(&files, &mut set, |_, _| true)?;
    set.finish(last(paths)?)
}

/// Reads MSR-VTT in the 1k-A split: 9,000 videos to train on with all their sentences (or the 7,010
/// of an older list), and 1,000 to test on with one sentence each.
///
/// `paths` are the annotations as [`msr_vtt`] reads them; `train` is a list with the column
/// `video_id` (`MSRVTT_train.9k.csv`); `test` one with `video_id` and `sentence`
/// (`MSRVTT_JSFUSION_test.csv`).
///
/// # Errors
/// As [`msr_vtt`]; [`Error::Captions`] also for a list without these columns, with a video that no
/// file names, or with a video twice or in both lists.
pub fn msr_vtt_1k_a<P: AsRef<Path>>(
    paths: &[P],
    train: impl AsRef<Path>,
    test: impl AsRef<Path>,
) -> Result<PublishedSet> {
    let mut set = Builder::new(Modality::Video);
    let mut known = HashSet::new();
    let files = videos(paths, &mut Builder::new(Modality::Video), |_, video| {
        known.insert(video.video_id.clone());
    })?;
    let (train, test) = (train.as_ref(), test.as_ref());
    let add = |set: &mut Builder, split: &str, at: String, id: &str| {
        if !known.contains(id) {
            return Err(unknown(at, id));
        }
        set.item(|| at.clone(), id, format!("{id}.mp4"), None)?;
        set.assign(split, id);
        Ok(())
    };
    read_table(train, &["video_id"], |row| add(&mut set, "train", row.at(), row.required(0)?))?;
    sentences(&files, &mut set, |set, id| set.has(id))?;
    let mut number = 0;
    read_table(test, &["video_id", "sentence"], |row| {
        let id = row.required(0)?;
        add(&mut set, "test", row.at(), id)?;
        set.caption(id, row.required(1)?, Some(number))?;
        number += 1;
        Ok(())
    })?;
    set.finish(test)
}

/// Reads the files and adds their videos; hands over every video that was added.
fn videos<P: AsRef<Path>>(
    paths: &[P],
    set: &mut Builder,
    mut each: impl FnMut(&mut Builder, &Video),
) -> Result<Vec<(PathBuf, File)>> {
    last(paths)?;
    let mut files = Vec::with_capacity(paths.len());
    for path in paths.iter().map(AsRef::as_ref) {
        let file: File = parse(path, SHAPE)?;
        for (number, video) in file.videos.iter().enumerate() {
            let id = &video.video_id;
            let at = || format!("{}: videos[{number}]", path.display());
            set.item(at, id, format!("{id}.mp4"), None)?;
            each(set, video);
        }
        files.push((path.to_path_buf(), file));
    }
    let named: HashSet<&str> = files
        .iter()
        .flat_map(|(_, file)| &file.videos)
        .map(|video| video.video_id.as_str())
        .collect();
    for (path, file) in &files {
        let about = |s: &&Sentence| !named.contains(s.video_id.as_str());
        if let Some(stray) = file.sentences.iter().find(about) {
            return Err(unknown(format!("{}: sentences", path.display()), &stray.video_id));
        }
    }
    Ok(files)
}

/// Adds the sentences of the videos that are wanted.
fn sentences(
    files: &[(PathBuf, File)],
    set: &mut Builder,
    wanted: impl Fn(&Builder, &str) -> bool,
) -> Result<()> {
    for (path, file) in files {
        let mut blank = 0;
        for sentence in &file.sentences {
            if wanted(set, &sentence.video_id) {
                let added = set.caption(&sentence.video_id, &sentence.caption, sentence.sen_id)?;
                blank += usize::from(!added);
            }
        }
        set.leave_out(path, blank, "blank sentences");
    }
    Ok(())
}

fn unknown(at: String, id: &str) -> Error {
    Error::captions(at)
        .expected("a video that the annotations name")
        .found(format!("`{id}`"))
        .fix("give all files of annotations: those of train_val and of test")
}

fn last<P: AsRef<Path>>(paths: &[P]) -> Result<&Path> {
    paths.last().map(AsRef::as_ref).ok_or_else(|| {
        Error::captions("annotations of MSR-VTT")
            .expected("one file or more")
            .found("none")
            .fix("give train_val_videodatainfo.json and test_videodatainfo.json")
    })
}
