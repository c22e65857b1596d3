//! Benches of the trie, of small quantizers and of the search:
//! `cargo bench -p cart-benches --bench core`.
//!
//! Training steps are in `steps.rs`, quantizers at full size in `quantizers.rs`.

use std::hint::black_box;

use burn::backend::Flex;
use cart_examples::memory;
use cart_retrieval::{
    decode::BeamConfig,
    expert::{Codes, Engine, RqKMeans, Scorer, Trie},
    identifier::LevelSizes,
    model::{CartConfig, Scope},
    quantizer::{KMeansConfig, Quantizer},
};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn random_rows(n: usize, dim: usize) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    (0..n * dim).map(|_| rng.random::<f32>() - 0.5).collect()
}

/// `n` distinct random identifiers over 64 x 256 x 256 x 256 x 1 tokens.
fn identifiers(n: usize) -> (Codes, LevelSizes) {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let mut seen = std::collections::HashSet::with_capacity(n);
    let mut codes = Codes::new(5);
    while codes.len() < n {
        let key: u32 = rng.random_range(0..1 << 30);
        if seen.insert(key) {
            let byte = |shift: u32| ((key >> shift) & 255) as u16;
            codes.push(&[(key >> 24) as u16, byte(16), byte(8), byte(0), 0]);
        }
    }
    let vocabulary = LevelSizes::new(vec![64, 256, 256, 256, 1]).expect("sizes in range");
    (codes, vocabulary)
}

fn trie(c: &mut Criterion) {
    memory::keep_freed_memory();
    let mut group = c.benchmark_group("trie");
    group.sample_size(10);
    for n in [1_000, 100_000, 1_000_000, 10_000_000] {
        let (codes, vocabulary) = identifiers(n);
        group.throughput(Throughput::Elements(n as u64));
        group.bench_with_input(BenchmarkId::new("build", n), &codes, |b, codes| {
            b.iter(|| Trie::build(black_box(codes), &vocabulary));
        });
        let trie = Trie::build(&codes, &vocabulary).expect("distinct identifiers");
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("trie.bin");
        std::fs::write(&path, trie.to_bytes()).expect("written");
        group.bench_with_input(BenchmarkId::new("open and check", n), &path, |b, path| {
            b.iter(|| Trie::open(black_box(path)));
        });
        let trie = Trie::open(&path).expect("its own bytes");
        let nodes: Vec<_> = (0..640)
            .map(|at| trie.find(&codes.row(at * 7919 % n)[..1]).expect("a prefix of it"))
            .collect();
        group.throughput(Throughput::Elements(640));
        group.bench_with_input(
            BenchmarkId::new("children of 640 prefixes", n),
            &nodes,
            |b, nodes| {
                b.iter(|| {
                    black_box(nodes).iter().map(|&n| trie.children(n).count()).sum::<usize>()
                });
            },
        );
        // One step's constraint for 32 queries with 20 prefixes each: children and their
        // probabilities.
        let logits = random_rows(640, 256);
        let scorer = Scorer::new(&trie, Scope::Legal);
        group.bench_with_input(
            BenchmarkId::new("probabilities of 640 prefixes", n),
            &nodes,
            |b, nodes| {
                let mut children = Vec::new();
                b.iter(|| {
                    for (&node, logits) in nodes.iter().zip(logits.chunks_exact(256)) {
                        scorer.children(0, node, black_box(logits), &mut children);
                    }
                    children.len()
                });
            },
        );
    }
    group.finish();
}

fn quantizers(c: &mut Criterion) {
    let mut group = c.benchmark_group("quantizer");
    group.sample_size(10);
    let rows = random_rows(20_000, 512);
    group.throughput(Throughput::Elements(20_000));
    group.bench_function("K-Means, 20k x 512, K = 256, 5 iterations", |b| {
        let config = KMeansConfig {
            restarts: 1,
            max_iterations: 5,
            tolerance: 0.0,
            ..KMeansConfig::new(256)
        };
        b.iter(|| config.fit(black_box(&rows), 512));
    });
    let rows = random_rows(100_000, 128);
    let books = (0..4).map(|_| random_rows(256, 128)).collect();
    let rq = RqKMeans::from_parts(books, 128).expect("codebooks of one width");
    group.throughput(Throughput::Elements(100_000));
    group.bench_function("RQ encoding, 100k x 128, 4 x 256", |b| {
        b.iter(|| rq.encode(black_box(&rows)));
    });
    group.finish();
}

/// Text encoder and beam search of a network of MiniLM's size, queries of 8 to 16 tokens.
fn decoding(c: &mut Criterion) {
    let mut group = c.benchmark_group("queries");
    group.sample_size(10);
    let vocabulary = LevelSizes::new(vec![64, 256, 256, 256, 1]).expect("sizes in range");
    let config = CartConfig::new(30_522, vocabulary).with_width(384, 1536, 6).with_layers(6, 4);
    let model = config.init::<Flex>(&Default::default()).expect("a valid shape");
    let engine = Engine::new(model);
    for n in [1_000, 100_000, 1_000_000, 10_000_000] {
        let (codes, vocabulary) = identifiers(n);
        let trie = Trie::build(&codes, &vocabulary).expect("distinct identifiers");
        for (batch, width) in [(1, 10), (1, 20), (32, 10), (32, 20), (128, 20)] {
            let rows: Vec<Vec<u32>> =
                (0..batch).map(|row| (4..12 + row as u32 % 9).collect()).collect();
            let beam = BeamConfig { width, ..BeamConfig::default() };
            group.throughput(Throughput::Elements(batch as u64));
            group.bench_function(format!("{n} candidates, batch {batch}, beam {width}"), |b| {
                b.iter(|| engine.search(black_box(&rows), 0, &trie, &beam));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, trie, quantizers, decoding);
criterion_main!(benches);
