//! CART.
pub mod error;
pub mod identifier;
pub mod model;
pub mod nn;
pub mod trie;
pub use error::{Error, Result};
