//! ImageBind: its towers for pictures and videos, texts and sounds, from the published file of
//! weights.

use std::path::{Path, PathBuf};

use burn::tensor::{Tensor, TensorData, backend::Backend};
use cart_media::{
    Extractor, Filter, MediaItem, MelBank, MelConfig, Modality, Picture, PictureLimits, Sound,
    Transparency, open_frames,
};
use cart_retrieval::{
    Result,
    expert::WeightInit,
    members::{Weights, ensure_held, fill},
    pretrained::LoadReport,
};

use super::{
    names,
    networks::{IMAGE_BIND_FRAMES as FRAMES, ImageBind, ImageBindConfig},
    views::{embed_views, stretches},
};

/// Name of the published file.
const PUBLISHED: &str = "imagebind_huge.pth";

/// An ImageBind in a file; not loaded yet.
///
/// The published `imagebind_huge.pth` is read with the feature `pth`; the same tensors in a file of
/// safetensors always. The towers for depth, heat and motion are left in the file, and named in the
/// report as not used. The published weights are licensed CC BY-NC-SA 4.0.
///
/// # Example
/// ```no_run
/// use burn::backend::Flex;
/// use cart_towers::{ImageBindConfig, PretrainedImageBind};
/// let pretrained = PretrainedImageBind::open("imagebind_huge.pth", ImageBindConfig::huge())?;
/// let (towers, report) = pretrained.load::<Flex>(&Default::default())?;
/// println!("{report}");
/// # Ok::<(), cart_retrieval::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct PretrainedImageBind {
    path: PathBuf,
    config: ImageBindConfig,
}

impl PretrainedImageBind {
    /// Takes note of a file, or of a folder with `imagebind_huge.pth` or `model.safetensors`.
    ///
    /// # Errors
    /// [`Error::Config`](cart_retrieval::Error::Config) for sizes that do not fit each other.
    pub fn open(path: impl AsRef<Path>, config: ImageBindConfig) -> Result<Self> {
        config.validate()?;
        Ok(Self { path: path.as_ref().to_path_buf(), config })
    }

    /// Shape of the towers.
    pub fn config(&self) -> &ImageBindConfig {
        &self.config
    }

    /// Loads the weights, one tensor after the other.
    ///
    /// # Errors
    /// [`Error::Model`](cart_retrieval::Error::Model) naming a tensor that is missing or misshapen,
    /// or a file that is damaged or in the format of PyTorch where the feature `pth` is off;
    /// [`Error::Io`](cart_retrieval::Error::Io) for one that is missing.
    pub fn load<B: Backend>(&self, device: &B::Device) -> Result<(ImageBind<B>, LoadReport)> {
        let published = self.path.join(PUBLISHED);
        let weights = match self.path.is_dir() {
            true if published.exists() => Weights::open_file(&published)?,
            true => Weights::open(&self.path)?,
            false => Weights::open_file(&self.path)?,
        };
        let parameters = || self.config.num_params();
        ensure_held("ImageBind", &self.config, parameters, weights.bytes())?;
        let mut towers = self.config.init::<B>(&mut WeightInit::zeros(), device);
        let report = fill(&mut towers, &names::image_bind(), weights)?;
        Ok((towers, report))
    }
}

/// Mean and deviation of red, green and blue: those of CLIP.
const MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
const DEVIATION: [f32; 3] = [0.268_629_55, 0.261_302_6, 0.275_777_1];
/// Mean and deviation of a spectrogram's numbers.
const LOUDNESS: (f32, f32) = (-4.268, 9.138);
/// Length of what is heard at once, in seconds.
const HEARD: f64 = 2.0;
/// Stretches of a sound, and clips of a video.
const STRETCHES: usize = 3;
const CLIPS: usize = 5;
/// Cut-outs of a frame along its longer side.
const CROPS: usize = 3;

impl ImageBindConfig {
    /// What the tower sees of a picture: the shorter side resized with the cubic filter, the
    /// middle cut out, colours normalised.
    ///
    /// # Shapes
    /// - returns: `[3, image_size, image_size]`
    ///
    /// # Errors
    /// [`Error::Media`](cart_retrieval::Error::Media) for a picture so long and narrow that its
    /// resized form has too many pixels.
    pub fn pixels(&self, picture: &Picture) -> Result<Vec<f32>> {
        let size = self.vision.image_size;
        let cut = picture.shorter_side(size, Filter::Bicubic)?.center_crop(size, size)?;
        Ok(cut.normalised(MEAN, DEVIATION))
    }

