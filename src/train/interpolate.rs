//! Mixup: queries between two captions of a candidate.

use std::ops::Range;

use burn::tensor::{Tensor, TensorData, backend::Backend};
use rand::{Rng, RngExt};

use super::{TrainConfig, TrainingData};
use crate::{
    data::QueryBatch,
    error::{Error, Result},
    model::Cart,
    nn::AlignmentHead,
};

/// Mixup within candidates: each row of a batch is mixed with a second caption of its candidate.
///
/// Every layer's output for a query becomes `share * its own + (1 - share) * the second's`, position by
/// position; where only one of the two has a token, its output stays as it is (Mixup of Zhang et al. 2018;
/// ours, not of the paper).
#[derive(Debug, Clone)]
pub struct Mixup<B: Backend> {
    /// Tokenised captions, as wide as the batch's own.
    pub queries: QueryBatch<B>,
    /// Their numbers among the training captions, one a row.
    pub texts: Vec<u32>,
    /// What the row's own caption has, one a row; 1 for rows that stay as they are.
    pub shares: Vec<f32>,
}

impl<B: Backend> Mixup<B> {
    /// Some rows of the batch.
    pub fn rows(&self, rows: Range<usize>) -> Self {
        Self {
            queries: self.queries.rows(rows.clone()),
            texts: self.texts[rows.clone()].to_vec(),
            shares: self.shares[rows].to_vec(),
        }
    }

    /// The shares on a device, repeated for each pass: `[passes * batch]`.
    pub(super) fn shares(&self, passes: usize, device: &B::Device) -> Tensor<B, 1> {
        let shares = self.shares.repeat(passes);
        let count = shares.len();
        Tensor::from_data(TensorData::new(shares, [count]), device)
    }
}

/// The captions of every candidate that are drawn at all.
#[derive(Debug, Default)]
pub(super) struct Siblings(Vec<Vec<u32>>);

impl Siblings {
    /// Empty without mixup.
    pub(super) fn new(config: &TrainConfig, data: &TrainingData) -> Self {
        if config.mixup == 0.0 {
            return Self::default();
        }
        let mut siblings = vec![Vec::new(); data.owners.items()];
        for (text, pair) in data.captions().iter().enumerate() {
            if pair.weight > 0.0 {
                siblings[pair.example.item as usize].push(text as u32);
            }
        }
        Self(siblings)
    }

    /// The caption to mix a candidate's caption with, and the share of the latter: with probability `mixup` another
    /// one of the candidate and an even draw, otherwise itself and 1.
    pub(super) fn draw(
        &self,
        mixup: f64,
        (item, text): (u32, u32),
        rng: &mut impl Rng,
    ) -> (u32, f32) {
        let mixed = rng.random_bool(mixup);
        let others: Vec<u32> =
            self.0[item as usize].iter().copied().filter(|&other| other != text).collect();
        if !mixed || others.is_empty() {
            return (text, 1.0);
        }
        (others[rng.random_range(0..others.len())], rng.random())
    }
}

/// Refuses to interpolate queries for a network that is compared with the candidates' vectors: those would have to be made
/// without either caption.
pub(super) fn check<B: Backend>(config: &TrainConfig, model: &Cart<B>) -> Result<()> {
    let guided = model.alignment().is_some_and(AlignmentHead::is_guided);
    Error::config("interpolation (TrainConfig::mixup)")
        .expected("0 for a guided network or with an alignment loss")
        .found(config.mixup.to_string())
        .fix_if(
            config.mixup > 0.0 && (guided || config.loss.alignment > 0.0),
            "a query mixed from two captions needs a vector that has seen neither: turn one of \
             the two off",
        )
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn partners_are_other_captions_of_the_candidate_as_often_as_asked() {
        let siblings = Siblings(vec![vec![0, 3, 5], vec![1]]);
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let (mut mixed, mut sum) = (0, 0.0);
        for _ in 0..2000 {
            let (other, share) = siblings.draw(0.25, (0, 3), &mut rng);
            match other {
                3 => assert_eq!(share, 1.0),
                _ => {
                    assert!([0, 5].contains(&other) && (0.0..1.0).contains(&share));
                    mixed += 1;
                    sum += share;
                }
            }
            assert_eq!(siblings.draw(1.0, (1, 1), &mut rng), (1, 1.0));
        }
        assert!((400..600).contains(&mixed), "{mixed}");
        assert!((0.45..0.55).contains(&(sum / mixed as f32)));
    }
}
