//! The settings of the benchmark of videos.

use cart_retrieval::Result;
use serde::{Deserialize, Serialize};

use crate::{MAX_ITEMS, within};

/// The most videos of one shape each, so that captions still tell them apart.
pub(super) const MAX_OF_ONE: usize = 33_000;

/// What the benchmark of videos is drawn from: the same settings give the same videos and captions.
///
/// # Example
/// ```
/// use cart_procedural::ClipsConfig;
///
/// let config = ClipsConfig::new(1_000).with_seed(7).with_max_shapes(2).with_captions_per_clip(3);
/// assert!(config.validate().is_ok());
/// assert!(ClipsConfig::new(0).validate().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ClipsConfig {
    /// Number of videos, 1 to [`MAX_ITEMS`].
    pub count: usize,
    /// Everything random follows from this number.
    #[serde(default)]
    pub seed: u64,
    /// Training captions of each video, 1 to 20.
    #[serde(default = "default_captions")]
    pub captions_per_clip: usize,
    /// Width and height of a frame in pixels, 32 to 256.
    #[serde(default = "default_size")]
    pub size: usize,
    /// Frames of a video, 8 to 64.
    #[serde(default = "default_frames")]
    pub frames: usize,
    /// Most shapes in a video, 1 or 2. With one there are at most 33,000 videos.
    #[serde(default = "default_shapes")]
    pub max_shapes: usize,
}

fn default_captions() -> usize {
    5
}

fn default_shapes() -> usize {
    2
}

fn default_size() -> usize {
    64
}

fn default_frames() -> usize {
    16
}

impl ClipsConfig {
    /// `count` videos of up to two shapes, 16 frames of 64 pixels, with seed 0 and five training
    /// captions each.
    ///
    /// # Example
    /// ```
    /// use cart_procedural::ClipsConfig;
    ///
    /// assert_eq!(ClipsConfig::new(10).frames, 16);
    /// ```
    pub fn new(count: usize) -> Self {
        Self {
            count,
            seed: 0,
            captions_per_clip: default_captions(),
            size: default_size(),
            frames: default_frames(),
            max_shapes: default_shapes(),
        }
    }

    /// Draws from another seed.
    ///
    /// # Example
    /// ```
    /// use cart_procedural::ClipsConfig;
    ///
    /// assert_eq!(ClipsConfig::new(10).with_seed(3).seed, 3);
    /// ```
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Number of training captions of each video.
    ///
    /// # Example
    /// ```
    /// use cart_procedural::ClipsConfig;
    ///
    /// assert_eq!(ClipsConfig::new(10).with_captions_per_clip(2).captions_per_clip, 2);
    /// ```
    pub fn with_captions_per_clip(mut self, captions: usize) -> Self {
        self.captions_per_clip = captions;
        self
    }

    /// Width and height of a frame in pixels.
    ///
    /// # Example
    /// ```
    /// use cart_procedural::ClipsConfig;
    ///
    /// assert_eq!(ClipsConfig::new(10).with_size(96).size, 96);
    /// ```
    pub fn with_size(mut self, pixels: usize) -> Self {
        self.size = pixels;
        self
    }

    /// Number of frames of a video.
    ///
    /// # Example
    /// ```
    /// use cart_procedural::ClipsConfig;
    ///
    /// assert_eq!(ClipsConfig::new(10).with_frames(24).frames, 24);
    /// ```
    pub fn with_frames(mut self, frames: usize) -> Self {
        self.frames = frames;
        self
    }

    /// Most shapes in a video.
    ///
    /// # Example
    /// ```
    /// use cart_procedural::{Clips, ClipsConfig};
    ///
    /// let clips = Clips::generate(&ClipsConfig::new(50).with_max_shapes(1))?;
    /// assert!(clips.iter().all(|clip| clip.actors().len() == 1));
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn with_max_shapes(mut self, shapes: usize) -> Self {
        self.max_shapes = shapes;
        self
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// When a setting is outside the range that its field names.
    ///
    /// # Example
    /// ```
    /// use cart_procedural::ClipsConfig;
    ///
    /// let error = ClipsConfig::new(10).with_max_shapes(3).validate().unwrap_err();
    /// assert!(error.to_string().contains("max_shapes"));
    /// ```
    pub fn validate(&self) -> Result<()> {
        within("max_shapes", self.max_shapes, 1, 2)?;
        within("count", self.count, 1, if self.max_shapes == 1 { MAX_OF_ONE } else { MAX_ITEMS })?;
        within("size", self.size, 32, 256)?;
        within("frames", self.frames, 8, 64)?;
        within("captions_per_clip", self.captions_per_clip, 1, 20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_each_setting_that_is_out_of_range() {
        let good = ClipsConfig::new(5);
        good.validate().unwrap();
        for (bad, name) in [
            (ClipsConfig::new(0), "count"),
            (ClipsConfig::new(MAX_ITEMS + 1), "count"),
            (ClipsConfig::new(33_001).with_max_shapes(1), "count"),
            (good.clone().with_max_shapes(0), "max_shapes"),
            (good.clone().with_max_shapes(3), "max_shapes"),
            (good.clone().with_size(31), "size"),
            (good.clone().with_size(257), "size"),
            (good.clone().with_frames(7), "frames"),
            (good.clone().with_frames(65), "frames"),
            (good.clone().with_captions_per_clip(0), "captions_per_clip"),
            (good.clone().with_captions_per_clip(21), "captions_per_clip"),
        ] {
            assert!(bad.validate().unwrap_err().to_string().contains(name));
        }
    }
}
