//! CART.
pub mod data;
pub mod decode;
pub mod error;
pub mod eval;
pub mod features;
pub mod identifier;
pub mod model;
pub mod nn;
pub mod prelude;
pub mod quantizer;
pub mod retrieve;
pub mod storage;
pub mod train;
pub mod trie;
pub use error::{Error, Result};
