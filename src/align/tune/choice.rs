//! How far to go: what captions kept out say about encoders.

use std::collections::HashMap;

use burn::{
    module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId},
    tensor::{Tensor, TensorPrimitive, backend::Backend},
};
use rayon::prelude::*;

use super::{data::TuningData, training::Tuned};
use crate::{
    align::{Ridge, TextSpaceConfig},
    data::ItemCaption,
    error::Result,
    kernels::dot,
    nn::TextEncoder,
};

/// What to choose an encoder by.
pub(super) struct Choice<'a, B: Backend> {
    pub(super) train: &'a [ItemCaption],
    pub(super) kept_out: &'a [ItemCaption],
    /// Whether these are all captions of their items.
    pub(super) whole: bool,
    pub(super) data: TuningData<'a>,
    /// The settings of the space, with the kernel and the penalty of the original encoder.
    pub(super) space: &'a TextSpaceConfig,
    pub(super) device: &'a B::Device,
}

impl<B: Backend> Choice<'_, B> {
    /// Reciprocal ranks of the captions kept out, among candidates that are made without them.
    pub(super) fn reciprocal_ranks(
        &self,
        encoder: &TextEncoder<B>,
        map: Option<&Ridge>,
    ) -> Result<Vec<f64>> {
        let (items, embedder) = (self.data.items, self.data.embedder(encoder, self.device));
        let known = embedder.embed(self.train, self.device)?;
        let vectors = self.space.vectors(map, items, &known)?;
        let texts = embedder.embed(self.kept_out, self.device)?;
        let mut among: Vec<usize> = (0..items.len()).collect();
        if self.whole {
            among = texts.items().iter().map(|&item| item as usize).collect();
            among.sort_unstable();
            among.dedup();
        }
        let ranks = texts.items().par_iter().enumerate().map(|(text, &item)| {
            let near = |item: usize| dot(texts.row(text), vectors.row(item));
            let own = near(item as usize);
            let above = among.iter().filter(|&&other| near(other) > own).count();
            1.0 / (above + 1) as f64
        });
        Ok(ranks.collect())
    }
}

pub(super) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Whether values are larger than others of the same captions by two standard errors of the mean
/// difference.
pub(in crate::align) fn is_better(values: &[f64], others: &[f64]) -> bool {
    let differences: Vec<f64> = values.iter().zip(others).map(|(a, b)| a - b).collect();
    let (n, gain) = (differences.len() as f64, mean(&differences));
    let squares: f64 = differences.iter().map(|d| (d - gain) * (d - gain)).sum();
    gain > 2.0 * (squares / (n * (n - 1.0).max(1.0))).sqrt()
}

/// An encoder between the original and the tuned one, and its map; `None` if it is the original
/// encoder.
pub(super) fn between<B: Backend>(
    start: &TextEncoder<B>,
    tuned: &Tuned<B>,
    share: f64,
) -> (TextEncoder<B>, Option<Ridge>) {
    let map = (share > 0.0).then(|| tuned.start.mixed(&tuned.map, share as f32));
    (mixed(start, tuned.encoder.clone(), share), map)
}

/// Weights between two states of a module: `to` at share 1.
pub(super) fn mixed<B: Backend, M: Module<B>>(from: &M, to: M, share: f64) -> M {
    let mut weights = Weights { by_id: HashMap::new(), share };
    from.visit(&mut weights);
    to.map(&mut weights)
}

/// The float parameters of a module, by their ids.
struct Weights<B: Backend> {
    by_id: HashMap<ParamId, TensorPrimitive<B>>,
    share: f64,
}

impl<B: Backend> ModuleVisitor<B> for Weights<B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        self.by_id.insert(param.id, param.val().into_primitive());
    }
}

impl<B: Backend> ModuleMapper<B> for Weights<B> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let (id, to, mapper) = param.consume();
        let from = self.by_id.remove(&id).map(Tensor::<B, D>::from_primitive);
        let value = match from {
            Some(from) => from.mul_scalar(1.0 - self.share) + to.mul_scalar(self.share),
            None => to,
        };
        Param::from_mapped_value(id, value, mapper)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_takes_two_standard_errors() {
        let zeros = [0.0; 100];
        // Half of 100 captions gain 0.1: a mean of 0.05, a standard error of 0.005.
        let half: Vec<f64> = (0..100).map(|at| if at % 2 == 0 { 0.1 } else { 0.0 }).collect();
        assert!(is_better(&half, &zeros) && !is_better(&zeros, &half));
        // Gains and losses: a mean of 0.01, a standard error of 0.01.
        let mixed: Vec<f64> = (0..100).map(|at| if at % 2 == 0 { 0.11 } else { -0.09 }).collect();
        assert!(!is_better(&mixed, &zeros) && !is_better(&zeros, &zeros));
        assert!(is_better(&[0.5], &[0.0]) && !is_better(&[0.5], &[0.5]));
    }
}
