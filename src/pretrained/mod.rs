//! Pretrained text encoders from their published weights: folders in the layout of Hugging Face.
//!
//! A folder holds `config.json`, `tokenizer.json` and `model.safetensors` (or the files of a
//! `model.safetensors.index.json`), with the settings of sentence-transformers where there are
//! some. A setting is followed, known to change nothing, or refused by name (`docs/encoders.md`).
//! Weights in `f32`, `f16` and `bf16` are read; they are kept in `f32`. With the feature `hub`,
//! `PretrainedText::from_hub` fetches such folders.

#[cfg(any(feature = "hub", test))]
mod blob;
pub(crate) mod fill;
mod folder;
#[cfg(feature = "hub")]
mod hub;
pub(crate) mod names;
#[cfg(any(feature = "pth", test))]
mod pickle;
mod report;
pub(crate) mod settings;
pub(crate) mod weights;

pub use folder::PretrainedText;
#[cfg(feature = "hub")]
pub use hub::HubOptions;
pub use report::LoadReport;
