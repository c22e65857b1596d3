//! The sorted table, built once and then read only, and its nodes.

use super::column::Column;
use crate::{
    error::{Error, Result},
    identifier::{Codes, Identifier, LevelSizes},
    storage::Array,
};

/// All identifiers of a collection, with the way from item to identifier and back.
///
/// # Layout
/// Rows are sorted by identifier. The first level is dense: `first[t]..first[t + 1]` are the rows
/// whose coarse token is `t`, so that column needs no storage. The other L - 1 columns hold a byte
/// a row for levels of up to 256 tokens, two for larger ones, and none for a level of one token.
/// With the item of each row and the row of each item (4 bytes each) a candidate takes at most
/// `8 + 2 (L - 1)` bytes: 16 at the usual L = 5, 12 where no level below the first has more than
/// 256 tokens; `4 (K + 1)` bytes come once. The columns and the dense level are the identifier
/// table: there is no other.
///
/// # Invariants
/// 1. Rows are strictly ascending, so identifiers are unique.
/// 2. `items` is a permutation of `0..len` and `rows` its inverse.
/// 3. Every token is below its level's size.
///
/// # Example
/// ```
/// use cart_retrieval::{expert::{Codes, Trie}, identifier::LevelSizes};
/// let codes = Codes::from_rows(2, &[[1, 0], [0, 2], [1, 3]])?;
/// let trie = Trie::build(&codes, &LevelSizes::new(vec![2, 4])?)?;
/// let under_one = trie.child(trie.root(), 1).unwrap();
/// assert_eq!(under_one.count(), 2);
/// let tokens: Vec<u16> = trie.children(under_one).map(|(token, _)| token).collect();
/// assert_eq!(tokens, [0, 3]);
/// assert_eq!(trie.item_of(&[1, 3])?, 2);
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trie {
    pub(super) vocabulary: LevelSizes,
    /// Rows of coarse token t are `first[t]..first[t + 1]`.
    pub(super) first: Array<u32>,
    /// Tokens of level l + 1 by row.
    pub(super) columns: Vec<Column>,
    /// Item of each row.
    pub(super) items: Array<u32>,
    /// Row of each item.
    pub(super) rows: Array<u32>,
}

impl Trie {
    /// The same trie under a vocabulary whose last level is larger: room for unique tokens that
    /// other candidates need.
    ///
    /// # Errors
    /// [`Error::Identifier`] when another level differs or the last is smaller.
    pub fn within(self, vocabulary: &LevelSizes) -> Result<Self> {
        let (own, given) = (self.vocabulary.sizes(), vocabulary.sizes());
        let last = own.len() - 1;
        Error::identifier("identifier levels").expected(format!("{:?}, or a larger last one", own)).found(format!("{given:?}")).fix_if(given.len() != own.len() || given[..last] != own[..last] || given[last] < own[last], "make the identifiers with the quantizer of the network, and train it with room for \
                 as many unique tokens (CandidateIndex::with_unique_capacity)")?;
        // A wider level may need wider tokens.
        let columns = (1..).zip(self.columns).map(|(level, column)| {
            let size = vocabulary.size(level);
            match Column::width(size) == Column::width(self.vocabulary.size(level)) {
                true => column,
                false => Column::collect(size, (0..column.len()).map(|row| column.token(row))),
            }
        });
        Ok(Self { columns: columns.collect(), vocabulary: vocabulary.clone(), ..self })
    }

    /// Number of candidates.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Always false: a trie holds at least one candidate.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Number of levels L of every identifier.
    pub fn levels(&self) -> usize {
        self.vocabulary.levels()
    }

    /// Sizes of the levels.
    pub fn vocabulary(&self) -> &LevelSizes {
        &self.vocabulary
    }

    /// The empty prefix.
    pub fn root(&self) -> Node {
        Node { lo: 0, hi: self.items.len() as u32, depth: 0 }
    }

