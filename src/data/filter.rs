//! Which captions of a set take part: by kind, by source, by position among an item's captions.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::captions::{Caption, Captions};
use crate::error::{Error, Result, named};

/// A choice of captions that a recipe can spell out in its configuration file.
///
/// Kinds and sources are applied first. Positions are then counted among the captions of an item
/// that passed, in file order, from 0: with `kinds = ["human"]` and `last = true` every item gives
/// its last human caption. The default keeps everything.
///
/// # Example
/// ```
/// use cart_retrieval::data::{CaptionFilter, Captions};
/// let captions = Captions::from_pairs([("a", "one"), ("a", "two"), ("b", "three"), ("a", "four")])?;
/// let queries = captions.select(&CaptionFilter { last: true, ..Default::default() })?;
/// let texts: Vec<&str> = queries.iter().map(|caption| caption.text.as_str()).collect();
/// assert_eq!(texts, ["three", "four"]);
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CaptionFilter {
    /// Kinds to keep; empty keeps all, with or without a kind.
    pub kinds: Vec<String>,
    /// Sources to keep; empty keeps all, with or without a source.
    pub sources: Vec<String>,
    /// Kinds to drop.
    pub exclude_kinds: Vec<String>,
    /// Positions to keep; absent keeps all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ordinals: Option<Vec<usize>>,
    /// Keep the last caption of every item.
    pub last: bool,
    /// Keep all but the last caption of every item.
    pub except_last: bool,
    /// Keep the last caption of every item that has several.
    #[serde(skip_serializing_if = "is_false")]
    pub held_out: bool,
    /// Keep what `held_out` leaves: the only caption of an item, or all but the last of several.
    #[serde(skip_serializing_if = "is_false")]
    pub except_held_out: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

impl CaptionFilter {
    /// Checks that the settings do not contradict each other.
    ///
    /// # Errors
    /// [`Error::Config`] when a kind is both kept and dropped, when more than one of `ordinals`,
    /// `last`, `except_last`, `held_out` and `except_held_out` is set, or when `ordinals` is an
    /// empty list.
    pub fn validate(&self) -> Result<()> {
        if let Some(kind) = self.kinds.iter().find(|kind| self.exclude_kinds.contains(kind)) {
            return Err(Error::config("exclude_kinds")
                .expected("kinds that `kinds` does not keep")
                .found(format!("`{kind}` in both"))
                .fix("remove it from one of the two lists"));
        }
        let flags = named!(self, last, except_last, held_out, except_held_out);
        let ways = [("ordinals", self.ordinals.is_some())].into_iter().chain(flags);
        let positions: Vec<String> =
            ways.filter(|(_, set)| *set).map(|(name, _)| format!("`{name}`")).collect();
        if positions.len() > 1 {
            return Err(Error::config("caption filter")
                .expected(
                    "at most one of `ordinals`, `last`, `except_last`, `held_out` and \
                 `except_held_out`",
                )
                .found(positions.join(" and "))
                .fix("keep one of them"));
        }
        if self.ordinals.as_ref().is_some_and(Vec::is_empty) {
            return Err(Error::config("ordinals")
                .expected("at least one position")
                .found("an empty list, which keeps no caption")
                .fix("list positions counted from 0, or leave `ordinals` out to keep all"));
        }
        Ok(())
    }

    /// Whether kind and source pass; positions are not looked at.
    fn passes(&self, caption: &Caption) -> bool {
        let listed =
            |list: &[String], value: Option<&String>| value.is_some_and(|v| list.contains(v));
        (self.kinds.is_empty() || listed(&self.kinds, caption.kind.as_ref()))
            && (self.sources.is_empty() || listed(&self.sources, caption.source.as_ref()))
            && !listed(&self.exclude_kinds, caption.kind.as_ref())
    }

    /// Names in the settings that no caption has are misspelt, or meant for another file.
    fn check_names(&self, captions: &Captions) -> Result<()> {
        let kinds = captions.kinds();
        let sources = captions.sources();
        let lists = [
            ("kinds", &self.kinds, &kinds),
            ("exclude_kinds", &self.exclude_kinds, &kinds),
            ("sources", &self.sources, &sources),
        ];
        for (setting, names, known) in lists {
            if let Some(name) = names.iter().find(|name| !known.iter().any(|k| k == name)) {
                let what = if setting == "sources" { "source" } else { "kind" };
                let (expected, remedy) = if known.is_empty() {
                    (
                        format!("no {setting}, as no caption has a {what}"),
                        format!("remove {setting} from the filter, or give captions a {what}"),
                    )
                } else {
                    (
                        format!("names among {}, the {what}s of these captions", known.join(", ")),
                        "correct the name or remove it".to_string(),
                    )
                };
                return Err(Error::captions(setting)
                    .expected(expected)
                    .found(format!("`{name}`"))
                    .fix(remedy));
            }
        }
        Ok(())
    }
}

impl Captions {
    /// The captions that pass a [`CaptionFilter`], in file order.
    ///
    /// # Errors
    /// [`Error::Config`] for a contradictory filter; [`Error::Captions`] when the filter names a
    /// kind or source that no caption has, or keeps no caption at all.
    ///
    /// # Example
    /// ```
    /// use cart_retrieval::data::{CaptionFilter, Captions};
    /// let captions = Captions::from_pairs([("a", "one"), ("a", "two"), ("a", "three")])?;
    /// let train = CaptionFilter { ordinals: Some(vec![0, 1]), ..Default::default() };
    /// assert_eq!(captions.select(&train)?.len(), 2);
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn select(&self, filter: &CaptionFilter) -> Result<Self> {
        filter.validate()?;
        filter.check_names(self)?;
        let mut totals: HashMap<&str, usize> = HashMap::new();
        let ordinals: Vec<Option<usize>> = self
            .iter()
            .map(|caption| {
                filter.passes(caption).then(|| {
                    let total = totals.entry(&caption.id).or_default();
                    *total += 1;
                    *total - 1
                })
            })
            .collect();
        let wanted: Option<HashSet<usize>> =
            filter.ordinals.as_ref().map(|list| list.iter().copied().collect());
        let mut position = 0;
        let kept = self.filter(|caption| {
            let ordinal = ordinals[position];
            position += 1;
            let Some(ordinal) = ordinal else { return false };
            let last = ordinal + 1 == totals[caption.id.as_str()];
            let held_out = last && ordinal > 0;
            wanted.as_ref().is_none_or(|wanted| wanted.contains(&ordinal))
                && (!filter.last || last)
                && (!filter.except_last || !last)
                && (!filter.held_out || held_out)
                && (!filter.except_held_out || !held_out)
        });
        if kept.is_empty() {
            return Err(Error::captions("caption filter")
                .expected("at least one caption that passes")
                .found(match totals.values().max() {
                    None => format!("none of {} captions with such a kind and source", self.len()),
                    Some(1) => format!(
                        "none of {}: every item has one caption that positions are counted among",
                        self.len()
                    ),
                    Some(most) => {
                        format!("none of {}: an item has at most {most} captions", self.len())
                    }
                })
                .fix(
                    "relax the filter; positions count from 0 after filtering by kinds and sources",
                ));
        }
        Ok(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Captions {
        let mut captions = Captions::new();
        for (id, text, kind) in [
            ("a", "a0", "x"),
            ("b", "b0", "y"),
            ("a", "a1", "y"),
            ("a", "a2", "x"),
            ("b", "b1", "x"),
            ("c", "c0", "x"),
        ] {
            captions.push(Caption::new(id, text).with_kind(kind)).unwrap();
        }
        captions
    }

    fn texts(captions: &Captions) -> Vec<&str> {
        captions.iter().map(|c| c.text.as_str()).collect()
    }

    #[test]
    fn positions_and_kinds() {
        let all = sample();
        let last = CaptionFilter { last: true, ..Default::default() };
        assert_eq!(texts(&all.select(&last).unwrap()), ["a2", "b1", "c0"]);
        let rest = CaptionFilter { except_last: true, ..Default::default() };
        assert_eq!(texts(&all.select(&rest).unwrap()), ["a0", "b0", "a1"]);
        let second_x = CaptionFilter {
            kinds: vec!["x".into()],
            ordinals: Some(vec![1]),
            ..Default::default()
        };
        assert_eq!(texts(&all.select(&second_x).unwrap()), ["a2"]);
        let no_y = CaptionFilter { exclude_kinds: vec!["y".into()], ..Default::default() };
        assert_eq!(texts(&all.select(&no_y).unwrap()), ["a0", "a2", "b1", "c0"]);
        assert_eq!(all.select(&CaptionFilter::default()).unwrap(), all);
    }

    #[test]
    fn contradictions_and_typos_are_refused() {
        let all = sample();
        let bad = |text: &str| {
            let filter: CaptionFilter = serde_json::from_str(text).unwrap();
            all.select(&filter).unwrap_err().to_string()
        };
        assert!(bad(r#"{"last": true, "except_last": true}"#).contains("`last` and `except_last`"));
        assert!(bad(r#"{"last": true, "ordinals": [1]}"#).contains("at most one"));
        assert!(bad(r#"{"ordinals": []}"#).contains("at least one position"));
        assert!(bad(r#"{"kinds": ["x"], "exclude_kinds": ["x"]}"#).contains("`x` in both"));
        assert!(bad(r#"{"held_out": true, "last": true}"#).contains("`last` and `held_out`"));
        let kinds = bad(r#"{"kinds": ["z"]}"#);
        assert!(kinds.contains("names among x, y, the kinds of these captions, found `z`"));
        let sources = bad(r#"{"sources": ["z"]}"#);
        assert!(sources.contains("no caption has a source, found `z`; remove sources"));
        assert!(bad(r#"{"ordinals": [9]}"#).contains("none of 6"));
        assert!(serde_json::from_str::<CaptionFilter>(r#"{"lst": true}"#).is_err());
        let single = Captions::from_pairs([("a", "one"), ("b", "two")]).unwrap();
        let rest = CaptionFilter { except_last: true, ..Default::default() };
        let error = single.select(&rest).unwrap_err().to_string();
        assert!(error.contains("none of 2: every item has one caption"), "{error}");
    }

    #[test]
    fn what_is_held_out_leaves_every_item_a_caption() {
        let all = sample();
        let held_out = CaptionFilter { held_out: true, ..Default::default() };
        assert_eq!(texts(&all.select(&held_out).unwrap()), ["a2", "b1"]);
        let rest = CaptionFilter { except_held_out: true, ..Default::default() };
        assert_eq!(texts(&all.select(&rest).unwrap()), ["a0", "b0", "a1", "c0"]);
        // Files of settings from before the two fields stay as they are.
        let plain = serde_json::to_string(&CaptionFilter::default()).unwrap();
        assert!(!plain.contains("held_out"), "{plain}");
    }

    proptest! {
        #[test]
        fn last_and_except_last_part_every_set(ids in prop::collection::vec(0u8..6, 1..40)) {
            let all = Captions::from_pairs(
                ids.iter().enumerate().map(|(n, id)| (id.to_string(), format!("t{n}")))).unwrap();
            let last = all.select(&CaptionFilter { last: true, ..Default::default() }).unwrap();
            let rest = CaptionFilter { except_last: true, ..Default::default() };
            let rest = all.select(&rest).map(|r| r.len()).unwrap_or(0);
            let distinct: HashSet<u8> = ids.iter().copied().collect();
            prop_assert_eq!(last.len(), distinct.len());
            prop_assert_eq!(last.len() + rest, all.len());
        }
    }
}
