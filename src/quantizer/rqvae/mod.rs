//! RQ-VAE: residual quantisation in the latent space of an autoencoder (paper, section on
//! fine tokens; Lee et al. 2022).

mod config;
mod fit;
mod network;
mod search;
mod trained;

pub use config::{Codebooks, RqVaeConfig, Standardise};
pub use fit::RqVaeEvent;
pub use network::{Mlp, Quantised, RqVaeNetwork, RqVaeParts};
pub use search::{assign_nearest, nearest_codes};
pub use trained::{RqVae, Scaling};
