//! The position-wise feed-forward block.

use burn::{
    module::Module,
    nn::Linear,
    tensor::{Tensor, backend::Backend},
};

use super::{
    Activation, Dropout, WeightInit,
    init::{apply, as_dtype},
};

/// Two linear layers with an activation between them, a ReLU unless told otherwise.
#[derive(Module, Debug)]
pub struct FeedForward<B: Backend> {
    pub(super) inner: Linear<B>,
    pub(super) outer: Linear<B>,
    dropout: Dropout,
    #[module(skip)]
    activation: Activation,
}

impl<B: Backend> FeedForward<B> {
    /// Initialises a block of width `d_model` and inner width `d_ff`.
    pub fn init(
        d_model: usize,
        d_ff: usize,
        dropout: f64,
        init: &mut WeightInit,
        device: &B::Device,
    ) -> Self {
        Self {
            inner: init.linear(d_model, d_ff, device),
            outer: init.linear(d_ff, d_model, device),
            dropout: Dropout::new(dropout),
            activation: Activation::Relu,
        }
    }

    /// Takes another activation.
    pub fn with_activation(self, activation: Activation) -> Self {
        Self { activation, ..self }
    }

    /// Takes another dropout between its two maps.
    pub fn with_dropout(self, dropout: f64) -> Self {
        Self { dropout: Dropout::new(dropout), ..self }
    }

    /// Applies the block.
    ///
    /// # Shapes
    /// - input and output: `[batch, n, d_model]`
    pub fn forward(&self, input: Tensor<B, 3>) -> Tensor<B, 3> {
        let dtype = input.dtype();
        let hidden = self.dropout.forward(self.activation.forward(apply(&self.inner, input)));
        as_dtype(apply(&self.outer, hidden), dtype)
    }
}
