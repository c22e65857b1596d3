//! A node of the trie, and the walk over its children.

use super::column::Column;

/// A prefix of identifiers: the rows `[lo, hi)` of the sorted table that start with it.
///
/// Twelve bytes, `Copy`, and meaningless for any other trie than the one it came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Node {
    pub(super) lo: u32,
    pub(super) hi: u32,
    pub(super) depth: u32,
}

impl Node {
    /// Number of candidates below this node.
    pub fn count(self) -> usize {
        (self.hi - self.lo) as usize
    }

    /// Number of tokens in the prefix.
    pub fn depth(self) -> usize {
        self.depth as usize
    }

    /// First row of the sorted table below this node: a stable order among nodes of one depth.
    pub fn first_row(self) -> usize {
        self.lo as usize
    }
}

/// Children of a node in token order, made by [`Trie::children`](super::Trie::children).
#[derive(Debug, Clone)]
pub struct Children<'a> {
    pub(super) kind: Kind<'a>,
    pub(super) depth: u32,
}

#[derive(Debug, Clone)]
pub(super) enum Kind<'a> {
    /// Offsets of the dense first level, and the next token to look at.
    Dense { offsets: &'a [u32], token: usize },
    /// Tokens of the next level over the node's rows, and the rows still to visit.
    Sorted { column: &'a Column, lo: u32, hi: u32 },
    /// A whole identifier has no children.
    Leaf,
}

impl Iterator for Children<'_> {
    type Item = (u16, Node);

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.kind {
            Kind::Leaf => None,
            Kind::Dense { offsets, token } => {
                while *token + 1 < offsets.len() {
                    let (lo, hi) = (offsets[*token], offsets[*token + 1]);
                    *token += 1;
                    if lo < hi {
                        return Some(((*token - 1) as u16, Node { lo, hi, depth: self.depth }));
                    }
                }
                None
            }
            Kind::Sorted { column, lo, hi } => {
                if lo == hi {
                    return None;
                }
                let token = column.token(*lo as usize);
                let end = *lo + column.run(*lo as usize, *hi as usize) as u32;
                let node = Node { lo: *lo, hi: end, depth: self.depth };
                *lo = end;
                Some((token, node))
            }
        }
    }
}
