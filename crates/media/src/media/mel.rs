//! Log-mel spectrograms.

use std::sync::Arc;

use cart_retrieval::{Error, Result};
use realfft::{RealFftPlanner, RealToComplex};
use serde::{Deserialize, Serialize};

use super::Sound;

/// How frequencies are spread over mels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MelScale {
    /// 2595 log10(1 + f / 700), the same as Kaldi's 1127 ln(1 + f / 700).
    Htk,
    /// Linear below 1 kHz, logarithmic above, as of Slaney's Auditory Toolbox.
    Slaney,
}

/// What frames are multiplied with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SpectrumWindow {
    /// Hann's, one period of the frame's length.
    HannPeriodic,
    /// Hann's, zero at both ends of the frame.
    HannSymmetric,
}

/// What becomes of a band's energy.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogScale {
    /// Its natural logarithm, of this at least.
    Natural(f32),
    /// Ten times its decimal logarithm, of this at least.
    Decibel(f32),
}

/// Settings of a log-mel spectrogram.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MelConfig {
    /// Samples a second; sounds of another rate are resampled.
    pub rate: u32,
    /// Length of a frame in samples.
    pub frame: usize,
    /// From one frame to the next, in samples.
    pub hop: usize,
    /// Length of the Fourier transform, the frame's at least.
    pub fft: usize,
    /// Number of bands. Where they are narrower than the steps of the transform, some have no
    /// frequency in them and stay at the floor of the logarithm, as in Kaldi.
    pub mels: usize,
    /// Lowest frequency in Hz.
    pub low: f64,
    /// Highest frequency in Hz.
    pub high: f64,
    /// The scale that bands are even on.
    pub scale: MelScale,
    /// Whether bands are triangles on that scale instead of on frequencies.
    pub triangles_in_mels: bool,
    /// Whether every band has the same area instead of the same height.
    pub even_area: bool,
    /// The window.
    pub window: SpectrumWindow,
    /// Whether the first frame has its middle at the first sample, with the sound mirrored at its
    /// ends, instead of its beginning, with no frame over the end.
    pub centered: bool,
    /// Whether every frame's mean is taken from it.
    pub remove_mean: bool,
    /// Part of the sample before that is taken from every sample of a frame.
    pub pre_emphasis: f32,
    /// The logarithm.
    pub log: LogScale,
}

impl MelConfig {
    /// Kaldi's filter banks as ImageBind and the audio spectrogram transformer use them: 16 kHz,
    /// frames of 25 ms every 10 ms.
    pub fn kaldi(mels: usize) -> Self {
        Self {
            rate: 16_000,
            frame: 400,
            hop: 160,
            fft: 512,
            mels,
            low: 20.0,
            high: 8_000.0,
            scale: MelScale::Htk,
            triangles_in_mels: true,
            even_area: false,
            window: SpectrumWindow::HannSymmetric,
            centered: false,
            remove_mean: true,
            pre_emphasis: 0.97,
            log: LogScale::Natural(f32::EPSILON),
        }
    }

    /// That of CLAP (LAION, the models without fusion): 48 kHz, 64 bands from 50 Hz to 14 kHz,
    /// decibels.
    pub fn clap() -> Self {
        Self {
            rate: 48_000,
            frame: 1024,
            hop: 480,
            fft: 1024,
            mels: 64,
            low: 50.0,
            high: 14_000.0,
            scale: MelScale::Slaney,
            triangles_in_mels: false,
            even_area: true,
            window: SpectrumWindow::HannPeriodic,
            centered: true,
            remove_mean: false,
            pre_emphasis: 0.0,
            log: LogScale::Decibel(1e-10),
        }
    }
}

/// A log-mel spectrogram.
#[derive(Debug, Clone, PartialEq)]
pub struct MelSpectrogram {
    mels: usize,
    values: Vec<f32>,
}

impl MelSpectrogram {
    /// Number of bands.
    pub fn mels(&self) -> usize {
        self.mels
    }

    /// Number of frames.
    pub fn frames(&self) -> usize {
        self.values.len() / self.mels
    }

    /// The values, `[frames, mels]`.
    pub fn values(&self) -> &[f32] {
        &self.values
    }
}

