//! ImageBind: towers for pictures and videos, texts, and sounds into one space.
//!
//! Source: Girdhar et al. 2023 (arXiv 2305.05665) and its published code and weights; the towers
//! for depth, heat and motion are left out.

use burn::{
    module::{Module, Param},
    nn::{Embedding, LayerNorm, LayerNormConfig, Linear},
    tensor::{Bool, Int, Tensor, backend::Backend, module::conv2d, ops::ConvOptions},
};
use cart_retrieval::{
    Error, Result,
    expert::{
        Activation, Attention, AttentionConfig, FeedForward, FeedForwardConfig, WeightInit,
        causal_bias,
    },
    members::{apply, check_sizes, count, layer_params, unit},
};
use serde::{Deserialize, Serialize};

/// What keeps the norms' divisions from zero; that of the norm over sounds' patches is 1e-5.
const EPSILON: f64 = 1e-6;
/// Frames that a patch of a video goes over.
pub(crate) const FRAMES: usize = 2;

/// Shape of the tower for pictures and videos.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageBindVisionConfig {
    /// Side of a picture in pixels.
    pub image_size: usize,
    /// Side of a patch in pixels; a patch goes over two frames.
    pub patch_size: usize,
    /// Width of the layers.
    pub d_model: usize,
    /// Number of attention heads.
    pub n_heads: usize,
    /// Number of layers.
    pub n_layers: usize,
}

/// Shape of the tower for texts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageBindTextConfig {
    /// Rows of the table of word embeddings.
    pub vocabulary: usize,
    /// Most tokens of a text.
    pub max_tokens: usize,
    /// Width of the layers.
    pub d_model: usize,
    /// Number of attention heads.
    pub n_heads: usize,
    /// Number of layers.
    pub n_layers: usize,
}

/// Shape of the tower for sounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageBindAudioConfig {
    /// Bands of the spectrogram.
    pub mels: usize,
    /// Frames of the spectrogram.
    pub frames: usize,
    /// Side of a patch.
    pub patch_size: usize,
    /// From one patch to the next.
    pub stride: usize,
    /// Width of the layers.
    pub d_model: usize,
    /// Number of attention heads.
    pub n_heads: usize,
    /// Number of layers.
    pub n_layers: usize,
}

/// Shape of ImageBind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageBindConfig {
    /// The tower for pictures and videos.
    pub vision: ImageBindVisionConfig,
    /// The tower for texts.
    pub text: ImageBindTextConfig,
    /// The tower for sounds.
    pub audio: ImageBindAudioConfig,
    /// Width of the common space.
    pub d_output: usize,
}

/// A pre-norm layer; with an extra key and value, where a token may look instead of at others.
#[derive(Module, Debug)]
struct Layer<B: Backend> {
    attention: Attention<B>,
    attention_norm: LayerNorm<B>,
    extra_key: Option<Param<Tensor<B, 2>>>,
    extra_value: Option<Param<Tensor<B, 2>>>,
    feed_forward: FeedForward<B>,
    feed_forward_norm: LayerNorm<B>,
}

#[derive(Module, Debug)]
struct VisionTower<B: Backend> {
    class: Embedding<B>,
    patches: Linear<B>,
    positions: Embedding<B>,
    pre_norm: LayerNorm<B>,
    layers: Vec<Layer<B>>,
    norm: LayerNorm<B>,
    projection: Linear<B>,
    #[module(skip)]
    patch_size: usize,
}

#[derive(Module, Debug)]
struct TextTower<B: Backend> {
    tokens: Embedding<B>,
    positions: Embedding<B>,
    layers: Vec<Layer<B>>,
    norm: LayerNorm<B>,
    projection: Linear<B>,
}

#[derive(Module, Debug)]
struct AudioTower<B: Backend> {
    class: Embedding<B>,
    /// `[d_model, 1, patch_size, patch_size]`
    kernel: Param<Tensor<B, 4>>,
    patch_norm: LayerNorm<B>,
    positions: Embedding<B>,
    layers: Vec<Layer<B>>,
    norm: LayerNorm<B>,
    projection: Linear<B>,
    #[module(skip)]
    stride: usize,
}

/// Three towers into one space. All embeddings are unit vectors: the factors that the published
/// model multiplies those of texts and sounds by change no order.
#[derive(Module, Debug)]
pub struct ImageBind<B: Backend> {
    vision: VisionTower<B>,
    text: TextTower<B>,
    audio: AudioTower<B>,
}

