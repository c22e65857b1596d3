//! From embeddings to tokens: K-Means, RQ-KMeans, RQ-VAE, hierarchical K-Means, and their
//! coarse-to-fine composition, all behind [`Quantizer`].

mod assign;
mod base;
pub(crate) mod coarse_to_fine;
mod code_beam;
pub(crate) mod device_search;
pub(crate) mod hierarchical;
pub(crate) mod kmeans;
mod measure;
pub(crate) mod parts;
pub(crate) mod rows;
pub(crate) mod rq_kmeans;
pub(crate) mod rqvae;
mod saved;
mod several;

pub(crate) use crate::index::{CandidateIndex, HealthThresholds};
pub use assign::Assignment;
pub use base::Quantizer;
pub(crate) use coarse_to_fine::FineQuantizer;
pub use coarse_to_fine::{CoarseToFine, CoarseToFineConfig, FineConfig, QuantizerEvent};
pub(crate) use hierarchical::Hierarchical;
pub use hierarchical::HierarchicalConfig;
pub use kmeans::KMeansConfig;
pub(crate) use kmeans::{HostSearch, KMeans, KMeansEvent, NearestCentre};
pub(crate) use parts::CodesPart;
pub use rows::RowSource;
pub(crate) use rows::sample_rows;
pub use rq_kmeans::RqKMeansConfig;
pub(crate) use rq_kmeans::{RqKMeans, RqKMeansEvent};
pub use rqvae::{Codebooks, RqVaeConfig};
pub(crate) use rqvae::{RqVae, RqVaeEvent, Scaling, nearest_codes};
pub use several::IdentifierConfig;
