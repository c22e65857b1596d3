//! The front door: a trained index that answers text queries, in memory and on disk, and grows.

mod compare;
mod embeddings;
mod entries;
#[cfg(test)]
mod fault_tests;
mod folder;
mod live;
mod retriever;
mod search;

pub use compare::BeamScore;
pub use folder::{FORMAT_VERSION, Manifest, ManifestFile, Verified, verify};
pub use live::{Arrivals, DriftReport, DriftThresholds, Growth, LiveRetriever};
pub use retriever::Retriever;
pub use search::{Hit, Search, SearchAll};
