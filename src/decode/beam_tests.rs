use std::collections::BTreeSet;

use burn::backend::Flex;
use proptest::prelude::*;
use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::{
    data::QueryBatch,
    decode::{Engine, Filter, Filters},
    identifier::{Codes, LevelSizes},
    model::CartConfig,
    nn::FusionMode,
    trie::Trie,
};

fn engine(vocabulary: &LevelSizes, fusion: FusionMode, seed: u64) -> Engine<Flex> {
    let config = CartConfig::new(16, vocabulary.clone())
        .with_width(8, 8, 2)
        .with_layers(2, 2)
        .with_fusion(fusion)
        .with_seed(seed);
    Engine::new(config.init(&Default::default()).unwrap())
}

/// As one batch, padded.
fn encode(engine: &Engine<Flex>, rows: &[Vec<u32>]) -> EncodedQueries<Flex> {
    engine.encode_batch(QueryBatch::new(rows, 0, engine.device()).unwrap())
}

fn random_trie() -> impl Strategy<Value = Trie> {
    (1usize..5, 1u16..6).prop_flat_map(|(levels, size)| {
        prop::collection::btree_set(prop::collection::vec(0..size, levels), 1..50)
            .prop_map(|set: BTreeSet<_>| set.into_iter().collect::<Vec<_>>())
            .prop_shuffle()
            .prop_map(move |rows| {
                let codes = Codes::from_rows(levels, &rows).unwrap();
                let sizes = vec![usize::from(size); levels];
                Trie::build(&codes, &LevelSizes::new(sizes).unwrap()).unwrap()
            })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// A beam at least as wide as the collection is exhaustive search.
    #[test]
    fn a_wide_beam_equals_scoring_every_candidate(trie in random_trie(), seed in 0u64..50) {
        let queries = [vec![2, 5, 9, 3], vec![2, 7, 3]];
        for fusion in [FusionMode::None, FusionMode::Both] {
            let engine = engine(trie.vocabulary(), fusion, seed);
            let modules = engine.clone().by_modules();
            let encoded = encode(&engine, &queries);
            for scope in [Scope::All, Scope::Legal] {
                let width = trie.len() + 3;
                let level_weights = (0..trie.levels()).map(|l| l as f32 * 0.4).collect();
                let config = BeamConfig {
                    width,
                    scope,
                    decoder_weight: 0.7,
                    level_weights,
                    ..BeamConfig::default()
                };
                let beams = engine.beam_search(&encoded, &trie, &config).unwrap();
                for (query, beam) in beams.iter().enumerate() {
                    let alone = encode(&modules, &queries[query..=query]);
                    let all = modules.score_all(&alone, &trie, &config).unwrap();
                    prop_assert_eq!(beam.len(), trie.len());
                    let exact: std::collections::HashMap<_, _> =
                        all.iter().map(|a| (a.item, a.score)).collect();
                    for (a, b) in beam.iter().zip(&all) {
                        prop_assert!((a.score - b.score).abs() < 1e-4, "{a:?} {b:?}");
                        prop_assert!((exact[&a.item] - a.score).abs() < 1e-4);
                    }
                }
            }
        }
    }

    /// Whatever the trie and the width: valid, distinct, sorted, and as many as there can be.
    #[test]
    fn answers_are_distinct_candidates_and_as_many_as_possible(
        trie in random_trie(), width in 1usize..30, seed in 0u64..50
    ) {
        let engine = engine(trie.vocabulary(), FusionMode::None, seed);
        let encoded = encode(&engine, &[vec![2, 5, 3], vec![2, 9, 1, 3]]);
        for scope in [Scope::All, Scope::Legal] {
            let config = BeamConfig { width, scope, ..BeamConfig::default() };
            for answers in engine.beam_search(&encoded, &trie, &config).unwrap() {
                prop_assert_eq!(answers.len(), width.min(trie.len()));
                let items: BTreeSet<u32> = answers.iter().map(|a| a.item).collect();
                prop_assert_eq!(items.len(), answers.len());
                prop_assert!(items.iter().all(|&item| (item as usize) < trie.len()));
                prop_assert!(answers.windows(2).all(|w| w[0].score >= w[1].score));
                prop_assert!(answers.iter().all(|a| a.score <= 1e-6));
            }
        }
    }
}

/// Distinct identifiers in any order: of one item, below one leaf, below few prefixes, or anywhere.
fn codes(rng: &mut ChaCha8Rng, shape: usize) -> (Codes, LevelSizes) {
    let levels = rng.random_range(1..=6);
    let sizes: Vec<u16> = (0..levels).map(|_| rng.random_range(1..=300)).collect();
    let count = if shape == 0 { 1 } else { rng.random_range(1..=600) };
    // Levels before this one have one token in use; those up to `few` have two.
    let (one, few) = match shape {
        1 => (levels - 1, levels - 1),
        2 => (0, levels - 1),
        _ => (0, 0),
    };
    let in_use = |level: usize| match level {
        level if level < one => 1,
        level if level < few => sizes[level].min(2),
        level => sizes[level],
    };
    let row = |_| -> Vec<u16> { (0..levels).map(|l| rng.random_range(0..in_use(l))).collect() };
    let rows: BTreeSet<Vec<u16>> = (0..count).map(row).collect();
    let mut rows: Vec<Vec<u16>> = rows.into_iter().collect();
    rows.shuffle(rng);
    let sizes = sizes.into_iter().map(usize::from).collect();
    (Codes::from_rows(levels, &rows).unwrap(), LevelSizes::new(sizes).unwrap())
}

/// Whatever lies in the trie, and whatever the network thinks of it.
#[test]
fn a_million_random_beams_end_in_identifiers_of_the_trie_and_none_twice() {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let mut beams = 0;
    for round in 0.. {
        let (codes, vocabulary) = codes(&mut rng, round % 4);
        let trie = Trie::build(&codes, &vocabulary).unwrap();
        let engine = engine(&vocabulary, FusionMode::None, 1);
        let queries: Vec<Vec<u32>> = (0..64)
            .map(|_| (0..rng.random_range(1..4)).map(|_| rng.random_range(0..16)).collect())
            .collect();
        let scope = if round % 3 == 0 { Scope::All } else { Scope::Legal };
        let config =
            BeamConfig { width: rng.random_range(1..=120), scope, ..BeamConfig::default() };
        for answers in engine.search(&queries, 0, &trie, &config).unwrap() {
            assert_eq!(answers.len(), config.width.min(trie.len()), "round {round}");
            let mut seen = vec![false; trie.len()];
            for answer in &answers {
                let item = answer.item as usize;
                assert!(!std::mem::replace(&mut seen[item], true), "round {round}: {item} twice");
                // Against the identifiers that the trie was built from, not those that it keeps.
                assert_eq!(trie.identifier_of(answer.item).unwrap().tokens(), codes.row(item));
                assert!(answer.score <= 1e-5 && answer.score.is_finite());
            }
            beams += answers.len();
        }
        if beams >= 1_000_000 {
            return;
        }
    }
}

/// Twin: the same search by the network's own modules, as on a device; with queries that end early
/// and one that may have no answer.
#[test]
fn the_search_on_a_device_finds_what_that_on_the_cpu_finds() {
    let rows: Vec<[u16; 3]> = (0..150u16).map(|i| [i / 60, i / 5 % 12, i * 7 % 5]).collect();
    let codes = Codes::from_rows(3, &rows).unwrap();
    let trie = Trie::build(&codes, &LevelSizes::new(vec![3, 12, 5]).unwrap()).unwrap();
    let queries = [vec![2, 5, 9, 3], vec![2, 7, 3], vec![9; 11], vec![4, 4]];
    let some = Filter::by_item(&trie, |item| item % 29 == 3);
    let none = Filter::allow(&trie, []).unwrap();
    let filters = [None, Some(&some), Some(&none), None];
    for fusion in [FusionMode::None, FusionMode::Both] {
        let cpu = engine(trie.vocabulary(), fusion, 6);
        let device = cpu.clone().by_modules();
        for scope in [Scope::All, Scope::Legal] {
            let config = BeamConfig { width: 7, scope, ..BeamConfig::default() };
            let space = SearchSpace::from(&trie).with_filters(Filters::Each(&filters));
            let search = |engine: &Engine<Flex>| {
                engine.beam_search(&encode(engine, &queries), space, &config).unwrap()
            };
            let (device, cpu) = (search(&device), search(&cpu));
            assert_eq!(
                cpu.iter().map(Vec::len).collect::<Vec<_>>(),
                [7, some.count().min(7), 0, 7]
            );
            for (device, cpu) in device.iter().zip(&cpu) {
                assert_eq!(device.len(), cpu.len());
                for (device, cpu) in device.iter().zip(cpu) {
                    assert!((device.score - cpu.score).abs() < 1e-4, "{device:?} {cpu:?}");
                }
            }
        }
    }
}

#[test]
fn legal_scores_of_all_candidates_sum_to_one() {
    let codes = Codes::from_rows(2, &[[0u16, 1], [0, 2], [2, 0], [1, 1]]).unwrap();
    let trie = Trie::build(&codes, &LevelSizes::new(vec![3, 4]).unwrap()).unwrap();
    let engine = engine(trie.vocabulary(), FusionMode::Both, 3);
    let encoded = encode(&engine, &[vec![2, 5, 3]]);
    let config = BeamConfig { width: 4, ..BeamConfig::default() };
    let beams = engine.beam_search(&encoded, &trie, &config).unwrap();
    let total: f32 = beams[0].iter().map(|a| a.score.exp()).sum();
    assert!((total - 1.0).abs() < 1e-5, "{total}");
    let zero = BeamConfig { width: 0, ..BeamConfig::default() };
    assert!(engine.beam_search(&encoded, &trie, &zero).is_err());
    for level_weights in [vec![1.0], vec![1.0; 3], vec![1.0, -0.5], vec![1.0, f32::NAN]] {
        let wrong = BeamConfig { level_weights, ..BeamConfig::default() };
        assert!(matches!(engine.beam_search(&encoded, &trie, &wrong), Err(Error::Config { .. })));
    }
    // Coarse tokens alone: candidates of one have the same score.
    let coarse = BeamConfig { level_weights: vec![1.0, 0.0], ..BeamConfig::default() };
    let beams = engine.beam_search(&encoded, &trie, &coarse).unwrap();
    let score = |item| beams[0].iter().find(|a| a.item == item).unwrap().score;
    assert_eq!(score(0), score(1));
    assert!((score(0).exp() + score(2).exp() + score(3).exp() - 1.0).abs() < 1e-5);
}
