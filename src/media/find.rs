//! The media of a folder.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{MediaItem, Modality};
use crate::error::{Error, Result};

/// Extensions by modality; an animation or a folder of frames is a picture or pictures unless videos alone are asked
/// for.
const EXTENSIONS: [(Modality, &[&str]); 3] = [
    (Modality::Image, &["png", "jpg", "jpeg", "webp", "gif"]),
    (Modality::Audio, &["wav", "flac", "mp3", "ogg"]),
    (Modality::Video, &["mp4", "avi", "mkv", "webm", "mov", "m4v", "mpg", "gif", "webp", "apng"]),
];

/// All media of some modalities in the files below a folder, by their extensions, sorted by path, which is their id
/// too (with `/` between folders). Where videos are asked for and pictures are not, a folder with pictures and
/// nothing below it is a video.
///
/// Links to folders are not followed, so that none is walked twice. The second list has the paths that are not
/// UTF-8, which have no id.
///
/// # Errors
/// [`Error::Io`] when a folder cannot be read; [`Error::Media`] when there are no such files.
pub fn media_below(
    root: impl AsRef<Path>,
    modalities: &[Modality],
) -> Result<(Vec<MediaItem>, Vec<PathBuf>)> {
    let root = root.as_ref();
    let (mut items, mut nameless) = (Vec::new(), Vec::new());
    let pictures = modalities.contains(&Modality::Image);
    let of = |path: &Path| -> Option<Modality> {
        let extension = path.extension()?.to_str()?;
        let known = |list: &[&str]| list.iter().any(|known| known.eq_ignore_ascii_case(extension));
        let wanted = EXTENSIONS.iter().filter(|(modality, _)| modalities.contains(modality));
        wanted.filter(|(_, list)| known(list)).map(|(modality, _)| *modality).next()
    };
    let mut open = vec![PathBuf::new()];
    while let Some(folder) = open.pop() {
        let here = root.join(&folder);
        let refused = |e| Error::io("read", &here, e);
        let (mut files, mut below) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(&here).map_err(refused)? {
            let entry = entry.map_err(refused)?;
            let path = folder.join(entry.file_name());
            match entry.file_type().map_err(refused)?.is_dir() {
                true => below.push(path),
                // Links to files count, links to folders and to nothing do not.
                false if root.join(&path).is_file() => files.push(path),
                false => {}
            }
        }
        let is_picture = |path: &PathBuf| {
            let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
            EXTENSIONS[0].1.iter().any(|known| known.eq_ignore_ascii_case(extension))
        };
        let video = modalities.contains(&Modality::Video) && !pictures && below.is_empty();
        let frames = video
            && !folder.as_os_str().is_empty()
            && files.iter().filter(|path| is_picture(path)).count() > 1;
        let found: Vec<(PathBuf, Modality)> = match frames {
            true => vec![(folder, Modality::Video)],
            false => {
                files.into_iter().filter_map(|p| of(&p).map(|modality| (p, modality))).collect()
            }
        };
        for (path, modality) in found {
            let parts: Option<Vec<&str>> = path.iter().map(|part| part.to_str()).collect();
            match parts {
                Some(parts) => {
                    items.push(MediaItem { id: parts.join("/"), path, modality, span: None });
                }
                None => nameless.push(path),
            }
        }
        open.append(&mut below);
    }
    if items.is_empty() {
        let kinds: Vec<String> = modalities.iter().map(ToString::to_string).collect();
        return Err(Error::media(
            root.display().to_string(),
            format!("files of {}", kinds.join(", ")),
            "none",
            "name the folder that has them; they are known by their extensions",
        ));
    }
    items.sort_by(|a, b| a.id.cmp(&b.id));
    nameless.sort();
    Ok((items, nameless))
}
