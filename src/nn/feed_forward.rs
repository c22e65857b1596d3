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

/// Two linear layers with an activation between them.
#[derive(Module, Debug)]
pub struct FeedForward<B: Backend> {
    pub(super) inner: Linear<B>,
    pub(super) outer: Linear<B>,
    dropout: Dropout,
    #[module(skip)]
    activation: Activation,
}

/// Settings of a [`FeedForward`] block.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FeedForwardConfig {
    /// Width.
    pub d_model: usize,
    /// Inner width.
    pub d_ff: usize,
    /// Dropout after the activation.
    pub dropout: f64,
    /// The activation.
    pub activation: Activation,
}

impl FeedForwardConfig {
    /// A block with a ReLU and without dropout.
    pub fn new(d_model: usize, d_ff: usize) -> Self {
        Self { d_model, d_ff, dropout: 0.0, activation: Activation::Relu }
    }

    /// Initialises the block.
    pub fn init<B: Backend>(&self, init: &mut WeightInit, device: &B::Device) -> FeedForward<B> {
        let Self { d_model, d_ff, dropout, activation } = *self;
        FeedForward {
            inner: init.linear(d_model, d_ff, device),
            outer: init.linear(d_ff, d_model, device),
            dropout: Dropout::new(dropout),
            activation,
        }
    }
}

impl<B: Backend> FeedForward<B> {
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
