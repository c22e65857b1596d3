//! CLIP: its two towers from a folder in the layout of Hugging Face.

use std::path::{Path, PathBuf};

use burn::{
    module::Module,
    nn::Linear,
    tensor::{Bool, Int, Tensor, TensorData, backend::Backend},
};
use cart_media::{
    Extractor, MediaItem, Modality, Picture, PictureLimits, Transparency, open_frames,
};
use cart_retrieval::{
    Error, Result,
    expert::{ClipTextEncoder, WeightInit},
    members::{Weights, count, ensure_held, fill},
    nn::TextEncoder,
    pretrained::LoadReport,
};
use rayon::prelude::*;

use super::{
    config::{ClipConfig, ClipPictures, PictureSize},
    names,
    networks::ClipVisionEncoder,
    settings,
    views::embed_views,
};

/// CLIP's two towers and their projections into one space.
#[derive(Module, Debug)]
pub struct Clip<B: Backend> {
    vision: ClipVisionEncoder<B>,
    text: ClipTextEncoder<B>,
    visual_projection: Linear<B>,
    text_projection: Linear<B>,
}

/// A CLIP in a folder; not loaded yet.
///
/// The folder has `config.json` of `model_type` `clip` and `model.safetensors` (or an index and its
/// files). How pictures are prepared is taken from `processor_config.json` or
/// `preprocessor_config.json`, otherwise it is as for OpenAI's models. Settings are followed or
/// refused, see `docs/encoders.md`.
///
/// # Example
/// ```no_run
/// use burn::backend::Flex;
/// use cart_media::Picture;
/// use cart_towers::PretrainedClip;
/// let pretrained = PretrainedClip::open("clip-vit-base-patch32")?;
/// let (clip, report) = pretrained.load::<Flex>(&Default::default())?;
/// println!("{report}");
/// let picture = Picture::open("dog.jpg")?;
/// let vectors = clip.embed_pictures(&[picture], pretrained.config(), &Default::default())?;
/// assert_eq!(vectors.dims(), [1, pretrained.config().projection]);
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct PretrainedClip {
    folder: PathBuf,
    config: ClipConfig,
}

impl PretrainedClip {
    /// Reads the settings of a folder.
    ///
    /// # Errors
    /// [`Error::Io`] when `config.json` is missing;
    /// [`Error::Model`] for a model of another family, or settings that are
    /// not understood.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        Ok(Self { folder: folder.to_path_buf(), config: settings::clip_pair(folder)? })
    }

    /// Shape of the towers.
    pub fn config(&self) -> &ClipConfig {
        &self.config
    }

    /// Loads the weights.
    ///
    /// # Errors
    /// [`Error::Model`] naming a tensor that is missing or misshapen, or a
    /// file that is damaged; [`Error::Io`] for one that is missing.
    pub fn load<B: Backend>(&self, device: &B::Device) -> Result<(Clip<B>, LoadReport)> {
        let weights = Weights::open(&self.folder)?;
        let ClipConfig { vision, text, projection, .. } = &self.config;
        let parameters = || self.config.num_params();
        ensure_held("CLIP", &(vision, text, projection), parameters, weights.bytes())?;
        let mut clip = self.config.init::<B>(&mut WeightInit::zeros(), device);
        let report = fill(&mut clip, &names::clip(), weights)?;
        Ok((clip, report))
    }
}

impl ClipConfig {
    /// Initialises both towers.
    pub fn init<B: Backend>(&self, init: &mut WeightInit, device: &B::Device) -> Clip<B> {
        Clip {
            vision: self.vision.init(init, device),
            text: self.text.init(init, device),
            visual_projection: init.linear_without_bias(
                self.vision.d_model,
                self.projection,
                device,
            ),
            text_projection: init.linear_without_bias(self.text.d_model, self.projection, device),
        }
    }

    /// Number of parameters.
    pub fn num_params(&self) -> usize {
        let Self { vision, text, projection, .. } = self;
        let (vision_width, text_width) = (vision.d_model, text.d_model);
        let projections = count(&[&[vision_width, *projection], &[text_width, *projection]]);
        count(&[&[vision.num_params()], &[text.num_params()], &[projections]])
    }
}

impl<B: Backend> Clip<B> {
    /// The image tower.
    pub fn vision(&self) -> &ClipVisionEncoder<B> {
        &self.vision
    }

    /// The text tower, every layer handed out.
    pub fn text(&self) -> TextEncoder<B> {
        TextEncoder::Clip(self.text.clone())
    }

    /// Vectors of pictures in the common space, not normalised.
    ///
    /// # Shapes
    /// - `pixels`, normalised: `[batch, 3, image_size, image_size]`
    /// - returns: `[batch, projection]`
    ///
    /// # Panics
    /// When pictures have another size than the tower is for.
    pub fn embed_pixels(&self, pixels: Tensor<B, 4>) -> Tensor<B, 2> {
        self.visual_projection.forward(self.vision.forward(pixels))
    }

