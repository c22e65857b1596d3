//! K-Means and residual encoding at the sizes of `benches/peers`:
//! `cargo bench -p cart-benches --bench quantizers`.
//!
//! `CART_BENCH_BIG=1` adds the million rows, which need 4 GB of memory and ten minutes.

use std::{hint::black_box, time::Duration};

use cart_examples::{inputs, memory};
use cart_retrieval::{
    expert::RqKMeans,
    quantizer::{KMeansConfig, Quantizer},
};
use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};

fn big() -> bool {
    std::env::var_os("CART_BENCH_BIG").is_some()
}

fn kmeans(c: &mut Criterion) {
    memory::keep_freed_memory();
    let mut group = c.benchmark_group("K-Means, d = 512, K = 1024, seeding included");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.warm_up_time(Duration::from_millis(1));
    // Fewer iterations for the million, of which criterion wants ten fits.
    let sizes = [(100_000, 10), (1_000_000, 2)];
    for (n, iterations) in sizes.into_iter().take(if big() { 2 } else { 1 }) {
        let rows = inputs::rows(None, n, 512, 1024, 0).expect("rows");
        let config = KMeansConfig {
            restarts: 1,
            max_iterations: iterations,
            tolerance: 0.0,
            ..KMeansConfig::new(1024)
        };
        group.throughput(Throughput::Elements(n as u64));
        group.bench_function(format!("{n} rows, {iterations} iterations"), |b| {
            b.iter(|| config.fit(black_box(rows.as_slice()), 512).expect("finite rows").inertia());
        });
    }
    group.finish();
}

fn encoding(c: &mut Criterion) {
    let mut group = c.benchmark_group("RQ encoding, d = 128, 4 x 256");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.warm_up_time(Duration::from_millis(1));
    let books = (0..4).map(|level| {
        let book = inputs::rows(None, 256, 128, 0, level).expect("rows");
        book.as_slice().to_vec()
    });
    let quantizer = RqKMeans::from_parts(books.collect(), 128).expect("codebooks of one width");
    for n in [100_000, 1_000_000].into_iter().take(if big() { 2 } else { 1 }) {
        let rows = inputs::rows(None, n, 128, 1024, 0).expect("rows");
        group.throughput(Throughput::Elements(n as u64));
        group.bench_function(format!("{n} rows"), |b| {
            b.iter(|| quantizer.encode(black_box(rows.as_slice())).expect("finite rows"));
        });
    }
    group.finish();
}

criterion_group!(benches, kmeans, encoding);
criterion_main!(benches);
