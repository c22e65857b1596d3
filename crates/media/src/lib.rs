//! Pictures, sounds and videos for [`cart_retrieval`]: reading their files, making embeddings and
//! captions of them, and reading the annotations of published data sets.
//!
//! A program that brings embeddings and captions needs none of this.
//!
//! | module | what is in it |
//! |---|---|
//! | the crate itself | [`Picture`], [`Sound`], frames of videos; built-in descriptors; the trait [`Extractor`] |
//! | [`formats`] | readers of the annotations of published data sets |
//! | [`extract`] | from media files to the features of a data folder |
//! | [`captioner`] | captions for candidates that have none, from neighbours or a program |
//!
//! # Example
//! ```
//! use cart_media::{PICTURE_FEATURES, Picture, picture_features};
//! let white = Picture::new(2, 2, vec![255; 12])?;
//! assert_eq!(picture_features(&white).len(), PICTURE_FEATURES);
//! # Ok::<(), cart_retrieval::Error>(())
//! ```

#![warn(missing_docs)]
#![deny(unsafe_code)]

pub mod captioner;
pub mod extract;
pub mod formats;
mod media;

pub use media::{
    Descriptors, Extractor, Filter, LeftOut, LogScale, MediaFile, MediaFiles, MediaFound,
    MediaItem, MelBank, MelConfig, MelScale, MelSpectrogram, Modality, OtherKind, PICTURE_FEATURES,
    Picture, PictureLimits, SOUND_FEATURES, Sound, SpectrumWindow, Transparency, VIDEO_FEATURES,
    media_below, open_frames, picture_features, sound_features, to_gif, video_features,
};
