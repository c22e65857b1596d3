//! Kinds of media, and where an item's file lies.

use std::{fmt, path::PathBuf};

use serde::{Deserialize, Serialize};

/// What kind of media a candidate is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Modality {
    /// A picture.
    Image,
    /// A sound.
    Audio,
    /// A video.
    Video,
}

impl fmt::Display for Modality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Image => "image",
            Self::Audio => "audio",
            Self::Video => "video",
        })
    }
}

/// The file that a candidate is made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MediaItem {
    /// Id of the candidate.
    pub id: String,
    /// The file, below the folder of the collection's media.
    pub path: PathBuf,
    /// What kind of media it is.
    pub modality: Modality,
    /// The part of the file that is meant, in seconds from its start: from, and up to. Absent for
    /// the whole file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub span: Option<(f64, f64)>,
}
