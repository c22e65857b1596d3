//! Benches of the trie, of small quantizers and of the search: `cargo bench --bench core`.
//!
//! Training steps are in `steps.rs`, quantizers at full size in `quantizers.rs`.

#[path = "../examples/common/memory.rs"]
mod memory;

use std::hint::black_box;

use burn::backend::Flex;
use cart_retrieval::{
    data::QueryBatch,
    decode::{BeamConfig, beam_search},
    identifier::{Codes, Vocabulary},
    model::CartConfig,
    quantizer::{KMeansConfig, Quantizer, RqKMeans},
    trie::Trie,
};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn random_rows(n: usize, dim: usize) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    (0..n * dim).map(|_| rng.random::<f32>() - 0.5).collect()
}

/// `n` distinct random identifiers over 64 x 256 x 256 x 256 x 1 tokens.
fn identifiers(n: usize) -> (Codes, Vocabulary) {
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
    let vocabulary = Vocabulary::new(vec![64, 256, 256, 256, 1]).expect("sizes in range");
    (codes, vocabulary)
}

fn trie(c: &mut Criterion) {
    memory::keep_freed_memory();
    let mut group = c.benchmark_group("trie");
    group.sample_size(10);
    for n in [1_000, 100_000, 1_000_000] {
        let (codes, vocabulary) = identifiers(n);
        group.throughput(Throughput::Elements(n as u64));
        group.bench_with_input(BenchmarkId::new("build", n), &codes, |b, codes| {
            b.iter(|| Trie::build(black_box(codes), &vocabulary));
        });
        let trie = Trie::build(&codes, &vocabulary).expect("distinct identifiers");
        group.throughput(Throughput::Elements(1));
        group.bench_with_input(
            BenchmarkId::new("children of a level-1 node", n),
            &trie,
            |b, trie| {
                let node = trie.child(trie.root(), codes.row(0)[0]).expect("it exists");
                b.iter(|| trie.children(black_box(node)).count());
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
        let config =
            KMeansConfig::new(256).with_restarts(1).with_max_iterations(5).with_tolerance(0.0);
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

fn decoding(c: &mut Criterion) {
    let mut group = c.benchmark_group("beam search, tiny network, 16 tokens");
    group.sample_size(10);
    let device = Default::default();
    for n in [1_000, 100_000, 1_000_000] {
        let (codes, vocabulary) = identifiers(n);
        let trie = Trie::build(&codes, &vocabulary).expect("distinct identifiers");
        let model = CartConfig::new(1000, vocabulary).init::<Flex>(&device).expect("a valid shape");
        for batch in [1, 32] {
            let rows = vec![(4..20).collect::<Vec<u32>>(); batch];
            let queries = QueryBatch::new(&rows, 0, &device).expect("rows of tokens");
            let config = BeamConfig { width: 20, ..BeamConfig::default() };
            group.throughput(Throughput::Elements(batch as u64));
            group.bench_function(format!("{n} candidates, batch {batch}, beam 20"), |b| {
                b.iter(|| {
                    let queries = queries.clone();
                    let encoded = model.encode(queries.tokens, queries.padding);
                    beam_search(&model, &encoded, &trie, &config)
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, trie, quantizers, decoding);
criterion_main!(benches);