/// Makes log-mel spectrograms of sounds; the same one may serve many threads.
///
/// # Example
/// ```
/// use cart_media::{MelBank, MelConfig, Sound};
/// let bank = MelBank::new(MelConfig::kaldi(128))?;
/// let tone = Sound::new(16_000, (0..16_000).map(|i| (i as f32 * 0.4).sin()).collect())?;
/// let mel = bank.spectrogram(&tone)?;
/// assert_eq!((mel.frames(), mel.mels()), (98, 128));
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
#[derive(Clone)]
pub struct MelBank {
    config: MelConfig,
    window: Vec<f32>,
    /// Per band: the first frequency that it takes, and the weights from there on.
    bands: Vec<(usize, Vec<f32>)>,
    fft: Arc<dyn RealToComplex<f32>>,
}

impl std::fmt::Debug for MelBank {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MelBank").field("config", &self.config).finish_non_exhaustive()
    }
}

impl MelBank {
    /// A bank of filters.
    ///
    /// # Errors
    /// [`Error::Config`] for lengths of zero or in the wrong order, and for frequencies out of
    /// order or above half of the rate.
    pub fn new(config: MelConfig) -> Result<Self> {
        let wrong = |name: &str, expected: String, found: String, remedy: &str| {
            Err(Error::config(name).expected(expected).found(found).fix(remedy))
        };
        let MelConfig { rate, frame, hop, fft, mels, low, high, .. } = config;
        if frame < 2 || hop == 0 || mels == 0 || fft < frame || fft > 1 << 20 {
            return wrong(
                "mel spectrogram",
                "a frame of at least 2, a hop and bands of at least 1, a transform between the frame and 2^20"
                    .into(),
                format!("frame {frame}, hop {hop}, {mels} bands, transform {fft}"),
                "start from a preset of MelConfig",
            );
        }
        let nyquist = f64::from(rate) / 2.0;
        if !(low >= 0.0 && low < high && high <= nyquist) {
            return wrong(
                "frequencies of the mel spectrogram",
                format!("two increasing frequencies between 0 and {nyquist} Hz"),
                format!("{low} and {high}"),
                "choose others, or another rate",
            );
        }
        let window = window(config.window, frame);
        let bands = bands(&config);
        Ok(Self { config, window, bands, fft: RealFftPlanner::new().plan_fft_forward(fft) })
    }

    /// The settings.
    pub fn config(&self) -> &MelConfig {
        &self.config
    }

    /// The spectrogram of a sound.
    ///
    /// # Errors
    /// [`Error::Media`] for a sound that is shorter than a frame, unless frames are centred.
    pub fn spectrogram(&self, sound: &Sound) -> Result<MelSpectrogram> {
        let MelConfig { frame, hop, fft, mels, centered, .. } = self.config;
        let sound = sound.at_rate(self.config.rate)?;
        let samples = sound.samples();
        let pad = if centered { frame / 2 } else { 0 };
        let length = samples.len() + 2 * pad;
        if length < frame {
            return Err(Error::media("sound for a spectrogram")
                .expected(format!("at least {frame} samples at {} a second", self.config.rate))
                .found(samples.len().to_string())
                .fix("leave it out, or add silence"));
        }
        let frames = 1 + (length - frame) / hop;
        let mut values = Vec::with_capacity(frames * mels);
        let mut buffer = vec![0.0f32; fft];
        let mut spectrum = self.fft.make_output_vec();
        let mut scratch = self.fft.make_scratch_vec();
        let mut power = vec![0.0f32; spectrum.len()];
        for number in 0..frames {
            for (at, slot) in buffer[..frame].iter_mut().enumerate() {
                *slot = samples[mirrored((number * hop + at) as i64 - pad as i64, samples.len())];
            }
            buffer[frame..].fill(0.0);
            self.prepare(&mut buffer[..frame]);
            // Fails only for lengths other than the plan's.
            let done = self.fft.process_with_scratch(&mut buffer, &mut spectrum, &mut scratch);
            debug_assert!(done.is_ok());
            for (power, bin) in power.iter_mut().zip(&spectrum) {
                *power = bin.norm_sqr();
            }
            values.extend(self.bands.iter().map(|(first, weights)| {
                let energy: f32 =
                    power[*first..].iter().zip(weights).map(|(power, weight)| power * weight).sum();
                match self.config.log {
                    LogScale::Natural(floor) => energy.max(floor).ln(),
                    LogScale::Decibel(floor) => 10.0 * energy.max(floor).log10(),
                }
            }));
        }
        Ok(MelSpectrogram { mels, values })
    }

