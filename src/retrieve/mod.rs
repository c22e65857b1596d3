//! The main entry point: a trained index that answers text queries, in memory and on disk, and
//! accepts changes.

mod compare;
mod embeddings;
mod entries;
#[cfg(test)]
mod fault_tests;
mod folder;
mod growth;
mod live;
mod projection;
mod retriever;
mod search;
mod searchable;

pub use compare::BeamScore;
pub use folder::{FORMAT_VERSION, Manifest, ManifestFile, Verified, verify};
pub use growth::Growth;
pub use live::{Arrivals, DriftReport, DriftThresholds, LiveRetriever};
pub use projection::ProjectionConfig;
pub use retriever::Retriever;
pub use search::{Hit, Search, SearchAll};
pub use searchable::Searchable;
pub(crate) use searchable::compiled_here;