impl ImageBindConfig {
    /// The published model, "huge": 1.2 billion parameters, 1024 dimensions.
    pub fn huge() -> Self {
        Self {
            vision: ImageBindVisionConfig {
                image_size: 224,
                patch_size: 14,
                d_model: 1280,
                n_heads: 16,
                n_layers: 32,
            },
            text: ImageBindTextConfig {
                vocabulary: 49_408,
                max_tokens: 77,
                d_model: 1024,
                n_heads: 16,
                n_layers: 24,
            },
            audio: ImageBindAudioConfig {
                mels: 128,
                frames: 204,
                patch_size: 16,
                stride: 10,
                d_model: 768,
                n_heads: 12,
                n_layers: 12,
            },
            d_output: 1024,
        }
    }

    /// Checks that the sizes fit each other.
    ///
    /// # Errors
    /// [`Error::Config`] naming the size that does not.
    pub fn validate(&self) -> Result<()> {
        let Self { vision, text, audio, d_output } = self;
        check_sizes(
            &[
                ("d_output", *d_output),
                ("image_size", vision.image_size),
                ("patch_size", vision.patch_size),
                ("vocabulary", text.vocabulary),
                ("max_tokens", text.max_tokens),
                ("audio patch_size", audio.patch_size),
                ("stride", audio.stride),
            ],
            None,
            &[],
        )?;
        for (d_model, n_heads, n_layers) in [
            (vision.d_model, vision.n_heads, vision.n_layers),
            (text.d_model, text.n_heads, text.n_layers),
            (audio.d_model, audio.n_heads, audio.n_layers),
        ] {
            let sizes = [("d_model", d_model), ("n_heads", n_heads), ("n_layers", n_layers)];
            check_sizes(&sizes, Some((d_model, n_heads)), &[])?;
        }
        if !vision.image_size.is_multiple_of(vision.patch_size) {
            return Err(Error::config("patch_size")
                .expected(format!("a divisor of image_size = {}", vision.image_size))
                .found(vision.patch_size.to_string())
                .fix("change one of the two"));
        }
        if audio.mels.min(audio.frames) < audio.patch_size {
            return Err(Error::config("audio patch_size")
                .expected(format!("at most {} bands and {} frames", audio.mels, audio.frames))
                .found(audio.patch_size.to_string())
                .fix("change one of them"));
        }
        Ok(())
    }

    /// Initialises all towers.
    pub fn init<B: Backend>(&self, init: &mut WeightInit, device: &B::Device) -> ImageBind<B> {
        let Self { vision, text, audio, d_output } = self;
        let norm = |width| LayerNormConfig::new(width).with_epsilon(EPSILON).init::<B>(device);
        let patches = (vision.image_size / vision.patch_size).pow(2);
        let patch = 3 * FRAMES * vision.patch_size.pow(2);
        let vision = VisionTower {
            class: init.embedding(1, vision.d_model, device),
            patches: init.linear_without_bias(patch, vision.d_model, device),
            positions: init.embedding(patches + 1, vision.d_model, device),
            pre_norm: norm(vision.d_model),
            layers: layers(vision.n_layers, vision.d_model, vision.n_heads, false, init, device),
            norm: norm(vision.d_model),
            projection: init.linear_without_bias(vision.d_model, *d_output, device),
            patch_size: vision.patch_size,
        };
        let text = TextTower {
            tokens: init.embedding(text.vocabulary, text.d_model, device),
            positions: init.embedding(text.max_tokens, text.d_model, device),
            layers: layers(text.n_layers, text.d_model, text.n_heads, false, init, device),
            norm: norm(text.d_model),
            projection: init.linear_without_bias(text.d_model, *d_output, device),
        };
        let patches = audio.patches();
        let size = audio.patch_size;
        let audio = AudioTower {
            class: init.embedding(1, audio.d_model, device),
            kernel: init.normal([audio.d_model, 1, size, size], 0.02, device),
            patch_norm: LayerNormConfig::new(audio.d_model).with_epsilon(1e-5).init(device),
            positions: init.embedding(patches + 1, audio.d_model, device),
            layers: layers(audio.n_layers, audio.d_model, audio.n_heads, true, init, device),
            norm: norm(audio.d_model),
            projection: init.linear_without_bias(audio.d_model, *d_output, device),
            stride: audio.stride,
        };
        ImageBind { vision, text, audio }
    }

