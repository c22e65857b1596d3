//! Tests of the word search against the formula written out.

use cart_retrieval::eval::{TruncatedTies, evaluate};
use proptest::prelude::*;

use super::*;

/// The slow twin: the formula of the module, straight from the texts, for one candidate.
fn slow(docs: &[(u32, String)], n: usize, config: &Bm25Config, query: &str, item: u32) -> f64 {
    let document = |item: u32| -> Vec<String> {
        docs.iter().filter(|(i, _)| *i == item).flat_map(|(_, text)| words(text)).collect()
    };
    let all: Vec<Vec<String>> = (0..n as u32).map(document).collect();
    let average = all.iter().map(Vec::len).sum::<usize>() as f64 / n as f64;
    let (k1, b) = (f64::from(config.k1), f64::from(config.b));
    let own = &all[item as usize];
    words(query)
        .map(|word| {
            let df = all.iter().filter(|document| document.contains(&word)).count() as f64;
            let tf = own.iter().filter(|other| **other == word).count() as f64;
            if tf == 0.0 {
                return 0.0;
            }
            let idf = (1.0 + (n as f64 - df + 0.5) / (df + 0.5)).ln();
            idf * tf * (k1 + 1.0) / (tf + k1 * (1.0 - b + b * own.len() as f64 / average))
        })
        .sum()
}

fn rows(texts: &[(u32, &str)]) -> Vec<(u32, String)> {
    texts.iter().map(|(item, text)| (*item, text.to_string())).collect()
}

#[test]
fn unmatched_candidates_follow_as_one_tie() {
    let docs = rows(&[(3, "Red car."), (1, "red bus"), (2, "tree"), (3, "Élan")]);
    let bm25 = Bm25::fit(&docs, 5, &Bm25Config::default()).unwrap();
    let found = bm25.search("a RED élan", 9);
    assert_eq!(found.items, [3, 1, 0, 2, 4]);
    assert_eq!(found.scores[2..], [0.0; 3]);
    assert!(found.validate().is_ok());
    assert_eq!(bm25.search("red", 1).len(), 1);
    assert!(bm25.search("red", 0).is_empty());
    // A query without a known word finds by chance alone, even from a short list.
    let nothing = bm25.search_all(&["!", "zebra"], 2);
    let scores = evaluate(&nothing, &[[0], [4]], 5, TruncatedTies::AllUnlisted).unwrap();
    assert!((scores.metrics().recall_at_1 - 0.2).abs() < 1e-12);
}

#[test]
fn equal_documents_tie_exactly() {
    let docs = rows(&[(0, "the red car"), (1, "car the red"), (2, "a blue car")]);
    let bm25 = Bm25::fit(&docs, 3, &Bm25Config::default()).unwrap();
    let found = bm25.search("red car", 3);
    assert_eq!(found.scores[0], found.scores[1]);
    assert!(found.scores[1] > found.scores[2]);
}

#[test]
fn stop_words_are_left_out_on_request() {
    let docs = rows(&[(0, "the dog"), (1, "the cat")]);
    let config = Bm25Config { stop_words: true, ..Default::default() };
    let bm25 = Bm25::fit(&docs, 2, &config).unwrap();
    assert_eq!(bm25.search("the", 2).scores, [0.0, 0.0]);
    assert!(Bm25::fit(&rows(&[(0, "the")]), 1, &config).is_err());
}

