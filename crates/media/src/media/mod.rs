//! What candidates are made of: pictures, sounds and videos, read from their files, built-in
//! descriptors of them, and what turns them into embeddings.

mod animate;
mod container;
mod extractor;
mod ffmpeg;
mod files;
mod filter;
mod find;
mod frames;
mod jpeg;
mod kinds;
mod mel;
mod mix;
mod modality;
mod picture;
mod picture_features;
mod read;
mod read_sound;
mod resample;
mod resize;
mod sound;
mod sound_features;
mod video_features;
mod wav;

pub use animate::to_gif;
pub use extractor::{Descriptors, Extractor};
pub use files::{MediaFile, MediaFiles};
pub use filter::Filter;
pub use find::{LeftOut, MediaFound, OtherKind, media_below};
pub use frames::open_frames;
pub use mel::{LogScale, MelBank, MelConfig, MelScale, MelSpectrogram, SpectrumWindow};
pub use modality::{MediaItem, Modality};
pub use picture::Picture;
pub use picture_features::{PICTURE_FEATURES, picture_features};
pub use read::{PictureLimits, Transparency};
pub use sound::Sound;
pub use sound_features::{SOUND_FEATURES, sound_features};
pub use video_features::{VIDEO_FEATURES, video_features};

#[cfg(test)]
mod files_tests;
#[cfg(test)]
mod tests;
