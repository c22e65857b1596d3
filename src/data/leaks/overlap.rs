//! How many queries were already seen as training text.

use std::{
    collections::{HashMap, HashSet},
    fmt,
};

use serde::Serialize;

use crate::data::ItemCaption;

/// Counts of queries whose text also occurs among the training captions.
///
/// Texts are compared after [`words`]: lower case, letters and digits only. A query seen with its
/// own item measures memory rather than retrieval; one seen with another item cannot be answered
/// better than by chance between the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct OverlapAudit {
    /// Training captions.
    pub train: usize,
    /// Queries.
    pub queries: usize,
    /// Queries whose text is a training text of any item.
    pub duplicates: usize,
    /// Queries whose text is a training text of their own item.
    pub same_item: usize,
    /// Queries whose text is a training text of another item; some are counted in `same_item` too.
    pub other_item: usize,
    /// Queries without a letter or digit; they are compared with nothing.
    pub without_words: usize,
}

impl fmt::Display for OverlapAudit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = 100.0 * self.duplicates as f64 / self.queries.max(1) as f64;
        write!(
            f,
            "{} of {} queries ({share:.1}%) occur among {} training captions: \
             {} of the same item, {} of another item",
            self.duplicates, self.queries, self.train, self.same_item, self.other_item
        )?;
        if self.without_words > 0 {
            write!(f, "; {} queries have no words", self.without_words)?;
        }
        Ok(())
    }
}

/// The words of a text: lower-cased runs of letters and digits, of any script.
///
/// # Example
/// ```
/// use cart_retrieval::expert::words;
/// let found: Vec<String> = words("A black-dog, Élan No.5 .").collect();
/// assert_eq!(found, ["a", "black", "dog", "élan", "no", "5"]);
/// ```
pub fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
}

/// Counts the queries whose text was seen in training.
///
/// # Example
/// ```
/// use cart_retrieval::{data::ItemCaption, expert::audit};
/// let caption = |item, text: &str| ItemCaption { item, text: text.into(), weight: 1.0 };
/// let train = [caption(0, "Two dogs."), caption(1, "a cat")];
/// let found = audit(&train, &[caption(0, "two dogs"), caption(0, "A cat!"), caption(1, "snow")]);
/// assert_eq!((found.same_item, found.other_item, found.queries), (1, 1, 3));
/// ```
pub fn audit(train: &[ItemCaption], queries: &[ItemCaption]) -> OverlapAudit {
    let normal = |text: &str| words(text).collect::<Vec<_>>().join(" ");
    let mut seen: HashMap<String, HashSet<u32>> = HashMap::new();
    for caption in train {
        seen.entry(normal(&caption.text)).or_default().insert(caption.item);
    }
    let mut audit =
        OverlapAudit { train: train.len(), queries: queries.len(), ..Default::default() };
    for query in queries {
        let text = normal(&query.text);
        if text.is_empty() {
            audit.without_words += 1;
        } else if let Some(items) = seen.get(&text) {
            let same = items.contains(&query.item);
            audit.duplicates += 1;
            audit.same_item += usize::from(same);
            audit.other_item += usize::from(items.len() > usize::from(same));
        }
    }
    audit
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn captions(rows: &[(u32, String)]) -> Vec<ItemCaption> {
        rows.iter()
            .map(|(item, text)| ItemCaption { item: *item, text: text.clone(), weight: 1.0 })
            .collect()
    }

    /// The slow twin: compares every query with every training caption.
    fn slow(train: &[ItemCaption], queries: &[ItemCaption]) -> [usize; 3] {
        let normal = |text: &str| words(text).collect::<Vec<_>>();
        let mut counts = [0; 3];
        for query in queries.iter().filter(|q| !normal(&q.text).is_empty()) {
            let hits: Vec<&ItemCaption> =
                train.iter().filter(|t| normal(&t.text) == normal(&query.text)).collect();
            counts[0] += usize::from(!hits.is_empty());
            counts[1] += usize::from(hits.iter().any(|t| t.item == query.item));
            counts[2] += usize::from(hits.iter().any(|t| t.item != query.item));
        }
        counts
    }

    #[test]
    fn shows_counts() {
        let rows = |texts: &[(u32, &str)]| {
            captions(&texts.iter().map(|(i, t)| (*i, t.to_string())).collect::<Vec<_>>())
        };
        let found = audit(&rows(&[(0, "x"), (1, "X!"), (2, "?")]), &rows(&[(0, "x"), (3, "!")]));
        assert_eq!(
            found.to_string(),
            "1 of 2 queries (50.0%) occur among 3 training captions: 1 of the same item, \
             1 of another item; 1 queries have no words"
        );
        assert!(serde_json::to_string(&found).unwrap().contains("\"same_item\":1"));
    }

    proptest! {
        #[test]
        fn agrees_with_the_slow_twin(
            train in prop::collection::vec((0u32..4, "[aB .!]{0,4}"), 0..20),
            queries in prop::collection::vec((0u32..4, "[Ab .!]{0,4}"), 0..20),
        ) {
            let (train, queries) = (captions(&train), captions(&queries));
            let found = audit(&train, &queries);
            let counts = [found.duplicates, found.same_item, found.other_item];
            prop_assert_eq!(counts, slow(&train, &queries));
        }
    }
}
