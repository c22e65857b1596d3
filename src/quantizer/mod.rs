//! From embeddings to tokens: K-Means, RQ-KMeans, RQ-VAE, hierarchical K-Means, and their
//! coarse-to-fine composition, all behind [`Quantizer`].

mod base;
mod coarse_to_fine;
mod code_beam;
mod device_search;
mod health;
mod hierarchical;
mod index;
mod kmeans;
mod matmul;
mod parts;
mod rows;
mod rq_kmeans;
mod rqvae;
mod saved;
#[cfg(target_arch = "x86_64")]
mod screen;
mod several;

pub(crate) use matmul::{Layout, dots};

pub use base::Quantizer;
pub use coarse_to_fine::{
    CoarseToFine, CoarseToFineConfig, FineConfig, FineQuantizer, QuantizerEvent,
};
pub use device_search::DeviceSearch;
pub use health::{HealthReport, HealthThresholds, LevelHealth};
pub use hierarchical::{Hierarchical, HierarchicalConfig};
pub use index::CandidateIndex;
pub use kmeans::{HostSearch, Init, KMeans, KMeansConfig, KMeansEvent, NearestCentre};
pub use parts::CodesPart;
pub use rows::{RowSource, sample_rows};
pub use rq_kmeans::{RqKMeans, RqKMeansConfig, RqKMeansEvent};
pub use rqvae::{
    Codebooks, Mlp, Quantised, RqVae, RqVaeConfig, RqVaeEvent, RqVaeNetwork, RqVaeParts, Scaling,
    Standardise, assign_nearest, nearest_codes,
};
pub use several::IdentifierConfig;
