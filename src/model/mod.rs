//! The CART network and its losses.

mod architecture;
mod cart;
mod config;
mod loss;
mod objective;

pub use cart::Cart;
pub use config::{CartConfig, ParameterCount, Preset};
pub use loss::{IdentifierLoss, LossConfig, LossTargets, Scope};
pub(crate) use objective::Supervised;
