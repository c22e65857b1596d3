//! The image tower of CLIP.
//!
//! Source: Radford et al. 2021 (arXiv 2103.00020); the transformer over patches is that of
//! Dosovitskiy et al. 2020 (arXiv 2010.11929).

use burn::{
    module::Module,
    nn::{Embedding, LayerNorm, LayerNormConfig, Linear},
    tensor::{Tensor, backend::Backend},
};
use cart_retrieval::{
    Error, Result,
    expert::{Activation, ClipLayer, WeightInit},
    members::{apply, check_sizes, count, layer_params},
};
use serde::{Deserialize, Serialize};

/// Shape of the image tower of CLIP.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClipVisionConfig {
    /// Side of a picture in pixels.
    pub image_size: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Width of the layers.
    pub d_model: usize,
    /// Inner width of the feed-forward blocks.
    pub d_ff: usize,
    /// Number of attention heads.
    pub n_heads: usize,
    /// Number of layers.
    pub n_layers: usize,
    /// Activation of the feed-forward blocks.
    pub activation: Activation,
    /// What keeps the norms' divisions from zero.
    pub norm_epsilon: f64,
}

/// A transformer over the patches of a picture and a vector of its own, which in the end stands for
/// the picture.
#[derive(Module, Debug)]
pub struct ClipVisionEncoder<B: Backend> {
    class: Embedding<B>,
    patches: Linear<B>,
    positions: Embedding<B>,
    pre_norm: LayerNorm<B>,
    layers: Vec<ClipLayer<B>>,
    post_norm: LayerNorm<B>,
    #[module(skip)]
    patch_size: usize,
}

impl ClipVisionConfig {
    /// Checks that the sizes fit each other.
    ///
    /// # Errors
    /// [`Error::Config`] naming the size that does not.
    pub fn validate(&self) -> Result<()> {
        check_sizes(
            &[
                ("image_size", self.image_size),
                ("patch_size", self.patch_size),
                ("d_model", self.d_model),
                ("d_ff", self.d_ff),
                ("n_heads", self.n_heads),
                ("n_layers", self.n_layers),
            ],
            Some((self.d_model, self.n_heads)),
            &[],
        )?;
        match self.image_size.is_multiple_of(self.patch_size) {
            true => Ok(()),
            false => Err(Error::config("patch_size")
                .expected(format!("a divisor of image_size = {}", self.image_size))
                .found(self.patch_size.to_string())
                .fix("change one of the two")),
        }
    }

    /// Number of patches of a picture.
    pub fn patches(&self) -> usize {
        (self.image_size / self.patch_size).pow(2)
    }

    /// Initialises an encoder.
    pub fn init<B: Backend>(
        &self,
        init: &mut WeightInit,
        device: &B::Device,
    ) -> ClipVisionEncoder<B> {
        let norm =
            || LayerNormConfig::new(self.d_model).with_epsilon(self.norm_epsilon).init(device);
        let patch = 3 * self.patch_size * self.patch_size;
        ClipVisionEncoder {
            class: init.embedding(1, self.d_model, device),
            patches: init.linear_without_bias(patch, self.d_model, device),
            positions: init.embedding(self.patches() + 1, self.d_model, device),
            pre_norm: norm(),
            layers: (0..self.n_layers)
                .map(|_| {
                    let sizes = (self.d_model, self.d_ff, self.n_heads);
                    ClipLayer::init(
                        sizes,
                        (0.0, 0.0),
                        self.activation,
                        self.norm_epsilon,
                        init,
                        device,
                    )
                })
                .collect(),
            post_norm: norm(),
            patch_size: self.patch_size,
        }
    }

    /// Number of parameters.
    pub fn num_params(&self) -> usize {
        let (d, layer) = (self.d_model, layer_params(self.d_model, self.d_ff));
        let rows = count(&[&[3, self.patch_size, self.patch_size], &[self.patches()], &[6]]);
        count(&[&[rows, d], &[self.n_layers, layer]])
    }
}

impl<B: Backend> ClipVisionEncoder<B> {
    /// One vector of every picture, from the last layer.
    ///
    /// # Shapes
    /// - `pixels`, normalised: `[batch, 3, image_size, image_size]`
    /// - returns: `[batch, d_model]`
    ///
    /// # Panics
    /// When pictures have another size than the table of positions is for.
    pub fn forward(&self, pixels: Tensor<B, 4>) -> Tensor<B, 2> {
        let mut hidden = self.embed(pixels);
        for layer in &self.layers {
            hidden = layer.forward(hidden, None);
        }
        let [batch, _, d_model] = hidden.dims();
        let class = hidden.narrow(1, 0, 1);
        self.post_norm.forward(class).reshape([batch, d_model])
    }

    /// The hidden states that the reference implementation (`transformers`, with
    /// `output_hidden_states`) shows before the first layer and behind each.
    ///
    /// # Shapes
    /// As [`ClipVisionEncoder::forward`]; returns `[batch, 1 + patches, d_model]` each, the
    /// picture's own vector first.
    pub fn hidden_states(&self, pixels: Tensor<B, 4>) -> Vec<Tensor<B, 3>> {
        let mut states = vec![self.embed(pixels)];
        for layer in &self.layers {
            states.push(layer.forward(states[states.len() - 1].clone(), None));
        }
        states
    }

    /// What the lowest layer reads.
    fn embed(&self, pixels: Tensor<B, 4>) -> Tensor<B, 3> {
        let [batch, channels, height, width] = pixels.dims();
        let (size, [places, d_model]) = (self.patch_size, self.positions.weight.dims());
        let (rows, columns) = (height / size, width / size);
        assert!(
            rows * columns + 1 == places && height % size == 0 && width % size == 0,
            "{height} x {width} pixels are not {} patches of {size} x {size}",
            places - 1
        );
        // A patch is a row of the product: channel by channel, as the weights of a convolution are
        // stored.
        let patches = pixels
            .reshape([batch, channels, rows, size, columns, size])
            .permute([0, 2, 4, 1, 3, 5])
            .reshape([batch, rows * columns, channels * size * size]);
        let patches = apply(&self.patches, patches);
        let class = self.class.weight.val().reshape([1, 1, d_model]);
        let class = Tensor::cat(vec![class; batch], 0);
        let positions = self.positions.weight.val().unsqueeze::<3>();
        self.pre_norm.forward(Tensor::cat(vec![class, patches], 1) + positions)
    }
}
