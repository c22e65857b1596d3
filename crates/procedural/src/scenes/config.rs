//! The settings of the benchmark of pictures.

use cart_retrieval::Result;
use serde::{Deserialize, Serialize};

use crate::{MAX_ITEMS, within};

/// What the benchmark of pictures is drawn from: the same settings give the same scenes, pictures
/// and captions.
///
/// # Example
/// ```
/// use cart_procedural::ScenesConfig;
///
/// let config = ScenesConfig::new(1_000).with_seed(7).with_size(96).with_captions_per_scene(3);
/// assert!(config.validate().is_ok());
/// assert!(ScenesConfig::new(0).validate().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ScenesConfig {
    /// Number of scenes, 1 to [`MAX_ITEMS`].
    pub count: usize,
    /// Everything random follows from this number.
    #[serde(default)]
    pub seed: u64,
    /// Width and height of a picture in pixels, 32 to 1024.
    #[serde(default = "default_size")]
    pub size: usize,
    /// Training captions of each scene, 1 to 20.
    #[serde(default = "default_captions")]
    pub captions_per_scene: usize,
    /// Most objects in a scene, 1 to 3. Fewer objects make shorter captions and fewer scenes that
    /// captions can tell apart: at most 3,000 with one, 33,000 with two.
    #[serde(default = "default_objects")]
    pub max_objects: usize,
}

fn default_size() -> usize {
    64
}

fn default_captions() -> usize {
    5
}

fn default_objects() -> usize {
    3
}

impl ScenesConfig {
    /// `count` scenes of 64 pixels with seed 0 and five training captions each.
    ///
    /// # Example
    /// ```
    /// use cart_procedural::ScenesConfig;
    ///
    /// assert_eq!(ScenesConfig::new(10).size, 64);
    /// ```
    pub fn new(count: usize) -> Self {
        Self {
            count,
            seed: 0,
            size: default_size(),
            captions_per_scene: default_captions(),
            max_objects: default_objects(),
        }
    }

    /// Draws from another seed.
    ///
    /// # Example
    /// ```
    /// use cart_procedural::ScenesConfig;
    ///
    /// assert_eq!(ScenesConfig::new(10).with_seed(3).seed, 3);
    /// ```
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Width and height of a picture in pixels.
    ///
    /// # Example
    /// ```
    /// use cart_procedural::ScenesConfig;
    ///
    /// assert_eq!(ScenesConfig::new(10).with_size(128).size, 128);
    /// ```
    pub fn with_size(mut self, pixels: usize) -> Self {
        self.size = pixels;
        self
    }

    /// Number of training captions of each scene.
    ///
    /// # Example
    /// ```
    /// use cart_procedural::ScenesConfig;
    ///
    /// assert_eq!(ScenesConfig::new(10).with_captions_per_scene(2).captions_per_scene, 2);
    /// ```
    pub fn with_captions_per_scene(mut self, captions: usize) -> Self {
        self.captions_per_scene = captions;
        self
    }

    /// Most objects in a scene.
    ///
    /// # Example
    /// ```
    /// use cart_procedural::{Scenes, ScenesConfig};
    ///
    /// let scenes = Scenes::generate(&ScenesConfig::new(50).with_max_objects(1))?;
    /// assert!(scenes.iter().all(|scene| scene.objects().len() == 1));
    /// # Ok::<(), cart_retrieval::Error>(())
    /// ```
    pub fn with_max_objects(mut self, objects: usize) -> Self {
        self.max_objects = objects;
        self
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// When a setting is outside the range that its field names.
    ///
    /// # Example
    /// ```
    /// use cart_procedural::ScenesConfig;
    ///
    /// let error = ScenesConfig::new(10).with_size(4).validate().unwrap_err();
    /// assert!(error.to_string().contains("size"));
    /// ```
    pub fn validate(&self) -> Result<()> {
        within("max_objects", self.max_objects, 1, 3)?;
        let most = match self.max_objects {
            1 => 3_000,
            2 => 33_000,
            _ => MAX_ITEMS,
        };
        within("count", self.count, 1, most)?;
        within("size", self.size, 32, 1024)?;
        within("captions_per_scene", self.captions_per_scene, 1, 20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_each_setting_that_is_out_of_range() {
        let good = ScenesConfig::new(5);
        good.validate().unwrap();
        for (bad, name) in [
            (ScenesConfig::new(0), "count"),
            (ScenesConfig::new(MAX_ITEMS + 1), "count"),
            (good.clone().with_max_objects(0), "max_objects"),
            (good.clone().with_max_objects(4), "max_objects"),
            (ScenesConfig::new(3001).with_max_objects(1), "count"),
            (good.clone().with_size(31), "size"),
            (good.clone().with_captions_per_scene(0), "captions_per_scene"),
        ] {
            assert!(bad.validate().unwrap_err().to_string().contains(name));
        }
    }
}
