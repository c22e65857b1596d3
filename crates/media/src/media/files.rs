//! The one rule from the id of an item to its file.

use std::{
    collections::HashMap,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Component, Path, PathBuf},
    sync::{Arc, OnceLock},
};

use cart_retrieval::{Error, Result, members::read_limited};
use unicode_normalization::UnicodeNormalization;

use super::{MediaItem, Modality, frames, kinds};

/// Most files that are looked through.
const MOST_FILES: usize = 5_000_000;
/// Name of the list of files that a published data set has.
const LIST: &str = "media.jsonl";
/// The longest such list that is read.
const LONGEST_LIST: u64 = 1 << 34;

/// Finds the files of items by the ids that an extraction gives them.
///
/// The first of these that gives a file counts:
/// 1. the file that `media.jsonl` names for the id, where there is that list;
/// 2. the file whose path below the folder is the id;
/// 3. the file whose path without its extension is the id;
/// 4. the file whose name is the id, in whatever folder (MS-COCO);
/// 5. the file whose name without its extension is the id (MSR-VTT, MSVD);
/// 6. for an id `VIDEO_SECONDS`, the file whose name without its extension is `YVIDEO` or `VIDEO`
///    (AudioCaps).
///
/// Where a step has several files, no further one is tried, as any could be meant. A folder of
/// frames stands for its first frame. Names are compared in the Unicode normalisation NFC, so that
/// names from macOS are found too. A file outside of the folder is never given, neither for `..`
/// nor through links.
#[derive(Debug, Clone)]
pub struct MediaFiles {
    /// Without links and dots; `None` if the folder does not exist.
    root: Option<PathBuf>,
    listed: Arc<HashMap<String, PathBuf>>,
    names: Arc<OnceLock<Names>>,
}

/// What an id leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MediaFile {
    /// A file.
    Found(PathBuf),
    /// Several files, of which any could be meant: the first two.
    Ambiguous(PathBuf, PathBuf),
    /// None.
    Missing,
}

impl MediaFile {
    /// The file, if there is just one.
    pub fn found(self) -> Option<PathBuf> {
        match self {
            Self::Found(path) => Some(path),
            Self::Ambiguous(..) | Self::Missing => None,
        }
    }
}

impl MediaFiles {
    /// The files below a folder of media. Of `lists`, folders such as a data folder, those that
    /// have a `media.jsonl` say where the files of its items are. A folder that does not exist has
    /// no files.
    ///
    /// The folder is looked through when an id first needs it.
    ///
    /// # Errors
    /// [`Error::Io`] for a list that cannot be read; [`Error::Media`] for a line of another form.
    ///
    /// # Example
    /// ```no_run
    /// use cart_media::MediaFiles;
    /// let files = MediaFiles::open("coco", &["coco-data".as_ref()])?;
    /// let file = files.find("COCO_val2014_000000391895.jpg").found();
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn open(folder: impl AsRef<Path>, lists: &[&Path]) -> Result<Self> {
        let mut listed = HashMap::new();
        for list in lists.iter().map(|folder| folder.join(LIST)).filter(|list| list.is_file()) {
            read_list(&list, &mut listed)?;
        }
        let root = fs::canonicalize(folder).ok();
        Ok(Self { root, listed: listed.into(), names: Arc::default() })
    }

    /// The same, which looks through the folder again.
    pub fn renewed(&self) -> Self {
        Self { names: Arc::default(), ..self.clone() }
    }

    /// The file of an id.
    pub fn find(&self, id: &str) -> MediaFile {
        let listed = self.listed.get(id).and_then(|path| self.inside(path));
        if let Some(path) = listed.or_else(|| self.inside(Path::new(id))) {
            return MediaFile::Found(path);
        }
        let Some(root) = &self.root else { return MediaFile::Missing };
        let names = self.names.get_or_init(|| Names::below(root));
        let id: String = id.nfc().collect();
        let mut tries: Vec<(Rule, String)> =
            Rule::ALL.iter().map(|&rule| (rule, id.clone())).collect();
        if let Some((video, start)) = id.rsplit_once('_')
            && start.parse::<f64>().is_ok_and(|seconds| seconds >= 0.0)
        {
            tries.push((Rule::Stem, format!("Y{video}")));
            tries.push((Rule::Stem, video.to_string()));
        }
        for (rule, text) in tries {
            match names.get(rule, &text)[..] {
                [] => {}
                [one] => match self.inside(one) {
                    Some(path) => return MediaFile::Found(path),
                    None => return MediaFile::Missing,
                },
                [first, second, ..] => {
                    return MediaFile::Ambiguous(first.to_path_buf(), second.to_path_buf());
                }
            }
        }
        MediaFile::Missing
    }

