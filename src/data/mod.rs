//! Texts and pairs: captions, splits, tokenizers, batches.

mod batch;
mod captions;
mod filter;
mod folder;
mod leaks;
mod mixing;
pub(crate) mod ordering;
mod splits;
mod text_check;
mod tokenizer;

pub use batch::{Example, QueryBatch, TargetBatch};
pub use captions::{Caption, Captions, GENERATED, ItemCaption};
pub use filter::CaptionFilter;
pub use folder::DataFolder;
pub use leaks::{
    LeakAudit, LeakAuditConfig, LeakKind, LeakPair, LeakPolicy, OverlapAudit, audit, words,
};
pub use mixing::mixed_captions;
pub(crate) use ordering::{by_like_length, drop_words};
pub use splits::{Splits, random_indices};
pub use text_check::TextCheck;
pub use tokenizer::{TextTokenizer, TokenizerConfig, TokenizerModel};