    /// Vectors of texts in the common space, not normalised.
    ///
    /// # Shapes
    /// - `tokens`: `[batch, tokens]`
    /// - `padding`, true where there is no token: `[batch, tokens]`
    /// - returns: `[batch, projection]`
    ///
    /// # Panics
    /// When there are more tokens than the tower has positions for.
    pub fn embed_tokens(
        &self,
        tokens: Tensor<B, 2, Int>,
        padding: Tensor<B, 2, Bool>,
    ) -> Tensor<B, 2> {
        self.text_projection.forward(self.text().forward(tokens, padding).pooled())
    }
}

impl ClipConfig {
    /// What the image tower reads of a picture: resized, cut and normalised as
    /// [`ClipConfig::pictures`] says.
    ///
    /// # Shapes
    /// - returns: `[3, image_size, image_size]`
    ///
    /// # Errors
    /// [`Error::Media`] for a picture so long and narrow that its resized form has too many
    /// pixels, and for one of another size than the tower's where pictures are neither resized
    /// to it nor cut.
    pub fn pixels(&self, picture: &Picture) -> Result<Vec<f32>> {
        let ClipPictures { size, filter, crop, factor, mean, deviation } = &self.pictures;
        let resized = match *size {
            Some(PictureSize::Shorter(side)) => Some(picture.shorter_side(side, *filter)?),
            Some(PictureSize::Exact { height, width }) => {
                Some(picture.resized(width, height, *filter)?)
            }
            None => None,
        };
        let cut = match crop {
            Some([height, width]) => {
                Some(resized.as_ref().unwrap_or(picture).center_crop(*width, *height)?)
            }
            None => resized,
        };
        let made = cut.as_ref().unwrap_or(picture);
        let side = self.vision.image_size;
        if (made.width(), made.height()) != (side, side) {
            return Err(Error::media("a picture prepared for the image tower")
                .expected(format!("{side} x {side} pixels"))
                .found(format!("{} x {}", made.width(), made.height()))
                .fix("resize or cut pictures to that size: see ClipPictures"));
        }
        Ok(made.scaled(*factor, *mean, *deviation))
    }
}

impl<B: Backend> Clip<B> {
    /// Vectors of pictures in the common space, not normalised.
    ///
    /// # Shapes
    /// - returns: `[pictures, projection]`
    ///
    /// # Errors
    /// [`Error::Media`] without pictures, and as [`ClipConfig::pixels`].
    pub fn embed_pictures(
        &self,
        pictures: &[Picture],
        config: &ClipConfig,
        device: &B::Device,
    ) -> Result<Tensor<B, 2>> {
        if pictures.is_empty() {
            return Err(Error::media("pictures")
                .expected("at least one")
                .found("none")
                .fix("give some"));
        }
        let pixels: Vec<Vec<f32>> =
            pictures.par_iter().map(|picture| config.pixels(picture)).collect::<Result<_>>()?;
        Ok(self.embed_values(pixels.concat(), pictures.len(), config, device))
    }

    /// The same for a batch of pictures, whose pixels are concatenated.
    fn embed_values(
        &self,
        values: Vec<f32>,
        count: usize,
        config: &ClipConfig,
        device: &B::Device,
    ) -> Tensor<B, 2> {
        let size = config.vision.image_size;
        let data = TensorData::new(values, [count, 3, size, size]);
        self.embed_pixels(Tensor::from_data(data, device))
    }
}

/// CLIP's image tower as what turns pictures and videos into embeddings: unit vectors, of a
/// video the mean of its frames'.
#[derive(Debug, Clone)]
pub struct ClipExtractor<B: Backend> {
    clip: Clip<B>,
    config: ClipConfig,
    device: B::Device,
    name: String,
    frames: usize,
}

impl<B: Backend> ClipExtractor<B> {
    /// An extractor around loaded towers; `name` says which weights they are, `frames` how many
    /// of a video are looked at.
    pub fn new(
        clip: Clip<B>,
        config: ClipConfig,
        name: impl Into<String>,
        frames: usize,
        device: B::Device,
    ) -> Self {
        Self { clip, config, device, name: name.into(), frames }
    }

    /// What the tower reads of an item: of its picture, or of each frame.
    fn pixels(&self, root: &Path, item: &MediaItem) -> Result<Vec<Vec<f32>>> {
        let path = root.join(&item.path);
        let pictures = match item.modality {
            Modality::Image => {
                let limits = PictureLimits::default();
                vec![Picture::open_with(path, Transparency::Ignored, limits)?]
            }
            Modality::Video => open_frames(path, self.frames)?,
            Modality::Audio => {
                return Err(Error::media(item.id.as_str())
                    .expected("a picture or a video")
                    .found("a sound")
                    .fix("CLIP does not hear: use another extractor"));
            }
        };
        pictures.iter().map(|picture| self.config.pixels(picture)).collect()
    }
}

impl<B: Backend> Extractor for ClipExtractor<B> {
    fn name(&self) -> String {
        format!("CLIP 2 {}, {} frames", self.name, self.frames)
    }

    fn dim(&self, _: Modality) -> usize {
        self.config.projection
    }

    fn extract(&self, root: &Path, items: &[MediaItem]) -> Vec<Result<Vec<f32>>> {
        let videos = items.first().is_some_and(|item| item.modality == Modality::Video);
        let most = if videos { self.frames } else { 1 };
        embed_views(
            items,
            most,
            |item| self.pixels(root, item),
            |values, count| self.clip.embed_values(values, count, &self.config, &self.device),
        )
    }
}
