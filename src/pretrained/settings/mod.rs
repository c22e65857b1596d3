//! The settings files of pretrained models: every field is followed, known to be harmless, or
//! refused by name.

pub(crate) mod fields;
pub(crate) mod file;
mod sentence;
#[cfg(test)]
mod tests;
pub(crate) mod text;
mod tokenizer;

pub(super) use file::Settings;
#[cfg(feature = "hub")]
pub(super) use file::{PREPROCESSOR, PROCESSOR};
#[cfg(feature = "hub")]
pub(super) use sentence::FILES as SENTENCE_FILES;
pub(super) use text::{TextSettings, text};
#[cfg(feature = "hub")]
pub(super) use tokenizer::FILES as TOKENIZER_FILES;
pub(super) use tokenizer::{check_end, check_tokenizer};
