//! The CART network and its losses.

mod architecture;
mod cart;
pub(crate) mod config;
pub(crate) mod loss;
mod objective;

pub use cart::Cart;
pub use config::{CartConfig, Preset};
pub use loss::{LossConfig, Scope};
pub(crate) use objective::Supervised;
