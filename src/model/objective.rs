//! The whole loss of a batch: over logits that the candidates' geometry guides, and the contrast.

use burn::tensor::{Tensor, TensorData, backend::Backend};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Cart, LossConfig, loss::LossTargets};
use crate::{
    data::{QueryBatch, TargetBatch},
    nn::{EncoderOutput, GuideBatch, widened},
};

/// Queries with what they should give.
pub(crate) struct Supervised<B: Backend> {
    pub(crate) queries: QueryBatch<B>,
    pub(crate) targets: TargetBatch<B>,
    /// Where the targets lie, if that is known.
    pub(crate) guide: Option<GuideBatch<B>>,
}

impl LossConfig {
    /// The loss of encoded queries, `[1]`. With `passes` of 2 the batch holds every query twice, as
    /// for [`LossConfig::forward`]; `seed` draws the rows that are not guided.
    pub(crate) fn of<B: Backend>(
        &self,
        cart: &Cart<B>,
        encoded: &EncoderOutput<B>,
        batch: Supervised<B>,
        passes: usize,
        seed: u64,
    ) -> Tensor<B, 1> {
        let Supervised { queries, targets: TargetBatch { identifiers, legal }, guide } = batch;
        let QueryBatch { tokens, padding } = queries;
        let logits = cart.forward_encoded(encoded, identifiers.clone());
        let mut logits = logits.into_iter().map(widened).collect();
        let (mut contrast, mut neighbours) = (None, Vec::new());
        let aligned = guide.as_ref().and_then(|_| cart.aligned(encoded, tokens, padding));
        if let (Some(head), Some(guide), Some(aligned)) = (cart.alignment(), &guide, aligned) {
            let factors = self.guide_factors(&aligned, passes, seed);
            logits = head.guide(&aligned, guide, factors.as_ref(), logits);
            if self.soft_targets > 0.0 {
                let scaled = |scores: Tensor<B, 2>| scores.mul_scalar(self.guide_factor);
                let scores = head.neighbour_scores(guide).into_iter();
                neighbours = scores.map(|scores| scores.map(scaled)).collect();
            }
            if self.alignment > 0.0 {
                contrast = Some(head.contrast(&aligned, guide).mul_scalar(self.alignment));
            }
        }
        let targets = LossTargets { identifiers, legal: &legal, neighbours: &neighbours };
        let loss = self.forward_smoothed(logits, targets, passes).total;
        match contrast {
            Some(contrast) => loss + contrast,
            None => loss,
        }
    }

    /// What the guidance of every row is multiplied by, `[rows, 1]`, the same for both passes;
    /// absent where that is 1.
    fn guide_factors<B: Backend>(
        &self,
        aligned: &Tensor<B, 2>,
        passes: usize,
        seed: u64,
    ) -> Option<Tensor<B, 2>> {
        if self.guide_dropout == 0.0 && self.guide_factor == 1.0 {
            return None;
        }
        let [rows, _] = aligned.dims();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let once: Vec<f32> =
            (0..rows / passes)
                .map(|_| {
                    if rng.random_bool(self.guide_dropout) { 0.0 } else { self.guide_factor as f32 }
                })
                .collect();
        let values = TensorData::new(once.repeat(passes), [rows, 1]);
        Some(Tensor::from_data(values, &aligned.device()))
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;

    use super::*;

    #[test]
    fn guidance_is_multiplied_and_left_out_row_by_row() {
        let aligned = Tensor::<Flex, 2>::zeros([400, 3], &Default::default());
        let factors = |guide_dropout, guide_factor, passes| {
            let loss = LossConfig { guide_dropout, guide_factor, ..LossConfig::default() };
            let factors = loss.guide_factors(&aligned, passes, 7)?;
            assert_eq!(factors.dims(), [400, 1]);
            Some(factors.into_data().to_vec::<f32>().unwrap())
        };
        assert!(factors(0.0, 1.0, 1).is_none());
        assert_eq!(factors(0.0, 3.0, 1).unwrap(), vec![3.0; 400]);
        assert_eq!(factors(1.0, 3.0, 1).unwrap(), vec![0.0; 400]);
        let some = factors(0.25, 3.0, 2).unwrap();
        // R-Drop compares two passes of a row: both are guided, or none is.
        assert_eq!(some[..200], some[200..]);
        let out = some.iter().filter(|factor| **factor == 0.0).count();
        assert!((60..140).contains(&out) && some.iter().all(|f| [0.0, 3.0].contains(f)), "{out}");
    }
}
