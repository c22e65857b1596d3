//! The audit of queries against training texts, and what it refuses.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    near::{Found, join, kind_of},
    overlap::{OverlapAudit, words},
};
use crate::{
    data::ItemCaption,
    error::{Error, Result, ensure_in},
    features::ItemIds,
};

/// What becomes of a leak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LeakPolicy {
    /// It is an error.
    Refuse,
    /// It is told.
    Warn,
    /// It is counted.
    Ignore,
}

/// How a training text is like a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeakKind {
    /// It has the query's words in their order, and describes the query's item: memory is measured.
    SameItem,
    /// It has the query's words in their order, and describes another item: neither can be told
    /// from the other.
    OtherItem,
    /// It has nearly the query's words, and describes the query's item.
    NearSameItem,
    /// It has nearly the query's words, and describes another item.
    NearOtherItem,
}

impl LeakKind {
    /// All kinds, the worst first.
    pub const ALL: [Self; 4] =
        [Self::SameItem, Self::NearSameItem, Self::OtherItem, Self::NearOtherItem];

    fn place(self) -> usize {
        kind_of(self.is_own(), !self.is_near())
    }

    /// Whether the training text is of the query's item.
    fn is_own(self) -> bool {
        matches!(self, Self::SameItem | Self::NearSameItem)
    }

    fn is_near(self) -> bool {
        matches!(self, Self::NearSameItem | Self::NearOtherItem)
    }

    /// The setting of [`LeakAuditConfig`] that it is under.
    const fn setting(self) -> &'static str {
        match self {
            Self::SameItem => "same_item",
            Self::NearSameItem => "near_same_item",
            Self::OtherItem | Self::NearOtherItem => "other_items",
        }
    }
}

/// What to look for, and what to do about it.
///
/// Texts are compared by their [`words`]: lower case, letters and digits only. Two texts are near
/// duplicates when the Jaccard similarity of their sets of shingles (runs of `shingle` words) is
/// `threshold` at least. By default a query that is a training text of its own item is refused;
/// what is nearly one is told, as people describe one thing in like words; so is what describes
/// another item.
///
/// # Example
/// ```
/// use cart_retrieval::{data::{ItemCaption, LeakAuditConfig}, features::ItemIds};
/// let caption = |item, text: &str| ItemCaption { item, text: text.into(), weight: 1.0 };
/// let train = [caption(0, "Two dogs run in deep snow."), caption(1, "a cat")];
/// let ids = ItemIds::new(&["dogs.jpg", "cat.jpg"])?;
/// let config = LeakAuditConfig::default();
/// let near = config.run(&train, &[caption(0, "two dogs run in snow")], &ids)?;
/// assert_eq!((near.near_same_item, near.exact.same_item), (1, 0));
/// assert_eq!(near.ensure(&config)?.len(), 1);                       // a warning
/// let same = config.run(&train, &[caption(1, "A cat!")], &ids)?;
/// assert!(same.ensure(&config).unwrap_err().to_string().contains("cat.jpg"));
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LeakAuditConfig {
    /// Queries that are a training text of their own item, word for word.
    pub same_item: LeakPolicy,
    /// Queries that are nearly a training text of their own item.
    pub near_same_item: LeakPolicy,
    /// Queries that are a training text of another item, or nearly one.
    pub other_items: LeakPolicy,
    /// Jaccard similarity from which on two texts are near duplicates, above 0 and at most 1.
    pub threshold: f64,
    /// Words in a shingle; 1 compares sets of words.
    pub shingle: usize,
    /// Pairs of each kind that are named.
    pub examples: usize,
}

impl Default for LeakAuditConfig {
    fn default() -> Self {
        Self {
            same_item: LeakPolicy::Refuse,
            near_same_item: LeakPolicy::Warn,
            other_items: LeakPolicy::Warn,
            threshold: 0.8,
            shingle: 1,
            examples: 3,
        }
    }
}

