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
mod clap;
mod clip;
mod config;
mod fill;
mod folder;
#[cfg(feature = "hub")]
mod hub;
mod imagebind;
mod names;
#[cfg(any(feature = "pth", test))]
mod pickle;
mod report;
mod settings;
#[cfg(feature = "media")]
mod views;
mod weights;

#[cfg(feature = "media")]
pub use clap::ClapExtractor;
pub use clap::{Clap, PretrainedClap};
#[cfg(feature = "media")]
pub use clip::ClipExtractor;
pub use clip::{Clip, PretrainedClip};
pub use config::{ClapConfig, ClapSounds, ClipConfig, ClipPictures, PictureSize, SoundPadding};
pub use folder::PretrainedText;
#[cfg(feature = "hub")]
pub use hub::HubOptions;
#[cfg(feature = "media")]
pub use imagebind::ImageBindExtractor;
pub use imagebind::PretrainedImageBind;
pub use report::LoadReport;
