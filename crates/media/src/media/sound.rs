//! Sounds in memory: samples, resampling, WAV files of them.

use std::borrow::Cow;

use cart_retrieval::{Error, Result};

use super::resample::resample;

/// One channel of sound.
///
/// # Example
/// ```
/// use cart_media::Sound;
/// let tone = Sound::new(8000, (0..8000).map(|i| (i as f32 * 0.345).sin()).collect())?;
/// assert_eq!(tone.seconds(), 1.0);
/// assert_eq!(tone.resampled(16000)?.samples().len(), 16000);
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Sound {
    rate: u32,
    samples: Vec<f32>,
}

/// Rates in samples a second that are read.
const RATES: std::ops::RangeInclusive<u32> = 1_000..=768_000;

/// Checks a rate.
pub(super) fn check_rate(name: &str, rate: u32) -> Result<()> {
    if RATES.contains(&rate) {
        return Ok(());
    }
    Err(Error::media(name)
        .expected(format!("{} to {} samples a second", RATES.start(), RATES.end()))
        .found(format!("a rate of {rate}"))
        .fix("convert the sound to a usual rate, such as 16000"))
}

impl Sound {
    /// A sound from its samples, usually between -1 and 1.
    ///
    /// # Errors
    /// [`Error::Media`] for no samples, a sample that is not finite, or a rate outside of 1 to 768
    /// kHz.
    pub fn new(rate: u32, samples: Vec<f32>) -> Result<Self> {
        check_rate("rate of a sound", rate)?;
        match samples.iter().position(|sample| !sample.is_finite()) {
            _ if samples.is_empty() => Err(Error::media("sound")
                .expected("at least one sample")
                .found("none")
                .fix("leave it out: it is empty")),
            Some(at) => Err(Error::media("sound")
                .expected("finite samples")
                .found(format!("{} at {at}", samples[at]))
                .fix("decode it again, or leave it out")),
            None => Ok(Self { rate, samples }),
        }
    }

    /// Samples a second.
    pub fn rate(&self) -> u32 {
        self.rate
    }

    /// The samples.
    pub fn samples(&self) -> &[f32] {
        &self.samples
    }

    /// Length in seconds.
    pub fn seconds(&self) -> f64 {
        self.samples.len() as f64 / f64::from(self.rate)
    }

    /// The sound at another rate, as long as before: band-limited interpolation with a window of
    /// Hann over six lobes and a cutoff of 0.99 of what both rates can hold (the defaults of
    /// torchaudio's `resample`).
    ///
    /// # Errors
    /// [`Error::Media`] for a rate outside of 1 to 768 kHz.
    pub fn resampled(&self, rate: u32) -> Result<Self> {
        Ok(self.at_rate(rate)?.into_owned())
    }

    /// The same, without a copy where the rate is the own one.
    pub(super) fn at_rate(&self, rate: u32) -> Result<Cow<'_, Self>> {
        if rate == self.rate {
            return Ok(Cow::Borrowed(self));
        }
        check_rate("rate of a sound", rate)?;
        Self::new(rate, resample(&self.samples, self.rate, rate)).map(Cow::Owned)
    }

    /// The sound as a WAV file: one channel of 16-bit PCM, samples beyond -1 and 1 cut off.
    ///
    /// [`Sound::open`](crate::media::Sound::open) reads it back with samples that differ by at most
    /// 1 / 32,768 (half a step of rounding, and as much for 1, which 16 bits do not have).
    ///
    /// # Errors
    /// [`Error::Media`] for more samples than the format's 32-bit sizes can count.
    ///
    /// # Example
    /// ```
    /// use cart_media::Sound;
    /// let tone = Sound::new(8000, vec![0.0, 0.5, -1.0])?;
    /// let wav = tone.to_wav()?;
    /// assert_eq!(&wav[..4], b"RIFF");
    /// assert_eq!(wav[44..], [0, 0, 0, 64, 0, 128]);
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn to_wav(&self) -> Result<Vec<u8>> {
        let bytes = u32::try_from(self.samples.len() * 2).ok().filter(|&n| n <= u32::MAX - 36);
        let Some(bytes) = bytes else {
            return Err(Error::media("WAV")
                .expected("a sound of fewer than 2^31 samples")
                .found(self.samples.len().to_string())
                .fix("cut it into parts"));
        };
        let mut wav = Vec::with_capacity(44 + bytes as usize);
        wav.extend(b"RIFF");
        wav.extend((36 + bytes).to_le_bytes());
        wav.extend(b"WAVEfmt ");
        wav.extend(16u32.to_le_bytes());
        // PCM, one channel; rate; bytes a second and a frame; bits.
        wav.extend(1u16.to_le_bytes());
        wav.extend(1u16.to_le_bytes());
        wav.extend(self.rate.to_le_bytes());
        wav.extend((2 * self.rate).to_le_bytes());
        wav.extend(2u16.to_le_bytes());
        wav.extend(16u16.to_le_bytes());
        wav.extend(b"data");
        wav.extend(bytes.to_le_bytes());
        for &sample in &self.samples {
            let step = (sample * 32_768.0).round().clamp(-32_768.0, 32_767.0);
            wav.extend((step as i16).to_le_bytes());
        }
        Ok(wav)
    }
}
