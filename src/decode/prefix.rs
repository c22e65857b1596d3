//! A prefix in a search.

use crate::trie::Node;

/// A prefix under consideration.
#[derive(Debug, Clone, Copy)]
pub(super) struct Beam {
    pub(super) node: Node,
    pub(super) score: f32,
    /// The token it ends with.
    pub(super) token: u16,
    /// The decoder row that its parent occupied.
    pub(super) parent: u32,
}