impl LeakAuditConfig {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Config`] for a threshold that is not above 0 and at most 1, or shingles of no word.
    pub fn validate(&self) -> Result<()> {
        let remedy = "0.8 finds texts that differ by a word or two";
        ensure_in("threshold of the audit", self.threshold, "(0, 1]", remedy)?;
        let remedy = "1 compares sets of words, 2 or more respect their order";
        ensure_in("shingle of the audit", self.shingle as f64, "[1, inf)", remedy)
    }

    /// Looks for every query among the training texts; `ids` names the items of both.
    ///
    /// Finds all near duplicates there are (by an index of the queries, training texts pass by
    /// once).
    ///
    /// # Errors
    /// As [`LeakAuditConfig::validate`]; [`Error::Captions`] for an item that has no id.
    pub fn run(
        &self,
        train: &[ItemCaption],
        queries: &[ItemCaption],
        ids: &ItemIds,
    ) -> Result<LeakAudit> {
        self.validate()?;
        let stray = train.iter().chain(queries).find(|text| text.item as usize >= ids.len());
        if let Some(stray) = stray {
            return Err(Error::captions("texts of the audit")
                .expected(format!("items below {}, the number of ids", ids.len()))
                .found(format!("item {} ({:?})", stray.item, stray.text))
                .fix("resolve captions and queries against the same ids"));
        }
        let found = join(train, queries, self.threshold, self.shingle);
        let any = |kinds: &[LeakKind]| {
            let has = |found: &&Found| kinds.iter().any(|kind| found[kind.place()].is_some());
            found.iter().filter(has).count()
        };
        let without_words =
            queries.iter().filter(|query| words(&query.text).next().is_none()).count();
        let exact = OverlapAudit {
            train: train.len(),
            queries: queries.len(),
            duplicates: any(&[LeakKind::SameItem, LeakKind::OtherItem]),
            same_item: any(&[LeakKind::SameItem]),
            other_item: any(&[LeakKind::OtherItem]),
            without_words,
        };
        let mut examples = Vec::new();
        for kind in LeakKind::ALL {
            let pairs = found.iter().zip(queries).filter_map(|(found, query)| {
                let (similarity, position) = found[kind.place()]?;
                let text = &train[position];
                Some(LeakPair {
                    kind,
                    query: query.text.clone(),
                    query_id: ids.get(query.item as usize).to_string(),
                    train: text.text.clone(),
                    train_id: ids.get(text.item as usize).to_string(),
                    similarity,
                })
            });
            examples.extend(pairs.take(self.examples));
        }
        Ok(LeakAudit {
            exact,
            threshold: self.threshold,
            near: any(&[LeakKind::NearSameItem, LeakKind::NearOtherItem]),
            near_same_item: any(&[LeakKind::NearSameItem]),
            near_other_item: any(&[LeakKind::NearOtherItem]),
            examples,
        })
    }
}

/// A query and a training text that is like it: the most similar one of its kind.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LeakPair {
    /// How they are alike.
    pub kind: LeakKind,
    /// The query.
    pub query: String,
    /// Id of the item that it describes.
    pub query_id: String,
    /// The training text.
    pub train: String,
    /// Id of the item that it describes.
    pub train_id: String,
    /// Jaccard similarity of their shingles.
    pub similarity: f64,
}

impl fmt::Display for LeakPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { query, query_id, train, train_id, similarity, .. } = self;
        write!(f, "query {query:?} of `{query_id}` and training text {train:?} of `{train_id}`")?;
        if self.kind.is_near() { write!(f, " (similarity {similarity:.2})") } else { Ok(()) }
    }
}

/// Queries that are training texts, or nearly so: counts and examples.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LeakAudit {
    /// Queries that are training texts word for word; as [`audit`](super::audit) counts them.
    pub exact: OverlapAudit,
    /// Similarity from which on texts are near duplicates.
    pub threshold: f64,
    /// Queries with a near duplicate that is no exact one, of any item.
    pub near: usize,
    /// Queries with such a near duplicate of their own item.
    pub near_same_item: usize,
    /// Queries with such a near duplicate of another item; some are counted in `near_same_item`
    /// too.
    pub near_other_item: usize,
    /// The first pairs of each kind, in the order of the queries.
    pub examples: Vec<LeakPair>,
}

impl LeakAudit {
    /// Queries of a kind.
    pub fn count(&self, kind: LeakKind) -> usize {
        match kind {
            LeakKind::SameItem => self.exact.same_item,
            LeakKind::OtherItem => self.exact.other_item,
            LeakKind::NearSameItem => self.near_same_item,
            LeakKind::NearOtherItem => self.near_other_item,
        }
    }

    /// Refuses what the settings refuse; gives the warnings about what they tell, a text for each
    /// kind.
    ///
    /// # Errors
    /// [`Error::Captions`] with the count and the first pairs of the first kind that is refused.
    pub fn ensure(&self, config: &LeakAuditConfig) -> Result<Vec<String>> {
        let mut warnings = Vec::new();
        for kind in LeakKind::ALL.into_iter().filter(|&kind| self.count(kind) > 0) {
            let policy = match kind {
                LeakKind::SameItem => config.same_item,
                LeakKind::NearSameItem => config.near_same_item,
                LeakKind::OtherItem | LeakKind::NearOtherItem => config.other_items,
            };
            let whose = if kind.is_own() { "their own item" } else { "another item" };
            let what = if kind.is_near() {
                let threshold = self.threshold;
                format!(
                    "near duplicates of a training text of {whose} (similarity {threshold} or more)"
                )
            } else {
                format!("a training text of {whose}")
            };
            let pairs: Vec<String> = self
                .examples
                .iter()
                .filter(|pair| pair.kind == kind)
                .map(ToString::to_string)
                .collect();
            let found = format!(
                "{} of {} queries that are {what}: {}",
                self.count(kind),
                self.exact.queries,
                if pairs.is_empty() { "no examples asked for".into() } else { pairs.join("; ") }
            );
            match policy {
                LeakPolicy::Ignore => {}
                LeakPolicy::Warn => warnings.push(found),
                LeakPolicy::Refuse => {
                    return Err(Error::captions("audit")
                        .expected("queries that do not occur among the training texts")
                        .found(found)
                        .fix(format!(
                            "remove those captions from the training texts or the queries, or set \
                             `{}` of the audit to \"warn\" and report the count with the results",
                            kind.setting()
                        )));
                }
            }
        }
        Ok(warnings)
    }
}

impl fmt::Display for LeakAudit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { exact, threshold, near, near_same_item, near_other_item, .. } = self;
        write!(
            f,
            "{exact}; {near} have a near duplicate (similarity {threshold} or more): {near_same_item} of the same \
             item, {near_other_item} of another item"
        )
    }
}