    /// Number of parameters.
    pub fn num_params(&self) -> usize {
        let Self { vision, text, audio, d_output } = self;
        let tower = |places: usize, d: usize, layers: usize, extra: usize| {
            // The class, the norms, and where all of them are projected to.
            let head = count(&[&[places, d], &[2, d], &[d, *d_output]]);
            count(&[&[head], &[layers, layer_params(d, 4 * d)], &[layers, extra, d]])
        };
        let patches = (vision.image_size / vision.patch_size).pow(2);
        let patch = [3 * FRAMES, vision.patch_size, vision.patch_size];
        let seen = count(&[&patch, &[patches], &[4]]);
        let read = count(&[&[text.vocabulary], &[text.max_tokens]]);
        let heard = count(&[&[audio.patch_size, audio.patch_size], &[audio.patches()], &[4]]);
        let towers = [
            tower(seen, vision.d_model, vision.n_layers, 0),
            tower(read, text.d_model, text.n_layers, 0),
            tower(heard, audio.d_model, audio.n_layers, 2),
        ];
        towers.into_iter().fold(0, usize::saturating_add)
    }
}

impl ImageBindAudioConfig {
    /// Patches of a spectrogram.
    fn patches(&self) -> usize {
        let along = |length: usize| (length - self.patch_size) / self.stride + 1;
        along(self.mels) * along(self.frames)
    }
}

fn layers<B: Backend>(
    count: usize,
    d_model: usize,
    n_heads: usize,
    extra: bool,
    init: &mut WeightInit,
    device: &B::Device,
) -> Vec<Layer<B>> {
    let norm = || LayerNormConfig::new(d_model).with_epsilon(EPSILON).init::<B>(device);
    let layer = |_| Layer {
        attention: AttentionConfig::new(d_model, n_heads, 0.0).init(init, device),
        attention_norm: norm(),
        extra_key: extra.then(|| init.normal([1, d_model], 0.02, device)),
        extra_value: extra.then(|| init.normal([1, d_model], 0.02, device)),
        feed_forward: FeedForwardConfig {
            activation: Activation::Gelu,
            ..FeedForwardConfig::new(d_model, 4 * d_model)
        }
        .init(init, device),
        feed_forward_norm: norm(),
    };
    (0..count).map(layer).collect()
}

impl<B: Backend> Layer<B> {
    fn forward(&self, x: Tensor<B, 3>, bias: Option<&Tensor<B, 4>>) -> Tensor<B, 3> {
        let normed = self.attention_norm.forward(x.clone());
        let mut context = self.attention.key_value(normed.clone());
        if let (Some(key), Some(value)) = (&self.extra_key, &self.extra_value) {
            context = context.with_extra(key.val(), value.val());
        }
        let x = x + self.attention.forward(normed, &context, bias);
        let normed = self.feed_forward_norm.forward(x.clone());
        x + self.feed_forward.forward(normed)
    }
}

/// Puts the tower's own vector first and adds positions.
fn with_class<B: Backend>(
    patches: Tensor<B, 3>,
    class: &Embedding<B>,
    positions: &Embedding<B>,
) -> Tensor<B, 3> {
    let [batch, places, d_model] = patches.dims();
    let [expected, _] = positions.weight.dims();
    assert!(places + 1 == expected, "{places} patches where {} are expected", expected - 1);
    let class = class.weight.val().reshape([1, 1, d_model]).repeat_dim(0, batch);
    Tensor::cat(vec![class, patches], 1) + positions.weight.val().unsqueeze::<3>()
}

/// The first vector of each sequence, normed, projected and of unit length.
fn head<B: Backend>(
    hidden: Tensor<B, 3>,
    norm: &LayerNorm<B>,
    projection: &Linear<B>,
) -> Tensor<B, 2> {
    let [batch, _, d_model] = hidden.dims();
    unit(projection.forward(norm.forward(hidden.narrow(1, 0, 1)).reshape([batch, d_model])))
}

impl<B: Backend> ImageBind<B> {
    /// Embeddings of pictures.
    ///
    /// # Shapes
    /// - `pixels`, normalised: `[batch, 3, image_size, image_size]`
    /// - returns: `[batch, d_output]`
    ///
    /// # Panics
    /// When pictures have another size than the tower is for.
    pub fn embed_pixels(&self, pixels: Tensor<B, 4>) -> Tensor<B, 2> {
        self.embed_frames(pixels.unsqueeze_dim::<5>(2).repeat_dim(2, FRAMES))
    }

