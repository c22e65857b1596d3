//! Shapes of pairs of towers, and how media are prepared for them.

use cart_media::Filter;
use cart_retrieval::expert::{Activation, BertConfig, ClipTextConfig};

use crate::{ClipVisionConfig, HtsatConfig};

/// How sounds are prepared for CLAP.
#[derive(Debug, Clone, PartialEq)]
pub struct ClapSounds {
    /// Samples a second.
    pub rate: usize,
    /// Length of a frame in samples.
    pub frame: usize,
    /// From one frame to the next, in samples.
    pub hop: usize,
    /// Length of what the tower hears at once, in seconds.
    pub seconds: usize,
    /// Lowest frequency in Hz.
    pub low: f64,
    /// Highest frequency in Hz.
    pub high: f64,
    /// What follows a sound that is shorter than the tower hears.
    pub padding: SoundPadding,
}

/// What follows a sound that is shorter than the tower hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SoundPadding {
    /// The sound again, as often as it fits as a whole, then silence.
    #[default]
    RepeatWhole,
    /// The sound again until the end, where it is cut.
    Repeat,
    /// Silence.
    Silence,
}

impl Default for ClapSounds {
    /// As of `laion/larger_clap_general`: ten seconds at 48 kHz, 50 Hz to 14 kHz.
    fn default() -> Self {
        Self {
            rate: 48_000,
            frame: 1024,
            hop: 480,
            seconds: 10,
            low: 50.0,
            high: 14_000.0,
            padding: SoundPadding::RepeatWhole,
        }
    }
}

/// Shape of both towers, and how sounds are prepared.
#[derive(Debug, Clone, PartialEq)]
pub struct ClapConfig {
    /// The sound tower.
    pub audio: HtsatConfig,
    /// The text tower, a RoBERTa.
    pub text: BertConfig,
    /// Width of the space that both are projected to.
    pub projection: usize,
    /// Activation between the two layers of the projections.
    pub activation: Activation,
    /// How sounds are prepared.
    pub sounds: ClapSounds,
}

/// Shape of both towers, and how pictures are prepared.
#[derive(Debug, Clone, PartialEq)]
pub struct ClipConfig {
    /// The image tower.
    pub vision: ClipVisionConfig,
    /// The text tower.
    pub text: ClipTextConfig,
    /// Width of the space that both are projected to.
    pub projection: usize,
    /// How pictures are prepared.
    pub pictures: ClipPictures,
}

/// How pictures are prepared for CLIP: resized, the middle cut out, 8-bit values multiplied and
/// normalised.
#[derive(Debug, Clone, PartialEq)]
pub struct ClipPictures {
    /// The size that pictures are resized to; `None` where they keep theirs.
    pub size: Option<PictureSize>,
    /// The filter that they are resized with.
    pub filter: Filter,
    /// Height and width of the middle that is cut out; `None` where nothing is cut.
    pub crop: Option<[usize; 2]>,
    /// Factor of the 8-bit values.
    pub factor: f64,
    /// Mean of red, green and blue after that.
    pub mean: [f32; 3],
    /// Their deviation.
    pub deviation: [f32; 3],
}

/// The size that a picture is resized to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PictureSize {
    /// That of the shorter side; the longer one in proportion.
    Shorter(usize),
    /// That of both sides, whatever the proportions of the picture.
    Exact {
        /// In pixels.
        height: usize,
        /// In pixels.
        width: usize,
    },
}

impl ClipPictures {
    /// The preparation of OpenAI's models for a tower that takes pictures of `side` x `side`.
    pub fn of_size(side: usize) -> Self {
        Self {
            size: Some(PictureSize::Shorter(side)),
            filter: Filter::Bicubic,
            crop: Some([side; 2]),
            factor: 1.0 / 255.0,
            mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
            deviation: [0.268_629_55, 0.261_302_6, 0.275_777_1],
        }
    }
}
