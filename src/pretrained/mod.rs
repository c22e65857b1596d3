//! Pretrained text encoders, and both towers of CLIP, from folders in the layout of Hugging Face.
//!
//! A folder holds `config.json`, `tokenizer.json` and `model.safetensors` (or the files of a
//! `model.safetensors.index.json`). Weights in `f32`, `f16` and `bf16` are read; they are kept in
//! `f32`. With the feature `hub`, `PretrainedText::from_hub` fetches such folders.

mod clip;
mod fill;
mod folder;
#[cfg(feature = "hub")]
mod hub;
mod names;
mod settings;
mod weights;

#[cfg(feature = "media")]
pub use clip::ClipExtractor;
pub use clip::{Clip, ClipConfig, PretrainedClip};
pub use folder::{LoadReport, PretrainedText};
#[cfg(feature = "hub")]
pub use hub::HubOptions;
