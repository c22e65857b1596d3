//! Which candidate each identifier belongs to, if candidates have several.

use std::{collections::HashSet, sync::Arc};

use crate::error::{Error, Result};

/// Which candidate each identifier row of a trie belongs to.
///
/// Rows 0 to N - 1 are the first identifiers of candidates 0 to N - 1; every row after them is one
/// more identifier, an alias, of some candidate. Without aliases, identifier rows are candidates.
/// Ours: in the paper a candidate has one identifier.
///
/// # Example
/// ```
/// use cart_retrieval::expert::IdentifierMap;
/// let map = IdentifierMap::new(3, vec![2, 0])?; // row 3 is an alias of candidate 2, row 4 of candidate 0
/// assert_eq!((map.len(), map.of(1), map.of(3)), (5, 1, 2));
/// assert_eq!(map.rows_of(&[0, 1]), [0, 1, 4]);
/// let mut found = vec![3, 4, 2, 1];
/// map.distinct(&mut found, |&row| row);
/// assert_eq!(found, [3, 4, 1]);                 // row 2 is candidate 2, which row 3 stands for already
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentifierMap {
    items: usize,
    /// Candidate of every row from `items` on.
    aliases: Arc<[u32]>,
}

impl IdentifierMap {
    /// A map for so many candidates, given the candidate of each alias.
    ///
    /// # Errors
    /// [`Error::Identifier`] for an alias of a candidate that does not exist.
    pub fn new(items: usize, aliases: Vec<u32>) -> Result<Self> {
        match aliases.iter().find(|&&item| item as usize >= items) {
            Some(item) => Err(Error::identifier("owners of the identifiers")
                .expected(format!("candidates below {items}"))
                .found(item.to_string())
                .fix("name the candidate of every identifier beyond the first ones")),
            None => Ok(Self { items, aliases: aliases.into() }),
        }
    }

    /// One identifier for each candidate.
    pub fn single(items: usize) -> Self {
        Self { items, aliases: Arc::default() }
    }

    /// Number of identifier rows.
    pub fn len(&self) -> usize {
        self.items + self.aliases.len()
    }

    /// Whether there is no identifier.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of candidates.
    pub fn items(&self) -> usize {
        self.items
    }

    /// Candidates of the identifiers beyond the first ones, in the order of their rows.
    pub fn aliases(&self) -> &[u32] {
        &self.aliases
    }

    /// Whether every candidate has one identifier.
    pub fn are_single(&self) -> bool {
        self.aliases.is_empty()
    }

    /// The candidate of an identifier row.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn of(&self, row: u32) -> u32 {
        match (row as usize).checked_sub(self.items) {
            Some(alias) => self.aliases[alias],
            None => row,
        }
    }

    /// All identifier rows of some candidates: their first ones in the order given, then their
    /// aliases.
    ///
    /// One pass over all aliases.
    pub fn rows_of(&self, items: &[u32]) -> Vec<u32> {
        let mut rows = items.to_vec();
        if !self.are_single() {
            let wanted: HashSet<u32> = items.iter().copied().collect();
            let aliases = (self.items as u32..).zip(&*self.aliases);
            rows.extend(aliases.filter(|(_, item)| wanted.contains(item)).map(|(row, _)| row));
        }
        rows
    }

    /// Keeps the first of every candidate's identifier rows in a list.
    pub fn distinct<T>(&self, list: &mut Vec<T>, row: impl Fn(&T) -> u32) {
        if !self.are_single() {
            let mut seen = HashSet::new();
            list.retain(|element| seen.insert(self.of(row(element))));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_of_an_unknown_candidate_is_refused() {
        let error = IdentifierMap::new(2, vec![1, 2]).unwrap_err().to_string();
        assert!(error.contains("below 2") && error.contains("found 2"), "{error}");
    }

    #[test]
    fn without_aliases_rows_are_candidates() {
        let map = IdentifierMap::single(4);
        assert!(map.are_single() && map.len() == 4);
        let mut all = vec![3, 0, 3];
        map.distinct(&mut all, |&row| row);
        assert_eq!((all.as_slice(), map.of(3)), (&[3, 0, 3][..], 3));
        assert_eq!(map.rows_of(&[2, 1]), [2, 1]);
    }
}
