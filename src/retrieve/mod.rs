//! The main entry point: a trained index that answers text queries, in memory and on disk, and
//! accepts changes.

#[cfg(test)]
mod fault_tests;
mod folder;
mod live;
mod projection;
mod query;
mod retriever;
mod searchable;
mod single;

pub use folder::{FORMAT_VERSION, Manifest, ManifestFile, Verified, verify};
pub use live::{ChangeStats, DriftReport, DriftThresholds, LiveRetriever, NewCandidates};
pub use projection::ProjectionConfig;
pub use query::{Arity, Hit, IntoQuery, Many, One, Query};
pub use retriever::{BeamScore, Retriever, RetrieverParts};
pub use searchable::Searchable;
pub(crate) use searchable::compiled_here;
pub use single::{CandidateTrace, ExactHits};
