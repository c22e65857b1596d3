//! The dual tower's rows: the same text encoder, then a search among vectors.

use std::time::Instant;

use anyhow::Result;
use burn::tensor::backend::Backend;
use cart_retrieval::expert::QueryBatch;
use gemm::{Parallelism, gemm};
use hnsw_rs::prelude::{DistDot, Hnsw};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::{Row, Setting, percentile, repeat};

/// Answers of a query.
const TOP: usize = 10;
/// Candidates that a thread multiplies at once.
const BLOCK: usize = 4096;

/// Unit vectors of queries, `[queries, width]`; a part of them on every thread, as in CART's
/// search.
fn encode<B: Backend>(setting: &Setting<'_, B>, rows: &[&[u32]]) -> Result<Vec<f32>> {
    let engine = setting.engine;
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|&row| rows[row].len());
    let part = rows.len().div_ceil(rayon::current_num_threads());
    let encoded: Vec<Vec<f32>> = order
        .par_chunks(part)
        .map(|chunk| {
            let rows: Vec<&[u32]> = chunk.iter().map(|&row| rows[row]).collect();
            let batch = QueryBatch::<B>::new(&rows, 0, engine.device())?;
            let output = engine.model().encode_layers(batch.tokens, batch.padding);
            Ok(output.pooled().into_data().iter::<f32>().collect())
        })
        .collect::<Result<_>>()?;
    let width = setting.cli.width;
    let mut vectors = vec![0.0; rows.len() * width];
    for (&row, vector) in order.iter().zip(encoded.concat().chunks_exact_mut(width)) {
        unit(vector);
        vectors[row * width..(row + 1) * width].copy_from_slice(vector);
    }
    Ok(vectors)
}

fn unit(vector: &mut [f32]) {
    let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
    vector.iter_mut().for_each(|x| *x /= norm);
}

/// A row of a tower, given how it searches with the queries' vectors.
fn row<B: Backend>(
    setting: &Setting<'_, B>,
    method: &str,
    (n, batch, bytes): (usize, usize, usize),
    mut search: impl FnMut(Vec<f32>) -> Result<()>,
) -> Result<Row> {
    let mut shares = Vec::new();
    let times = repeat(setting.cli.seconds, |number| {
        let started = Instant::now();
        let queries = encode(setting, &setting.texts.batch(number, batch))?;
        let encoded = started.elapsed().as_secs_f64();
        search(queries)?;
        shares.push(encoded / started.elapsed().as_secs_f64());
        Ok(())
    })?;
    let row = Row::new(method, n, batch, bytes, &times);
    Ok(Row { encoder_share: percentile(&shares, 0.5), ..row })
}

/// `n` random unit vectors around some centres, `[n, width]`.
fn vectors(n: usize, width: usize, seed: u64) -> Vec<f32> {
    let centres = 1 + n / 50;
    let draw = |stream: u64, at: usize| {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ stream);
        rng.set_stream(at as u64);
        move || rng.random::<f32>() - 0.5
    };
    let mut all = vec![0.0; n * width];
    all.par_chunks_exact_mut(width).enumerate().for_each(|(row, vector)| {
        let (mut centre, mut noise) = (draw(0xCE47, row % centres), draw(0x4015E, row));
        vector.iter_mut().for_each(|x| *x = centre() + 0.5 * noise());
        unit(vector);
    });
    all
}

/// The best so far of a query, worst first.
type Best = Vec<(f32, u32)>;

fn offer(best: &mut Best, score: f32, item: u32) {
    if best.len() == TOP && score <= best[0].0 {
        return;
    }
    if best.len() == TOP {
        best.remove(0);
    }
    let at = best.partition_point(|other| other.0 < score);
    best.insert(at, (score, item));
}

/// The nearest candidates of every query by one product and a scan.
fn scan(queries: &[f32], candidates: &[f32], width: usize) -> Vec<Best> {
    let n = queries.len() / width;
    let merge = |mut left: Vec<Best>, right: Vec<Best>| {
        for (left, right) in left.iter_mut().zip(right) {
            right.into_iter().for_each(|(score, item)| offer(left, score, item));
        }
        left
    };
    candidates
        .par_chunks(BLOCK * width)
        .enumerate()
        .fold(
            || (vec![Best::new(); n], Vec::new()),
            |(mut best, mut scores), (block, candidates)| {
                let rows = candidates.len() / width;
                scores.resize(n * rows, 0.0f32);
                // SAFETY: reads queries[i * width + p] and candidates[j * width + p], writes
                // scores[i * rows + j], for i < n, j < rows, p < width: all within their slices,
                // and `scores` overlaps neither.
                unsafe {
                    gemm(
                        n,
                        rows,
                        width,
                        scores.as_mut_ptr(),
                        1,
                        rows as isize,
                        false,
                        queries.as_ptr(),
                        1,
                        width as isize,
                        candidates.as_ptr(),
                        width as isize,
                        1,
                        0.0,
                        1.0,
                        false,
                        false,
                        false,
                        Parallelism::None,
                    );
                }
                for (best, scores) in best.iter_mut().zip(scores.chunks_exact(rows)) {
                    for (at, &score) in scores.iter().enumerate() {
                        offer(best, score, (block * BLOCK + at) as u32);
                    }
                }
                (best, scores)
            },
        )
        .map(|(best, _)| best)
        .reduce(|| vec![Best::new(); n], merge)
}

/// Rows of a flat scan, which is exact.
pub fn flat<B: Backend>(setting: &Setting<'_, B>, n: usize) -> Result<Vec<Row>> {
    let cli = setting.cli;
    let candidates = vectors(n, cli.width, cli.seed);
    let bytes = 4 * candidates.len();
    let search = |queries: Vec<f32>| {
        let best = scan(&queries, &candidates, cli.width);
        anyhow::ensure!(best.iter().all(|best| best.len() == TOP.min(n)), "too few answers");
        Ok(())
    };
    let row = |&batch: &usize| row(setting, "dual tower, flat scan", (n, batch, bytes), search);
    cli.batches.iter().map(row).collect()
}

/// Rows of HNSW (M = 16, 200 while building, 64 while searching), which misses some.
pub fn hnsw<B: Backend>(setting: &Setting<'_, B>, n: usize) -> Result<Vec<Row>> {
    let cli = setting.cli;
    let candidates = vectors(n, cli.width, cli.seed);
    let started = Instant::now();
    let graph = Hnsw::<f32, DistDot>::new(16, n, 16, 200, DistDot);
    let rows: Vec<(&[f32], usize)> =
        candidates.chunks_exact(cli.width).enumerate().map(|(row, vector)| (vector, row)).collect();
    graph.parallel_insert_slice(&rows);
    eprintln!("HNSW of {n} vectors: built in {:.1} s", started.elapsed().as_secs_f64());
    // The vectors, and about two links a neighbour on the lowest level.
    let bytes = 4 * candidates.len() + n * 2 * 16 * 8;
    let search = |queries: Vec<f32>| {
        let queries: Vec<Vec<f32>> = queries.chunks_exact(cli.width).map(<[f32]>::to_vec).collect();
        let found = graph.parallel_search(&queries, TOP, 64);
        anyhow::ensure!(found.iter().all(|found| !found.is_empty()), "too few answers");
        Ok(())
    };
    let row = |&batch: &usize| row(setting, "dual tower, HNSW", (n, batch, bytes), search);
    cli.batches.iter().map(row).collect()
}
