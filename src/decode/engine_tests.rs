use burn::backend::Flex;
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::{
    data::QueryBatch,
    identifier::{Codes, LevelSizes},
    model::CartConfig,
    trie::Trie,
};

fn trie(n: usize) -> Trie {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let rows: std::collections::BTreeSet<[u16; 4]> =
        (0..n).map(|_| std::array::from_fn(|_| rng.random_range(0..12))).collect();
    let codes = Codes::from_rows(4, &rows.into_iter().collect::<Vec<_>>()).unwrap();
    Trie::build(&codes, &LevelSizes::new(vec![12; 4]).unwrap()).unwrap()
}

fn queries(count: usize, longest: usize, seed: u64) -> Vec<Vec<u32>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..count)
        .map(|_| {
            let length = rng.random_range(1..=longest);
            (0..length).map(|_| rng.random_range(1..50)).collect()
        })
        .collect()
}

/// With candidates' vectors, whose likeness to the query is added to the scores.
fn aligned(trie: &Trie) -> (Engine<Flex>, crate::index::PrefixStats) {
    use crate::{index::PrefixStats, nn::AlignmentConfig};
    let config = CartConfig::new(50, trie.vocabulary().clone());
    let config = config.with_width(96, 192, 2).with_layers(3, 2).with_max_tokens(40);
    let config = config.with_alignment(AlignmentConfig::new(5));
    let vectors = (0..5 * trie.len()).map(|at| ((at * 7919 % 101) as f32).sin()).collect();
    let vectors = crate::features::Features::from_rows(vectors, 5).unwrap();
    let model = config.init(&Default::default()).unwrap();
    (Engine::new(model), PrefixStats::new(vectors, trie).unwrap())
}

#[test]
fn so_does_a_query_whose_vector_counts() {
    let trie = trie(200);
    let (engine, geometry) = aligned(&trie);
    let space = SearchSpace::from(&trie).with_prefix_stats(Some(&geometry));
    let config = BeamConfig { width: 6, rerank: 5.0, ..BeamConfig::default() };
    let queries = queries(40, 20, 8);
    let together = engine.search(&queries, 0, space, &config).unwrap();
    for (query, expected) in queries.iter().zip(&together) {
        let alone = engine.search(std::slice::from_ref(query), 0, space, &config).unwrap();
        assert_eq!(&alone[0], expected);
    }
}

fn engine(trie: &Trie, width: usize) -> Engine<Flex> {
    let config = CartConfig::new(50, trie.vocabulary().clone());
    let config = config.with_width(width, 4 * width, 2).with_layers(3, 2).with_max_tokens(40);
    Engine::new(config.init(&Default::default()).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn a_query_gets_the_same_bits_in_any_company(
        count in 1usize..70, longest in 1usize..40, seed in 0u64..99, wide in any::<bool>(),
    ) {
        let trie = trie(500);
        let engine = engine(&trie, if wide { 96 } else { 24 });
        let queries = queries(count, longest, seed);
        let config = BeamConfig { width: 6, ..BeamConfig::default() };
        let together = engine.search(&queries, 0, &trie, &config).unwrap();
        prop_assert_eq!(together.len(), queries.len());
        for (query, expected) in queries.iter().zip(&together).step_by(1 + count / 8) {
            let alone = engine.search(std::slice::from_ref(query), 0, &trie, &config).unwrap();
            prop_assert_eq!(&alone[0], expected);
        }
    }
}

#[test]
fn what_the_network_cannot_read_is_refused() {
    let trie = trie(300);
    let engine = engine(&trie, 24);
    let config = BeamConfig::default();
    let refused = |query: Vec<u32>, words: &str| {
        let error = engine.search(&[vec![1], query], 0, &trie, &config).unwrap_err();
        assert!(matches!(error, Error::Query { .. }) && error.to_string().contains(words));
    };
    refused(vec![1; 41], "at most 40 tokens");
    refused(vec![3, 50], "token 50");
    // Another number of unique tokens than the network has.
    let mut sizes = trie.vocabulary().sizes().to_vec();
    sizes[3] += 1;
    let wider = trie.clone().within(&LevelSizes::new(sizes).unwrap()).unwrap();
    let error = engine.search(&[vec![1]], 0, &wider, &config).unwrap_err();
    assert!(error.to_string().contains("levels of the candidates"), "{error}");
}

/// Near the scores of 32 bits, where the processor can.
#[test]
fn half_precision_stays_near() {
    let trie = trie(400);
    let full = engine(&trie, 96);
    let half = match full.clone().with_precision(SearchPrecision::Bf16) {
        Ok(half) => half,
        Err(error) => {
            assert!(!bf16_products(), "{error}");
            assert!(error.to_string().contains("AVX-512 BF16"), "{error}");
            return;
        }
    };
    let queries = queries(40, 20, 5);
    // All of them, so that no candidate is missing from either.
    let config = BeamConfig { width: 400, ..BeamConfig::default() };
    let run = |engine: &Engine<Flex>| engine.search(&queries, 0, &trie, &config).unwrap();
    let (full, half) = (run(&full), run(&half));
    assert_ne!(full, half);
    for (full, half) in full.iter().zip(&half) {
        let half: std::collections::HashMap<u32, f32> =
            half.iter().map(|answer| (answer.item, answer.score)).collect();
        for answer in full {
            assert!((half[&answer.item] - answer.score).abs() < 0.15, "{answer:?}");
        }
    }
}

/// Twin: the search of one batch. Every query keeps its own filter through batches and parts.
#[test]
fn answers_and_filters_belong_to_their_queries() {
    let trie = trie(300);
    let engine = engine(&trie, 24);
    let queries = queries(75, 9, 1);
    let odd = Filter::by_item(&trie, |item| item % 2 == 1);
    let each: Vec<Option<&Filter>> =
        (0..queries.len()).map(|query| (query % 3 == 0).then_some(&odd)).collect();
    let space = SearchSpace::from(&trie).with_filters(Filters::Each(&each));
    let config = BeamConfig { width: 5, ..BeamConfig::default() };
    let found = engine.search(&queries, 0, space, &config).unwrap();
    let batch = QueryBatch::new(&queries, 0, &Default::default()).unwrap();
    let expected = engine.beam_search(&engine.encode_batch(batch), space, &config).unwrap();
    for (query, (found, expected)) in found.iter().zip(&expected).enumerate() {
        assert_eq!(found.len(), 5);
        assert!(query % 3 != 0 || found.iter().all(|answer| answer.item % 2 == 1));
        for (found, expected) in found.iter().zip(expected) {
            assert!((found.score - expected.score).abs() < 1e-4);
        }
    }
    assert!(engine.search::<Vec<u32>>(&[], 0, &trie, &config).unwrap().is_empty());
    let blank = engine.search(&[vec![3], vec![]], 0, &trie, &config);
    assert!(matches!(blank, Err(Error::Query { .. })));
    let few = SearchSpace::from(&trie).with_filters(Filters::Each(&each[..9]));
    assert!(engine.search(&queries, 0, few, &config).is_err());
}
