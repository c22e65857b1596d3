//! One channel at one rate from the packets of a sound.

use cart_retrieval::{Error, Result};

use super::{Sound, resample::Resampler, sound::check_rate};

/// The part of the channels' mean energy below which their mean counts as cancelled out: -40 dB.
const CANCELLED: f64 = 1e-4;

/// All samples of silence lie within this: one step of 16 bits.
const SILENCE: f32 = 1.0 / 32_768.0;

/// The error about a file that is damaged.
pub(super) fn broken(name: &str, found: impl Into<String>) -> Error {
    Error::media(name)
        .expected("a complete WAV, FLAC, MP3, Ogg Vorbis, M4A, AIFF or CAF file")
        .found(found.into())
        .fix("download it again, convert it, or leave it out")
}

/// What is wanted of a sound.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    /// Seconds from the start.
    pub from: f64,
    pub to: f64,
    /// Samples a second; none for those of the file.
    pub rate: Option<u32>,
    /// Whether silence is refused.
    pub audible: bool,
}

/// A sound while it is decoded: samples are mixed and resampled as they arrive.
pub(super) struct Mix {
    name: String,
    part: Part,
    /// The channel to take; none for the mean of all.
    channel: Option<usize>,
    /// The file's rate; 0 before its first packet.
    rate: u32,
    /// Frames of the file so far, and of them those in the part.
    frames: u64,
    taken: u64,
    resampler: Option<Resampler>,
    mixed: Vec<f32>,
    samples: Vec<f32>,
    /// The lowest and the highest sample before resampling.
    range: (f32, f32),
    /// Energy of the mean, and of each channel.
    energy: f64,
    energies: Vec<f64>,
}

impl Mix {
    pub fn new(name: &str, part: Part, channel: Option<usize>) -> Self {
        Self {
            name: name.to_string(),
            part,
            channel,
            rate: 0,
            frames: 0,
            taken: 0,
            resampler: None,
            mixed: Vec::new(),
            samples: Vec::new(),
            range: (f32::MAX, f32::MIN),
            energy: 0.0,
            energies: Vec::new(),
        }
    }

    /// Frames of the file so far.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Whether the part has been decoded to its end.
    pub fn is_complete(&self) -> bool {
        self.rate != 0 && self.frames >= self.at(self.part.to)
    }

    fn at(&self, seconds: f64) -> u64 {
        (seconds * f64::from(self.rate)).round() as u64
    }

    /// Takes the frames of a packet.
    pub fn add(&mut self, interleaved: &[f32], channels: usize, rate: u32) -> Result<()> {
        if self.rate == 0 {
            check_rate(&self.name, rate)?;
            self.rate = rate;
            let wanted = self.part.rate.filter(|&wanted| wanted != rate);
            self.resampler = wanted.map(|wanted| Resampler::new(rate, wanted));
        } else if rate != self.rate {
            let found = format!("{rate} samples a second after {}", self.rate);
            return Err(broken(&self.name, found));
        }
        let channels = channels.max(1);
        let count = (interleaved.len() / channels) as u64;
        let within = |at: u64| at.clamp(self.frames, self.frames + count) - self.frames;
        let (begin, end) = (within(self.at(self.part.from)), within(self.at(self.part.to)));
        self.frames += count;
        self.taken += end - begin;
        if self.taken as f64 > Sound::LONGEST * f64::from(rate) {
            return Err(Error::media(self.name.as_str())
                .expected(format!("at most {} seconds", Sound::LONGEST))
                .found("a longer sound")
                .fix("cut it, or read a part of it"));
        }
        self.mixed.clear();
        self.energies.resize(self.energies.len().max(channels), 0.0);
        let part = &interleaved[begin as usize * channels..end as usize * channels];
        for frame in part.chunks_exact(channels) {
            let mean = frame.iter().sum::<f32>() / channels as f32;
            if channels > 1 {
                self.energy += f64::from(mean) * f64::from(mean);
                for (energy, &sample) in self.energies.iter_mut().zip(frame) {
                    *energy += f64::from(sample) * f64::from(sample);
                }
            }
            let chosen = self.channel.and_then(|channel| frame.get(channel).copied());
            let sample = chosen.unwrap_or(mean);
            self.range = (self.range.0.min(sample), self.range.1.max(sample));
            self.mixed.push(sample);
        }
        match &mut self.resampler {
            Some(resampler) => resampler.push(&self.mixed, &mut self.samples),
            None => self.samples.extend_from_slice(&self.mixed),
        }
        Ok(())
    }

    /// The channel with the most energy, where the mean of the channels has lost theirs.
    pub fn loudest_if_cancelled(&self) -> Option<usize> {
        let sum: f64 = self.energies.iter().sum();
        let cancelled = self.energy < CANCELLED * sum / self.energies.len().max(1) as f64;
        let louder = |&a: &usize, &b: &usize| {
            // Of equally loud ones the first.
            self.energies[a].total_cmp(&self.energies[b]).then(b.cmp(&a))
        };
        (0..self.energies.len()).max_by(louder).filter(|_| cancelled)
    }

    /// The sound.
    pub fn finish(mut self) -> Result<Sound> {
        if self.taken == 0 && self.frames > 0 {
            return Err(Error::media(self.name.as_str())
                .expected(format!("a sound of more than {} seconds", self.part.from))
                .found(format!("{:.3} seconds", self.frames as f64 / f64::from(self.rate)))
                .fix("choose another part"));
        }
        if self.taken == 0 {
            return Err(broken(&self.name, "no samples"));
        }
        if self.part.audible && self.range.1 - self.range.0 <= SILENCE {
            return Err(Error::media(self.name)
                .expected("an audible sound")
                .found(format!(
                    "{:.1} seconds of silence",
                    self.taken as f64 / f64::from(self.rate)
                ))
                .fix("leave it out, or record it again"));
        }
        let rate = match self.resampler.take() {
            Some(resampler) => {
                resampler.finish(&mut self.samples);
                self.part.rate.unwrap_or(self.rate)
            }
            None => self.rate,
        };
        Sound::new(rate, self.samples).map_err(|e| match e {
            Error::Media(problem) => Error::media(self.name)
                .expected(problem.expected)
                .found(problem.found)
                .fix(problem.remedy),
            other => other,
        })
    }
}
