//! What a text encoder hands out.

use burn::tensor::{Int, Tensor, backend::Backend};
use serde::{Deserialize, Serialize};

use crate::index::{TextTokens, TokenSpace};

/// How one vector of a query is made of its tokens' vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pooling {
    /// The mean over all tokens that are there.
    #[default]
    Mean,
    /// The first token (BERT's `[CLS]`).
    First,
    /// The last token that is there (CLIP's end of text).
    Last,
    /// The largest number of each dimension, over all tokens that are there.
    Max,
}

/// What the encoder makes of a batch of queries.
#[derive(Debug, Clone)]
pub struct EncoderOutput<B: Backend> {
    /// `E_1, .., E_S`, each normalised, `[batch, tokens, d_model]`.
    pub layers: Vec<Tensor<B, 3>>,
    /// Scores to add so that padding is not seen, `[batch, 1, 1, tokens]`.
    pub bias: Tensor<B, 4>,
    /// How one vector of a query is made.
    pub pooling: Pooling,
}

/// What the lowest layers make of a batch of queries.
#[derive(Debug, Clone)]
pub struct EncoderPrefix<B: Backend> {
    /// Their outputs, each normalised, `[batch, tokens, d_model]`.
    pub layers: Vec<Tensor<B, 3>>,
    /// What the layer above reads, `[batch, tokens, d_model]`.
    pub hidden: Tensor<B, 3>,
}

impl<B: Backend> EncoderPrefix<B> {
    /// The batch twice, for two passes of different dropout.
    pub fn repeated(self) -> Self {
        let twice = |tensor: Tensor<B, 3>| Tensor::cat(vec![tensor; 2], 0);
        Self { layers: self.layers.into_iter().map(twice).collect(), hidden: twice(self.hidden) }
    }
}

impl<B: Backend> EncoderOutput<B> {
    /// One vector of every query, from the last layer, in the encoder's way.
    ///
    /// # Shapes
    /// - returns: `[batch, d_model]`
    pub fn pooled(&self) -> Tensor<B, 2> {
        match self.pooling {
            Pooling::Mean => self.mean_pooled(),
            Pooling::First => self.last().narrow(1, 0, 1).squeeze_dim(1),
            Pooling::Last => {
                let [_, tokens, _] = self.last().dims();
                let device = self.bias.device();
                let places =
                    Tensor::<B, 1, burn::tensor::Int>::arange(1..tokens as i64 + 1, &device);
                // The place of the last token that is there is the largest.
                let places = self.present() * places.float().reshape([1, tokens, 1]);
                let chosen = places.clone().equal(places.max_dim(1).repeat_dim(1, tokens));
                (self.last() * chosen.float()).sum_dim(1).squeeze_dim(1)
            }
            Pooling::Max => {
                let last = self.last();
                let [_, _, d_model] = last.dims();
                let absent = self.present().repeat_dim(2, d_model).equal_elem(0.0);
                last.mask_fill(absent, f32::NEG_INFINITY).max_dim(1).squeeze_dim(1)
            }
        }
    }

    /// Mean of the last layer over the tokens that are there.
    ///
    /// # Shapes
    /// - returns: `[batch, d_model]`
    pub fn mean_pooled(&self) -> Tensor<B, 2> {
        let last = self.last();
        let [batch, _, d_model] = last.dims();
        let present = self.present();
        let count = present.clone().sum_dim(1).clamp_min(1.0);
        (last * present).sum_dim(1).div(count).reshape([batch, d_model])
    }

    /// The tokens of every query, reduced for late interaction.
    ///
    /// # Shapes
    /// - `tokens`, what this was made of: `[batch, tokens]`
    pub(crate) fn reduced(&self, space: &TokenSpace, tokens: Tensor<B, 2, Int>) -> Vec<TextTokens> {
        let [batch, length] = tokens.dims();
        let d_model = space.d_model();
        let ids: Vec<u32> = tokens.into_data().iter::<i64>().map(|token| token as u32).collect();
        let present: Vec<bool> =
            self.bias.to_data().iter::<f32>().map(|bias| bias == 0.0).collect();
        let states: Vec<f32> = self.last().into_data().iter::<f32>().collect();
        (0..batch)
            .map(|row| {
                let at = row * length..(row + 1) * length;
                let there = at.filter(|&at| present[at]);
                let ids: Vec<u32> = there.clone().map(|at| ids[at]).collect();
                let state = |at: usize| &states[at * d_model..(at + 1) * d_model];
                let states: Vec<f32> = there.flat_map(state).copied().collect();
                space.text(&ids, &states)
            })
            .collect()
    }

    /// The output of the last layer, `[batch, tokens, d_model]`.
    pub(crate) fn last(&self) -> Tensor<B, 3> {
        self.layers.last().expect("an encoder has layers").clone()
    }

    /// 1 where there is a token: `[batch, tokens, 1]`.
    fn present(&self) -> Tensor<B, 3> {
        let [batch, _, _, tokens] = self.bias.dims();
        self.bias.clone().equal_elem(0.0).float().reshape([batch, tokens, 1])
    }
}

#[cfg(test)]
mod tests {
    use burn::{backend::Flex, tensor::TensorData};

    use super::*;
    use crate::nn::padding_bias;

    #[test]
    fn pooling_looks_at_tokens_that_are_there_only() {
        let device = Default::default();
        // Padding has the largest numbers of the first row, and the last token not all of the
        // second row's.
        let values: Vec<f32> = [0, 1, 90, 91, 4, 5, 6, 17, 8, 9, 10, 11].map(|i| i as f32).to_vec();
        let padding = TensorData::new(vec![false, true, true, false, false, false], [2, 3]);
        let output = |pooling| EncoderOutput::<Flex> {
            layers: vec![Tensor::from_data(TensorData::new(values.clone(), [2, 3, 2]), &device)],
            bias: padding_bias(Tensor::from_data(padding.clone(), &device)),
            pooling,
        };
        for (pooling, expected) in [
            (Pooling::Mean, [0.0, 1.0, 8.0, 37.0 / 3.0]),
            (Pooling::First, [0.0, 1.0, 6.0, 17.0]),
            (Pooling::Last, [0.0, 1.0, 10.0, 11.0]),
            (Pooling::Max, [0.0, 1.0, 10.0, 17.0]),
        ] {
            let found: Vec<f32> = output(pooling).pooled().into_data().to_vec().unwrap();
            assert_eq!(found, expected, "{pooling:?}");
        }
    }
}
