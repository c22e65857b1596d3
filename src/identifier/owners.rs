//! Whose identifiers are whose, where candidates have several.

use std::{collections::HashSet, sync::Arc};

use crate::error::{Error, Result};

/// Which candidate each entry of a trie belongs to.
///
/// Entries 0 to N - 1 are the first identifiers of candidates 0 to N - 1; every entry after them is one more identifier, an
/// alias, of some candidate. Without aliases entries are candidates. Ours: in the paper a candidate has one identifier.
///
/// # Example
/// ```
/// use cart_retrieval::identifier::Owners;
/// let owners = Owners::new(3, vec![2, 0])?;      // entry 3 is one more of candidate 2, entry 4 of candidate 0
/// assert_eq!((owners.len(), owners.of(1), owners.of(3)), (5, 1, 2));
/// assert_eq!(owners.entries_of(&[0, 1]), [0, 1, 4]);
/// let mut found = vec![3, 4, 2, 1];
/// owners.distinct(&mut found, |&entry| entry);
/// assert_eq!(found, [3, 4, 1]);                   // entry 2 is candidate 2, who came first with entry 3
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owners {
    items: usize,
    /// Candidate of every entry from `items` on.
    aliases: Arc<[u32]>,
}

impl Owners {
    /// Owners of the aliases of so many candidates.
    ///
    /// # Errors
    /// [`Error::Identifier`] for an owner that is none of the candidates.
    pub fn new(items: usize, aliases: Vec<u32>) -> Result<Self> {
        match aliases.iter().find(|&&owner| owner as usize >= items) {
            Some(owner) => Err(Error::identifier("owners of the identifiers")
                .expected(format!("candidates below {items}"))
                .found(owner.to_string())
                .fix("name the candidate of every identifier beyond the first ones")),
            None => Ok(Self { items, aliases: aliases.into() }),
        }
    }

    /// One identifier for each of so many candidates.
    pub fn single(items: usize) -> Self {
        Self { items, aliases: Arc::default() }
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.items + self.aliases.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of candidates.
    pub fn items(&self) -> usize {
        self.items
    }

    /// Candidates of the entries beyond the first ones, in the order of the entries.
    pub fn aliases(&self) -> &[u32] {
        &self.aliases
    }

    /// Whether every candidate has one identifier.
    pub fn are_single(&self) -> bool {
        self.aliases.is_empty()
    }

    /// The candidate of an entry.
    ///
    /// # Panics
    /// When there is no such entry.
    pub fn of(&self, entry: u32) -> u32 {
        match (entry as usize).checked_sub(self.items) {
            Some(alias) => self.aliases[alias],
            None => entry,
        }
    }

    /// All entries of some candidates: their first ones in the order given, then their aliases.
    ///
    /// One pass over all aliases.
    pub fn entries_of(&self, items: &[u32]) -> Vec<u32> {
        let mut entries = items.to_vec();
        if !self.are_single() {
            let wanted: HashSet<u32> = items.iter().copied().collect();
            let aliases = (self.items as u32..).zip(&*self.aliases);
            entries.extend(aliases.filter(|(_, owner)| wanted.contains(owner)).map(|(e, _)| e));
        }
        entries
    }

    /// Keeps the first of every candidate's entries in a list.
    pub fn distinct<T>(&self, list: &mut Vec<T>, entry: impl Fn(&T) -> u32) {
        if !self.are_single() {
            let mut seen = HashSet::new();
            list.retain(|element| seen.insert(self.of(entry(element))));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_of_nobody_is_refused() {
        let error = Owners::new(2, vec![1, 2]).unwrap_err().to_string();
        assert!(error.contains("below 2") && error.contains("found 2"), "{error}");
    }

    #[test]
    fn without_aliases_entries_are_candidates() {
        let owners = Owners::single(4);
        assert!(owners.are_single() && owners.len() == 4);
        let mut all = vec![3, 0, 3];
        owners.distinct(&mut all, |&entry| entry);
        assert_eq!((all.as_slice(), owners.of(3)), (&[3, 0, 3][..], 3));
        assert_eq!(owners.entries_of(&[2, 1]), [2, 1]);
    }
}
