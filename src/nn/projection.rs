//! Embeddings as queries.

use burn::{
    module::{Module, Param},
    nn::Linear,
    tensor::{Tensor, backend::Backend},
};

use super::{
    gelu,
    init::{WeightInit, linear_2d},
};
use crate::{
    error::{Error, Result},
    storage::{NamedTensors, load_module},
};

/// Maps an embedding (of a picture, a sound, anything) to a few token embeddings, so that the text
/// encoder and the decoder answer a non-text query without being trained for it (ours).
///
/// Rows are centred by the mean of the fitted rows and scaled to length 1; two linear layers with a
/// GELU between them follow. Made by
/// [`ProjectionConfig::fit`](crate::expert::ProjectionConfig::fit).
#[derive(Module, Debug)]
pub struct QueryProjection<B: Backend> {
    mean: Param<Tensor<B, 1>>,
    inner: Linear<B>,
    outer: Linear<B>,
    #[module(skip)]
    tokens: usize,
}

/// Widths of a [`QueryProjection`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProjectionShape {
    /// Width of the hidden layer.
    pub hidden: usize,
    /// Number of token embeddings of a query.
    pub tokens: usize,
    /// Width of a token embedding.
    pub d_model: usize,
}

impl<B: Backend> QueryProjection<B> {
    /// A projection from rows with this mean.
    ///
    /// # Shapes
    /// - `mean`: `[D]`
    pub fn new(
        mean: &[f32],
        shape: ProjectionShape,
        init: &mut WeightInit,
        device: &B::Device,
    ) -> Self {
        let ProjectionShape { hidden, tokens, d_model } = shape;
        let projection = Self {
            mean: Param::from_tensor(Tensor::from_floats(mean, device)).no_grad(),
            inner: init.linear(mean.len(), hidden, device),
            outer: init.linear(hidden, tokens * d_model, device),
            tokens,
        };
        projection.num_params();
        projection
    }

    /// Token embeddings of queries.
    ///
    /// # Shapes
    /// - `rows`: `[batch, D]`
    /// - returns: `[batch, tokens, d_model]`
    pub fn forward(&self, rows: Tensor<B, 2>) -> Tensor<B, 3> {
        let [batch, _] = rows.dims();
        let centred = rows - self.mean.val().unsqueeze::<2>();
        let length = centred.clone().square().sum_dim(1).sqrt().clamp_min(1e-12);
        // Of the size that linear layers are initialised for.
        let inputs = centred / length * (self.dim() as f32).sqrt();
        let hidden = gelu(linear_2d(&self.inner, inputs));
        let words = linear_2d(&self.outer, hidden);
        let d_model = words.dims()[1] / self.tokens;
        words.reshape([batch, self.tokens, d_model])
    }

    /// Width D of the embeddings.
    pub fn dim(&self) -> usize {
        self.inner.weight.dims()[0]
    }

    /// Number of token embeddings of a query.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Width of a token embedding.
    pub fn d_model(&self) -> usize {
        self.outer.weight.dims()[1] / self.tokens
    }

    /// The projection as a safetensors file.
    ///
    /// # Errors
    /// As [`NamedTensors::insert_module`].
    pub fn to_safetensors(&self) -> Result<Vec<u8>> {
        let mut tensors = NamedTensors::new();
        tensors.insert_module::<B, _>("", self)?;
        tensors.to_bytes(&[("query-projection", &self.tokens.to_string())])
    }

    /// Reads what [`QueryProjection::to_safetensors`] wrote.
    ///
    /// # Errors
    /// [`Error::Index`] or [`Error::Model`] when it is not that.
    pub fn from_safetensors(bytes: &[u8], device: &B::Device) -> Result<Self> {
        let (mut tensors, metadata) = NamedTensors::from_bytes(bytes)?;
        let tokens = metadata.get("query-projection").and_then(|tokens| tokens.parse().ok());
        let shape =
            |name: &str| tensors.shape(name).and_then(|shape| <[usize; 2]>::try_from(shape).ok());
        let (inner, outer) = (shape("inner.weight"), shape("outer.weight"));
        let (Some(tokens), Some([dim, hidden]), Some([_, words])) = (tokens, inner, outer) else {
            return Err(malformed("no words or no layers"));
        };
        if tokens == 0 || !words.is_multiple_of(tokens) {
            return Err(malformed(&format!("{words} numbers for {tokens} words")));
        }
        let shape = ProjectionShape { hidden, tokens, d_model: words / tokens };
        let mut projection = Self::new(&vec![0.0; dim], shape, &mut WeightInit::zeros(), device);
        load_module::<B, _>(&mut projection, &mut tensors, "")?;
        tensors.ensure_empty("query projection")?;
        Ok(projection)
    }
}

fn malformed(found: &str) -> Error {
    Error::index("query projection")
        .expected("a projection of this library")
        .found(found)
        .fix("save it again, or restore the file from a copy")
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;

    use super::*;

    const SHAPE: ProjectionShape = ProjectionShape { hidden: 6, tokens: 2, d_model: 4 };

    #[test]
    fn files_round_trip_and_others_are_refused() {
        let device = Default::default();
        let mut init = WeightInit::new(3);
        let made = QueryProjection::<Flex>::new(&[0.5, 1.0, -1.0], SHAPE, &mut init, &device);
        assert_eq!((made.dim(), made.tokens(), made.d_model()), (3, 2, 4));
        let bytes = made.to_safetensors().unwrap();
        let read = QueryProjection::<Flex>::from_safetensors(&bytes, &device).unwrap();
        let rows = Tensor::from_floats([[1.0, 2.0, 3.0], [0.5, 1.0, -1.0]], &device);
        let (a, b) = (made.forward(rows.clone()).to_data(), read.forward(rows).to_data());
        assert_eq!((a.shape.to_vec(), &a), (vec![2, 2, 4], &b));
        assert!(a.iter::<f32>().all(f32::is_finite));
        let mut tensors = NamedTensors::new();
        tensors.insert_module::<Flex, _>("", &made).unwrap();
        for tokens in ["3", "0", "x"] {
            let bytes = tensors.to_bytes(&[("query-projection", tokens)]).unwrap();
            assert!(QueryProjection::<Flex>::from_safetensors(&bytes, &device).is_err());
        }
    }

    /// Only the direction from the mean counts.
    #[test]
    fn the_length_of_an_embedding_does_not_matter() {
        let device = Default::default();
        let mean = [0.5, 1.0, -1.0];
        let made = QueryProjection::<Flex>::new(&mean, SHAPE, &mut WeightInit::new(3), &device);
        let rows =
            Tensor::from_floats([[1.5, 1.0, -1.0], [3.5, 1.0, -1.0], [0.5, 2.0, -1.0]], &device);
        let words: Vec<f32> = made.forward(rows).to_data().iter::<f32>().collect();
        for (a, b) in words[..8].iter().zip(&words[8..16]) {
            approx::assert_abs_diff_eq!(a, b, epsilon = 1e-5);
        }
        assert!(words[..8].iter().zip(&words[16..]).any(|(a, b)| (a - b).abs() > 1e-2));
    }
}
