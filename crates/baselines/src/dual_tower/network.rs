//! The two towers, and the search among their vectors.

use std::{fmt, sync::Arc};

use burn::{
    module::{Module, Param},
    nn::Linear,
    tensor::{Tensor, TensorData, backend::Backend},
};
use cart_retrieval::{
    Error, Result, data::TextTokenizer, eval::Ranking, expert::QueryBatch, features::Features,
    members::unit, nn::TextEncoder,
};
use rayon::prelude::*;

use crate::ranks::best;

/// Candidates whose vectors are made at once.
const BLOCK: usize = 4096;

/// Both towers.
#[derive(Module, Debug)]
pub struct Network<B: Backend> {
    pub encoder: TextEncoder<B>,
    pub query: Linear<B>,
    pub item: Linear<B>,
    /// Logarithm of the inverse temperature.
    pub log_scale: Param<Tensor<B, 1>>,
}

impl<B: Backend> Network<B> {
    /// Unit vectors of queries, `[batch, projection]`.
    pub fn queries(&self, batch: QueryBatch<B>) -> Tensor<B, 2> {
        let encoded = self.encoder.forward(batch.tokens, batch.padding);
        unit(self.query.forward(encoded.pooled()))
    }

    /// Unit vectors of candidates, `[n, dim]` to `[n, projection]`.
    pub fn items(&self, features: Tensor<B, 2>) -> Tensor<B, 2> {
        unit(self.item.forward(features))
    }
}

/// Trained towers, whatever their backend.
pub trait Towers: fmt::Debug + Send + Sync {
    /// The same towers over other candidates.
    fn over(&self, items: &Features) -> Result<Arc<dyn Towers>>;

    /// The `k` nearest candidates of each query.
    fn search(&self, queries: &[&str], k: usize) -> Result<Vec<Ranking>>;
}

/// Trained towers of a backend.
#[derive(Debug, Clone)]
pub struct Trained<B: Backend> {
    pub network: Network<B>,
    pub tokenizer: TextTokenizer,
    /// `[projection, n]`
    pub candidates: Tensor<B, 2>,
    /// Mean of the training candidates' features.
    pub mean: Vec<f32>,
    pub device: B::Device,
}

impl<B: Backend> Towers for Trained<B> {
    fn over(&self, items: &Features) -> Result<Arc<dyn Towers>> {
        if items.dim() != self.mean.len() {
            return Err(Error::features("candidates")
                .expected(format!("{} numbers an item", self.mean.len()))
                .found(items.dim().to_string())
                .fix("use features of the encoder that the tower was trained on"));
        }
        let features = centred_units(items, &self.mean);
        let candidates = vectors(&self.network, &features, items.dim(), &self.device);
        Ok(Arc::new(Self { candidates, ..self.clone() }))
    }

    fn search(&self, queries: &[&str], k: usize) -> Result<Vec<Ranking>> {
        let mut rankings = Vec::with_capacity(queries.len());
        let [_, n] = self.candidates.dims();
        for chunk in queries.chunks(64) {
            let rows = chunk
                .iter()
                .map(|query| self.tokenizer.encode(query))
                .collect::<Result<Vec<_>>>()?;
            let batch = QueryBatch::new(&rows, self.tokenizer.padding(), &self.device)?;
            let scores = self.network.queries(batch).matmul(self.candidates.clone());
            let scores: Vec<f32> = scores.into_data().iter::<f32>().collect();
            let found: Vec<Result<Ranking>> =
                scores.par_chunks_exact(n).map(|scores| best(scores, k)).collect();
            for ranking in found {
                rankings.push(ranking?);
            }
        }
        Ok(rankings)
    }
}

/// Vectors of candidates by rows of prepared features, `[projection, n]`.
pub fn vectors<B: Backend>(
    network: &Network<B>,
    features: &[f32],
    dim: usize,
    device: &B::Device,
) -> Tensor<B, 2> {
    let all: Vec<u32> = (0..(features.len() / dim) as u32).collect();
    let blocks = all
        .chunks(BLOCK)
        .map(|rows| network.items(select_rows(features, dim, rows, device)))
        .collect();
    Tensor::cat(blocks, 0).transpose()
}

/// Features less a mean, each row of unit length.
pub fn centred_units(items: &Features, mean: &[f32]) -> Vec<f32> {
    let mut out = Vec::with_capacity(items.as_slice().len());
    for row in items.as_slice().chunks_exact(items.dim()) {
        let centred = row.iter().zip(mean).map(|(value, mean)| value - mean);
        let norm = centred.clone().map(|value| value * value).sum::<f32>().sqrt().max(1e-12);
        out.extend(centred.map(|value| value / norm));
    }
    out
}

/// Some rows of a matrix, `[rows, dim]`.
pub fn select_rows<B: Backend>(
    features: &[f32],
    dim: usize,
    rows: &[u32],
    device: &B::Device,
) -> Tensor<B, 2> {
    let values: Vec<f32> = rows
        .iter()
        .flat_map(|&row| &features[row as usize * dim..(row as usize + 1) * dim])
        .copied()
        .collect();
    Tensor::from_data(TensorData::new(values, [rows.len(), dim]), device)
}
