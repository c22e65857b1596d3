//! Pretrained encoders from their published weights: of texts, CLIP and CLAP from folders in the layout of Hugging Face,
//! ImageBind from its file.
//!
//! A folder holds `config.json`, `tokenizer.json` and `model.safetensors` (or the files of a
//! `model.safetensors.index.json`). Weights in `f32`, `f16` and `bf16` are read; they are kept in
//! `f32`. With the feature `hub`, `PretrainedText::from_hub` fetches such folders.

mod clap;
mod clip;
mod fill;
mod folder;
#[cfg(feature = "hub")]
mod hub;
mod imagebind;
mod names;
mod settings;
#[cfg(feature = "media")]
mod views;
mod weights;

#[cfg(feature = "media")]
pub use clap::ClapExtractor;
pub use clap::{Clap, ClapConfig, ClapSounds, PretrainedClap};
#[cfg(feature = "media")]
pub use clip::ClipExtractor;
pub use clip::{Clip, ClipConfig, PretrainedClip};
pub use folder::{LoadReport, PretrainedText};
#[cfg(feature = "hub")]
pub use hub::HubOptions;
#[cfg(feature = "media")]
pub use imagebind::ImageBindExtractor;
pub use imagebind::PretrainedImageBind;
