//! The main entry point: a trained index that answers text queries, in memory and on disk, and
//! accepts changes.

#[cfg(test)]
mod fault_tests;
pub(crate) mod folder;
pub(crate) mod live;
pub(crate) mod projection;
pub(crate) mod query;
pub(crate) mod retriever;
mod searchable;
mod single;

pub use folder::{Verified, verify};
pub use live::{DriftReport, DriftThresholds, LiveRetriever, NewCandidates};
pub use query::{Hit, IntoQuery, Query};
pub use retriever::{Retriever, RetrieverParts};
pub use searchable::Searchable;
pub(crate) use searchable::compiled_here;
pub use single::{CandidateTrace, ExactHits};
