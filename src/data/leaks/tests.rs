use std::collections::HashSet;

use proptest::prelude::*;

use super::{
    near::{Found, better, join, kind_of, shingles},
    *,
};
use crate::{data::ItemCaption, features::ItemIds};

fn captions(rows: &[(u32, String)]) -> Vec<ItemCaption> {
    rows.iter()
        .map(|(item, text)| ItemCaption { item: *item, text: text.clone(), weight: 1.0 })
        .collect()
}

fn texts(rows: &[(u32, &str)]) -> Vec<ItemCaption> {
    captions(&rows.iter().map(|(item, text)| (*item, text.to_string())).collect::<Vec<_>>())
}

fn ids(count: usize) -> ItemIds {
    ItemIds::new(&(0..count).map(|item| format!("item{item}")).collect::<Vec<_>>()).unwrap()
}

/// The slow twin: every query with every training text.
fn slow(train: &[ItemCaption], queries: &[ItemCaption], least: f64, shingle: usize) -> Vec<Found> {
    let list = |text: &str| words(text).collect::<Vec<String>>();
    let set = |text: &str| shingles(&list(text), shingle).into_iter().collect::<HashSet<String>>();
    let mut all = vec![[None; 4]; queries.len()];
    for (found, query) in all.iter_mut().zip(queries) {
        let wanted = set(&query.text);
        for (position, text) in train.iter().enumerate() {
            let other = set(&text.text);
            let (shared, union) =
                (wanted.intersection(&other).count(), wanted.union(&other).count());
            if wanted.is_empty() || other.is_empty() || (shared as f64) < least * union as f64 {
                continue;
            }
            let same_words = list(&query.text) == list(&text.text);
            let place = kind_of(query.item == text.item, same_words);
            better(&mut found[place], Some((shared as f64 / union as f64, position)));
        }
    }
    all
}

#[test]
fn shingles_are_runs_of_words() {
    let list: Vec<String> = words("a big black dog").collect();
    assert_eq!(shingles(&list, 2), ["a big", "big black", "black dog"]);
    assert_eq!(shingles(&list, 5), ["a big black dog"]);
    assert!(shingles(&[], 1).is_empty());
}

#[test]
fn kinds_are_told_apart_and_shown() {
    let train = texts(&[
        (0, "two dogs run in the snow"),
        (1, "a red bus on a street"),
        (2, "the snow in run dogs two"),
        (3, "?!"),
    ]);
    let queries = texts(&[
        (0, "Two dogs run in the snow!"), // exact of its own; near of item 2, other order
        (1, "two dogs run in the snow"),  // exact and near of others
        (1, "a blue bus on a street"),    // 4 of 6 words
        (3, "..."),
    ]);
    let config = LeakAuditConfig::default();
    let found = config.run(&train, &queries, &ids(4)).unwrap();
    let exact = &found.exact;
    assert_eq!((exact.duplicates, exact.same_item, exact.other_item), (2, 1, 1));
    assert_eq!((found.near, found.near_same_item, found.near_other_item), (2, 0, 2));
    assert_eq!(found.exact, audit(&train, &queries));
    assert_eq!(
        found.to_string(),
        "2 of 4 queries (50.0%) occur among 4 training captions: 1 of the same item, 1 of another item; \
         1 queries have no words; 2 have a near duplicate (similarity 0.8 or more): 0 of the same item, 2 of \
         another item"
    );
    let loose = LeakAuditConfig { threshold: 4.0 / 6.0, ..config.clone() };
    assert_eq!(loose.run(&train, &queries, &ids(4)).unwrap().near_same_item, 1);
    // With pairs of words their order counts.
    let ordered = LeakAuditConfig { shingle: 2, ..config };
    assert_eq!(ordered.run(&train, &queries, &ids(4)).unwrap().near, 0);
}

