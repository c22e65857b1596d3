//! The front door: a trained index that answers text queries, in memory and on disk.

mod compare;
mod entries;
mod folder;
mod retriever;
mod search;

pub use compare::BeamScore;
pub use folder::{FORMAT_VERSION, Manifest, ManifestFile};
pub use retriever::Retriever;
pub use search::{Hit, Search, SearchAll};
