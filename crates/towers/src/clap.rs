//! CLAP: its two towers from a folder in the layout of Hugging Face.

use std::path::{Path, PathBuf};

use burn::{
    module::Module,
    nn::Linear,
    tensor::{Bool, Int, Tensor, TensorData, backend::Backend},
};
use cart_media::{Extractor, MediaItem, MelBank, MelConfig, Modality, Sound};
use cart_retrieval::{
    Error, Result,
    expert::{Activation, BertEncoder, WeightInit},
    members::{Weights, count, ensure_held, fill, unit},
    nn::TextEncoder,
    pretrained::LoadReport,
};

use super::{
    config::{ClapConfig, SoundPadding},
    names,
    networks::HtsatEncoder,
    settings,
    views::{embed_views, stretches},
};

/// Two linear layers into the common space.
#[derive(Module, Debug)]
struct Projection<B: Backend> {
    inner: Linear<B>,
    outer: Linear<B>,
    #[module(skip)]
    activation: Activation,
}

impl<B: Backend> Projection<B> {
    /// Unit vectors.
    fn forward(&self, pooled: Tensor<B, 2>) -> Tensor<B, 2> {
        let hidden = self.activation.forward(self.inner.forward(pooled).unsqueeze::<3>());
        unit(self.outer.forward(hidden).squeeze_dim::<2>(0))
    }
}

/// CLAP's two towers and their projections into one space (Wu et al. 2023, arXiv 2211.06687),
/// without feature fusion.
#[derive(Module, Debug)]
pub struct Clap<B: Backend> {
    audio: HtsatEncoder<B>,
    text: BertEncoder<B>,
    pooler: Linear<B>,
    audio_projection: Projection<B>,
    text_projection: Projection<B>,
}

/// A CLAP in a folder; not loaded yet.
///
/// The folder has `config.json` of `model_type` `clap` and `model.safetensors` (or an index and its
/// files); how sounds are prepared is taken from `processor_config.json` or
/// `preprocessor_config.json`, otherwise it is as for `laion/larger_clap_general`. Settings are
/// followed or refused, see `docs/encoders.md`; feature fusion is refused.
///
/// # Example
/// ```no_run
/// use burn::backend::Flex;
/// use cart_towers::PretrainedClap;
/// let pretrained = PretrainedClap::open("larger_clap_general")?;
/// let (clap, report) = pretrained.load::<Flex>(&Default::default())?;
/// println!("{report}");
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct PretrainedClap {
    folder: PathBuf,
    config: ClapConfig,
}

impl PretrainedClap {
    /// Reads the settings of a folder.
    ///
    /// # Errors
    /// [`Error::Io`] when `config.json` is missing;
    /// [`Error::Model`] for a model of another family, or settings that are
    /// not understood; [`Error::Config`] for sizes that do not fit each other.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        Ok(Self { folder: folder.to_path_buf(), config: settings::clap_pair(folder)? })
    }

    /// Shape of the towers.
    pub fn config(&self) -> &ClapConfig {
        &self.config
    }

    /// Loads the weights.
    ///
    /// # Errors
    /// [`Error::Model`] naming a tensor that is missing or misshapen, or a
    /// file that is damaged; [`Error::Io`] for one that is missing.
    pub fn load<B: Backend>(&self, device: &B::Device) -> Result<(Clap<B>, LoadReport)> {
        let weights = Weights::open(&self.folder)?;
        let ClapConfig { audio, text, projection, .. } = &self.config;
        // The last stage is the widest.
        let sizes = (audio, audio.d_output(), text, projection);
        ensure_held("CLAP", &sizes, || self.config.num_params(), weights.bytes())?;
        let mut clap = self.config.init::<B>(&mut WeightInit::zeros(), device);
        let report = fill(&mut clap, &names::clap(), weights)?;
        Ok((clap, report))
    }
}

impl ClapConfig {
    /// Initialises both towers.
    pub fn init<B: Backend>(&self, init: &mut WeightInit, device: &B::Device) -> Clap<B> {
        let width = self.projection;
        let projection = |from: usize, init: &mut WeightInit| Projection {
            inner: init.linear(from, width, device),
            outer: init.linear(width, width, device),
            activation: self.activation,
        };
        Clap {
            audio: self.audio.init(init, device),
            text: self.text.init(init, device),
            pooler: init.linear(self.text.d_model, self.text.d_model, device),
            audio_projection: projection(self.audio.d_output(), init),
            text_projection: projection(self.text.d_model, init),
        }
    }

    /// Number of parameters.
    pub fn num_params(&self) -> usize {
        let Self { audio, text, projection, .. } = self;
        let (d, p) = (text.d_model, *projection);
        let projections = count(&[&[audio.d_output(), p], &[d, p], &[2, p, p], &[4, p]]);
        count(&[&[audio.num_params()], &[text.num_params()], &[d, d], &[d], &[projections]])
    }
}

impl<B: Backend> Clap<B> {
    /// The sound tower.
    pub fn audio(&self) -> &HtsatEncoder<B> {
        &self.audio
    }

