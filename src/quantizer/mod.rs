//! From embeddings to tokens: K-Means, RQ-KMeans, RQ-VAE, hierarchical K-Means, and their
//! coarse-to-fine composition, all behind [`Quantizer`].

mod assign;
mod base;
mod coarse_to_fine;
mod code_beam;
mod device_search;
mod hierarchical;
mod kmeans;
mod measure;
mod parts;
mod rows;
mod rq_kmeans;
mod rqvae;
mod saved;
mod several;

pub use crate::index::{CandidateIndex, HealthReport, HealthThresholds, LevelHealth};
pub use assign::Assignment;
pub use base::Quantizer;
pub use coarse_to_fine::{
    CoarseToFine, CoarseToFineConfig, FineConfig, FineQuantizer, QuantizerEvent,
};
pub use device_search::DeviceSearch;
pub use hierarchical::{Hierarchical, HierarchicalConfig};
pub use kmeans::{HostSearch, Init, KMeans, KMeansConfig, KMeansEvent, NearestCentre};
pub use parts::CodesPart;
pub use rows::{RowSource, sample_rows};
pub use rq_kmeans::{RqKMeans, RqKMeansConfig, RqKMeansEvent};
pub use rqvae::{
    Codebooks, Mlp, Quantised, RqVae, RqVaeConfig, RqVaeEvent, RqVaeNetwork, RqVaeParts, Scaling,
    Standardise, assign_nearest, nearest_codes,
};
pub use several::IdentifierConfig;