    /// What the tower sees of a video: of its frames, taken evenly, each two in a row as a
    /// clip, at the beginning, in the middle and at the end of the longer side.
    ///
    /// # Shapes
    /// - returns: `[3, 2, image_size, image_size]` each
    ///
    /// # Errors
    /// As [`ImageBindConfig::pixels`].
    pub fn clips(&self, frames: &[Picture]) -> Result<Vec<Vec<f32>>> {
        let size = self.vision.image_size;
        let resized: Vec<Picture> = frames
            .iter()
            .map(|frame| frame.shorter_side(size, Filter::Bilinear))
            .collect::<Result<_>>()?;
        let mut clips = Vec::new();
        for pair in resized.chunks(FRAMES) {
            for crop in 0..CROPS {
                let seen: Vec<Vec<f32>> = (0..FRAMES)
                    .map(|at| {
                        let frame = &pair[at.min(pair.len() - 1)];
                        Ok(cut(frame, size, crop)?.normalised(MEAN, DEVIATION))
                    })
                    .collect::<Result<_>>()?;
                // By colour first, then by frame.
                let plane = size * size;
                let mut clip = Vec::with_capacity(3 * FRAMES * plane);
                for colour in 0..3 {
                    for frame in &seen {
                        clip.extend_from_slice(&frame[colour * plane..(colour + 1) * plane]);
                    }
                }
                clips.push(clip);
            }
        }
        Ok(clips)
    }

    /// The log-mel spectrograms that the tower hears, not normalised.
    ///
    /// # Errors
    /// [`Error::Config`](cart_retrieval::Error::Config) for a number of bands that makes none.
    pub fn mel_bank(&self) -> Result<MelBank> {
        MelBank::new(MelConfig::kaldi(self.audio.mels))
    }

    /// What the tower hears of a sound: three stretches of two seconds, from its beginning to
    /// its end. Where a stretch has fewer frames than the tower takes, zeros follow.
    ///
    /// # Shapes
    /// - returns: `[mels, frames]` each, normalised
    ///
    /// # Errors
    /// [`Error::Media`](cart_retrieval::Error::Media) for a sound that is shorter than a frame or
    /// cannot be resampled.
    pub fn spectrograms(&self, bank: &MelBank, sound: &Sound) -> Result<Vec<Vec<f32>>> {
        let sound = sound.resampled(bank.config().rate)?;
        let rate = f64::from(sound.rate());
        let (mels, frames) = (self.audio.mels, self.audio.frames);
        let (mean, deviation) = LOUDNESS;
        let one = |start: f64| {
            // Truncated, as the reference does.
            let (start, end) = ((start * rate) as usize, ((start + HEARD) * rate) as usize);
            let samples = sound.samples();
            let heard = samples[start.min(samples.len())..end.min(samples.len())].to_vec();
            // Kaldi takes the mean out of every frame, so that of the stretch does not matter.
            let mel = bank.spectrogram(&Sound::new(sound.rate(), heard)?)?;
            let mut values = vec![-mean / deviation; mels * frames];
            for (frame, bands) in mel.values().chunks_exact(mels).take(frames).enumerate() {
                for (band, value) in bands.iter().enumerate() {
                    values[band * frames + frame] = (value - mean) / deviation;
                }
            }
            Ok(values)
        };
        stretches(sound.seconds(), HEARD, STRETCHES).into_iter().map(one).collect()
    }
}

/// One of three squares along the longer side of a frame whose shorter side is theirs.
fn cut(frame: &Picture, size: usize, number: usize) -> Result<Picture> {
    let (width, height) = (frame.width(), frame.height());
    // The middle one takes the greater half away before it.
    let start = |length: usize| match number {
        0 => 0,
        1 => (length - size).div_ceil(2),
        _ => length - size,
    };
    let (left, top) = match height > width {
        true => (0, start(height)),
        false => (start(width), 0),
    };
    let rgb = (top..top + size)
        .flat_map(|row| {
            let at = (row * width + left) * 3;
            frame.rgb()[at..at + size * 3].iter().copied()
        })
        .collect();
    Picture::new(size, size, rgb)
}

/// ImageBind as what turns pictures, sounds and videos into embeddings of one space: unit
/// vectors, of a sound the mean over its stretches, of a video over its clips and cut-outs.
#[derive(Debug, Clone)]
pub struct ImageBindExtractor<B: Backend> {
    towers: ImageBind<B>,
    config: ImageBindConfig,
    bank: MelBank,
    device: B::Device,
    name: String,
}

impl<B: Backend> ImageBindExtractor<B> {
    /// An extractor around loaded towers; `name` says which weights they are.
    ///
    /// # Errors
    /// As [`ImageBindConfig::mel_bank`].
    pub fn new(
        towers: ImageBind<B>,
        config: ImageBindConfig,
        name: impl Into<String>,
        device: B::Device,
    ) -> Result<Self> {
        let bank = config.mel_bank()?;
        Ok(Self { towers, config, bank, device, name: name.into() })
    }

