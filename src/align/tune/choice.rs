//! How far to go: what captions kept out say about encoders.

use std::collections::HashMap;

use burn::{
    module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId},
    tensor::{Tensor, TensorPrimitive, backend::Backend},
};
use rayon::prelude::*;

use super::training::Tuned;
use crate::{
    align::{CandidateSpaceConfig, Ridge, WordWeights, dot, embed_texts},
    data::{ItemCaption, TextTokenizer},
    error::Result,
    features::Features,
    nn::TextEncoder,
};

/// What to choose an encoder by.
pub(super) struct Choice<'a, B: Backend> {
    pub(super) train: &'a [ItemCaption],
    pub(super) kept_out: &'a [ItemCaption],
    /// Whether these are all captions of their items.
    pub(super) whole: bool,
    pub(super) items: &'a Features,
    pub(super) space: &'a CandidateSpaceConfig,
    pub(super) words: Option<&'a WordWeights>,
    pub(super) tokenizer: &'a TextTokenizer,
    pub(super) device: &'a B::Device,
}

impl<B: Backend> Choice<'_, B> {
    /// Mean reciprocal rank of the captions kept out, among candidates that are made without them.
    pub(super) fn mrr(&self, encoder: &TextEncoder<B>, map: Option<&Ridge>) -> Result<f64> {
        let known = embed_texts(encoder, self.words, self.tokenizer, self.train, self.device)?;
        let vectors = self.space.vectors(map, self.items, &known)?;
        let texts = embed_texts(encoder, self.words, self.tokenizer, self.kept_out, self.device)?;
        let mut among: Vec<usize> = (0..self.items.len()).collect();
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
        let ranks: Vec<f64> = ranks.collect();
        Ok(ranks.iter().sum::<f64>() / ranks.len() as f64)
    }
}

/// An encoder between the one that came and the tuned one, and the map that belongs to it: none where it is
/// the one that came.
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
