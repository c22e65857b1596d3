//! Pretrained encoders from their published weights: of texts, CLIP and CLAP from folders in the
//! layout of Hugging Face, ImageBind from its file.
//!
//! A folder holds `config.json`, `tokenizer.json` and `model.safetensors` (or the files of a
//! `model.safetensors.index.json`), with the settings of sentence-transformers and of the
//! preparation of media where there are some. A setting is followed, known to change nothing, or
//! refused by name (`docs/encoders.md`). Weights in `f32`, `f16` and `bf16` are read; they are kept
//! in `f32`. With the feature `hub`, `PretrainedText::from_hub` fetches such folders.

#[cfg(any(feature = "hub", test))]
mod blob;
#[cfg(feature = "towers")]
mod clap;
#[cfg(feature = "towers")]
mod clip;
#[cfg(feature = "towers")]
mod config;
#[cfg_attr(not(feature = "towers"), allow(dead_code))]
mod fill;
mod folder;
#[cfg(feature = "hub")]
mod hub;
#[cfg(feature = "towers")]
mod imagebind;
#[cfg_attr(not(feature = "towers"), allow(dead_code))]
mod names;
#[cfg(any(feature = "pth", test))]
mod pickle;
mod report;
#[cfg_attr(not(feature = "towers"), allow(dead_code))]
mod settings;
#[cfg(all(feature = "media", feature = "towers"))]
mod views;
#[cfg_attr(not(feature = "towers"), allow(dead_code))]
mod weights;

#[cfg(all(feature = "media", feature = "towers"))]
pub use clap::ClapExtractor;
#[cfg(feature = "towers")]
pub use clap::{Clap, PretrainedClap};
#[cfg(all(feature = "media", feature = "towers"))]
pub use clip::ClipExtractor;
#[cfg(feature = "towers")]
pub use clip::{Clip, PretrainedClip};
#[cfg(feature = "towers")]
pub use config::{ClapConfig, ClapSounds, ClipConfig, ClipPictures, PictureSize, SoundPadding};
pub use folder::PretrainedText;
#[cfg(feature = "hub")]
pub use hub::HubOptions;
#[cfg(all(feature = "media", feature = "towers"))]
pub use imagebind::ImageBindExtractor;
#[cfg(feature = "towers")]
pub use imagebind::PretrainedImageBind;
pub use report::LoadReport;
