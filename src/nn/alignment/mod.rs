//! The query as a vector in the space of the candidates.

mod batch;
mod config;
mod level;
#[cfg(test)]
mod tests;

pub use batch::{GuideBatch, GuideSource};
use burn::{
    module::{Module, Param},
    nn::Linear,
    tensor::{Int, Tensor, TensorData, backend::Backend},
};
pub use config::{AlignmentConfig, AlignmentInput};
use level::GuideLevel;

use super::{
    LexicalHead,
    init::{linear_2d, widened},
    words::unit,
};

/// What the parameters of the scales are multiplied by, so that the learning rate of a matrix moves
/// them as far as they need.
const GAIN: f32 = 20.0;

/// Maps pooled queries to the space of the candidates, and turns the geometry there into logits.
///
/// Where the space is the text encoder's own, the map starts as the identity: an untrained network
/// then searches like the text encoder, quantised.
#[derive(Module, Debug)]
pub struct AlignmentHead<B: Backend> {
    projection: Linear<B>,
    /// Logarithms of the cosine's factors over [`GAIN`]: one a level, and the contrast's.
    log_scales: Param<Tensor<B, 1>>,
    #[module(skip)]
    guided: bool,
    #[module(skip)]
    learn_scales: bool,
    #[module(skip)]
    learn_map: bool,
    words: Option<LexicalHead<B>>,
}

impl<B: Backend> AlignmentHead<B> {
    /// Queries as vectors of length 1.
    ///
    /// # Shapes
    /// - `pooled`: `[batch, d_model]`, twice as wide with a lexical part ([`LexicalHead::append`])
    /// - returns: `[batch, D]`
    pub fn forward(&self, pooled: Tensor<B, 2>) -> Tensor<B, 2> {
        let [d_model, dim] = self.projection.weight.dims();
        let mapped = match d_model == dim {
            true => {
                let unit = unit(pooled);
                let change = linear_2d(&self.projection, unit.clone());
                unit + if self.learn_map { change } else { change.detach() }
            }
            false => linear_2d(&self.projection, pooled),
        };
        widened(unit(mapped))
    }

    /// Width of the candidates' vectors.
    pub fn dim(&self) -> usize {
        self.projection.weight.dims()[1]
    }

    /// The lexical head, if a query's vector has a lexical part.
    pub fn lexical_head(&self) -> Option<&LexicalHead<B>> {
        self.words.as_ref()
    }

    /// Replaces the lexical head.
    pub(crate) fn with_lexical_head(self, words: LexicalHead<B>) -> Self {
        Self { words: Some(words), ..self }
    }

    /// Whether the geometry of the candidates guides the decoder.
    pub fn is_guided(&self) -> bool {
        self.guided
    }

    /// All factors, `[levels + 1]`.
    fn factors(&self) -> Tensor<B, 1> {
        let scales = widened(self.log_scales.val()).mul_scalar(GAIN).exp();
        if self.learn_scales { scales } else { scales.detach() }
    }

    /// Factors of the cosine, one a level, `[levels]`.
    pub fn scales(&self) -> Tensor<B, 1> {
        let [count] = self.log_scales.dims();
        self.factors().narrow(0, 0, count - 1)
    }

    /// Adds what the geometry says to teacher-forced logits.
    ///
    /// # Shapes
    /// - `aligned`: `[batch, D]`
    /// - `factors` of what the geometry says, `[batch, 1]`; absent where all are 1
    /// - `logits`, output: per level `[batch, size]`
    pub fn guide(
        &self,
        aligned: &Tensor<B, 2>,
        batch: &GuideBatch<B>,
        factors: Option<&Tensor<B, 2>>,
        logits: Vec<Tensor<B, 2>>,
    ) -> Vec<Tensor<B, 2>> {
        if !self.guided {
            return logits;
        }
        let scales = self.factors();
        logits
            .into_iter()
            .zip(&batch.levels)
            .enumerate()
            .map(|(level, (logits, guide))| match guide {
                Some(guide) => {
                    let scale = scales.clone().narrow(0, level, 1).reshape([1, 1]);
                    let scores = guide.scores(aligned, &batch.change, scale);
                    logits + factors.map_or(scores.clone(), |factors| scores * factors.clone())
                }
                None => logits,
            })
            .collect()
    }

    /// Scores of tokens by how near they are to the targets, for neighbour-smoothed targets: logits
    /// of a query that lies where the target's candidate does, without the text at hand.
    ///
    /// # Shapes
    /// - returns: per level `[batch, size]`; absent where no target has a choice
    pub fn neighbour_scores(&self, batch: &GuideBatch<B>) -> Vec<Option<Tensor<B, 2>>> {
        let scales = self.factors().detach();
        let scores = |(level, guide): (usize, &Option<GuideLevel<B>>)| {
            let scale = scales.clone().narrow(0, level, 1).reshape([1, 1]);
            guide.as_ref().map(|guide| guide.scores(&batch.own, &batch.change, scale))
        };
        batch.levels.iter().enumerate().map(scores).collect()
    }

    /// InfoNCE between the queries of a batch and the vectors of their candidates, `[1]`; other
    /// queries of the same candidate are no negatives.
    ///
    /// # Shapes
    /// - `aligned`: `[batch, D]`
    pub fn contrast(&self, aligned: &Tensor<B, 2>, batch: &GuideBatch<B>) -> Tensor<B, 1> {
        let rows = batch.items.len();
        let device = aligned.device();
        let [count] = self.log_scales.dims();
        let scale = self.factors().narrow(0, count - 1, 1).reshape([1, 1]);
        let same: Vec<bool> = (0..rows * rows)
            .map(|at| at / rows != at % rows && batch.items[at / rows] == batch.items[at % rows])
            .collect();
        let same = Tensor::from_data(TensorData::new(same, [rows, rows]), &device);
        let logits = aligned.clone().matmul(batch.own.clone().transpose()).mul(scale);
        let log_p = burn::tensor::activation::log_softmax(logits.mask_fill(same, -3e4), 1);
        let own = Tensor::<B, 1, Int>::arange(0..rows as i64, &device).reshape([rows, 1]);
        log_p.gather(1, own).neg().mean()
    }
}
