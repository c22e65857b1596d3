//! Captions, splits and metadata of the items of an extraction.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use cart_retrieval::{
    Error, Result,
    data::{Captions, Splits},
    features::ItemIds,
    members::read_limited,
};
use serde::Deserialize;

use super::{
    json::to_json,
    publish::File,
    report::{Failure, UnknownIds},
};
use crate::formats::PublishedSet;

/// The file that lists the items without features.
pub(super) const LEFT_OUT: &str = "left-out.jsonl";
const CAPTIONS: &str = "captions.jsonl";
const SPLITS: &str = "splits.json";
const METADATA: &str = "metadata.jsonl";
/// The longest file that is read.
const LONGEST: u64 = 1 << 34;

/// What goes with the items.
pub(super) struct Annotations<'a> {
    /// A file of captions to copy.
    captions: Option<Lines>,
    set: Option<&'a PublishedSet>,
    /// Ids that are named and that no item has.
    pub(super) unknown: Vec<UnknownIds>,
    /// Files of the data folder that stay as they are name these.
    unknown_in_place: Vec<String>,
}

/// Lines of captions, as they are in their file, with their ids.
struct Lines {
    lines: Vec<(Vec<u8>, Option<String>)>,
}

/// What every line of captions and metadata has.
#[derive(Deserialize)]
struct Line {
    id: String,
}

impl Lines {
    fn read(path: &Path) -> Result<Self> {
        let bytes = read_limited(path, LONGEST)?;
        let id = |line: &[u8]| {
            let line = line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line);
            serde_json::from_slice::<Line>(line).ok().map(|line| line.id)
        };
        let lines = bytes.split_inclusive(|&byte| byte == b'\n');
        Ok(Self { lines: lines.map(|line| (line.to_vec(), id(line))).collect() })
    }

    /// The lines without those of some ids.
    fn without(&self, gone: impl Fn(&str) -> bool) -> Vec<u8> {
        let kept = self.lines.iter().filter(|(_, id)| !id.as_deref().is_some_and(&gone));
        kept.flat_map(|(line, _)| line.iter().copied()).collect()
    }
}

impl<'a> Annotations<'a> {
    /// Reads captions to copy, and what lies in the data folder already.
    pub(super) fn read(
        out: &Path,
        captions: Option<&Path>,
        set: Option<&'a PublishedSet>,
        ids: &ItemIds,
    ) -> Result<Self> {
        let mut all =
            Self { captions: None, set, unknown: Vec::new(), unknown_in_place: Vec::new() };
        let own = out.join(CAPTIONS);
        if let Some(path) = captions {
            let read = Captions::from_jsonl(path)?;
            if own.exists() && is_same(path, &own)? {
                all.note(path, read.iter().map(|caption| caption.id.as_str()), ids, true)?;
            } else {
                all.note(path, read.iter().map(|caption| caption.id.as_str()), ids, false)?;
                all.captions = Some(Lines::read(path)?);
            }
        } else if set.is_none() && own.exists() {
            let read = Captions::from_jsonl(&own)?;
            all.note(&own, read.iter().map(|caption| caption.id.as_str()), ids, true)?;
        }
        let splits = out.join(SPLITS);
        if set.is_none() && splits.exists() {
            let read = Splits::from_json(&splits)?;
            let lists = read.names().map(|name| read.ids(name)).collect::<Result<Vec<_>>>()?;
            let named = lists.into_iter().flatten().map(String::as_str);
            all.note(&splits, named, ids, true)?;
        }
        let metadata = out.join(METADATA);
        if metadata.exists() {
            let lines = Lines::read(&metadata)?;
            all.note(&metadata, lines.lines.iter().filter_map(|(_, id)| id.as_deref()), ids, true)?;
        }
        Ok(all)
    }

