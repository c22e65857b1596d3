//! What candidates are made of.

mod modality;

pub use modality::{MediaItem, Modality};
