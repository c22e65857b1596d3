//! CART.
pub mod data;
pub mod decode;
pub mod error;
pub mod eval;
pub mod features;
pub mod identifier;
pub mod model;
pub mod nn;
pub mod quantizer;
pub mod storage;
pub mod train;
pub mod trie;
pub use error::{Error, Result};
