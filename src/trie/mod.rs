//! The identifier trie: a flat, pointer-free table of sorted identifiers.
//!
//! A node is a range of rows that share a prefix; its children are found by galloping through the
//! sorted column of the next level. See [`Trie`] for the layout and its size.

mod build;
mod column;
mod filter;
mod format;
pub(crate) mod table;

pub use filter::{Filter, Filters};
pub(crate) use table::{Node, Trie};
