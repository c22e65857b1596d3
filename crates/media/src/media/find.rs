//! The media of a folder.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
};

use cart_retrieval::{Error, Result, members::breaks_lines};

use super::{
    MediaItem, Modality,
    kinds::{advice, is_of_a_system, is_read_as},
};

/// What lies below a folder of media.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MediaFound {
    /// The media, sorted by their ids.
    pub items: Vec<MediaItem>,
    /// Files and folders that cannot be taken, each with the reason, sorted by path.
    pub left_out: Vec<LeftOut>,
    /// Files of other kinds, by extension, the most frequent first.
    pub other_kinds: Vec<OtherKind>,
}

/// A file or folder that cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeftOut {
    /// Its path below the folder of media.
    pub path: PathBuf,
    /// Why.
    pub reason: String,
}

/// Files of one extension that are not media of the modalities looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherKind {
    /// The extension in small letters; empty for files without one.
    pub extension: String,
    /// Number of files.
    pub count: usize,
    /// What to do with them.
    pub advice: String,
}

impl MediaFound {
    /// The same with ids that lack the files' extensions. Of several files that get the same id,
    /// the first by path stays and the others are left out.
    pub fn with_stems(mut self) -> Self {
        let mut first: HashMap<String, PathBuf> = HashMap::new();
        let mut kept = Vec::with_capacity(self.items.len());
        for mut item in self.items {
            // A folder of frames has no extension, even where its name has a dot.
            let is_file = [Modality::Image, Modality::Audio, Modality::Video]
                .iter()
                .any(|&modality| is_read_as(&item.path, modality));
            if is_file && let Some((stem, _)) = item.id.rsplit_once('.') {
                item.id = stem.to_string();
            }
            if let Some(other) = first.get(&item.id) {
                let reason = format!("{} has the same id without extensions", other.display());
                self.left_out.push(LeftOut { path: item.path, reason });
            } else {
                first.insert(item.id.clone(), item.path.clone());
                kept.push(item);
            }
        }
        kept.sort_by(|a, b| a.id.cmp(&b.id));
        self.items = kept;
        self.left_out.sort();
        self
    }
}

/// All media of some modalities in the files below a folder, by their extensions, sorted by path,
/// which is their id too (with `/` between folders). Where videos are asked for and pictures are
/// not, a folder with pictures and nothing below it is a video.
///
/// Links to folders are not followed, so that none is walked twice. Files of other kinds are
/// counted by extension; what cannot be read or has a name that cannot be an id is left out and
/// named, and never stops the rest. Files that operating systems write (`._x`, `.DS_Store`,
/// `Thumbs.db`, `desktop.ini`, `__MACOSX` and others) are passed over.
///
/// # Errors
/// [`Error::Io`] when the folder itself cannot be read; [`Error::Media`] when there are no such
/// files.
///
/// # Example
/// ```no_run
/// use cart_media::{Modality, media_below};
/// let found = media_below("pictures", &[Modality::Image])?;
/// for other in &found.other_kinds {
///     println!("{} files of .{}: {}", other.count, other.extension, other.advice);
/// }
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
pub fn media_below(root: impl AsRef<Path>, modalities: &[Modality]) -> Result<MediaFound> {
    let root = root.as_ref();
    fs::read_dir(root).map_err(|e| Error::io("read", root, e))?;
    let mut walk = Walk { root, modalities, found: MediaFound::default(), others: BTreeMap::new() };
    let mut open = vec![PathBuf::new()];
    while let Some(folder) = open.pop() {
        open.extend(walk.folder(folder));
    }
    let Walk { mut found, others, .. } = walk;
    found.other_kinds = others
        .into_iter()
        .map(|(extension, (count, advice))| OtherKind { extension, count, advice })
        .collect();
    found.other_kinds.sort_by_key(|kind| std::cmp::Reverse(kind.count));
    found.items.sort_by(|a, b| a.id.cmp(&b.id));
    found.left_out.sort();
    if found.items.is_empty() {
        return Err(nothing(root, modalities, &found));
    }
    Ok(found)
}

/// A walk through folders.
struct Walk<'a> {
    root: &'a Path,
    modalities: &'a [Modality],
    found: MediaFound,
    /// By extension: number of files, and what to do with them.
    others: BTreeMap<String, (usize, String)>,
}

