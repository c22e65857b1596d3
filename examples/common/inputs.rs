//! Inputs, drawn from a seed or read.

use std::{path::Path, sync::Arc};

use anyhow::{Result, ensure};
use burn::tensor::backend::Backend;
use cart_retrieval::{
    expert::{Codes, QueryBatch, TargetBatch, TrainBatch, Trie, UniqueTokens, assign_unique},
    features::Features,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Random identifiers with their trie.
pub struct Candidates {
    pub unique: UniqueTokens,
    pub trie: Arc<Trie>,
}

/// `n` identifiers with even random tokens over levels of these sizes, made unique.
pub fn codes(n: usize, sizes: &[usize], seed: u64) -> Result<UniqueTokens> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x1DE5);
    let mut codes = Codes::new(sizes.len());
    let mut row = vec![0; sizes.len()];
    for _ in 0..n {
        for (token, &size) in row.iter_mut().zip(sizes) {
            *token = rng.random_range(0..size) as u16;
        }
        codes.push(&row);
    }
    Ok(assign_unique(&codes, sizes, &vec![0.0; n])?)
}

/// The same with their trie.
pub fn candidates(n: usize, sizes: &[usize], seed: u64) -> Result<Candidates> {
    let unique = codes(n, sizes, seed)?;
    let trie = Arc::new(Trie::build(&unique.identifiers, &unique.vocabulary)?);
    Ok(Candidates { unique, trie })
}

/// Rows of random tokens, `shortest..=longest` of them each; the first row is the longest.
pub fn token_rows(
    batch: usize,
    shortest: usize,
    longest: usize,
    vocabulary: usize,
    rng: &mut ChaCha8Rng,
) -> Vec<Vec<u32>> {
    (0..batch)
        .map(|row| {
            let length = if row == 0 { longest } else { rng.random_range(shortest..=longest) };
            (0..length).map(|_| rng.random_range(1..vocabulary as u32)).collect()
        })
        .collect()
}

/// A training batch of random queries and targets.
pub fn train_batch<B: Backend>(
    rows: &[Vec<u32>],
    candidates: &Candidates,
    rng: &mut ChaCha8Rng,
    device: &B::Device,
) -> Result<TrainBatch<B>> {
    let n = candidates.trie.len() as u32;
    let items: Vec<u32> = rows.iter().map(|_| rng.random_range(0..n)).collect();
    let identifiers = &candidates.unique.identifiers;
    let queries = QueryBatch::new(rows, 0, device)?;
    let targets = TargetBatch::new(&items, identifiers, &candidates.trie, device);
    Ok(TrainBatch::new(queries, targets, rng.random()))
}

/// Rows of a file, or drawn: around `4 * spread` centres, or without any structure when `spread` is
/// 0. What is drawn has unit variance.
pub fn rows(
    file: Option<&Path>,
    n: usize,
    dim: usize,
    spread: usize,
    seed: u64,
) -> Result<Features> {
    if let Some(file) = file {
        let rows = Features::open(file)?;
        ensure!(rows.len() >= n, "{} has {} rows, fewer than {n}", file.display(), rows.len());
        return Ok(rows);
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0xDA7A);
    let mut normal = || {
        // Twelve even draws, close enough to normal here.
        (0..12).map(|_| rng.random::<f32>()).sum::<f32>() - 6.0
    };
    let centres: Vec<f32> = (0..4 * spread * dim).map(|_| normal()).collect();
    let mut data = Vec::with_capacity(n * dim);
    for row in 0..n {
        let centre = (spread > 0).then(|| &centres[row * 7919 % (4 * spread) * dim..][..dim]);
        for at in 0..dim {
            let noise = normal();
            data.push(centre.map_or(noise, |centre| 0.8 * centre[at] + 0.6 * noise));
        }
    }
    Ok(Features::from_rows(data, dim)?)
}