    /// Legal next tokens of a prefix with the nodes they lead to, in token order.
    pub fn children(&self, node: Node) -> Children<'_> {
        let depth = node.depth + 1;
        let kind = match node.depth as usize {
            0 => Kind::Dense { offsets: &self.first, token: 0 },
            level if level < self.levels() => {
                Kind::Sorted { column: &self.columns[level - 1], lo: node.lo, hi: node.hi }
            }
            _ => Kind::Leaf,
        };
        Children { kind, depth }
    }

    /// The node one token further, if that token is legal.
    pub fn child(&self, node: Node, token: u16) -> Option<Node> {
        let depth = node.depth + 1;
        let (lo, hi) = match node.depth as usize {
            0 => {
                let token = usize::from(token);
                (*self.first.get(token)?, *self.first.get(token + 1)?)
            }
            level if level < self.levels() => {
                let column = &self.columns[level - 1];
                let (lo, hi) = column.rows_of(node.lo as usize, node.hi as usize, token);
                (lo as u32, hi as u32)
            }
            _ => return None,
        };
        (lo < hi).then_some(Node { lo, hi, depth })
    }

    /// The node of a prefix, if it exists.
    pub fn find(&self, prefix: &[u16]) -> Option<Node> {
        prefix.iter().try_fold(self.root(), |node, &token| self.child(node, token))
    }

    /// Items below a node, in identifier order.
    pub fn items(&self, node: Node) -> &[u32] {
        &self.items[node.lo as usize..node.hi as usize]
    }

    /// The item that a whole identifier stands for.
    ///
    /// # Errors
    /// [`Error::Identifier`] when it has another length, an impossible token, or is not indexed.
    pub fn item_of(&self, identifier: &[u16]) -> Result<u32> {
        self.vocabulary.check(identifier)?;
        let node = self.find(identifier).ok_or_else(|| {
            Error::identifier(Identifier::new(identifier.to_vec()).to_string())
                .expected("an identifier of this index")
                .found("none of its candidates")
                .fix("use identifiers of this index")
        })?;
        Ok(self.items[node.lo as usize])
    }

    /// The identifier of an item.
    ///
    /// # Errors
    /// [`Error::Identifier`] when there is no such item.
    pub fn identifier_of(&self, item: u32) -> Result<Identifier> {
        Ok(Identifier::new(self.tokens_of_row(self.row_of(item)?)))
    }

    /// The row of an item: its place among all identifiers in order.
    ///
    /// # Errors
    /// [`Error::Identifier`] when there is no such item.
    pub fn row_of(&self, item: u32) -> Result<usize> {
        let row = self.rows.get(item as usize).ok_or_else(|| {
            Error::identifier(format!("item {item}"))
                .expected(format!("an item below {}", self.len()))
                .found(item.to_string())
                .fix("use items of this index")
        })?;
        Ok(*row as usize)
    }

    /// Identifiers of all items, `[len, levels]` in item order.
    pub fn identifiers(&self) -> Codes {
        let mut tokens = Vec::with_capacity(self.len() * self.levels());
        self.write_identifiers(|_| true, &mut tokens);
        Codes::from_flat(self.levels(), tokens).expect("whole rows")
    }

    /// Identifiers of the items that are kept, one after the other in item order.
    pub(crate) fn write_identifiers(&self, keep: impl Fn(usize) -> bool, out: &mut Vec<u16>) {
        for (_, &row) in self.rows.iter().enumerate().filter(|(item, _)| keep(*item)) {
            out.push(self.coarse_of_row(row as usize));
            out.extend(self.columns.iter().map(|column| column.token(row as usize)));
        }
    }

    /// First rows of the nodes that each level's tokens lead to.
    pub(crate) fn node_starts(&self) -> Vec<Vec<u32>> {
        let mut coarse: Vec<u32> = self.first[..self.first.len() - 1].to_vec();
        coarse.dedup();
        coarse.retain(|&start| (start as usize) < self.len());
        let mut levels = vec![coarse];
        for column in &self.columns {
            let above = levels.last().expect("the first level");
            let mut starts = Vec::with_capacity(above.len());
            for (at, &lo) in above.iter().enumerate() {
                let hi = above.get(at + 1).map_or(self.len(), |&next| next as usize);
                let mut row = lo as usize;
                while row < hi {
                    starts.push(row as u32);
                    row += column.run(row, hi);
                }
            }
            levels.push(starts);
        }
        levels
    }

    /// Bytes this trie holds in memory.
    pub fn memory(&self) -> usize {
        let columns: usize = self.columns.iter().map(Column::memory).sum();
        columns + 4 * (self.first.len() + self.items.len() + self.rows.len())
    }

    fn tokens_of_row(&self, row: usize) -> Vec<u16> {
        std::iter::once(self.coarse_of_row(row))
            .chain(self.columns.iter().map(|column| column.token(row)))
            .collect()
    }

    fn coarse_of_row(&self, row: usize) -> u16 {
        (self.first.partition_point(|&start| start as usize <= row) - 1) as u16
    }
}

/// The inverse of a permutation.
pub(super) fn inverse(items: &[u32]) -> Vec<u32> {
    let mut rows = vec![0u32; items.len()];
    for (row, &item) in items.iter().enumerate() {
        rows[item as usize] = row as u32;
    }
    rows
}

/// A prefix of identifiers: the rows `[lo, hi)` of the sorted table that start with it.
///
/// Twelve bytes, `Copy`, and meaningless for any other trie than the one it came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Node {
    lo: u32,
    hi: u32,
    depth: u32,
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

/// Children of a node in token order, made by [`Trie::children`](Trie::children).
#[derive(Debug, Clone)]
pub struct Children<'a> {
    kind: Kind<'a>,
    depth: u32,
}