    /// What is done to a frame before it is transformed.
    fn prepare(&self, frame: &mut [f32]) {
        if self.config.remove_mean {
            let sum: f64 = frame.iter().map(|&sample| f64::from(sample)).sum();
            let mean = (sum / frame.len() as f64) as f32;
            frame.iter_mut().for_each(|sample| *sample -= mean);
        }
        let part = self.config.pre_emphasis;
        if part != 0.0 {
            for at in (1..frame.len()).rev() {
                frame[at] -= part * frame[at - 1];
            }
            frame[0] -= part * frame[0];
        }
        frame.iter_mut().zip(&self.window).for_each(|(sample, weight)| *sample *= weight);
    }
}

/// The sample at a place, where a sound goes on mirrored at its ends, which are not repeated.
fn mirrored(at: i64, length: usize) -> usize {
    let last = length as i64 - 1;
    if (0..=last).contains(&at) {
        return at as usize;
    }
    if last == 0 {
        return 0;
    }
    let folded = at.rem_euclid(2 * last);
    (if folded > last { 2 * last - folded } else { folded }) as usize
}

fn window(kind: SpectrumWindow, length: usize) -> Vec<f32> {
    let period = match kind {
        SpectrumWindow::HannPeriodic => length,
        SpectrumWindow::HannSymmetric => length - 1,
    };
    let weight = |at| 0.5 - 0.5 * (std::f64::consts::TAU * at as f64 / period as f64).cos();
    (0..length).map(|at| weight(at) as f32).collect()
}

/// Triangles over the frequencies of the transform.
fn bands(config: &MelConfig) -> Vec<(usize, Vec<f32>)> {
    let scale = config.scale;
    let (low, high) = (scale.mels(config.low), scale.mels(config.high));
    let corner = |at: usize| low + (high - low) * at as f64 / (config.mels + 1) as f64;
    let corners: Vec<f64> = (0..config.mels + 2).map(corner).collect();
    let place = |mels: f64| if config.triangles_in_mels { mels } else { scale.hertz(mels) };
    let bin = |at: usize| at as f64 * f64::from(config.rate) / config.fft as f64;
    let bins: Vec<f64> = (0..=config.fft / 2)
        .map(|at| if config.triangles_in_mels { scale.mels(bin(at)) } else { bin(at) })
        .collect();
    let band = |number: usize| {
        let [left, middle, right] = [0, 1, 2].map(|step| place(corners[number + step]));
        let height = match config.even_area {
            true => 2.0 / (scale.hertz(corners[number + 2]) - scale.hertz(corners[number])),
            false => 1.0,
        };
        let weight = |at: f64| {
            let rising = (at - left) / (middle - left);
            let falling = (right - at) / (right - middle);
            height * rising.min(falling).max(0.0)
        };
        let first = bins.iter().position(|&at| weight(at) > 0.0).unwrap_or(0);
        let weights = bins[first..].iter().map(|&at| weight(at) as f32);
        (first, weights.take_while(|&weight| weight > 0.0).collect())
    };
    (0..config.mels).map(band).collect()
}

impl MelScale {
    fn mels(self, hertz: f64) -> f64 {
        match self {
            Self::Htk => 1127.0 * (1.0 + hertz / 700.0).ln(),
            Self::Slaney if hertz < KNEE => hertz / STEP,
            Self::Slaney => KNEE / STEP + (hertz / KNEE).ln() / octave(),
        }
    }

    fn hertz(self, mels: f64) -> f64 {
        match self {
            Self::Htk => 700.0 * ((mels / 1127.0).exp() - 1.0),
            Self::Slaney if mels < KNEE / STEP => mels * STEP,
            Self::Slaney => KNEE * ((mels - KNEE / STEP) * octave()).exp(),
        }
    }
}

/// Where Slaney's scale turns from linear to logarithmic, in Hz.
const KNEE: f64 = 1000.0;
/// Hz of a mel below.
const STEP: f64 = 200.0 / 3.0;

/// Logarithm of the ratio between frequencies a mel apart, above.
fn octave() -> f64 {
    6.4f64.ln() / 27.0
}