impl Walk<'_> {
    /// Takes note of the files of a folder, given below the root, and returns the folders in it.
    fn folder(&mut self, folder: PathBuf) -> Vec<PathBuf> {
        let (mut files, mut below) = (Vec::new(), Vec::new());
        let entries = match fs::read_dir(self.root.join(&folder)) {
            Ok(entries) => entries,
            Err(e) => {
                self.leave_out(folder, format!("a folder that cannot be read: {e}"));
                return below;
            }
        };
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(e) => {
                    self.leave_out(folder.clone(), format!("an entry that cannot be read: {e}"));
                    // An iterator over a broken folder may fail for ever.
                    break;
                }
            };
            if is_of_a_system(&entry.file_name()) {
                continue;
            }
            let path = folder.join(entry.file_name());
            let is_folder = entry.file_type().map(|kind| kind.is_dir());
            // Links to files count, links to folders and to nothing do not.
            match (is_folder, fs::metadata(self.root.join(&path))) {
                (Ok(true), _) => below.push(path),
                (Ok(false), Ok(target)) if target.is_file() => files.push(path),
                (Ok(false), Ok(target)) if target.is_dir() => {
                    self.leave_out(path, "a link to a folder, which is not followed".into());
                }
                // A socket or a pipe.
                (Ok(false), Ok(_)) => self.leave_out(path, "not a file".into()),
                (Err(e), _) | (_, Err(e)) => {
                    self.leave_out(path, format!("a broken link, or not readable: {e}"));
                }
            }
        }
        if self.is_video(&folder, &files, &below) {
            self.take(folder, Modality::Video);
        } else {
            files.into_iter().for_each(|path| self.file(path));
        }
        below
    }

    /// Whether a folder is a video in frames.
    fn is_video(&self, folder: &Path, files: &[PathBuf], below: &[PathBuf]) -> bool {
        let asked = |modality| self.modalities.contains(&modality);
        let pictures = files.iter().filter(|path| is_read_as(path, Modality::Image));
        asked(Modality::Video)
            && !asked(Modality::Image)
            && below.is_empty()
            && !folder.as_os_str().is_empty()
            && pictures.count() > 1
    }

    fn file(&mut self, path: PathBuf) {
        let order = [Modality::Image, Modality::Audio, Modality::Video];
        let mut wanted = order.into_iter().filter(|modality| self.modalities.contains(modality));
        if let Some(modality) = wanted.find(|&modality| is_read_as(&path, modality)) {
            return self.take(path, modality);
        }
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        let kind = self.others.entry(extension).or_insert_with(|| (0, advice(&path)));
        kind.0 += 1;
    }

    fn take(&mut self, path: PathBuf, modality: Modality) {
        let parts: Option<Vec<&str>> = path.iter().map(|part| part.to_str()).collect();
        let Some(id) = parts.map(|parts| parts.join("/")) else {
            return self.leave_out(path, "a name that is not UTF-8: rename it".into());
        };
        if let Some(character) = id.chars().find(|&character| breaks_lines(character)) {
            let reason = format!("a name with the character U+{:04X}: rename it", character as u32);
            return self.leave_out(path, reason);
        }
        // Reading a list of ids drops a byte order mark at its beginning.
        if id.starts_with('\u{feff}') || id.trim().is_empty() {
            return self.leave_out(path, "a name that begins with U+FEFF, or is blank".into());
        }
        self.found.items.push(MediaItem { id, path, modality, span: None });
    }

    fn leave_out(&mut self, path: PathBuf, reason: String) {
        self.found.left_out.push(LeftOut { path, reason });
    }
}

/// The error about a folder without media.
fn nothing(root: &Path, modalities: &[Modality], found: &MediaFound) -> Error {
    let kinds: Vec<String> = modalities.iter().map(ToString::to_string).collect();
    let mut none = "none".to_string();
    let mut remedy = "name their folder; files are recognised by their extensions".to_string();
    if let Some(kind) = found.other_kinds.first() {
        none = format!("{} files of .{}", kind.count, kind.extension);
        for kind in &found.other_kinds[1..found.other_kinds.len().min(4)] {
            none.push_str(&format!(", {} of .{}", kind.count, kind.extension));
        }
        remedy = format!(".{} files are {}", kind.extension, kind.advice);
    }
    if let Some(first) = found.left_out.first() {
        none.push_str(&format!(
            "; {} left out, the first: {:?}, {}",
            found.left_out.len(),
            first.path,
            first.reason
        ));
    }
    let expected = format!("files of {}", kinds.join(", "));
    Error::media(root.display().to_string()).expected(expected).found(none).fix(remedy)
}
