//! A lexical part of a query's vector, in addition to the pooled output of the text encoder.

use burn::{
    module::{Module, Param},
    tensor::{Bool, Int, Tensor, TensorData, backend::Backend},
};

use super::init::widened;

/// Appends a lexical part to a pooled query: the sum of its token embeddings, weighted by IDF.
///
/// A sentence encoder blurs names and other rare words; token embeddings do not. Both parts have a
/// fixed length, so a product of two such vectors is a weighted mean of two cosines.
#[derive(Module, Debug)]
pub struct LexicalHead<B: Backend> {
    /// Weights of the token embeddings, `[vocabulary]`.
    factors: Param<Tensor<B, 1>>,
    /// Weight of the cosine of the lexical part; that of the pooled queries has weight 1.
    #[module(skip)]
    weight: f32,
}

impl<B: Backend> LexicalHead<B> {
    /// A head with a weight for every token of the vocabulary.
    pub fn new(factors: &[f32], weight: f32, device: &B::Device) -> Self {
        let data = TensorData::new(factors.to_vec(), [factors.len()]);
        let factors = Tensor::from_data(data, device).set_require_grad(false);
        Self { factors: Param::from_tensor(factors).set_require_grad(false), weight }
    }

    /// Number of tokens.
    pub fn vocabulary(&self) -> usize {
        self.factors.dims()[0]
    }

    /// Weight of the cosine of the lexical part.
    pub fn weight(&self) -> f32 {
        self.weight
    }

    /// Pooled queries, scaled to length 1, followed by their lexical part of length `sqrt(weight)`
    /// (0 where all tokens have weight 0).
    ///
    /// # Shapes
    /// - `pooled`: `[batch, d]`, `table` (token embeddings): `[vocabulary, d]`
    /// - `tokens`, `padding` (true where there is no token): `[batch, tokens]`
    /// - returns: `[batch, 2 d]`
    ///
    /// # Panics
    /// When there is a token outside its vocabulary.
    pub fn append(
        &self,
        pooled: Tensor<B, 2>,
        table: Tensor<B, 2>,
        tokens: Tensor<B, 2, Int>,
        padding: Tensor<B, 2, Bool>,
    ) -> Tensor<B, 2> {
        let [batch, length] = tokens.dims();
        let [_, width] = table.dims();
        let tokens = tokens.reshape([batch * length]);
        let factors = self.factors.val().detach().select(0, tokens.clone());
        let factors = factors.reshape([batch, length]).mask_fill(padding, 0.0);
        let rows = table.detach().select(0, tokens).reshape([batch, length, width]);
        let words = (rows * factors.unsqueeze_dim(2)).sum_dim(1).reshape([batch, width]);
        let words = unit(words).mul_scalar(self.weight.sqrt());
        Tensor::cat(vec![unit(widened(pooled)), words], 1)
    }
}

/// Rows of length 1; rows of zeros stay.
pub fn unit<B: Backend>(rows: Tensor<B, 2>) -> Tensor<B, 2> {
    let norm = rows.clone().powi_scalar(2).sum_dim(1).add_scalar(1e-12).sqrt();
    rows / norm
}

#[cfg(test)]
mod tests {
    use approx::assert_abs_diff_eq;
    use burn::backend::Flex;

    use super::*;

    /// Twin: the formula with loops; padding and words of factor 0 say nothing.
    #[test]
    fn words_count_by_their_factors() {
        let device = Default::default();
        let table = [[1.0f32, 0.0], [0.0, 2.0], [3.0, 4.0], [9.0, 9.0]];
        let factors = [0.5f32, 2.0, 1.0, 0.0];
        let view = LexicalHead::<Flex>::new(&factors, 0.25, &device);
        let tokens = [[0i32, 1, 2], [2, 2, 1], [3, 0, 0]];
        let padding = [[false, false, true], [false; 3], [false, true, true]];
        let pooled = [[3.0f32, 4.0], [1.0, 0.0], [0.0, -2.0]];
        let out = view.append(
            Tensor::from_data(pooled, &device),
            Tensor::from_data(table, &device),
            Tensor::from_data(tokens, &device),
            Tensor::from_data(padding, &device),
        );
        let out: Vec<f32> = out.into_data().to_vec().unwrap();
        for row in 0..3 {
            let mut words = [0f32; 2];
            for at in (0..3).filter(|&at| !padding[row][at]) {
                let token = tokens[row][at] as usize;
                for (word, value) in words.iter_mut().zip(table[token]) {
                    *word += factors[token] * value;
                }
            }
            for (part, expected, length) in [(0, pooled[row], 1.0), (2, words, 0.5)] {
                let norm = expected.iter().map(|v| v * v).sum::<f32>().sqrt().max(1e-6);
                for (d, value) in expected.iter().enumerate() {
                    let got = out[row * 4 + part + d];
                    assert_abs_diff_eq!(got, length * value / norm, epsilon = 1e-5);
                }
            }
        }
    }
}