    /// The text tower, every layer handed out.
    pub fn text(&self) -> TextEncoder<B> {
        TextEncoder::Bert(self.text.clone())
    }

    /// Unit vectors of sounds in the common space.
    ///
    /// # Shapes
    /// - `mel`, log-mel spectrograms: `[batch, frames, mels]`
    /// - returns: `[batch, projection]`
    ///
    /// # Panics
    /// When a spectrogram is longer than the tower takes.
    pub fn embed_mel(&self, mel: Tensor<B, 3>) -> Tensor<B, 2> {
        self.audio_projection.forward(self.audio.forward(mel))
    }

    /// Unit vectors of texts in the common space.
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
        let first = self.text().forward(tokens, padding).pooled();
        self.text_projection.forward(self.pooler.forward(first).tanh())
    }
}

impl ClapConfig {
    /// The log-mel spectrograms that the tower hears.
    ///
    /// # Errors
    /// [`Error::Config`] for frequencies or lengths that make none.
    pub fn mel_bank(&self) -> Result<MelBank> {
        let sounds = &self.sounds;
        let rate = u32::try_from(sounds.rate).unwrap_or(u32::MAX);
        MelBank::new(MelConfig {
            rate,
            frame: sounds.frame,
            fft: sounds.frame,
            hop: sounds.hop,
            mels: self.audio.mels,
            low: sounds.low,
            high: sounds.high,
            ..MelConfig::clap()
        })
    }

    /// What the tower hears of a sound: one stretch if it is no longer than that, followed by
    /// what [`SoundPadding`] says; of a longer one, at most `most` stretches evenly over it
    /// (the reference takes one at random).
    ///
    /// # Shapes
    /// - returns: `[frames, mels]` each
    ///
    /// # Errors
    /// [`Error::Media`] for a sound that cannot be resampled.
    pub fn spectrograms(
        &self,
        bank: &MelBank,
        sound: &Sound,
        most: usize,
    ) -> Result<Vec<Vec<f32>>> {
        let sound = sound.resampled(bank.config().rate)?;
        let (samples, rate) = (sound.samples(), bank.config().rate);
        let length = self.sounds.rate * self.sounds.seconds;
        let seconds = self.sounds.seconds as f64;
        let count = (sound.seconds() / seconds).ceil() as usize;
        stretches(sound.seconds(), seconds, count.clamp(1, most.max(1)))
            .into_iter()
            .map(|start| {
                let start = (start * self.sounds.rate as f64).round() as usize;
                let start = start.min(samples.len().saturating_sub(length));
                let heard = &samples[start..samples.len().min(start + length)];
                let times = match self.sounds.padding {
                    SoundPadding::RepeatWhole => length / heard.len(),
                    SoundPadding::Repeat => length.div_ceil(heard.len()),
                    SoundPadding::Silence => 1,
                };
                let mut heard = heard.repeat(times.max(1));
                heard.resize(length, 0.0);
                Ok(bank.spectrogram(&Sound::new(rate, heard)?)?.values().to_vec())
            })
            .collect()
    }
}

/// CLAP's sound tower as what turns sounds into embeddings: unit vectors, of a long sound the
/// mean of those of several stretches.
#[derive(Debug, Clone)]
pub struct ClapExtractor<B: Backend> {
    clap: Clap<B>,
    config: ClapConfig,
    bank: MelBank,
    device: B::Device,
    name: String,
    stretches: usize,
}

impl<B: Backend> ClapExtractor<B> {
    /// An extractor around loaded towers; `name` says which weights they are, `stretches` how
    /// many of a long sound are heard at most.
    ///
    /// # Errors
    /// As [`ClapConfig::mel_bank`].
    pub fn new(
        clap: Clap<B>,
        config: ClapConfig,
        name: impl Into<String>,
        stretches: usize,
        device: B::Device,
    ) -> Result<Self> {
        let bank = config.mel_bank()?;
        Ok(Self { clap, config, bank, device, name: name.into(), stretches })
    }

    fn heard(&self, root: &Path, item: &MediaItem) -> Result<Vec<Vec<f32>>> {
        if item.modality != Modality::Audio {
            return Err(Error::media(item.id.as_str())
                .expected("a sound")
                .found(item.modality.to_string())
                .fix("CLAP only hears: use another extractor"));
        }
        let sound = Sound::of_item(root, item, self.bank.config().rate)?;
        self.config.spectrograms(&self.bank, &sound, self.stretches)
    }
}

impl<B: Backend> Extractor for ClapExtractor<B> {
    fn name(&self) -> String {
        format!("CLAP 2 {}, {} stretches", self.name, self.stretches)
    }

    fn dim(&self, _: Modality) -> usize {
        self.config.projection
    }

    fn extract(&self, root: &Path, items: &[MediaItem]) -> Vec<Result<Vec<f32>>> {
        let mels = self.config.audio.mels;
        embed_views(
            items,
            self.stretches,
            |item| self.heard(root, item),
            |values, count| {
                let frames = values.len() / count / mels;
                let data = TensorData::new(values, [count, frames, mels]);
                self.clap.embed_mel(Tensor::from_data(data, &self.device))
            },
        )
    }
}
