//! Texts and pairs: captions, splits, tokenizers, batches.

pub(crate) mod batch;
pub(crate) mod captions;
mod filter;
mod folder;
pub(crate) mod leaks;
pub(crate) mod ordering;
pub(crate) mod splits;
pub(crate) mod text_check;
pub(crate) mod tokenizer;

pub(crate) use batch::{Example, QueryBatch, TargetBatch};
pub(crate) use captions::GENERATED;
pub use captions::{Caption, Captions, ItemCaption};
pub use filter::CaptionFilter;
pub use folder::DataFolder;
pub(crate) use leaks::{LeakAudit, words};
pub use leaks::{LeakAuditConfig, LeakPolicy};
pub(crate) use ordering::{by_like_length, drop_words};
pub use splits::Splits;
pub use tokenizer::{TextTokenizer, TokenizerConfig};
