//! What candidates are made of: pictures, sounds and videos, read from their files, built-in
//! descriptors of them, and what turns them into embeddings.
//!
//! Files are read with the feature `media` (on unless default features are off); pictures and
//! sounds in memory are always there, as are the descriptors of pictures and videos.

#[cfg(feature = "media")]
mod animate;
#[cfg(feature = "media")]
mod container;
#[cfg(feature = "media")]
mod extractor;
#[cfg(feature = "media")]
mod ffmpeg;
#[cfg(feature = "media")]
mod files;
#[cfg(any(feature = "media", feature = "procedural", feature = "towers"))]
mod filter;
#[cfg(feature = "media")]
mod find;
#[cfg(feature = "media")]
mod frames;
#[cfg(feature = "media")]
mod jpeg;
#[cfg(feature = "media")]
mod kinds;
#[cfg(feature = "media")]
mod mel;
#[cfg(feature = "media")]
mod mix;
mod modality;
#[cfg(any(feature = "media", feature = "procedural", feature = "towers"))]
mod picture;
#[cfg(any(feature = "media", feature = "procedural", feature = "towers"))]
mod picture_features;
#[cfg(feature = "media")]
mod read;
#[cfg(feature = "media")]
mod read_sound;
#[cfg(any(feature = "media", feature = "procedural", feature = "towers"))]
mod resample;
#[cfg(feature = "media")]
mod resize;
#[cfg(any(feature = "media", feature = "procedural", feature = "towers"))]
mod sound;
#[cfg(feature = "media")]
mod sound_features;
#[cfg(any(feature = "media", feature = "procedural", feature = "towers"))]
mod video_features;
#[cfg(feature = "media")]
mod wav;

#[cfg(feature = "media")]
pub use animate::to_gif;
#[cfg(feature = "media")]
pub use extractor::{Descriptors, Extractor};
#[cfg(feature = "media")]
pub use files::{MediaFile, MediaFiles};
#[cfg(any(feature = "media", feature = "procedural", feature = "towers"))]
pub use filter::Filter;
#[cfg(feature = "media")]
pub use find::{LeftOut, MediaFound, OtherKind, media_below};
#[cfg(feature = "media")]
pub use frames::open_frames;
#[cfg(feature = "media")]
pub use mel::{LogScale, MelBank, MelConfig, MelScale, MelSpectrogram, SpectrumWindow};
pub use modality::{MediaItem, Modality};
#[cfg(any(feature = "media", feature = "procedural", feature = "towers"))]
pub use picture::Picture;
#[cfg(any(feature = "media", feature = "procedural", feature = "towers"))]
pub use picture_features::{PICTURE_FEATURES, picture_features};
#[cfg(feature = "media")]
pub use read::{PictureLimits, Transparency};
#[cfg(any(feature = "media", feature = "procedural", feature = "towers"))]
pub use sound::Sound;
#[cfg(feature = "media")]
pub use sound_features::{SOUND_FEATURES, sound_features};
#[cfg(any(feature = "media", feature = "procedural", feature = "towers"))]
pub use video_features::{VIDEO_FEATURES, video_features};

#[cfg(all(test, feature = "media"))]
mod files_tests;
#[cfg(all(test, feature = "media"))]
mod tests;
