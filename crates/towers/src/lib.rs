//! The towers of CLIP, CLAP and ImageBind, which embed pictures, sounds, videos and texts, from
//! their published weights.
//!
//! CLIP and CLAP are read from folders in the layout of Hugging Face, ImageBind from its file. A
//! setting is followed, known to change nothing, or refused by name (`docs/encoders.md`). Weights
//! in `f32`, `f16` and `bf16` are read; they are kept in `f32`. With the feature `hub` of
//! `cart-retrieval`, its `HubOptions::fetch` fetches such folders.

mod clap;
mod clip;
mod config;
mod imagebind;
mod names;
mod networks;
mod settings;
mod views;

pub use clap::{Clap, ClapExtractor, PretrainedClap};
pub use clip::{Clip, ClipExtractor, PretrainedClip};
pub use config::{ClapConfig, ClapSounds, ClipConfig, ClipPictures, PictureSize, SoundPadding};
pub use imagebind::{ImageBindExtractor, PretrainedImageBind};
pub use networks::{
    ClipVisionConfig, ClipVisionEncoder, HtsatConfig, HtsatEncoder, ImageBind,
    ImageBindAudioConfig, ImageBindConfig, ImageBindTextConfig, ImageBindVisionConfig,
};