    /// Notes what a file says about other items.
    fn note<'b>(
        &mut self,
        file: &Path,
        named: impl Iterator<Item = &'b str>,
        ids: &ItemIds,
        in_place: bool,
    ) -> Result<()> {
        let (mut all, mut entries, mut unknown) = (0, 0, Vec::new());
        let mut seen = HashSet::new();
        for id in named {
            all += 1;
            if ids.index_of(id).is_none() {
                entries += 1;
                if seen.insert(id) {
                    unknown.push(id.to_string());
                }
            }
        }
        let Some(first) = unknown.first() else { return Ok(()) };
        if entries == all {
            return Err(Error::captions(file.display().to_string()).expected(format!("ids of the {} items, such as `{}`", ids.len(), ids.get(0))).found(format!("none of them among {all}, but `{first}`")).fix("use the ids of the items: paths below the media folder, with `--stems` without \
                 extensions"));
        }
        if in_place {
            self.unknown_in_place.extend(unknown.iter().cloned());
        }
        self.unknown.push(UnknownIds { file: file.to_path_buf(), entries, ids: unknown });
        Ok(())
    }

    /// Names of the files that may be written, without the features.
    pub(super) fn names(&self) -> Vec<&'static str> {
        let mut names = vec!["ids.txt", LEFT_OUT];
        if self.captions.is_some() {
            names.push(CAPTIONS);
        }
        if self.set.is_some() {
            names.extend([CAPTIONS, SPLITS, PublishedSet::MEDIA]);
        }
        names
    }

    /// Whether an item has no features, or does not exist.
    fn is_gone<'b>(&'b self, failed: &'b [Failure]) -> impl Fn(&str) -> bool + 'b {
        let mut gone: HashSet<&str> = failed.iter().map(|failure| failure.id.as_str()).collect();
        let unknown = self.unknown.iter().flat_map(|unknown| &unknown.ids);
        gone.extend(unknown.map(String::as_str));
        move |id| gone.contains(id)
    }

    /// The files to write.
    pub(super) fn files(&self, failed: &[Failure]) -> Result<Vec<File>> {
        let gone = self.is_gone(failed);
        let mut files = Vec::new();
        if let Some(lines) = &self.captions {
            files.push(File::bytes(CAPTIONS, lines.without(&gone)));
        }
        if let Some(set) = self.set {
            let all = set.files(&gone)?;
            files.extend(all.into_iter().map(|(name, bytes)| File::bytes(name, bytes)));
        }
        Ok(files)
    }

    /// Captions that are not written.
    pub(super) fn captions_left_out(&self, failed: &[Failure]) -> usize {
        let gone = self.is_gone(failed);
        let lines = self.captions.iter().flat_map(|lines| &lines.lines);
        let of_file = lines.filter(|(_, id)| id.as_deref().is_some_and(&gone)).count();
        let of_set = self
            .set
            .map_or(0, |set| set.captions().iter().filter(|caption| gone(&caption.id)).count());
        of_file + of_set
    }

    /// The list of what captions, splits and metadata of the folder may still name.
    pub(super) fn left_out(&self, failed: &[Failure]) -> Result<Vec<u8>> {
        let mut listed: HashSet<&str> = failed.iter().map(|failure| failure.id.as_str()).collect();
        let mut bytes = Vec::new();
        let unknown = self.unknown_in_place.iter().filter(|id| listed.insert(id)).map(|id| {
            Failure { id: id.clone(), message: "named in this folder, but not an item".into() }
        });
        for failure in failed.iter().cloned().chain(unknown.collect::<Vec<_>>()) {
            bytes.extend(to_json(&failure)?);
            bytes.push(b'\n');
        }
        Ok(bytes)
    }
}

/// Whether two paths lead to one file, or to files of the same content.
fn is_same(a: &Path, b: &Path) -> Result<bool> {
    let canonical = |path: &Path| -> Result<PathBuf> {
        path.canonicalize().map_err(|e| Error::io("read", path, e))
    };
    Ok(canonical(a)? == canonical(b)? || read_limited(a, LONGEST)? == read_limited(b, LONGEST)?)
}