    fn views(&self, root: &Path, item: &MediaItem) -> Result<Vec<Vec<f32>>> {
        let path = root.join(&item.path);
        match item.modality {
            Modality::Image => {
                let limits = PictureLimits::default();
                let picture = Picture::open_with(path, Transparency::Ignored, limits)?;
                Ok(vec![self.config.pixels(&picture)?])
            }
            Modality::Video => self.config.clips(&open_frames(path, FRAMES * CLIPS)?),
            Modality::Audio => {
                let sound = Sound::of_item(root, item, self.bank.config().rate)?;
                self.config.spectrograms(&self.bank, &sound)
            }
        }
    }

    fn embed(&self, modality: Modality, values: Vec<f32>, count: usize) -> Tensor<B, 2> {
        let size = self.config.vision.image_size;
        match modality {
            Modality::Image => {
                let data = TensorData::new(values, [count, 3, size, size]);
                self.towers.embed_pixels(Tensor::from_data(data, &self.device))
            }
            Modality::Video => {
                let data = TensorData::new(values, [count, 3, FRAMES, size, size]);
                self.towers.embed_frames(Tensor::from_data(data, &self.device))
            }
            Modality::Audio => {
                let audio = &self.config.audio;
                let data = TensorData::new(values, [count, audio.mels, audio.frames]);
                self.towers.embed_mel(Tensor::from_data(data, &self.device))
            }
        }
    }
}

impl<B: Backend> Extractor for ImageBindExtractor<B> {
    fn name(&self) -> String {
        format!("ImageBind 2 {}", self.name)
    }

    fn dim(&self, _: Modality) -> usize {
        self.config.d_output
    }

    fn extract(&self, root: &Path, items: &[MediaItem]) -> Vec<Result<Vec<f32>>> {
        // Views of one modality have one shape; each goes through its own tower.
        let mut found = Vec::with_capacity(items.len());
        for run in items.chunk_by(|a, b| a.modality == b.modality) {
            let modality = run[0].modality;
            let most = match modality {
                Modality::Image => 1,
                Modality::Audio => STRETCHES,
                Modality::Video => CLIPS * CROPS,
            };
            found.extend(embed_views(
                run,
                most,
                |item| self.views(root, item),
                |values, count| self.embed(modality, values, count),
            ));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A picture whose red is its column and whose green is its row.
    fn ramp(width: usize, height: usize) -> Picture {
        let rgb = (0..width * height)
            .flat_map(|at| [(at % width) as u8, (at / width) as u8, 7])
            .collect();
        Picture::new(width, height, rgb).unwrap()
    }

    #[test]
    fn cut_outs_go_along_the_longer_side() {
        for (number, start) in [(0, 0), (1, 3), (2, 5)] {
            let wide = cut(&ramp(13, 8), 8, number).unwrap();
            assert_eq!((wide.pixel(0, 0), wide.pixel(7, 7)), ([start, 0, 7], [start + 7, 7, 7]));
            let high = cut(&ramp(8, 13), 8, number).unwrap();
            assert_eq!(high.pixel(0, 0), [0, start, 7]);
            assert_eq!(cut(&ramp(8, 8), 8, number).unwrap(), ramp(8, 8));
        }
    }

    #[test]
    fn a_clip_has_two_frames_colour_by_colour_and_a_lone_frame_counts_twice() {
        let config = ImageBindConfig {
            vision: crate::ImageBindVisionConfig {
                image_size: 4,
                patch_size: 2,
                ..ImageBindConfig::huge().vision
            },
            ..ImageBindConfig::huge()
        };
        let plain = |value: u8| Picture::new(4, 4, vec![value; 48]).unwrap();
        let clips = config.clips(&[plain(0), plain(255), plain(100)]).unwrap();
        assert_eq!(clips.len(), 2 * CROPS);
        let expected = |value: f32, colour: usize| (value - MEAN[colour]) / DEVIATION[colour];
        for colour in 0..3 {
            let at = |clip: usize, frame: usize| clips[clip][(colour * 2 + frame) * 16];
            assert!((at(0, 0) - expected(0.0, colour)).abs() < 1e-6);
            assert!((at(0, 1) - expected(1.0, colour)).abs() < 1e-6);
            assert_eq!(at(CROPS, 0), at(CROPS, 1));
        }
    }

    #[test]
    fn silence_behind_a_short_sound_is_a_spectrogram_of_zeros() {
        let config = ImageBindConfig::huge();
        let bank = config.mel_bank().unwrap();
        let tone: Vec<f32> = (0..8000).map(|at| (at as f32 * 0.3).sin()).collect();
        let heard = config.spectrograms(&bank, &Sound::new(16_000, tone).unwrap()).unwrap();
        assert_eq!((heard.len(), heard[0].len()), (STRETCHES, 128 * 204));
        // Half a second makes 48 frames; the others are zeros before they are normalised.
        assert_ne!(heard[0][47], 4.268 / 9.138);
        assert!(heard[0][48..204].iter().all(|&value| value == 4.268 / 9.138));
        let error = config.spectrograms(&bank, &Sound::new(16_000, vec![0.1; 100]).unwrap());
        assert!(error.is_err());
    }
}