    /// Embeddings of two frames each.
    ///
    /// # Shapes
    /// - `frames`, normalised: `[batch, 3, 2, image_size, image_size]`
    /// - returns: `[batch, d_output]`
    ///
    /// # Panics
    /// When frames have another size or number than the tower is for.
    pub fn embed_frames(&self, frames: Tensor<B, 5>) -> Tensor<B, 2> {
        let [batch, colours, count, height, width] = frames.dims();
        let tower = &self.vision;
        let size = tower.patch_size;
        assert!(
            count == FRAMES && height % size == 0 && width % size == 0,
            "{count} frames of {height} x {width} where {FRAMES} of patches of {size} are expected"
        );
        let (rows, columns, channels) = (height / size, width / size, colours * count);
        // As the weights of a convolution over time and place are stored.
        let patches = frames
            .reshape([batch, channels, rows, size, columns, size])
            .permute([0, 2, 4, 1, 3, 5])
            .reshape([batch, rows * columns, channels * size * size]);
        let patches = apply(&tower.patches, patches);
        let hidden = tower.pre_norm.forward(with_class(patches, &tower.class, &tower.positions));
        let hidden = tower.layers.iter().fold(hidden, |hidden, layer| layer.forward(hidden, None));
        head(hidden, &tower.norm, &tower.projection)
    }

    /// Embeddings of texts, each from its last token.
    ///
    /// # Shapes
    /// - `tokens`, those of CLIP with its marks of beginning and end: `[batch, tokens]`
    /// - `padding`, true behind the mark of the end: `[batch, tokens]`
    /// - returns: `[batch, d_output]`
    ///
    /// # Panics
    /// When there are more tokens than the tower has positions for.
    pub fn embed_tokens(
        &self,
        tokens: Tensor<B, 2, Int>,
        padding: Tensor<B, 2, Bool>,
    ) -> Tensor<B, 2> {
        let tower = &self.text;
        let [batch, length] = tokens.dims();
        let [most, d_model] = tower.positions.weight.dims();
        assert!(length <= most, "{length} tokens exceed max_tokens = {most}");
        let positions = tower.positions.weight.val().narrow(0, 0, length).unsqueeze::<3>();
        let hidden = tower.tokens.forward(tokens) + positions;
        let device = hidden.device();
        let bias = causal_bias(length, &device);
        let hidden =
            tower.layers.iter().fold(hidden, |hidden, layer| layer.forward(hidden, Some(&bias)));
        // Number of the last token of each.
        let last = padding.bool_not().int().sum_dim(1).sub_scalar(1).clamp_min(0);
        let index = last.reshape([batch, 1, 1]).repeat_dim(2, d_model);
        head(hidden.gather(1, index), &tower.norm, &tower.projection)
    }

    /// Embeddings of sounds of two seconds.
    ///
    /// # Shapes
    /// - `mel`, normalised log-mel spectrograms: `[batch, mels, frames]`
    /// - returns: `[batch, d_output]`
    ///
    /// # Panics
    /// When spectrograms have another size than the tower is for.
    pub fn embed_mel(&self, mel: Tensor<B, 3>) -> Tensor<B, 2> {
        let tower = &self.audio;
        let options = ConvOptions::new([tower.stride; 2], [0, 0], [1, 1], 1);
        let seen = conv2d(mel.unsqueeze_dim::<4>(1), tower.kernel.val(), None, options);
        let [batch, d_model, rows, columns] = seen.dims();
        let patches = seen.reshape([batch, d_model, rows * columns]).swap_dims(1, 2);
        let patches = tower.patch_norm.forward(patches);
        let hidden = with_class(patches, &tower.class, &tower.positions);
        let hidden = tower.layers.iter().fold(hidden, |hidden, layer| layer.forward(hidden, None));
        head(hidden, &tower.norm, &tower.projection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_do_not_fit_are_refused_by_name() {
        ImageBindConfig::huge().validate().unwrap();
        type Edit = fn(&mut ImageBindConfig);
        let edits: [(Edit, &str); 5] = [
            (|c| c.d_output = 0, "d_output"),
            (|c| c.vision.patch_size = 15, "patch_size"),
            (|c| c.vision.n_heads = 7, "n_heads"),
            (|c| c.audio.mels = 8, "audio patch_size"),
            (|c| c.text.n_layers = 0, "n_layers"),
        ];
        for (edit, name) in edits {
            let mut config = ImageBindConfig::huge();
            edit(&mut config);
            let error = config.validate().unwrap_err().to_string();
            assert!(error.contains(name), "{name}: {error}");
        }
    }
}
