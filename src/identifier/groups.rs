//! Groups of candidates: what a leading token says, such as the modality.

use std::collections::BTreeSet;

use super::{Codes, LevelSizes};
use crate::error::{Error, Result};

/// A named group for every candidate, such as its modality, which becomes the first token of its
/// identifier.
///
/// With it one index holds pictures, sounds and videos: the network decides on the group first, as
/// it decides on the coarse token next, and a search in one group follows that token alone
/// ([`CandidateIndex::group_filter`](crate::quantizer::CandidateIndex::group_filter)). Ours: the
/// paper trains an index for each modality.
///
/// # Example
/// ```
/// use cart_retrieval::identifier::Groups;
/// let groups = Groups::from_labels(["image", "audio", "image"])?;
/// assert_eq!(groups.names(), ["audio", "image"]);
/// assert_eq!(groups.tokens(), [1, 0, 1]);
/// let more = Groups::new(["audio", "image"], ["audio"])?;      // numbered as before
/// assert_eq!(more.tokens(), [0]);
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Groups {
    names: Vec<String>,
    tokens: Vec<u16>,
}

impl Groups {
    /// Groups of candidates, by name, among the groups that there are: token 0 stands for the
    /// first.
    ///
    /// # Errors
    /// [`Error::Identifier`] without names or candidates, for more than 65,536 names, a blank one or one that occurs
    /// twice, and for a candidate in a group that is not among them.
    pub fn new<N: AsRef<str>, L: AsRef<str>>(
        names: impl IntoIterator<Item = N>,
        labels: impl IntoIterator<Item = L>,
    ) -> Result<Self> {
        let names: Vec<String> = names.into_iter().map(|name| name.as_ref().to_string()).collect();
        check_names(&names)?;
        let tokens = labels
            .into_iter()
            .enumerate()
            .map(|(item, label)| {
                let label = label.as_ref();
                let token = names.iter().position(|name| name == label);
                token.map(|token| token as u16).ok_or_else(|| {
                    Error::identifier(format!("group of candidate {item}"))
                        .expected(format!("one of {}", names.join(", ")))
                        .found(format!("{label:?}"))
                        .fix("list all groups before a network is trained with them")
                })
            })
            .collect::<Result<Vec<_>>>()?;
        if tokens.is_empty() {
            return Err(Error::identifier("groups")
                .expected("a group for each of at least one candidate")
                .found("no candidates")
                .fix("give the label of every candidate"));
        }
        Ok(Self { names, tokens })
    }

    /// Groups of candidates by their labels, in the alphabetical order of these.
    ///
    /// # Errors
    /// As [`Groups::new`].
    pub fn from_labels<L: AsRef<str>>(labels: impl IntoIterator<Item = L>) -> Result<Self> {
        let labels: Vec<String> = labels.into_iter().map(|l| l.as_ref().to_string()).collect();
        let names: BTreeSet<&String> = labels.iter().collect();
        Self::new(names.into_iter().cloned().collect::<Vec<_>>(), &labels)
    }

    /// Names of all groups, in the order of their tokens.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Token of each candidate.
    pub fn tokens(&self) -> &[u16] {
        &self.tokens
    }

    /// The groups of all identifiers of so many candidates: the first ones, then the `aliases`,
    /// given by their candidates.
    ///
    /// # Errors
    /// [`Error::Identifier`] when there is not one group for each candidate.
    pub(crate) fn of_rows(&self, items: usize, aliases: &[u32]) -> Result<Self> {
        self.check(items)?;
        let own = |&item: &u32| self.tokens[item as usize];
        let tokens = self.tokens.iter().copied().chain(aliases.iter().map(own)).collect();
        Ok(Self { names: self.names.clone(), tokens })
    }

    /// Identifiers with the groups' tokens first, and the sizes of their levels.
    ///
    /// # Errors
    /// [`Error::Identifier`] when there is not one group for each identifier.
    pub(crate) fn lead(&self, codes: &Codes, sizes: &[usize]) -> Result<(Codes, Vec<usize>)> {
        self.check(codes.len())?;
        let first = Codes::from_flat(1, self.tokens.clone())?;
        let sizes = [&[self.names.len()], sizes].concat();
        Ok((first.join(codes), sizes))
    }

    /// That these are the groups of so many.
    fn check(&self, count: usize) -> Result<()> {
        if count == self.tokens.len() {
            return Ok(());
        }
        Err(Error::identifier("groups")
            .expected(format!("one for each of {count} candidates"))
            .found(self.tokens.len().to_string())
            .fix("use groups and features of one collection"))
    }
}

fn check_names(names: &[String]) -> Result<()> {
    let wrong = |expected: &str, found: String| {
        Err(Error::identifier("groups").expected(expected).found(found).fix("name each group once"))
    };
    if names.is_empty() || names.len() > LevelSizes::MAX_LEVEL {
        return wrong("1 to 65536 names", names.len().to_string());
    }
    if let Some(name) = names.iter().find(|name| name.trim().is_empty()) {
        return wrong("names with some text", format!("{name:?}"));
    }
    let mut seen = BTreeSet::new();
    match names.iter().find(|name| !seen.insert(*name)) {
        Some(name) => wrong("unique names", format!("{name:?} twice")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_lead_the_identifiers() {
        let groups = Groups::from_labels(["video", "audio", "video"]).unwrap();
        let codes = Codes::from_rows(2, &[[1, 2], [1, 2], [0, 0]]).unwrap();
        let (led, sizes) = groups.lead(&codes, &[4, 5]).unwrap();
        assert_eq!(
            (led.as_flat(), sizes.as_slice()),
            (&[1, 1, 2, 0, 1, 2, 1, 0, 0][..], &[2, 4, 5][..])
        );
        assert!(groups.lead(&codes.prefix(1), &[4]).is_ok());
        let fewer = Codes::from_rows(1, &[[0]]).unwrap();
        assert!(groups.lead(&fewer, &[4]).unwrap_err().to_string().contains("one for each of 1"));
    }

    #[test]
    fn names_that_are_none_are_refused() {
        let none: [&str; 0] = [];
        for (names, labels, what) in [
            (vec!["a", "a"], vec!["a"], "twice"),
            (vec!["a", " "], vec!["a"], "some text"),
            (vec![], vec!["a"], "1 to 65536"),
            (vec!["a"], vec!["b"], "candidate 0"),
            (vec!["a"], vec![], "no candidates"),
        ] {
            let error = Groups::new(names, labels).unwrap_err().to_string();
            assert!(error.contains(what), "{what}: {error}");
        }
        assert!(Groups::from_labels(none).is_err());
    }
}