    /// A file that is named below the folder.
    pub fn named(&self, path: impl AsRef<Path>) -> Option<PathBuf> {
        self.inside(path.as_ref())
    }

    /// A file below the folder: links that lead out of it do not count. A folder of frames gives
    /// the first.
    fn inside(&self, path: &Path) -> Option<PathBuf> {
        let root = self.root.as_ref()?;
        let plain = |part: Component| matches!(part, Component::Normal(_));
        if path.as_os_str().is_empty() || !path.components().all(plain) {
            return None;
        }
        let mut path = fs::canonicalize(root.join(path)).ok()?;
        if path.starts_with(root) && path.is_dir() {
            path = fs::canonicalize(frames::pictures_of(&path).ok()?.first()?).ok()?;
        }
        (path.starts_with(root) && path.is_file()).then_some(path)
    }
}

fn read_list(path: &Path, listed: &mut HashMap<String, PathBuf>) -> Result<()> {
    let bytes = read_limited(path, LONGEST_LIST)?;
    for (number, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let item: MediaItem = serde_json::from_slice(line).map_err(|e| {
            Error::media(format!("{}:{}", path.display(), number + 1))
                .expected("an item with its file, as `extract` writes it")
                .found(e.to_string())
                .fix("extract the data set again, or remove the file")
        })?;
        listed.insert(item.id, item.path);
    }
    Ok(())
}

/// What an id may be of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Rule {
    Path,
    PathStem,
    Name,
    Stem,
}

impl Rule {
    const ALL: [Self; 4] = [Self::Path, Self::PathStem, Self::Name, Self::Stem];

    /// What it makes of a path; nothing of one that is not UTF-8.
    fn of(self, path: &Path) -> Option<String> {
        let name = |path: &Path| Some(path.file_name()?.to_str()?.nfc().collect::<String>());
        let whole = |path: &Path| {
            let parts: Option<Vec<&str>> = path.iter().map(|part| part.to_str()).collect();
            Some(parts?.join("/").nfc().collect::<String>())
        };
        match self {
            Self::Path => whole(path),
            Self::PathStem => whole(&path.with_extension("")),
            Self::Name => name(path),
            Self::Stem => name(&path.with_extension("")),
        }
    }
}

/// Files by what ids may be of their paths.
#[derive(Debug, Default)]
struct Names {
    paths: Vec<PathBuf>,
    /// By the hash of a rule and what it makes of a path: the first two such paths, the second
    /// absent as `u32::MAX`. A text in place of a hash would take many times the memory for
    /// millions of files.
    places: HashMap<u64, [u32; 2]>,
}

impl Names {
    /// Looks through a folder. What cannot be read has no names.
    fn below(root: &Path) -> Self {
        let (mut paths, mut open) = (Vec::new(), vec![PathBuf::new()]);
        while let Some(folder) = open.pop() {
            let mut pictures = 0;
            for entry in fs::read_dir(root.join(&folder)).into_iter().flatten().flatten() {
                let path = folder.join(entry.file_name());
                if kinds::is_of_a_system(&entry.file_name()) {
                    continue;
                }
                // Links to folders are not followed, so that there are no circles.
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    open.push(path);
                } else if kinds::is_shown(&path) {
                    pictures += usize::from(kinds::is_read_as(&path, Modality::Image));
                    paths.push(path);
                }
            }
            // Its files may be the frames of a video.
            if pictures > 1 && !folder.as_os_str().is_empty() {
                paths.push(folder);
            }
            if paths.len() > MOST_FILES {
                break;
            }
        }
        paths.sort_unstable();
        let mut names = Self { paths, places: HashMap::new() };
        for (number, path) in names.paths.iter().enumerate() {
            for rule in Rule::ALL {
                let Some(text) = rule.of(path) else { continue };
                let place = names.places.entry(key(rule, &text)).or_insert([u32::MAX; 2]);
                if let Some(free) = place.iter_mut().find(|place| **place == u32::MAX) {
                    *free = number as u32;
                }
            }
        }
        names
    }

    /// The first two paths of which a rule makes a text.
    fn get(&self, rule: Rule, text: &str) -> Vec<&Path> {
        let places = self.places.get(&key(rule, text)).into_iter().flatten();
        places
            .filter_map(|&place| self.paths.get(place as usize))
            .map(PathBuf::as_path)
            .filter(|path| rule.of(path).is_some_and(|own| own == text))
            .collect()
    }
}

fn key(rule: Rule, text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (rule, text).hash(&mut hasher);
    hasher.finish()
}