#[derive(Debug, Clone)]
enum Kind<'a> {
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

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    fn distinct_rows() -> impl Strategy<Value = Vec<Vec<u16>>> {
        (1usize..5, 1u16..6).prop_flat_map(|(levels, size)| {
            prop::collection::btree_set(prop::collection::vec(0..size, levels), 1..60)
                .prop_map(|set: BTreeSet<_>| set.into_iter().collect::<Vec<_>>())
                .prop_shuffle()
        })
    }

    proptest! {
        /// Twin: filter all identifiers by prefix.
        #[test]
        fn children_are_the_distinct_next_tokens(rows in distinct_rows()) {
            let levels = rows[0].len();
            let codes = Codes::from_rows(levels, &rows).unwrap();
            let trie = Trie::build(&codes, &LevelSizes::new(vec![6; levels]).unwrap()).unwrap();
            for row in &rows {
                for depth in 0..=levels {
                    let prefix = &row[..depth];
                    let mut expected = BTreeMap::new();
                    for other in rows.iter().filter(|other| other.starts_with(prefix)) {
                        if depth < levels {
                            *expected.entry(other[depth]).or_insert(0usize) += 1;
                        }
                    }
                    let node = trie.find(prefix).unwrap();
                    let got: BTreeMap<_, _> =
                        trie.children(node).map(|(t, n)| (t, n.count())).collect();
                    prop_assert_eq!(&got, &expected);
                    for (token, child) in trie.children(node) {
                        prop_assert_eq!(trie.child(node, token), Some(child));
                    }
                    prop_assert_eq!(trie.child(node, 6), None);
                }
            }
        }

        #[test]
        fn items_and_identifiers_go_both_ways(rows in distinct_rows()) {
            let levels = rows[0].len();
            let codes = Codes::from_rows(levels, &rows).unwrap();
            let trie = Trie::build(&codes, &LevelSizes::new(vec![6; levels]).unwrap()).unwrap();
            prop_assert_eq!(trie.identifiers(), codes);
            for (item, row) in rows.iter().enumerate() {
                prop_assert_eq!(trie.item_of(row).unwrap(), item as u32);
                let identifier = trie.identifier_of(item as u32).unwrap();
                prop_assert_eq!(identifier.tokens(), &row[..]);
            }
            let in_order: Vec<&Vec<u16>> =
                trie.items(trie.root()).iter().map(|&item| &rows[item as usize]).collect();
            prop_assert!(in_order.is_sorted());
        }
    }

    #[test]
    fn unknown_and_malformed_identifiers_are_errors() {
        let codes = Codes::from_rows(2, &[[1u16, 0], [0, 2]]).unwrap();
        let trie = Trie::build(&codes, &LevelSizes::new(vec![2, 3]).unwrap()).unwrap();
        assert!(trie.item_of(&[1, 1]).unwrap_err().to_string().contains("1-1"));
        assert!(trie.item_of(&[1]).is_err());
        assert!(trie.item_of(&[1, 3]).is_err());
        assert!(trie.identifier_of(2).is_err());
        assert_eq!(trie.find(&[1, 0, 0]), None);
    }

    #[test]
    fn two_items_with_one_identifier_are_named() {
        let codes = Codes::from_rows(1, &[[0u16], [1], [0]]).unwrap();
        let error = Trie::build(&codes, &LevelSizes::new(vec![2]).unwrap()).unwrap_err();
        assert!(error.to_string().contains("items 0 and 2"), "{error}");
    }

    #[test]
    fn the_usual_identifier_takes_at_most_sixteen_bytes_a_candidate() {
        let mut codes = Codes::new(5);
        for item in 0..5000u16 {
            codes.push(&[item % 50, item / 50, 0, 0, 0]);
        }
        for (sizes, bytes) in [
            (vec![50, 65_536, 65_536, 300, 257], 16),
            (vec![50, 100, 64, 256, 16], 12),
            (vec![50, 100, 64, 257, 1], 12),
        ] {
            let trie = Trie::build(&codes, &LevelSizes::new(sizes).unwrap()).unwrap();
            assert_eq!(trie.memory(), bytes * 5000 + 4 * 51);
        }
    }

    /// More unique tokens than fit a byte, in a trie that had one.
    #[test]
    fn a_wider_last_level_keeps_every_identifier() {
        let codes = Codes::from_rows(2, &[[1u16, 0], [0, 0]]).unwrap();
        let trie = Trie::build(&codes, &LevelSizes::new(vec![2, 1]).unwrap()).unwrap();
        for size in [1, 16, 256, 257, 65_536] {
            let vocabulary = LevelSizes::new(vec![2, size]).unwrap();
            let wider = trie.clone().within(&vocabulary).unwrap();
            assert_eq!(wider, Trie::build(&codes, &vocabulary).unwrap());
        }
    }
}
