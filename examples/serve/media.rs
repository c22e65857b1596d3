//! Pictures, sounds and videos of the candidates, from one folder and from nowhere else.

use std::{
    collections::HashMap,
    fs,
    path::{Component, Path, PathBuf},
    sync::Mutex,
    time::{Duration, Instant},
};

/// What a browser can show, by extension.
const KINDS: [(&str, &str, &str); 15] = [
    ("png", "image", "image/png"),
    ("jpg", "image", "image/jpeg"),
    ("jpeg", "image", "image/jpeg"),
    ("gif", "image", "image/gif"),
    ("webp", "image", "image/webp"),
    ("avif", "image", "image/avif"),
    ("wav", "audio", "audio/wav"),
    ("mp3", "audio", "audio/mpeg"),
    ("ogg", "audio", "audio/ogg"),
    ("flac", "audio", "audio/flac"),
    ("m4a", "audio", "audio/mp4"),
    ("mp4", "video", "video/mp4"),
    ("webm", "video", "video/webm"),
    ("ogv", "video", "video/ogg"),
    ("mov", "video", "video/quicktime"),
];
/// How long a list of the folder is good for.
const LIST_FOR: Duration = Duration::from_secs(10);
/// Most files that are listed.
const MOST_FILES: usize = 5_000_000;

/// A folder of media.
pub struct MediaFolder {
    /// Without links and dots; none where there is no folder.
    root: Option<PathBuf>,
    /// Files by their names without extensions.
    stems: Mutex<(Option<Instant>, HashMap<String, PathBuf>)>,
}

impl MediaFolder {
    pub fn open(folder: &Path) -> Self {
        Self { root: fs::canonicalize(folder).ok(), stems: Mutex::new((None, HashMap::new())) }
    }

    /// The file of a candidate, if there is one that a browser can show: the one that is named for it, or called like its
    /// id, with or without an extension.
    pub fn find(&self, id: &str, named: Option<&str>) -> Option<PathBuf> {
        let found = named.and_then(|name| self.inside(name)).or_else(|| self.inside(id));
        found.or_else(|| self.by_stem(id)).filter(|path| kind(path).is_some())
    }

    /// A file below the folder: links that lead out of it do not count.
    fn inside(&self, name: &str) -> Option<PathBuf> {
        let (root, name) = (self.root.as_ref()?, Path::new(name));
        if !name.components().all(|part| matches!(part, Component::Normal(_))) {
            return None;
        }
        let path = fs::canonicalize(root.join(name)).ok()?;
        (path.starts_with(root) && path.is_file()).then_some(path)
    }

    fn by_stem(&self, id: &str) -> Option<PathBuf> {
        let root = self.root.as_ref()?;
        let fresh = |at: &Instant| at.elapsed() < LIST_FOR;
        let stale = {
            let mut stems = self.stems.lock().ok()?;
            let stale = !stems.1.contains_key(id) && !stems.0.as_ref().is_some_and(fresh);
            if stale {
                // Whoever comes meanwhile makes do with the list that there is.
                stems.0 = Some(Instant::now());
            }
            stale
        };
        if stale {
            let listed = list(root);
            *self.stems.lock().ok()? = (Some(Instant::now()), listed);
        }
        let path = self.stems.lock().ok()?.1.get(id)?.clone();
        let path = fs::canonicalize(path).ok()?;
        (path.starts_with(root) && path.is_file()).then_some(path)
    }
}

/// Every file that a browser can show, by its name without the extension; of several the first in order.
fn list(root: &Path) -> HashMap<String, PathBuf> {
    let mut folders = vec![root.to_path_buf()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            // Links are not followed, so there are no circles.
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(of) if of.is_file() && kind(&entry.path()).is_some() => found.push(entry.path()),
                _ => {}
            }
        }
        if found.len() > MOST_FILES {
            break;
        }
    }
    found.sort_unstable_by(|a, b| b.cmp(a));
    let stem = |path: PathBuf| Some((path.file_stem()?.to_str()?.to_string(), path));
    found.into_iter().filter_map(stem).collect()
}

/// How a browser shows a file (image, audio, video), and its media type.
pub fn kind(path: &Path) -> Option<(&'static str, &'static str)> {
    let extension = path.extension()?.to_str()?.to_ascii_lowercase();
    let found = KINDS.iter().find(|(known, ..)| *known == extension)?;
    Some((found.1, found.2))
}
