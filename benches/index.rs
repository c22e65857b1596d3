//! Benches of the index as a folder: loading, growing, filtering:
//! `cargo bench -p cart-benches --bench index`.
//!
//! `CART_BENCH_SIZES=1000000` chooses other sizes than 10,000 and 100,000; a million candidates
//! with vectors take 6 GB of memory and 2 GB of disk.

use std::{collections::HashSet, hint::black_box, path::Path, time::Duration};

use burn::backend::Flex;
use cart_examples::memory;
use cart_retrieval::{
    data::{TextTokenizer, TokenizerConfig},
    expert::{Codes, Trie},
    features::{Features, ItemIds},
    identifier::LevelSizes,
    index::CandidateIndex,
    metadata::{Condition, Fields, ItemMetadata},
    model::CartConfig,
    nn::AlignmentConfig,
    quantizer::{CoarseToFineConfig, RqKMeansConfig},
    retrieve::{LiveRetriever, NewCandidates, Retriever, RetrieverParts, verify},
};
use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use serde_json::json;

/// Width of the vectors: MiniLM's.
const DIM: usize = 384;
const SIZES: [usize; 5] = [64, 256, 256, 256, 16];

fn sizes() -> Vec<usize> {
    let given = std::env::var("CART_BENCH_SIZES").unwrap_or("10000,100000".into());
    given.split(',').map(|size| size.trim().parse().expect("a number of candidates")).collect()
}

/// Rows in clusters.
fn rows(n: usize, seed: u64) -> Features {
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let centres: Vec<f32> = (0..1024 * DIM).map(|_| rng.random::<f32>() - 0.5).collect();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut rows = Vec::with_capacity(n * DIM);
    for _ in 0..n {
        let centre = rng.random_range(0..1024) * DIM;
        rows.extend(
            centres[centre..centre + DIM].iter().map(|c| c + 0.6 * (rng.random::<f32>() - 0.5)),
        );
    }
    Features::from_rows(rows, DIM).unwrap()
}

/// An index of random candidates, saved. Whether vectors are kept makes nearly all of its size.
fn save(folder: &Path, n: usize, guided: bool) {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let config = CoarseToFineConfig::new(SIZES[0], RqKMeansConfig::new(SIZES[1..4].to_vec()));
    let quantizer = config.fit::<Flex>(&rows(4096, 2), &Default::default()).unwrap();
    let vectors = rows(n, 3);
    // Drawn: a quantizer of so many codes takes minutes to fit.
    let (mut codes, mut seen) = (Codes::new(5), HashSet::with_capacity(n));
    while codes.len() < n {
        let mut tokens = [0u16; 5];
        (0..4).for_each(|level| tokens[level] = rng.random_range(0..SIZES[level] as u16));
        if seen.insert(tokens) {
            codes.push(&tokens);
        }
    }
    let trie = Trie::build(&codes, &LevelSizes::new(SIZES.to_vec()).unwrap()).unwrap();
    let mut names: Vec<String> = (0..n).map(|row| format!("photo-{row:08}.jpg")).collect();
    names.shuffle(&mut rng);
    let health = quantizer.assign(&rows(4096, 2)).run().unwrap().health().clone();
    let mut index = CandidateIndex::new(ItemIds::new(&names).unwrap(), trie, health).unwrap();
    let about = |row: usize| -> Fields {
        let kind = ["photo", "drawing"][row % 2];
        let about = json!({"year": 1990 + row % 35, "kind": kind});
        about.as_object().unwrap().clone()
    };
    let about: Vec<Fields> = (0..n).map(about).collect();
    index = index.with_metadata(ItemMetadata::new(&about).unwrap()).unwrap();
    let text = ["two dogs play in the snow", "a red car"];
    let tokenizer = TextTokenizer::train(text, &TokenizerConfig::default(), 32).unwrap();
    let mut model = CartConfig::new(tokenizer.vocabulary(), index.vocabulary().clone())
        .with_width(384, 1536, 6)
        .with_layers(6, 2)
        .with_max_tokens(32);
    if guided {
        index = index.with_vectors(vectors).unwrap();
        model = model.with_alignment(AlignmentConfig { guided: true, ..AlignmentConfig::new(DIM) });
    }
    let (config, model) = (model.clone(), model.init(&Default::default()).unwrap());
    let parts = RetrieverParts { model, config, tokenizer, quantizer, index };
    Retriever::<Flex>::new(parts).unwrap().save(folder).unwrap();
}

fn index(criterion: &mut Criterion) {
    memory::keep_freed_memory();
    let device = Default::default();
    for n in sizes() {
        for guided in [false, true] {
            let kind = format!("{n} {}", if guided { "with vectors" } else { "without vectors" });
            let folder = tempfile::tempdir().unwrap();
            save(folder.path(), n, guided);
            let mut group = criterion.benchmark_group("index");
            group.sample_size(10).warm_up_time(Duration::from_millis(200));
            group.measurement_time(Duration::from_secs(2));
            group.bench_function(BenchmarkId::new("load", &kind), |bench| {
                bench.iter_with_large_drop(|| {
                    Retriever::<Flex>::load(folder.path(), &device).unwrap()
                });
            });
            group.bench_function(BenchmarkId::new("load and answer", &kind), |bench| {
                bench.iter(|| {
                    let retriever = Retriever::<Flex>::load(folder.path(), &device).unwrap();
                    retriever.query("two dogs in the snow").run().unwrap()
                });
            });
            group.bench_function(BenchmarkId::new("verify", &kind), |bench| {
                bench.iter(|| verify(folder.path()).unwrap());
            });
            let live = LiveRetriever::<Flex>::open(folder.path(), &device).unwrap();
            let index = live.snapshot();
            let condition = Condition::parse(r#"{"year": {"ge": 2010}, "kind": "photo"}"#).unwrap();
            group.bench_function(BenchmarkId::new("filter by metadata", &kind), |bench| {
                bench.iter(|| black_box(index.index().filter_where(&condition).unwrap().count()));
            });
            drop(index);
            for batch in [1, 1000] {
                let mut number = 0;
                let name = BenchmarkId::new(format!("add {batch}"), &kind);
                group.bench_function(name, |bench| {
                    bench.iter_batched(
                        || {
                            number += 1;
                            let names = (0..batch).map(|row| format!("new-{batch}-{number}-{row}"));
                            rows(batch, 1000 + number).with_id_list(names.collect()).unwrap()
                        },
                        |new| live.add(&NewCandidates::new(&new)).unwrap(),
                        BatchSize::PerIteration,
                    );
                });
            }
            group.bench_function(BenchmarkId::new("compact", &kind), |bench| {
                bench.iter(|| live.compact().unwrap());
            });
            group.finish();
        }
    }
}

criterion_group!(benches, index);
criterion_main!(benches);
