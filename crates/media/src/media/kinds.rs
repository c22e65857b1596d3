//! Which files are media, by their extensions, and what to do with the others.

use std::{ffi::OsStr, path::Path};

use super::Modality;

/// Extensions of the pictures that are read.
const IMAGES: &[&str] =
    &["png", "jpg", "jpeg", "jpe", "jfif", "webp", "gif", "bmp", "dib", "tif", "tiff", "apng"];
/// Extensions of the sounds that are read; those of the second row through ffmpeg.
const SOUNDS: &[&str] = &[
    "wav", "wave", "flac", "mp3", "ogg", "oga", "m4a", "m4b", "aac", "aif", "aiff", "aifc", "caf",
    "opus", "wma", "amr", "ac3", "mka", "ape", "au", "mp2", "spx", "weba", "wv", "dts", "tta",
];
/// Extensions of the videos that are read: animations, and containers through ffmpeg.
const VIDEOS: &[&str] = &[
    "mp4", "avi", "mkv", "webm", "mov", "m4v", "mpg", "mpeg", "gif", "webp", "apng", "ts", "m2ts",
    "mts", "m2v", "wmv", "asf", "3gp", "3g2", "flv", "f4v", "ogv", "ogm", "vob", "mxf", "divx",
];

/// Kinds of files that are not read, and what to do with them.
const UNSUPPORTED: &[(&[&str], &str)] = &[
    (
        &["heic", "heif", "avif", "jxl", "jp2", "j2k", "jpx", "tga", "ico", "pcx", "ppm", "pgm"],
        "pictures that are not read: convert them to PNG or JPEG, for example with ImageMagick \
         (`magick mogrify -format png FILES`)",
    ),
    (
        &["pbm", "pnm", "exr", "hdr", "dds", "qoi", "xcf", "psd", "svg", "svgz", "eps", "pdf"],
        "drawings or pictures that are not read: render them to PNG, for example with ImageMagick \
         (`magick mogrify -format png FILES`)",
    ),
    (
        &["dng", "cr2", "cr3", "nef", "arw", "raf", "orf", "rw2", "pef", "srw"],
        "raw pictures of cameras: develop them to JPEG or TIFF, for example with darktable",
    ),
    (
        &["mid", "midi", "ra", "mod", "xm", "dsf", "dff", "8svx", "aax"],
        "sounds that are not read: convert them to FLAC or WAV",
    ),
    (
        &["rm", "rmvb", "swf", "m3u8", "mpd", "r3d", "braw"],
        "videos that are not read: convert them to MP4, for example with `ffmpeg -i FILE FILE.mp4`",
    ),
    (&["zip", "tar", "gz", "tgz", "bz2", "xz", "zst", "7z", "rar"], "archives: unpack them"),
];

/// Names of files and folders that operating systems put next to a user's.
const OF_SYSTEMS: &[&str] = &[
    ".DS_Store",
    ".AppleDouble",
    ".LSOverride",
    ".Spotlight-V100",
    ".TemporaryItems",
    ".Trashes",
    ".fseventsd",
    ".thumbnails",
    "__MACOSX",
    "Thumbs.db",
    "ehthumbs.db",
    "ehthumbs_vista.db",
    "desktop.ini",
    "$RECYCLE.BIN",
    "System Volume Information",
    "lost+found",
    "@eaDir",
];

/// Whether a file or folder of this name belongs to an operating system, not to a collection.
pub(super) fn is_of_a_system(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    name.starts_with("._")
        || name.starts_with(".Trash-")
        || OF_SYSTEMS.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// Whether files with the extension of a path are read as media of a modality.
pub(super) fn is_read_as(path: &Path, modality: Modality) -> bool {
    let known = match modality {
        Modality::Image => IMAGES,
        Modality::Audio => SOUNDS,
        Modality::Video => VIDEOS,
    };
    has_one_of(path, known)
}

/// Whether files with the extension of a path may be an item's: those that are read, and those that
/// a browser shows.
pub(super) fn is_shown(path: &Path) -> bool {
    let modalities = [Modality::Image, Modality::Audio, Modality::Video];
    modalities.iter().any(|&modality| is_read_as(path, modality)) || has_one_of(path, &["avif"])
}

/// What to do with files that have the extension of a path, where media of other modalities are
/// looked for.
pub(super) fn advice(path: &Path) -> String {
    for modality in [Modality::Image, Modality::Audio, Modality::Video] {
        if is_read_as(path, modality) {
            return format!("media of the modality {modality}: extract them separately");
        }
    }
    let kind = UNSUPPORTED.iter().find(|(extensions, _)| has_one_of(path, extensions));
    let unknown = "not known as a kind of media: rename or convert them if they are";
    kind.map_or(unknown, |(_, advice)| advice).to_string()
}

fn has_one_of(path: &Path, extensions: &[&str]) -> bool {
    let extension = path.extension().and_then(OsStr::to_str).unwrap_or_default();
    extensions.iter().any(|known| known.eq_ignore_ascii_case(extension))
}
