//! A built-in descriptor of sounds: loudness by pitch and time, nothing learned.

use std::{borrow::Cow, sync::LazyLock};

use cart_retrieval::Result;

use super::{MelBank, MelConfig, Sound};

/// Bands of the spectrogram.
const MELS: usize = 48;
/// Bands are joined in twos where they are described by time.
const COARSE: usize = MELS / 2;
/// Parts of the sound, one after the other.
const PARTS: usize = 8;
/// Rates of change of the loudness, in a spectrum over the whole sound.
const RHYTHMS: usize = 16;

/// Samples a second that [`sound_features`] works at.
pub(super) const SOUND_RATE: u32 = 16_000;

/// Width of what [`sound_features`] returns.
pub const SOUND_FEATURES: usize = 3 * MELS + PARTS * COARSE + RHYTHMS;

static BANK: LazyLock<MelBank> = LazyLock::new(|| {
    let config = MelConfig { mels: MELS, low: 40.0, ..MelConfig::kaldi(MELS) };
    MelBank::new(config).expect("settings that hold for all sounds")
});

/// Describes a sound by its log-mel spectrogram, whatever its rate and length.
///
/// Mean, deviation and mean change from frame to frame of each of 48 bands; means of 24 bands in 8
/// parts of the sound; and how much the loudness rises and falls 0.5 to 8 times a second. Levels
/// are measured from the loudest band downwards, in units of about 60 dB, so that the volume of a
/// recording hardly matters.
///
/// # Shapes
/// - returns: `[SOUND_FEATURES]`
///
/// # Errors
/// [`Error::Media`](cart_retrieval::Error::Media) when the sound cannot be resampled.
///
/// # Example
/// ```
/// use cart_media::{SOUND_FEATURES, Sound, sound_features};
/// let tone = Sound::new(16_000, (0..16_000).map(|i| (i as f32 * 0.2).sin()).collect())?;
/// assert_eq!(sound_features(&tone)?.len(), SOUND_FEATURES);
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
pub fn sound_features(sound: &Sound) -> Result<Vec<f32>> {
    let bank = &*BANK;
    let mut sound = sound.at_rate(bank.config().rate)?;
    if sound.samples().len() < bank.config().frame {
        let mut samples = sound.samples().to_vec();
        samples.resize(bank.config().frame, 0.0);
        sound = Cow::Owned(Sound::new(sound.rate(), samples)?);
    }
    let mel = bank.spectrogram(&sound)?;
    let frames = mel.frames();
    // From nepers of energy to steps of 60 dB below the loudest, the softer ones all alike.
    let loudest = mel.values().iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let level = |value: f32| ((value - loudest) / 13.8 + 1.0).max(0.0);
    let levels: Vec<f32> = mel.values().iter().map(|&value| level(value)).collect();
    let column = |band: usize| levels.iter().skip(band).step_by(MELS).copied();
    let count = frames as f32;
    let means: Vec<f32> = (0..MELS).map(|band| column(band).sum::<f32>() / count).collect();
    let mut features = means.clone();
    for (band, mean) in means.iter().enumerate() {
        let square: f32 = column(band).map(|level| (level - mean) * (level - mean)).sum();
        features.push((square / count).sqrt());
    }
    for band in 0..MELS {
        let change: f32 = column(band).zip(column(band).skip(1)).map(|(a, b)| (b - a).abs()).sum();
        features.push(4.0 * change / (count - 1.0).max(1.0));
    }
    for part in 0..PARTS {
        // At least a frame, even of sounds with fewer frames than parts.
        let from = (part * frames / PARTS).min(frames - 1);
        let to = ((part + 1) * frames / PARTS).clamp(from + 1, frames);
        for band in 0..COARSE {
            let of = |frame: usize| {
                levels[frame * MELS + 2 * band] + levels[frame * MELS + 2 * band + 1]
            };
            features.push((from..to).map(of).sum::<f32>() / (2 * (to - from)) as f32);
        }
    }
    let loudness: Vec<f32> =
        levels.chunks_exact(MELS).map(|frame| frame.iter().sum::<f32>() / MELS as f32).collect();
    let mean = loudness.iter().sum::<f32>() / count;
    let step = bank.config().hop as f32 / bank.config().rate as f32;
    for rhythm in 0..RHYTHMS {
        let hertz = 0.5 * (1 + rhythm) as f32;
        let (mut real, mut imaginary) = (0.0, 0.0);
        for (frame, level) in loudness.iter().enumerate() {
            let turn = std::f32::consts::TAU * hertz * step * frame as f32;
            real += (level - mean) * turn.cos();
            imaginary += (level - mean) * turn.sin();
        }
        features.push(4.0 * (real * real + imaginary * imaginary).sqrt() / count);
    }
    Ok(features)
}
