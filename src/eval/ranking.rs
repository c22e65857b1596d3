//! The answer to a query: items and scores, best first.

use crate::error::{Error, Result};

/// The answer to one query: items, best first, and their scores.
///
/// Invariants, checked by [`Ranking::validate`]: as many scores as items, no item twice, no NaN,
/// and scores that never rise.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Ranking {
    /// Items, best first.
    pub items: Vec<u32>,
    /// Score of each item.
    pub scores: Vec<f32>,
}

impl Ranking {
    /// A checked ranking.
    ///
    /// # Errors
    /// As [`Ranking::validate`].
    ///
    /// # Example
    /// ```
    /// use cart_retrieval::eval::Ranking;
    /// assert!(Ranking::new(vec![4, 2], vec![0.9, 0.1]).is_ok());
    /// assert!(Ranking::new(vec![4, 4], vec![0.9, 0.1]).is_err());
    /// ```
    pub fn new(items: Vec<u32>, scores: Vec<f32>) -> Result<Self> {
        let ranking = Self { items, scores };
        ranking.validate()?;
        Ok(ranking)
    }

    /// Number of listed items.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether nothing is listed.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Checks the invariants of the type.
    ///
    /// # Errors
    /// [`Error::Query`] when lengths differ, a score is NaN or rises, or an item is listed twice.
    pub fn validate(&self) -> Result<()> {
        let wrong = |expected: &str, found: String, remedy: &str| {
            Err(Error::query("ranking").expected(expected).found(found).fix(remedy))
        };
        if self.items.len() != self.scores.len() {
            let found = format!("{} items and {} scores", self.items.len(), self.scores.len());
            return wrong("as many scores as items", found, "give one score for each item");
        }
        if let Some(place) = self.scores.iter().position(|score| score.is_nan()) {
            let found = format!("NaN at place {}", place + 1);
            return wrong("numbers as scores", found, "look for NaN in features or weights");
        }
        if let Some(place) = self.scores.windows(2).position(|pair| pair[0] < pair[1]) {
            let (first, second) = (self.scores[place], self.scores[place + 1]);
            let found = format!("{first} before {second} at place {}", place + 1);
            return wrong("scores from high to low", found, "sort the items by falling score");
        }
        if let Some(item) = duplicate(&self.items) {
            let found = format!("item {item} twice");
            return wrong("every item at most once", found, "merge the two entries");
        }
        Ok(())
    }
}

/// An item that is listed twice.
pub(super) fn duplicate(items: &[u32]) -> Option<u32> {
    let mut sorted = items.to_vec();
    sorted.sort_unstable();
    sorted.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_rankings_are_refused() {
        for (items, scores, expected) in [
            (vec![1, 2], vec![1.0], "as many scores"),
            (vec![1, 1], vec![1.0, 0.5], "item 1 twice"),
            (vec![1, 2], vec![1.0, f32::NAN], "NaN at place 2"),
            (vec![1, 2], vec![0.0, 1.0], "high to low"),
        ] {
            let message = Ranking::new(items, scores).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
