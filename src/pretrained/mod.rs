//! Pretrained text encoders from folders in the layout of Hugging Face.
//!
//! A folder holds `config.json`, `tokenizer.json` and `model.safetensors` (or the files of a
//! `model.safetensors.index.json`). Weights in `f32`, `f16` and `bf16` are read; they are kept in
//! `f32`. With the feature `hub`, `PretrainedText::from_hub` fetches such folders.

mod folder;
#[cfg(feature = "hub")]
mod hub;
mod names;
mod settings;
mod weights;

pub use folder::{LoadReport, PretrainedText};
#[cfg(feature = "hub")]
pub use hub::HubOptions;
