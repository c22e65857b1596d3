//! CART.
pub mod error;
pub mod identifier;
pub mod trie;
pub use error::{Error, Result};
