//! Pictures, sounds and videos of the candidates, from one folder and from nowhere else.

use std::{
    path::{Path, PathBuf},
    sync::Mutex,
    time::{Duration, Instant},
};

use cart_media::{MediaFile, MediaFiles};

/// What a browser can show, by extension.
const KINDS: [(&str, &str, &str); 22] = [
    ("png", "image", "image/png"),
    ("apng", "image", "image/apng"),
    ("jpg", "image", "image/jpeg"),
    ("jpeg", "image", "image/jpeg"),
    ("jpe", "image", "image/jpeg"),
    ("jfif", "image", "image/jpeg"),
    ("gif", "image", "image/gif"),
    ("webp", "image", "image/webp"),
    ("avif", "image", "image/avif"),
    ("bmp", "image", "image/bmp"),
    ("wav", "audio", "audio/wav"),
    ("mp3", "audio", "audio/mpeg"),
    ("ogg", "audio", "audio/ogg"),
    ("oga", "audio", "audio/ogg"),
    ("opus", "audio", "audio/ogg"),
    ("flac", "audio", "audio/flac"),
    ("m4a", "audio", "audio/mp4"),
    ("mp4", "video", "video/mp4"),
    ("m4v", "video", "video/mp4"),
    ("webm", "video", "video/webm"),
    ("ogv", "video", "video/ogg"),
    ("mov", "video", "video/quicktime"),
];
/// How long what was found in the folder is good for.
const GOOD_FOR: Duration = Duration::from_secs(10);
/// Most ids of which the log says that their files are ambiguous.
const MOST_LINES: usize = 20;

/// A folder of media.
pub struct MediaFolder {
    state: Mutex<State>,
}

struct State {
    files: MediaFiles,
    since: Instant,
    /// Ids of which the log has said that their files are ambiguous.
    told: Vec<String>,
}

impl MediaFolder {
    /// A folder; a `media.jsonl` in it or next to it says where files are.
    pub fn open(folder: &Path) -> Self {
        let parent = folder.parent().unwrap_or(folder);
        let files = MediaFiles::open(folder, &[parent, folder]).or_else(|e| {
            eprintln!("{e}");
            MediaFiles::open(folder, &[])
        });
        let files = files.expect("without a list there is nothing to read");
        Self { state: Mutex::new(State { files, since: Instant::now(), told: Vec::new() }) }
    }

    /// The file of a candidate, if there is one that a browser can show: the one that is named for
    /// it, or that of its id.
    pub fn find(&self, id: &str, named: Option<&str>) -> Option<PathBuf> {
        let shown = |path: &PathBuf| kind(path).is_some();
        let (files, since) = {
            let state = self.state.lock().ok()?;
            (state.files.clone(), state.since)
        };
        if let Some(path) = named.and_then(|named| files.named(named)) {
            return Some(path).filter(shown);
        }
        let mut found = files.find(id);
        if found == MediaFile::Missing && since.elapsed() > GOOD_FOR {
            let files = {
                let mut state = self.state.lock().ok()?;
                // Only the first request after that time has the folder looked through again.
                if state.since == since {
                    (state.files, state.since) = (state.files.renewed(), Instant::now());
                }
                state.files.clone()
            };
            found = files.find(id);
        }
        if let MediaFile::Ambiguous(first, second) = &found {
            let mut state = self.state.lock().ok()?;
            if state.told.len() < MOST_LINES && !state.told.iter().any(|told| told == id) {
                state.told.push(id.to_string());
                eprintln!("no file for {id:?}: it could be {first:?} or {second:?}");
            }
        }
        found.found().filter(shown)
    }
}

/// How a browser shows a file (image, audio, video), and its media type.
pub fn kind(path: &Path) -> Option<(&'static str, &'static str)> {
    let extension = path.extension()?.to_str()?.to_ascii_lowercase();
    let found = KINDS.iter().find(|(known, ..)| *known == extension)?;
    Some((found.1, found.2))
}
