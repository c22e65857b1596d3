//! The CART network and its losses.

mod architecture;
mod cart;
mod config;
mod loss;

pub use cart::{Cart, EncodedQueries};
pub use config::{CartConfig, ParameterCount, Preset};
pub use loss::{IdentifierLoss, LossConfig, Scope};