#[test]
fn bad_input_is_refused() {
    let docs = rows(&[(0, "dog")]);
    let default = Bm25Config::default();
    assert!(Bm25::fit(&docs, 0, &default).unwrap_err().to_string().contains("item 0"));
    assert!(Bm25::fit::<String>(&[], 3, &default).is_err());
    for config in [default.clone().with_k1(-1.0), default.clone().with_b(f32::NAN)] {
        assert!(matches!(Bm25::fit(&docs, 1, &config), Err(Error::Config(_))));
    }
    let bm25 = Bm25::fit(&docs, 1, &default).unwrap();
    let grid = Bm25Grid::default();
    assert!(bm25.tune::<&str, [u32; 1]>(&[], &[], &grid).is_err());
    assert!(bm25.tune(&["dog"], &[[1]], &grid).unwrap_err().to_string().contains("query 0"));
    assert!(bm25.tune(&["dog"], &[[0]], &Bm25Grid { k1: vec![], ..grid }).is_err());
    assert!(serde_json::from_str::<Bm25Config>(r#"{"k2": 1}"#).is_err());
}

#[test]
fn tuning_finds_what_the_queries_want() {
    // Only without length normalisation does the long document win.
    let docs = rows(&[(0, "dog"), (1, "dog dog dog cat tree house car road sky sea")]);
    let mut bm25 = Bm25::fit(&docs, 2, &Bm25Config::default()).unwrap();
    let tuned = bm25.tune(&["dog"], &[[1]], &Bm25Grid::default()).unwrap();
    assert_eq!((tuned.mrr_at_10, tuned.tried.len()), (1.0, 25));
    assert_eq!(tuned.config.b, 0.0);
    bm25.set_parameters(tuned.config.k1, tuned.config.b).unwrap();
    assert_eq!(bm25.search("dog", 1).items, [1]);
    assert!(bm25.set_parameters(1.0, 2.0).is_err());
}

#[test]
fn real_captions_are_found_again() {
    use cart_retrieval::data::{CaptionFilter, Captions};
    let folder =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/flickr8k_clip");
    let Ok(ids) = std::fs::read_to_string(folder.join("ids.txt")) else {
        eprintln!("skipped: flickr8k_clip is not here");
        return;
    };
    let ids: HashMap<&str, usize> = ids.lines().enumerate().map(|(i, id)| (id, i)).collect();
    let captions = Captions::from_jsonl(folder.join("captions.jsonl")).unwrap();
    let part = |filter: CaptionFilter| {
        captions.select(&filter).unwrap().resolve(|id| ids.get(id).copied()).unwrap()
    };
    let train = part(CaptionFilter { except_last: true, ..Default::default() });
    let queries = part(CaptionFilter { last: true, ..Default::default() });
    let docs: Vec<(u32, &str)> = train.iter().map(|c| (c.item, c.text.as_str())).collect();
    let bm25 = Bm25::fit(&docs, ids.len(), &Bm25Config::default()).unwrap();
    let texts: Vec<&str> = queries.iter().map(|c| c.text.as_str()).collect();
    let relevant: Vec<[u32; 1]> = queries.iter().map(|c| [c.item]).collect();
    let rankings = bm25.search_all(&texts, ids.len());
    let scores = evaluate(&rankings, &relevant, ids.len(), TruncatedTies::Listed).unwrap();
    eprintln!("flickr8k_clip, BM25: {}", scores.metrics());
    assert!(scores.metrics().recall_at_10 > 0.3);
    let short = bm25.search_all(&texts, 100);
    let again = evaluate(&short, &relevant, ids.len(), TruncatedTies::AllUnlisted).unwrap();
    assert_eq!(again.recall_at_10, scores.recall_at_10);
}

proptest! {
    #[test]
    fn agrees_with_the_formula(
        docs in prop::collection::vec((0u32..5, "[abcd ]{1,12}"), 1..12),
        query in "[abcde ]{0,8}",
        k1 in 0.0f32..3.0,
        b in 0.0f32..=1.0,
        k in 0usize..7,
    ) {
        prop_assume!(docs.iter().any(|(_, text)| words(text).next().is_some()));
        let config = Bm25Config::default().with_k1(k1).with_b(b);
        let bm25 = Bm25::fit(&docs, 5, &config).unwrap();
        let found = bm25.search(&query, k);
        prop_assert_eq!(found.len(), k.min(5));
        prop_assert!(found.validate().is_ok());
        let mut expected: Vec<f64> = (0..5).map(|i| slow(&docs, 5, &config, &query, i)).collect();
        for (item, score) in found.items.iter().zip(&found.scores) {
            let right = expected[*item as usize];
            prop_assert!((f64::from(*score) - right).abs() < 1e-4 * (1.0 + right));
        }
        expected.sort_by(|a, b| b.total_cmp(a));
        for (score, right) in found.scores.iter().zip(expected) {
            prop_assert!((f64::from(*score) - right).abs() < 1e-4 * (1.0 + right));
        }
        let all = bm25.search_all(&[query.as_str(), "a b", query.as_str()], k);
        prop_assert_eq!(&all[0], &found);
        prop_assert_eq!(&all[2], &found);
    }
}