#[test]
fn policies_refuse_warn_and_ignore() {
    let train = texts(&[(0, "two dogs run in deep snow"), (1, "a cat")]);
    let queries = texts(&[(1, "A cat."), (0, "two dogs run in snow"), (0, "a cat")]);
    let config = LeakAuditConfig::default();
    let found = config.run(&train, &queries, &ids(2)).unwrap();
    let error = found.ensure(&config).unwrap_err().to_string();
    for part in ["1 of 3 queries", "\"A cat.\" of `item1`", "\"a cat\" of `item1`", "`same_item`"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    let warn = LeakAuditConfig { same_item: LeakPolicy::Warn, ..config.clone() };
    let warnings = found.ensure(&warn).unwrap();
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    assert!(warnings[1].contains("similarity 0.83"), "{}", warnings[1]);
    let strict = LeakAuditConfig { near_same_item: LeakPolicy::Refuse, ..warn.clone() };
    assert!(found.ensure(&strict).unwrap_err().to_string().contains("`near_same_item`"));
    let others = LeakAuditConfig { other_items: LeakPolicy::Refuse, ..warn };
    assert!(found.ensure(&others).unwrap_err().to_string().contains("`other_items`"));
    let ignore = LeakAuditConfig {
        same_item: LeakPolicy::Ignore,
        near_same_item: LeakPolicy::Ignore,
        other_items: LeakPolicy::Ignore,
        ..config
    };
    assert!(found.ensure(&ignore).unwrap().is_empty());
    let clean = ignore.run(&train, &texts(&[(0, "a brown horse")]), &ids(2)).unwrap();
    assert!(clean.ensure(&LeakAuditConfig::default()).unwrap().is_empty());
}

#[test]
fn bad_settings_and_items_are_refused() {
    for threshold in [0.0, -1.0, 1.01, f64::NAN] {
        assert!(LeakAuditConfig { threshold, ..Default::default() }.validate().is_err());
    }
    assert!(LeakAuditConfig { shingle: 0, ..Default::default() }.validate().is_err());
    let error = LeakAuditConfig::default().run(&[], &texts(&[(5, "x")]), &ids(2)).unwrap_err();
    assert!(error.to_string().contains("item 5"), "{error}");
    assert!(serde_json::from_str::<LeakAuditConfig>(r#"{"same_items": "warn"}"#).is_err());
    let read: LeakAuditConfig = serde_json::from_str(r#"{"same_item": "warn"}"#).unwrap();
    assert_eq!((read.same_item, read.threshold), (LeakPolicy::Warn, 0.8));
}

/// More texts than one thread takes at a time, many of them equal.
#[test]
fn blocks_of_texts_are_joined() {
    let row = |at: usize| ((at % 7) as u32, format!("w{} w{} of w{}", at % 5, at % 11, at % 3));
    let train = captions(&(0..5000).map(row).collect::<Vec<_>>());
    let queries = captions(&(0..40).map(|at| row(at * 3 + 1)).collect::<Vec<_>>());
    assert_eq!(join(&train, &queries, 0.6, 1), slow(&train, &queries, 0.6, 1));
}

proptest! {
    #[test]
    fn agrees_with_the_double_loop(
        train in prop::collection::vec((0u32..4, "[a-d]( [a-d]){0,5}"), 0..25),
        queries in prop::collection::vec((0u32..4, "[a-d]( [a-e!]){0,5}"), 0..15),
        threshold in prop::sample::select(vec![0.1, 0.3, 0.5, 2.0 / 3.0, 0.75, 0.8, 1.0]),
        shingle in 1usize..4,
    ) {
        let (train, queries) = (captions(&train), captions(&queries));
        prop_assert_eq!(
            join(&train, &queries, threshold, shingle),
            slow(&train, &queries, threshold, shingle)
        );
        let config = LeakAuditConfig { threshold, shingle, ..Default::default() };
        let found = config.run(&train, &queries, &ids(4)).unwrap();
        prop_assert_eq!(found.exact, audit(&train, &queries));
    }
}
